"""The middle of areal shapes as a graph: points, each with its distance from the boundary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import shapely

from geocd.vectorize.outline import Floats, Geometries, Ints

_MOST_SITES = 1000
"""Points of a boundary that are worked on at once; what has more is worked on in squares."""
_MARGIN = 4.0
"""How far squares look beyond their edges, in mean widths of the shape."""
_DIGITS = 4
"""Decimals, in pixels, to which points of the middle are told apart."""


@dataclass(slots=True)
class Branch:
    """A stretch of the middle between two junctions or ends."""

    start: int
    stop: int
    points: Floats
    """(k, 2) in pixels, from start to stop; k >= 2."""
    radius: Floats
    """Distance of each point from the boundary, (k,)."""

    @property
    def length(self) -> float:
        """In pixels."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())


@dataclass(slots=True)
class Middle:
    """Branches by the nodes that they join."""

    branches: list[Branch] = field(default_factory=list)

    def degree(self) -> dict[int, int]:
        """Ends of branches at each node; the two ends of a ring count twice."""
        degree: dict[int, int] = {}
        for branch in self.branches:
            for node in (branch.start, branch.stop):
                degree[node] = degree.get(node, 0) + 1
        return degree


def middle_of(polygon: shapely.Polygon, *, width: float) -> Middle:
    """The medial axis of a shape: where two points of the boundary are nearest.

    It is made of the sides of the Voronoi cells of points along the boundary that lie inside.
    Large shapes are worked on square by square, so that memory follows the largest square.

    Args:
        polygon: valid, in pixels.
        width: mean width of the shape, in pixels; sets how dense the points are.

    Source:
        Brandt and Algazi (1992), doi:10.1016/1049-9660(92)90030-7.
    """
    step = float(np.clip(width / 4, 0.7, 8))
    boundary = shapely.boundary(polygon)
    sites = shapely.get_coordinates(shapely.segmentize(boundary, step))
    shapely.prepare(polygon)
    pieces = [_inside(polygon, *square) for square in _squares(sites, width)]
    sides = np.concatenate(pieces) if pieces else np.empty((0, 2, 2))
    return _branches(sides, boundary)


def _squares(sites: Floats, width: float) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Sites in and around each square, with its lower and upper corner."""
    low, high = sites.min(axis=0) - 1, sites.max(axis=0) + 1
    count = max(1, int(np.ceil(np.sqrt(len(sites) / _MOST_SITES))))
    size = np.maximum((high - low) / count, 8 * width)
    for row in range(int(np.ceil((high - low)[1] / size[1]))):
        for col in range(int(np.ceil((high - low)[0] / size[0]))):
            corner = low + size * (col, row)
            far = corner + size
            near = ((sites > corner - _MARGIN * width) & (sites < far + _MARGIN * width)).all(
                axis=1
            )
            if near.sum() >= 4:
                yield sites[near], corner, far


def _inside(polygon: shapely.Polygon, sites: Floats, corner: Floats, far: Floats) -> Floats:
    """Sides of Voronoi cells inside the polygon whose middles lie in the square, (k, 2, 2)."""
    cells = shapely.voronoi_polygons(shapely.multipoints(sites), only_edges=True)
    lines = shapely.get_parts(cells)
    sides = shapely.get_coordinates(lines).reshape(-1, 2, 2)
    middle = sides.mean(axis=1)
    sides = sides[((middle >= corner) & (middle < far)).all(axis=1)]
    within = shapely.contains_xy(polygon, sides[..., 0], sides[..., 1])
    return np.asarray(sides[within.all(axis=1)])


def _branches(sides: Floats, boundary: shapely.Geometry) -> Middle:
    """Chains of sides between the points at which not exactly two of them meet."""
    if len(sides) == 0:
        return Middle()
    points, index = np.unique(sides.reshape(-1, 2).round(_DIGITS), axis=0, return_inverse=True)
    pairs = index.reshape(-1, 2)
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    radius = _distance(points, boundary)
    links: list[list[int]] = [[] for _ in points]
    for a, b in pairs.tolist():
        links[a].append(b)
        links[b].append(a)
    middle, seen = Middle(), set[tuple[int, int]]()
    nodes = [n for n, ends in enumerate(links) if len(ends) not in (0, 2)]
    # Rings have no such point; any of theirs will do, once the others have been walked.
    for node in [*nodes, *range(len(links))]:
        for step in links[node]:
            if (node, step) in seen or (len(links[node]) == 2 and _walked(node, links, seen)):
                continue
            chain = _walk(node, step, links)
            seen.update(pairwise(chain))
            seen.update(pairwise(chain[::-1]))
            middle.branches.append(Branch(chain[0], chain[-1], points[chain], radius[chain]))
    return middle


def _walked(node: int, links: list[list[int]], seen: set[tuple[int, int]]) -> bool:
    return any((node, step) in seen for step in links[node])


def _walk(node: int, step: int, links: list[list[int]]) -> list[int]:
    chain = [node, step]
    while len(links[chain[-1]]) == 2 and chain[-1] != node:
        first, second = links[chain[-1]]
        chain.append(second if first == chain[-2] else first)
    return chain


def _distance(points: Floats, boundary: shapely.Geometry) -> Floats:
    rings: Geometries = np.asarray(shapely.get_parts(boundary), dtype=object)
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    same: Ints = np.flatnonzero(ring[1:] == ring[:-1])
    segments: Any = shapely.linestrings(np.stack([corners[same], corners[same + 1]], axis=1))
    (query, _), distance = shapely.STRtree(segments).query_nearest(
        shapely.points(points), return_distance=True, all_matches=False
    )
    result = np.zeros(len(points))
    result[query] = distance
    return result
