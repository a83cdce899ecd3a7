"""The whole way: from two rasters to a change map and change polygons."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
from rasterio.enums import Resampling

from geocd import outputs
from geocd.align import Alignment, estimate, gray_reader
from geocd.align.radiometry import RADIOMETRY_OFF, Radiometry, estimate_radiometry
from geocd.config import (
    CHANGE_MAP_COLOURS,
    CLASS_CODES,
    NOT_OBSERVED,
    DetectConfig,
    thresholds_of,
)
from geocd.errors import ConfigError, NothingObservedError
from geocd.maps import check_output, write_changes, write_raster_style
from geocd.models.card import WeightsCard
from geocd.models.checkpoint import load_weights
from geocd.predict.flow import score_rows
from geocd.predict.predictor import Predictor
from geocd.predict.torch import TorchPredictor
from geocd.provenance import describe_input, provenance
from geocd.rasters.pair import RasterPair, open_pair
from geocd.rasters.scene import Sampler, Scene
from geocd.rasters.write import RowWriter, bounded_cache, write_cog
from geocd.tiling.classify import classify
from geocd.vectorize import trace_changes

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

_ROWS = 512
"""Rows that are made at a time."""


@dataclass(frozen=True, slots=True)
class KindSummary:
    """Polygons of one kind."""

    count: int
    area_m2: float | None
    """Square metres; None without a CRS."""
    area_px: float
    """Pixels of the change map."""


@dataclass(frozen=True, slots=True)
class DetectResult:
    """What a run found, and how."""

    output: Path
    """The file of change polygons."""
    mask: Path | None
    """The change map, if it was asked for."""
    scores: Path | None
    """The score raster, if it was asked for."""
    changes: geopandas.GeoDataFrame
    """The change polygons."""
    kinds: dict[str, KindSummary]
    """Count and area by kind."""
    observed: float
    """Share of before's grid that was observed on both dates, 0..1."""
    alignment: Alignment
    """What was measured, and what was done about it."""
    radiometry: Radiometry
    """How after's values were brought to before's."""
    weights: dict[str, str]
    """Name, architecture and hash of the weights."""
    backend: str
    """What ran the network."""
    reading_gsd: tuple[float, float] | None
    """Ground sample distance (dy, dx) at which the pair was read, metres."""
    seconds: dict[str, float]
    """Seconds a stage."""

    @property
    def count(self) -> int:
        """Number of change polygons."""
        return len(self.changes)

    def report(self) -> str:
        """The summary, for people."""
        lines = [f"{self.count} changes -> {self.output}"]
        for kind, s in sorted(self.kinds.items()):
            area = f"{s.area_px:,.0f} pixels" if s.area_m2 is None else f"{s.area_m2:,.0f} m2"
            lines.append(f"  {kind}: {s.count}, {area}")
        lines.append(f"observed on both dates: {self.observed:.1%} of before's grid")
        lines.append(str(self.alignment))
        if self.radiometry.status != "off":
            lines.append(str(self.radiometry))
        gsd = self.reading_gsd
        scale = "in pixel units" if gsd is None else f"at {gsd[1]:.2f} x {gsd[0]:.2f} m"
        lines.append(f"read {scale}; {self.weights['name']} on {self.backend}")
        lines += [
            f"{name} -> {p}" for name, p in (("mask", self.mask), ("scores", self.scores)) if p
        ]
        lines.append(f"{sum(self.seconds.values()):.1f} s")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The summary, JSON-ready; without the polygons."""
        return {
            "output": str(self.output),
            "mask": None if self.mask is None else str(self.mask),
            "scores": None if self.scores is None else str(self.scores),
            "count": self.count,
            "kinds": {
                kind: {"count": s.count, "area_m2": s.area_m2, "area_px": s.area_px}
                for kind, s in self.kinds.items()
            },
            "observed": round(self.observed, 6),
            "alignment": self.alignment.to_dict(),
            "radiometry": self.radiometry.to_dict(),
            "weights": self.weights,
            "backend": self.backend,
            "reading_gsd_m": self.reading_gsd,
            "seconds": {stage: round(s, 3) for stage, s in self.seconds.items()},
        }


class _Clock:
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - begun
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed


def detect(
    before: str | Path,
    after: str | Path,
    output: str | Path,
    *,
    mask: str | Path | None = None,
    scores: str | Path | None = None,
    aoi: str | Path | None = None,
    config: DetectConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DetectResult:
    """Find what changed between two images of the same place.

    Args:
        before: raster of the earlier date: a file, a URL, a VRT or a folder of tiles.
        after: raster of the later date; its CRS, resolution and extent may differ.
        output: change polygons; the extension chooses .gpkg, .geojson, .fgb or .parquet.
        mask: change map to write, a COG on before's grid (0 none, 1 building, 2 road,
            3 change, 255 not observed).
        scores: score raster to write, a COG on before's grid (one band a class, 0..254 for
            scores of 0..1, 255 not observed).
        aoi: vector file with the area of interest; outside counts as not observed.
        config: every setting; see ``DetectConfig``.
        overwrite: replace existing outputs.
        progress: called with the stage, the steps done and the steps in all.

    Returns:
        What was found, how the images were aligned, and where the time went.

    Raises:
        GeocdError: and its kinds; see ``geocd.errors``. Nothing is left half-written.
    """
    config = config or DetectConfig()
    targets = _targets(output, mask, scores, overwrite=overwrite)
    _refuse_shared_paths(targets, [before, after, aoi])
    with bounded_cache():
        return _detect(
            before, after, targets, area=None if aoi is None else Path(aoi), config=config,
            report=progress or (lambda stage, done, total: None),
        )  # fmt: skip


def _detect(
    before: str | Path, after: str | Path, targets: dict[str, Path], *, area: Path | None,
    config: DetectConfig, report: Progress,
) -> DetectResult:  # fmt: skip
    """``detect``, once its outputs are known to be writable."""
    clock = _Clock()
    with clock.stage("open"):
        weights = load_weights(config.weights)
        predictor = TorchPredictor(weights, device=config.predict.device)
        pair = open_pair(
            before, after, channels=len(weights.card.bands), gsd_range=weights.card.gsd,
            bands=config.bands, gsd=config.gsd, pixel_size=config.pixel_size,
            area=area,
        )  # fmt: skip
    with clock.stage("align"):
        report("align", 0, 1)
        alignment = estimate(gray_reader(pair), pair.grid.shape, config=config.align)
        pair = pair.with_motion(alignment.motion)
        radiometry = _normalise(pair, config)
        pair = replace(pair, tables=radiometry.tables())
        report("align", 1, 1)
    record = _record(pair, weights.card, config, alignment)
    record["radiometry"] = radiometry.to_dict()
    with ExitStack() as stack:
        drafts = {
            name: stack.enter_context(outputs.replacing(path)) for name, path in targets.items()
        }
        work = _Workspace(stack, targets["changes"])
        with clock.stage("predict"):
            _predict(pair, predictor, config, work.scores, report)
        with clock.stage("write rasters"):
            observed = _write_maps(pair, weights.card, config, work, record, report)
            for name in ("mask", "scores"):
                if name in drafts:
                    kind = "mode" if name == "mask" else "average"
                    write_cog(getattr(work, f"final_{name}"), drafts[name], overviews=kind)
        with clock.stage("trace"):
            changes = trace_changes(
                work.final_scores, classes=weights.card.change_classes,
                thresholds=tuple(record["thresholds"].values()), config=config.vectorize,
                dates=(pair.before.date, pair.after.date),
                progress=lambda done, total: report("trace", done, total),
            )  # fmt: skip
        with clock.stage("write polygons"):
            write_changes(changes, drafts["changes"], provenance=record, overwrite=True)
    if "mask" in targets:
        write_raster_style(targets["mask"])
    return DetectResult(
        output=targets["changes"], mask=targets.get("mask"), scores=targets.get("scores"),
        changes=changes, kinds=_summarise(changes), observed=observed, alignment=alignment,
        radiometry=radiometry, weights=record["weights"], backend=predictor.description,
        reading_gsd=pair.grid.gsd(), seconds=clock.seconds,
    )  # fmt: skip


def _targets(
    output: str | Path, mask: str | Path | None, scores: str | Path | None, *, overwrite: bool
) -> dict[str, Path]:
    """The files to write, by role; checked before any work is done."""
    changes = Path(output)
    check_output(changes, overwrite=overwrite)
    targets = {"changes": changes}
    for name, path in (("mask", mask), ("scores", scores)):
        if path is not None:
            outputs.check_writable(Path(path), overwrite=overwrite)
            targets[name] = Path(path)
    return targets


def _refuse_shared_paths(targets: dict[str, Path], inputs: list[str | Path | None]) -> None:
    """No output may be another output or an input; inputs are never modified."""
    taken: dict[Path, str] = {}
    for source in inputs:
        if source is not None:
            taken[Path(source).resolve()] = "an input"
    for role, path in targets.items():
        if path.resolve() in taken:
            raise ConfigError(
                f"{role} would be written to {path}, the same file as {taken[path.resolve()]}; "
                "give every output a name of its own"
            )
        taken[path.resolve()] = f"the output {role}"
        if taken.get(path.resolve().parent) == "an input":
            raise ConfigError(
                f"{role} would be written to {path}, into a folder that is read as tiles of an "
                "input; write it elsewhere"
            )


class _Workspace:
    """Temporary rasters beside the output, removed with the stack."""

    def __init__(self, stack: ExitStack, beside: Path) -> None:
        folder = stack.enter_context(outputs.scratch_folder(beside))
        self.scores = folder / "reading_scores.tif"
        self.final_scores = folder / "scores.tif"
        self.final_mask = folder / "mask.tif"


def _normalise(pair: RasterPair, config: DetectConfig) -> Radiometry:
    if config.radiometry == "none":
        return RADIOMETRY_OFF
    with pair.reader() as reader:
        return estimate_radiometry(reader.read_dates, pair.grid.shape)


def _predict(
    pair: RasterPair, predictor: Predictor, config: DetectConfig, path: Path, report: Progress
) -> None:
    """Score the pair on the reading grid, into a tiled GeoTIFF."""
    seen = False
    classes = predictor.card.change_classes
    with (
        pair.reader() as reader,
        RowWriter(path, pair.grid, bands=classes) as writer,
        closing(
            score_rows(
                predictor, reader.read_part, pair.grid.shape, tiling=config.tiling,
                batch_size=config.predict.batch_size,
                progress=lambda done, total: report("predict", done, total),
            )
        ) as scored,
    ):  # fmt: skip
        for rows in scored:
            seen = seen or bool((rows[0] != NOT_OBSERVED).any())
            writer.write(rows)
    if not seen:
        raise NothingObservedError(
            f"no pixel of {pair.before.name} and {pair.after.name} is valid on both dates; "
            "look at their nodata values, alpha bands and masks"
        )


def class_codes(card: WeightsCard) -> tuple[int, ...]:
    """Values of the card's classes in a change map."""
    return tuple(CLASS_CODES.get(name, CLASS_CODES["change"]) for name in card.change_classes)


