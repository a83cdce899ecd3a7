"""Pictures of a pair for people: before, after, the truth, and where the map is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.assess.sample import Sample

Rgb = tuple[int, int, int]
Picture = NDArray[np.uint8]

HIT: Rgb = (86, 180, 233)
FALSE_ALARM: Rgb = (213, 94, 0)
MISS: Rgb = (240, 228, 66)
"""Sky blue, vermilion and yellow: different hue and brightness for every common colour vision
(Okabe and Ito, 2008)."""
UNSEEN: Rgb = (128, 128, 128)
_SIDE = 512
"""Longest side of a picture, in pixels."""


@dataclass(frozen=True, slots=True)
class Panels:
    """Four pictures of one pair, shape (height, width, 3), uint8, and by how much they shrank."""

    before: Picture
    after: Picture
    truth: Picture
    errors: Picture
    shrink: float
    """Pixels of the image in a pixel of the pictures, along a side; 1: not shrunk."""


def draw_panels(sample: Sample) -> Panels:
    """The pictures of a pair, at most 512 pixels wide and high."""
    before, after = _rgb(sample.before), _rgb(sample.after)
    truth = np.where(sample.truth[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    truth[~sample.valid] = UNSEEN
    shrink = max(1.0, max(sample.truth.shape) / _SIDE)
    errors = error_map(after, sample.found, sample.truth, sample.valid)
    return Panels(
        _shrunk(before, shrink), _shrunk(after, shrink), _shrunk(truth, shrink),
        _shrunk(errors, shrink), shrink,
    )  # fmt: skip


def error_map(
    after: Picture, found: NDArray[np.bool_], truth: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> Picture:
    """Hits, false alarms and misses in colour over the darkened image.

    Args:
        after: shape (height, width, 3), uint8.
        found: the map, shape (height, width).
        truth: the same shape.
        valid: pixels that count; the others are grey.
    """
    dark = (after.mean(axis=2, keepdims=True) * 0.4).astype(np.uint8)
    picture: Picture = dark.repeat(3, axis=2)
    picture[found & truth] = HIT
    picture[found & ~truth] = FALSE_ALARM
    picture[~found & truth] = MISS
    picture[~valid] = UNSEEN
    return picture


def _rgb(image: NDArray[np.uint8]) -> Picture:
    """The first three bands, or the first one three times."""
    bands = image[..., :3] if image.shape[2] >= 3 else image[..., [0, 0, 0]]
    return np.ascontiguousarray(bands)


def _shrunk(picture: Picture, by: float) -> Picture:
    if by == 1:
        return picture
    height, width = (max(1, round(side / by)) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
