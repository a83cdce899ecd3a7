"""Where chips lie, and which split each belongs to: splits share no ground."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geocd.errors import InputError
from geocd.rasters.grid import Array, Grid, apply_transform, reproject_geometry
from geocd.tiling.windows import starts

Block = tuple[int, int]
"""(row, col) of a block of ground."""
_ROUNDING = 1e-6
"""Share of a block that is rounding of coordinates."""
_ACROSS = (8, 4, 2, 1)
"""Chips across a block, from the most that is tried."""
_ENOUGH = 30
"""Blocks that make shares of a tenth come out."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Ground cut into blocks, each of which belongs to one split.

        | block | block | block |      of one raster: as many as fit, the last takes the rest
        |[chip][chip]|[chip]...        chips end where blocks do

    Attributes:
        crs: in which the blocks are squares; None: pixel units.
        transform: from (col, row), counted in blocks, to (x, y).
        shape: rows and columns of blocks, the last of which reach as far as there is ground; None:
            they go on for ever.
    """

    crs: CRS | None
    transform: Affine
    shape: tuple[int, int] | None = None

    @classmethod
    def of_raster(cls, grid: Grid, side: int) -> Blocks:
        """Blocks of ``side`` pixels that hang on a raster's corner; the last ones are larger."""
        rows, cols = (max(1, length // side) for length in grid.shape)
        return cls(grid.crs, grid.transform @ Affine.scale(side), (rows, cols))

    @classmethod
    def of_ground(cls, grid: Grid, side: int) -> Blocks:
        """Blocks of ``side`` pixels of a raster that go on beyond it."""
        return cls(grid.crs, grid.transform @ Affine.scale(side))

    def touched(self, part: Grid) -> frozenset[Block]:
        """The blocks that share ground with a part of a raster."""
        cols, rows = self._cols_and_rows(part)
        spans = []
        for axis, values in enumerate((rows, cols)):
            first = math.floor(values.min() + _ROUNDING)
            last = math.ceil(values.max() - _ROUNDING) - 1
            if self.shape is not None:
                first, last = (min(max(0, k), self.shape[axis] - 1) for k in (first, last))
            spans.append(range(first, max(first, last) + 1))
        return frozenset((row, col) for row in spans[0] for col in spans[1])

    def _cols_and_rows(self, part: Grid) -> tuple[Array, Array]:
        """The outline of a part in blocks."""
        if part.crs is self.crs or part.crs == self.crs:
            cols, rows = np.array([0, part.width] * 2), np.repeat([0, part.height], 2)
            return apply_transform(~self.transform @ part.transform, cols, rows)
        outline: BaseGeometry = part.footprint
        if self.crs is not None and part.crs is not None:
            outline = reproject_geometry(outline, part.crs, self.crs)
        xy = shapely.get_coordinates(outline)
        return apply_transform(~self.transform, xy[:, 0], xy[:, 1])

    def edges(self, grid: Grid) -> tuple[list[float], list[float]]:
        """Rows and columns of a raster at which blocks end; none where blocks lie askew."""
        place = ~self.transform @ grid.transform  # from pixels to blocks
        if self.crs != grid.crs or abs(place.b) + abs(place.d) > _ROUNDING * abs(place.a):
            return [], []
        found = []
        for axis, (scale, begin) in enumerate(((place.e, place.f), (place.a, place.c))):
            length = grid.shape[axis]
            lines = range(math.floor(begin) + 1, math.ceil(begin + scale * length))
            if self.shape is not None:
                lines = range(max(1, lines.start), min(self.shape[axis], lines.stop))
            found.append([(line - begin) / scale for line in lines])
        return found[0], found[1]


@dataclass(frozen=True, slots=True)
class Ground:
    """A raster that chips are cut from.

    Attributes:
        grid: its pixels.
        shown: what both dates show, in the CRS of the grid; None: all of it.
    """

    grid: Grid
    shown: BaseGeometry | None = None

    def chip(self, place: tuple[int, int], size: int) -> Grid:
        """The grid of the chip whose upper left pixel is at (row, col)."""
        row, col = place
        return self.grid.crop(slice(row, row + size), slice(col, col + size))


def chip_places(ground: Ground, blocks: Blocks, size: int, overlap: int) -> list[tuple[int, int]]:
    """(row, col) of the upper left corners of chips that cover what a raster shows.

    Chips end where blocks do, as far as the pixels allow; a raster smaller than a chip has one.
    What is left of a block is covered if it is as wide as half a chip.
    """
    rows, cols = (
        _begins(length, edges, size, overlap)
        for length, edges in zip(ground.grid.shape, blocks.edges(ground.grid), strict=True)
    )
    places = [(row, col) for row in rows for col in cols]
    if ground.shown is None:
        return places
    shapely.prepare(ground.shown)
    outlines = [ground.chip(place, size).footprint for place in places]
    seen = shapely.intersects(ground.shown, outlines)
    return [place for place, inside in zip(places, seen, strict=True) if inside]


def _begins(length: int, edges: Sequence[float], size: int, overlap: int) -> list[int]:
    marks = [0.0, *edges, float(length)]
    begins = set()
    for first, last in pairwise(marks):
        # An edge within a pixel leaves the pixel out on both sides.
        low, high = math.ceil(first - _ROUNDING), math.floor(last + _ROUNDING)
        if high - low >= size:
            begins |= {low + begin for begin in starts(high - low, size, overlap)}
        elif length <= size or high - low >= size / 2:
            begins.add(min(low, max(0, length - size)))
    return sorted(begins)


@dataclass(frozen=True, slots=True)
class Splits:
    """Which block belongs to which split.

    Attributes:
        blocks: the ground.
        split_of: name of the split of each block.
    """

    blocks: Blocks
    split_of: Mapping[Block, str]

    def split(self, chip: Grid) -> str | None:
        """The split of a chip; None if it lies across blocks of several splits."""
        names = {self.split_of[block] for block in self.blocks.touched(chip)}
        return names.pop() if len(names) == 1 else None


def draw_splits(
    blocks: Blocks, grounds: Sequence[Ground], *, size: int, overlap: int,
    shares: Mapping[str, float], seed: int,
) -> Splits:  # fmt: skip
    """Give every block that a chip touches to a split, so that chips are shared out as asked.

    Blocks are drawn in an order that the seed decides, and each goes to the split that lacks
    most. Every split gets one.

    Args:
        blocks: the ground.
        grounds: rasters that chips are cut from.
        size: side of a chip in pixels.
        overlap: pixels that neighbours share.
        shares: of each split, 0..1.
        seed: another one draws other splits.

    Raises:
        InputError: there are fewer blocks than splits.
    """
    counts: Counter[Block] = Counter()
    for ground in grounds:
        for place in chip_places(ground, blocks, size, overlap):
            touched = blocks.touched(ground.chip(place, size))
            counts.update(dict.fromkeys(touched, 0) | {min(touched): 1})
    wanted = {name: share for name, share in shares.items() if share > 0}
    if len(counts) < len(wanted):
        raise InputError(
            f"the ground has {len(counts)} block(s) of chips, too few for {len(wanted)} splits "
            "that share no ground; take smaller chips or blocks (--size, --block), or one split "
            "(--split 1/0/0)"
        )
    return Splits(blocks, _shared_out(counts, wanted, seed))


def _shared_out(counts: Counter[Block], shares: Mapping[str, float], seed: int) -> dict[Block, str]:
    total = sum(counts.values())
    lacking = {name: share * total for name, share in shares.items()}
    order = sorted(counts, key=lambda block: _draw(block, seed))
    # The smallest split first: it must not go without.
    first = sorted(shares, key=lambda name: shares[name])
    found = {}
    for number, block in enumerate(order):
        name = first[number] if number < len(first) else max(lacking, key=lambda n: lacking[n])
        found[block] = name
        lacking[name] -= counts[block]
    return found


def _draw(block: Block, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {block[0]} {block[1]}".encode()).digest()


def fitting_side(grounds: Sequence[Ground], size: int, overlap: int, *, alone: bool) -> int:
    """Side of the largest blocks, 8 to 1 chips wide, of which there are enough to share out.

    Args:
        grounds: rasters that chips are cut from.
        size: side of a chip in pixels.
        overlap: pixels that neighbours share.
        alone: there is but one raster, and blocks hang on its corner.
    """
    for chips in _ACROSS[:-1]:
        side = size + (chips - 1) * (size - overlap)
        blocks = blocks_of(grounds, side, alone=alone)
        seen: set[Block] = set()
        for ground in grounds:
            places = chip_places(ground, blocks, size, overlap)
            seen.update(min(blocks.touched(ground.chip(place, size))) for place in places)
            if len(seen) >= _ENOUGH:
                return side
    return size


def blocks_of(grounds: Sequence[Ground], side: int, *, alone: bool) -> Blocks:
    """Blocks of one raster, or of the ground in the CRS that most rasters have."""
    grids = [ground.grid for ground in grounds]
    if alone:
        return Blocks.of_raster(grids[0], side)
    names = [grid.crs.to_wkt() if grid.crs else "" for grid in grids]
    common = Counter(names).most_common(1)[0][0]
    return Blocks.of_ground(grids[names.index(common)], side)
