"""From an index to work units: pairs by date and ground, cut on a fixed grid."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geocd.archive.header import WGS84
from geocd.archive.index import read_index
from geocd.archive.pairs import pair_hash, rows_of
from geocd.archive.picture import draw_plan
from geocd.archive.rules import PlanRules
from geocd.archive.scenes import DatedScene, covered, scenes_of, usable_tiles
from geocd.errors import ConfigError, InputError
from geocd.outputs import check_writable, replacing
from geocd.rasters.grid import Grid, reproject_geometry
from geocd.words import counted

Progress = Callable[[str, int, int], None]
PLAN_VERSION = 2
"""Rises when a unit means something else."""
_REACH = 128
"""Pixels around what a unit sees in which after's tiles are listed: alignment may move them in."""
_COLUMNS = ("unit", "pair", "before_date", "after_date", "crs", "transform", "height", "width",
            "margin_before", "margin_after", "share", "megapixels", "seconds", "before", "after",
            "pair_hash", "version", "geometry")  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlanResult:
    """What is to be done."""

    output: Path
    units: geopandas.GeoDataFrame
    scenes: int
    """Scenes that the archive has."""
    left_out: dict[str, int]
    """Files that take no part, by reason."""
    picture: Path | None

    @property
    def seconds(self) -> float:
        """Estimated time of one worker."""
        return float(self.units["seconds"].sum())

    def report(self) -> str:
        """Totals, for people."""
        size = f"{counted(self.scenes, 'scene')}, {self.units['megapixels'].sum():,.1f} megapixels"
        time = f"about {_spoken(self.seconds)} for one worker"
        lines = [f"{counted(len(self.units), 'unit')} -> {self.output} ({size}, {time})"]
        dates = self.units.groupby(["before_date", "after_date"])
        lines += [
            f"  {before} to {after}: {counted(len(units), 'unit')}, "
            f"{units['megapixels'].sum():,.1f} megapixels"
            for (before, after), units in dates
        ]
        lines += [
            f"  left out: {counted(count, 'file')} {why}" for why, count in self.left_out.items()
        ]
        return "\n".join(lines + ([] if self.picture is None else [f"picture -> {self.picture}"]))

    def to_dict(self) -> dict[str, Any]:
        """Totals, JSON-ready."""
        return {
            "output": str(self.output), "units": len(self.units), "scenes": self.scenes,
            "megapixels": float(self.units["megapixels"].sum()), "seconds": self.seconds,
            "pairs": sorted(set(zip(self.units.before_date, self.units.after_date, strict=True))),
            "left_out": self.left_out,
        }  # fmt: skip


def _spoken(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:,.1f} minutes"


