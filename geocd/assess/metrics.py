"""Pixel measures of a change map against the truth, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from geocd.errors import ShapeError

Mask = NDArray[np.bool_]
Interval = tuple[float, float]

RATIOS = ("precision", "recall", "f1", "iou", "accuracy", "kappa", "false_alarm_share")
"""Names of the ratios of a ``Confusion``."""
BOOTSTRAPPED = ("precision", "recall", "f1", "iou")
"""Names of the ratios that get an interval."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often a map and the truth agree, in pixels.

    Ratios are NaN where they are undefined. Without change in the truth and with alarms in the
    map, F1 and IoU are 0: everything that the map says is wrong. With neither they are undefined,
    because there was nothing to find and nothing was found.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def wrong(self) -> int:
        """Pixels where the map and the truth differ: false alarms and misses."""
        return self.false_positive + self.false_negative

    @property
    def size(self) -> int:
        """Pixels in all."""
        return self.true_positive + self.true_negative + self.wrong

    @property
    def precision(self) -> float:
        """Share of the map's change that is change."""
        return ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of the change that the map shows."""
        return ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return ratio(2 * self.true_positive, 2 * self.true_positive + self.wrong)

    @property
    def iou(self) -> float:
        """Intersection over union of the map's change and the change."""
        return ratio(self.true_positive, self.true_positive + self.wrong)

    @property
    def accuracy(self) -> float:
        """Overall accuracy: the share of pixels that agree, high wherever change is rare."""
        return ratio(self.true_positive + self.true_negative, self.size)

    @property
    def kappa(self) -> float:
        """Agreement beyond that of chance, at most 1; 0 is what chance gives.

        Undefined where the map and the truth know one and the same class only.

        Source:
            Cohen (1960), doi 10.1177/001316446002000104.
        """
        alarms = self.true_positive + self.false_positive
        positives = self.true_positive + self.false_negative
        by_chance = alarms * positives + (self.size - alarms) * (self.size - positives)
        right = (self.true_positive + self.true_negative) * self.size
        return ratio(right - by_chance, self.size**2 - by_chance)

    @property
    def false_alarm_share(self) -> float:
        """Share of the unchanged ground that the map calls change."""
        return ratio(self.false_positive, self.false_positive + self.true_negative)

    def to_dict(self) -> dict[str, float | int | None]:
        """Counts and ratios, JSON-ready (undefined ratios are None)."""
        return {
            "true_positive": self.true_positive,
            "false_positive": self.false_positive,
            "false_negative": self.false_negative,
            "true_negative": self.true_negative,
            **{name: finite(getattr(self, name)) for name in RATIOS},
        }


def ratio(part: float, whole: float) -> float:
    """Part of a whole; NaN where the whole is nothing."""
    return part / whole if whole else math.nan


def finite(value: float) -> float | None:
    """A ratio as JSON knows it: five digits, None where it is undefined."""
    return None if math.isnan(value) else round(value, 5)


def confusion(predicted: Mask, truth: Mask, *, valid: Mask | None = None) -> Confusion:
    """Count agreement, shape (height, width) each; only where ``valid``.

    Raises:
        ShapeError: the masks differ in shape.
    """
    if predicted.shape != truth.shape:
        raise ShapeError(f"the map is {predicted.shape}, the truth is {truth.shape}")
    if valid is not None:
        predicted, truth = predicted[valid], truth[valid]
    hits = int((predicted & truth).sum())
    alarms, positives = int(predicted.sum()), int(truth.sum())
    return Confusion(hits, alarms - hits, positives - hits, truth.size - alarms - positives + hits)


def total(images: Iterable[Confusion]) -> Confusion:
    """One confusion of all pixels of all images."""
    return sum(images, Confusion(0, 0, 0, 0))


def worst_first(images: Mapping[str, Confusion]) -> list[str]:
    """Names of images by their number of wrong pixels, most first, then by name.

    Not by F1: in an image without change one false pixel makes it 0. Every wrong pixel costs the
    F1 of the whole set the same, so the images that come first cost it the most, with and
    without change alike.
    """
    return sorted(images, key=lambda name: (-images[name].wrong, name))


def bootstrap(
    images: Sequence[Confusion], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Percentile intervals of the ratios of the whole set, from resampled images.

    Images, not pixels, are drawn with replacement, because the pixels of one image go wrong
    together. The confusions of the drawn images are summed before ratios are taken.

    Args:
        images: one confusion an image.
        resamples: sets that are drawn.
        seed: the same seed gives the same interval.
        level: share of the resamples inside the interval.

    Returns:
        (low, high) of precision, recall, F1 and IoU; NaN with less than two images, of which
        nothing can be said, and where no resample defines the ratio. Resamples that leave a
        ratio undefined are left out of its interval.

    Source:
        Efron (1979), doi 10.1214/aos/1176344552.
    """
    n = len(images)
    if n < 2:
        return dict.fromkeys(BOOTSTRAPPED, (math.nan, math.nan))
    counts = np.array([astuple(c) for c in images], np.int64)  # (n, 4)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    hits, alarms, misses, _ = (draws @ counts).T.astype(np.float64)  # (resamples,) each
    with np.errstate(invalid="ignore"):
        ratios = {
            "precision": hits / (hits + alarms),
            "recall": hits / (hits + misses),
            "f1": 2 * hits / (2 * hits + alarms + misses),
            "iou": hits / (hits + alarms + misses),
        }
    return {name: _percentiles(values, level) for name, values in ratios.items()}


def _percentiles(values: NDArray[np.float64], level: float) -> Interval:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
