"""Cutting a raster into overlapping windows. Integers only: no files, no tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    """Where windows begin along one axis.

        length 10, tile 4, overlap 1        |0..3|
                                               |3..6|
                                                  |6..9|   the last one snaps back inside

    Args:
        length: pixels along the axis, at least 1.
        tile: side of a window; a shorter axis gives one window of its own length.
        overlap: pixels shared by neighbours, less than ``tile``.
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


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
