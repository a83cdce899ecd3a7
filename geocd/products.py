"""From a score raster to change polygons: another threshold, without the network."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas

from geocd import outputs
from geocd.config import PerClass, VectorizeConfig, grown_to, thresholds_of
from geocd.errors import ConfigError, GeocdWarning, InputError
from geocd.maps import check_output, check_qgis_project, write_changes, write_qgis_project
from geocd.maps.stac import check_stac_output, write_stac
from geocd.provenance import library_versions
from geocd.rasters.scene import Scene
from geocd.vectorize import trace_changes
from geocd.vectorize.compared import compared_pair
from geocd.vectorize.direction import DirectionSummary, summarise_directions, with_directions
from geocd.vectorize.extent import with_layers
from geocd.vectorize.relation import with_relation
from geocd.vectorize.scorefile import ScoreHeader, read_header
from geocd.vectorize.summary import KindSummary, ThresholdRow, summarise, sweep_thresholds
from geocd.words import counted

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""


@dataclass(frozen=True, slots=True)
class VectorizeResult:
    """What a score raster holds."""

    output: Path | None
    """The file of change polygons, if one was asked for."""
    thresholds: dict[str, float]
    """Least score of each class."""
    changes: geopandas.GeoDataFrame | None
    """The change polygons, if they were asked for."""
    kinds: dict[str, KindSummary]
    """Count and area by kind of the polygons."""
    directions: DirectionSummary | None
    """What happened to the objects, if the images were given to judge it by."""
    table: list[ThresholdRow]
    """Counts and areas at other thresholds."""

    def report(self) -> str:
        """The summary, for people."""
        lines = []
        if self.changes is not None:
            used = ", ".join(f"{name} {value:g}" for name, value in self.thresholds.items())
            lines.append(
                f"{counted(len(self.changes), 'change')} -> {self.output} (thresholds: {used})"
            )
            lines += [f"  {kind}: {s.count}, {_area(s)}" for kind, s in sorted(self.kinds.items())]
        if self.directions is not None and self.changes is not None and len(self.changes):
            lines.append(f"  {self.directions}")
        if self.table:
            lines.append("what other thresholds give, each class alone:")
            lines += [
                f"  {row.name:<10}{row.threshold:5.2f}{row.summary.count:10,}  "
                f"{_area(row.summary):>18}"
                for row in self.table
            ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The summary, JSON-ready; without the polygons."""
        return {
            "output": None if self.output is None else str(self.output),
            "thresholds": self.thresholds,
            "count": None if self.changes is None else len(self.changes),
            "kinds": {kind: s.to_dict() for kind, s in self.kinds.items()},
            "directions": None if self.directions is None else self.directions.to_dict(),
            "table": [row.to_dict() for row in self.table],
        }


def _area(summary: KindSummary) -> str:
    if summary.area_m2 is None:
        return f"{summary.area_px:,.0f} pixels"
    return f"{summary.area_m2:,.0f} m2"


