"""Where pixels sit on the ground: CRS, transform and shape as one value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

Array = NDArray[np.float64]
_GEOD = Geod(ellps="WGS84")
_ON_A_PIXEL = 1e-4
"""Pixels that are rounding of transforms."""


@lru_cache(maxsize=32)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def transformer_between(source: CRS, target: CRS) -> Transformer:
    """The pyproj transformer of (x, y) from one CRS to another, kept for the next call."""
    # rasterio and pyproj carry their own copies of PROJ: only text passes between them.
    return _transformer(source.to_wkt(), target.to_wkt())


def reproject_geometry(geometry: BaseGeometry, source: CRS, target: CRS) -> BaseGeometry:
    """The geometry in another CRS; vertices only, so add some along long edges first."""
    if source == target:
        return geometry
    transformer = transformer_between(source, target)

    def _move(xy: np.ndarray) -> np.ndarray:
        return np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))

    return shapely.transform(geometry, _move)


def apply_transform(transform: Affine, xs: Array, ys: Array) -> tuple[Array, Array]:
    """The images of points under an affine transform, each as arrays of x and of y."""
    t = transform
    return t.a * xs + t.b * ys + t.c, t.d * xs + t.e * ys + t.f


@dataclass(frozen=True, slots=True)
class Grid:
    """Where pixels sit on the ground. Two rasters compare only on equal grids.

    Attributes:
        crs: coordinate reference system; None: pixel units (no georeferencing).
        transform: from (col, row) to (x, y); may be rotated or south-up.
        height: rows.
        width: columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def pixel_size(self) -> tuple[float, float]:
        """(dy, dx), both positive, in CRS units; lengths of the pixel's sides if rotated."""
        t = self.transform
        return math.hypot(t.b, t.e), math.hypot(t.a, t.d)

    @property
    def footprint(self) -> shapely.Polygon:
        """Outline of the grid in its CRS, with vertices along the edges for reprojection."""
        steps = np.linspace(0, 1, 17)
        cols = np.concatenate([steps, np.ones(17), steps[::-1], np.zeros(17)]) * self.width
        rows = np.concatenate([np.zeros(17), steps, np.ones(17), steps[::-1]]) * self.height
        xs, ys = apply_transform(self.transform, cols, rows)
        return shapely.Polygon(np.column_stack([xs, ys]))

    @property
    def place_from_origin(self) -> tuple[int, int] | None:
        """(row, col) of the upper left pixel, counted in pixels from the origin of the CRS.

        None without a CRS, and for grids that are not north-up.
        """
        t = self.transform
        if self.crs is None or (t.b, t.d) != (0, 0) or t.a <= 0 or t.e >= 0:
            return None
        # What rounding leaves just below a whole pixel is the whole pixel.
        return -math.floor(t.f / -t.e + _ON_A_PIXEL), math.floor(t.c / t.a + _ON_A_PIXEL)

    def gsd(self) -> tuple[float, float] | None:
        """Ground sample distance (dy, dx) in metres at the centre; None without a CRS."""
        if self.crs is None:
            return None
        row, col = self.height / 2, self.width / 2
        cols = np.array([col, col, col + 1])
        rows = np.array([row, row + 1, row])
        xs, ys = apply_transform(self.transform, cols, rows)
        lon, lat = transformer_between(self.crs, CRS.from_epsg(4326)).transform(xs, ys)
        _, _, metres = _GEOD.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])
        return float(metres[0]), float(metres[1])

    def scaled(self, fy: float, fx: float) -> Grid:
        """The same ground with pixels ``fy`` times as high and ``fx`` times as wide.

        The upper left corner stays; the last row and column may reach over the edge.
        """
        if fy == 1 and fx == 1:
            return self
        # Half a thousandth of a pixel of slack: 1000 * 0.3 / 0.3 must stay 1000 rows.
        height = max(1, math.ceil(self.height / fy - 5e-4))
        width = max(1, math.ceil(self.width / fx - 5e-4))
        return Grid(self.crs, self.transform @ Affine.scale(fx, fy), height, width)

    def crop(self, rows: slice, cols: slice) -> Grid:
        """The part of the grid that the slices select; both need a start and a stop."""
        return Grid(
            self.crs,
            self.transform @ Affine.translation(cols.start, rows.start),
            rows.stop - rows.start,
            cols.stop - cols.start,
        )

    def slices_over(self, geometry: BaseGeometry) -> tuple[slice, slice] | None:
        """Rows and columns that cover a geometry given in this grid's CRS; None if no overlap."""
        if geometry.is_empty:
            return None
        xy = shapely.get_coordinates(geometry)
        cols, rows = apply_transform(~self.transform, xy[:, 0], xy[:, 1])
        # A millionth of a pixel must not add a row.
        row0 = max(0, math.floor(rows.min() + 1e-6))
        row1 = min(self.height, math.ceil(rows.max() - 1e-6))
        col0 = max(0, math.floor(cols.min() + 1e-6))
        col1 = min(self.width, math.ceil(cols.max() - 1e-6))
        if row0 >= row1 or col0 >= col1:
            return None
        return slice(row0, row1), slice(col0, col1)

    def describe(self) -> str:
        """One line for messages: size, resolution and CRS."""
        if self.crs is None:
            return f"{self.width} x {self.height} pixels without a CRS"
        dy, dx = self.pixel_size
        authority = self.crs.to_authority()
        name = ":".join(authority) if authority else "a custom CRS"
        return f"{self.width} x {self.height} pixels of {dx:.6g} x {dy:.6g} in {name}"
