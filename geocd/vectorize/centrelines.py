"""Roads as lines: the middle of each road, with its width, joined into a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from geocd.errors import ConfigError
from geocd.vectorize.kinds import mean_length_and_width
from geocd.vectorize.medial import Branch, Middle, middle_of
from geocd.vectorize.outline import Floats, Geometries, Ints

_JUNCTION = 1.5
"""How far the middle of a road bends around a junction, in radii of the junction."""
_TANGENT = 3.0
"""Over how much of a road its direction at an end or a junction is measured, in radii."""
_STRAIGHT = 0.15
"""How far a road may bend beside a junction, in radii, to be drawn straight on through it."""
_SHIFT = 0.35
"""How far a junction may be moved to where its roads meet, in radii."""
_FACING = 0.85
"""Least cosine of the angles between a gap and the two ends that it lies between."""
_STEP = 1.0
"""Distance of the points that are smoothed, in pixels."""
_THINNING = 0.15
"""Tolerance of the thinning of finished lines, in pixels."""


@dataclass(frozen=True, slots=True)
class Centrelines:
    """Lines along the middle of n roads, m in all."""

    lines: Geometries
    """LineStrings in pixels, shape (m,); those that meet share an end."""
    road: Ints
    """Which of the roads each line is of, ascending, shape (m,)."""
    width: Floats
    """Mean width of the road along each line, in pixels, shape (m,)."""


def centrelines(roads: Geometries, *, bridge: float = 0.0) -> Centrelines:
    """The middle of each road, from junction to junction.

    Spurs shorter than the road is wide are left out, lines run straight through junctions and
    on to the ends of the road, and are smooth to fractions of a pixel. The width is twice the
    distance from the middle to the edges, away from junctions (median).

    Args:
        roads: valid MultiPolygons, shape (n,), in pixels.
        bridge: longest gap, in pixels, across which two ends that face each other are joined;
            the line of the first of them then ends where the second one begins.

    Raises:
        ConfigError: ``bridge`` is negative.
    """
    if not bridge >= 0:
        raise ConfigError(f"the longest gap to bridge must not be negative, got {bridge}")
    lines: list[Floats] = []
    owner: list[int] = []
    widths: list[float] = []
    for index, road in enumerate(roads):
        for part in shapely.get_parts(road):
            for points, width in _along(part):
                lines.append(points)
                owner.append(index)
                widths.append(width)
    if bridge > 0:
        lines = _bridged(lines, np.array(widths), bridge)
    shapes = np.array([shapely.LineString(points) for points in lines], dtype=object)
    return Centrelines(shapes, np.array(owner, np.intp), np.array(widths, float))


def _along(polygon: shapely.Polygon) -> list[tuple[Floats, float]]:
    """Lines along a road, and the width of each."""
    area, around = np.array([polygon.area]), np.array([polygon.length])
    mean_width = float(mean_length_and_width(area, around)[1][0])
    # No road goes round a hole that is smaller than the road is wide.
    holes = [r for r in polygon.interiors if shapely.Polygon(r).area >= mean_width**2]
    polygon = shapely.Polygon(polygon.exterior, holes)
    middle = middle_of(polygon, width=mean_width)
    _prune(middle)
    _contract(middle)
    if not middle.branches:
        return [_axis(polygon)]
    nodes = _straightened(middle)
    degree = middle.degree()
    result = []
    for branch in middle.branches:
        points = _through(branch, nodes, degree)
        width = _width(branch, degree)
        if branch.start == branch.stop and degree[branch.start] == 2:
            smooth = _smoothed(points, width / 2, ring=True)
        else:
            # What is shorter than it is wide has no bends worth keeping.
            stub = branch.length < width
            smooth = points[[0, -1]] if stub else _smoothed(points, width / 2, ring=False)
            smooth = _to_the_ends(smooth, branch, degree, width, polygon)
        line = shapely.simplify(shapely.LineString(smooth), _THINNING)
        result.append((shapely.get_coordinates(line), width))
    return result


def _axis(polygon: shapely.Polygon) -> tuple[Floats, float]:
    """The long axis of the smallest rectangle around a shape that has no other middle."""
    corners = shapely.get_coordinates(shapely.oriented_envelope(polygon))
    sides = np.hypot(*np.diff(corners[:3], axis=0).T)
    if sides[0] < sides[1]:
        corners = np.roll(corners[:4], -1, axis=0)
    ends = np.array([corners[[0, 3]].mean(axis=0), corners[[1, 2]].mean(axis=0)])
    return ends, polygon.area / float(sides.max())


def _prune(middle: Middle) -> None:
    """Take out branches that end blind and are shorter than the road is wide where they begin."""
    while True:
        degree = middle.degree()
        short: dict[int, list[Branch]] = {}
        for branch in middle.branches:
            ends = [n for n in (branch.start, branch.stop) if degree[n] == 1]
            if len(ends) != 1:
                continue
            base = branch.start if ends[0] == branch.stop else branch.stop
            radius = branch.radius[0] if base == branch.start else branch.radius[-1]
            if branch.length < 2 * radius:
                short.setdefault(base, []).append(branch)
        going = []
        for base, spurs in short.items():
            if len(spurs) == degree[base]:  # nothing else is there: the longest two are the road
                spurs = sorted(spurs, key=lambda branch: branch.length)[:-2]
            going += spurs
        if not going:
            return
        gone = {id(branch) for branch in going}
        middle.branches = [b for b in middle.branches if id(b) not in gone]
        _merge(middle)


def _merge(middle: Middle) -> None:
    """Join the two branches that meet at each node where only two do."""
    at: dict[int, list[Branch]] = {}
    for branch in middle.branches:
        at.setdefault(branch.start, []).append(branch)
        at.setdefault(branch.stop, []).append(branch)
    for node, meeting in at.items():
        if len(meeting) != 2 or meeting[0] is meeting[1]:
            continue
        first, second = meeting
        joined = _joined(first, second, node)
        middle.branches = [b for b in middle.branches if b is not first and b is not second]
        middle.branches.append(joined)
        for end in (joined.start, joined.stop):
            at[end] = [joined if b is first or b is second else b for b in at[end]]


def _joined(first: Branch, second: Branch, node: int) -> Branch:
    if first.stop != node:
        first = _reversed(first)
    if second.start != node:
        second = _reversed(second)
    return Branch(
        first.start,
        second.stop,
        np.concatenate([first.points, second.points[1:]]),
        np.concatenate([first.radius, second.radius[1:]]),
    )


def _reversed(branch: Branch) -> Branch:
    return Branch(branch.stop, branch.start, branch.points[::-1], branch.radius[::-1])


def _contract(middle: Middle) -> None:
    """Make one junction of junctions that lie within each other's discs."""
    while True:
        degree = middle.degree()
        for branch in middle.branches:
            inner = degree[branch.start] > 1 and degree[branch.stop] > 1
            if inner and branch.start != branch.stop and branch.length < branch.radius.max():
                break
        else:
            return
        middle.branches = [b for b in middle.branches if b is not branch]
        gone, kept, place = branch.stop, branch.start, branch.points.mean(axis=0)
        for other in middle.branches:
            if other.start in (gone, kept):
                other.start = kept
                other.points = np.vstack([place, other.points[1:]])
            if other.stop in (gone, kept):
                other.stop = kept
                other.points = np.vstack([other.points[:-1], place])
        _merge(middle)


