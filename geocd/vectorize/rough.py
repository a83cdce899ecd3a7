"""Buildings whose masks are rounder than buildings are, drawn with right angles at a coarser scale.

What a network marks is often a blob: its outline follows no wall, and a drawing that keeps within
a pixel or two of it cannot have right angles. Seen as a whole the blob may still be as long and as
wide as a building. So each is drawn with few sides, long in proportion to it, in the direction in
which the buildings around it stand; the coarsest drawing that covers the same ground stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import shapely

from geocd.vectorize.outline import Floats, Geometries, Ints
from geocd.vectorize.regularize import (
    Flags,
    Regularized,
    Steps,
    assembled,
    directions,
    scaled,
    thinned,
)
from geocd.vectorize.sides import Runs, fit_sides, without_short_runs

_UNITS = (7, 10, 14)
"""Sides are fitted in units of which an object is so many wide; fewer: simpler drawings."""
_DIRECTION_UNITS = 10
"""Units, as above, in which the direction of an object is told."""
_LEAST_SIZE = 7.0
"""Root of the area, in pixels, of the smallest object: below, steps of pixels are all there is."""
_OVERLAP = 0.85
"""Least intersection over union of a drawing and the simplified outline; discs reach 0.84."""
_AREA_CHANGE = 0.10
"""Largest relative change of area."""
_DETOUR = 1.2
"""Largest perimeter in multiples of the simplified outline's: stairs are no walls."""
_SLANT = 1.0
"""Longest straight side that may run off both directions, over the root of the area."""
_OFF = np.radians(15)
"""How far from both directions a side must run to count as slanting."""
_ROUND = 0.995
"""`roundness` from which an object is a tank and no building."""
_BY_CHANCE = 1 / 3
"""Share of the outline of a disc that runs within 15 degrees of any two directions."""
_NEIGHBOURHOOD = 6.0
"""Distance at which a neighbour's say has fallen to 0.6, in widths of the median object."""
_CELLS = 3.0
"""Cells in which neighbours are counted, in such a distance."""
_MOST_CELLS = 2048
_BATCH = 1_000


def with_rough_ones(
    outlines: Geometries, simplified: Geometries, drawn: Regularized, *, aspect: float = 1.0
) -> Regularized:
    """The drawings, with right angles for objects that are buildings only when seen as a whole.

    An object of 49 pixels and more that has its simplified outline so far gets right angles if
    the drawing is valid, covers the same ground (intersection over union of at least 0.85) and
    keeps its area within 10 %, and if the object has no long slanting side and is no ellipse.
    Its direction is voted by itself and by the objects around it, those with clear walls having
    more say.

    Args:
        outlines: valid MultiPolygons along pixel edges, shape (n,), in pixels.
        simplified: the same objects as `smooth` draws them, shape (n,).
        drawn: what `regularize` made of them.
        aspect: height of a pixel on the ground over its width.
    """
    before, now = scaled(simplified, aspect), scaled(drawn.polygons, aspect)
    size = np.sqrt(shapely.area(before))
    rest = np.flatnonzero(~drawn.regularized & (size >= _LEAST_SIZE))
    if not len(rest):
        return drawn
    direction, weight = _told_directions(outlines, now, drawn.regularized, rest, size, aspect)
    voters = drawn.regularized.copy()
    voters[rest] = True
    width = float(np.median(size[voters]))
    direction = _voted(shapely.centroid(now), direction, weight * size, width)
    polygons, flags = drawn.polygons.copy(), drawn.regularized.copy()
    for some in _batches(rest[_may_be_building(before[rest], direction[rest])]):
        for units in _UNITS:
            found, good = _drawn(outlines[some], before[some], direction[some], units, aspect)
            polygons[some[good]], flags[some[good]] = scaled(found[good], 1 / aspect), True
            some = some[~good]
            if not len(some):
                break
    return Regularized(polygons, flags)


def _batches(members: Ints) -> Iterator[Ints]:
    for begin in range(0, len(members), _BATCH):
        yield members[begin : begin + _BATCH]


def _told_directions(
    outlines: Geometries, now: Geometries, regular: Flags, rest: Ints, size: Floats, aspect: float
) -> tuple[Floats, Floats]:
    """The direction that each object has by itself, in radians, and how clearly, 0..1.

    The others, which are neither regular nor of the rest, have none.
    """
    direction, weight = np.zeros(len(outlines)), regular.astype(float)
    sure = np.flatnonzero(regular)
    if len(sure):
        direction[sure] = longest_side(now[sure])
    for some in _batches(rest):
        steps = _in_units(Steps.of(outlines[some], aspect), _units(size[some], _DIRECTION_UNITS))
        told, along, _ = directions(steps, _rings(steps), len(some))
        direction[some] = told
        weight[some] = ((along - _BY_CHANCE).clip(0.02) / (1 - _BY_CHANCE)) ** 2
    return direction, weight


def longest_side(polygons: Geometries) -> Floats:
    """Direction of the longest side of each polygon, in radians from x to y, shape (n,)."""
    way, owner = _sides(polygons)
    order = np.lexsort((np.hypot(way[:, 0], way[:, 1]), owner))
    last = np.flatnonzero(np.r_[owner[order][1:] != owner[order][:-1], True])
    x, y = way[order[last]].T
    return np.asarray(np.arctan2(y, x))


