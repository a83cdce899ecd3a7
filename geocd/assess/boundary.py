"""Boundary measures: how well the outlines of a map lie on those of the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.assess.metrics import finite, ratio
from geocd.errors import ShapeError

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BoundaryAgreement:
    """Pixels of outlines that lie close to an outline of the other side."""

    mapped_close: int
    """Of the outlines of the map."""
    mapped: int
    """All outline pixels of the map."""
    true_close: int
    """Of the outlines of the truth."""
    true: int
    """All outline pixels of the truth."""

    def __add__(self, other: BoundaryAgreement) -> BoundaryAgreement:
        return BoundaryAgreement(
            self.mapped_close + other.mapped_close, self.mapped + other.mapped,
            self.true_close + other.true_close, self.true + other.true,
        )  # fmt: skip

    @property
    def precision(self) -> float:
        """Share of the map's outlines that are right; NaN without any."""
        return ratio(self.mapped_close, self.mapped)

    @property
    def recall(self) -> float:
        """Share of the true outlines that the map draws; NaN without any."""
        return ratio(self.true_close, self.true)

    @property
    def f1(self) -> float:
        """Harmonic mean; 0 where only one side has outlines, NaN where neither has."""
        if not (self.mapped and self.true):
            return ratio(0, self.mapped + self.true)
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready (undefined ratios are None)."""
        return {name: finite(getattr(self, name)) for name in ("precision", "recall", "f1")}


def match_boundaries(
    found: Mask, truth: Mask, *, valid: Mask, tolerance: float
) -> BoundaryAgreement:
    """Outline pixels of a map and of the truth that lie close to each other.

    What ends at the frame of the image, or where the ground was not observed, has no outline
    there.

    Args:
        found: the map, shape (height, width); only where ``valid``.
        truth: the same.
        valid: pixels that count.
        tolerance: how far apart they may lie, in pixels.

    Raises:
        ShapeError: the masks differ in shape.

    Source:
        Csurka et al. (2013), doi 10.5244/C.27.32.
    """
    if not found.shape == truth.shape == valid.shape:
        raise ShapeError(f"map, truth and valid are {found.shape}, {truth.shape}, {valid.shape}")
    ours, theirs = (_outline(mask, valid) for mask in (found, truth))
    return BoundaryAgreement(
        int(_near(ours, theirs, tolerance).sum()), int(ours.sum()),
        int(_near(theirs, ours, tolerance).sum()), int(theirs.sum()),
    )  # fmt: skip


def _outline(mask: Mask, valid: Mask) -> Mask:
    """Pixels of a mask beside valid pixels that are not of it."""
    outside = (valid & ~mask).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(mask & (cv2.dilate(outside, cross) > 0))


def _near(pixels: Mask, others: Mask, tolerance: float) -> Mask:
    if not others.any():
        return np.zeros_like(pixels)
    distance = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(pixels & (distance <= tolerance + 1e-4))
