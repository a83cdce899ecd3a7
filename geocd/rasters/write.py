"""Writing rasters: rows streamed to a tiled GeoTIFF, which becomes a COG in the end."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geocd.config import NOT_OBSERVED
from geocd.errors import OutputError
from geocd.rasters.grid import Grid

_BLOCK = 256
_CACHE_BYTES = 96 * 2**20
PROVENANCE_TAG = "GEOCD_PROVENANCE"
"""Metadata item of GeoTIFFs that says what made them, as JSON."""


class RowWriter:
    """Writes a raster from top to bottom; holds at most a block of rows.

    Args:
        path: tiled GeoTIFF to create.
        grid: where its pixels sit.
        bands: descriptions of the bands.
        colours: colour table of the first band: red, green, blue, alpha by value.
        dtype: of the values.
        nodata: value of what was not observed; None: an internal mask is written instead.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        *,
        bands: tuple[str, ...],
        colours: Mapping[int, tuple[int, int, int, int]] | None = None,
        dtype: str = "uint8",
        nodata: float | None = NOT_OBSERVED,
    ) -> None:
        self.path, self.grid = path, grid
        with _writing(path):
            self._dataset: Any = rasterio.open(
                path, "w", driver="GTiff", crs=grid.crs, transform=grid.transform,
                height=grid.height, width=grid.width, count=len(bands), dtype=dtype,
                nodata=nodata, tiled=True, blockxsize=_BLOCK, blockysize=_BLOCK,
                compress="deflate", zlevel=1, BIGTIFF="IF_SAFER", SPARSE_OK=True,
            )  # fmt: skip
            self._dataset.descriptions = bands
            if colours:
                self._dataset.write_colormap(1, dict(colours))
        self._row = self._filled = self._left = 0
        self._held: NDArray[Any] = np.empty((len(bands), 0, 0), dtype)

    @property
    def dataset(self) -> Any:
        """The open dataset, for what is said about a raster beside its values."""
        return self._dataset

    def write_mask(self, top: int, valid: NDArray[np.bool_]) -> None:
        """Say which pixels of the rows from ``top`` on were observed; for rasters without nodata.

        Args:
            top: the first row.
            valid: shape (rows, width); whole blocks of 256 rows, but for the last ones.
        """
        window = rasterio.windows.Window(0, top, valid.shape[1], valid.shape[0])
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), _writing(self.path):
            self._dataset.write_mask(valid, window=window)

    def write(self, rows: NDArray[Any], left: int = 0) -> None:
        """Append rows of the writer's type.

        Args:
            rows: shape (bands, rows, columns).
            left: their first column, a multiple of 256. All rows of some columns come before
                those of other columns.
        """
        if self._row == 0 and self._filled == 0:
            self._left = left
            self._held = np.empty((len(rows), _BLOCK, rows.shape[2]), rows.dtype)
        while rows.shape[1]:
            taken = min(_BLOCK - self._filled, rows.shape[1])
            self._held[:, self._filled : self._filled + taken] = rows[:, :taken]
            self._filled += taken
            rows = rows[:, taken:]
            # Whole blocks only: a block written twice would be compressed twice.
            if self._filled == _BLOCK or self._row + self._filled == self.grid.height:
                self._flush()

    def _flush(self) -> None:
        width = self._held.shape[2]
        window = rasterio.windows.Window(self._left, self._row, width, self._filled)
        with _writing(self.path):
            self._dataset.write(self._held[:, : self._filled], window=window)
        self._row = (self._row + self._filled) % self.grid.height
        self._filled = 0

    def tag(self, provenance: Mapping[str, Any]) -> None:
        """Store what made the raster."""
        with _writing(self.path):
            self._dataset.update_tags(
                TIFFTAG_SOFTWARE=f"geocd {provenance.get('geocd', '')}",
                **{PROVENANCE_TAG: json.dumps(provenance, sort_keys=True)},
            )

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with _writing(self.path):
            self._dataset.close()


def bounded_cache() -> rasterio.Env:
    """A context in which GDAL keeps at most 96 MiB of decoded blocks.

    Its own default is a share of the machine's memory, which looks like growth with the raster.
    """
    # In bytes: rasterio hands the number on as it is, and 96 would mean 96 bytes.
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES)


def return_freed_memory() -> None:
    """Hand back to the system what was freed; where the C library has no such call, nothing.

    It keeps freed blocks below others that are in use, such as those of GDAL's cache, and stages
    that follow each other would pile up.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def write_cog(source: Path, target: Path, *, overviews: str, predictor: bool = False) -> None:
    """Copy a GeoTIFF to a cloud-optimised one, in bounded memory.

    Args:
        source: a tiled GeoTIFF.
        target: what to write; give a temporary name and rename it.
        overviews: resampling of the overviews: "mode" for classes, "average" for scores.
        predictor: compress differences of neighbours, which suits images.
    """
    with bounded_cache(), _writing(target):
        rasterio.shutil.copy(
            source, target, driver="COG", compress="deflate", blocksize=512,
            overview_resampling=overviews, BIGTIFF="IF_SAFER",
            predictor="YES" if predictor else "NO",
        )  # fmt: skip
    return_freed_memory()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What ``RowWriter.tag`` stored; empty if nothing."""
    with rasterio.open(path) as dataset:
        text = dataset.tags().get(PROVENANCE_TAG, "{}")
    stored: dict[str, Any] = json.loads(text)
    return stored


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        raise OutputError(
            f"cannot write {path}: {error}; is the disk full or the folder read-only?"
        ) from None
