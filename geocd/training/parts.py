"""Parts of a scene as masks: what is pasted, removed or replaced, and what it takes along."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]

_DIRECTIONS = 16
_DARK = 0.82
"""Brightness of a shadow's ground over that around a building, at most."""
_FAR = 14
"""Steps of two pixels over which a shadow is followed."""


def blobs(shape: tuple[int, int], rng: Generator) -> Mask:
    """One to four rotated rectangles or ellipses."""
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 5)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        size = np.exp(rng.uniform(np.log(0.12), np.log(0.8), 2)) * (width, height)
        angle = float(rng.uniform(0, 180))
        box = (tuple(map(float, centre)), tuple(map(float, size)), angle)
        if rng.random() < 0.6:
            cv2.fillPoly(mask, [cv2.boxPoints(box).astype(np.int32)], 1)
        else:
            cv2.ellipse(mask, box, 1, -1)
    return mask.astype(bool)


def objects(present: Mask) -> Numbers:
    """The connected objects of a mask, numbered from 1; 0 elsewhere."""
    return np.asarray(cv2.connectedComponents(present.astype(np.uint8))[1], np.int32)


def stretches(present: Mask, rng: Generator) -> Numbers:
    """A network of roads cut into stretches, numbered from 1; 0 elsewhere.

    Each pixel goes to the nearest of a few pixels of the network: between two of them along one
    road, the cut is square to the road.
    """
    numbers = np.zeros(present.shape, np.int32)
    places = np.argwhere(present).astype(np.float32)
    if len(places):
        seeds = places[rng.integers(len(places), size=int(rng.integers(3, 10)))]
        apart = ((places[:, None] - seeds[None]) ** 2).sum(axis=2)
        numbers[present] = 1 + apart.argmin(axis=1)
    return numbers


def some_of(numbers: Numbers, rng: Generator, *, without: Mask | None = None) -> Mask:
    """A random choice of numbered parts, none of which reaches into ``without``."""
    keep: Mask = np.asarray(rng.random(int(numbers.max()) + 1) < rng.uniform(0.2, 1.0))
    keep[0] = False
    if without is not None:
        keep[numbers[without]] = False
    return np.asarray(keep[numbers])


def _moved(mask: NDArray[np.uint8], dx: int, dy: int) -> NDArray[np.uint8]:
    """The mask moved right and down; nothing comes in from outside."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    out[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = mask[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return out


def shadow_reach(image: Image, built: Mask) -> tuple[float, float]:
    """How far and where the shadows of buildings fall.

    The ground beside the buildings is compared in sixteen directions, at half the resolution;
    the darkest is followed until it is bright again.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        built: True on buildings, shape (height, width).

    Returns:
        (dx, dy), pixels to the right and down; (0, 0) where no side is clearly darker.
    """
    size = (max(1, built.shape[1] // 2), max(1, built.shape[0] // 2))
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    roofs = np.asarray(
        cv2.resize(built.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8
    )
    angles = np.arange(_DIRECTIONS) * 2 * math.pi / _DIRECTIONS
    steps = [(math.cos(a), math.sin(a)) for a in angles]
    means = []
    for x, y in steps:
        beside = _moved(roofs, round(2 * x), round(2 * y)) & (1 - roofs)
        means.append(cv2.mean(grey, beside)[0] if beside.any() else math.inf)
    level = float(np.mean(means))
    if not math.isfinite(level) or min(means) > _DARK * level:
        return 0.0, 0.0
    x, y = steps[int(np.argmin(means))]
    seen, reach = roofs.copy(), 2
    for step in range(1, _FAR + 1):
        front = _moved(roofs, round(step * x), round(step * y)) & (1 - seen)
        if not front.any():
            continue  # Rounded to the step before.
        if cv2.mean(grey, front)[0] > 0.5 * (1 + _DARK) * level:
            break
        seen |= front
        reach = step
    return 2 * reach * x, 2 * reach * y


def grown(mask: Mask, margin: int, reach: tuple[float, float] = (0.0, 0.0)) -> Mask:
    """The mask with an even margin, and swept along a vector (dx, dy) in pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    out = cv2.dilate(mask.astype(np.uint8), kernel)
    far = math.ceil(max(map(abs, reach)))
    if far:
        # OpenCV looks along the kernel: to grow towards the vector it must point back.
        line = np.zeros((2 * far + 1, 2 * far + 1), np.uint8)
        cv2.line(line, (far, far), (far - round(reach[0]), far - round(reach[1])), 1)
        out = cv2.dilate(out, line)
    return np.asarray(out) > 0


def decoys(mask: Mask, rng: Generator) -> Mask:
    """The same shapes, mirrored and moved to other places."""
    height, width = mask.shape
    turned = mask[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))].astype(np.uint8)
    dx, dy = rng.uniform(-0.5, 0.5, 2) * (width, height)
    return _moved(turned, round(dx), round(dy)) > 0


def clean_offset(mask: Mask, taken: Mask, rng: Generator) -> tuple[int, int] | None:
    """A move (dx, dy) that brings the mask onto ground that is not taken; None: not found."""
    rows, cols = np.nonzero(mask)
    if not len(rows):
        return None
    height, width = mask.shape
    for dx, dy in np.round(rng.uniform(-0.4, 0.4, (16, 2)) * (width, height)).astype(int):
        y, x = rows + dy, cols + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        if inside.all() and not taken[y, x].any():
            return int(dx), int(dy)
    return None
