"""Reading pixels where a motion says they are, when no affine map describes it.

GDAL warps between two georeferencings; a field of displacements is not one. So here the
places of pixels are composed first, and the source is then sampled once:

    pixel of the grid -> motion -> ground -> CRS of the file -> pixel of the file

The kernel is that of GDAL's cubic resampling, and like GDAL's it widens where the source is
finer than the grid.

Source:
    Keys (1981), cubic convolution with a = -1/2, doi:10.1109/TASSP.1981.1163711.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Protocol

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geocd.rasters.grid import Grid, apply_transform, transformer_between

Points = NDArray[np.float64]
"""Pairs (col, row), or (x, y) on the ground, shape (n, 2)."""
Place = Callable[[Points], Points]
"""From (col, row) of a grid to (x, y) on the ground, in the grid's CRS."""
Locate = Callable[[Points], Points]
"""From (col, row) of a grid to (col, row) of a file."""

_EXACT_PX = 0.005
"""Largest error, in pixels of the file, of positions that are interpolated between knots."""
_SPACINGS = (64, 32, 16, 8, 4)
"""Distances between knots that are tried, in pixels of the grid."""
_PROBES = 400
"""Cells between knots on which the error is measured."""
_MOSTLY_EQUAL = 1.25
"""File pixels to a grid pixel up to which the kernel does not widen."""
_BLOCK = 512
"""Largest side of what is sampled at once, in pixels of the grid."""
_SOURCE_SIDE = 2048
"""Side, in pixels of the file, that a block should not need more of."""
_FAR = -1e6
"""Position of what lies nowhere on the file."""
_NO_MAP = np.empty(0, np.float32)
_LARGEST_DENSITY = 8
"""File pixels to a grid pixel, each way, beyond which blocks of file pixels are averaged first."""


class PixelMotion(Protocol):
    """From (col, row) of a grid to where the other date shows the same ground.

    Integers are the corners of pixels.
    """

    @property
    def affine(self) -> Affine:
        """The motion, or the affine map that comes near to it."""
        ...

    @property
    def is_affine(self) -> bool:
        """Whether ``affine`` is all there is."""
        ...

    def __call__(self, points: Points) -> Points:
        """The points (n, 2), as (col, row), moved."""
        ...


def transform_array(transform: Affine, points: Points) -> Points:
    """The points (n, 2) under an affine transform."""
    return np.column_stack(apply_transform(transform, points[:, 0], points[:, 1]))


def kernel_scale(source: Grid, grid: Grid) -> dict[str, str]:
    """Options for GDAL's warper: how wide the kernel is; nothing where projections decide.

    GDAL guesses the ratio of the pixels anew for each piece that it reads. Where a piece reaches
    beyond the source it guesses wrongly, and the same ground comes out otherwise.
    """
    if source.crs != grid.crs:
        return {}
    (own_y, own_x), (read_y, read_x) = source.pixel_size, grid.pixel_size
    return {"YSCALE": str(own_y / read_y), "XSCALE": str(own_x / read_x)}


def place_through(grid: Grid, motion: PixelMotion, inner: Affine) -> Place:
    """The ground that a motion shows at the pixels of a part of a grid, or of a decimation.

    Args:
        grid: the grid on whose pixels ``motion`` acts.
        motion: from its pixels to its pixels.
        inner: from the (col, row) that are asked for to those of ``grid``.
    """

    def _place(points: Points) -> Points:
        return transform_array(grid.transform, motion(transform_array(inner, points)))

    return _place


def locator(place: Place, grid: Grid, source: Grid) -> Locate:
    """Where a file on the grid ``source`` shows the ground of pixels of ``grid``."""
    same = source.crs is None or grid.crs is None or source.crs == grid.crs
    back = ~source.transform

    def _locate(points: Points) -> Points:
        ground = place(points)
        if not same:
            assert grid.crs is not None
            assert source.crs is not None
            transformer = transformer_between(grid.crs, source.crs)
            ground = np.column_stack(transformer.transform(ground[:, 0], ground[:, 1]))
        # PROJ says infinity where a projection has no answer.
        found = transform_array(back, np.where(np.isfinite(ground), ground, np.nan))
        return np.where(np.isfinite(found).all(axis=1, keepdims=True), found, _FAR)

    return _locate


