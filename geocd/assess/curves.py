"""Precision against recall over all thresholds, from a histogram of the scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocd.assess.metrics import finite
from geocd.config import SCORE_SCALE
from geocd.errors import ShapeError

_LEVELS = SCORE_SCALE + 1


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall where the scores reach 0, 1, ... 254 of 254."""

    precision: NDArray[np.float64]
    """Shape (255,), by rising threshold; NaN where no pixel scores so high."""
    recall: NDArray[np.float64]
    """Shape (255,); NaN where nothing changed."""
    threshold: float
    """The threshold that the weights ran with, 0..1."""

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic means, shape (255,); 0 where only recall is defined, and it is 0."""
        both = self.precision + self.recall
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = np.where(both > 0, 2 * self.precision * self.recall / both, 0.0)
        return np.asarray(np.where(np.isnan(self.recall), np.nan, f1))

    @property
    def average_precision(self) -> float:
        """Mean of the precision over the steps of recall, without interpolation, 0..1.

        Undefined (NaN) where nothing changed.
        """
        steps = -np.diff(self.recall, append=0.0)
        return float((steps * np.where(steps > 0, self.precision, 0)).sum())

    @property
    def f1_at_threshold(self) -> float:
        """F1 at the weights' threshold, from this one score.

        Where the weights tell several kinds, the map gives a pixel to the kind with the larger
        margin, and its F1 may differ a little.
        """
        return float(self.f1[self._level])

    @property
    def best(self) -> tuple[float, float]:
        """(threshold, F1) of the largest F1. Chosen on these images, so it is optimistic."""
        f1 = self.f1[1:-1]  # 0 and 1 are no thresholds: everything and hardly anything
        if np.isnan(f1).all():
            return math.nan, math.nan
        level = int(np.nanargmax(f1)) + 1
        # Half a level lower, so that rounding keeps the scores of the level itself.
        return (level - 0.5) / SCORE_SCALE, float(f1[level - 1])

    @property
    def _level(self) -> int:
        # As the change map is made: in float32, the score reaches the threshold.
        limit = np.float32(self.threshold) * np.float32(SCORE_SCALE)
        return int(np.argmax(np.arange(_LEVELS, dtype=np.float32) >= limit))

    @property
    def point(self) -> tuple[float, float]:
        """(recall, precision) at the weights' threshold."""
        return float(self.recall[self._level]), float(self.precision[self._level])

    def to_dict(self) -> dict[str, Any]:
        """The curve and its figures, JSON-ready (undefined values are None)."""
        best, best_f1 = self.best
        return {
            "average_precision": finite(self.average_precision),
            "threshold": self.threshold,
            "f1_at_threshold": finite(self.f1_at_threshold),
            "best_threshold": finite(best),
            "best_f1": finite(best_f1),
            "best_is": "chosen on these images, so optimistic",
            "precision": [finite(p) for p in self.precision],
            "recall": [finite(r) for r in self.recall],
        }


class ScoreHistogram:
    """Counts scores of changed and of unchanged pixels; memory does not grow with the images."""

    def __init__(self) -> None:
        self._changed = np.zeros(_LEVELS, np.int64)
        self._same = np.zeros(_LEVELS, np.int64)

    def add(
        self, scores: NDArray[np.uint8], truth: NDArray[np.bool_], *, valid: NDArray[np.bool_]
    ) -> None:
        """Count an image, shape (height, width) each.

        Args:
            scores: 0..254; only where ``valid``.
            truth: where change is.
            valid: pixels that count.

        Raises:
            ShapeError: the arrays differ in shape.
        """
        if not scores.shape == truth.shape == valid.shape:
            raise ShapeError(
                f"scores, truth and valid are {scores.shape}, {truth.shape} and {valid.shape}"
            )
        self._changed += np.bincount(scores[valid & truth], minlength=_LEVELS)
        self._same += np.bincount(scores[valid & ~truth], minlength=_LEVELS)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pixels at each score, of unchanged and of changed ground, shape (2, 255)."""
        return np.stack([self._same, self._changed])

    def curve(self, threshold: float) -> Curve:
        """Precision and recall of what was counted so far.

        Args:
            threshold: the one that the weights ran with, 0..1.
        """
        hits = self._changed[::-1].cumsum()[::-1].astype(np.float64)  # scores at or above a level
        alarms = self._same[::-1].cumsum()[::-1]
        with np.errstate(invalid="ignore"):
            return Curve(hits / (hits + alarms), hits / hits[0], threshold)
