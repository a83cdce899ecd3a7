"""Noise with structure at many scales, and cheap painted scenes for unit tests."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.errors import ShapeError

Float = NDArray[np.float32]
Image = NDArray[np.uint8]


def as_float(values: Any) -> Float:
    """The values as float32, without a copy where they are that already."""
    return np.asarray(values, np.float32)


def fractal_noise(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    coarsest: float,
    finest: float = 1.0,
    roughness: float = 0.6,
) -> Float:
    """Noise with mean 0 and standard deviation 1 whose octaves halve in size.

    Args:
        shape: (height, width).
        rng: where the numbers come from.
        coarsest: size of the largest blobs, in pixels.
        finest: size of the smallest ones, in pixels.
        roughness: amplitude of an octave over that of the next coarser one.

    Returns:
        Shape (height, width), float32.
    """
    total = _octaves(shape, rng, float(max(coarsest, finest)), finest, roughness)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(total))
    total -= np.float32(mean)
    total *= np.float32(1 / max(deviation, 1e-6))
    return total


def _octaves(
    shape: tuple[int, int], rng: np.random.Generator, cell: float, finest: float, roughness: float
) -> Float:
    height, width = shape
    total = np.zeros(shape, np.float32)
    amplitude = 1.0
    if cell >= 16 and cell >= 8 * finest:
        # What is smooth over eight pixels and more can be made four times as coarse.
        small = (math.ceil(height / 4), math.ceil(width / 4))
        coarse = _octaves(small, rng, cell / 4, max(2.0, finest / 4), roughness)
        total = as_float(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
        while cell / 4 >= max(2.0, finest / 4):
            amplitude, cell = amplitude * roughness, cell / 2
    while cell >= finest:
        # Every octave has a lattice of its own, turned and displaced: upright ones, on top
        # of each other, look like woven cloth.
        side = math.ceil(math.hypot(height, width) / cell) + 4
        coarse = rng.standard_normal((side, side), dtype=np.float32)
        turn = rng.uniform(0, math.pi / 2)
        cos, sin = math.cos(turn) / cell, math.sin(turn) / cell
        turned = np.array([[cos, -sin], [sin, cos]])
        shift = side / 2 - 0.5 + rng.uniform(-0.5, 0.5, 2)
        origin = shift - turned @ np.array([width / 2, height / 2])
        layer = _resample(coarse, np.column_stack([turned, origin]), shape)
        cv2.scaleAdd(layer, amplitude, total, total)
        amplitude, cell = amplitude * roughness, cell / 2
    return total


def _resample(image: NDArray[Any], to_source: NDArray[np.float64], shape: tuple[int, int]) -> Float:
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = (shape[1], shape[0])
    border = cv2.BORDER_REFLECT_101
    return as_float(cv2.warpAffine(image, to_source, size, flags=flags, borderMode=border))


def paint_scene(shape: tuple[int, int], *, seed: int) -> Image:
    """A cheap textured scene: ground, two roads and a few roofs with shadows.

    Made for unit tests that need something to look at: edges and corners at known
    density, texture at every scale, no repetition. It is not meant to look real; for
    that see `paint_survey`.

    Args:
        shape: (height, width), in pixels.
        seed: the same seed and shape give the same scene.

    Returns:
        Shape (3, height, width), red, green, blue; values 1..255, so that 0 is free for nodata.
    """
    rng = np.random.default_rng(seed)
    height, width = shape
    soil = fractal_noise(shape, rng, coarsest=48, finest=1.5, roughness=0.75)[..., None]
    canvas = np.array([96, 104, 78], np.float32) + soil * np.array([20, 16, 14], np.float32)
    for _ in range(2):
        ends = rng.random((2, 2)) * (width, height)
        middle, reach = ends.mean(axis=0), np.diff(ends, axis=0)[0] * 4
        line = np.round([middle - reach, middle + reach]).astype(np.int32)
        cv2.polylines(canvas, [line], False, (118, 116, 112), int(rng.integers(5, 10)))
    for _ in range(max(3, height * width // 3000)):
        centre = tuple(rng.random(2) * (width, height))
        sides, angle = tuple(rng.uniform(8, 24, 2)), float(rng.uniform(0, 90))
        for shift, colour in ((3.0, np.full(3, 40.0)), (0.0, rng.uniform(70, 235, 3))):
            box = cv2.boxPoints(((centre[0] + shift, centre[1] + shift), sides, angle))
            cv2.fillConvexPoly(canvas, np.round(box).astype(np.int32), colour.tolist())
    canvas += rng.normal(0, 3, canvas.shape).astype(np.float32)
    painted = np.clip(canvas, 1, 255).astype(np.uint8)
    return np.ascontiguousarray(painted.transpose(2, 0, 1))


def shifted_pair(
    shape: tuple[int, int], *, shift: tuple[float, float], seed: int
) -> tuple[Image, Image]:
    """One scene twice, the second time displaced by a known amount.

    Args:
        shape: (height, width) of both images.
        shift: (row, col), in pixels; what sits at (r, c) in the first image sits at
            (r, c) + shift in the second. Add its negative to the second to undo it.
        seed: as in `paint_scene`.

    Returns:
        Reference and moving image, both (3, height, width) uint8 without any empty margin.

    Raises:
        ShapeError: the shift is longer than the image.
    """
    if max(abs(shift[0]), abs(shift[1])) >= min(shape):
        raise ShapeError(
            f"the shift {shift} is larger than the image {shape}; use a larger shape or less shift"
        )
    margin = math.ceil(max(abs(shift[0]), abs(shift[1]))) + 2
    scene = paint_scene((shape[0] + 2 * margin, shape[1] + 2 * margin), seed=seed)
    wide = np.ascontiguousarray(scene.transpose(1, 2, 0))
    back = np.array([[1, 0, margin - shift[1]], [0, 1, margin - shift[0]]], np.float64)
    moving = np.clip(_resample(wide, back, shape), 1, 255).astype(np.uint8)
    inside = slice(margin, margin + shape[0]), slice(margin, margin + shape[1])
    return scene[:, *inside].copy(), np.ascontiguousarray(moving.transpose(2, 0, 1))
