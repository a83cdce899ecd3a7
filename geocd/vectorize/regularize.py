"""Buildings drawn with right angles, where the pixels say that they have them.

Each outline is fitted with sides in two directions at a right angle. A side lies where the steps
of the pixels lie on average, to a fraction of a pixel, and not where one corner of a pixel
happens to be. The way:

    pixel outline ─ points ─ thinned ─ runs along and across ─ short ones out ─ fitted ─ gate
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely

from geocd.errors import ConfigError, ShapeError
from geocd.vectorize.attributes import fill
from geocd.vectorize.outline import Floats, Geometries, Ints, as_multipolygons, vertical_sides
from geocd.vectorize.sides import Runs, fit_sides, without_short_runs

Flags = npt.NDArray[np.bool_]

_SPECK = 12.0
"""Holes and parts smaller than this, in pixels, are noise beside something larger."""
_THINNING = 1.0
"""Tolerance, in pixels, of the thinned outline that is taken apart into sides."""
_COARSE = 2.0
"""Tolerance, in pixels, of the thinned outline that tells directions: bumps have none."""
_SHEET_PIXELS = 1 << 22
"""Pixels in which noisy boundaries are cleaned at once; larger objects are left as they are."""
_BINS = 90
"""Steps in which the dominant direction is looked for, of one degree each."""
_NEAR = 12.0
"""Sides within so many degrees of the best step have a say in the dominant direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gate:
    """What a drawing with right angles must keep to; otherwise the simplified outline stays."""

    area_change: float = 0.10
    """Largest relative change of area."""
    difference: float = 0.20
    """Largest area between the pixels' outline and the drawing, as a share of the object's."""
    typical: float = 1.25
    """Largest root mean square distance of the pixels' steps from the drawing, in pixels."""
    largest: float = 5.0
    """Largest distance of one step from the drawing, in pixels."""
    along: float = 0.6
    """Least share of the thinned outline within 15 degrees of the two directions."""
    cleaned: float = 0.35
    """Largest share of the pixels that cleaning the boundary may change."""
    detour: float = 1.12
    """Largest perimeter in multiples of the thinned outline's: stairs are no walls."""


_GATE = _Gate()


@dataclass(frozen=True, slots=True)
class Regularized:
    """Drawings of n objects."""

    polygons: Geometries
    """Valid MultiPolygons in pixels, shape (n,)."""
    regularized: Flags
    """Whether each has right angles now; False: the simplified outline stayed. Shape (n,)."""


def regularize(outlines: Geometries, simplified: Geometries, *, aspect: float = 1.0) -> Regularized:
    """Draw buildings with right angles, each by its own dominant direction.

    An object keeps its simplified outline unless the drawing is valid, keeps its area within
    10 %, differs from the pixels by at most 20 % of the area, and stays within 5 pixels
    (1.25 in the root mean square) of the pixels' steps; and unless most of the outline runs
    in the two directions and stairs do not make it longer. Round tanks and slanting walls
    therefore stay as they are. Holes and parts of fewer than 12 pixels are left out of a drawing.

    Objects are drawn one by one: see `without_new_overlaps` and `with_shared_walls` for
    what neighbours need.

    Args:
        outlines: valid MultiPolygons along pixel edges, shape (n,), in pixels.
        simplified: the same objects as `smooth` draws them, shape (n,).
        aspect: height of a pixel on the ground over its width; angles are right on the ground.

    Raises:
        ShapeError: the two arrays differ in shape.
        ConfigError: ``aspect`` is not positive.
    """
    if np.shape(outlines) != np.shape(simplified):
        raise ShapeError(
            f"there are {np.shape(outlines)} outlines and {np.shape(simplified)} simplified "
            "ones; give the same objects in the same order"
        )
    if not (np.isfinite(aspect) and aspect > 0):
        raise ConfigError(f"the aspect of a pixel must be positive, got {aspect}")
    if len(outlines) == 0:
        return Regularized(np.array(simplified, dtype=object), np.zeros(0, bool))
    steps = Steps.of(outlines, aspect)
    area = steps.areas(len(outlines))
    drawn, good = _drawn(steps, area)
    again = np.flatnonzero(~good)
    if len(again):
        drawn[again], good[again] = _drawn_from_cleaned(outlines[again], area[again], aspect)
    polygons = np.where(good, scaled(drawn, 1 / aspect), simplified)
    return Regularized(polygons, good)


