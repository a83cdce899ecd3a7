"""The whole way: from two rasters to a change map and change polygons."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geocd import outputs
from geocd.align import Alignment, estimate, gray_reader
from geocd.align.coverage import without_contradicted
from geocd.align.measurement import Measurement, read_measurement
from geocd.align.radiometry import RADIOMETRY_OFF, Radiometry, estimate_radiometry
from geocd.clock import Clock
from geocd.config import NOT_OBSERVED, DetectConfig, grown_to, map_class, thresholds_of
from geocd.errors import ConfigError, NotAlignedError, NothingObservedError
from geocd.maps import (
    check_output,
    check_qgis_project,
    write_changes,
    write_qgis_project,
    write_raster_style,
)
from geocd.maps.change_map import ChangeMapWriter
from geocd.maps.stac import check_stac_output, write_stac
from geocd.models.card import WeightsCard
from geocd.models.files import find_weights, read_card
from geocd.outputs import check_page
from geocd.predict.backends import open_predictor
from geocd.predict.first_look import HINT, FirstLook, half_window
from geocd.predict.flow import score_pieces
from geocd.predict.memory import fit_batch
from geocd.predict.predictor import Predictor
from geocd.provenance import describe_input, provenance
from geocd.rasters.grid import Grid
from geocd.rasters.pair import Lattice, RasterPair, open_pair, with_fixed_windows
from geocd.rasters.scene import Sampler, Scene
from geocd.rasters.write import RowWriter, bounded_cache, return_freed_memory, write_cog
from geocd.report import write_report
from geocd.result import DetectResult
from geocd.tiling.stitch import hide_unobserved
from geocd.vectorize import trace_changes
from geocd.vectorize.direction import with_directions
from geocd.vectorize.extent import with_layers
from geocd.vectorize.registration import check_registration
from geocd.vectorize.relation import with_relation
from geocd.vectorize.summary import summarise

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

_CALIBRATION_PAIRS = 32
"""Painted pairs on which the ranges of 8 bits are measured."""

_PIECE = (256, 4096)
"""Rows and columns that are brought to before's grid at a time."""


