"""Chips as files: GeoTIFF, or PNG with a world file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geocd.errors import OutputError
from geocd.rasters.grid import Grid
from geocd.training.tiles import IGNORE


def write_image(path: Path, image: NDArray[np.uint8], grid: Grid) -> None:
    """Write red, green and blue, shape (3, height, width); the extension chooses the format.

    Raises:
        OutputError: the file cannot be written.
    """
    _write(path, image, grid, photometric="RGB")


def write_label(path: Path, label: NDArray[np.uint8], grid: Grid) -> None:
    """Write label values, shape (height, width); 255 is marked as nodata.

    Raises:
        OutputError: the file cannot be written.
    """
    _write(path, label[None], grid, nodata=IGNORE)


def _write(path: Path, bands: NDArray[np.uint8], grid: Grid, **options: Any) -> None:
    tiff = path.suffix == ".tif"
    if tiff:
        options |= {"driver": "GTiff", "compress": "deflate"}
    else:
        # In a PNG, nodata would be transparency, which other readers take for an alpha band.
        options = {"driver": "PNG"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", height=grid.height, width=grid.width, count=len(bands),
                               dtype="uint8", crs=grid.crs, transform=grid.transform,
                               **options) as dataset:  # fmt: skip
                dataset.write(bands)
        if not tiff:
            path.with_suffix(".pgw").write_text(_world_file(grid))
    except (RasterioError, OSError) as error:
        raise OutputError(
            f"{path} was not written: {error}; make room or write elsewhere, and call again"
        ) from None


def _world_file(grid: Grid) -> str:
    """Pixel sizes, turns, and the place of the middle of the first pixel, a line each."""
    t = grid.transform
    x, y = t @ (0.5, 0.5)
    return "".join(f"{value!r}\n" for value in map(float, (t.a, t.d, t.b, t.e, x, y)))
