"""What a factory's camera does to a picture of a good part, and no defect at all."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocd.training.augment import smooth_noise

Image = NDArray[np.uint8]

_BEND_CELL = 48.0
"""Pixels over which edges wander to and fro."""


def exposed(image: Image, rng: Generator) -> Image:
    """The same part under another exposure, lamp, focus and sensor.

    Args:
        image: shape (height, width, 3), uint8.
        rng: decides everything.
    """
    levels = np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.2))
    middle = float(image.mean()) / 255
    levels = (levels - middle) * np.exp(rng.normal(-0.05, 0.15)) + middle
    levels = levels * np.exp(rng.normal(0, 0.12)) + rng.normal(0, 0.06)
    tint = np.exp(rng.normal(0, 0.03, 3)) if rng.random() < 0.3 else np.ones(3)
    table = (levels[:, None] * tint)[None].astype(np.float32)
    out = np.asarray(cv2.LUT(image, table), np.float32)
    if rng.random() < 0.4:
        lamp = 1 + np.float32(rng.uniform(0.02, 0.1)) * smooth_noise(image.shape[:2], 90, rng)
        out *= lamp[..., None]
    if rng.random() < 0.5:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.3)), np.float32)
    if rng.random() < 0.6:
        cv2.setRNGSeed(int(rng.integers(1 << 31)))
        noise = np.empty(image.shape[:2], np.float32)
        cv2.randn(noise, 0, rng.uniform(0.003, 0.05))  # type: ignore[call-overload]
        out += noise[..., None]
    result = (np.clip(out, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        result = np.asarray(cv2.imdecode(cv2.imencode(".jpg", result, quality)[1], 1), np.uint8)
    return result


def displaced(image: Image, rng: Generator, *, largest: float) -> Image:
    """The picture off its place by less than ``largest`` pixels, shifted, turned and bent.

    Args:
        image: shape (height, width, bands), uint8; mirrored where nothing was seen.
        rng: decides everything.
        largest: bound of the displacement, pixels.
    """
    height, width = image.shape[:2]
    shift = rng.uniform(-0.6, 0.6, 2) * largest
    turn = rng.uniform(-1, 1) * 0.15 * largest / max(height, width)
    bend = rng.uniform(0, 0.2) * largest / 2
    rows, cols = np.indices((height, width), dtype=np.float32)
    maps = []
    for plane, lever, move in (
        (cols, -(rows - height / 2), shift[0]), (rows, cols - width / 2, shift[1])
    ):  # fmt: skip
        wander = smooth_noise((height, width), _BEND_CELL, rng) * np.float32(bend)
        moved = np.float32(move) + np.float32(turn) * lever + wander
        maps.append(plane + np.clip(moved, -largest, largest).astype(np.float32))
    across, down = maps
    moved_image = cv2.remap(
        image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved_image, np.uint8)
