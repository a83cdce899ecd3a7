"""Things that networks take for buildings: vehicles in rows, containers, paving, bare soil."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocd.training.augment import smooth_noise

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# Red, green and blue of the ground (asphalt, concrete, gravel, soil) and of vehicles.
_GROUNDS = np.array(
    [
        (85, 85, 88),
        (120, 120, 118),
        (190, 187, 180),
        (165, 155, 140),
        (170, 140, 105),
        (125, 95, 70),
    ],
    np.float32,
)
_PAINTS = np.array(
    [(235, 235, 235), (190, 192, 195), (120, 122, 125), (35, 35, 38), (150, 30, 30), (40, 60, 120),
     (205, 200, 180), (60, 90, 70)],
    np.float32,
)  # fmt: skip
_CAR, _CONTAINER = (4.6, 1.9), (12.0, 2.5)
"""Length and width, metres."""
_SUBPIXEL = 4
"""Bits of a pixel's fraction in which cv2 takes the corners."""
_SOFT = 6
"""Pixels beyond a yard to which its soft edge may reach."""


def _rectangle(
    centre: NDArray[np.float64], size: tuple[float, float], angle: float
) -> NDArray[np.int32]:
    """Corners (4, 2) of a rotated rectangle, in sub-pixel units of cv2."""
    cos, sin = np.cos(angle), np.sin(angle)
    half = 0.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size
    corners = half @ np.array([[cos, sin], [-sin, cos]]) + centre
    return np.asarray(np.round(corners * 2**_SUBPIXEL), np.int32)


def _fill(image: NDArray[np.float32], corners: NDArray[np.int32], colour: object) -> None:
    cv2.fillConvexPoly(image, corners, colour, cv2.LINE_AA, _SUBPIXEL)  # type: ignore[call-overload]


def _park(
    image: NDArray[np.float32], centre: NDArray[np.float64], size: tuple[float, float],
    angle: float, gsd: float, rng: Generator,
) -> None:  # fmt: skip
    """Rows of vehicles with their shadows, all in one direction."""
    length, width = _CAR if rng.random() < 0.7 else _CONTAINER
    lane, gap = rng.uniform(1.05, 2.6) * length / gsd, rng.uniform(1.15, 1.9) * width / gsd
    filled = rng.uniform(0.25, 0.95)
    shadow = rng.normal(0, 0.5, 2) / gsd * (1.0 if width < 2 else 2.0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for across in np.arange(-0.5 * size[0] + lane / 2, 0.5 * size[0] - lane / 3, lane):
        for along in np.arange(-0.5 * size[1] + gap / 2, 0.5 * size[1] - gap / 3, gap):
            if rng.random() > filled:
                continue
            jitter = rng.normal(0, 0.15, 2) / gsd
            at = np.array([across, along]) @ turn + centre + jitter
            body = (length / gsd * rng.uniform(0.85, 1.1), width / gsd)
            paint = _PAINTS[rng.integers(len(_PAINTS))] + rng.normal(0, 12, 3)
            _fill(image, _rectangle(at + shadow, body, angle), (35.0, 38.0, 45.0))
            _fill(image, _rectangle(at, body, angle), tuple(map(float, paint)))


def clutter(image: Image, free: Mask, gsd: float, rng: Generator) -> tuple[Image, Mask]:
    """The image with a yard painted into it: new ground, mostly with parked vehicles.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        free: True where a yard may lie, shape (height, width).
        gsd: metres per pixel.
        rng: decides everything.

    Returns:
        The painted image, and the mask of what was painted.
    """
    height, width = free.shape
    centre = rng.uniform(0, 1, 2) * (width, height)
    size = tuple(np.exp(rng.uniform(np.log(10), np.log(70), 2)) / gsd)
    angle = float(rng.uniform(0, np.pi))
    yard: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(yard, _rectangle(centre, size, angle), 1, cv2.LINE_8, _SUBPIXEL)
    # Only the box around the yard is worked on; its edge is softened a little beyond.
    x, y, w, h = cv2.boundingRect(yard)
    left, top = max(0, x - _SOFT), max(0, y - _SOFT)
    rows, cols = slice(top, y + h + _SOFT), slice(left, x + w + _SOFT)
    mask = (yard[rows, cols] > 0) & free[rows, cols]
    ground = _GROUNDS[rng.integers(len(_GROUNDS))] * rng.uniform(0.8, 1.15)
    texture = smooth_noise(mask.shape, rng.uniform(3, 25), rng) * np.float32(rng.uniform(2, 12))
    painted = np.clip(ground.astype(np.float32) + texture[..., None], 0, 255)
    if rng.random() < 0.3:
        # Vehicles on ground as it is.
        painted = image[rows, cols].astype(np.float32)
    if rng.random() < 0.75:
        _park(painted, centre - (left, top), size, angle, gsd, rng)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.4, 1.0))
    out, changed = image.copy(), np.zeros((height, width), bool)
    painted = np.clip(painted, 0, 255).astype(np.uint8)  # Paints vary beyond white and black.
    around = np.ascontiguousarray(image[rows, cols])
    out[rows, cols] = cv2.blendLinear(painted, around, soft, 1 - soft)
    changed[rows, cols] = soft > 0.02
    return out, changed
