"""What neighbours need: walls that they share, and no ground that both claim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from geocd.vectorize.outline import Floats, Geometries, Ints, smooth
from geocd.vectorize.regularize import Flags, Regularized, middles, regularize, scaled
from geocd.vectorize.rough import with_rough_ones

_REACH = 6.0
"""How far a wall is drawn beyond the pixels that tell of it, in pixels, to meet other walls."""
_SAME_LINE = 1.5
"""A wall this close to a side of the outline, in pixels, goes on in it."""
_THINNING = 0.6
"""Tolerance, in pixels, of the outline that a drawing of several objects is held against."""
_DIGITS = 7
"""Decimals, in pixels, to which drawings are rounded before they are cut."""
_AREA_CHANGE = 0.15
"""Largest relative change of the area of one of several objects that share walls."""
_NEGLIGIBLE = 1e-6
"""Overlaps below this, in pixels, are the rounding of coordinates."""


def with_shared_walls(
    outlines: Geometries, simplified: Geometries, drawn: Regularized, *, aspect: float = 1.0
) -> Regularized:
    """The drawings, with objects that share walls drawn together.

    Objects whose pixels touch along a side are drawn as one, and cut apart along straight
    walls in the directions of that drawing, each where the pixels of the wall lie on average.
    They touch without gaps or overlaps by construction. Where the objects together, or one of
    them, would change too much, all of them keep their simplified outlines.

    Args:
        outlines: valid MultiPolygons along pixel edges, shape (n,), in pixels; no two overlap.
        simplified: the same objects as `smooth` draws them, shape (n,).
        drawn: what `regularize` made of them.
        aspect: height of a pixel on the ground over its width.
    """
    pairs = _touching(outlines)
    polygons, flags = drawn.polygons.copy(), drawn.regularized.copy()
    for members, walls in _groups(pairs, len(outlines)):
        together = _drawn_together(outlines[members], walls, aspect)
        flags[members] = together is not None
        polygons[members] = simplified[members] if together is None else together
    return Regularized(polygons, flags)


def _touching(outlines: Geometries) -> Ints:
    """Pairs of objects that touch along a side, (p, 2), the lower index first."""
    first, second = shapely.STRtree(outlines).query(outlines, predicate="touches")
    once = first < second
    first, second = first[once], second[once]
    shared = shapely.length(shapely.intersection(outlines[first], outlines[second]))
    pairs: Ints = np.column_stack([first, second])[shared > 0]
    return pairs


def _groups(pairs: Ints, count: int) -> Iterator[tuple[Ints, Ints]]:
    """Members of each group of touching objects, and its pairs as places among the members."""
    group = np.arange(count)
    while True:
        lowest = group.copy()
        np.minimum.at(lowest, pairs[:, 0], group[pairs[:, 1]])
        np.minimum.at(lowest, pairs[:, 1], group[pairs[:, 0]])
        if np.array_equal(lowest, group):
            break
        group = lowest
    for leader in np.unique(group[pairs[:, 0]]):
        members = np.flatnonzero(group == leader)
        yield members, np.searchsorted(members, pairs[group[pairs[:, 0]] == leader])


def _drawn_together(members: Geometries, pairs: Ints, aspect: float) -> Geometries | None:
    """Drawings of touching objects that fit each other; None where they cannot be drawn."""
    whole: Geometries = np.array([_multi(shapely.union_all(members))], dtype=object)
    drawn = regularize(whole, whole, aspect=aspect)
    drawn = with_rough_ones(whole, smooth(whole, _THINNING), drawn, aspect=aspect)
    if not drawn.regularized[0]:
        return None
    frame = _Frame.of(scaled(drawn.polygons, aspect)[0], aspect)
    outline, objects = frame.rounded(drawn.polygons)[0], frame.inwards(members)
    walls = [_Wall.between(members[a], members[b], frame) for a, b in pairs]
    for wall in walls:
        outline = wall.straightens(outline)
    if not shapely.is_valid(outline):
        return None
    lines = shapely.union_all([shapely.boundary(outline), *(wall.line for wall in walls)])
    faces = np.array(shapely.get_parts(shapely.polygonize([lines])), dtype=object)
    faces = faces[shapely.covers(outline, shapely.point_on_surface(faces))]
    if len(faces) < len(members):
        return None
    common = shapely.area(shapely.intersection(faces[:, None], objects[None]))
    owner = np.argmax(common, axis=1)
    united = [_multi(shapely.union_all(faces[owner == k])) for k in range(len(members))]
    result: Geometries = np.array(united, dtype=object)
    area = shapely.area(objects)
    if (np.abs(shapely.area(result) - area) > _AREA_CHANGE * area).any():
        return None
    return frame.outwards(result)


def _multi(geometry: Any) -> shapely.MultiPolygon:
    return shapely.MultiPolygon(
        [p for p in shapely.get_parts(geometry) if p.geom_type == "Polygon"]
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """A plane in which the sides of a drawing run along the axes, to the last digit."""

    turn: Floats
    """Rotation into the frame, of points that are rows, (2, 2)."""
    aspect: float

    @classmethod
    def of(cls, outline: shapely.MultiPolygon, aspect: float) -> _Frame:
        points = shapely.get_coordinates(shapely.get_parts(shapely.boundary(outline))[0])
        way = np.diff(points, axis=0)
        x, y = way[np.argmax(np.hypot(way[:, 0], way[:, 1]))]
        return cls(np.array([[x, -y], [y, x]]) / np.hypot(x, y), aspect)

    def inwards(self, geometries: Geometries) -> Geometries:
        moved: Geometries = shapely.transform(geometries, self.points_inwards)
        return moved

    def points_inwards(self, points: Floats) -> Floats:
        moved: Floats = points * (1.0, self.aspect) @ self.turn
        return moved

    def rounded(self, geometries: Geometries) -> Geometries:
        # What is along the axes to the last digit is cut without slivers.
        moved: Geometries = shapely.transform(
            geometries, lambda points: self.points_inwards(points).round(_DIGITS)
        )
        return moved

    def outwards(self, geometries: Geometries) -> Geometries:
        moved: Geometries = shapely.transform(
            geometries, lambda points: points @ self.turn.T / (1.0, self.aspect)
        )
        return moved


@dataclass(frozen=True, slots=True)
class _Wall:
    """A straight wall between two objects, in the frame."""

    axis: int
    """0: along x, 1: along y."""
    place: float
    """Where it lies on the other axis."""
    begin: float
    """Where it begins and ends on its axis, drawn a little too long."""
    end: float

    @classmethod
    def between(cls, first: Any, second: Any, frame: _Frame) -> _Wall:
        shared = shapely.line_merge(shapely.intersection(first, second))
        lines = shapely.get_parts(shared)
        points, _ = middles(np.asarray(lines[shapely.length(lines) > 0], dtype=object))
        points = frame.points_inwards(points)
        axis = int(np.ptp(points[:, 1]) > np.ptp(points[:, 0]))
        run, place = points[:, axis], points[:, 1 - axis].mean()
        values = np.array([place, run.min() - _REACH, run.max() + _REACH]).round(_DIGITS)
        return cls(axis, *values.tolist())

    @property
    def line(self) -> shapely.LineString:
        ends = np.empty((2, 2))
        ends[:, self.axis], ends[:, 1 - self.axis] = (self.begin, self.end), self.place
        return shapely.LineString(ends)

    def straightens(self, outline: shapely.MultiPolygon) -> shapely.MultiPolygon:
        """The outline with the sides that go on from this wall moved into its line."""
        points = shapely.get_coordinates(outline)
        rings = shapely.get_rings(shapely.get_parts(outline))
        _, ring = shapely.get_coordinates(rings, return_index=True)
        along, aside = points[:, self.axis], points[:, 1 - self.axis]
        start, stop = slice(None, -1), slice(1, None)
        near = (ring[start] == ring[stop]) & (aside[start] == aside[stop])
        near &= np.abs(aside[start] - self.place) <= _SAME_LINE
        low = np.minimum(along[start], along[stop])
        high = np.maximum(along[start], along[stop])
        near &= (low < self.end) & (high > self.begin)
        moved = points.copy()
        for k in np.flatnonzero(near):  # by value: the first point of a ring is its last, too
            on_side = (aside == aside[k]) & (along >= low[k]) & (along <= high[k])
            moved[on_side, 1 - self.axis] = self.place
        result: shapely.MultiPolygon = shapely.set_coordinates(
            shapely.transform(outline, lambda xy: xy), moved
        )
        return result


def without_new_overlaps(drawn: Regularized, simplified: Geometries) -> Regularized:
    """The drawings, less those that claim ground of a neighbour that was not shared before.

    Of two drawings that overlap the smaller one gives way to its simplified outline.

    Args:
        drawn: what was made of n objects of any kinds.
        simplified: outlines of the same objects without right angles, shape (n,).
    """
    polygons, flags = drawn.polygons.copy(), drawn.regularized.copy()
    while True:
        first, second = _overlapping(polygons, flags, simplified)
        if not len(first):
            return Regularized(polygons, flags)
        smaller = shapely.area(polygons[first]) < shapely.area(polygons[second])
        first_goes = flags[first] & (smaller | ~flags[second])
        back = np.where(first_goes, first, second)
        polygons[back], flags[back] = simplified[back], False


def _overlapping(polygons: Geometries, flags: Flags, simplified: Geometries) -> tuple[Ints, Ints]:
    """Pairs with a drawing in them that share more ground than their simplified outlines."""
    drawn = np.flatnonzero(flags)
    a, second = shapely.STRtree(polygons).query(polygons[drawn], predicate="intersects")
    first = drawn[a]
    once = (first < second) | (~flags[second] & (first != second))
    first, second = first[once], second[once]
    now = shapely.area(shapely.intersection(polygons[first], polygons[second]))
    more = now > _NEGLIGIBLE
    first, second, now = first[more], second[more], now[more]
    before = shapely.area(shapely.intersection(simplified[first], simplified[second]))
    worse = now > before + _NEGLIGIBLE
    return first[worse], second[worse]
