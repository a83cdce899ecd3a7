"""How alignment sees a pair: gray windows of both dates, decimated, through a motion.

Two conventions of coordinates meet here. Grid coordinates have integers on the corners
of pixels, as in rasterio; array coordinates, as OpenCV counts them, have integers on
the centres:

    grid     0     1     2     3        x_grid = start + (x_array + 0.5) * step
             |--.--|--.--|--.--|
    array       0     1     2
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

GrayArray = NDArray[np.uint8]
MaskArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GrayPair:
    """The same window of both dates; four arrays of shape (height, width)."""

    reference: GrayArray
    """Gray values of the before image, 0..255."""
    moving: GrayArray
    """Gray values of the after image, sampled through the motion, 0..255."""
    valid_reference: MaskArray
    """True where ``reference`` was observed."""
    valid_moving: MaskArray
    """True where ``moving`` was observed."""


class PairReader(Protocol):
    """Reads gray images of a pair, decimated."""

    def __call__(self, rows: slice, cols: slice, *, step: float, motion: Affine) -> GrayPair:
        """The window of the reading grid that the slices select.

        Args:
            rows: rows of the reading grid, with a start and a stop.
            cols: columns of the reading grid, with a start and a stop.
            step: side of a pixel of the result, in pixels of the reading grid, at least 1.
                Pixel (c, r) has its upper left corner at (cols.start + c * step,
                rows.start + r * step).
            motion: from (col, row) of the grid to the (col, row) at which the moving image is
                sampled; if it is true, both images of the result show the same ground.
        """
        ...


def to_grid(points: FloatArray, *, rows: slice, cols: slice, step: float) -> FloatArray:
    """Grid coordinates (col, row), shape (n, 2), of array coordinates (x, y) of a window."""
    return np.array([cols.start, rows.start]) + (points + 0.5) * step


def transform_points(motion: Affine, points: FloatArray) -> FloatArray:
    """The points (n, 2), as (col, row), moved; corner convention on both sides."""
    linear = np.array([[motion.a, motion.b], [motion.d, motion.e]])
    return np.asarray(points @ linear.T + np.array([motion.c, motion.f]), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ArrayReader:
    """A ``PairReader`` over two whole arrays of one shape."""

    reference: GrayArray
    moving: GrayArray
    valid_reference: MaskArray
    valid_moving: MaskArray

    def __call__(self, rows: slice, cols: slice, *, step: float, motion: Affine) -> GrayPair:
        """See ``PairReader``."""
        place = Affine.translation(cols.start, rows.start) @ Affine.scale(step)
        size = (
            math.ceil((cols.stop - cols.start) / step),
            math.ceil((rows.stop - rows.start) / step),
        )
        reference = _sample(self.reference, self.valid_reference, place, size, step=step)
        moving = _sample(self.moving, self.valid_moving, motion @ place, size, step=step)
        return GrayPair(reference[0], moving[0], reference[1], moving[1])


def _sample(
    image: GrayArray, valid: MaskArray, place: Affine, size: tuple[int, int], *, step: float
) -> tuple[GrayArray, MaskArray]:
    """Image and mask at ``place`` (array corners to image corners); size is (width, height)."""
    # Between the corners of both sides and the centres that OpenCV counts from.
    shifted = Affine.translation(-0.5, -0.5) @ place @ Affine.translation(0.5, 0.5)
    matrix = np.array(shifted[:6], dtype=np.float64).reshape(2, 3)
    if step > 1:
        # Detail finer than the new pixels would return as false texture.
        image = _gray(cv2.GaussianBlur(image, (0, 0), 0.4 * step))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    sampled = cv2.warpAffine(image, matrix, size, flags=flags)
    # 255 only where all neighbours that were interpolated are valid.
    weight = cv2.warpAffine(valid.astype(np.uint8) * 255, matrix, size, flags=flags)
    return _gray(sampled), np.asarray(weight >= 254, dtype=np.bool_)


def _gray(image: Any) -> GrayArray:
    return np.asarray(image, dtype=np.uint8)
