"""How much ground both dates show: from the change map, or from the images themselves."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geocd.config import NOT_OBSERVED
from geocd.errors import InputError, RasterOpenError
from geocd.rasters.grid import Grid
from geocd.vectorize.attributes import Ruler

Mask = NDArray[np.bool_]
_STRIP_PIXELS = 1 << 24
_STRIPS = 64
"""Parts of a grid whose area is measured one by one: a pixel of degrees shrinks with latitude."""
_VEIL = 1024
"""Longest side, in pixels, of the picture of what was not observed."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Ground seen on both dates.

    Attributes:
        share: of before's grid or of what the images share, 0..1.
        area: square metres, or pixels of the grid without a CRS.
        whole: what the share is of, in words.
        unseen: where it was not observed, (height, width).
        grid: pixels of ``unseen``.
    """

    share: float
    area: float
    whole: str
    unseen: Mask
    grid: Grid

    def veil(self) -> bytes | None:
        """What was not observed, as a PNG of one grey with transparency; None if all was."""
        if not self.unseen.any():
            return None
        picture = Image.fromarray(self.unseen.astype(np.uint8))
        picture.putpalette([0, 0, 0, 128, 128, 128])
        encoded = io.BytesIO()
        picture.save(encoded, "PNG", optimize=True, bits=1, transparency=bytes([0, 150]))
        return encoded.getvalue()


def observed_in_images(seen: Mask, grid: Grid) -> Observed:
    """From where the pictures of both dates have values.

    Args:
        seen: shape (height, width).
        grid: pixels of ``seen``.
    """
    rows = seen.sum(axis=1, dtype=np.int64)
    return Observed(
        float(seen.mean()), _area(rows, grid), "the ground that both images cover", ~seen, grid
    )


def observed_in_map(path: Path, grid: Grid, shown: Grid) -> Observed:
    """From a change map of geocd, read in strips.

    Args:
        path: GeoTIFF of one band on ``grid``; 255 is not observed.
        grid: before's.
        shown: the part of it that a page shows; ``unseen`` is cut to it.

    Raises:
        RasterOpenError: it cannot be read.
        InputError: it is no change map, or on another grid.
    """
    try:
        with warnings.catch_warnings():
            # Images without georeferencing are a supported case.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                _check(path, dataset, grid)
                rows, unseen, side = _read(dataset)
    except RasterioError as error:
        raise RasterOpenError(f"cannot read the change map {path}: {error}") from None
    blocks = grid.scaled(side, side)
    span = blocks.slices_over(shown.footprint)
    if span is not None:
        unseen, blocks = unseen[span], blocks.crop(*span)
    return Observed(
        float(rows.sum()) / (grid.height * grid.width), _area(rows, grid), "before's grid",
        unseen, blocks,
    )  # fmt: skip


def _check(path: Path, dataset: Any, grid: Grid) -> None:
    if dataset.count != 1 or dataset.dtypes[0] != "uint8":
        raise InputError(
            f"{path} has {dataset.count} bands of {dataset.dtypes[0]}: it is no change map of "
            "geocd; give what geocd detect --mask wrote"
        )
    transform = dataset.transform
    if grid.crs is None and transform == Affine.identity():
        transform = grid.transform
    slack = 1e-3 * min(grid.pixel_size)
    placed = all(
        abs(a - b) <= slack
        for a, b in ((transform.c, grid.transform.c), (transform.f, grid.transform.f))
    )
    if (dataset.height, dataset.width) != grid.shape or not placed:
        raise InputError(
            f"the change map {path} has {dataset.width} x {dataset.height} pixels from "
            f"{transform.c:.9g} {transform.f:.9g}, before has {grid.width} x {grid.height} from "
            f"{grid.transform.c:.9g} {grid.transform.f:.9g}; give the mask of the same run"
        )


def _read(dataset: Any) -> tuple[NDArray[np.int64], Mask, int]:
    """Observed pixels in each row, blocks half of which were not observed, and their side."""
    height, width = dataset.height, dataset.width
    side = max(1, math.ceil(max(height, width) / _VEIL))
    step = max(1, _STRIP_PIXELS // width // side) * side
    rows, unseen = [], []
    for top in range(0, height, step):
        window = Window(0, top, width, min(step, height - top))
        missing = dataset.read(1, window=window) == NOT_OBSERVED
        rows.append(width - missing.sum(axis=1, dtype=np.int64))
        padding = [(0, -length % side) for length in missing.shape]
        blocks = np.pad(missing, padding, mode="edge")
        parts = blocks.reshape(blocks.shape[0] // side, side, -1, side)
        unseen.append(parts.mean(axis=(1, 3)) >= 0.5)
    return np.concatenate(rows), np.concatenate(unseen), side


def _area(rows: NDArray[np.int64], grid: Grid) -> float:
    """Area of so many pixels in each row, in square metres (pixels without a CRS)."""
    if grid.crs is None:
        return float(rows.sum())
    edges = np.unique(np.linspace(0, grid.height, _STRIPS + 1).astype(int))
    strips = np.array(
        [shapely.box(0, top, grid.width, below) for top, below in itertools.pairwise(edges)]
    )
    shares = np.add.reduceat(rows, edges[:-1]) / (np.diff(edges) * grid.width)
    return float((Ruler(grid).area(strips) * shares).sum())
