"""Change polygons in the pixels of a grid, thinned for display, as numbers for a page."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from geocd.errors import CrsMismatchError
from geocd.rasters.grid import Grid, apply_transform
from geocd.report.images import Window

Geometries = NDArray[np.object_]
Floats = NDArray[np.float64]

QUANTUM = 0.25
"""Resolution of the outlines that a page holds, in pixels."""
_WINDOW_MARGIN = 1.8
"""Side of the window around a change, in multiples of its longer extent."""
_SMALLEST_WINDOW = 64
"""Least side of that window, in pixels: a change is judged by what is around it."""


def polygons_in_pixels(frame: geopandas.GeoDataFrame, grid: Grid) -> Geometries:
    """The polygons with x = column and y = row of the grid, whatever their CRS was.

    Raises:
        CrsMismatchError: one of the two has a CRS and the other has none.
    """
    if (frame.crs is None) != (grid.crs is None) and len(frame):
        with_crs, without = (
            ("the images", "the polygons") if frame.crs is None else ("the polygons", "the images")
        )
        raise CrsMismatchError(
            f"{with_crs} have a CRS and {without} have none; give the images that the changes "
            "were detected in"
        )
    if frame.crs is not None and grid.crs is not None:
        frame = frame.to_crs(grid.crs.to_wkt())
    inverse = ~grid.transform

    def _move(points: Floats) -> Floats:
        return np.column_stack(apply_transform(inverse, points[:, 0], points[:, 1]))

    moved: Geometries = shapely.transform(np.asarray(frame.geometry, dtype=object), _move)
    return moved


def points_on_the_globe(frame: geopandas.GeoDataFrame) -> Floats | None:
    """Longitude and latitude of a point inside each polygon, shape (n, 2); None without a CRS."""
    if frame.crs is None:
        return None
    points = shapely.point_on_surface(np.asarray(frame.geometry, dtype=object))
    xy = shapely.get_coordinates(points)
    to_globe = Transformer.from_crs(frame.crs, 4326, always_xy=True)
    return np.column_stack(to_globe.transform(xy[:, 0], xy[:, 1]))


def windows_around(polygons: Geometries) -> list[Window]:
    """The square window in which each change is shown, with its surroundings."""
    left, top, right, bottom = shapely.bounds(polygons).reshape(-1, 4).T
    side = np.maximum(np.maximum(right - left, bottom - top) * _WINDOW_MARGIN, _SMALLEST_WINDOW)
    side = np.ceil(side)
    corners = np.round((left + right - side) / 2), np.round((top + bottom - side) / 2)
    return [(int(x), int(y), int(s)) for x, y, s in zip(*corners, side, strict=True)]


def encode_rings(polygons: Geometries, tolerance: float) -> list[list[list[int]]]:
    """Outlines for a page: for each polygon its rings, for each ring x, y, then steps.

    Args:
        polygons: areal geometries in pixels, shape (n,).
        tolerance: of the thinning, in pixels.

    Returns:
        Numbers in multiples of ``QUANTUM``; rings are not closed, and holes are rings too.
    """
    thin = shapely.simplify(polygons, tolerance, preserve_topology=True)
    parts, part_owner = shapely.get_parts(thin, return_index=True)
    rings, ring_part = shapely.get_rings(parts, return_index=True)
    result: list[list[list[int]]] = [[] for _ in range(len(polygons))]
    for owner, steps in zip(part_owner[ring_part].tolist(), _steps(rings), strict=True):
        result[owner].append(steps[:-2])  # the last point is the first
    return result


def encode_lines(lines: Geometries, tolerance: float) -> list[list[int]]:
    """Lines for a page, in the numbers of `encode_rings`: x, y, then steps.

    Args:
        lines: LineStrings or MultiLineStrings in pixels, shape (n,).
        tolerance: of the thinning, in pixels.
    """
    parts = shapely.get_parts(lines)
    return _steps(shapely.simplify(parts[shapely.length(parts) > 0], tolerance))


def _steps(lines: Geometries) -> list[list[int]]:
    """The points of each line as x, y, then steps, in multiples of ``QUANTUM``."""
    points, line = shapely.get_coordinates(lines, return_index=True)
    numbers = np.rint(points / QUANTUM).astype(np.int64)
    begins = np.flatnonzero(np.diff(line, prepend=-1)) if len(line) else np.empty(0, np.intp)
    steps = np.diff(numbers, axis=0, prepend=0)
    steps[begins] = numbers[begins]
    ends = np.append(begins, len(points))[1:]
    flat = steps.ravel().tolist()
    return [flat[2 * b : 2 * e] for b, e in zip(begins.tolist(), ends.tolist(), strict=True)]


def encode_bounds(polygons: Geometries) -> dict[str, Any]:
    """Bounds for a page, in multiples of ``QUANTUM``, rounded outwards, by side."""
    bounds = shapely.bounds(polygons).reshape(-1, 4) / QUANTUM
    low, high = np.floor(bounds[:, :2]).astype(int), np.ceil(bounds[:, 2:]).astype(int)
    return {
        "left": low[:, 0].tolist(),
        "top": low[:, 1].tolist(),
        "right": high[:, 0].tolist(),
        "bottom": high[:, 1].tolist(),
    }
