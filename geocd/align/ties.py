"""Tie points: the same spot found in both images by local features.

Source:
    SIFT: Lowe (2004), doi:10.1023/B:VISI.0000029664.99615.94.
    Square-rooted descriptors: Arandjelovic and Zisserman (2012),
    doi:10.1109/CVPR.2012.6248018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.align.reader import FloatArray, GrayArray, GrayPair, MaskArray

_MARGIN = 12
"""Pixels around an invalid pixel in which a feature would see the edge of the mask."""
_TILE = 512
"""Side of the tiles in which features are sought, in pixels: bounds memory, spreads features."""
_OVERLAP = 16
"""Pixels that a tile sees beyond its own, so that features at its edge are whole."""
_RATIO = 0.85
"""Largest distance to the best match over the distance to the second best."""
_MAX_TURN = 20.0
"""Largest difference of the orientations of a match, in degrees."""
_SQUARES = 10
"""Squares of ground, along the longer side, that are held out or not as a whole."""
_MAX_ZOOM = 1.4
"""Largest ratio of the sizes of a match."""


@dataclass(frozen=True, slots=True)
class Ties:
    """Pairs of points that seem to show the same ground, as (col, row) of one grid."""

    reference: FloatArray
    """Where the reference shows it, shape (n, 2)."""
    moving: FloatArray
    """Where the moving image, as georeferenced, shows it, shape (n, 2)."""

    def __len__(self) -> int:
        return len(self.reference)

    def take(self, index: NDArray[np.intp] | MaskArray) -> Ties:
        """The chosen ties."""
        return Ties(self.reference[index], self.moving[index])

    def split(self, seed: int) -> tuple[Ties, Ties]:
        """(fit, held out): by chance about 70/30, more evenly while there are few.

        Whole squares of ground are held out, because neighbours see the same texture.
        """
        if not len(self):
            return self, self
        wanted = max(round(0.3 * len(self)), min(24, len(self) // 2))
        side = max(float(np.ptp(self.reference, axis=0).max()) / _SQUARES, 1.0)
        squares = np.floor(self.reference / side).astype(np.intp)
        _, square, count = np.unique(squares, axis=0, return_inverse=True, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(count))
        taken = order[np.cumsum(count[order]) - count[order] < wanted]
        held = np.isin(square.reshape(-1), taken)
        return self.take(~held), self.take(held)


def no_ties() -> Ties:
    """Ties of length 0."""
    return Ties(np.empty((0, 2)), np.empty((0, 2)))


def joined(parts: list[Ties]) -> Ties:
    """The ties of all parts, in their order, but no two within half a pixel of each other.

    Parts may overlap, and a spot seen twice would sit on both sides of the hold-out.
    """
    if not parts:
        return no_ties()
    ties = Ties(
        np.concatenate([p.reference for p in parts]), np.concatenate([p.moving for p in parts])
    )
    # Two points so close share a pixel of at least one of four lattices half a pixel apart.
    for offset in ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)):
        pixel = np.floor(ties.reference + np.array(offset))
        _, first = np.unique(pixel, axis=0, return_index=True)
        ties = ties.take(np.sort(first))
    return ties


@dataclass(frozen=True, slots=True)
class _Features:
    xy: FloatArray  # (n, 2), array coordinates
    angle: FloatArray  # (n,), degrees
    log_size: FloatArray  # (n,)
    descriptors: NDArray[np.float32]  # (n, 128), of length 1

    def take(self, index: NDArray[np.intp]) -> _Features:
        return _Features(
            self.xy[index], self.angle[index], self.log_size[index], self.descriptors[index]
        )


def normalise(gray: GrayArray, valid: MaskArray, *, sigma: float = 16.0) -> NDArray[np.float32]:
    """The image with its local mean and contrast taken out: haze, gamma and season matter less.

    Args:
        gray: shape (height, width), 0..255.
        valid: same shape; other pixels count for nothing.
        sigma: width of the neighbourhood, in pixels.

    Returns:
        Shape (height, width): local standard scores within -3..3, 0 where not valid.
    """
    mask = valid.astype(np.float32)
    side = 2 * round(sigma * 1.5) + 1
    image = gray.astype(np.float32) * mask

    def _mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred = cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, dtype=np.float32)

    weight = np.maximum(_mean(mask), 1e-3)
    mean = _mean(image) / weight
    variance = np.maximum(_mean(image * image) / weight - mean * mean, 0)
    # Below a few gray values there is only noise; dividing by less would make it texture.
    score = (image - mean) / np.sqrt(variance + 3.0**2) * mask
    return np.clip(score, -3, 3).astype(np.float32)


def eroded(valid: MaskArray, margin: int) -> MaskArray:
    """True where every pixel within ``margin`` (a square) is valid; the frame does not count."""
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    return np.asarray(cv2.erode(valid.astype(np.uint8), kernel) > 0, dtype=np.bool_)


def match_pair(pair: GrayPair, *, limit: float, budget: int) -> tuple[FloatArray, FloatArray]:
    """Matches of two gray images, (reference, moving), as array coordinates (x, y), (n, 2) each.

    Args:
        pair: the images.
        limit: largest displacement, in pixels of the arrays.
        budget: features kept on each side, about.
    """
    reference = _features(pair.reference, pair.valid_reference, budget=budget)
    moving = _features(pair.moving, pair.valid_moving, budget=budget)
    index = _mutual_matches(reference, moving, limit=limit)
    # A spot with several orientations would sit on both sides of the hold-out.
    _, first = np.unique(np.round(reference.xy[index[:, 0]]), axis=0, return_index=True)
    index = index[np.sort(first)]
    return reference.xy[index[:, 0]], moving.xy[index[:, 1]]


def _features(gray: GrayArray, valid: MaskArray, *, budget: int) -> _Features:
    """SIFT features spread over the valid part, tile by tile."""
    height, width = gray.shape
    image = np.clip(normalise(gray, valid) * 40 + 128, 0, 255).astype(np.uint8)
    usable = eroded(valid, _MARGIN)
    rows, cols = math.ceil(height / _TILE), math.ceil(width / _TILE)
    sift = cv2.SIFT.create(
        nfeatures=math.ceil(budget / (rows * cols)),
        contrastThreshold=0.03,
        enable_precise_upscale=True,
    )
    found = []
    for r in range(rows):
        for c in range(cols):
            core = (
                slice(r * height // rows, (r + 1) * height // rows),
                slice(c * width // cols, (c + 1) * width // cols),
            )
            if usable[core].any():
                found.append(_tile_features(sift, image, usable, core))
    return _joined_features(found)


def _tile_features(
    sift: cv2.SIFT, image: GrayArray, usable: MaskArray, core: tuple[slice, slice]
) -> _Features:
    """Features whose centre lies in the core of a tile and on a usable pixel."""
    top, left = max(0, core[0].start - _OVERLAP), max(0, core[1].start - _OVERLAP)
    part = (slice(top, core[0].stop + _OVERLAP), slice(left, core[1].stop + _OVERLAP))
    mask = np.zeros(image[part].shape, np.uint8)
    inner = (
        slice(core[0].start - top, core[0].stop - top),
        slice(core[1].start - left, core[1].stop - left),
    )
    mask[inner] = usable[core]
    points, descriptors = sift.detectAndCompute(np.ascontiguousarray(image[part]), mask)
    if not points:
        return _joined_features([])
    roots = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))
    return _Features(
        np.array([p.pt for p in points], dtype=np.float64) + np.array([left, top]),
        np.array([p.angle for p in points], dtype=np.float64),
        np.log(np.array([p.size for p in points], dtype=np.float64)),
        np.asarray(roots, dtype=np.float32),
    )


def _joined_features(parts: list[_Features]) -> _Features:
    if not parts:
        none = np.empty(0)
        return _Features(np.empty((0, 2)), none, none, np.empty((0, 128), np.float32))
    return _Features(
        np.concatenate([p.xy for p in parts]),
        np.concatenate([p.angle for p in parts]),
        np.concatenate([p.log_size for p in parts]),
        np.concatenate([p.descriptors for p in parts]),
    )


def _mutual_matches(reference: _Features, moving: _Features, *, limit: float) -> NDArray[np.intp]:
    """Pairs (n, 2) of indices that choose each other among all within reach.

    The rivals in the ratio test are only those within reach too: on repetitive ground a twin
    across the image says nothing against a match.
    """
    best = np.full(len(reference.xy), -1, dtype=np.intp)
    rival_ratio = np.full(len(reference.xy), np.inf)
    back = np.full(len(moving.xy), -1, dtype=np.intp)
    back_score = np.full(len(moving.xy), -np.inf, dtype=np.float32)
    for rows, cols in _neighbourhoods(reference.xy, moving.xy, limit):
        score = _similarity(reference.take(rows), moving.take(cols), limit=limit)
        _keep_best(score, moving.xy[cols], rows, cols, best, rival_ratio)
        top = score.argmax(axis=0)
        top_score = score[top, np.arange(len(cols))]
        better = top_score > back_score[cols]
        back[cols[better]] = rows[top[better]]
        back_score[cols[better]] = top_score[better]
    mine = np.flatnonzero((best >= 0) & (rival_ratio < _RATIO))
    mine = mine[back[best[mine]] == mine]
    return np.column_stack([mine, best[mine]])


def _keep_best(
    score: NDArray[np.float32],
    moving_xy: FloatArray,
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    best: NDArray[np.intp],
    rival_ratio: FloatArray,
) -> None:
    """Writes the best match of each row, and its distance over that of its best rival."""
    line = np.arange(len(rows))
    top = score.argmax(axis=1)
    top_score = score[line, top]
    found = np.isfinite(top_score)
    best[rows[found]] = cols[top[found]]
    # The same spot at another size or orientation is no rival.
    apart = np.abs(moving_xy[None, :, :] - moving_xy[top][:, None, :]).max(axis=2) > 3
    rival = np.where(apart, score, -np.inf).max(axis=1)
    rival = np.where(np.isfinite(rival), rival, 0.0)  # no rival within reach: an unlike one
    ratio = np.sqrt((1 - np.minimum(top_score, 1)) / np.maximum(1 - rival, 1e-6))
    rival_ratio[rows] = np.where(found, ratio, np.inf)


def _neighbourhoods(
    reference: FloatArray, moving: FloatArray, limit: float
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Blocks of reference points, each with all moving points within reach of the block."""
    if not len(reference) or not len(moving):
        return []
    side = max(96.0, limit)
    keys, block = np.unique((reference // side).astype(np.int64), axis=0, return_inverse=True)
    block = block.reshape(-1)
    out = []
    for number, key in enumerate(keys):
        low, high = key * side - limit, (key + 1) * side + limit
        near = np.flatnonzero(((moving >= low) & (moving <= high)).all(axis=1))
        if len(near):
            out.append((np.flatnonzero(block == number), near))
    return out


def _similarity(a: _Features, b: _Features, *, limit: float) -> NDArray[np.float32]:
    """Cosine of the descriptors, shape (len(a), len(b)); -inf where a match is out of the question.

    Images on one grid differ by little turn and zoom, so orientation and size must agree.
    """
    score = a.descriptors @ b.descriptors.T
    dx = a.xy[:, None, 0] - b.xy[None, :, 0]
    dy = a.xy[:, None, 1] - b.xy[None, :, 1]
    turn = np.abs((a.angle[:, None] - b.angle[None, :] + 180) % 360 - 180)
    zoom = np.abs(a.log_size[:, None] - b.log_size[None, :])
    out = (dx * dx + dy * dy > limit * limit) | (turn > _MAX_TURN) | (zoom > math.log(_MAX_ZOOM))
    score[out] = -np.inf
    return score
