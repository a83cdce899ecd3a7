"""Polygons in longitude and latitude, around the poles too."""

from __future__ import annotations

import geopandas
import numpy as np
import shapely
import shapely.affinity

from geocd.vectorize.outline import Floats

_SIDES = 64
"""A ring around a pole gets a vertex at least every so many parts of its length."""


def to_lonlat(changes: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The layer in WGS 84; what lies around a pole reaches up to it there.

        on the ground          in longitude and latitude
          ┌─────┐              -180 ┌─────────────┐ 180    latitude 90
          │  x  │      ->           │             │
          └─────┘                   └─/\\_/\\_/\\_/\\─┘        its outline, from west to east

    What crosses the antimeridian is left for the driver to cut.
    """
    result: geopandas.GeoDataFrame = changes.to_crs(4326)
    shapes = np.array(result.geometry, dtype=object)
    for latitude in (90.0, -90.0):
        pole = geopandas.GeoSeries([shapely.Point(0, latitude)], crs=4326).to_crs(changes.crs)
        if pole.iloc[0].is_empty or not np.isfinite(pole.iloc[0].coords[0]).all():
            continue
        around = np.flatnonzero(shapely.contains(np.asarray(changes.geometry), pole.iloc[0]))
        for index in around:
            parts = [
                _opened(part, changes.crs, latitude) if part.contains(pole.iloc[0])
                else geopandas.GeoSeries([part], crs=changes.crs).to_crs(4326).iloc[0]
                for part in changes.geometry.iloc[index].geoms
            ]  # fmt: skip
            shapes[index] = shapely.MultiPolygon(parts)
    return result.set_geometry(shapes, crs=4326)


def cut_at_antimeridian(
    shape: shapely.MultiPolygon,
) -> tuple[shapely.MultiPolygon, tuple[float, float, float, float]]:
    """A shape as GeoJSON wants it, and its box: west > east where it crosses the antimeridian.

    Args:
        shape: valid, in degrees; as ``to_lonlat`` gives it.
    """
    parts = [_without_jump(part) for part in shape.geoms]
    west, south, east, north = shapely.total_bounds(parts).tolist()
    if east - west >= 360:
        west, east = -180.0, 180.0
    cut = [
        shapely.affinity.translate(shapely.intersection(part, world), -turn)
        for part in parts
        for turn in (-360, 0, 360)
        for world in (shapely.box(turn - 180, -90, turn + 180, 90),)
    ]
    pieces = [p for piece in cut for p in shapely.get_parts(piece) if p.geom_type == "Polygon"]
    return shapely.MultiPolygon(pieces), (_around(west), south, _around(east), north)


def _without_jump(polygon: shapely.Polygon) -> shapely.Polygon:
    """A polygon whose longitudes go on beyond 180 where they jumped to -180."""
    west, _, east, _ = polygon.bounds
    if not 180 < east - west < 360:
        return polygon
    return shapely.transform(polygon, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))


def _around(longitude: float) -> float:
    """The same longitude in -180..180."""
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180


def _opened(polygon: shapely.Polygon, crs: object, latitude: float) -> shapely.Polygon:
    """A polygon around a pole, cut from the pole along the antimeridian."""
    fine = shapely.segmentize(polygon, polygon.exterior.length / _SIDES)
    moved = geopandas.GeoSeries([fine], crs=crs).to_crs(4326).iloc[0]
    points = shapely.get_coordinates(moved.exterior)[:-1]
    if np.diff(np.unwrap(points[:, 0], period=360)).sum() < 0:
        points = points[::-1]
    points = np.roll(points, -int(points[:, 0].argmin()), axis=0)
    middle = _latitude_at_180(points[-1], points[0])
    corners = [(180, middle), (180, latitude), (-180, latitude), (-180, middle)]
    return shapely.Polygon([*points, *corners], [ring.coords for ring in moved.interiors])


def _latitude_at_180(east: Floats, west: Floats) -> float:
    """Latitude at which the side from ``east`` to ``west`` crosses the antimeridian."""
    gap = west[0] + 360 - east[0]
    share = (180 - east[0]) / gap if gap else 0.5
    return float(east[1] + share * (west[1] - east[1]))
