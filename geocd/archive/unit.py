"""One work unit: detect on its window, outputs that are there whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geocd.archive.header import hash_samples
from geocd.archive.pairs import core_grid, rows_of, whole_pair
from geocd.archive.vrt import Bands, Piece, write_vrt
from geocd.config import DetectConfig
from geocd.errors import InputError, NoOverlapError, NothingObservedError, RasterOpenError
from geocd.models.files import find_weights, read_card
from geocd.rasters.grid import Grid, reproject_geometry
from geocd.rasters.write import RowWriter, read_provenance, write_cog

UNITS, PAIRS, WORK, PLAN = "units", "pairs", "work", "plan.parquet"
"""Of a run: folders of the outputs of units, of what was measured of pairs, and of what is being
made; and the plan."""
_OF_A_PAIR = ["pair", "crs", "transform", "height", "width", "before", "after"]
"""Columns of a plan that say what a pair is."""
_RUN_VERSION = 2
"""Rises when the same unit with the same settings would give something else."""
_REACH = 128
"""Pixels of after around what a unit sees, so that alignment can move them in."""


@dataclass(frozen=True, slots=True)
class Job:
    """A unit to be done.

    Attributes:
        unit: its row of the plan, by column.
        fingerprint: of its inputs, the weights and the settings.
        folder: of the run.
        config: settings.
    """

    unit: dict[str, Any]
    fingerprint: str
    folder: str
    config: DetectConfig

    @property
    def name(self) -> str:
        """Name of the unit."""
        return str(self.unit["unit"])

    @property
    def stem(self) -> str:
        """Beginning of the names of its outputs."""
        return f"{self.name}.{self.fingerprint[:12]}"

    @property
    def grid(self) -> Grid:
        """The pixels that the unit answers for."""
        return core_grid(self.unit)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a unit.

    Attributes:
        status: "done"; "empty" (no ground was observed on both dates); "failed"; "full" (the
            disk is, so it was not done).
        error: why it failed.
        outputs: sizes of its files in bytes, by name.
        changes: polygons that touch it.
        seconds: that it took.
    """

    status: str
    error: str | None = None
    outputs: Mapping[str, int] = dataclasses.field(default_factory=dict)
    changes: int = 0
    seconds: float = 0.0


def settings_hash(config: DetectConfig) -> str:
    """What decides a result beside the inputs: weights, settings, version; not how fast."""
    settings = dataclasses.asdict(config)
    for name in ("batch_size", "memory"):
        del settings["predict"][name]
    settings["weights"] = read_card(find_weights(config.weights)).tensors_sha256
    return _hash([_RUN_VERSION, settings])


def fingerprint(unit: Mapping[str, Any], settings: str) -> str:
    """Hash of a unit's pixels, its inputs and the settings; paths of inputs do not count."""
    sides = [json.loads(unit[side]) for side in ("before", "after")]
    for side in sides:
        side["tiles"] = [tile[1:] for tile in side["tiles"]]
    pixels = [list(unit["transform"]), *(int(unit[name]) for name in (
        "height", "width", "margin_before", "margin_after"))]  # fmt: skip
    return _hash([settings, pixels, unit["crs"], sides, unit["pair_hash"]])


def measurement_path(unit: Mapping[str, Any], folder: Path, config: DetectConfig) -> Path:
    """Where a run keeps what was measured of the pair of a unit."""
    settings = dataclasses.asdict(config)
    kept = [settings[name] for name in ("align", "radiometry", "bands", "gsd", "pixel_size")]
    card = read_card(find_weights(config.weights))
    mark = _hash([_RUN_VERSION, kept, card.gsd, card.bands, unit["pair_hash"]])
    return folder / PAIRS / f"{unit['pair']}.{mark[:12]}.json"


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def do_unit(job: Job) -> Outcome:
    """Find what changed in a unit; its files appear in the folder ``units`` of the run.

    A score raster of the pixels that it answers for, and the polygons that touch them.

    Raises:
        InputError: a tile has vanished or is not the one that was planned with.
        GeocdError: and its kinds; nothing is left half-written.
    """
    begun = time.monotonic()
    sides = {role: json.loads(job.unit[role]) for role in ("before", "after")}
    for side in sides.values():
        check_tiles(side)
    # A name of its own: a worker that was given up may still be writing.
    work = Path(job.folder) / WORK / job.name / f"{os.getpid()}-{secrets.token_hex(4)}"
    work.mkdir(parents=True)
    try:
        write_inputs(job.unit, sides, work)
        try:
            outputs, changes = _detect(job, sides, work, _measured(job, work))
        except (NoOverlapError, NothingObservedError) as error:
            return Outcome("empty", str(error), seconds=time.monotonic() - begun)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):
            work.parent.rmdir()
    return Outcome("done", None, outputs, changes, time.monotonic() - begun)


