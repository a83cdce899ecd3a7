"""One layer from the units of a run: traced over their borders, each change once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import geopandas
import numpy as np
import pandas as pd
import shapely
from affine import Affine
from rasterio.crs import CRS

from geocd import outputs
from geocd.align.measurement import Measurement, read_measurement
from geocd.archive.history import places_over_time, without_duplicates
from geocd.archive.journal import read_journals
from geocd.archive.pairs import grid_around, rows_of
from geocd.archive.plan import read_plan
from geocd.archive.rules import Duplicates, Mosaic
from geocd.archive.run import PLAN, SETTINGS
from geocd.archive.stac import write_collection
from geocd.archive.summary import ArchiveFacts, summary_page
from geocd.archive.unit import PAIRS, UNITS, fingerprint
from geocd.archive.vrt import Bands, Piece, write_vrt
from geocd.config import NOT_OBSERVED, VectorizeConfig
from geocd.errors import ConfigError, InputError
from geocd.maps import check_output, write_changes
from geocd.maps.stac import check_stac_output
from geocd.outputs import check_page
from geocd.rasters.grid import Grid, apply_transform
from geocd.rasters.write import PROVENANCE_TAG, write_cog
from geocd.vectorize import trace_changes
from geocd.vectorize.extent import with_layers
from geocd.vectorize.registration import REGISTRATION_COLUMNS
from geocd.vectorize.scorefile import ScoreHeader, read_header
from geocd.vectorize.summary import KindSummary, summarise
from geocd.words import counted

Progress = Callable[[str, int, int], None]
HISTORY = "history"
"""Name of the layer of places with their dates."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a run has found."""

    output: Path
    changes: geopandas.GeoDataFrame
    history: geopandas.GeoDataFrame
    """Places with their dates."""
    duplicates: int
    """Polygons that were left out, because another pair tells of the same change."""
    mosaics: tuple[Path, ...]
    missing: int
    """Units that are not done."""
    failed: int
    """Of these, units that failed."""
    kinds: dict[str, KindSummary]
    page: Path | None
    """The page over the archive, if it was asked for."""
    stac: Path | None
    """The STAC collection, if it was asked for."""

    def report(self) -> str:
        """The summary, for people."""
        lines = [f"{counted(len(self.changes), 'change')} -> {self.output}"]
        for kind, s in sorted(self.kinds.items()):
            area = f"{s.area_px:,.0f} pixels" if s.area_m2 is None else f"{s.area_m2:,.0f} m2"
            lines.append(f"  {kind}: {s.count}, {area}")
        spans = self.changes.groupby(["before_date", "after_date"]).size()
        lines += [f"  {before} to {after}: {count}" for (before, after), count in spans.items()]
        several = int((self.history["times"] > 1).sum())
        lines.append(
            f"{counted(len(self.history), 'place')}, {several} of which changed more than once"
        )
        if self.duplicates:
            lines.append(
                f"{counted(self.duplicates, 'polygon')} left out that another pair of dates has too"
            )
        if self.missing:
            lines.append(
                f"{counted(self.missing, 'unit')} not done ({self.failed} failed), so that ground "
                "counts as not observed; go on with: geocd archive run"
            )
        lines += [f"mosaic -> {path}" for path in self.mosaics]
        lines += [f"report -> {path}" for path in (self.page,) if path]
        lines += [f"STAC collection -> {path}" for path in (self.stac,) if path]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The summary, JSON-ready; without the polygons."""
        return {
            "output": str(self.output), "count": len(self.changes), "places": len(self.history),
            "duplicates": self.duplicates, "missing": self.missing, "failed": self.failed,
            "mosaics": [str(path) for path in self.mosaics],
            "kinds": {kind: s.to_dict() for kind, s in self.kinds.items()},
            "report": None if self.page is None else str(self.page),
            "stac": None if self.stac is None else str(self.stac),
        }  # fmt: skip


def merge_run(
    folder: str | Path,
    output: str | Path,
    *,
    duplicates: Duplicates = "newest",
    mosaic: Mosaic | None = None,
    report: str | Path | None = None,
    stac: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MergeResult:
    """Make one layer of changes of all units of a run.

    The scores of the units of a pair are laid side by side and traced as one raster, so no
    polygon is cut where units meet. Columns are those of `detect`, and ``pair``. A GeoPackage
    holds the layers ``history`` (see `places_over_time`), ``centrelines``, ``footprint`` and
    ``not_observed``, too; beside GeoParquet, the history is written to a file of its own.

    Args:
        folder: of a run.
        output: change polygons, .gpkg or .parquet, in the CRS of most of the units.
        duplicates: "newest": of changes that several pairs show, the newest dates are kept (see
            `without_duplicates`). "all": all stay.
        mosaic: also write the scores of each pair as one raster beside the output: "vrt" (points
            to the units) or "cog" (a copy).
        report: page over the whole archive to write, .html.
        stac: STAC collection to write, .json.
        overwrite: replace existing outputs.
        progress: called with the stage, the steps done and the steps in all.

    Raises:
        InputError: there is no run in the folder, or none of its units is done.
        OutputError: an output cannot be written.
    """
    target, run = Path(output), Path(folder)
    if duplicates not in get_args(Duplicates) or mosaic not in (None, *get_args(Mosaic)):
        raise ConfigError("duplicates are newest or all, a mosaic is vrt or cog")
    if target.suffix.lower() not in (".gpkg", ".parquet"):
        raise ConfigError(f"changes of an archive are .gpkg or .parquet, got {target.name!r}")
    page, collection = _pages(report, stac, overwrite=overwrite)
    units = _units_of(run)
    done = units[units["status"] == "done"]
    if done.empty:
        raise InputError(_why_nothing(run, units))
    pairs = list(done.groupby("pair", sort=True))
    mosaics = _mosaic_paths(target, [str(name) for name, _ in pairs], mosaic)
    for path in (target, _history_path(target), *mosaics):
        outputs.check_writable(path, overwrite=overwrite)
    check_output(target, overwrite=overwrite)
    config = VectorizeConfig(**_settings(run)["config"]["vectorize"])
    found: list[_Found] = []
    with outputs.scratch_folder(target) as scratch:
        for number, (name, chosen) in enumerate(pairs):
            if progress:
                progress("merge", number, len(pairs))
            scene = _lay_out(run, chosen, scratch / f"{name}.vrt")
            found.append(_traced(run, chosen, scene, config))
            if mosaic is not None:
                _write_mosaic(run, chosen, scene, mosaics[number])
    crs = done["crs"].mode().iloc[0]
    changes = _joined([f.changes for f in found], crs)
    history = places_over_time(changes)
    kept = without_duplicates(changes) if duplicates == "newest" else changes
    layers = {name: _joined([f.layers[name] for f in found], crs) for name in found[0].layers}
    _write(target, kept, layers | {HISTORY: history}, found[0].record, len(units))
    facts = ArchiveFacts(
        kept, history, layers["footprint"], units,
        {str(name): f.measured for (name, _), f in zip(pairs, found, strict=True) if f.measured},
        len(changes) - len(kept), found[0].record,
    )  # fmt: skip
    if page is not None:
        with outputs.replacing(page) as draft:
            draft.write_text(summary_page(facts), encoding="utf-8")
    if collection is not None:
        names = [f"scores-{name}" for name, _ in pairs] if mosaics else []
        assets = {"changes": target} | dict(zip(names, mosaics, strict=True))
        if _history_path(target) != target:
            assets["history"] = _history_path(target)
        if page is not None:
            assets["report"] = page
        write_collection(collection, layers["footprint"], assets=assets, record=found[0].record)
    if progress:
        progress("merge", len(pairs), len(pairs))
    states = units["status"].value_counts()
    missing = len(units) - int(states.get("done", 0)) - int(states.get("empty", 0))
    return MergeResult(target, kept, history, len(changes) - len(kept), tuple(mosaics), missing,
                       int(states.get("failed", 0)), summarise(kept), page, collection)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    changes: geopandas.GeoDataFrame
    layers: dict[str, geopandas.GeoDataFrame]
    record: dict[str, Any]
    measured: Measurement | None


def _pages(
    report: str | Path | None, stac: str | Path | None, *, overwrite: bool
) -> tuple[Path | None, Path | None]:  # fmt: skip
    """Where the page and the collection go; refused before any work is done."""
    page, collection = (None if path is None else Path(path) for path in (report, stac))
    if page is not None:
        check_page(page, overwrite=overwrite)
    if collection is not None:
        check_stac_output(collection)
        outputs.check_writable(collection, overwrite=overwrite)
    return page, collection


def _why_nothing(run: Path, units: pd.DataFrame) -> str:
    counts = units["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    if set(counts.index) == {"empty"}:
        return f"there is nothing to merge in {run}: no unit observed ground on both dates"
    return (
        f"no unit of {run} is done that observed anything ({counted(len(units), 'unit')}: {told}); "
        "do them with: geocd archive run, and --retry-failed for those that failed"
    )


def _settings(run: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((run / SETTINGS).read_text())
        return settings
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run} is no folder of a run ({error}); make one with: geocd archive run"
        ) from None


def _units_of(run: Path) -> geopandas.GeoDataFrame:
    """The units of the plan, with their status under the last settings and their file stems."""
    settings = _settings(run)["settings"]
    units = read_plan(run / PLAN)
    rows = rows_of(pd.DataFrame(units.drop(columns="geometry")))
    prints = [fingerprint(row, settings) for row in rows]
    states = read_journals(run)
    stems = [f"{row['unit']}.{mark[:12]}" for row, mark in zip(rows, prints, strict=True)]
    status, errors = [], []
    for row, mark, stem in zip(rows, prints, stems, strict=True):
        state = states.get((row["unit"], mark), {})
        there = state.get("status") != "done" or _whole(run / UNITS, stem, state)
        status.append(state.get("status", "missing") if there else "missing")
        errors.append(state.get("error"))
    return units.assign(status=status, stem=stems, error=errors)


def _whole(folder: Path, stem: str, state: dict[str, Any]) -> bool:
    """Whether the outputs of a unit are there as its line of the journal tells."""
    sizes = state.get("outputs") or {f"{stem}.tif": None}
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or (size is not None and path.stat().st_size != size):
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Scene:
    """The scores of a pair as one raster."""

    path: Path
    grid: Grid
    header: ScoreHeader


def _lay_out(run: Path, units: pd.DataFrame, path: Path, *, relative: bool = False) -> _Scene:
    """Write the scores of the units of a pair as one virtual raster."""
    folder = run.resolve() / UNITS
    header = read_header(folder / f"{units['stem'].iloc[0]}.tif")
    crs = CRS.from_user_input(units["crs"].iloc[0])
    grids = [
        Grid(crs, Affine(*transform), int(height), int(width))
        for transform, height, width in zip(
            units["transform"], units["height"], units["width"], strict=True
        )
    ]
    place = Path(os.path.relpath(folder, path.resolve().parent)) if relative else folder
    pieces = [
        Piece(str(place / f"{stem}.tif"), grid.transform, grid.height, grid.width)
        for stem, grid in zip(units["stem"], grids, strict=True)
    ]
    grid = grid_around(grids)
    bands = Bands(count=len(header.classes), nodata=NOT_OBSERVED, names=header.classes)
    record = {k: v for k, v in header.record.items() if k not in ("unit", "fingerprint")}
    write_vrt(path, grid, pieces, bands, relative=relative,
              tags={PROVENANCE_TAG: json.dumps(record, sort_keys=True)})  # fmt: skip
    return _Scene(path, grid, header)


def _traced(run: Path, units: pd.DataFrame, scene: _Scene, config: VectorizeConfig) -> _Found:
    dates = units["before_date"].iloc[0], units["after_date"].iloc[0]
    header = scene.header
    changes = trace_changes(scene.path, classes=header.classes, thresholds=header.thresholds,
                            config=config, dates=dates)  # fmt: skip
    changes, layers = with_layers(changes, scene.path, dates=dates)
    found = _measurement_of(run, header.record)
    changes = _judged(changes, run, units, found)
    for layer in (changes, *layers.values()):
        layer["pair"] = units["pair"].iloc[0]
    return _Found(changes, layers, header.record, found)


def _judged(
    changes: geopandas.GeoDataFrame, run: Path, units: pd.DataFrame, found: Measurement | None
) -> geopandas.GeoDataFrame:
    """The changes with what only their units saw: that of the polygon with most ground.

    That are directions and shift checks; the residual of the alignment is that of the pair.
    """
    files = [run / UNITS / f"{stem}.parquet" for stem in units["stem"]]
    parts = [part for part in map(geopandas.read_parquet, files) if len(part)]
    changes = _with_registration(changes, found)
    if not parts or changes.empty:
        return changes
    seen = pd.concat(parts, ignore_index=True)
    shapes, others = (np.asarray(t.geometry, dtype=object) for t in (changes, seen))
    own, other = shapely.STRtree(others).query(shapes, predicate="intersects")
    area = shapely.area(shapely.intersection(shapes[own], others[other]))
    best = pd.DataFrame({"own": own, "other": other, "area": area})
    best = best.sort_values(["own", "area"]).groupby("own").last()
    rows = changes.index[best.index]
    for name in ("direction", "direction_score", "shift_stable"):
        changes.loc[rows, name] = seen[name].iloc[best["other"]].to_numpy()
    return changes


def _with_registration(
    changes: geopandas.GeoDataFrame, found: Measurement | None
) -> geopandas.GeoDataFrame:
    """The changes with the columns of ``check_registration``, the shift check left open."""
    residual = np.full(len(changes), np.nan)
    if found is not None:
        middles = shapely.get_coordinates(
            shapely.point_on_surface(np.asarray(changes.geometry, dtype=object))
        )
        pixels = np.column_stack(
            apply_transform(~found.grid.transform, middles[:, 0], middles[:, 1])
        )
        residual = found.alignment.misregistration(pixels)
    changes = changes.copy()
    place = changes.columns.get_loc("observed") + 1
    changes.insert(place, REGISTRATION_COLUMNS[0], residual)
    changes.insert(place + 1, REGISTRATION_COLUMNS[1],
                   pd.array([pd.NA] * len(changes), dtype="boolean"))  # fmt: skip
    return changes


def _measurement_of(run: Path, record: dict[str, Any]) -> Measurement | None:
    """What the units of a pair were read by; None if the file has gone."""
    path = run / PAIRS / str(record.get("measurement", {}).get("name"))
    return read_measurement(path) if path.is_file() else None


def _joined(parts: list[geopandas.GeoDataFrame], crs: str) -> geopandas.GeoDataFrame:
    moved = [part.to_crs(crs) for part in parts]
    filled = [part for part in moved if len(part)] or moved[:1]
    return geopandas.GeoDataFrame(pd.concat(filled, ignore_index=True), crs=crs)


def _mosaic_paths(target: Path, pairs: list[str], mosaic: Mosaic | None) -> list[Path]:
    if mosaic is None:
        return []
    suffix = {"vrt": ".vrt", "cog": ".tif"}[mosaic]
    return [target.with_name(f"{target.stem}-scores-{pair}{suffix}") for pair in pairs]


def _write_mosaic(run: Path, units: pd.DataFrame, scene: _Scene, path: Path) -> None:
    with outputs.replacing(path) as draft:
        if path.suffix == ".vrt":
            _lay_out(run, units, draft, relative=True)
        else:
            write_cog(scene.path, draft, overviews="average")


def _history_path(target: Path) -> Path:
    """Where the history goes: its own file beside GeoParquet, which holds one layer."""
    return (
        target if target.suffix == ".gpkg" else target.with_name(f"{target.stem}-history.parquet")
    )


def _write(
    target: Path, changes: geopandas.GeoDataFrame, layers: dict[str, geopandas.GeoDataFrame],
    record: dict[str, Any], units: int,
) -> None:  # fmt: skip
    kept = ("geocd", "versions", "weights", "config", "thresholds")
    provenance = {name: record[name] for name in kept if name in record} | {"units": units}
    with ExitStack() as stack:
        if target.suffix != ".gpkg":
            draft = stack.enter_context(outputs.replacing(_history_path(target)))
            layers[HISTORY].to_parquet(draft, schema_version="1.1.0", write_covering_bbox=True,
                                       index=False)  # fmt: skip
        main = stack.enter_context(outputs.replacing(target))
        write_changes(changes, main, provenance=provenance, layers=layers, overwrite=True)
