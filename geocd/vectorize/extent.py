"""What a run covers: the outline of its map, and the ground in it that was not observed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely

from geocd.config import NOT_OBSERVED
from geocd.rasters.write import bounded_cache
from geocd.vectorize.attributes import Ruler, to_ground
from geocd.vectorize.components import ObjectStream
from geocd.vectorize.ground import decimals_of, rounded
from geocd.vectorize.outline import Geometries
from geocd.vectorize.roads import measured_along, road_lines
from geocd.vectorize.scorefile import RowReader, grid_of, opened, pyproj_crs


def with_layers(
    changes: geopandas.GeoDataFrame, scores: Path, *, dates: tuple[str | None, str | None]
) -> tuple[geopandas.GeoDataFrame, dict[str, geopandas.GeoDataFrame]]:
    """The changes with their roads measured along the middle, and the layers beside them.

    Args:
        changes: as ``trace_changes`` gives them.
        scores: the raster that they were traced from.
        dates: ISO dates of the images before and after.

    Returns:
        The changes, and "centrelines" (`road_lines`), "footprint" and "not_observed"
        (`trace_extent`) by name.
    """
    layers = trace_extent(scores, dates=dates)
    with opened(scores) as dataset:
        dy, dx = grid_of(dataset).gsd() or (1.0, 1.0)
    lines = road_lines(changes, pixel_size=math.sqrt(dy * dx))
    if changes.crs is not None and len(lines):
        changes = measured_along(changes, lines)
    return changes, {"centrelines": lines} | layers


def trace_extent(
    scores: Path, *, dates: tuple[str | None, str | None] = (None, None), min_area: float = 0
) -> dict[str, geopandas.GeoDataFrame]:
    """The layers "footprint" (one polygon) and "not_observed" (one a gap), in the raster's CRS.

    The footprint has ``area_m2`` (null without a CRS), ``observed`` (share of its pixels, 0..1)
    and both dates; gaps have ``area_m2`` and ``area_px``, the largest first. The raster is read
    in bands of rows.

    Args:
        scores: raster of scores.
        dates: ISO dates of the images before and after.
        min_area: smallest gap, in square metres (pixels without a CRS).

    Raises:
        RasterOpenError: the file cannot be read.
    """
    with bounded_cache(), opened(scores) as dataset:
        grid = grid_of(dataset)
        ruler = Ruler(grid)
        gaps = _gaps(dataset)
    count = shapely.area(gaps)
    share = 1 - count.sum() / (grid.height * grid.width)
    whole = np.array([shapely.MultiPolygon([shapely.box(0, 0, grid.width, grid.height)])])
    footprint = pd.DataFrame({"observed": [share], "before_date": pd.array([dates[0]], "string"),
                              "after_date": pd.array([dates[1]], "string")})  # fmt: skip
    large = ruler.area(gaps) >= min_area
    holes = pd.DataFrame({"area_px": np.rint(count[large]).astype(np.int64)})
    crs = pyproj_crs(grid.crs)
    decimals = decimals_of(crs, min(grid.gsd() or grid.pixel_size))
    layers = {}
    for name, table, shapes in (
        ("footprint", footprint, whole),
        ("not_observed", holes, gaps[large]),
    ):
        area = ruler.area(shapes) if ruler.in_metres else np.full(len(shapes), np.nan)
        table.insert(0, "area_m2", area)
        ground = rounded(to_ground(shapes, grid), decimals)
        layers[name] = geopandas.GeoDataFrame(table, geometry=ground, crs=crs)
    layers["not_observed"] = layers["not_observed"].sort_values(
        "area_px", ascending=False, kind="stable", ignore_index=True
    )
    return layers


def _gaps(dataset: Any) -> Geometries:
    """Outlines of what was not observed, in pixels."""
    height, width = dataset.shape
    stream = ObjectStream(width)
    found = []
    for rows in RowReader(dataset, (1.0,) * dataset.count, (0,) * dataset.count):
        unseen = rows.codes == NOT_OBSERVED
        closed = stream.add(
            unseen.view(np.uint8), rows.codes, rows.doubtful, last=rows.stop == height
        )
        found.append(closed.outlines)
    return np.concatenate(found)