def check_tiles(side: Mapping[str, Any]) -> None:
    """Refuse a date of a unit whose tiles are not those that were planned with.

    Raises:
        InputError: a tile has vanished or was altered.
    """
    for path, digest, size, *_ in side["tiles"]:
        if size is None:
            continue
        file = Path(path)
        if not file.is_file():
            raise InputError(f"{path} was there when the plan was made and is not now; index and "
                             "plan again")  # fmt: skip
        if file.stat().st_size != size or hash_samples(file) != digest:
            raise InputError(f"{path} was altered since the plan was made; index and plan again")


def write_inputs(unit: Mapping[str, Any], sides: Mapping[str, Any], work: Path) -> None:
    """Write both dates as virtual rasters of what a unit sees, before.vrt and after.vrt.

    Args:
        unit: row of a plan.
        sides: its dates, decoded, by role.
        work: folder to write to.
    """
    before, after = int(unit["margin_before"]), int(unit["margin_after"])
    grid = core_grid(unit)
    seen = grid.crop(slice(-before, grid.height + after), slice(-before, grid.width + after))
    _write_side(sides["before"], seen, work / "before.vrt")
    crs = CRS.from_user_input(sides["after"]["crs"])
    lattice = Affine(*sides["after"]["lattice"])
    outline = reproject_geometry(seen.footprint, seen.crs or crs, crs)
    left, bottom, right, top = shapely.bounds(outline)
    (col0, row0), (col1, row1) = ~lattice @ (left, top), ~lattice @ (right, bottom)
    col, row = math.floor(col0) - _REACH, math.floor(row0) - _REACH
    height, width = math.ceil(row1) + _REACH - row, math.ceil(col1) + _REACH - col
    shown = Grid(crs, lattice @ Affine.translation(col, row), height, width)
    _write_side(sides["after"], shown, work / "after.vrt")


def _write_side(side: Mapping[str, Any], grid: Grid, path: Path) -> None:
    pieces = [
        Piece(tile, Affine(*transform), height, width)
        for tile, _, _, transform, height, width in side["tiles"]
    ]
    alpha, nodata = side["alpha"], side["nodata"]
    masked = side["masked"] or (alpha is None and nodata is None)
    count = side["bands"] + (alpha is not None)
    bands = Bands(count=count, dtype=side["dtype"], nodata=None if masked else nodata,
                  alpha=alpha, masked=masked)  # fmt: skip
    write_vrt(path, grid, pieces, bands)


