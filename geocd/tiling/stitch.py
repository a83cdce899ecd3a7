"""Putting window scores together: weighted sums in a slab of rows, streamed out as they finish."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocd.config import NOT_OBSERVED, SCORE_SCALE
from geocd.errors import ShapeError
from geocd.tiling.windows import Window


def blending_window(shape: tuple[int, int], margin: int) -> NDArray[np.float32]:
    """Weights of a window's pixels: 1 inside, falling smoothly over ``margin`` to the edges.

    Never zero, so that the rim of the raster, which only one window sees, keeps its score.

    Args:
        shape: (height, width) of the window.
        margin: pixels over which the weight falls; the overlap of neighbours.
    """

    def _axis(length: int) -> NDArray[np.float64]:
        reach = min(margin, length // 2)
        ramp = np.ones(length)
        if reach > 0:
            fall = 0.5 - 0.5 * np.cos(np.pi * (np.arange(reach) + 0.5) / reach)
            ramp[:reach], ramp[-reach:] = fall, fall[::-1]
        return np.maximum(ramp, 1e-3)

    return np.outer(_axis(shape[0]), _axis(shape[1])).astype(np.float32)


class Stitcher:
    """Averages overlapping window scores, holding only the rows that are still open.

    Windows come in the order of ``split``: row by row from the top. Memory is
    ``classes x (tile + overlap) x width`` floats, whatever the raster's height.

    Args:
        shape: (height, width) of the raster.
        classes: planes of a score array.
    """

    def __init__(self, shape: tuple[int, int], classes: int) -> None:
        self.shape, self.classes = shape, classes
        self._top = 0
        self._sum = np.zeros((classes, 0, shape[1]), np.float32)
        self._weight = np.zeros((0, shape[1]), np.float32)

    def add(
        self, window: Window, scores: NDArray[np.uint8], *, weight: NDArray[np.float32]
    ) -> None:
        """Add the scores of a window.

        Args:
            window: not above rows that were taken already.
            scores: shape (classes, height, width), levels 0..254.
            weight: shape (height, width), positive.

        Raises:
            ShapeError: the arrays do not fit the window, or its rows are gone.
        """
        if scores.shape != (self.classes, *window.shape) or weight.shape != window.shape:
            raise ShapeError(
                f"window {window} needs scores of {(self.classes, *window.shape)} and weights of "
                f"{window.shape}, got {scores.shape} and {weight.shape}"
            )
        if window.row < self._top:
            raise ShapeError(f"rows from {window.row} on were taken already, up to {self._top}")
        self._grow(window.row + window.height - self._top)
        rows = slice(window.row - self._top, window.row - self._top + window.height)
        cols = window.slices[1]
        self._sum[:, rows, cols] += scores * weight
        self._weight[rows, cols] += weight

    def _grow(self, rows: int) -> None:
        missing = rows - self._weight.shape[0]
        if missing > 0:
            self._sum = np.pad(self._sum, ((0, 0), (0, missing), (0, 0)))
            self._weight = np.pad(self._weight, ((0, missing), (0, 0)))

    def take(self, below: int) -> tuple[int, NDArray[np.float32]]:
        """Finished rows: all those above ``below``, which no later window touches.

        Returns:
            The first row, and mean levels of shape (classes, rows, width), 0..254; NaN where no
            window was added.
        """
        first, count = self._top, min(below, self.shape[0]) - self._top
        self._grow(count)
        weight = self._weight[:count]
        with np.errstate(invalid="ignore"):
            scores = self._sum[:, :count] / weight
        self._sum, self._weight = self._sum[:, count:].copy(), self._weight[count:].copy()
        self._top += count
        return first, scores


def encode_scores(levels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Mean levels as bytes 0..254; 255 where not observed.

    Args:
        levels: shape (classes, height, width), 0..254; NaN counts as not observed.
        valid: shape (height, width), True where both dates were observed.
    """
    observed = valid & np.isfinite(levels).all(axis=0)
    rounded = np.rint(np.nan_to_num(levels).clip(0, SCORE_SCALE)).astype(np.uint8)
    return np.where(observed, rounded, np.uint8(NOT_OBSERVED))


def classify(
    scores: NDArray[np.uint8], thresholds: tuple[float, ...], codes: tuple[int, ...]
) -> NDArray[np.uint8]:
    """The change map of encoded scores.

    A class passes where its score reaches its threshold; where several pass, the one with the
    larger margin wins.

    Args:
        scores: shape (classes, height, width), as ``encode_scores`` gives them.
        thresholds: one a class, 0..1.
        codes: value of each class in the change map.

    Returns:
        Shape (height, width): 0, one of ``codes``, or 255 where not observed.
    """
    limits = np.array(thresholds, np.float32)[:, None, None] * SCORE_SCALE
    margin = scores.astype(np.float32) - limits  # (classes, height, width)
    best = margin.argmax(axis=0)
    out = np.where(margin.max(axis=0) >= 0, np.array(codes, np.uint8)[best], np.uint8(0))
    return np.where(scores[0] == NOT_OBSERVED, np.uint8(NOT_OBSERVED), out)