def vectorize(
    scores: str | Path,
    output: str | Path | None = None,
    *,
    before: str | Path | None = None,
    after: str | Path | None = None,
    threshold: PerClass | None = None,
    config: VectorizeConfig | None = None,
    dates: tuple[str | None, str | None] = (None, None),
    footprints: str | Path | None = None,
    stac: str | Path | None = None,
    qgis_project: str | Path | None = None,
    table: tuple[float, ...] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VectorizeResult:
    """Make change polygons from scores that are there already.

    Args:
        scores: raster that ``detect`` has written (``scores=``, ``--scores``).
        output: change polygons; the extension chooses .gpkg, .geojson, .fgb or .parquet.
        before: raster of the earlier date that the scores come from, to judge directions by;
            read and aligned as that run did it. None: the direction of every change is unknown.
        after: of the later date; both or none.
        threshold: least score of a change, for every class or by class; None, and classes that
            are left out: the threshold of the run that wrote the scores.
        config: how objects are cleaned, drawn and kept.
        dates: ISO dates of the images before and after; None: as the scores have them.
        footprints: vector file of known buildings, for the column ``relation``; see
            ``vectorize.relation.relate``.
        stac: STAC item to write, .json.
        qgis_project: QGIS project to write, .qgz, with the images that the scores come from
            where they are still there; see ``geocd.maps.write_qgis_project``.
        table: thresholds to count objects and areas at.
        overwrite: replace an existing output.
        progress: called with the stage, the steps done and the steps in all.

    Returns:
        What was found.

    Raises:
        InputError: ``scores`` is no score raster of geocd, or no scores of these images.
        ConfigError: a threshold is impossible, or of no class; one image without the other, or
            without an output; nothing is asked for.
        OutputError: the output cannot be written; nothing is left half-written.
    """
    path, config = Path(scores), config or VectorizeConfig()
    target = None if output is None else Path(output)
    _refuse_half_asked(target, (before, after))
    for name, companion in (("STAC item", stac), ("QGIS project", qgis_project)):
        if companion is not None and target is None:
            raise ConfigError(
                f"a {name} is written beside change polygons; name an output for them"
            )
    _check_targets(path, target, None if stac is None else Path(stac), overwrite=overwrite)
    if target is not None and qgis_project is not None:
        check_qgis_project(Path(qgis_project), target, overwrite=overwrite)
    report = progress or (lambda stage, done, total: None)
    header = read_header(path)
    if target is None and not table:
        raise ConfigError("nothing is asked for; name an output (-o), or thresholds for the table")
    values = thresholds_of(threshold, header.classes, header.thresholds)
    header = replace(header, thresholds=values)
    grown_to(config.grow, header.classes, values)  # refused before the work
    pair = None if before is None or after is None else compared_pair(before, after, header)
    changes = None
    if target is not None:
        dates = dates[0] or header.dates[0], dates[1] or header.dates[1]
        changes = trace_changes(
            path, classes=header.classes, thresholds=values, config=config, dates=dates,
            progress=lambda done, total: report("trace", done, total),
        )  # fmt: skip
        if pair is not None:
            report("judge directions", 0, 1)
            changes = with_directions(changes, pair)
            report("judge directions", 1, 1)
        if footprints is not None:
            changes = with_relation(changes, Path(footprints))
        changes, layers = with_layers(changes, path, dates=dates)
        record = _record(path, header, config)
        with outputs.replacing(target) as draft:
            write_changes(changes, draft, provenance=record, layers=layers, overwrite=True)
        if stac is not None:
            write_stac(Path(stac), layers["footprint"], assets={"changes": target, "scores": path},
                       record=record)  # fmt: skip
        if qgis_project is not None:
            images = {
                role: str(given) if given is not None else _image_still_there(header, role)
                for role, given in (("before", before), ("after", after))
            }
            write_qgis_project(target, qgis_project, **images, scores=path, overwrite=overwrite)
    rows = [] if not table else sweep_thresholds(
        path, table, classes=header.classes, config=config,
        progress=lambda done, total: report("count", done, total),
    )  # fmt: skip
    return VectorizeResult(
        target, dict(zip(header.classes, values, strict=True)), changes,
        {} if changes is None else summarise(changes),
        None if changes is None or pair is None else summarise_directions(changes), rows,
    )  # fmt: skip


def _refuse_half_asked(
    target: Path | None, images: tuple[str | Path | None, str | Path | None]
) -> None:  # fmt: skip
    """Refuse images that could not be used."""
    if (images[0] is None) != (images[1] is None):
        given, missing = ("before", "after") if images[1] is None else ("after", "before")
        raise ConfigError(f"directions are judged on both dates, and only {given} is given; give "
                          f"{missing} too")  # fmt: skip
    if images[0] is not None and target is None:
        raise ConfigError("directions belong to change polygons; name an output for them")


def _image_still_there(header: ScoreHeader, role: str) -> str | None:
    """The image that the scores come from, if it can be opened."""
    name = header.record.get("inputs", {}).get(role, {}).get("name")
    try:
        return None if name is None else Scene.open(str(name)).name
    except InputError as error:
        warnings.warn(f"the QGIS project is without {role}: {error}", GeocdWarning, stacklevel=2)
        return None


def _check_targets(
    scores: Path, target: Path | None, stac: Path | None, *, overwrite: bool
) -> None:
    """Refuse outputs that could not be written, before the work that leads to them."""
    if target is not None:
        check_output(target, overwrite=overwrite)
    if stac is not None:
        check_stac_output(stac)
        outputs.check_writable(stac, overwrite=overwrite)
    for path in (target, stac):
        if path is not None and path.resolve() == scores.resolve():
            raise ConfigError(f"{path} is the score raster itself; give the output another name")


def _record(path: Path, header: ScoreHeader, config: VectorizeConfig) -> dict[str, Any]:
    """The record of the run that wrote the scores, and what was done with them since."""
    again = {
        "scores": str(path),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "config": dataclasses.asdict(config),
    }
    thresholds = dict(zip(header.classes, header.thresholds, strict=True))
    return header.record | {"thresholds": thresholds, "vectorized": again}
