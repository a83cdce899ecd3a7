"""Training chips from pairs, one or a whole plan: A/, B/, label/, lists, and an index."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely

from geocd import outputs
from geocd.align import Alignment, estimate, gray_reader
from geocd.align.coverage import contradicted_ground
from geocd.archive.blocks import Ground, Splits, blocks_of, chip_places, draw_splits, fitting_side
from geocd.archive.chipfile import write_image, write_label
from geocd.archive.chiplabels import ChipLabel, ChipLabels
from geocd.archive.chipset import agree, index_of, publish, read_parts, work_folder
from geocd.archive.header import WGS84, crs_text, hash_samples
from geocd.archive.lock import locked
from geocd.archive.pairs import core_grid
from geocd.archive.picture import draw_chips
from geocd.archive.plan import read_plan
from geocd.archive.rules import ChipRules
from geocd.archive.unit import check_tiles, write_inputs
from geocd.config import AlignConfig
from geocd.errors import (
    ConfigError,
    GeocdError,
    InputError,
    NoOverlapError,
    NotAlignedError,
    NothingObservedError,
    OutputError,
)
from geocd.provenance import describe_input
from geocd.rasters.grid import Grid, reproject_geometry
from geocd.rasters.pair import PairReader, RasterPair, open_pair
from geocd.rasters.write import bounded_cache
from geocd.training.tiles import IGNORE
from geocd.words import counted

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

_SPLITS = ("train", "val", "test")
_VERSION = 1
"""Rises when the same settings would give other chips."""


@dataclass(frozen=True, slots=True)
class TileResult:
    """The chips that were written, and those that were not."""

    output: Path
    index: geopandas.GeoDataFrame
    classes: tuple[str, ...]
    left_out: Mapping[str, int]
    """Chips that were not written, by reason."""
    failed: Mapping[str, str]
    """What went wrong with units, by name."""
    alignments: Mapping[str, int]
    """How one pair was aligned; of several, how many had which outcome."""

    def shares(self) -> dict[str, dict[str, float]]:
        """Share of the known pixels that each class has, by split."""
        weights = self.index["known"]
        return {
            str(split): {
                name: float((rows[f"share_{name}"] * weights[rows.index]).sum()
                            / max(weights[rows.index].sum(), 1e-12))
                for name in self.classes
            }
            for split, rows in self.index.groupby("split", sort=False)
        }  # fmt: skip

    def report(self) -> str:
        """The summary, for people."""
        lines = [f"{counted(len(self.index), 'chip')} -> {self.output}"]
        shares, sizes = self.shares(), self.index["split"].value_counts()
        for split in (name for name in _SPLITS if name in sizes):
            told = "".join(f", {name} {100 * s:.2f} %" for name, s in shares[split].items())
            lines.append(f"  {split}: {sizes[split]}{told}")
        lines += [f"  left out: {counted(n, 'chip')} {why}" for why, n in self.left_out.items()]
        if len(self.alignments) == 1 and sum(self.alignments.values()) == 1:
            lines.append(f"  {next(iter(self.alignments))}")
        else:
            told = ", ".join(f"{n} {status}" for status, n in sorted(self.alignments.items()))
            lines.append(f"  alignment of units: {told}")
        return "\n".join(lines + [f"  failed: {name}: {why}" for name, why in self.failed.items()])

    def to_dict(self) -> dict[str, Any]:
        """The summary, JSON-ready."""
        return {
            "output": str(self.output), "chips": len(self.index), "classes": list(self.classes),
            "splits": {str(k): int(v) for k, v in self.index["split"].value_counts().items()},
            "shares": self.shares(), "left_out": dict(self.left_out), "failed": dict(self.failed),
            "alignments": dict(self.alignments),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Source:
    """A pair that chips are cut from.

    Attributes:
        name: beginning of the names of its chips.
        ground: on which they lie.
        dates: before and after.
        label_dates: dates whose labels count, where labels have dates; None: all do.
        opened: gives the pair, aligned, and the alignment.
    """

    name: str
    ground: Ground
    dates: tuple[str | None, str | None]
    label_dates: tuple[str, str] | None
    opened: Callable[[], AbstractContextManager[tuple[RasterPair, Alignment]]]


def tile_pair(
    before: str | Path, after: str | Path, output: str | Path, *,
    labels: ChipLabels | None = None, rules: ChipRules | None = None,
    align: AlignConfig | None = None, bands: Sequence[int] | None = None,
    aoi: str | Path | None = None, picture: str | Path | None = None,
    progress: Progress | None = None,
) -> TileResult:  # fmt: skip
    """Cut a pair into training chips, on before's grid over the ground that both dates show.

    Args:
        before: raster of the earlier date: a file, a URL, a VRT or a folder of tiles.
        after: raster of the later date; its CRS, resolution and extent may differ.
        output: folder to make; see `tile_plan` for what it holds.
        labels: where change is; None: chips without labels.
        rules: size, overlap, format and splits.
        align: how after is brought onto before, as in `detect`.
        bands: to write as red, green and blue, counted from 1; None: the first three.
        aoi: vector file with the ground where labels are complete; outside it they are ignored.
        picture: PNG of some chips and of where the splits lie.
        progress: called with the stage, the steps done and the steps in all.

    Raises:
        GeocdError: and its kinds; see ``geocd.errors``.
    """
    config, area = align or AlignConfig(), None if aoi is None else Path(aoi)
    with bounded_cache():
        pair = _open(before, after, bands, area)
    name = _slug(Path(before).stem)
    dates = pair.before.date, pair.after.date
    source = _Source(name, Ground(pair.grid), dates, None, lambda: _aligned(pair, config))
    inputs = [
        describe_input(scene.name, tuple(tile.path for tile in scene.tiles))
        for scene in (pair.before, pair.after)
    ]
    return _tile(
        [source], Path(output), labels=labels, rules=rules or ChipRules(), picture=picture,
        settings={"inputs": inputs} | _settings(config, bands, area), progress=progress,
        skip_failed=False, alone=True,
    )  # fmt: skip


def tile_plan(
    plan: str | Path, output: str | Path, *, labels: ChipLabels | None = None,
    rules: ChipRules | None = None, align: AlignConfig | None = None,
    bands: Sequence[int] | None = None, aoi: str | Path | None = None,
    picture: str | Path | None = None, skip_failed: bool = False,
    progress: Progress | None = None,
) -> TileResult:  # fmt: skip
    """Cut the units of a plan into training chips; ground keeps its split on all dates.

    The folder holds ``A``, ``B`` and ``label`` (0 none, 1 and up the classes, 255 not known),
    ``list/train.txt`` and so on, and ``chips.parquet``: ``name``, ``split``, ``pair``,
    ``before_date``, ``after_date``, ``row`` and ``col`` of the upper left pixel, ``crs``,
    ``transform``, ``observed`` (share of pixels that both dates show), ``known`` (share that is
    labelled), and for each class its share of the known pixels; the geometry is the ground in
    WGS 84. All of it appears in the end; a run that was killed goes on unit by unit.

    Args:
        plan: as `plan_archive` writes it.
        output: folder to make, or that of a run that was killed.
        labels: where change is. Polygons with the columns ``before_date`` and ``after_date``
            count for these dates, others for all.
        rules: size, overlap, format and splits.
        align: how after is brought onto before, unit by unit.
        bands: to write as red, green and blue, counted from 1; None: the first three.
        aoi: vector file with the ground where labels are complete.
        picture: PNG of some chips and of where the splits lie.
        skip_failed: finish the set without units that failed.
        progress: called with the stage, the steps done and the steps in all.

    Raises:
        GeocdError: and its kinds; see ``geocd.errors``.
    """
    config, area, path = align or AlignConfig(), None if aoi is None else Path(aoi), Path(plan)
    units = [{str(k): v for k, v in row.items()} for row in read_plan(path).to_dict("records")]
    sources = [
        _Source(unit["unit"], _unit_ground(unit), dates, dates,
                partial(_opened_unit, unit, config, bands, area))
        for unit in units
        for dates in ((unit["before_date"], unit["after_date"]),)
    ]  # fmt: skip
    return _tile(
        sources, Path(output), labels=labels, rules=rules or ChipRules(), picture=picture,
        settings={"plan": hash_samples(path)} | _settings(config, bands, area),
        progress=progress, skip_failed=skip_failed, alone=False,
    )  # fmt: skip


def _unit_ground(unit: Mapping[str, Any]) -> Ground:
    """The pixels of a unit, and what both dates show of them."""
    grid = core_grid(unit)
    shown = reproject_geometry(unit["geometry"], WGS84, grid.crs or WGS84)
    # Outlines are true to a pixel.
    return Ground(grid, shapely.buffer(shown, 2 * max(grid.pixel_size)))


def _slug(name: str) -> str:
    """A name that lists separated by blanks can hold."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name) or "chip"


