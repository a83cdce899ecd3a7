"""What is measured of each object: size and direction on the ground, share observed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.windows import Window

from geocd.config import NOT_OBSERVED
from geocd.rasters.grid import Grid, apply_transform, transformer_between
from geocd.vectorize.outline import Floats, Geometries, Ints, vertical_sides
from geocd.vectorize.scorefile import NEAR

_WGS84 = CRS.from_epsg(4326)
_GEOD = Geod(ellps="WGS84")
_STRIP_PIXELS = 1 << 22
"""Pixels of an object that are held at once; larger objects are read in strips."""
_LONGEST_SIDE = 32.0
"""Sides longer than this, in pixels, get more vertices before they are projected."""


class Measures(NamedTuple):
    """Sizes of n polygons in metres (pixels without a CRS), each of shape (n,)."""

    area: Floats
    """Square metres (pixels)."""
    perimeter: Floats
    """Of all rings."""
    length: Floats
    """Longer side of the smallest rectangle around each."""
    width: Floats
    """Shorter side of that rectangle."""
    azimuth: Floats
    """Direction of the longer side: degrees clockwise from north (from up), 0..180."""


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

    @property
    def in_metres(self) -> bool:
        """Whether it measures in metres; pixels otherwise."""
        return self._to_lonlat is not None

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width, by which right angles are right on the ground."""
        # Degrees of longitude are shorter than those of latitude; elsewhere maps keep angles.
        geographic = self._grid.crs is not None and self._grid.crs.is_geographic
        dy, dx = (self._grid.gsd() if geographic else None) or self._grid.pixel_size
        return dy / dx

    def area(self, polygons: Geometries) -> Floats:
        """Areas in square metres (pixels without a CRS), shape of ``polygons``."""
        return np.asarray(shapely.area(self._on_a_plane(self._on_the_ground(polygons))))

    def smallest_pixel(self) -> float:
        """Area of the smallest pixel of the grid, in square metres (1 without a CRS)."""
        return float(self._pixels().min(initial=np.inf))

    def largest_pixel(self) -> float:
        """Area of the largest pixel of the grid, in square metres (1 without a CRS)."""
        return float(self._pixels().max(initial=0.0)) or np.inf

    def _pixels(self) -> Floats:
        """Areas of pixels all over the grid."""
        rows = np.linspace(0, self._grid.height - 1, 9)
        cols = np.linspace(0, self._grid.width - 1, 9)
        left, top = (axis.ravel() for axis in np.meshgrid(cols, rows))
        areas = self.area(np.asarray(shapely.box(left, top, left + 1, top + 1)))
        # A grid may reach where its projection ends.
        return areas[np.isfinite(areas)]

    def perimeter(self, polygons: Geometries) -> Floats:
        """Lengths of all rings in metres (pixels without a CRS), shape of ``polygons``."""
        return self._around(self._on_the_ground(polygons))

    def measure(self, polygons: Geometries) -> Measures:
        """Everything that is measured of polygons, shape (n,), which are projected once."""
        ground = self._on_the_ground(polygons)
        plane = self._on_a_plane(ground)
        return Measures(np.asarray(shapely.area(plane)), self._around(ground), *_box(plane))

    def _around(self, ground: Geometries) -> Floats:
        """Perimeters of polygons in longitude and latitude (in pixels without a CRS)."""
        if self._to_lonlat is None:
            return np.asarray(shapely.length(ground))
        # Along the ellipsoid: an equal-area projection stretches lengths, and more so the
        # farther from its centre, so a map of a country would be measured wrongly at its rim.
        parts, part_owner = shapely.get_parts(ground, return_index=True)
        rings, ring_owner = shapely.get_rings(parts, return_index=True)
        lonlat, ring = shapely.get_coordinates(rings, return_index=True)
        side = ring[:-1] == ring[1:]
        start, stop = lonlat[:-1][side], lonlat[1:][side]
        _, _, metres = _GEOD.inv(start[:, 0], start[:, 1], stop[:, 0], stop[:, 1])
        owner = part_owner[ring_owner[ring[:-1][side]]]
        total: Floats = np.bincount(owner, weights=metres, minlength=len(ground)).astype(float)
        return total

    def _on_the_ground(self, polygons: Geometries) -> Geometries:
        """The polygons in longitude and latitude, with vertices along their long sides."""
        if self._to_lonlat is None:
            return polygons
        moved = to_ground(shapely.segmentize(polygons, _LONGEST_SIDE), self._grid)
        return _projected(moved, self._to_lonlat)

    def _on_a_plane(self, ground: Geometries) -> Geometries:
        """The same on a plane that keeps areas, in metres (pixels), y upwards."""
        if self._to_lonlat is None:
            flipped: Geometries = shapely.transform(ground, lambda points: points * (1, -1))
            return flipped
        return _projected(ground, self._to_plane)


