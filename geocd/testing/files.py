"""Small rasters for tests, with every way of saying that a pixel is not there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from geocd.errors import ShapeError
from geocd.rasters.grid import Grid


def write_raster(
    path: Path,
    array: NDArray[Any],
    *,
    grid: Grid | None = None,
    crs: Any = None,
    transform: Affine | None = None,
    nodata: float | None = None,
    alpha: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """A GeoTIFF, deflated, tiled from 256 pixels on; an existing file is replaced.

    Args:
        path: the file to write.
        array: shape (bands, height, width) or (height, width); its dtype is kept.
        grid: CRS and transform; instead of the next two.
        crs: anything that rasterio takes for a CRS; None: no georeferencing.
        transform: from (col, row) to (x, y).
        nodata: value that stands for 'nothing here', written to the header.
        alpha: shape (height, width); true or non-zero where a pixel is there. Becomes one
            more band, of the array's dtype, 0 or the largest value.
        mask: the same, but kept as an internal mask instead of a band.
        tags: of the file, for example ``{"TIFFTAG_DATETIME": "2024:09:02 14:35:00"}``.

    Returns:
        The path, to be used in an expression.

    Raises:
        ShapeError: the grid, the alpha band or the mask does not have the array's size.
    """
    bands = array if array.ndim == 3 else array[None]
    height, width = bands.shape[1:]
    if grid is not None:
        crs, transform = grid.crs, grid.transform
    layers = {"grid": grid, "alpha": alpha, "mask": mask}
    for name, shape in {k: v.shape for k, v in layers.items() if v is not None}.items():
        if shape != (height, width):
            raise ShapeError(
                f"the {name} is {shape} and the array {(height, width)} pixels; make them equal"
            )
    if alpha is not None:
        opaque = np.iinfo(bands.dtype).max if bands.dtype.kind in "iu" else 1
        bands = np.concatenate([bands, np.where(alpha, opaque, 0).astype(bands.dtype)[None]])
    profile = {
        "driver": "GTiff", "count": len(bands), "height": height, "width": width,
        "dtype": bands.dtype, "crs": crs, "transform": transform, "nodata": nodata,
        "compress": "deflate",
    }  # fmt: skip
    if min(height, width) >= 256:
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with warnings.catch_warnings():
        # A raster without georeferencing is what some tests are about.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **profile) as raster,
        ):
            raster.write(bands)
            if alpha is not None:
                raster.colorinterp = (*raster.colorinterp[:-1], ColorInterp.alpha)
            if mask is not None:
                raster.write_mask(np.where(mask, 255, 0).astype(np.uint8))
            raster.update_tags(**(tags or {}))
    return path