def _write_maps(
    pair: RasterPair, card: WeightsCard, config: DetectConfig, work: _Workspace,
    record: dict[str, Any], report: Progress,
) -> float:  # fmt: skip
    """Bring the scores to before's grid and derive the change map; returns the observed share."""
    grid, classes = pair.output_grid, card.change_classes
    thresholds = tuple(record["thresholds"].values())
    bands = list(range(1, len(classes) + 1))
    observed = 0
    with (
        Sampler(Scene.open(work.scores), grid, resampling=Resampling.bilinear) as sampler,
        RowWriter(work.final_scores, grid, bands=classes) as scores,
        RowWriter(work.final_mask, grid, bands=("change",), colours=CHANGE_MAP_COLOURS) as mask,
    ):
        scores.tag(record)
        mask.tag(record)
        for top in range(0, grid.height, _ROWS):
            below = min(top + _ROWS, grid.height)
            values, valid = sampler.read_raw(slice(top, below), slice(0, grid.width), bands)
            values = np.where(valid, values, np.uint8(NOT_OBSERVED))
            observed += int(valid.sum())
            scores.write(values)
            mask.write(classify(values, thresholds, class_codes(card))[None])
            report("write rasters", below, grid.height)
    return observed / (grid.height * grid.width)


def _record(
    pair: RasterPair, card: WeightsCard, config: DetectConfig, alignment: Alignment
) -> dict[str, Any]:
    inputs = {
        role: describe_input(scene.name, tuple(tile.path for tile in scene.tiles))
        | {"date": scene.date}
        for role, scene in (("before", pair.before), ("after", pair.after))
    }
    weights = {
        "name": card.name,
        "architecture": card.architecture,
        "sha256": card.tensors_sha256,
    }
    classes = card.change_classes
    thresholds = thresholds_of(config.threshold, classes, card.thresholds)
    record = provenance(inputs=inputs, weights=weights, config=config,
                        alignment=alignment.to_dict())  # fmt: skip
    # A score raster is traced again by its own record: what its bands are, and the thresholds.
    return record | {"thresholds": dict(zip(classes, thresholds, strict=True))}


def _summarise(changes: geopandas.GeoDataFrame) -> dict[str, KindSummary]:
    summary = {}
    for kind, rows in changes.groupby("kind"):
        area = rows["area_m2"]
        summary[str(kind)] = KindSummary(
            count=len(rows),
            area_m2=None if area.isna().any() else float(area.sum()),
            area_px=float(rows["area_px"].sum()),
        )
    return summary