def scaled(geometries: Geometries, y: float) -> Geometries:
    """The geometries with their y coordinates multiplied."""
    if y == 1:
        return geometries
    moved: Geometries = shapely.transform(geometries, lambda points: points * (1.0, y))
    return moved


@dataclass(frozen=True, slots=True)
class Steps:
    """The middles of the pixel sides along which outlines run, ring after ring."""

    points: Floats
    """(m, 2), x and y in pixels; y stretched to the ground."""
    ring: Ints
    """Ring of each point, ascending, (m,)."""
    owner: Ints
    """Object of each ring."""
    part: Ints
    """Part that each ring belongs to, ascending; counted over all objects."""
    part_owner: Ints
    """Object of each part."""
    ring_area: Floats
    """Area that each ring encloses; negative for holes."""

    def areas(self, count: int) -> Floats:
        """Areas that the outlines enclose, in pixels stretched to the ground, (count,)."""
        return np.bincount(self.owner, weights=self.ring_area, minlength=count).astype(float)

    @classmethod
    def of(cls, outlines: Geometries, aspect: float) -> Steps:
        """Steps of outlines along pixel edges, shape (n,), without specks."""
        parts, part_owner = shapely.get_parts(outlines, return_index=True)
        largest = np.zeros(len(outlines))
        area = shapely.area(parts)
        np.maximum.at(largest, part_owner, area)
        kept = (area >= _SPECK) | (area == largest[part_owner])
        parts, part_owner = parts[kept], part_owner[kept]
        rings, part = shapely.get_rings(parts, return_index=True)
        inner = np.r_[False, part[1:] == part[:-1]] if len(part) else np.zeros(0, bool)
        enclosed = shapely.area(shapely.polygons(rings))
        kept = ~inner | (enclosed >= _SPECK)
        rings, part = rings[kept], part[kept]
        enclosed = np.where(inner, -enclosed, enclosed)[kept] * aspect
        points, ring = middles(rings)
        points[:, 1] *= aspect
        return cls(points, ring, part_owner[part], part, part_owner, enclosed)


def middles(rings: Geometries) -> tuple[Floats, Ints]:
    """Middles of the pixel sides that the rings follow, and the ring of each."""
    points, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    start, way, ring = points[:-1][same], np.diff(points, axis=0)[same], ring[:-1][same]
    length = np.rint(np.abs(way).sum(axis=1)).astype(np.intp)
    side = np.repeat(np.arange(len(length)), length)
    step = np.arange(len(side)) - np.repeat(np.cumsum(length) - length, length)
    unit = way / length[:, None]
    return start[side] + unit[side] * (step + 0.5)[:, None], ring[side]


def _drawn(steps: Steps, area: Floats) -> tuple[Geometries, Flags]:
    """Drawings of the objects and whether each may be one; empty where there is none."""
    count = len(area)
    if not len(steps.points):
        return np.full(count, shapely.MultiPolygon(), dtype=object), np.zeros(count, bool)
    numbered = np.column_stack([steps.points, np.arange(len(steps.points))])
    rings: Any = shapely.linearrings(numbered, indices=steps.ring)
    direction, along, length = directions(steps, rings, count)
    corner = thinned(rings, _THINNING)
    runs = Runs.of(steps.points, steps.ring, steps.owner, corner, direction)
    fit = fit_sides(without_short_runs(runs))
    good = np.zeros(count, bool)
    good[steps.owner] = True
    np.logical_and.at(good, steps.owner, fit.fitted)
    good &= along >= _GATE.along
    good &= (fit.typical <= _GATE.typical) & (fit.largest <= _GATE.largest)
    drawn = assembled(fit.corners, fit.ring, steps, good)
    around = shapely.length(drawn)
    good &= shapely.is_valid(drawn) & (around <= _GATE.detour * length)
    good &= np.abs(shapely.area(drawn) - area) <= _GATE.area_change * area
    # The strip between two lines that run along each other has the area of their mean
    # distance times their length; overlaying them would take longer than everything else.
    good &= fit.mean * around <= _GATE.difference * area
    return drawn, good


