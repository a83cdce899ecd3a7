"""What one image misses at every threshold at once, and what it invents at one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.assess.conformal import LEVELS
from geocd.config import CalibrateConfig

Mask = NDArray[np.bool_]
Scores = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Misses:
    """What is missed at levels 1, 2, ... 254."""

    missed: NDArray[np.int64]
    """Objects, pixels or images missed at each level, shape (254,)."""
    total: int
    """How many there are."""

    def __add__(self, other: Misses) -> Misses:
        return Misses(self.missed + other.missed, self.total + other.total)

    @property
    def losses(self) -> NDArray[np.float64]:
        """Share missed at each level; only where ``total`` is not 0."""
        return np.asarray(self.missed / self.total)


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """What a map shows where nothing changed."""

    objects: int
    """Objects of the map without a changed pixel."""
    pixels: int
    """Pixels of the map that did not change."""
    unchanged: int
    """Pixels that did not change, in all."""
    area_m2: float
    """Ground observed; NaN if the size of a pixel is unknown."""
    images: int = 1

    def __add__(self, other: FalseAlarms) -> FalseAlarms:
        return FalseAlarms(
            self.objects + other.objects, self.pixels + other.pixels,
            self.unchanged + other.unchanged, self.area_m2 + other.area_m2,
            self.images + other.images,
        )  # fmt: skip


def count_misses(
    scores: Scores, truth: Mask, *, config: CalibrateConfig, pixel_area: float | None
) -> Misses:
    """What is missed in an image, shape (height, width).

    An object is found at a level where at least the share ``config.cover`` of its pixels scores
    as high; an image, where any of its objects is.

    Args:
        scores: 0..254 wherever ``truth`` is set.
        truth: where change is.
        config: what counts.
        pixel_area: square metres a pixel; None: areas are in pixels.
    """
    if config.unit == "pixel":
        return _misses(scores[truth])
    found_up_to = _object_levels(scores, truth, config, pixel_area or 1.0)
    if config.unit == "image":
        return _misses(found_up_to.max(keepdims=True) if len(found_up_to) else found_up_to)
    return _misses(found_up_to)


def _misses(found_up_to: Scores) -> Misses:
    """From the highest level at which each thing is found."""
    below = np.bincount(found_up_to, minlength=LEVELS + 1).cumsum()
    return Misses(below[:LEVELS], len(found_up_to))


def _object_levels(
    scores: Scores, truth: Mask, config: CalibrateConfig, pixel_area: float
) -> Scores:
    """The highest level at which each object is still covered enough."""
    count, labels = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    inside = labels[truth]
    order = np.lexsort((scores[truth], inside))  # by object, then by rising score
    sorted_scores = scores[truth][order]
    areas = np.bincount(inside, minlength=count)[1:]
    ends = areas.cumsum()
    needed = np.array([math.ceil(config.cover * a - 1e-9) for a in areas.tolist()], np.int64)
    kept = areas * pixel_area >= config.min_area
    return np.asarray(sorted_scores[(ends - needed)[kept]])


def false_alarms(
    scores: Scores, truth: Mask, valid: Mask, *, level: int, config: CalibrateConfig,
    pixel_area: float | None,
) -> FalseAlarms:  # fmt: skip
    """What an image invents at a level; see ``count_misses``."""
    shown = (scores >= level) & valid
    count, labels = cv2.connectedComponents(shown.astype(np.uint8), connectivity=8)
    areas = np.bincount(labels[shown], minlength=count) * (pixel_area or 1.0)
    real = np.bincount(labels[shown & truth], minlength=count) > 0
    alarms = ~real & (areas >= max(config.min_area, 1e-9))
    alarms[0] = False  # the background
    area = math.nan if pixel_area is None else float(valid.sum()) * pixel_area
    return FalseAlarms(
        int(alarms.sum()), int((shown & ~truth).sum()), int((valid & ~truth).sum()), area
    )
