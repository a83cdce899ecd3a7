"""Small holes of objects, closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import shapely

from geocd.vectorize.outline import Floats, Geometries


def without_small_holes(
    outlines: Geometries, largest: float, *, area: Callable[[Geometries], Floats]
) -> Geometries:
    """The objects without their holes up to a size, unless another object lies in a hole.

    Args:
        outlines: valid MultiPolygons that do not overlap, shape (n,).
        largest: area of the largest hole that is closed, in the unit of ``area``.
        area: measures an array of polygons.

    Returns:
        Shape (n,), valid MultiPolygons that do not overlap.
    """
    parts, owner = shapely.get_parts(outlines, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    hole = np.r_[False, part[1:] == part[:-1]] if len(part) else np.zeros(0, bool)
    where = np.flatnonzero(hole)
    fillings: Any = shapely.polygons(rings[where])
    small = area(fillings) <= largest
    where, fillings = where[small], fillings[small]
    if len(where) == 0:
        return outlines
    # Objects do not overlap, so one that has a point in a hole lies in it whole.
    tree = shapely.STRtree(shapely.point_on_surface(parts))
    inhabited = np.unique(tree.query(fillings, predicate="contains")[0])
    kept = np.ones(len(rings), bool)
    kept[np.delete(where, inhabited)] = False
    whole: Any = shapely.polygons(rings[kept], indices=part[kept])
    joined: Any = shapely.multipolygons(whole, indices=owner)
    return np.asarray(joined, dtype=object)
