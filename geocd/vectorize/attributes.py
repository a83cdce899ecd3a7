"""What is measured of each object: area and outline on the ground, score, share observed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.windows import Window

from geocd.config import NOT_OBSERVED, SCORE_SCALE
from geocd.rasters.grid import Grid, apply_transform, transformer_between
from geocd.vectorize.outline import Floats, Geometries, Ints, vertical_sides

_WGS84 = CRS.from_epsg(4326)
_GEOD = Geod(ellps="WGS84")
_MARGIN = 3
"""How far around an object, in pixels, it matters whether the ground was observed."""
_STRIP_PIXELS = 1 << 22
"""Pixels of an object that are held at once; larger objects are read in strips."""
_LONGEST_SIDE = 32.0
"""Sides longer than this, in pixels, get more vertices before they are projected."""


class Ruler:
    """Measures polygons that are given in pixel coordinates.

    With a CRS in square metres and metres, without one in pixels.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._to_lonlat: Transformer | None = None
        if grid.crs is None:
            return
        self._to_lonlat = transformer_between(grid.crs, _WGS84)
        x, y = grid.transform @ (grid.width / 2, grid.height / 2)
        lon, lat = self._to_lonlat.transform(x, y)
        # An equal-area projection, because a degree of longitude shrinks with latitude and Web
        # Mercator overstates area fourfold at 60 degrees north. Centred on the map, where its
        # lines are straightest, so that the sides of polygons stay what they were.
        local = f"+proj=laea +lat_0={lat:.6f} +lon_0={lon:.6f} +datum=WGS84 +units=m +type=crs"
        self._to_plane = Transformer.from_crs(_WGS84.to_wkt(), local, always_xy=True)

    def area(self, polygons: Geometries) -> Floats:
        """Areas in square metres (pixels without a CRS), shape of ``polygons``."""
        if self._to_lonlat is None:
            return np.asarray(shapely.area(polygons))
        lonlat = self._on_the_ground(polygons)
        return np.asarray(shapely.area(_projected(lonlat, self._to_plane)))

    def perimeter(self, polygons: Geometries) -> Floats:
        """Lengths of all rings in metres (pixels without a CRS), shape of ``polygons``."""
        if self._to_lonlat is None:
            return np.asarray(shapely.length(polygons))
        # Along the ellipsoid: an equal-area projection stretches lengths, and more so the
        # farther from its centre, so a map of a country would be measured wrongly at its rim.
        parts, part_owner = shapely.get_parts(self._on_the_ground(polygons), return_index=True)
        rings, ring_owner = shapely.get_rings(parts, return_index=True)
        lonlat, ring = shapely.get_coordinates(rings, return_index=True)
        side = ring[:-1] == ring[1:]
        start, stop = lonlat[:-1][side], lonlat[1:][side]
        _, _, metres = _GEOD.inv(start[:, 0], start[:, 1], stop[:, 0], stop[:, 1])
        owner = part_owner[ring_owner[ring[:-1][side]]]
        total: Floats = np.bincount(owner, weights=metres, minlength=len(polygons)).astype(float)
        return total

    def _on_the_ground(self, polygons: Geometries) -> Geometries:
        """The polygons in longitude and latitude, with vertices along their long sides."""
        assert self._to_lonlat is not None
        moved = to_ground(shapely.segmentize(polygons, _LONGEST_SIDE), self._grid)
        return _projected(moved, self._to_lonlat)


def _projected(geometries: Geometries, transformer: Transformer) -> Geometries:
    def _move(points: Floats) -> Floats:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    moved: Geometries = shapely.transform(geometries, _move)
    return moved


def to_ground(polygons: Geometries, grid: Grid) -> Geometries:
    """Polygons in the CRS of the grid, from polygons in pixels (x = column, y = row)."""

    def _move(points: Floats) -> Floats:
        return np.column_stack(apply_transform(grid.transform, points[:, 0], points[:, 1]))

    moved: Geometries = shapely.transform(polygons, _move)
    return moved


@dataclass(frozen=True, slots=True)
class PixelMeasures:
    """What the pixels of n objects say, each of shape (n,)."""

    score_mean: Floats
    """Mean score, 0..1; NaN where no pixel has one."""
    score_max: Floats
    """Largest score, 0..1; NaN where no pixel has one."""
    observed: Floats
    """Share of the pixels in and within 3 pixels of the object that were observed, 0..1."""


