"""Patches of a pair in full resolution, kept as bytes, and what their blocks say of the motion.

A patch is cut into blocks that share no pixel, so what one block says is no echo of another:

    patch   +---------------------------+   read once, with a margin, through a first motion
            | . . . . . . . . . . . . . |
            | . block | block | block . |   64 to 128 px a side
            | . ------+-------+------ . |
            | . block | block | block . |
            +---------------------------+

Source:
    Lucas and Kanade (1981); equations of one window as evidence with a covariance: Foerstner
    (1982). Both images share the gradient, as in Birchfield (1997), so that noise in one of them
    does not draw the shift towards zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.align.field import PointArray
from geocd.align.reader import MaskArray, PairReader
from geocd.align.ties import normalise

ScoreArray = NDArray[np.int8]

_BLOCK = 64
"""Side of a block, in pixels, where there is room."""
_LEAST_BLOCK = 32
"""Side of a block, in pixels, at least."""
_FEW = 12
"""Blocks each way below which blocks become smaller."""
_MOST = 64
"""Blocks each way, at most, that make a full lattice."""
_LARGEST_BLOCK = 128
"""Side of a block, in pixels, beyond which gaps are left between patches."""
_PATCH = 8
"""Blocks each way in a patch."""
_MARGIN = 24
"""Pixels that a patch sees beyond its blocks."""
_UNIT = 40.0
"""Steps of a stored value in one standard score."""
_UNSEEN = -128
"""Stored value of a pixel that was not observed."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Local standard scores of both images over one patch, as bytes.

    Attributes:
        left, top: grid coordinates of the corner of the arrays.
        reference, moving: scores times 40, shape (height, width); -128 where not observed.
        edges_x, edges_y: array columns and rows where blocks begin, and the end of the last.
    """

    left: int
    top: int
    reference: ScoreArray
    moving: ScoreArray
    edges_x: NDArray[np.intp]
    edges_y: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Blocks:
    """What every block of all patches says, in one order; n rows.

    Attributes:
        position: middle of the texture of the block, (col, row) of the grid, shape (n, 2).
        step: further displacement (x, y) that would bring the images together, in pixels of the
            grid, shape (n, 2).
        variance: of ``step`` along its worse axis, square pixels, infinite without texture, (n,).
        score: correlation of the images, -1..1, 0 where too little was observed, shape (n,).
    """

    position: PointArray
    step: PointArray
    variance: NDArray[np.float64]
    score: NDArray[np.float64]


def block_edges(shape: tuple[int, int]) -> tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]]:
    """Edges of the blocks of every patch, (down, across), in pixels of the grid.

    Images of up to 64 blocks of 128 pixels each way are covered; larger ones are sampled by
    small patches at even distances, so that memory has a bound.
    """
    side = block_side(shape)
    return _edges(shape[0], side), _edges(shape[1], side)


def block_side(shape: tuple[int, int]) -> float:
    """Side of a block, in pixels: smaller in small images, so that there are some blocks."""
    side = min(_BLOCK, max(_LEAST_BLOCK, min(shape) / _FEW))
    return min(max(side, max(shape) / _MOST), _LARGEST_BLOCK)


def _edges(length: int, side: float) -> list[NDArray[np.intp]]:
    count = max(1, round(length / side))
    if count <= _MOST:
        edges = np.linspace(0, length, count + 1).round().astype(np.intp)
        return [edges[i : i + _PATCH + 1] for i in range(0, count, _PATCH)]
    starts = np.linspace(0, length - 2 * _LARGEST_BLOCK, _MOST // 2).round().astype(np.intp)
    return [start + np.arange(3) * _LARGEST_BLOCK for start in starts]


def read_patches(read: PairReader, shape: tuple[int, int], motion: Affine) -> list[Patch]:
    """All patches of the pair, with the moving image seen through a first motion."""
    patches = []
    down, across = block_edges(shape)
    for rows in down:
        for cols in across:
            patches.append(_read_patch(read, shape, rows, cols, motion))
    return patches


def _read_patch(
    read: PairReader, shape: tuple[int, int], rows: NDArray[np.intp], cols: NDArray[np.intp],
    motion: Affine,
) -> Patch:  # fmt: skip
    top, bottom = max(0, int(rows[0]) - _MARGIN), min(shape[0], int(rows[-1]) + _MARGIN)
    left, right = max(0, int(cols[0]) - _MARGIN), min(shape[1], int(cols[-1]) + _MARGIN)
    pair = read(slice(top, bottom), slice(left, right), step=1.0, motion=motion)
    return Patch(
        left, top,
        _stored(normalise(pair.reference, pair.valid_reference), pair.valid_reference),
        _stored(normalise(pair.moving, pair.valid_moving), pair.valid_moving),
        cols - left, rows - top,
    )  # fmt: skip


def _stored(scores: NDArray[np.float32], valid: MaskArray) -> ScoreArray:
    return np.where(valid, np.rint(scores * _UNIT), _UNSEEN).astype(np.int8)


def measure(
    patches: list[Patch],
    displacement: Callable[[slice, slice, float], PointArray] | None,
    *,
    factor: int,
    blur: float,
) -> Blocks:
    """What the blocks say once the moving image is displaced.

    Args:
        patches: as read.
        displacement: gives displacements (x, y) in grid pixels of the centres of the pixels of
            a window of the grid, decimated; None: none.
        factor: side of a pixel of the comparison, in pixels of the grid.
        blur: standard deviation of the smoothing of both images, in pixels of the comparison.
    """
    parts = [_measure_patch(p, displacement, factor, blur) for p in patches]
    return Blocks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _measure_patch(
    patch: Patch,
    displacement: Callable[[slice, slice, float], PointArray] | None,
    factor: int,
    blur: float,
) -> tuple[PointArray, PointArray, NDArray[np.float64], NDArray[np.float64]]:
    reference, seen_reference = _prepared(patch.reference, factor, blur)
    moving, seen_moving = _prepared(patch.moving, factor, blur)
    height, width = reference.shape
    if displacement is not None:
        rows = slice(patch.top, patch.top + height * factor)
        cols = slice(patch.left, patch.left + width * factor)
        shift = displacement(rows, cols, float(factor)) / factor
        x = (shift[..., 0] + np.arange(width)).astype(np.float32)
        y = (shift[..., 1] + np.arange(height)[:, None]).astype(np.float32)
        moving = _remapped(moving, x, y)
        seen_moving = _remapped(seen_moving, x, y)
    seen = ((seen_reference > 0.99) & (seen_moving > 0.99)).astype(np.float32)
    edges_x = np.minimum(patch.edges_x // factor, width)
    edges_y = np.minimum(patch.edges_y // factor, height)
    sums = _BlockSums(edges_y, edges_x)
    found = _equations(reference, moving, seen, sums)
    position, step, variance, score = found
    corner = np.array([patch.left, patch.top])
    return corner + (position + 0.5) * factor, step * factor, variance * factor**2, score


def _prepared(
    stored: ScoreArray, factor: int, blur: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(scores, share observed), decimated and smoothed."""
    seen = (stored != _UNSEEN).astype(np.float32)
    scores = stored.astype(np.float32) * seen / np.float32(_UNIT)
    if factor > 1:
        height, width = (length // factor * factor for length in stored.shape)
        size = (width // factor, height // factor)
        scores = _float(cv2.resize(scores[:height, :width], size, interpolation=cv2.INTER_AREA))
        seen = _float(cv2.resize(seen[:height, :width], size, interpolation=cv2.INTER_AREA))
    if blur > 0:
        scores = _float(cv2.GaussianBlur(scores, (0, 0), blur))
        # Near a pixel that was not observed, smoothing has mixed in what is not there.
        seen = _float(cv2.GaussianBlur(seen, (0, 0), blur))
    return scores, seen


def _float(image: object) -> NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32)


def _remapped(
    image: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    return _float(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))


@dataclass(frozen=True, slots=True)
class _BlockSums:
    """Sums over the blocks of a patch."""

    edges_y: NDArray[np.intp]
    edges_x: NDArray[np.intp]

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum of every block, row by row, shape (blocks,)."""
        inside = image[: self.edges_y[-1], : self.edges_x[-1]]
        across = np.add.reduceat(inside, self.edges_x[:-1], axis=1, dtype=np.float64)
        return np.asarray(np.add.reduceat(across, self.edges_y[:-1], axis=0).ravel())

    def spread(self, values: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
        """An image of ``shape`` with the value of its block in every pixel; 0 outside."""
        out = np.zeros(shape, np.float32)
        rows, cols = np.diff(self.edges_y), np.diff(self.edges_x)
        blocks = values.reshape(len(rows), len(cols)).astype(np.float32)
        full = np.repeat(np.repeat(blocks, rows, axis=0), cols, axis=1)
        out[self.edges_y[0] : self.edges_y[-1], self.edges_x[0] : self.edges_x[-1]] = full
        return out


def _equations(
    reference: NDArray[np.float32],
    moving: NDArray[np.float32],
    seen: NDArray[np.float32],
    sums: _BlockSums,
) -> tuple[PointArray, PointArray, NDArray[np.float64], NDArray[np.float64]]:
    """(position, step, variance, score) of every block, in pixels of the arrays."""
    count = np.maximum(sums(seen), 1.0)
    rr, mm, rm = (
        sums(a * b * seen)
        for a, b in ((reference, reference), (moving, moving), (reference, moving))
    )
    score = rm / np.sqrt(np.maximum(rr * mm, 1e-9))
    # Panchromatic against infrared, or a negative: what is bright on one date is dark on the other.
    sign = sums.spread(np.where(score < 0, -1.0, 1.0), seen.shape)
    moving = moving * sign
    away = reference - moving
    # What changed inside a block says nothing about the rest.
    weight = seen / np.square(1 + np.square(away))
    mean = _float((reference + moving) / 2)
    gx, gy = _gradient(mean)
    gxx, gxy, gyy, gxe, gye = (
        sums(a * b * weight) for a, b in ((gx, gx), (gx, gy), (gy, gy), (gx, away), (gy, away))
    )
    energy = np.maximum(gxx + gyy, 1e-9)
    x = np.arange(seen.shape[1], dtype=np.float32)
    y = np.arange(seen.shape[0], dtype=np.float32)[:, None]
    texture = (gx * gx + gy * gy) * weight
    position = np.column_stack([sums(texture * x) / energy, sums(texture * y) / energy])
    determinant = gxx * gyy - gxy * gxy
    trace = gxx + gyy
    least = trace / 2 - np.sqrt(np.maximum(trace * trace / 4 - determinant, 0))
    safe = np.where(least > 1e-6 * count, determinant, np.inf)
    step = np.column_stack([(gyy * gxe - gxy * gye) / safe, (gxx * gye - gxy * gxe) / safe])
    noise = sums(np.square(away) * weight) / np.maximum(sums(weight), 1.0)
    variance = np.where(np.isfinite(safe), noise / np.maximum(least, 1e-12), np.inf)
    area = np.outer(np.diff(sums.edges_y), np.diff(sums.edges_x)).ravel()
    observed = count >= 0.3 * area
    return (
        position,
        step,
        np.where(observed, variance, np.inf),
        np.where(observed, np.abs(score), 0.0),
    )


def _gradient(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Central differences along x and y."""
    kernel = np.array([[-0.5, 0, 0.5]], np.float32)
    return (
        _float(cv2.filter2D(image, cv2.CV_32F, kernel)),
        _float(cv2.filter2D(image, cv2.CV_32F, kernel.T)),
    )
