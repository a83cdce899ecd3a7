"""From the outlines of pixels to polygons that a person would draw, and what kind each is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geocd.config import CLASS_CODES, VectorizeConfig
from geocd.vectorize.attributes import Ruler
from geocd.vectorize.kinds import looks_like_road
from geocd.vectorize.neighbours import with_shared_walls, without_new_overlaps
from geocd.vectorize.outline import Floats, Geometries, Ints, smooth
from geocd.vectorize.regularize import Flags, Regularized, regularize

_BATCH = 10_000
"""Objects that are worked on together."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Polygons of n objects, each array of shape (n,)."""

    polygons: Geometries
    """Valid MultiPolygons in pixels."""
    regularized: Flags
    """Whether a polygon was drawn with right angles."""
    kinds: npt.NDArray[np.str_]
    """Building or road."""
    area: Floats
    """Square metres (pixels without a CRS)."""
    perimeter: Floats
    """Metres (pixels without a CRS), holes included."""

    def chosen(self, which: Flags) -> Drawing:
        """Those of the objects that a mask selects."""
        return Drawing(
            self.polygons[which], self.regularized[which], self.kinds[which], self.area[which],
            self.perimeter[which],
        )  # fmt: skip


def draw(
    outlines: Geometries, codes: Ints, *, config: VectorizeConfig, ruler: Ruler
) -> tuple[Drawing, Flags]:
    """The polygons of the objects that reach the minimum mapping unit of their kind.

    Args:
        outlines: valid MultiPolygons along pixel edges, shape (n,), in pixels; no two overlap.
        codes: values of the objects in the change map, shape (n,).
        config: how they are drawn, and what a road looks like.
        ruler: of the grid.

    Returns:
        The polygons, and which of the objects they are of, shape (n,).
    """
    polygons = _by_batches(lambda part: smooth(part, config.simplify), outlines)
    area, perimeter = _measured(polygons, ruler)
    kinds = kinds_of(codes, area, perimeter, config=config, in_metres=ruler.in_metres)
    least = np.array([config.least_area(kind) for kind in kinds.tolist()], float)
    # The minimum mapping unit is a promise about the polygons too: an object that is large
    # enough only by its pixels keeps them.
    small = area < least
    polygons[small] = outlines[small]
    area[small], perimeter[small] = _measured(polygons[small], ruler)
    large = ~(area < least * (1 - 1e-9))
    simple = Drawing(polygons, np.zeros(len(polygons), bool), kinds, area, perimeter)
    simple = simple.chosen(large)
    if not config.regularize or config.simplify == 0:
        return simple, large
    return _with_right_angles(outlines[large], codes[large], simple, least[large], ruler), large


def _with_right_angles(
    outlines: Geometries, codes: Ints, simple: Drawing, least: Floats, ruler: Ruler
) -> Drawing:
    """The drawing with its buildings at right angles, where the pixels say so."""
    building = np.flatnonzero(simple.kinds == "building")
    pixels, before = outlines[building], simple.polygons[building]
    steps = range(0, len(building), _BATCH)
    done = [
        regularize(pixels[i : i + _BATCH], before[i : i + _BATCH], aspect=ruler.aspect)
        for i in steps
    ]
    if not done:
        return simple
    drawn = Regularized(
        np.concatenate([d.polygons for d in done]), np.concatenate([d.regularized for d in done])
    )
    # Pixels of one class that touch are one object: only classes can share a wall.
    if len(np.unique(codes[building])) > 1:
        drawn = with_shared_walls(pixels, before, drawn, aspect=ruler.aspect)
    polygons, flags = simple.polygons.copy(), simple.regularized.copy()
    polygons[building], flags[building] = drawn.polygons, drawn.regularized
    small = np.flatnonzero(flags)
    small = small[ruler.area(polygons[small]) < least[small]]
    polygons[small], flags[small] = simple.polygons[small], False
    drawn = without_new_overlaps(Regularized(polygons, flags), simple.polygons)
    area, perimeter = simple.area.copy(), simple.perimeter.copy()
    new = drawn.regularized
    area[new], perimeter[new] = _measured(drawn.polygons[new], ruler)
    return Drawing(drawn.polygons, new, simple.kinds, area, perimeter)


def kinds_of(
    codes: Ints, area: Floats, perimeter: Floats, *, config: VectorizeConfig, in_metres: bool
) -> npt.NDArray[np.str_]:
    """Building or road for each object: as the network says, else by shape."""
    road = looks_like_road(
        area,
        perimeter,
        elongation=config.road_elongation,
        width=config.road_width if in_metres else None,
    )
    road = np.where(codes == CLASS_CODES["change"], road, codes == CLASS_CODES["road"])
    return np.where(road, "road", "building")


def _measured(polygons: Geometries, ruler: Ruler) -> tuple[Floats, Floats]:
    """Area and perimeter of each polygon."""
    return _by_batches(ruler.area, polygons), _by_batches(ruler.perimeter, polygons)


def _by_batches(function: Callable[[Geometries], Any], geometries: Geometries) -> Any:
    """The function of the geometries, a batch at a time, so that memory stays small."""
    steps = range(0, max(len(geometries), 1), _BATCH)
    return np.concatenate([function(geometries[i : i + _BATCH]) for i in steps])
