"""Putting window scores together: shares summed in a narrow front, streamed out as they finish."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocd.config import NOT_OBSERVED, TilingConfig
from geocd.errors import ShapeError
from geocd.tiling.windows import Stripe, Window, blending_weights, starts, stripes


class Stitcher:
    """Blends overlapping window scores, holding only the pixels that are still open.

                left to right ->
        ┌─────────────────┬──────┐
        │ levels of the   │ open │   open: one window, in floats
        │ strip, finished │      │
        ├─────────────────┤      │
        │ shared: floats  │      │   rows that the next strip of windows shares
        └─────────────────┴──────┘

    Windows come in the order of ``split``, those of one stripe; those that nobody observed may be
    left out. Memory is ``classes x columns x (4 x overlap + tile)`` bytes, whatever the height.

    Args:
        shape: (height, width) of the raster.
        classes: planes of a score array.
        config: tile size and overlap.
        stripe: the columns to stitch; None: all.
    """

    def __init__(
        self, shape: tuple[int, int], classes: int, config: TilingConfig,
        stripe: Stripe | None = None,
    ) -> None:  # fmt: skip
        height, width = shape
        self.shape, self.classes = shape, classes
        self.stripe = stripe or stripes(width, config, width)[0]
        self.tile = min(config.tile_size, height), min(config.tile_size, width)
        self._tops = starts(height, config.tile_size, config.overlap)
        self._shares = blending_weights(height, config)
        lefts = starts(width, config.tile_size, config.overlap)
        self._shares_by_left = dict(zip(lefts, blending_weights(width, config), strict=True))
        # Columns are counted from the first window's.
        self._first = self.stripe.lefts[0]
        self._width = self.stripe.lefts[-1] + self.tile[1] - self._first
        self._strip, self._rows_below = -1, 0
        steps = np.diff([*self._tops, height])
        # One buffer for the rows above and below: columns are read before they are written.
        self._shared = np.zeros((classes, self.tile[0] - min(steps), self._width), np.float32)
        self._next_strip()

    def _next_strip(self) -> None:
        self._strip += 1
        if self._strip == len(self._tops):
            return
        end = [*self._tops[1:], self.shape[0]][self._strip]
        rows = end - self._tops[self._strip]
        self._rows_above, self._rows_below = self._rows_below, self.tile[0] - rows
        self._levels = np.zeros((self.classes, rows, self._width), np.uint8)
        self._left = 0
        self._open = np.zeros((self.classes, *self.tile), np.float32)
        self._open[:, : self._rows_above] = self._shared[:, : self._rows_above, : self.tile[1]]

    def add(self, window: Window, levels: NDArray[np.uint8]) -> None:
        """Add the scores of a window.

        Args:
            window: of the strip that is being stitched, right of those that were added.
            levels: shape (classes, height, width), 0..254.

        Raises:
            ShapeError: the array does not fit the window, or it is not this window's turn.
        """
        if levels.shape != (self.classes, *window.shape) or window.shape != self.tile:
            raise ShapeError(
                f"window {window} needs levels of {(self.classes, *self.tile)}, got {levels.shape}"
            )
        left = window.col - self._first
        if (
            [window.row] != self._tops[self._strip : self._strip + 1]
            or window.col not in self.stripe.lefts
            or left < self._left
        ):
            raise ShapeError(f"it is not the turn of {window}; add windows in the order of split")
        self._advance(left)
        shares = self._shares[self._strip][:, None] * self._shares_by_left[window.col]
        self._open += levels * shares

    def _advance(self, left: int) -> None:
        """Finish the columns before ``left``; what lies beyond the open window was skipped."""
        done = min(left - self._left, self.tile[1])
        if done <= 0:
            return
        rows, cols = self._levels.shape[1], slice(self._left, self._left + done)
        # Shares sum to 1 but for rounding, and half a level is added to round by cutting off.
        self._levels[:, :, cols] = self._open[:, :rows, :done] + np.float32(0.5)
        self._shared[:, : self._rows_below, cols] = self._open[:, rows:, :done]
        self._shared[:, :, self._left + done : left] = 0
        kept = self.tile[1] - done
        self._open[:, :, :kept] = self._open[:, :, done:].copy()
        self._open[:, :, kept:] = 0
        fresh = self._shared[:, : self._rows_above, left + kept : left + self.tile[1]]
        self._open[:, : self._rows_above, kept : kept + fresh.shape[2]] = fresh
        self._left = left

    def take(self) -> tuple[slice, NDArray[np.uint8]]:
        """End the strip, and give its rows that no later window touches.

        Returns:
            The rows, and levels (classes, rows, columns of the stripe), 0..254; meaningless where
            no window was added.
        """
        top = self._tops[self._strip]
        self._advance(self._width)
        inner = slice(self.stripe.cols.start - self._first, self.stripe.cols.stop - self._first)
        levels = self._levels[:, :, inner]
        self._next_strip()
        return slice(top, top + levels.shape[1]), levels


def hide_unobserved(levels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Levels (classes, height, width) with 255 where not ``valid`` (height, width)."""
    return levels if valid.all() else np.where(valid, levels, np.uint8(NOT_OBSERVED))