class Lattice:
    """Positions of a grid's pixels in a file: exact on knots, bilinear between them.

    Knots sit at multiples of their spacing, so a pixel's position does not depend on the
    window in which it is asked for.

    Args:
        locate: the exact positions.
        shape: (height, width) of the grid.
    """

    def __init__(self, locate: Locate, shape: tuple[int, int]) -> None:
        self._locate, self._shape = locate, shape
        rng = np.random.default_rng(0)
        self._probes = rng.random((_PROBES, 2)) * (shape[1], shape[0])

    @cached_property
    def spacing(self) -> int:
        """Pixels of the grid between knots: as many as leave the error small."""
        for spacing in _SPACINGS[:-1]:
            corner = np.floor(self._probes / spacing) * spacing
            steps = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5)]
            asked = np.concatenate([corner + np.array(step) * spacing for step in steps])
            *ends, middle = self._locate(asked).reshape(5, -1, 2)
            error = np.abs(np.mean(ends, axis=0) - middle)
            seen = (np.stack([*ends, middle]) != _FAR).all(axis=(0, 2))
            if not seen.any() or error[seen].max() < _EXACT_PX:
                return spacing
        return _SPACINGS[-1]

    @cached_property
    def density(self) -> tuple[int, int]:
        """Samples (down, across) a pixel of the grid needs, so that nothing aliases."""
        here = self._locate(self._probes)
        counts = []
        for step in ((0.0, 1.0), (1.0, 0.0)):
            there = self._locate(self._probes + np.array(step))
            seen = (here != _FAR).all(axis=1) & (there != _FAR).all(axis=1)
            ratio = float(np.median(np.hypot(*(there - here)[seen].T))) if seen.any() else 1.0
            counts.append(1 if ratio <= _MOSTLY_EQUAL else math.ceil(ratio))
        return counts[0], counts[1]

    def positions(self, rows: slice, cols: slice, density: tuple[int, int]) -> Points:
        """(col, row) in the file of evenly spread samples of the pixels of a window.

        Returns:
            Shape (2, height * density[0], width * density[1]), columns first; with a density
            of 1 these are the centres of the pixels.
        """
        first, down = self._between(rows, density[0])
        left, across = self._between(cols, density[1])
        knot_rows = np.arange(first, first + int(down.max()) + 2) * self.spacing
        knot_cols = np.arange(left, left + int(across.max()) + 2) * self.spacing
        mesh = np.meshgrid(knot_cols, knot_rows)
        knots = self._locate(np.stack(mesh, axis=-1).reshape(-1, 2).astype(np.float64))
        table = knots.T.reshape(2, len(knot_rows), len(knot_cols))
        return _interpolated(_interpolated(table, down, 1), across, 2)

    def _between(self, span: slice, density: int) -> tuple[int, Points]:
        """The first knot before a span, and its samples counted in knots from there."""
        count = (span.stop - span.start) * density
        samples = (span.start + (np.arange(count) + 0.5) / density) / self.spacing
        first = math.floor(samples[0])
        return first, samples - first


def _interpolated(table: Points, where: Points, axis: int) -> Points:
    """Linear interpolation of a table along one of its last two axes."""
    low = np.floor(where).astype(np.intp)
    part = (where - low).reshape((-1, 1) if axis == 1 else (1, -1))
    below, above = np.take(table, low, axis), np.take(table, low + 1, axis)
    return np.asarray(below + (above - below) * part)