def _straightened(middle: Middle) -> dict[int, Floats]:
    """Where each junction lies: where the roads that lead there would meet, drawn straight on."""
    rays: dict[int, list[tuple[Floats, Floats, float]]] = {}
    place: dict[int, tuple[Floats, float]] = {}
    for branch in middle.branches:
        for run in (branch, _reversed(branch)):
            radius = float(run.radius[0])
            rays.setdefault(run.start, []).append(_ray(run.points, radius))
            place[run.start] = run.points[0], radius
    nodes: dict[int, Floats] = {}
    for node, lines in rays.items():
        at, radius = place[node]
        bent = any(bend > _STRAIGHT * radius for *_, bend in lines)
        if len(lines) < 3 or bent:
            nodes[node] = at
            continue
        across = np.array([np.eye(2) - np.outer(way, way) for _, way, _ in lines])
        origins = np.array([origin for origin, *_ in lines])
        # A little weight for where it lies now, because parallel roads meet nowhere.
        matrix = across.sum(axis=0) + 0.05 * np.eye(2)
        right = np.einsum("kij,kj->i", across, origins) + 0.05 * at
        met: Floats = np.linalg.solve(matrix, right).astype(float)
        nodes[node] = met if np.hypot(*(met - at)) <= _SHIFT * radius else at
    return nodes


def _ray(points: Floats, radius: float) -> tuple[Floats, Floats, float]:
    """A point and the direction of a line just outside the junction, and how far it bends."""
    gone = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    part = points[(gone >= _JUNCTION * radius) & (gone <= (_JUNCTION + _TANGENT) * radius)]
    if len(part) < 2:
        part = points[-2:] if len(points) > 1 else points
    centre = part.mean(axis=0)
    _, _, axes = np.linalg.svd(part - centre)
    return centre, axes[0], float(np.abs((part - centre) @ axes[1]).max())


