"""What light, season and sensor do to an image, and nothing that moves a pixel's class."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def smooth_noise(shape: tuple[int, int], cell: float, rng: Generator) -> NDArray[np.float32]:
    """Smooth noise of about unit deviation, shape (height, width); ``cell`` pixels a feature."""
    rows = max(2, int(np.ceil(shape[0] / cell)) + 1)
    cols = max(2, int(np.ceil(shape[1] / cell)) + 1)
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    return np.asarray(
        cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32
    )


def _tone(image: NDArray[np.float32], strength: float, rng: Generator) -> NDArray[np.float32]:
    """Gamma, gain, offset and colour cast."""
    gamma = np.exp(rng.normal(0, 0.18 * strength))
    gain = np.exp(rng.normal(0, 0.14 * strength)) * np.exp(rng.normal(0, 0.06 * strength, 3))
    offset = rng.normal(0, 0.05 * strength) + rng.normal(0, 0.02 * strength, 3)
    out = np.clip(image, 0, 1) ** np.float32(gamma)
    mean = out.mean()
    contrast = np.exp(rng.normal(0, 0.15 * strength))
    out = (out - mean) * np.float32(contrast) + mean
    return np.asarray(out * gain.astype(np.float32) + offset.astype(np.float32))


def _season(image: NDArray[np.float32], strength: float, rng: Generator) -> NDArray[np.float32]:
    """Greens turn brown or lush, unevenly; other colours stay."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    vegetation = np.clip((2 * green - red - blue) * 6 + 0.2, 0, 1)
    patchy = np.clip(0.7 + 0.4 * smooth_noise(image.shape[:2], 40, rng), 0, 1)
    target = rng.normal(0, 0.10 * strength, 3).astype(np.float32)
    target += np.float32(rng.normal(0, 0.06 * strength))
    return np.asarray(image + (vegetation * patchy)[..., None] * target)


def _saturate(image: NDArray[np.float32], strength: float, rng: Generator) -> NDArray[np.float32]:
    gray = image.mean(axis=2, keepdims=True)
    factor = np.float32(np.clip(np.exp(rng.normal(0, 0.35 * strength)), 0, 2))
    if rng.random() < 0.03 * strength:
        factor = np.float32(0)  # panchromatic
    return np.asarray(gray + (image - gray) * factor)


def _shadow(image: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    """One soft-edged dark polygon: a cloud's or a tower's shadow."""
    height, width = image.shape[:2]
    points = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
    mask: NDArray[np.float32] = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 1.0)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 5)), np.float32)
    tint = np.array([1.0, 0.97, 0.9], np.float32) * np.float32(rng.uniform(0.3, 0.6))
    return np.asarray(image * (1 - mask[..., None] * tint))


def _haze(image: NDArray[np.float32], strength: float, rng: Generator) -> NDArray[np.float32]:
    amount = rng.uniform(0.05, 0.22) * strength
    veil = np.array([0.75, 0.8, 0.85], np.float32) * np.float32(rng.uniform(0.8, 1.1))
    return np.asarray(image * np.float32(1 - amount) + veil * np.float32(amount))


def _resolve(image: NDArray[np.float32], strength: float, rng: Generator) -> NDArray[np.float32]:
    """Blur, loss of resolution, or over-sharpening."""
    choice = rng.random()
    height, width = image.shape[:2]
    if choice < 0.35:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.5 + 0.7 * strength)))
    if choice < 0.6:
        factor = rng.uniform(1.1, 1.3 + 0.7 * strength)
        small = cv2.resize(
            image, (int(width / factor), int(height / factor)), interpolation=cv2.INTER_AREA
        )
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    if choice < 0.8:
        soft = cv2.GaussianBlur(image, (0, 0), 1.2)
        return np.asarray(image + (image - soft) * np.float32(rng.uniform(0.2, 1.0)))
    return image


def _compress(image: Image, rng: Generator) -> Image:
    quality = int(rng.integers(35, 92))
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def photometric(image: Image, rng: Generator, *, strong: bool) -> Image:
    """The same ground under another light, season and sensor.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        rng: decides everything.
        strong: another season and a poor sensor instead of another hour.
    """
    strength = 1.0 if strong else 0.45
    out: NDArray[np.float32] = image.astype(np.float32) / np.float32(255)
    out = _tone(out, strength, rng)
    if rng.random() < 0.6:
        out = _season(out, strength, rng)
    out = _saturate(out, strength, rng)
    if rng.random() < 0.25 * strength:
        out = _shadow(out, rng)
    if rng.random() < 0.4 * strength:
        out = _haze(out, strength, rng)
    out = _resolve(out, strength, rng)
    if rng.random() < 0.7:
        out = out + rng.standard_normal(out.shape, dtype=np.float32) * np.float32(
            rng.uniform(0.002, 0.03 * strength)
        )
    result = (np.clip(out, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.4:
        result = _compress(result, rng)
    return result
