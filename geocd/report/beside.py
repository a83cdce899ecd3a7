"""What lies beside the changes on the map of a page: centrelines, gaps, and the run's footprint."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import shapely

from geocd.rasters.grid import Grid
from geocd.report.layer import BESIDE, ChangeLayer
from geocd.report.page import packed
from geocd.report.shapes import encode_lines, polygons_in_pixels

_TOLERANCES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Thinning of the lines, in pixels."""


def layers_beside(layer: ChangeLayer, grid: Grid, *, most: int) -> dict[str, list[list[int]]]:
    """Lines of each layer that the file has, by name, as `shapes.encode_lines` makes them.

    Polygons become their outlines. A layer that is too large even when it is thinned is left out.

    Args:
        layer: the changes and what lies beside them.
        grid: the page's pixels.
        most: bytes that all of them may take in the page.

    Raises:
        CrsMismatchError: a layer or the grid lacks a CRS, and the other has one.
    """
    found: dict[str, list[list[int]]] = {}
    for name in BESIDE:
        lines = _lines(layer.beside.get(name), grid)
        for tolerance in _TOLERANCES if len(lines) else ():
            encoded = found | {name: encode_lines(lines, tolerance)}
            if len(packed(encoded)) <= most:
                found = encoded
                break
    return found


def _lines(frame: geopandas.GeoDataFrame | None, grid: Grid) -> Any:
    """The geometries as lines in the pixels of the page."""
    if frame is None or not len(frame):
        return np.empty(0, object)
    shapes = polygons_in_pixels(frame, grid)
    areal = shapely.get_dimensions(shapes) == 2
    shapes[areal] = shapely.boundary(shapes[areal])
    return shapes