def plan_archive(
    index: str | Path,
    output: str | Path,
    *,
    rules: PlanRules | None = None,
    picture: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PlanResult:
    """Pair the dates of an archive where they show the same ground, and cut the pairs into units.

    The grid of the units hangs on the origin of the earlier scene's CRS, so an archive that
    grows keeps the units it has. Which dates are compared is decided unit by unit: where a
    survey has a gap, the one before is compared with the one after.

    Args:
        index: as `index_archive` writes it.
        output: the plan, GeoParquet: one row a unit, with its ground in WGS 84.
        rules: what is paired and how it is cut.
        picture: PNG of the plan to draw.
        overwrite: replace existing outputs.
        progress: called with the stage, the steps done and the steps in all.

    Raises:
        InputError: the index cannot be used, or no two dates share ground under the rules.
        OutputError: an output cannot be written.
    """
    target, rules = Path(output), rules or PlanRules()
    if target.suffix.lower() != ".parquet":
        raise ConfigError(f"a plan is written as .parquet, got {target.name!r}")
    for path in (target, *([Path(picture)] if picture else [])):
        check_writable(path, overwrite=overwrite)
    tiles, left_out = usable_tiles(read_index(Path(index)), rules)
    scenes = scenes_of(tiles, rules)
    rows = []
    for done, scene in enumerate(scenes, 1):
        rows += list(_units_from(scene, scenes, rules))
        if progress:
            progress("plan", done, len(scenes))
    if not rows:
        raise InputError(_why_no_units(scenes, left_out))
    units = geopandas.GeoDataFrame(pd.DataFrame(rows), geometry="geometry", crs="EPSG:4326")
    units = _in_order(units)[list(_COLUMNS)]
    with replacing(target) as draft:
        units.to_parquet(draft, schema_version="1.1.0", write_covering_bbox=True, index=False)
    if picture:
        draw_plan(units, tiles, Path(picture))
    return PlanResult(target, units, len(scenes), left_out, Path(picture) if picture else None)


def _in_order(units: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The units with the hashes of their pairs, by date, but one unit of each pair first.

    The first unit that is done of a pair measures it. Several workers then begin with several
    pairs, and do not wait for one another.
    """
    units = units.sort_values(["before_date", "after_date", "pair", "unit"], ignore_index=True)
    hashes = {name: pair_hash(rows_of(rows)) for name, rows in units.groupby("pair")}
    later = units["pair"].duplicated()
    units = units.assign(pair_hash=units["pair"].map(hashes))
    return units.iloc[np.argsort(later.to_numpy(), kind="stable")].reset_index(drop=True)


def _why_no_units(scenes: list[DatedScene], left_out: dict[str, int]) -> str:
    dates = sorted({scene.date for scene in scenes})
    undated = left_out.get("without a date", 0)
    hint = (
        f"{counted(undated, 'file')} without a date: dates come from STAC, from the tag "
        "TIFFTAG_DATETIME, or from the names of files and folders, with geocd archive index "
        "--date-pattern, such as survey_YYYY for a folder survey_2011"
        if undated
        else "look at the index, or loosen the rules"
    )
    found = f"the dates are {', '.join(dates)}" if dates else "there is no date"
    return f"no two dates share ground under these rules: {found}; {hint}"


def read_plan(path: Path) -> geopandas.GeoDataFrame:
    """A plan from its file.

    Raises:
        InputError: it is missing, no plan, or one of another version.
    """
    try:
        units = geopandas.read_parquet(path)
        versions = set(units["version"]) if "unit" in units else {"of something else"}
    except Exception as error:  # pyarrow raises several unrelated types
        raise InputError(f"cannot read the plan {path}: {error}") from None
    refuse_other_versions(path, versions)
    return units


def refuse_other_versions(path: Path, versions: set[Any]) -> None:
    """Raise an InputError if a plan has units of another version."""
    if versions - {PLAN_VERSION}:
        raise InputError(
            f"{path} is a plan of version {', '.join(map(str, versions))}, this geocd reads "
            f"version {PLAN_VERSION}; make it again with: geocd archive plan"
        )


def _units_from(
    scene: DatedScene, scenes: list[DatedScene], rules: PlanRules
) -> Iterator[dict[str, Any]]:
    """The units in which a scene is the earlier date."""
    if rules.pairs.startswith("baseline=") and not scene.date.startswith(rules.pairs[9:]):
        return
    later = [_Cover(s, scene.crs) for s in scenes if _paired(scene.date, s.date, rules.max_gap)]
    if not later:
        return
    earlier: list[_Cover] = []
    if rules.pairs == "first-last":
        earlier = [_Cover(s, scene.crs) for s in scenes if _paired(s.date, scene.date, None)]
    own, finer = _Cover(scene, scene.crs), rules.finer(scene.gsd)
    side = rules.side * finer
    for row, col in _cells(own, side):
        cell = _box(scene.lattice, row * side, col * side, side, side)
        ground = own.ground(cell)
        if not ground.area or _known_before(ground, earlier, cell, rules):
            continue
        for other, shared in _chosen(ground, later, cell, rules, scene.lattice.a):
            yield _unit(own, other, (row, col), shared, shared.area / ground.area, rules, finer)


class _Cover:
    """The outlines of a scene in the CRS of another, searchable."""

    def __init__(self, scene: DatedScene, crs: CRS) -> None:
        self.scene, self.outlines = scene, scene.outlines(crs)
        self._tree = shapely.STRtree(self.outlines)

    def touching(self, area: BaseGeometry) -> NDArray[np.intp]:
        """Numbers of the tiles that touch an area."""
        return np.asarray(self._tree.query(area, predicate="intersects"))

    def ground(self, cell: BaseGeometry) -> BaseGeometry:
        """The part of a cell that the scene shows."""
        return covered(self.outlines[self.touching(cell)], cell)


def _paired(before: str, after: str, max_gap: int | None) -> bool:
    # 2015 is neither before nor after 2015-06.
    if before >= after or after.startswith(before):
        return False
    return max_gap is None or (_day(after) - _day(before)).days <= max_gap


def _day(text: str) -> date:
    """The day, or the middle of the month or year where no more is known."""
    return date.fromisoformat(text + {10: "", 7: "-15", 4: "-07-01"}[len(text)])


def _known_before(
    ground: BaseGeometry, earlier: list[_Cover], cell: BaseGeometry, rules: PlanRules
) -> bool:
    """Whether an earlier date shows nearly all of the ground."""
    if not earlier:
        return False
    rest = shapely.difference(ground, shapely.union_all([c.ground(cell) for c in earlier]))
    return bool(rest.area < rules.min_overlap * ground.area)


def _chosen(
    ground: BaseGeometry, later: list[_Cover], cell: BaseGeometry, rules: PlanRules, pixel: float
) -> Iterator[tuple[_Cover, BaseGeometry]]:
    """The later scenes that the ground is compared with, and what they have in common.

    Where one date decides, others are asked for the ground that it does not show.
    """
    least = rules.min_overlap * ground.area
    one_date = rules.pairs in ("consecutive", "first-last")
    rest = ground
    for other in sorted(later, key=lambda c: c.scene.date, reverse=rules.pairs == "first-last"):
        shared = shapely.intersection(ground, other.ground(cell))
        wanted = shapely.intersection(shared, rest) if one_date else shared
        # Outlines are true to a pixel: what is no wider than two may be rounding, not ground.
        if wanted.area >= least and not shapely.buffer(wanted, -pixel).is_empty:
            yield other, shared
            rest = shapely.difference(rest, shared)


def _cells(own: _Cover, side: int) -> list[tuple[int, int]]:
    """(row, col) of the cells of the fixed grid that the outlines touch, in order."""
    cells = set()
    for bounds in shapely.bounds(own.outlines):
        cols, rows = _pixels(own.scene.lattice, bounds)
        cells |= {
            (row, col)
            for row in range(math.floor(rows[0] / side), math.ceil(rows[1] / side))
            for col in range(math.floor(cols[0] / side), math.ceil(cols[1] / side))
        }
    return sorted(cells)


def _pixels(
    lattice: Affine, bounds: NDArray[np.float64]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """First and last column, first and last row of bounds."""
    left, top = ~lattice @ (bounds[0], bounds[3])
    right, bottom = ~lattice @ (bounds[2], bounds[1])
    return (left, right), (top, bottom)


def _box(lattice: Affine, row: float, col: float, height: float, width: float) -> BaseGeometry:
    left, top = lattice @ (col, row)
    right, bottom = lattice @ (col + width, row + height)
    return shapely.box(left, bottom, right, top)


def _unit(
    own: _Cover, other: _Cover, cell: tuple[int, int], shared: BaseGeometry, share: float,
    rules: PlanRules, finer: int,
) -> dict[str, Any]:  # fmt: skip
    scene, step = own.scene, rules.step * finer
    cols, rows = _pixels(scene.lattice, shapely.bounds(shared))
    # Whole steps around the shared ground: windows stay where those of the neighbours are.
    row, col = (math.floor(first / step + 1e-6) * step for first in (rows[0], cols[0]))
    height, width = (
        math.ceil(last / step - 1e-6) * step - first
        for last, first in ((rows[1], row), (cols[1], col))
    )
    before, after = rules.margins
    if finer > 1:
        # Windows begin anywhere then: all of each that touches the unit is to be seen.
        window = max(before, rules.tiling.tile_size + rules.step) * finer
        before, after = window, window
    grid = Grid(scene.crs, scene.lattice @ Affine.translation(col, row), height, width)
    seen = grid.crop(slice(-before, height + after), slice(-before, width + after))
    pair = hashlib.sha256(f"{scene.key} {other.scene.key}".encode()).hexdigest()[:6]
    name = f"{scene.date}_{other.scene.date}_{pair}"
    megapixels = seen.height * seen.width / finer**2 / 1e6
    return {
        "unit": f"{name}_{cell[0]}_{cell[1]}", "pair": name, "before_date": scene.date,
        "after_date": other.scene.date, "crs": scene.tiles["crs"].iloc[0],
        "transform": list(grid.transform[:6]), "height": height, "width": width,
        "margin_before": before, "margin_after": after, "share": share,
        "megapixels": megapixels, "seconds": megapixels * rules.seconds_per_megapixel,
        "before": json.dumps(scene.side(own.touching(_reach(seen, 0)))),
        "after": json.dumps(other.scene.side(other.touching(_reach(seen, _REACH)))),
        "version": PLAN_VERSION, "geometry": reproject_geometry(shared, scene.crs, WGS84),
    }  # fmt: skip


def _reach(grid: Grid, pixels: int) -> BaseGeometry:
    return shapely.buffer(grid.footprint, pixels * max(grid.pixel_size), join_style="mitre")