class FieldWarp:
    """Samples one file at the places of a grid's pixels; memory is that of a block.

    Args:
        place: ground of the grid's pixels.
        grid: the grid that is read on.
        source: grid of the file.
    """

    def __init__(self, place: Place, grid: Grid, source: Grid) -> None:
        lattice = Lattice(locator(place, grid, source), grid.shape)
        self._shrink = max(1, min(lattice.density) // (_LARGEST_DENSITY // 2))
        if self._shrink > 1:
            # A rest of less than a block at the far edges is a fraction of a pixel of the grid.
            source = Grid(
                source.crs, source.transform @ Affine.scale(self._shrink),
                source.height // self._shrink, source.width // self._shrink,
            )  # fmt: skip
            lattice = Lattice(locator(place, grid, source), grid.shape)
        self._lattice, self._source = lattice, source

    def read(
        self, dataset: Any, rows: slice, cols: slice, bands: list[int], dtype: str
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (bands, height, width) and valid (height, width) of a window of the grid.

        Args:
            dataset: the open file.
            rows: of the grid.
            cols: of the grid.
            bands: counted from 1.
            dtype: of the values.
        """
        shape = rows.stop - rows.start, cols.stop - cols.start
        values = np.zeros((len(bands), *shape), dtype)
        valid = np.zeros(shape, np.bool_)
        for block_rows, block_cols in self._blocks(rows, cols):
            here = (
                slice(block_rows.start - rows.start, block_rows.stop - rows.start),
                slice(block_cols.start - cols.start, block_cols.stop - cols.start),
            )
            part = self._block(dataset, block_rows, block_cols, bands)
            if part is not None:
                values[:, *here] = _as_dtype(part[0], np.dtype(dtype))
                valid[here] = part[1]
        return values, valid

    def _blocks(self, rows: slice, cols: slice) -> Iterator[tuple[slice, slice]]:
        side = max(16, min(_BLOCK, _SOURCE_SIDE // max(self._lattice.density)))
        for top in range(rows.start, rows.stop, side):
            for left in range(cols.start, cols.stop, side):
                yield (
                    slice(top, min(top + side, rows.stop)),
                    slice(left, min(left + side, cols.stop)),
                )

    def _block(
        self, dataset: Any, rows: slice, cols: slice, bands: list[int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        """Values and valid of a block; None where the file shows nothing of it."""
        density = self._lattice.density
        # The widened kernel reaches two pixels of the grid beyond the block.
        reach = [2 if n > 1 else 0 for n in density]
        wider = (
            slice(rows.start - reach[0], rows.stop + reach[0]),
            slice(cols.start - reach[1], cols.stop + reach[1]),
        )
        positions = self._lattice.positions(*wider, density)
        window = _needed(positions, self._source.shape)
        if window is None:
            return None
        planes, mask = _read_source(dataset, window, bands, self._shrink)
        if not mask.any():
            return None
        positions -= np.array([window[1].start, window[0].start])[:, None, None]
        whole = bool(mask.all()) and _inside(positions, mask.shape)
        if not mask.all():
            planes = np.where(mask, planes, 0)
        sample = _sampler(positions, planes.dtype, density)
        sampled = np.stack([_narrowed(sample(plane), density) for plane in planes])
        if whole:
            return sampled, np.ones(sampled.shape[1:], np.bool_)
        share = _narrowed(sample(mask.astype(planes.dtype)), density)
        valid = share >= 0.5
        return sampled / np.where(valid, share, 1), valid


def _needed(positions: Points, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of a file that a kernel touches at the positions; None if none."""
    seen = positions[0] > _FAR / 2
    if not seen.any():
        return None
    xs, ys = positions if seen.all() else positions[:, seen]
    rows, cols = (
        slice(max(0, math.floor(v.min()) - 2), min(side, math.ceil(v.max()) + 2))
        for v, side in zip((ys, xs), shape, strict=True)
    )
    return None if rows.start >= rows.stop or cols.start >= cols.stop else (rows, cols)


def _read_source(
    dataset: Any, window: tuple[slice, slice], bands: list[int], shrink: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values as floating numbers, (bands, rows, cols), and where they are usable.

    Both are means of blocks of ``shrink`` pixels each way; the window counts such blocks.
    """
    shape = tuple(s.stop - s.start for s in window)
    span = tuple((s.start * shrink, s.stop * shrink) for s in window)
    options = {"window": span, "resampling": Resampling.average}
    data = dataset.read(bands, out_shape=(len(bands), *shape), **options)
    mask = np.asarray(dataset.dataset_mask(out_shape=shape, **options) >= 128)
    if data.dtype.kind == "f":
        mask &= np.isfinite(data).all(axis=0)
    exact = data.dtype.itemsize <= 2 or data.dtype == np.float32
    return data.astype(np.float32 if exact else np.float64, copy=False), mask


def _inside(positions: Points, shape: tuple[int, int]) -> bool:
    """Whether a kernel at the positions meets no edge of what was read."""
    return all(
        v.min() >= 1.5 and v.max() < side - 1.5
        for v, side in zip(positions, shape[::-1], strict=True)
    )


def _sampler(
    positions: Points, dtype: np.dtype[Any], density: tuple[int, int]
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What samples a plane at positions, corner convention; what lies outside counts as 0."""
    # OpenCV counts from the centres of pixels.
    centred = positions - 0.5
    if max(density) > 2:
        # OpenCV's own cubic kernel errs by up to 0.05 px of the file, a sixtieth of a pixel here.
        xs, ys = centred.astype(np.float32)
        return lambda plane: np.asarray(cv2.remap(plane, xs, ys, cv2.INTER_CUBIC))
    low = np.floor(centred)
    across, down = (_taps(part) for part in (centred - low).astype(dtype))
    corner = np.moveaxis(np.clip(low, -4, 32000), 0, -1).astype(np.int16)

    def _sample(plane: NDArray[Any]) -> NDArray[Any]:
        total = np.zeros(corner.shape[:2], dtype)
        for j in range(4):
            row = np.zeros_like(total)
            for i in range(4):
                where = corner + np.array([i - 1, j - 1], np.int16)
                near = np.asarray(cv2.remap(plane, where, _NO_MAP, cv2.INTER_NEAREST))
                near *= across[i]
                row += near
            row *= down[j]
            total += row
        return total

    return _sample


def _taps(part: NDArray[Any]) -> list[NDArray[Any]]:
    """Weights of the four neighbours of a position, ``part`` of a pixel behind the second."""
    t = part
    return [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]


def _kernel(distance: NDArray[Any]) -> NDArray[Any]:
    """Keys' cubic kernel with a = -1/2; shape and type of the distances."""
    t = np.abs(distance)
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0)).astype(distance.dtype)


def _narrowed(dense: NDArray[Any], density: tuple[int, int]) -> NDArray[Any]:
    """Samples brought to the grid with a kernel of the grid's pixels, along both axes."""
    for axis, count in enumerate(density):
        if count > 1:
            dense = _narrowed_along(dense, count, axis)
    return dense


def _narrowed_along(dense: NDArray[Any], count: int, axis: int) -> NDArray[Any]:
    length = dense.shape[axis] // count - 4
    # The kernel of pixel 0 begins 2 pixels before its centre; two pixels lie before it.
    first = math.floor(count / 2)
    taps = np.arange(first, first + 4 * count + count % 2)
    weights = _kernel((taps + 0.5) / count - 2.5)
    weights /= weights.sum()
    total = 0
    for tap, weight in zip(taps, weights.astype(dense.dtype), strict=True):
        span = slice(tap, tap + (length - 1) * count + 1, count)
        total = total + dense[(slice(None),) * axis + (span,)] * weight
    return np.asarray(total)


def _as_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values in a file's type: rounded and kept within its range."""
    if dtype.kind == "f":
        return np.asarray(values.astype(dtype))
    limits = np.iinfo(dtype)
    return np.asarray(np.rint(values).clip(limits.min, limits.max).astype(dtype))
