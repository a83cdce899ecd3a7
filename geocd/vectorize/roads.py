"""The layer of road centrelines that belongs to a layer of change polygons."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyproj
import shapely

from geocd.vectorize.centrelines import centrelines
from geocd.vectorize.ground import decimals_of, rounded

LINE_COLUMNS = ("change_id", "length_m", "width_m")
"""Attributes of a centreline, in the order in which they are written."""
_GEOD = pyproj.Geod(ellps="WGS84")


def road_lines(
    changes: geopandas.GeoDataFrame, *, pixel_size: float, bridge: float = 8.0
) -> geopandas.GeoDataFrame:
    """Centrelines of the roads among change polygons.

    Columns: ``change_id`` (the ``id`` of the polygon), ``length_m`` (along the ground) and
    ``width_m`` (of the road along the line); both null without a CRS. Lines that meet share an
    end; gaps are bridged where two ends face each other.

    Args:
        changes: change polygons with ``id`` and ``kind``.
        pixel_size: of the raster that they were traced from, in metres (1 without a CRS).
        bridge: longest gap that is bridged, in metres (pixels without a CRS); 0: none.

    Returns:
        LineStrings in the CRS of ``changes``.
    """
    roads = changes[changes["kind"] == "road"]
    plane = _plane(roads)
    flat = roads.geometry if plane is None else roads.geometry.to_crs(plane)
    pixels = shapely.transform(flat.to_numpy(), lambda points: points / pixel_size)
    found = centrelines(pixels, bridge=bridge / pixel_size)
    lines = geopandas.GeoSeries(
        shapely.transform(found.lines, lambda points: points * pixel_size), crs=plane or changes.crs
    )
    unknown = np.full(len(lines), np.nan)
    length, width = unknown, unknown
    if plane is not None:
        length = np.array([_GEOD.geometry_length(line) for line in lines.to_crs(4326)], float)
        width, lines = found.width * pixel_size, lines.to_crs(changes.crs)
    table = {"change_id": roads["id"].to_numpy()[found.road], "length_m": length, "width_m": width}
    ground = rounded(lines.to_numpy(), decimals_of(changes.crs, pixel_size))
    return geopandas.GeoDataFrame(pd.DataFrame(table), geometry=ground, crs=changes.crs)


def _plane(roads: geopandas.GeoDataFrame) -> pyproj.CRS | None:
    """A plane around the roads on which lengths are those on the ground; None without a CRS."""
    if roads.crs is None:
        return None
    centre: Any = (0.0, 0.0)
    if len(roads):
        west, south, east, north = roads.to_crs(4326).total_bounds
        centre = ((south + north) / 2, (west + east) / 2)
    return pyproj.CRS.from_proj4(
        f"+proj=laea +lat_0={centre[0]:.6f} +lon_0={centre[1]:.6f} +datum=WGS84 +units=m"
    )


def measured_along(
    changes: geopandas.GeoDataFrame, lines: geopandas.GeoDataFrame
) -> geopandas.GeoDataFrame:
    """The change polygons with ``length_m`` and ``width_m`` of roads from their centrelines.

    The length is that of all lines of a road, the width their mean by length.
    """
    weighted = lines.assign(area=lines["length_m"] * lines["width_m"])
    sums = weighted.groupby("change_id")[["length_m", "area"]].sum()
    sums = sums.reindex(changes["id"]).reset_index(drop=True)
    measured = sums["length_m"].to_numpy() > 0
    result = changes.copy()
    result["length_m"] = np.where(measured, sums["length_m"], changes["length_m"])
    result["width_m"] = np.where(measured, sums["area"] / sums["length_m"], changes["width_m"])
    return result