def _measured(job: Job, work: Path) -> Path:
    """What was measured of the unit's pair; made by the first unit that asks."""
    path = measurement_path(job.unit, Path(job.folder), job.config)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with _turn(path):
            if not path.exists():
                _measure(job, work, path)
    return path


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Wait while another process makes a file; the lock of one that dies is free.

    Where a disk has no locks nobody waits: then a pair is measured twice, and the first stays.
    """
    with (path.parent / ".lock").open("ab") as file:
        place = int(hashlib.sha256(path.name.encode()).hexdigest()[:7], 16)
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX, 1, place)
        yield


def _measure(job: Job, work: Path, path: Path) -> None:
    """Measure a pair as a whole, from the tiles of it that are as planned and can be read."""
    from geocd.pipeline import measure

    rows = pandas.read_parquet(Path(job.folder) / PLAN, columns=_OF_A_PAIR,
                               filters=[("pair", "==", job.unit["pair"])])  # fmt: skip
    pair = whole_pair(rows_of(rows))
    made_by = {name: job.unit[name] for name in ("pair", "before_date", "after_date")}
    place = work / "pair"
    place.mkdir()
    draft = place / path.name
    for usable in (_as_planned, _readable):
        sides = {role: json.loads(pair[role]) for role in ("before", "after")}
        left_out = [path for side in sides.values() for path in _take_out(side, usable)]
        write_inputs(pair, sides, place)
        try:
            measure(place / "before.vrt", place / "after.vrt", draft, config=job.config,
                    made_by=made_by | {"left_out": left_out})  # fmt: skip
            break
        except RasterOpenError:
            if usable is _readable:
                raise
    publish([draft], path.parent, keep=True)


def _take_out(side: dict[str, Any], usable: Callable[[list[Any]], bool]) -> list[str]:
    """Take the tiles out of a date that cannot be used, and tell which."""
    tiles = [(tile, usable(tile)) for tile in side["tiles"]]
    side["tiles"] = [tile for tile, good in tiles if good]
    return [tile[0] for tile, good in tiles if not good]


def _as_planned(tile: list[Any]) -> bool:
    try:
        check_tiles({"tiles": [tile]})
    except (InputError, OSError):
        return False
    return True


def _readable(tile: list[Any]) -> bool:
    """Whether every pixel of a tile can be read."""
    try:
        with rasterio.open(tile[0]) as dataset:
            for _, window in dataset.block_windows(1):
                dataset.read(window=window)
    except RasterioError:
        return False
    return _as_planned(tile)


def _detect(
    job: Job, sides: Mapping[str, Any], work: Path, alignment: Path
) -> tuple[dict[str, int], int]:
    # The pipeline brings torch along, which whoever only plans should not wait for.
    from geocd.pipeline import detect

    dates = sides["before"]["date"], sides["after"]["date"]
    result = detect(
        work / "before.vrt", work / "after.vrt", work / "changes.parquet",
        scores=work / "scores.tif", dates=dates, alignment=alignment, config=job.config,
    )  # fmt: skip
    record = _lasting_record(read_provenance(work / "scores.tif"), sides, job)
    _crop(work / "scores.tif", work / "core.tif", job, record)
    drafts = [work / f"{job.stem}{suffix}" for suffix in (".tif", ".parquet")]
    write_cog(work / "core.tif", drafts[0], overviews="average")
    touching = result.changes[result.changes.intersects(job.grid.footprint)]
    touching.to_parquet(drafts[1], schema_version="1.1.0", index=False)
    publish(drafts, Path(job.folder) / UNITS)
    return {path.name: (Path(job.folder) / UNITS / path.name).stat().st_size
            for path in drafts}, len(touching)  # fmt: skip


def publish(drafts: list[Path], folder: Path, *, keep: bool = False) -> None:
    """Move finished files to a folder of the same disk, each whole or not at all.

    What a killed worker leaves lies in a folder of its unit, where it is told from the work of
    others; the folder of outputs never holds anything unfinished.

    Args:
        drafts: on the disk of the folder.
        folder: they keep their names in it.
        keep: leave files alone that are there.
    """
    for draft in drafts:
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        if keep:
            with contextlib.suppress(FileExistsError):
                os.link(draft, folder / draft.name)
        else:
            draft.replace(folder / draft.name)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lasting_record(
    record: dict[str, Any], sides: Mapping[str, Any], job: Job
) -> dict[str, Any]:  # fmt: skip
    """The record of a run with the files that were read, and without the time of day."""
    inputs = {
        role: {"date": side["date"], "files": [{"path": t[0], "hash": t[1]} for t in side["tiles"]]}
        for role, side in sides.items()
    }
    kept = {key: value for key, value in record.items() if key != "created"}
    return kept | {"inputs": inputs, "unit": job.name, "fingerprint": job.fingerprint}


def _crop(source: Path, target: Path, job: Job, record: dict[str, Any]) -> None:
    """The scores without the margins."""
    grid, margin = job.grid, int(job.unit["margin_before"])
    with (
        rasterio.open(source) as dataset,
        RowWriter(target, grid, bands=dataset.descriptions) as writer,
    ):
        writer.tag(record)
        for top in range(0, grid.height, 256):
            height = min(256, grid.height - top)
            writer.write(dataset.read(window=Window(margin, margin + top, grid.width, height)))