def _sides(polygons: Geometries) -> tuple[Floats, Ints]:
    """Vectors along all sides, (m, 2), and the polygon of each, (m,)."""
    parts, part_owner = shapely.get_parts(polygons, return_index=True)
    rings, ring_owner = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    within = ring[1:] == ring[:-1]
    return np.diff(points, axis=0)[within], part_owner[ring_owner[ring[1:][within]]]


def _voted(places: Geometries, direction: Floats, weight: Floats, width: float) -> Floats:
    """Directions averaged over each object and its neighbourhood, in radians.

    Directions that differ by a right angle are the same one, so the vectors that are added have
    four times their angles.
    """
    points = shapely.get_coordinates(places)
    points -= points.min(axis=0)
    reach = _NEIGHBOURHOOD * width
    cell = max(reach / _CELLS, float(points.max()) / _MOST_CELLS)
    col, row = (points / cell).astype(np.intp).T
    votes = weight[:, None] * np.column_stack([np.cos(4 * direction), np.sin(4 * direction)])
    field = np.zeros((row.max() + 1, col.max() + 1, 2), np.float64)
    np.add.at(field, (row, col), votes)
    sigma = reach / cell
    # Scaled to 1 in the middle: an object has the say of its own weight.
    around = cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    total = around.reshape(field.shape)[row, col] * (2 * np.pi * sigma**2)
    return np.asarray(np.arctan2(total[:, 1], total[:, 0]) / 4)


def _units(size: Floats, number: float) -> Floats:
    """Length of a unit in pixels, for each object; never less than a pixel."""
    return np.asarray(np.maximum(size / number, 1.0))


def _in_units(steps: Steps, unit: Floats) -> Steps:
    """The steps with coordinates in the units of their objects."""
    points = steps.points / unit[steps.owner[steps.ring], None]
    return Steps(points, steps.ring, steps.owner, steps.part, steps.part_owner, steps.ring_area)


def _rings(steps: Steps) -> Geometries:
    """Rings through the steps whose z is the index of each."""
    numbered = np.column_stack([steps.points, np.arange(len(steps.points))])
    rings: Any = shapely.linearrings(numbered, indices=steps.ring)
    return np.asarray(rings, dtype=object)


def _drawn(
    outlines: Geometries, before: Geometries, direction: Floats, units: float, aspect: float
) -> tuple[Geometries, Flags]:
    """Drawings with sides in a given direction, and whether each may be one."""
    count, unit = len(outlines), _units(np.sqrt(shapely.area(before)), units)
    steps = _in_units(Steps.of(outlines, aspect), unit)
    runs = Runs.of(steps.points, steps.ring, steps.owner, thinned(_rings(steps), 1.0), direction)
    fit = fit_sides(without_short_runs(runs))
    good = np.zeros(count, bool)
    good[steps.owner] = True
    np.logical_and.at(good, steps.owner, fit.fitted)
    corners = fit.corners * unit[steps.owner[fit.ring], None]
    drawn = assembled(corners, fit.ring, steps, good)
    good &= shapely.is_valid(drawn) & (shapely.length(drawn) <= _DETOUR * shapely.length(before))
    area = shapely.area(before)
    good &= np.abs(shapely.area(drawn) - area) <= _AREA_CHANGE * area
    common = shapely.area(shapely.intersection(drawn[good], before[good]))
    good[good] = common >= _OVERLAP * (shapely.area(drawn[good]) + area[good] - common)
    return drawn, good


def _may_be_building(polygons: Geometries, direction: Floats) -> Flags:
    """Whether objects have no long slanting side and are no ellipses."""
    way, owner = _sides(shapely.simplify(polygons, 1.0, preserve_topology=False))
    off = np.arctan2(way[:, 1], way[:, 0]) - direction[owner]
    off = np.abs((off + np.pi / 4) % (np.pi / 2) - np.pi / 4) > _OFF
    longest = np.zeros(len(polygons))
    np.maximum.at(longest, owner, np.hypot(way[:, 0], way[:, 1]) * off)
    area = shapely.area(polygons)
    return np.asarray((longest <= _SLANT * np.sqrt(area)) & (roundness(polygons) < _ROUND))


def roundness(polygons: Geometries) -> Floats:
    """Area over that of the ellipse with the same second moments: 1 for discs and ellipses.

    Rectangles of any length have 0.955, and no shape has more than 1.
    """
    parts, part_owner = shapely.get_parts(polygons, return_index=True)
    # Normalised, holes run the other way round and count as what is missing.
    rings, ring_owner = shapely.get_rings(shapely.normalize(parts), return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    owner = part_owner[ring_owner]
    points = points - shapely.get_coordinates(shapely.centroid(polygons))[owner[ring]]
    within = ring[1:] == ring[:-1]
    (x, y), (u, v), of = points[:-1][within].T, points[1:][within].T, owner[ring[1:][within]]
    cross = x * v - u * y
    terms = x * x + x * u + u * u, y * y + y * v + v * v, x * y + u * v + (x * v + u * y) / 2
    moments = [np.bincount(of, weights=cross * t, minlength=len(polygons)) / 12 for t in terms]
    area = np.bincount(of, weights=cross, minlength=len(polygons)) / 2
    spread = np.sqrt(np.maximum(moments[0] * moments[1] - moments[2] ** 2, 1e-12))
    return np.asarray(area**2 / (4 * np.pi * spread))
