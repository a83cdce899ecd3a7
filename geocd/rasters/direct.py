"""Reading a file whose pixels are those of the grid: no resampling, and a tenth of its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from geocd.rasters.grid import Grid

_NEGLIGIBLE = 0.01
"""Pixels that a grid may lie off the file's; a kernel would interpolate them away."""


def whole_pixel_shift(source: Grid, grid: Grid) -> tuple[int, int] | None:
    """(row, col) of the source's pixel under the first of the grid; None: pixels differ."""
    if source.crs != grid.crs:
        return None
    way = ~source.transform @ grid.transform
    drift = (abs(way.a - 1) + abs(way.d)) * grid.width + (abs(way.e - 1) + abs(way.b)) * grid.height
    row, col = round(way.f), round(way.c)
    if drift + abs(way.f - row) + abs(way.c - col) > _NEGLIGIBLE:
        return None
    return row, col


def read_pixels(
    dataset: Any,
    rows: slice,
    cols: slice,
    bands: Sequence[int],
    *,
    nodata: float | None,
    alpha: int | None,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values and what is usable of a window that may reach over the file's edges.

    Args:
        dataset: an open rasterio dataset.
        rows: of the file, with start and stop; may be negative or beyond its end.
        cols: likewise.
        bands: counted from 1.
        nodata: a pixel is not usable where every band has this value.
        alpha: band of which a pixel needs half the largest value to be usable.

    Returns:
        Values (bands, height, width) in the file's type, 0 outside, and usable (height, width).
    """
    shape = rows.stop - rows.start, cols.stop - cols.start
    values = np.zeros((len(bands), *shape), dataset.dtypes[0])
    usable = np.zeros(shape, bool)
    inside = [
        slice(max(s.start, 0), min(s.stop, length))
        for s, length in ((rows, dataset.height), (cols, dataset.width))
    ]
    if any(s.start >= s.stop for s in inside):
        return values, usable
    window = Window.from_slices(*inside)
    place = tuple(
        slice(s.start - whole.start, s.stop - whole.start)
        for s, whole in zip(inside, (rows, cols), strict=True)
    )
    values[(slice(None), *place)] = dataset.read(list(bands), window=window)
    usable[place] = _usable(dataset, window, values[(slice(None), *place)], bands, nodata, alpha)
    return values, usable


def _usable(
    dataset: Any, window: Window, values: NDArray[Any], bands: Sequence[int],
    nodata: float | None, alpha: int | None,
) -> NDArray[np.bool_]:  # fmt: skip
    if alpha is not None:
        opaque = dataset.read(alpha, window=window)
        full = np.iinfo(opaque.dtype).max if opaque.dtype.kind in "ui" else 255
        return np.asarray(opaque >= full * 0.5)
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        return np.asarray(dataset.read_masks(1, window=window) > 0)
    if nodata is None:
        return np.ones(values.shape[1:], bool)
    if set(bands) != set(dataset.indexes):
        values = dataset.read(window=window)
    same = np.isnan(values) if np.isnan(nodata) else values == nodata
    return np.asarray(~same.all(axis=0))
