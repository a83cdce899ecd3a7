"""What light, season and sensor do to an image, and nothing that moves a pixel's class."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Float = NDArray[np.float32]


def smooth_noise(shape: tuple[int, int], cell: float, rng: Generator) -> Float:
    """Smooth noise of about unit deviation, shape (height, width); ``cell`` pixels a feature."""
    rows = max(2, int(np.ceil(shape[0] / cell)) + 1)
    cols = max(2, int(np.ceil(shape[1] / cell)) + 1)
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    return np.asarray(
        cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32
    )


def _toned(image: Image, strength: float, rng: Generator) -> Float:
    """Gamma, contrast, gain, offset and colour cast; on 0..1, shape (height, width, 3)."""
    gamma = np.exp(rng.normal(0, 0.18 * strength))
    gain = np.exp(rng.normal(0, 0.14 * strength)) * np.exp(rng.normal(0, 0.06 * strength, 3))
    offset = rng.normal(0, 0.05 * strength) + rng.normal(0, 0.02 * strength, 3)
    contrast = np.exp(rng.normal(0, 0.15 * strength))
    # All of it depends on the level and the band alone: a table of 256 levels does it.
    curve = np.linspace(0, 1, 256) ** gamma
    counts = np.bincount(image.ravel(), minlength=256)
    mean = float(counts @ curve) / image.size
    table = ((curve - mean) * contrast + mean)[:, None] * gain + offset
    return np.asarray(cv2.LUT(image, table[None].astype(np.float32)), np.float32)


def _bands(plane: Float, factors: NDArray[np.floating], constant: float) -> Float:
    """A plane as an image whose bands are factor * plane + constant."""
    matrix = np.column_stack([factors, np.full(3, constant)]).astype(np.float32)
    return np.asarray(cv2.transform(plane, matrix), np.float32)


def _season(image: Float, strength: float, rng: Generator) -> None:
    """Greens turn brown or lush, unevenly, in place; other colours stay."""
    weights = np.array([[-6, 12, -6, 0.2]], np.float32)
    vegetation = np.asarray(cv2.transform(image, weights), np.float32)
    np.clip(vegetation, 0, 1, out=vegetation)
    patchy = smooth_noise(image.shape[:2], 40, rng)
    patchy *= 0.4
    patchy += 0.7
    np.clip(patchy, 0, 1, out=patchy)
    vegetation *= patchy
    target = rng.normal(0, 0.10 * strength, 3)
    target += rng.normal(0, 0.06 * strength)
    cv2.add(image, _bands(vegetation, target, 0), image)


def _saturated(image: Float, strength: float, rng: Generator) -> Float:
    factor = float(np.clip(np.exp(rng.normal(0, 0.35 * strength)), 0, 2))
    if rng.random() < 0.03 * strength:
        factor = 0.0  # panchromatic
    mix = np.full((3, 3), (1 - factor) / 3) + factor * np.eye(3)
    return np.asarray(cv2.transform(image, mix.astype(np.float32)), np.float32)


def _shadow(image: Float, rng: Generator) -> None:
    """One soft-edged dark polygon, in place: a cloud's or a tower's shadow."""
    height, width = image.shape[:2]
    points = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
    mask: Float = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 1.0)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 5)), np.float32)
    tint = np.array([1.0, 0.97, 0.9]) * rng.uniform(0.3, 0.6)
    cv2.multiply(image, _bands(mask, -tint, 1), image)


def _haze(image: Float, strength: float, rng: Generator) -> Float:
    amount = rng.uniform(0.05, 0.22) * strength
    veil = np.array([[0.75], [0.8], [0.85]]) * rng.uniform(0.8, 1.1) * amount
    matrix = np.hstack([(1 - amount) * np.eye(3), veil]).astype(np.float32)
    return np.asarray(cv2.transform(image, matrix), np.float32)


def _resolved(image: Float, strength: float, rng: Generator) -> Float:
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
        amount = rng.uniform(0.2, 1.0)
        return np.asarray(cv2.addWeighted(image, 1 + amount, soft, -amount, 0), np.float32)
    return image


def _add_noise(image: Float, deviation: float, rng: Generator) -> None:
    """Grain of the sensor, in place."""
    # OpenCV draws normal numbers three times as fast; its seed comes from the generator.
    cv2.setRNGSeed(int(rng.integers(1 << 31)))
    noise = np.empty_like(image)
    cv2.randn(noise, np.zeros(3), np.full(3, deviation))
    cv2.add(image, noise, image)


def _compressed(image: Image, rng: Generator) -> Image:
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
    out = _toned(image, strength, rng)
    if rng.random() < 0.6:
        _season(out, strength, rng)
    out = _saturated(out, strength, rng)
    if rng.random() < 0.25 * strength:
        _shadow(out, rng)
    if rng.random() < 0.4 * strength:
        out = _haze(out, strength, rng)
    out = _resolved(out, strength, rng)
    if rng.random() < 0.7:
        _add_noise(out, rng.uniform(0.002, 0.03 * strength), rng)
    np.clip(out, 0, 1, out=out)
    out *= 255
    result = out.astype(np.uint8)
    if rng.random() < 0.4:
        result = _compressed(result, rng)
    return result