def detect(
    before: str | Path,
    after: str | Path,
    output: str | Path,
    *,
    mask: str | Path | None = None,
    scores: str | Path | None = None,
    aoi: str | Path | None = None,
    report: str | Path | None = None,
    qgis_project: str | Path | None = None,
    dates: tuple[str | None, str | None] = (None, None),
    footprints: str | Path | None = None,
    stac: str | Path | None = None,
    alignment: str | Path | None = None,
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
        report: page for people to write, .html; see ``geocd.report.write_report``.
        qgis_project: QGIS project to write, .qgz; see ``geocd.maps.write_qgis_project``.
        dates: ISO dates of the images before and after; None: as their tags have them.
        footprints: vector file of known buildings, for the column ``relation``; see
            ``vectorize.relation.relate``.
        stac: STAC item to write, .json.
        alignment: what `measure` or the report of ``geocd.coregister`` says of this pair, or of
            one that it is a part of, instead of measuring it here.
        config: every setting; see ``DetectConfig``.
        overwrite: replace existing outputs.
        progress: called with the stage, the steps done and the steps in all.

    Returns:
        What was found, how the images were aligned, and where the time went.

    Raises:
        GeocdError: and its kinds; see ``geocd.errors``. Nothing is left half-written.
    """
    config = config or DetectConfig()
    targets = _targets(output, mask, scores, stac, overwrite=overwrite)
    pages = {} if report is None else {"report": Path(report)}
    projects = {} if qgis_project is None else {"QGIS project": Path(qgis_project)}
    _refuse_shared_paths(targets | pages | projects, [before, after, aoi, alignment])
    for path in pages.values():
        check_page(path, overwrite=overwrite)
    for path in projects.values():
        check_qgis_project(path, Path(output), overwrite=overwrite)
    with bounded_cache():
        result = _detect(
            before, after, targets, area=None if aoi is None else Path(aoi), config=config,
            dates=dates, footprints=None if footprints is None else Path(footprints),
            measured=None if alignment is None else Path(alignment),
            report=progress or (lambda stage, done, total: None),
        )  # fmt: skip
    for path in pages.values():
        write_report(output, before=before, after=after, mask=mask, output=path,
                     overwrite=overwrite, progress=progress)  # fmt: skip
    for path in projects.values():
        write_qgis_project(output, path, before=before, after=after, mask=mask, scores=scores,
                           overwrite=overwrite)  # fmt: skip
    return result


def _detect(
    before: str | Path, after: str | Path, targets: dict[str, Path], *, area: Path | None,
    config: DetectConfig, dates: tuple[str | None, str | None], footprints: Path | None,
    measured: Path | None, report: Progress,
) -> DetectResult:  # fmt: skip
    """``detect``, once its outputs are known to be writable."""
    clock, busy = Clock(), Clock()
    with clock.stage("open"):
        card = read_card(find_weights(config.weights))
        classes = card.change_classes
        values = thresholds_of(config.threshold, classes, card.thresholds)
        thresholds = dict(zip(classes, values, strict=True))
        low = grown_to(config.vectorize.grow, classes, values)
        known = None if measured is None else _known(measured, config)
        pair = _open_pair(before, after, card, config, area=area, known=known)
        scored = _with_fixed_windows(pair, known, config)
        config = config.with_batch(fit_batch(scored.grid.shape, card, config))
        side = config.tiling.tile_size
        window = (min(side, scored.grid.height), min(side, scored.grid.width))
        predictor = _open_predictor(config, window, lowest=min(low))
    with clock.stage("align"):
        report("align", 0, 1)
        found = _measured(pair, config, known)
        alignment, radiometry = found.alignment_on(pair.grid), found.radiometry or RADIOMETRY_OFF
        _refuse_unproven(alignment, config)
        unaligned = 0.0
        if config.unaligned == "mask":
            pair, unaligned = without_contradicted(pair, found)
        scored = found.applied_to(replace(scored, area=pair.area))
        return_freed_memory()
        report("align", 1, 1)
    dates = dates[0] or pair.before.date, dates[1] or pair.after.date
    record = _record(pair, card, config, alignment, dates)
    # A score raster is traced again by its own record: what its bands are, and the thresholds.
    record["thresholds"] = thresholds
    record["radiometry"] = radiometry.to_dict()
    if measured is not None:
        digest = hashlib.sha256(measured.read_bytes()).hexdigest()
        record["measurement"] = {"name": measured.name, "sha256": digest}
    # The motion acts on the pixels of this grid: whoever draws the pair again needs both.
    record["alignment"]["grid_transform"] = [float(v) for v in pair.grid.transform[:6]]
    with ExitStack() as stack:
        drafts = {
            name: stack.enter_context(outputs.replacing(path)) for name, path in targets.items()
        }
        work = _Workspace(stack, targets)
        observed = _score(scored, predictor, config, work, record, clock, busy, report)
        return_freed_memory()
        with clock.stage("write rasters"):
            _write_cogs(work, drafts, report)
        with clock.stage("trace"):
            changes = trace_changes(
                work.scores, classes=[map_class(name) for name in card.change_classes],
                thresholds=tuple(record["thresholds"].values()), config=config.vectorize,
                dates=dates, progress=lambda done, total: report("trace", done, total),
            )  # fmt: skip
            changes, layers = with_layers(changes, work.scores, dates=dates)
            return_freed_memory()
        with clock.stage("check"):
            changes = check_registration(
                changes, scored, predictor, found.alignment_on(scored.grid),
                thresholds=record["thresholds"], config=config,
                progress=lambda done, total: report("check", done, total),
            )  # fmt: skip
        with clock.stage("judge directions"):
            changes = with_directions(changes, scored)
            if footprints is not None:
                changes = with_relation(changes, footprints)
        with clock.stage("write polygons"):
            write_changes(changes, drafts["changes"], provenance=record, layers=layers,
                          overwrite=True)  # fmt: skip
            if "stac" in drafts:
                assets = {role: path for role, path in targets.items() if role != "stac"}
                write_stac(drafts["stac"], layers["footprint"], assets=assets, record=record,
                           place=targets["stac"])  # fmt: skip
    for role, style in (("mask", "change_map"), ("scores", "scores")):
        if role in targets:
            write_raster_style(targets[role], style=style)
    return DetectResult(
        output=targets["changes"], mask=targets.get("mask"), scores=targets.get("scores"),
        changes=changes, kinds=summarise(changes), thresholds=thresholds, observed=observed,
        alignment=alignment, radiometry=radiometry, unaligned=unaligned, weights=record["weights"],
        backend=predictor.description, reading_gsd=pair.grid.gsd(), clock=clock, busy=busy,
    )  # fmt: skip


def calibration_pairs(card: WeightsCard) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """What the ranges of 8 bits are measured on: surveys that are painted."""
    from geocd.testing.pairs import paint_pairs

    gsd = sum(card.gsd or (0.5, 0.5)) / 2
    return paint_pairs(_CALIBRATION_PAIRS, gsd=gsd, bands=len(card.bands))


def _targets(
    output: str | Path,
    mask: str | Path | None,
    scores: str | Path | None,
    stac: str | Path | None,
    *,
    overwrite: bool,
) -> dict[str, Path]:
    """The files to write, by role; checked before any work is done."""
    changes = Path(output)
    check_output(changes, overwrite=overwrite)
    targets = {"changes": changes}
    for name, path in (("mask", mask), ("scores", scores)):
        if path is not None:
            outputs.check_writable(Path(path), overwrite=overwrite)
            targets[name] = Path(path)
    if stac is not None:
        check_stac_output(Path(stac))
        outputs.check_writable(Path(stac), overwrite=overwrite)
        targets["stac"] = Path(stac)
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

    def __init__(self, stack: ExitStack, targets: dict[str, Path]) -> None:
        folder = stack.enter_context(outputs.scratch_folder(targets["changes"]))
        self.reading_scores = folder / "reading_scores.tif"
        self.scores = folder / "scores.tif"
        self.mask = folder / "mask.tif" if "mask" in targets else None


def _refuse_unproven(alignment: Alignment, config: DetectConfig) -> None:
    if config.align.mode == "require" and alignment.status == "refused":
        raise NotAlignedError(
            f"alignment is required, and none could be proven: {alignment.reason}; look at the "
            "pair, or run with --align auto to go on without"
        )


def measure(
    before: str | Path, after: str | Path, output: str | Path, *,
    config: DetectConfig | None = None, made_by: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Measurement:  # fmt: skip
    """Measure of a pair what `detect` would, and write it for ``detect(alignment=...)``.

    Args:
        before: as for `detect`.
        after: likewise.
        output: .json.
        config: as for `detect`.
        made_by: what else the file is to tell.
        overwrite: replace an existing output.

    Raises:
        GeocdError: and its kinds; see ``geocd.errors``.
    """
    config, target = config or DetectConfig(), Path(output)
    outputs.check_writable(target, overwrite=overwrite)
    with bounded_cache():
        card = read_card(find_weights(config.weights))
        pair = _open_pair(before, after, card, config)
        found = _measured(pair, config, None)
    found.write(target, made_by=made_by or {})
    return found


def _open_pair(
    before: str | Path, after: str | Path, card: WeightsCard, config: DetectConfig, *,
    area: Path | None = None, known: Measurement | None = None,
) -> RasterPair:  # fmt: skip
    tiling = config.tiling
    step = tiling.tile_size - tiling.overlap
    lattice = None if known is None else Lattice(known.grid, tiling.tile_size, step)
    return open_pair(
        before, after, channels=len(card.bands), gsd_range=card.gsd, bands=config.bands,
        gsd=config.gsd, pixel_size=config.pixel_size, area=area, lattice=lattice,
    )  # fmt: skip


def _with_fixed_windows(
    pair: RasterPair, known: Measurement | None, config: DetectConfig
) -> RasterPair:  # fmt: skip
    whole, tiling = pair.grid if known is None else known.grid, config.tiling
    step = tiling.tile_size - tiling.overlap
    return with_fixed_windows(pair, whole, tile=tiling.tile_size, step=step)


def _known(path: Path, config: DetectConfig) -> Measurement:
    found = read_measurement(path)
    if config.align.mode == "off" and found.alignment.status != "off":
        raise ConfigError(
            f"alignment is off, and {path} holds one that would be applied; leave out either"
        )
    return found


def _measured(pair: RasterPair, config: DetectConfig, known: Measurement | None) -> Measurement:
    """What is known of the pair, and what is not known measured."""
    found = known or Measurement(
        pair.grid, estimate(gray_reader(pair), pair.grid.shape, config=config.align)
    )
    if found.radiometry is None:
        found = replace(found, radiometry=_normalise(found.applied_to(pair), config))
    return replace(found, stretches=found.stretches or pair.stretches)


def _normalise(pair: RasterPair, config: DetectConfig) -> Radiometry:
    if config.radiometry == "none":
        return RADIOMETRY_OFF
    with pair.reader() as reader:
        return estimate_radiometry(reader.read_dates, pair.grid.shape)


def _open_predictor(config: DetectConfig, window: tuple[int, int], *, lowest: float) -> Predictor:
    """The backend; ``lowest`` is the least score that is asked about."""

    def _open(window: tuple[int, int]) -> Predictor:
        return open_predictor(
            config.weights, window=window, config=config.predict, calibration=calibration_pairs
        )

    predictor = _open(window)
    # A first look tells nothing apart below its own hint.
    if not config.predict.first_look or lowest <= HINT:
        return predictor
    return FirstLook(predictor, _open(half_window(window)))


def _score(
    pair: RasterPair, predictor: Predictor, config: DetectConfig, work: _Workspace,
    record: dict[str, Any], clock: Clock, busy: Clock, report: Progress,
) -> float:  # fmt: skip
    """Scores, and the change map if it is wanted, on before's grid; returns the observed share."""
    maps = ChangeMapWriter(
        pair.output_grid, predictor.card, scores=work.scores, change_map=work.mask,
        thresholds=tuple(record["thresholds"].values()), provenance=record,
    )  # fmt: skip
    with maps:
        if pair.grid == pair.output_grid:
            with clock.stage("predict"):
                _predict(pair, predictor, config, maps, report, busy)
            return maps.observed
        draft = RowWriter(work.reading_scores, pair.grid, bands=predictor.card.change_classes)
        with clock.stage("predict"), draft:
            _predict(pair, predictor, config, draft, report, busy)
        with clock.stage("resample"):
            _resample(work.reading_scores, pair.output_grid, maps, report)
    return maps.observed


def _write_cogs(work: _Workspace, drafts: dict[str, Path], report: Progress) -> None:
    wanted = [
        (source, drafts[role], overviews)
        for role, source, overviews in (
            ("mask", work.mask, "mode"), ("scores", work.scores, "average")
        )
        if role in drafts and source is not None
    ]  # fmt: skip
    report("write rasters", 0, len(wanted))
    for done, (source, target, overviews) in enumerate(wanted, 1):
        write_cog(source, target, overviews=overviews)
        report("write rasters", done, len(wanted))


class _Rows(Protocol):
    """Takes rows of scores from top to bottom, one stripe of columns after another."""

    def write(self, rows: NDArray[np.uint8], left: int = 0) -> None:
        """Append rows (classes, rows, columns)."""
        ...


def _predict(
    pair: RasterPair, predictor: Predictor, config: DetectConfig, target: _Rows,
    report: Progress, busy: Clock,
) -> None:  # fmt: skip
    """Score the pair on the reading grid."""
    seen = False
    with (
        pair.reader() as reader,
        closing(
            score_pieces(
                predictor, reader.read_part, pair.grid.shape, tiling=config.tiling,
                batch_size=config.predict.batch_size, clock=busy,
                progress=lambda done, total: report("predict", done, total),
            )
        ) as scored,
    ):  # fmt: skip
        for piece in scored:
            seen = seen or bool((piece.levels[0] != NOT_OBSERVED).any())
            with busy.stage("write"):
                target.write(piece.levels, piece.left)
    if not seen:
        raise NothingObservedError(
            f"no pixel of {pair.before.name} and {pair.after.name} is valid on both dates; "
            "look at their nodata values, alpha bands and masks"
        )


def _resample(source: Path, grid: Grid, target: _Rows, report: Progress) -> None:
    """Bring scores from the reading grid to another."""
    scene = Scene.open(source)
    height, width = _PIECE
    with Sampler(scene, grid, resampling=Resampling.bilinear) as sampler:
        for left in range(0, grid.width, width):
            cols = slice(left, min(left + width, grid.width))
            for top in range(0, grid.height, height):
                rows = slice(top, min(top + height, grid.height))
                values, valid = sampler.read_raw(rows, cols, scene.bands)
                target.write(hide_unobserved(values, valid), left)
            report("resample", cols.stop, grid.width)


def _record(
    pair: RasterPair,
    card: WeightsCard,
    config: DetectConfig,
    alignment: Alignment,
    dates: tuple[str | None, str | None],
) -> dict[str, Any]:
    inputs = {
        role: describe_input(scene.name, tuple(tile.path for tile in scene.tiles)) | {"date": date}
        for role, scene, date in (
            ("before", pair.before, dates[0]),
            ("after", pair.after, dates[1]),
        )
    }
    weights = {
        "name": card.name,
        "architecture": card.architecture,
        "sha256": card.tensors_sha256,
    }
    return provenance(inputs=inputs, weights=weights, config=config,
                      alignment=alignment.to_dict())  # fmt: skip
