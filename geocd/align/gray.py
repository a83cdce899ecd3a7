"""What alignment sees of two rasters: gray windows, decimated with little memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.align.field import Motion
from geocd.align.reader import GrayPair, PairReader
from geocd.rasters.pair import PairReader as WindowReader
from geocd.rasters.pair import RasterPair

_ROWS = 512
"""Rows that are read at a time."""
_LARGEST_STEP = 4.0
"""How many times smaller a warp may make an image in one go."""


def gray_reader(pair: RasterPair) -> PairReader:
    """The pair as ``estimate`` reads it; a motion of the pair itself does not count."""

    def _read(rows: slice, cols: slice, *, step: float, motion: Affine) -> GrayPair:
        # A warp that shrinks much holds its whole source at once, so it shrinks a little and
        # blocks of pixels are averaged here.
        shrink = math.ceil(step / _LARGEST_STEP)
        moved = pair.with_motion(Motion(motion))
        with moved.reader(step=step / shrink, window=(rows, cols)) as reader:
            strips = list(_gray_strips(reader, shrink))
        return GrayPair(*(np.concatenate(arrays) for arrays in zip(*strips, strict=True)))

    return _read


def _gray_strips(reader: WindowReader, shrink: int) -> Iterator[tuple[Any, ...]]:
    """Gray values and validity of both dates, ``shrink`` times smaller, from top to bottom."""
    height, width = reader.grid.shape
    rows = max(1, _ROWS // shrink) * shrink
    for top in range(0, height, rows):
        window = slice(top, min(top + rows, height)), slice(0, width)
        before, valid_before, after, valid_after = reader.read_dates(*window)
        first, seen_first = _shrunk(before, valid_before, shrink)
        second, seen_second = _shrunk(after, valid_after, shrink)
        yield first, second, seen_first, seen_second


def _shrunk(
    image: NDArray[np.uint8], valid: NDArray[np.bool_], shrink: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The gray mean of the valid pixels of every block; valid where half of the block is."""
    gray = np.where(valid, image.mean(axis=0, dtype=np.float32), 0)
    if shrink == 1:
        return gray.astype(np.uint8), valid
    pad = [(0, -length % shrink) for length in valid.shape]
    blocks = [
        np.pad(plane.astype(np.float32), pad).reshape(
            (valid.shape[0] + pad[0][1]) // shrink, shrink, -1, shrink
        ).sum(axis=(1, 3))
        for plane in (gray, valid)
    ]  # fmt: skip
    mean = blocks[0] / np.maximum(blocks[1], 1)
    return mean.astype(np.uint8), blocks[1] >= shrink * shrink / 2