def _through(branch: Branch, nodes: dict[int, Floats], degree: dict[int, int]) -> Floats:
    """The points of a branch, straight from where it leaves its junctions to where they lie."""
    gone = np.r_[0, np.cumsum(np.hypot(*np.diff(branch.points, axis=0).T))]
    keep = np.ones(len(gone), bool)
    if degree[branch.start] > 2:
        keep &= gone >= _JUNCTION * branch.radius[0]
    if degree[branch.stop] > 2:
        keep &= gone <= gone[-1] - _JUNCTION * branch.radius[-1]
    first, last = nodes[branch.start], nodes[branch.stop]
    keep[0] = keep[-1] = False
    return np.vstack([first, branch.points[keep], last])


def _width(branch: Branch, degree: dict[int, int]) -> float:
    gone = np.r_[0, np.cumsum(np.hypot(*np.diff(branch.points, axis=0).T))]
    away = (gone >= 2 * branch.radius[0]) | (degree[branch.start] < 3)
    away &= (gone <= gone[-1] - 2 * branch.radius[-1]) | (degree[branch.stop] < 3)
    used = branch.radius[away] if away.any() else branch.radius
    return float(2 * np.median(used))


def _smoothed(points: Floats, sigma: float, *, ring: bool) -> Floats:
    """A line without the wiggles of its points; its ends stay where they are."""
    gone = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    count = max(2, round(gone[-1] / _STEP) + 1)
    even = np.linspace(0, gone[-1], count)
    line = np.column_stack([np.interp(even, gone, points[:, k]) for k in range(2)])
    reach = min(int(np.ceil(3 * sigma / _STEP)), count - 2)
    if reach < 1:
        return line
    offsets = np.arange(-reach, reach + 1) * _STEP
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    if ring:
        padded = np.vstack([line[-1 - reach : -1], line, line[1 : 1 + reach]])
    else:  # mirrored through the ends, which therefore do not move
        before = 2 * line[0] - line[reach:0:-1]
        behind = 2 * line[-1] - line[-2 : -2 - reach : -1]
        padded = np.vstack([before, line, behind])
    weights /= weights.sum()
    return np.column_stack([np.convolve(padded[:, k], weights, "valid") for k in range(2)])


def _to_the_ends(
    points: Floats, branch: Branch, degree: dict[int, int], width: float, polygon: shapely.Polygon
) -> Floats:
    """The line, drawn on to the edge of the road where it ends blind."""
    for node in (branch.start, branch.stop):
        points = points[::-1]
        if degree[node] != 1:
            continue
        # Turned round, so that the end at hand is the last point.
        near = np.hypot(*(points - points[-1]).T)
        inner = points[(near >= width / 2) & (near <= 2 * width)]
        base = inner[-1] if len(inner) else points[0]
        back = inner[0] if len(inner) > 1 else points[0]
        way = base - back if len(inner) > 1 else points[-1] - points[0]
        if not np.hypot(*way) > 0:
            continue
        way = way / np.hypot(*way)
        origin = base if len(inner) > 1 else points[-1]
        ray = shapely.LineString([origin, origin + way * 3 * width])
        out = shapely.intersection(ray, polygon)
        first = shapely.get_coordinates(shapely.get_parts(out)[:1])
        if len(first) >= 2:
            kept = points[near > np.hypot(*(points[-1] - origin))]
            points = np.vstack([kept, origin, first[-1]])
    return points


def _bridged(lines: list[Floats], widths: Floats, bridge: float) -> list[Floats]:
    """The lines, with gaps between ends that face each other closed."""
    if not lines:
        return lines
    ends = np.array([points[k] for points in lines for k in (0, -1)])
    ways = np.array([_outwards(points, k) for points in lines for k in (0, -1)])
    keys, inverse = np.unique(ends.round(3), axis=0, return_inverse=True)
    free = np.bincount(inverse, minlength=len(keys))[inverse] == 1
    places: Any = shapely.points(ends)
    a, b = shapely.STRtree(places).query(places, predicate="dwithin", distance=bridge)
    usable = (a < b) & (a // 2 != b // 2) & free[a] & free[b]
    a, b = a[usable], b[usable]
    gap = ends[b] - ends[a]
    length = np.hypot(*gap.T)
    unit = gap / np.maximum(length, 1e-9)[:, None]
    facing = np.minimum(np.sum(ways[a] * unit, axis=1), -np.sum(ways[b] * unit, axis=1))
    good = (facing >= _FACING) | (length < 1e-9)
    result, taken = list(lines), set[int]()
    for pair in np.argsort(length[good], kind="stable"):
        i, j = int(a[good][pair]), int(b[good][pair])
        if i in taken or j in taken:
            continue
        taken.update((i, j))
        parts = [ends[j], result[i // 2]] if i % 2 == 0 else [result[i // 2], ends[j]]
        result[i // 2] = np.vstack(parts)
    return result


def _outwards(points: Floats, end: int) -> Floats:
    """Direction in which a line leaves at one of its ends."""
    way = points[0] - points[1] if end == 0 else points[-1] - points[-2]
    unit: Floats = way / max(float(np.hypot(*way)), 1e-9)
    return unit
