"""A cheap first look decides where the network is worth running."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.config import SCORE_SCALE
from geocd.predict.predictor import Images, Predictor

HINT = 0.05
"""Score, 0..1, anywhere in the first look at a window, from which on the window is run in full.

Chosen so low that recall fell by 0.02 points at most on every set it was measured on; the figures
are in docs/performance.md.
"""


class FirstLook:
    """Runs a network on those windows only in which half the resolution shows a hint of change.

    The look costs a quarter. Most ground of most pairs has not changed, and there it is all.
    Windows without a hint keep the scores of the look, all of them below ``HINT``.

    Args:
        predictor: sees the windows as they are.
        look: the same weights, ready for windows half as high and wide.
    """

    def __init__(self, predictor: Predictor, look: Predictor) -> None:
        self.card = predictor.card
        self.in_full, self._look = predictor, look

    @property
    def description(self) -> str:
        """Backend, precision and device."""
        return f"{self.in_full.description}, where a first look at half resolution saw a hint"

    def __call__(self, before: Images, after: Images) -> NDArray[np.uint8]:
        """Levels (N, change classes, height, width), 0..254, of (N, bands, height, width)."""
        height, width = before.shape[2:]
        hints = self._look(_halved(before), _halved(after))  # (N, K, ceil(H / 2), ceil(W / 2))
        levels = hints.repeat(2, axis=2).repeat(2, axis=3)[:, :, :height, :width]
        promising = hints.max(axis=(1, 2, 3)) >= HINT * SCORE_SCALE
        if promising.any():
            levels[promising] = self.in_full(before[promising], after[promising])
        return levels


def half_window(window: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a window in the first look."""
    return -(-window[0] // 2), -(-window[1] // 2)


def _halved(images: Images) -> Images:
    height, width = half_window((images.shape[2], images.shape[3]))
    small = [
        cv2.resize(np.moveaxis(image, 0, -1), (width, height), interpolation=cv2.INTER_AREA)
        for image in images
    ]
    # OpenCV drops the axis of a single band.
    return np.stack([np.moveaxis(np.atleast_3d(image), -1, 0) for image in small]).astype(np.uint8)
