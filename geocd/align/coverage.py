"""Where the alignment is contradicted by what the images show."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geocd.align.alignment import Alignment
from geocd.align.field import PointArray
from geocd.align.measurement import Measurement
from geocd.errors import NothingObservedError
from geocd.rasters.pair import RasterPair

MIN_CONTRADICTIONS: Final = 3
"""Least number of tie points within reach that speak against the alignment, where none speaks
for it."""
_CELLS_A_REACH: Final = 2
"""Cells side by side along the reach of a tie point."""
_CHUNK: Final = 1 << 14
"""Cells that are looked at together."""


def without_contradicted(pair: RasterPair, found: Measurement) -> tuple[RasterPair, float]:
    """The pair without ``contradicted_ground``, and the share of its grid that this is, 0..1.

    Args:
        pair: the pair, or a part of it.
        found: what was measured of all of it.

    Raises:
        NothingObservedError: nothing is left.
    """
    alignment, (height, width) = found.alignment, pair.grid.shape
    place = ~found.place_of(pair.grid)
    ground = affine_transform(
        contradicted_ground(alignment, found.grid.shape),
        [place.a, place.b, place.d, place.e, place.c, place.f],
    )
    share = shapely.intersection(ground, shapely.box(0, 0, width, height)).area / (height * width)
    if share == 1:
        raise NothingObservedError(
            f"tie points contradict the alignment everywhere: {alignment.reason}; check that the "
            "images show one place, or compare them as they lie with --unaligned keep"
        )
    return pair.without(ground), share


def contradicted_ground(alignment: Alignment, shape: tuple[int, int]) -> BaseGeometry:
    """The ground on which the images were compared and do not agree with the alignment.

    Ground is contradicted if at least three tie points lie within reach and the alignment
    explains none of those. Ground on which nothing was found to compare (water, bare fields)
    contradicts nothing, and one explained tie point vouches for its surroundings. An alignment
    that was refused explains no tie point; one that was switched off contradicts nothing.

    Args:
        alignment: the verdict, with its tie points.
        shape: (height, width) of the reading grid.

    Returns:
        Cells of half a reach, united, in (col, row) of the reading grid; empty if there are none.
    """
    ties, reach = alignment.ties, alignment.reach
    explained = ties.believed & (alignment.status in ("applied", "not needed"))
    against = ties.position[~explained]
    if alignment.status == "off" or reach <= 0 or len(against) < MIN_CONTRADICTIONS:
        return shapely.MultiPolygon()
    side = reach / _CELLS_A_REACH
    cells = _cells_near(against, reach, side, shape)
    centres = np.asarray((cells + 0.5) * side, dtype=np.float64)
    hit = _within(centres, against, reach) >= MIN_CONTRADICTIONS
    hit &= _within(centres, ties.position[explained], reach) == 0
    left, top = (cells[hit] * side).T
    right, bottom = np.minimum(left + side, shape[1]), np.minimum(top + side, shape[0])
    return shapely.union_all(shapely.box(left, top, right, bottom))


def _cells_near(
    points: PointArray, reach: float, side: float, shape: tuple[int, int]
) -> NDArray[np.intp]:
    """(j, i) of the cells that may have one of the points within reach, shape (n, 2)."""
    steps = np.arange(-int(np.ceil(reach / side)) - 1, int(np.ceil(reach / side)) + 2)
    around = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    home = np.unique(np.floor(points / side).astype(np.intp), axis=0)
    cells = np.unique((home[:, None] + around).reshape(-1, 2), axis=0)
    count = np.ceil(np.array(shape[::-1]) / side)
    return np.asarray(cells[((cells >= 0) & (cells < count)).all(axis=1)])


def _within(centres: PointArray, points: PointArray, reach: float) -> NDArray[np.intp]:
    """How many of the points lie within reach of each centre, shape (n,)."""
    found = np.zeros(len(centres), np.intp)
    spots: Any = shapely.points(points)
    tree = shapely.STRtree(spots)
    for begin in range(0, len(centres), _CHUNK):
        part = centres[begin : begin + _CHUNK]
        near = tree.query(shapely.points(part), predicate="dwithin", distance=reach)[0]
        found[begin : begin + len(part)] = np.bincount(near, minlength=len(part))
    return found
