"""What a method must beat: baselines that every table shows."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_BLOCK = 4
"""Side of the blocks of ``pca_kmeans``, in pixels, as published."""
_COMPONENTS = 3
"""Principal components that ``pca_kmeans`` keeps, as published."""
_MOST_SAMPLES = 100_000
"""Pixels from which the two clusters are learnt; all of a 316 x 316 image."""


def _difference(before: Image, after: Image) -> NDArray[np.float32]:
    """Length of the colour difference, shape (height, width)."""
    difference = after.astype(np.float32) - before.astype(np.float32)
    return np.asarray(np.sqrt((difference**2).sum(axis=2)), np.float32)


def difference_otsu(before: Image, after: Image) -> Mask:
    """Change where the length of the colour difference passes Otsu's threshold.

    Args:
        before: shape (height, width, bands), uint8.
        after: likewise.

    Source:
        Otsu (1979), doi 10.1109/TSMC.1979.4310076; Malila (1980), change vector analysis.
    """
    length = _difference(before, after)
    scaled = cv2.normalize(length, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]
    _, mask = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(mask > 0)


def pca_kmeans(before: Image, after: Image) -> Mask:
    """Change by principal components of the difference around each pixel, in two clusters.

    The eigenvectors come from non-overlapping blocks of the difference image, the features of a
    pixel from the block around it. The cluster with the larger mean difference is change. The
    clusters are learnt from a regular sample of the pixels, and no random number is drawn, so
    memory is a few planes and the result is always the same.

    Args:
        before: shape (height, width, bands), uint8. In less than two blocks nothing changes.
        after: likewise.

    Source:
        Celik (2009), doi 10.1109/LGRS.2009.2025059.
    """
    difference = _difference(before, after)
    height, width = difference.shape
    rows, cols = height // _BLOCK, width // _BLOCK
    if rows * cols < 2 or np.ptp(difference) == 0:
        return np.zeros((height, width), bool)
    cut = difference[: rows * _BLOCK, : cols * _BLOCK].reshape(rows, _BLOCK, cols, _BLOCK)
    blocks = cut.swapaxes(1, 2).reshape(-1, _BLOCK**2)  # (rows * cols, block pixels)
    _, vectors = np.linalg.eigh(np.cov(blocks, rowvar=False))  # by rising variance
    axes = vectors[:, : -_COMPONENTS - 1 : -1].astype(np.float32)  # (block pixels, components)
    same, change = _two_centres(difference, axes)
    # The nearer of two centres is the side of a plane, and features are linear in the pixels: a
    # single filter tells the side without keeping the features of every pixel.
    kernel = (axes @ (change - same)).reshape(_BLOCK, _BLOCK)
    side = cv2.filter2D(difference, cv2.CV_32F, kernel, anchor=_anchor(),
                        borderType=cv2.BORDER_REFLECT_101)  # fmt: skip
    return np.asarray(side > (change @ change - same @ same) / 2)


def _anchor() -> tuple[int, int]:
    """(x, y) of the pixel that a block belongs to."""
    return (_BLOCK - 1) // 2, (_BLOCK - 1) // 2


def _two_centres(
    difference: NDArray[np.float32], axes: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres (components,) of the clusters 'no change' and 'change'."""
    ahead = _anchor()[0]
    behind = _BLOCK - 1 - ahead
    padded = cv2.copyMakeBorder(difference, ahead, behind, ahead, behind, cv2.BORDER_REFLECT_101)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_BLOCK, _BLOCK))
    step = math.ceil(math.sqrt(difference.size / _MOST_SAMPLES))
    sampled = difference[::step, ::step].reshape(-1)
    features = windows[::step, ::step].reshape(-1, _BLOCK**2) @ axes  # (samples, components)
    # Starting from the mean difference instead of random centres makes the result repeatable.
    labels = (sampled > sampled.mean()).astype(np.int32)[:, None]
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-3)
    _, labels, centres = cv2.kmeans(
        np.ascontiguousarray(features), 2, labels, criteria, 1, cv2.KMEANS_USE_INITIAL_LABELS
    )
    means = [sampled[labels.ravel() == cluster].mean() for cluster in (0, 1)]
    change = int(np.argmax(means))
    return centres[1 - change], centres[change]


def everything(before: Image, after: Image) -> Mask:
    """Change everywhere."""
    return np.ones(before.shape[:2], bool)


def nothing(before: Image, after: Image) -> Mask:
    """Change nowhere."""
    return np.zeros(before.shape[:2], bool)


BASELINES: dict[str, Callable[[Image, Image], Mask]] = {
    "colour difference + Otsu": difference_otsu,
    "PCA + k-means": pca_kmeans,
    "everything changed": everything,
    "nothing changed": nothing,
}