def measure_pixels(
    outlines: Geometries, bands: Sequence[int], *, change_map: Any, scores: Any
) -> PixelMeasures:
    """Read the pixels of each object, one window after the other.

    Ground outside the raster counts as not observed: an object that the edge cuts off is
    not seen whole.

    Args:
        outlines: areal geometries along pixel edges, shape (n,), in pixels.
        bands: band of ``scores`` for each object, counted from 1.
        change_map: open rasterio dataset of one band.
        scores: open rasterio dataset on the same grid.
    """
    owner, col, top, bottom = vertical_sides(outlines)
    bounds = shapely.bounds(outlines).astype(np.intp)
    begin = np.searchsorted(owner, np.arange(len(outlines) + 1))
    rows = np.empty((len(outlines), 3))
    for i, band in enumerate(bands):
        part = slice(begin[i], begin[i + 1])
        sides = col[part], top[part], bottom[part]
        rows[i] = _measure_one(sides, bounds[i], band, change_map, scores)
    return PixelMeasures(*rows.T)


def _measure_one(
    sides: tuple[Ints, Ints, Ints], bounds: Ints, band: int, change_map: Any, scores: Any
) -> tuple[float, float, float]:
    """(mean score, largest score, share observed) of one object."""
    total = count = near = seen = 0
    largest = -1
    for row, col, height, width in _strips(bounds):
        inside = fill(sides, row - _MARGIN, col, height + 2 * _MARGIN, width)
        around = cv2.dilate(inside, _DISC)[_MARGIN:-_MARGIN].astype(bool)
        codes = _read(change_map, 1, row, col, height, width)
        near += int(around.sum())
        seen += int((codes[around] != NOT_OBSERVED).sum())
        values = _read(scores, band, row, col, height, width)
        values = values[inside[_MARGIN:-_MARGIN].astype(bool)]
        values = values[values != NOT_OBSERVED]
        if values.size:
            total += int(values.sum(dtype=np.int64))
            count += values.size
            largest = max(largest, int(values.max()))
    if count == 0:
        return np.nan, np.nan, seen / near
    return total / count / SCORE_SCALE, largest / SCORE_SCALE, seen / near


def fill(
    sides: tuple[Ints, Ints, Ints], row: int, col: int, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """1 in the pixels of a window that the vertical sides enclose, 0 elsewhere.

    Args:
        sides: column, first row and row after the last of each side, from `vertical_sides`.
        row: first row of the window; may be negative.
        col: first column of the window, not right of any side; may be negative.
        height: rows of the window.
        width: columns of the window.

    Returns:
        Shape (height, width).
    """
    side_col, top, bottom = sides
    top, bottom = np.clip(top - row, 0, height), np.clip(bottom - row, 0, height)
    lengths = bottom - top
    ends = np.cumsum(lengths)
    steps = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    # Whoever walks along a row goes in, or out, at every side.
    crossings = np.zeros((height, width + 1), dtype=np.uint8)
    crossings[np.repeat(top, lengths) + steps, np.repeat(side_col - col, lengths)] = 1
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :width]


def _strips(bounds: Ints) -> Iterator[tuple[int, int, int, int]]:
    """(row, col, height, width) of the windows that cover an object and its margin."""
    left, first, right, last = (int(b) for b in bounds)
    col, width = left - _MARGIN, right - left + 2 * _MARGIN
    step = max(16, _STRIP_PIXELS // width)
    for row in range(first - _MARGIN, last + _MARGIN, step):
        yield row, col, min(step, last + _MARGIN - row), width


def _read(
    dataset: Any, band: int, row: int, col: int, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """A window of one band; what lies outside the raster is not observed."""
    row0, row1 = max(row, 0), min(row + height, dataset.height)
    col0, col1 = max(col, 0), min(col + width, dataset.width)
    result = np.full((height, width), NOT_OBSERVED, dtype=np.uint8)
    if row0 < row1 and col0 < col1:
        window = Window(col0, row0, col1 - col0, row1 - row0)
        result[row0 - row : row1 - row, col0 - col : col1 - col] = dataset.read(band, window=window)
    return result


def _disc(radius: int) -> npt.NDArray[np.uint8]:
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)


_DISC = _disc(_MARGIN)
