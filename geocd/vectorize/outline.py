"""Outlines of pixels turned into the outlines that a person would draw. Pixel coordinates only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

Geometries = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

_CORNER = 3.0
"""A corner whose two sides are both at least this long, in pixels, is no stair step."""
_STAIR_REACH = 10.0
"""How far from a step of one pixel, in pixels, the cut may begin along the tread of a stair."""
_END_REACH = 0.5
"""How far from any other corner the cut begins, in pixels."""
_AREA_GUARD = 0.15
"""Largest relative change of area that smoothing may cause."""
_NEGLIGIBLE = 0.02
"""Offsets below this, in pixels, are not worth new vertices."""


def as_multipolygons(geometries: Geometries) -> Geometries:
    """Valid MultiPolygons that cover the same points.

    Rings that touch themselves at a corner, as those of pixels joined by a corner do, are
    taken apart there. Points and lines that a repair may leave are dropped.

    Args:
        geometries: areal geometries, shape (n,), valid or not.

    Returns:
        Shape (n,), MultiPolygons.
    """
    geometries = np.array(geometries, dtype=object)
    broken = ~shapely.is_valid(geometries)
    geometries[broken] = shapely.make_valid(geometries[broken])
    parts, owner = shapely.get_parts(geometries, return_index=True)
    nested = shapely.get_type_id(parts) == shapely.GeometryType.MULTIPOLYGON
    if nested.any():  # a collection of a MultiPolygon and lines
        inner, inner_owner = shapely.get_parts(parts[nested], return_index=True)
        owner = np.concatenate([owner[~nested], owner[nested][inner_owner]])
        parts = np.concatenate([parts[~nested], inner])
        order = np.argsort(owner, kind="stable")
        parts, owner = parts[order], owner[order]
    areal = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    return _joined(parts[areal], owner[areal], len(geometries))


def smooth(outlines: Geometries, tolerance: float) -> Geometries:
    """Polygons without the stair steps of pixels, of very nearly the same areas.

    Corners of pixels are cut, the result is thinned (Douglas-Peucker), and the outline is set
    out or in until the area is that of the pixels, because a chord always runs inside an arc.
    A part that this would make invalid, or change in area by more than 15 %, keeps its pixels:
    that is what happens to objects of a pixel or two.

    Args:
        outlines: valid MultiPolygons along pixel edges, shape (n,), in pixels.
        tolerance: of the thinning, in pixels; 0 returns the outlines as they are.

    Returns:
        Shape (n,), valid MultiPolygons.
    """
    if tolerance == 0 or len(outlines) == 0:
        return outlines
    parts, owner = shapely.get_parts(outlines, return_index=True)
    area = shapely.area(parts)
    cut = cut_corners(parts)
    # Looking at each part alone is several times as fast, and right for nearly all.
    smoothed = shapely.simplify(cut, tolerance, preserve_topology=False)
    wrong = ~_acceptable(smoothed, area)
    smoothed[wrong] = shapely.simplify(cut[wrong], tolerance, preserve_topology=True)
    smoothed = np.where(_acceptable(smoothed, area), smoothed, parts)
    refined = _with_area(smoothed, area)
    smoothed = np.where(_acceptable(refined, area), refined, smoothed)
    smoothed, again = shapely.get_parts(smoothed, return_index=True)
    joined = _joined(smoothed, owner[again], len(outlines))
    # Two parts that met at a corner may overlap now: each is valid alone, together they are not.
    return np.where(shapely.is_valid(joined), joined, outlines)


def cut_corners(polygons: Geometries) -> Geometries:
    """Polygons along pixel edges with the corners of the stair steps cut off.

    Each side is judged by its two ends. Where the outline turns one way at one end and the
    other way at the other, the side is part of a stair, and the cuts at steps of one pixel
    may reach its middle: the midpoints of a stair lie on the line that it stands for.

        ──┐                 ──.                 a corner between two long sides is a corner
          └──┐       ->        `-.              of the object, and stays
             └──                  `--

    Args:
        polygons: Polygons with sides along rows and columns, shape (n,), in pixels.

    Returns:
        Shape (n,), Polygons; not checked for validity.
    """
    rings, ring_owner = shapely.get_rings(polygons, return_index=True)
    points, ring = _corners(rings)
    after, before = _neighbours(ring)
    side = points[after] - points  # the side that leaves each corner
    length = np.abs(side).sum(axis=1)
    arriving = side[before]
    turn = np.sign(arriving[:, 0] * side[:, 1] - arriving[:, 1] * side[:, 0])
    shorter = np.minimum(length, length[before])
    stair = turn != turn[after]
    ahead = np.minimum(length / 2, np.where(stair & (shorter <= 1), _STAIR_REACH, _END_REACH))
    back = np.minimum(
        length[before] / 2, np.where(stair[before] & (shorter <= 1), _STAIR_REACH, _END_REACH)
    )
    kept = shorter >= _CORNER

    unit = side / length[:, None]
    first = points - unit[before] * back[:, None]
    second = points + unit * ahead[:, None]
    first[kept] = points[kept]
    # Two cuts that meet in the middle of a side need one point there, not two.
    meets_next = (ahead + back[after] == length) & ~kept[after]
    chosen = np.column_stack([np.ones(len(points), dtype=bool), ~kept & ~meets_next]).ravel()
    coordinates = np.stack([first, second], axis=1).reshape(-1, 2)[chosen]
    cut = shapely.linearrings(coordinates, indices=np.repeat(ring, 2)[chosen])
    result: Geometries = shapely.polygons(cut, indices=ring_owner)
    return result


def vertical_sides(outlines: Geometries) -> tuple[Ints, Ints, Ints, Ints]:
    """The sides of pixel outlines that run along columns.

    Args:
        outlines: areal geometries along pixel edges, shape (n,), in pixels.

    Returns:
        Four arrays of equal length: index into ``outlines`` (ascending), column of the side,
        its first row, and the row after its last.
    """
    parts, part_owner = shapely.get_parts(outlines, return_index=True)
    rings, ring_owner = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    vertical = (ring[:-1] == ring[1:]) & (points[:-1, 0] == points[1:, 0])
    start, stop = points[:-1][vertical], points[1:][vertical]
    owner = part_owner[ring_owner[ring[:-1][vertical]]]
    rows = np.sort(np.column_stack([start[:, 1], stop[:, 1]]), axis=1).astype(np.intp)
    return owner, start[:, 0].astype(np.intp), rows[:, 0], rows[:, 1]


def _corners(rings: Geometries) -> tuple[Floats, Ints]:
    """Points at which the rings turn, each once, and the ring that each belongs to."""
    points, ring = shapely.get_coordinates(rings, return_index=True)
    opening = np.r_[True, ring[1:] != ring[:-1]]
    points, ring = points[~opening], ring[~opening]  # the closing point stands for both
    after, before = _neighbours(ring)
    arriving, leaving = points - points[before], points[after] - points
    turns = arriving[:, 0] * leaving[:, 1] != arriving[:, 1] * leaving[:, 0]
    return points[turns], ring[turns]


def _neighbours(ring: Ints) -> tuple[Ints, Ints]:
    """For each point, the indices of the next and of the previous point on its ring."""
    n = len(ring)
    index = np.arange(n)
    first = np.flatnonzero(np.r_[True, ring[1:] != ring[:-1]])
    last = np.r_[first[1:], n] - 1
    after, before = index + 1, index - 1
    after[last], before[first] = first, last
    return after, before


def _with_area(polygons: Geometries, area: Floats) -> Geometries:
    """The polygons set out, or in, by the distance that gives them the areas asked for."""
    distance = (area - shapely.area(polygons)) / shapely.length(polygons)
    moved = np.abs(distance) > _NEGLIGIBLE
    result = polygons.copy()
    # Mitred, so that square corners stay square; limited, so that sharp ones grow no thorns.
    result[moved] = shapely.buffer(
        polygons[moved], distance[moved], join_style="mitre", mitre_limit=2.0
    )
    return result


def _acceptable(polygons: Geometries, area: Floats) -> npt.NDArray[np.bool_]:
    close = np.abs(shapely.area(polygons) - area) <= _AREA_GUARD * area
    accepted: npt.NDArray[np.bool_] = shapely.is_valid(polygons) & close
    return accepted


def _joined(parts: Geometries, owner: Ints, count: int) -> Geometries:
    """MultiPolygons of the parts that share an owner; every owner must have a part."""
    result: Any = shapely.multipolygons(parts, indices=owner)
    if len(result) != count:  # an owner at the end without parts
        result = np.concatenate([result, np.full(count - len(result), shapely.MultiPolygon())])
    return np.asarray(result, dtype=object)