def _box(plane: Geometries) -> tuple[Floats, Floats, Floats]:
    """Length, width and direction of the smallest rectangle, however turned, around each."""
    if len(plane) == 0:
        return (np.zeros(0),) * 3
    boxes = shapely.oriented_envelope(plane)
    points = shapely.get_coordinates(boxes).reshape(len(boxes), 5, 2)
    sides = points[:, 1:3] - points[:, 0:2]
    lengths = np.hypot(sides[..., 0], sides[..., 1])
    longest = lengths.argmax(axis=1)
    every = np.arange(len(boxes))
    x, y = sides[every, longest].T
    azimuth = np.degrees(np.arctan2(x, y)) % 180
    return lengths[every, longest], lengths[every, 1 - longest], azimuth


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


def observed_share(outlines: Geometries, scores: Any) -> Floats:
    """Share of the pixels in and within 3 pixels of each object that were observed, 0..1.

    Ground outside the raster counts as not observed: an object that the edge cuts off is
    not seen whole. Reads the pixels of each object, one window after the other.

    Args:
        outlines: areal geometries along pixel edges, shape (n,), in pixels.
        scores: open raster of scores.
    """
    owner, col, top, bottom = vertical_sides(outlines)
    bounds = shapely.bounds(outlines).astype(np.intp)
    begin = np.searchsorted(owner, np.arange(len(outlines) + 1))
    shares = np.empty(len(outlines))
    for i in range(len(outlines)):
        part = slice(begin[i], begin[i + 1])
        sides = col[part], top[part], bottom[part]
        near = seen = 0
        for row, left, height, width in _strips(bounds[i]):
            inside = fill(sides, row - NEAR, left, height + 2 * NEAR, width)
            around = cv2.dilate(inside, _DISC)[NEAR:-NEAR].astype(bool)
            values = _read(scores, row, left, height, width)
            near += int(around.sum())
            seen += int((values[around] != NOT_OBSERVED).sum())
        shares[i] = seen / near
    return shares


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
    col, width = left - NEAR, right - left + 2 * NEAR
    step = max(16, _STRIP_PIXELS // width)
    for row in range(first - NEAR, last + NEAR, step):
        yield row, col, min(step, last + NEAR - row), width


def _read(dataset: Any, row: int, col: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A window of the first band; what lies outside the raster is not observed."""
    row0, row1 = max(row, 0), min(row + height, dataset.height)
    col0, col1 = max(col, 0), min(col + width, dataset.width)
    result = np.full((height, width), NOT_OBSERVED, dtype=np.uint8)
    if row0 < row1 and col0 < col1:
        window = Window(col0, row0, col1 - col0, row1 - row0)
        result[row0 - row : row1 - row, col0 - col : col1 - col] = dataset.read(1, window=window)
    return result


def _disc(radius: int) -> npt.NDArray[np.uint8]:
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)


_DISC = _disc(NEAR)