def _drawn_from_cleaned(
    outlines: Geometries, area: Floats, aspect: float
) -> tuple[Geometries, Flags]:
    """Drawings of objects whose boundary is too noisy to be drawn as it is."""
    cleaned, changed = _majority(outlines)
    steps = Steps.of(cleaned, aspect)
    drawn, good = _drawn(steps, steps.areas(len(outlines)))
    good &= np.abs(shapely.area(drawn) - area) <= _GATE.area_change * area
    return drawn, good & (changed <= _GATE.cleaned)


def _majority(outlines: Geometries) -> tuple[Geometries, Floats]:
    """Outlines after each pixel did what most around it do, twice, and the share that changed."""
    cleaned: Geometries = np.full(len(outlines), shapely.MultiPolygon(), dtype=object)
    changed = np.ones(len(outlines))
    bounds = shapely.bounds(outlines).astype(np.intp)
    width, height = bounds[:, 2] - bounds[:, 0] + 2, bounds[:, 3] - bounds[:, 1] + 2
    # Objects of about the same width share a sheet, because a call costs more than a house.
    order = np.argsort(width, kind="stable")
    order = order[(height * width)[order] <= _SHEET_PIXELS]
    while len(order):
        pixels = np.cumsum(height[order]) * np.maximum.accumulate(width[order])
        count = max(1, int(np.searchsorted(pixels, _SHEET_PIXELS, side="right")))
        sheet, order = order[:count], order[count:]
        cleaned[sheet], changed[sheet] = _cleaned_on_a_sheet(outlines[sheet], bounds[sheet])
    return cleaned, changed


def _cleaned_on_a_sheet(outlines: Geometries, bounds: Ints) -> tuple[Geometries, Floats]:
    """What `_majority` says, for objects that are painted one below the other."""
    height = bounds[:, 3] - bounds[:, 1] + 2  # two empty rows between any two
    top = np.cumsum(height) - height + 1
    size = int(height.sum()), int((bounds[:, 2] - bounds[:, 0]).max()) + 2
    owner, col, first, last = vertical_sides(outlines)
    down, right = (top - bounds[:, 1])[owner], (1 - bounds[:, 0])[owner]
    mask = fill((col + right, first + down, last + down), 0, 0, *size)
    calm = cv2.medianBlur(cv2.medianBlur(mask, 3), 3)
    begin = top - 1
    before = np.add.reduceat(np.count_nonzero(mask, axis=1), begin)
    differs = np.add.reduceat(np.count_nonzero(mask != calm, axis=1), begin)
    rings = [s["coordinates"] for s, _ in rasterio.features.shapes(calm, mask=calm, connectivity=8)]
    result: Geometries = np.full(len(outlines), shapely.MultiPolygon(), dtype=object)
    if rings:
        parts = np.array([shapely.Polygon(shell, holes) for shell, *holes in rings], dtype=object)
        place = np.searchsorted(begin, shapely.bounds(parts)[:, 1], side="right") - 1
        order = np.argsort(place, kind="stable")
        owners, index = np.unique(place[order], return_inverse=True)
        joined: Any = shapely.multipolygons(parts[order], indices=index)
        back = np.column_stack([bounds[owners, 0] - 1, bounds[owners, 1] - top[owners]])
        points, of = shapely.get_coordinates(joined, return_index=True)
        result[owners] = as_multipolygons(shapely.set_coordinates(joined, points + back[of]))
    return result, differs / before