def _settings(
    align: AlignConfig, bands: Sequence[int] | None, area: Path | None
) -> dict[str, Any]:  # fmt: skip
    return {
        "version": _VERSION, "align": dataclasses.asdict(align),
        "bands": None if bands is None else list(bands),
        "aoi": None if area is None or not area.is_file() else hash_samples(area),
    }  # fmt: skip


def _open(
    before: str | Path, after: str | Path, bands: Sequence[int] | None, area: Path | None
) -> RasterPair:
    return open_pair(before, after, channels=3, bands=bands, area=area)


@contextmanager
def _aligned(pair: RasterPair, config: AlignConfig) -> Iterator[tuple[RasterPair, Alignment]]:
    """The pair as `detect` would compare it, and why."""
    found = estimate(gray_reader(pair), pair.grid.shape, config=config)
    if config.mode == "require" and found.status == "refused":
        raise NotAlignedError(
            f"alignment is required, and none could be proven: {found.reason}; look at the pair, "
            "or tile with --align auto to go on without"
        )
    moved = pair.with_motion(found.motion)
    yield moved.without(contradicted_ground(found, pair.grid.shape)), found


@contextmanager
def _opened_unit(
    unit: Mapping[str, Any], config: AlignConfig, bands: Sequence[int] | None, area: Path | None
) -> Iterator[tuple[RasterPair, Alignment]]:
    sides = {role: json.loads(unit[role]) for role in ("before", "after")}
    for side in sides.values():
        check_tiles(side)
    with tempfile.TemporaryDirectory(prefix="geocd-unit-") as name:
        work = Path(name)
        write_inputs(unit, sides, work)
        pair = _open(work / "before.vrt", work / "after.vrt", bands, area)
        with _aligned(pair, config) as opened:
            yield opened


