"""One labelled pair, run through ``detect``, as arrays on before's grid."""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocd.config import CLASS_CODES, NOT_OBSERVED, DetectConfig, thresholds_of
from geocd.errors import ConfigError, DatasetError, GeocdWarning
from geocd.maps.change_map import class_codes
from geocd.models.card import WeightsCard
from geocd.pipeline import detect
from geocd.rasters.grid import Grid
from geocd.rasters.pair import RasterPair, open_pair
from geocd.rasters.scene import Sampler
from geocd.training.datasets import (
    GeoreferencedPair,
    LabelCoding,
    LabelledPair,
    read_label,
    read_pixels,
)
from geocd.training.datasets.scenes import SceneAccess
from geocd.training.tiles import IGNORE

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelledClass:
    """The class of the weights that answers to the labels."""

    kind: str
    """What the labels show."""
    coding: LabelCoding
    """What their values mean."""
    codes: tuple[int, ...]
    """Values of a change map that count as change of this kind."""
    band: int
    """Its score's plane in a score raster, counted from 0."""
    threshold: float
    """Least score of a change, 0..1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A pair on before's grid, with what was found and what is true.

    Attributes:
        before, after: shape (height, width, bands), uint8; after as it was aligned, and equal to
            before where it shows nothing.
        truth: where the labels show change that was observed, shape (height, width).
        found: where the map shows it, and the labels say something.
        valid: pixels that were observed on both dates and that the labels say something of.
        scores: 0..254, uint8; 255 where not observed.
        pixel_area: square metres a pixel; None: unknown.
    """

    before: Image
    after: Image
    truth: Mask
    found: Mask
    valid: Mask
    scores: NDArray[np.uint8]
    pixel_area: float | None


def choose_class(
    card: WeightsCard, kind: str, coding: LabelCoding, config: DetectConfig
) -> LabelledClass:
    """The class of weights that shows a kind of change; plain 'change' shows every kind.

    Raises:
        ConfigError: the weights tell other kinds only, or the labels do not show this one.
    """
    labelled = list(coding.values) or list(coding.classes[:1])
    if kind not in labelled:
        raise ConfigError(f"the labels show {', '.join(labelled)}, not {kind}; name its value")
    plain = CLASS_CODES["change"]
    codes = {CLASS_CODES.get(kind, plain), plain}
    bands = [band for band, code in enumerate(class_codes(card)) if code in codes]
    if not bands:
        raise ConfigError(
            f"{card.name} does not tell {kind} change; it tells {', '.join(card.change_classes)}"
        )
    thresholds = thresholds_of(config.threshold, card.change_classes, card.thresholds)
    return LabelledClass(kind, coding, tuple(sorted(codes)), bands[0], thresholds[bands[0]])


def run_pair(
    pair: LabelledPair, labelled: LabelledClass, card: WeightsCard, config: DetectConfig,
    scratch: Path,
) -> Sample:  # fmt: skip
    """Run ``detect`` on a pair and read everything that measures need.

    Args:
        pair: the files.
        labelled: the class that the labels show.
        card: of the weights.
        config: as for ``detect``.
        scratch: folder for the outputs, which replace those of the pair before.

    Raises:
        InputError: an image cannot be used.
        DatasetError: a file is damaged, or the label does not fit.
    """
    if isinstance(pair, GeoreferencedPair):
        config = replace(config, bands=pair.bands or config.bands, gsd=pair.gsd or config.gsd)
    else:
        for file in (pair.before, pair.after):
            read_pixels(file)  # sees what is cut short, where a reader of windows may not
    mask, scores = scratch / "mask.tif", scratch / "scores.tif"
    result = detect(pair.before, pair.after, scratch / "changes.gpkg", mask=mask, scores=scores,
                    config=config, overwrite=True)  # fmt: skip
    values = read_pixels(mask)[..., 0]
    reading = _reopen(pair, card, config).with_motion(result.alignment.motion)
    before, after = _both_dates(replace(reading, tables=result.radiometry.tables()))
    label = _read_label(pair, labelled, reading.output_grid)
    valid = (values != NOT_OBSERVED) & (label != IGNORE)
    return Sample(
        before=before, after=after, truth=(label == 1) & valid,
        found=np.isin(values, labelled.codes) & valid, valid=valid,
        scores=read_pixels(scores)[..., labelled.band],
        pixel_area=_pixel_area(reading, config.pixel_size),
    )  # fmt: skip


def _read_label(pair: LabelledPair, labelled: LabelledClass, grid: Grid) -> NDArray[np.uint8]:
    """The plane of the kind on before's grid, shape (height, width): 0, 1 or ``IGNORE``."""
    if isinstance(pair, GeoreferencedPair):
        planes = _read_placed_label(pair, labelled.coding, grid)
    else:
        planes = read_label(pair.label, labelled.coding)
        if planes.shape[1:] != grid.shape:
            raise DatasetError(
                f"{pair.label} is {planes.shape[1]} x {planes.shape[2]}, but {pair.before} is "
                f"{grid.height} x {grid.width}; they must be of one size"
            )
    return np.asarray(planes[labelled.coding.classes.index(labelled.kind)])


def _read_placed_label(
    pair: GeoreferencedPair, coding: LabelCoding, grid: Grid
) -> NDArray[np.uint8]:
    """The planes of polygons or of a raster on any grid; beyond the labelled ground ``IGNORE``."""
    planes = np.full((len(coding.classes), *grid.shape), IGNORE, np.uint8)
    with closing(SceneAccess(replace(pair, gsd=None), coding)) as scene:
        rows, cols = (slice(0, side) for side in scene.shape)
        change = scene.read(rows, cols)[2]
        place = grid.slices_over(scene.grid.footprint)
    assert place is not None  # the scene lies on before's grid
    if planes[:, *place].shape != change.shape:
        raise DatasetError(
            f"pair {pair.name}: the pixels of {pair.before} are far from square, and labels on "
            "its grid cannot be compared; resample it first, for example with gdalwarp -tr"
        )
    planes[:, *place] = change
    return planes


def _reopen(pair: LabelledPair, card: WeightsCard, config: DetectConfig) -> RasterPair:
    """The pair as ``detect`` opened it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeocdWarning)  # detect has warned already
        return open_pair(
            pair.before, pair.after, channels=len(card.bands), gsd_range=card.gsd,
            bands=config.bands, gsd=config.gsd, pixel_size=config.pixel_size,
        )  # fmt: skip


def _both_dates(pair: RasterPair) -> tuple[Image, Image]:
    """Both dates on before's grid, after as it was aligned."""
    grid = pair.output_grid
    everything = slice(0, grid.height), slice(0, grid.width)
    with (
        Sampler(pair.before, grid, stretch=pair.stretches[0]) as first,
        pair.after_on(grid) as second,
    ):
        before, _ = first.read(*everything, pair.bands_before)
        after, shown = second.read(*everything, pair.bands_after)
    after = pair.in_befores_light(after)
    after = np.where(shown, after, before)  # no difference where nothing is known
    return np.moveaxis(before, 0, -1), np.moveaxis(after, 0, -1)


def _pixel_area(pair: RasterPair, pixel_size: float | None) -> float | None:
    sides = pair.output_grid.gsd() or (pixel_size, pixel_size)
    return None if sides[0] is None or sides[1] is None else sides[0] * sides[1]
