"""From the outlines of pixels to polygons that a person would draw, and what kind each is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from geocd.config import CLASS_CODES, VectorizeConfig
from geocd.vectorize.attributes import Measures, Ruler
from geocd.vectorize.kinds import looks_like_road
from geocd.vectorize.neighbours import with_shared_walls, without_new_overlaps
from geocd.vectorize.outline import Floats, Geometries, Ints, smooth
from geocd.vectorize.regularize import Flags, Regularized, regularize
from geocd.vectorize.rough import with_rough_ones

_BATCH = 1_000
"""Objects that are worked on together: their points fit into the caches of a processor."""
_SURE = 1 + 1e-6
"""How much larger than asked for what is judged by its pixels must be."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Polygons of n objects, each array of shape (n,)."""

    polygons: Geometries
    """Valid MultiPolygons in pixels."""
    regularized: Flags
    """Whether a polygon was drawn with right angles."""
    kinds: npt.NDArray[np.str_]
    """Building or road."""


def draw(
    outlines: Geometries, codes: Ints, part: Flags, *, config: VectorizeConfig, ruler: Ruler
) -> tuple[Drawing, Flags]:
    """The polygons of the objects that reach the minimum mapping unit of their kind.

    Args:
        outlines: valid MultiPolygons along pixel edges, shape (n,), in pixels; no two overlap.
        codes: values of the objects in the change map, shape (n,).
        part: whether each was taken from a larger object, shape (n,).
        config: how they are drawn, and what a road looks like.
        ruler: of the grid.

    Returns:
        The polygons, and which of the objects they are of, shape (n,).
    """
    polygons = _by_batches(lambda part: smooth(part, config.simplify), outlines)
    area = _by_batches(ruler.area, polygons)
    kinds = _kinds_of(polygons, codes, area, config, ruler)
    least = np.array([config.least_area(kind) for kind in kinds.tolist()], float)
    # The minimum mapping unit is a promise about the polygons too: an object that is large
    # enough only by its pixels keeps them.
    small = area < least
    polygons[small] = outlines[small]
    area[small] = _by_batches(ruler.area, polygons[small])
    large = ~(area < least * (1 - 1e-9))
    simple = Drawing(polygons[large], np.zeros(large.sum(), bool), kinds[large])
    if not config.regularize or config.simplify == 0:
        return simple, large
    least = least[large] / area[large]
    # Pixels of one class that touch are one object: only parts and classes can share a wall.
    walls = part[large] | (len(np.unique(codes[large][simple.kinds == "building"])) > 1)
    return _with_right_angles(outlines[large], walls, simple, least, ruler), large


def _with_right_angles(
    outlines: Geometries, walls: Flags, simple: Drawing, least: Floats, ruler: Ruler
) -> Drawing:
    """The drawing with its buildings at right angles, where the pixels say so.

    ``walls`` says which may share walls; ``least`` is the smallest area that each may have, as
    a share of the area it has.
    """
    building = np.flatnonzero(simple.kinds == "building")
    pixels, before = outlines[building], simple.polygons[building]
    if not len(building):
        return simple
    done = [
        regularize(*batch, aspect=ruler.aspect)
        for batch in zip(_batches(pixels), _batches(before), strict=True)
    ]
    drawn = Regularized(
        np.concatenate([d.polygons for d in done]), np.concatenate([d.regularized for d in done])
    )
    drawn = with_rough_ones(pixels, before, drawn, aspect=ruler.aspect)
    polygons, flags = simple.polygons.copy(), simple.regularized.copy()
    polygons[building], flags[building] = drawn.polygons, drawn.regularized
    beside = building[walls[building]]
    if len(beside):
        drawn = with_shared_walls(
            outlines[beside], simple.polygons[beside],
            Regularized(polygons[beside], flags[beside]), aspect=ruler.aspect,
        )  # fmt: skip
        polygons[beside], flags[beside] = drawn.polygons, drawn.regularized
    # Maps are true to scale within an object, so the shares of pixels are those of the ground.
    least = least * _SURE * shapely.area(simple.polygons)
    small = flags & (shapely.area(polygons) < least)
    polygons[small], flags[small] = simple.polygons[small], False
    drawn = without_new_overlaps(Regularized(polygons, flags), simple.polygons)
    return Drawing(drawn.polygons, drawn.regularized, simple.kinds)


def _kinds_of(
    polygons: Geometries, codes: Ints, area: Floats, config: VectorizeConfig, ruler: Ruler
) -> npt.NDArray[np.str_]:
    """Building or road for each object: as the network says, else by shape."""
    road = codes == CLASS_CODES["road"]
    unsaid = codes == CLASS_CODES["change"]
    road[unsaid] = looks_like_road(
        area[unsaid], _by_batches(ruler.perimeter, polygons[unsaid]),
        elongation=config.road_elongation, width=config.road_width if ruler.in_metres else None,
    )  # fmt: skip
    return np.where(road, "road", "building")


def measured(polygons: Geometries, ruler: Ruler) -> Measures:
    """Everything that is measured of polygons, shape (n,)."""
    several = [ruler.measure(batch) for batch in _batches(polygons)]
    return Measures(*map(np.concatenate, zip(*several, strict=True)))


def _by_batches(function: Callable[[Geometries], Any], geometries: Geometries) -> Any:
    """The function of the geometries, a batch at a time, so that memory stays small."""
    return np.concatenate([function(batch) for batch in _batches(geometries)])


def _batches(geometries: Geometries) -> Iterator[Geometries]:
    """One batch at least, which may be empty."""
    for begin in range(0, max(len(geometries), 1), _BATCH):
        yield geometries[begin : begin + _BATCH]