def _tile(
    sources: Sequence[_Source], output: Path, *, labels: ChipLabels | None, rules: ChipRules,
    picture: str | Path | None, settings: Mapping[str, Any], progress: Progress | None,
    skip_failed: bool, alone: bool,
) -> TileResult:  # fmt: skip
    if rules.skip_empty and labels is None:
        raise ConfigError("chips without change can only be told by labels; give --labels too")
    if picture is not None:
        outputs.check_writable(Path(picture), overwrite=True)
    if labels is not None:
        labels.check_place([source.ground.grid for source in sources])
    work = work_folder(output)
    with locked(work):
        agree(work, dict(settings) | _labelled(labels, rules))
        splits = _draw(sources, rules, alone=alone)
        failed = _cut_all(sources, splits, labels, rules, work, progress)
        if failed and not skip_failed:
            raise InputError(_told(failed, output))
        parts = read_parts(work, [source.name for source in sources])
        rows = [row for part in parts for row in part["rows"]]
        left_out = sum((Counter(part["left_out"]) for part in parts), Counter[str]())
        classes = () if labels is None else labels.coding.classes
        index = index_of(rows, classes)
        if index.empty:
            raise NothingObservedError(
                f"no chip is left: {'; '.join(f'{n} {why}' for why, n in left_out.items())}"
            )
        publish(work, output, index)
    shutil.rmtree(work, ignore_errors=True)
    if picture is not None:
        draw_chips(output, index, Path(picture))
    told = Counter(part["text" if alone else "status"] for part in parts)
    return TileResult(output, index, classes, left_out, failed, told)


def _labelled(labels: ChipLabels | None, rules: ChipRules) -> dict[str, Any]:
    return {"rules": dataclasses.asdict(rules), "labels": labels and labels.to_dict()}


def _draw(sources: Sequence[_Source], rules: ChipRules, *, alone: bool) -> Splits:
    grounds = [source.ground for source in sources]
    cut = {"size": rules.size, "overlap": rules.overlap}
    side = rules.block or fitting_side(grounds, **cut, alone=alone)
    shares = dict(zip(_SPLITS, rules.shares, strict=True))
    blocks = blocks_of(grounds, side, alone=alone)
    return draw_splits(blocks, grounds, **cut, shares=shares, seed=rules.seed)


def _cut_all(
    sources: Sequence[_Source], splits: Splits, labels: ChipLabels | None, rules: ChipRules,
    work: Path, progress: Progress | None,
) -> dict[str, str]:  # fmt: skip
    """Cut what is not cut yet; returns what went wrong, by name."""
    failed = {}
    for done, source in enumerate(sources):
        part = work / "parts" / f"{source.name}.json"
        if part.exists():
            continue

        def _tell(chips: int, total: int) -> None:
            if progress and len(sources) == 1:
                progress("tile", chips, total)

        try:
            with bounded_cache(), ExitStack() as stack:
                found = _Cutter(source, splits, labels, rules, work, stack).cut(_tell)
        except (NoOverlapError, NothingObservedError) as error:
            if len(sources) == 1:
                raise
            found = {"rows": [], "text": str(error), "status": "no common ground",
                     "left_out": {}}  # fmt: skip
        except OutputError:
            raise  # the disk is full, which no other unit would mend
        except GeocdError as error:
            if len(sources) == 1:
                raise
            failed[source.name] = str(error)
            continue
        # What the part tells of must have reached the disk before it.
        os.sync()
        with outputs.replacing(part) as draft:
            draft.write_text(json.dumps(found))
        if progress and len(sources) > 1:
            progress("tile", done + 1, len(sources))
    return failed