def directions(steps: Steps, rings: Geometries, count: int) -> tuple[Floats, Floats, Floats]:
    """Of each object: dominant direction in radians, share of the sides along it, perimeter.

    Args:
        steps: of ``count`` objects.
        rings: through the steps, with the index of each as z.
        count: number of objects.
    """
    corner = thinned(rings, _COARSE)
    ring = steps.ring[corner]
    way = steps.points[corner[_next_in_ring(ring)]] - steps.points[corner]
    length = np.hypot(way[:, 0], way[:, 1])
    angle = np.degrees(np.arctan2(way[:, 1], way[:, 0])) % 90
    owner = steps.owner[ring]
    direction = _dominant_direction(angle, length, owner, count)
    off = np.abs((angle - direction[owner] + 45) % 90 - 45)
    along = np.bincount(owner, weights=length * (off <= 15), minlength=count)
    total = np.bincount(owner, weights=length, minlength=count).astype(float)
    return np.radians(direction), along / np.maximum(total, 1e-9), total


def thinned(rings: Geometries, tolerance: float) -> Ints:
    """Indices (the z of ``rings``) of the points that thinned rings keep, ring after ring."""
    rings = shapely.simplify(rings, tolerance, preserve_topology=False)
    kept, ring = shapely.get_coordinates(rings, include_z=True, return_index=True)
    opening = np.r_[True, ring[1:] != ring[:-1]]
    corners: Ints = kept[~opening, 2].astype(np.intp)  # the closing point stands for both
    return corners


def _next_in_ring(ring: Ints) -> Ints:
    n = len(ring)
    after = np.arange(1, n + 1)
    first = np.flatnonzero(np.r_[True, ring[1:] != ring[:-1]])
    after[np.r_[first[1:], n] - 1] = first
    return after


def _dominant_direction(angle: Floats, length: Floats, owner: Ints, count: int) -> Floats:
    """The direction, in degrees 0..90, in which most of each object's outline runs."""
    # Long sides know their direction better than short ones, hence the square.
    weight = length**2
    step = np.floor(angle).astype(np.intp) % _BINS
    votes = np.bincount(owner * _BINS + step, weights=weight, minlength=count * _BINS)
    votes = votes.reshape(count, _BINS)
    smoothed = sum(np.roll(votes, shift, axis=1) * (4 - abs(shift)) for shift in range(-3, 4))
    best = np.argmax(smoothed, axis=1) + 0.5
    off = (angle - best[owner] + 45) % 90 - 45
    weight = weight * (np.abs(off) <= _NEAR)
    mean = np.bincount(owner, weights=weight * off, minlength=count)
    total = np.bincount(owner, weights=weight, minlength=count)
    return np.asarray((best + mean / np.maximum(total, 1e-9)) % 90)


def assembled(corners: Floats, ring: Ints, steps: Steps, good: Flags) -> Geometries:
    """MultiPolygons from the corners of the good objects' rings; empty ones for the others.

    Args:
        corners: (c, 2), ring after ring.
        ring: ring of each corner, (c,).
        steps: which rings belong to which part and object.
        good: the objects to make, (n,).
    """
    result: Geometries = np.full(len(good), shapely.MultiPolygon(), dtype=object)
    used = good[steps.owner[ring]]
    if not used.any():
        return result
    numbers, index = np.unique(ring[used], return_inverse=True)
    rings: Any = shapely.linearrings(corners[used], indices=index)
    parts, part = np.unique(steps.part[numbers], return_inverse=True)
    polygons: Any = shapely.polygons(rings, indices=part)
    owners, owner = np.unique(steps.part_owner[parts], return_inverse=True)
    result[owners] = shapely.multipolygons(polygons, indices=owner)
    return result
