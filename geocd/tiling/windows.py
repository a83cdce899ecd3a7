"""Cutting a raster into overlapping windows: no files, no tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocd.config import TilingConfig


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a raster, in pixels."""

    row: int
    col: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns), for indexing an array of the whole raster."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.col, self.col + self.width),
        )


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where windows begin along one axis: as few as cover it, evenly spread, all inside.

        length 9, tile 4, overlap 1         |0..3|
                                              |2..5|
                                                 |5..8|   neighbours share 1 pixel or more

    Args:
        length: pixels along the axis, at least 1.
        tile: side of a window; a shorter axis gives one window of its own length.
        overlap: least number of pixels shared by neighbours, less than ``tile``.
    """
    if length <= tile:
        return [0]
    steps = math.ceil((length - tile) / (tile - overlap))
    return [round(i * (length - tile) / steps) for i in range(steps + 1)]


@dataclass(frozen=True, slots=True)
class Stripe:
    """Columns of a raster that are finished together, from top to bottom."""

    cols: slice
    """The columns, from the first to before the last."""
    lefts: tuple[int, ...]
    """Where the windows begin that reach into them, a few pixels of the neighbours' included."""


def stripes(width: int, config: TilingConfig, limit: int) -> list[Stripe]:
    """Stripes of at most ``limit`` columns that cover a raster of ``width`` columns.

    A window that reaches into two stripes belongs to both, so that each can be finished alone.
    """
    tile = min(config.tile_size, width)
    lefts = starts(width, config.tile_size, config.overlap)
    return [
        Stripe(
            slice(first, min(first + limit, width)),
            tuple(left for left in lefts if first - tile < left < first + limit),
        )
        for first in range(0, width, limit)
    ]


def split(shape: tuple[int, int], config: TilingConfig) -> Iterator[Window]:
    """Windows that cover a raster, row by row, all of one size and all inside.

    Args:
        shape: (height, width) of the raster.
        config: tile size and overlap.
    """
    height, width = shape
    tile_h, tile_w = min(config.tile_size, height), min(config.tile_size, width)
    for row in starts(height, config.tile_size, config.overlap):
        for col in starts(width, config.tile_size, config.overlap):
            yield Window(row, col, tile_h, tile_w)


def count(shape: tuple[int, int], config: TilingConfig) -> int:
    """How many windows ``split`` gives."""
    return len(starts(shape[0], config.tile_size, config.overlap)) * len(
        starts(shape[1], config.tile_size, config.overlap)
    )


def blending_weights(length: int, config: TilingConfig) -> list[NDArray[np.float32]]:
    """Shares of the windows along one axis in the result: they sum to 1 at every pixel.

        overlap       |-----|           a share falls smoothly to the edge of its window,
        share    1 ---._                never to zero, so that the rim of the raster, which
                       `-.___           only one window sees, keeps its score

    Args:
        length: pixels along the axis.
        config: tile size and overlap.

    Returns:
        For each of ``starts``, shape (pixels of the window,), 0..1.
    """
    tile = min(config.tile_size, length)
    begins = starts(length, tile, config.overlap)
    reach = min(tile - max(np.diff(begins), default=tile), tile // 2)
    ramp = np.ones(tile)
    if reach > 0:
        fall = 0.5 - 0.5 * np.cos(np.pi * (np.arange(reach) + 0.5) / reach)
        ramp[:reach], ramp[-reach:] = fall, fall[::-1]
    ramp = np.maximum(ramp, 1e-3)
    places = [slice(begin, begin + tile) for begin in begins]
    total = np.zeros(length)
    for place in places:
        total[place] += ramp
    return [(ramp / total[place]).astype(np.float32) for place in places]
