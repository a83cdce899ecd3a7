"""Outlines from the corners of pixels: corners found, corners joined to rings. Arrays only.

Where pixels of an object touch by a corner only, the outline must not cross itself. So objects
are drawn as their parts (pixels that touch by a side), each with a shell and its holes:

    ┌───┐           two parts, the corner in         ┌───────┐    one part, the corner in the
    │   │           the middle belongs to both       │   ┌───┤    middle ends the hole, which
    └───┼───┐                                        │   │   │    is a ring of its own
        │   │                                        │   └───┼──
        └───┘                                        └───────┘

Every ring is simple then, and every polygon valid, without a repair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from geocd.vectorize.outline import Geometries, Ints

_TIE_RIGHT = 1
"""Of two corners of a part at one place, this is the right one."""
_TIE_UPPER = 2
"""... and the right one is the upper one too, the left one the lower."""
_SIDE_GOES_RIGHT = 4
"""The object lies below the side that leaves this corner to the right."""

# Pixels around a corner: 1 upper left, 2 upper right, 4 lower left, 8 lower right.
_FALLING, _RISING = 1 | 8, 2 | 4
_FIRST_PIXEL = np.array([0] + [(p & -p).bit_length() - 1 for p in range(1, 16)])
_ROW_STEP, _COL_STEP = np.array([-1, -1, 0, 0]), np.array([-1, 0, -1, 0])


@dataclass(frozen=True, slots=True)
class Corners:
    """Corners of parts, each of shape (n,)."""

    part: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    col: npt.NDArray[np.int32]
    kind: npt.NDArray[np.uint8]
    """Sum of the flags above."""

    @classmethod
    def none(cls) -> Corners:
        """No corner."""
        empty = np.zeros(0, np.int32)
        return cls(empty, empty, empty, np.zeros(0, np.uint8))

    def chosen(self, which: npt.NDArray[Any]) -> Corners:
        """The corners that an index or a mask selects."""
        return Corners(self.part[which], self.row[which], self.col[which], self.kind[which])

    @classmethod
    def joined(cls, first: Corners, second: Corners) -> Corners:
        """All corners of both."""
        return cls(
            np.concatenate([first.part, second.part]), np.concatenate([first.row, second.row]),
            np.concatenate([first.col, second.col]), np.concatenate([first.kind, second.kind]),
        )  # fmt: skip


def find_corners(
    parts: npt.NDArray[np.int32], *, top: int
) -> tuple[Corners, npt.NDArray[np.int32]]:
    """Corners between the rows of an array of parts, and which parts touch by a corner only.

    Args:
        parts: part of each pixel, 0 none, shape (rows, width); pixels that touch by a side are
            of one part.
        top: row of the raster that the second row here is. The row above the first and the
            row below the last are not looked at: what is outside needs rows of zeros.

    Returns:
        The corners, and pairs of parts, shape (m, 2).
    """
    inside = np.pad(parts > 0, ((0, 0), (1, 1)))
    beside, below = inside[:, :-1] ^ inside[:, 1:], inside[:-1] ^ inside[1:]
    # The outline turns where it has a side along the row and one along the column.
    turns = (beside[:-1] | beside[1:]) & (below[:, :-1] | below[:, 1:])
    where = np.flatnonzero(turns)
    row, col = np.divmod(where, turns.shape[1])
    seen, width = inside.view(np.uint8).ravel(), inside.shape[1]
    upper = where + row  # rows there are longer by one
    kind = seen[upper] | seen[upper + 1] << 1
    kind |= seen[upper + width] << 2 | seen[upper + width + 1] << 3
    row += 1  # the lower of the two rows
    plain = (kind != _FALLING) & (kind != _RISING)
    first = _FIRST_PIXEL[kind[plain]]
    r, c = row[plain], col[plain]
    simple = Corners(
        parts.ravel()[(r + _ROW_STEP[first]) * parts.shape[1] + c + _COL_STEP[first]],
        r.astype(np.int32), c.astype(np.int32),
        np.where(kind[plain] & 8, _SIDE_GOES_RIGHT, 0).astype(np.uint8),
    )  # fmt: skip
    crossed, pairs = _crossings(parts, row[~plain], col[~plain], kind[~plain] == _FALLING)
    found = Corners.joined(simple, crossed)
    found.row[:] += top - 1
    return found, pairs


def _crossings(
    parts: npt.NDArray[np.int32], row: Ints, col: Ints, falling: npt.NDArray[np.bool_]
) -> tuple[Corners, npt.NDArray[np.int32]]:
    """Two corners where two pixels touch by a corner, and the parts of the two."""
    # The left pixel has its side to the left of the place, the right one to the right.
    left = parts[np.where(falling, row - 1, row), col - 1]
    right = parts[np.where(falling, row, row - 1), col]
    kind = np.zeros((2, len(row)), np.uint8)
    kind[1] = _TIE_RIGHT
    kind |= np.where(falling, _TIE_UPPER, 0).astype(np.uint8)
    # The side to the left of the place is told by the corner at its own left end.
    kind[1] |= np.where(falling, _SIDE_GOES_RIGHT, 0).astype(np.uint8)
    corners = Corners(
        np.concatenate([left, right]), np.tile(row, 2).astype(np.int32),
        np.tile(col, 2).astype(np.int32), kind.ravel(),
    )  # fmt: skip
    apart = left != right
    return corners, np.column_stack([left[apart], right[apart]])


def polygons_of(corners: Corners) -> tuple[Geometries, Corners]:
    """The polygon of each part, and its upper left corner, in the order of parts.

    Args:
        corners: every corner of the parts, in any order.

    Returns:
        Valid Polygons along pixel edges, in pixels (x = column, y = row), and a corner for each.
        Rings begin at the upper left, so that a part is one polygon to the last bit, however
        its corners were found.
    """
    right = corners.kind & _TIE_RIGHT
    order = np.lexsort((right, corners.col, corners.row, corners.part))
    corners = corners.chosen(order)
    right = corners.kind & _TIE_RIGHT
    # Along a row, corners take turns to begin and end a side; along a column too.
    lower = np.where(corners.kind & _TIE_UPPER, 1 - right, right)
    down = np.lexsort((lower, corners.row, corners.col, corners.part))
    across = np.empty(len(down), np.intp)
    across[down[0::2]], across[down[1::2]] = down[1::2], down[0::2]

    pair = np.arange(0, len(down), 2)
    backwards = (corners.kind[0::2] & _SIDE_GOES_RIGHT) == 0
    start, stop = pair + backwards, pair + 1 - backwards
    sides, lengths = _cycles(across[stop] // 2)
    points = np.column_stack([start[sides], stop[sides]]).ravel()
    coordinates = np.column_stack([corners.col[points], corners.row[points]]).astype(float)
    rings: Any = shapely.linearrings(
        coordinates, indices=np.repeat(np.arange(len(lengths)), 2 * lengths)
    )
    part = corners.part[points[2 * (np.cumsum(lengths) - lengths)]]
    # The first ring of a part has its uppermost corner, so it is the shell.
    _, owner = np.unique(part, return_inverse=True)
    polygons: Geometries = shapely.polygons(rings, indices=owner)
    _, first = np.unique(corners.part, return_index=True)
    return polygons, corners.chosen(first)


def _cycles(following: Ints) -> tuple[Ints, Ints]:
    """The cycles of a permutation: their members in order, and how many each has.

    Cycles come in the order of their smallest members, and begin with those.
    """
    # Plain Python: a step takes a tenth of a microsecond, and doubling takes longer.
    after = following.tolist()
    seen = bytearray(len(after))
    members: list[int] = []
    lengths: list[int] = []
    for first in range(len(after)):
        if seen[first]:
            continue
        begun, current = len(members), first
        while not seen[current]:
            seen[current] = 1
            members.append(current)
            current = after[current]
        lengths.append(len(members) - begun)
    return np.array(members, np.intp), np.array(lengths, np.intp)
