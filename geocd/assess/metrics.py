"""Pixel measures of a change map against the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocd.errors import ShapeError

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often a map and the truth agree, in pixels. Ratios are NaN where they are undefined."""

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
    def precision(self) -> float:
        """Share of the map's change that is change."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of the change that the map shows."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        wrong = self.false_positive + self.false_negative
        return _ratio(2 * self.true_positive, 2 * self.true_positive + wrong)

    @property
    def iou(self) -> float:
        """Intersection over union of the map's change and the change."""
        wrong = self.false_positive + self.false_negative
        return _ratio(self.true_positive, self.true_positive + wrong)

    @property
    def false_alarm_share(self) -> float:
        """Share of the unchanged ground that the map calls change."""
        return _ratio(self.false_positive, self.false_positive + self.true_negative)

    def to_dict(self) -> dict[str, float | int | None]:
        """Counts and ratios, JSON-ready (undefined ratios are None)."""
        ratios = {
            name: getattr(self, name)
            for name in ("precision", "recall", "f1", "iou", "false_alarm_share")
        }
        return {
            "true_positive": self.true_positive,
            "false_positive": self.false_positive,
            "false_negative": self.false_negative,
            "true_negative": self.true_negative,
            **{name: None if math.isnan(r) else round(r, 5) for name, r in ratios.items()},
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


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