def _told(failed: Mapping[str, str], output: Path) -> str:
    first = next(iter(failed))
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return (
        f"{counted(len(failed), 'unit')} failed: {first}: {failed[first]}{more}; {output} is not "
        "finished: mend that and call again, or go on without them with --skip-failed"
    )


class _Cutter:
    """Cuts the chips of one pair."""

    def __init__(
        self, source: _Source, splits: Splits, labels: ChipLabels | None, rules: ChipRules,
        work: Path, stack: ExitStack,
    ) -> None:  # fmt: skip
        self.source, self.splits, self.rules, self.work = source, splits, rules, work
        pair, alignment = stack.enter_context(source.opened())
        self._alignment = {"text": str(alignment), "status": alignment.status}
        self._reader: PairReader = stack.enter_context(pair.reader())
        self._label: ChipLabel | None = None
        if labels is not None:
            self._label = stack.enter_context(labels.opened(source.ground.grid, source.label_dates))
        place = ~pair.grid.transform @ source.ground.grid.transform
        self._shift = round(place.f), round(place.c)

    def cut(self, tell: Callable[[int, int], None]) -> dict[str, Any]:
        """Write the chips; returns their rows of the index, and how many were left out and why."""
        left_out, rows = Counter[str](), []
        ground, size = self.source.ground, self.rules.size
        places = chip_places(ground, self.splits.blocks, size, self.rules.overlap)
        for done, place in enumerate(places, 1):
            grid = ground.chip(place, size)
            split = self.splits.split(grid)
            if split is None:
                left_out["across ground of several splits"] += 1
            else:
                row = self._write(place, grid)
                if isinstance(row, str):
                    left_out[row] += 1
                else:
                    rows.append(row | {"split": split})
            tell(done, len(places))
        return {"rows": rows, "left_out": dict(left_out)} | self._alignment

    def _write(self, place: tuple[int, int], grid: Grid) -> dict[str, Any] | str:
        """Write a chip; returns its row of the index, or why it was left out."""
        before, after, valid = self._read(place)
        if not valid.any():
            return "not observed"
        facts: dict[str, Any] = {"known": float(valid.mean())}
        name = f"{self.source.name}_{place[0]:05d}_{place[1]:05d}"
        if self._label is not None:
            label = self._label.read(place, self.rules.size)
            label[~valid] = IGNORE
            known = label != IGNORE
            if not known.any():
                return "not labelled"
            shares = self._label.shares(label)
            if self.rules.skip_empty and not any(shares.values()):
                return "without change"
            facts = {"known": float(known.mean())} | shares
            write_label(self._path("label", name), label, grid)
        for folder, image in (("A", before), ("B", after)):
            write_image(self._path(folder, name), image, grid)
        return {
            "name": name, "pair": self.source.name, "before_date": self.source.dates[0],
            "after_date": self.source.dates[1], "row": place[0], "col": place[1],
            "crs": crs_text(grid.crs), "transform": list(grid.transform[:6]),
            "height": grid.height, "width": grid.width, "observed": float(valid.mean()),
        } | facts  # fmt: skip

    def _path(self, folder: str, name: str) -> Path:
        return self.work / folder / f"{name}.{self.rules.format}"

    def _read(self, place: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both dates and where they were observed; what lies outside the pair is made up."""
        size, shape = self.rules.size, self._reader.grid.shape
        spans, pads = [], []
        for begin, shift, length in zip(place, self._shift, shape, strict=True):
            low, high = begin + shift, begin + shift + size
            first, last = min(max(0, low), length), max(0, min(length, high))
            spans.append(slice(first, max(first, last)))
            pads.append((first - low, high - max(first, last)))
        valid = np.zeros((size, size), bool)
        if any(span.start == span.stop for span in spans):
            empty = np.zeros((3, size, size), np.uint8)
            return empty, empty, valid
        window = self._reader.read(*spans)
        valid = np.pad(window.valid, pads)
        before, after = (
            np.pad(image, [(0, 0), *pads], mode="edge") for image in (window.before, window.after)
        )
        return before, after, valid
