"""From scores to classes: the change map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocd.config import NOT_OBSERVED, SCORE_SCALE


def least_level(threshold: float) -> int:
    """The smallest stored score, 0..254, that reaches a threshold of 0..1."""
    return int(np.ceil(np.float32(threshold) * np.float32(SCORE_SCALE)))


def classify(
    scores: NDArray[np.uint8], thresholds: tuple[float, ...], codes: tuple[int, ...]
) -> NDArray[np.uint8]:
    """The change map of encoded scores.

    A class passes where its score reaches its threshold. Where several pass, the one wins that
    has gone further on the way from its threshold to 1: (score - threshold) / (1 - threshold).
    By the plain difference a class would win ground from its neighbours by nothing but a lower
    threshold of its own.

    Args:
        scores: shape (classes, height, width), as ``encode_scores`` gives them.
        thresholds: one a class, between 0 and 1.
        codes: value of each class in the change map.

    Returns:
        Shape (height, width): 0, one of ``codes``, or 255 where not observed.
    """
    unseen = scores[0] == NOT_OBSERVED
    out: NDArray[np.uint8] = unseen * np.uint8(NOT_OBSERVED)
    taken, contested = np.zeros((2, *out.shape), bool)
    for band, threshold, code in zip(scores, thresholds, codes, strict=True):
        passes = (band >= least_level(threshold)) & ~unseen
        contested |= passes & taken
        taken |= passes
        out += passes * np.uint8(code)
    # Hardly a pixel passes for two classes: only those are weighed.
    where = np.flatnonzero(contested)
    if len(where):
        limits = np.array(thresholds, np.float32)[:, None] * np.float32(SCORE_SCALE)
        room = np.maximum(SCORE_SCALE - limits, np.float32(1e-6))  # none at a threshold of 1
        claims = scores.reshape(len(scores), -1)[:, where]  # (classes, pixels)
        winner = ((claims - limits) / room).argmax(axis=0)
        out.ravel()[where] = np.array(codes, np.uint8)[winner]
    return out
