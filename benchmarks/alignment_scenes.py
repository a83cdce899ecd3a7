"""Pairs of 2000 x 2000 px whose true motion is known everywhere, for ``alignment.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from geocd.testing import fractal_noise

SIDE = 2000
_MARGIN = 60
_FINER = 3
_CELL = 200
"""Side, in pixels, of the squares that change."""

Painter = Callable[[int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """What happened between the dates."""

    name: str
    what: str
    warped: bool = False
    changed: float = 0.0
    holes: float = 0.0
    sixteen_bit: bool = False
    coarser: int = 1
    """Side of a pixel of after, in pixels of before."""


CASES = (
    Case("A", "shift"),
    Case("B", "0.2 degrees, 0.8 px local warp, 5 % changed", warped=True, changed=0.05),
    Case("C", "as B, 22 % changed", warped=True, changed=0.22),
    Case("D", "as C, 12 % nodata", warped=True, changed=0.22, holes=0.12),
    Case("E", "as C, uint16 against uint8", warped=True, changed=0.22, sixteen_bit=True),
    Case("F", "as C, after's pixels twice as wide", warped=True, changed=0.22, coarser=2),
    Case("G", "as C, after's pixels four times as wide", warped=True, changed=0.22, coarser=4),
)


@dataclass(frozen=True)
class Pair:
    """Two dates, and how ground lies displaced on the second.

    Attributes:
        before: shape (SIDE, SIDE).
        after: shape (SIDE / coarser, SIDE / coarser), of the same ground.
        valid_after: where after was observed, same shape.
        truth: displacement (x, y) of every pixel of before, in its pixels, (SIDE, SIDE, 2).
        coarser: side of a pixel of after, in pixels of before.
    """

    before: np.ndarray
    after: np.ndarray
    valid_after: np.ndarray
    truth: np.ndarray
    coarser: int = 1


def read_gray(path: Path) -> np.ndarray:
    """A tile as gray values, uint8."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise SystemExit(f"{path} cannot be read as an image")
    return image


def mosaics(tiles: list[Path]) -> Painter:
    """Paints squares of different aerial tiles side by side."""

    def paint(side: int, rng: np.random.Generator) -> np.ndarray:
        count = -(-side // read_gray(tiles[0]).shape[0])
        chosen = [tiles[i] for i in rng.choice(len(tiles), count * count, replace=False)]
        rows = [np.hstack([read_gray(p) for p in chosen[i::count]]) for i in range(count)]
        return np.vstack(rows)[:side, :side].astype(np.float32)

    return paint


def textures(side: int, rng: np.random.Generator) -> np.ndarray:
    """Procedural ground: fractal noise of all sizes, with fields that are darker or lighter."""
    fine = fractal_noise((side, side), rng, coarsest=64, finest=2)
    coarse = fractal_noise((side, side), rng, coarsest=side / 4, finest=64)
    image = 115 + 22 * fine + 18 * coarse + 20 * (coarse > 0.6)
    return np.clip(image, 0, 255).astype(np.float32)


def truth_field(side: int, rng: np.random.Generator, *, warped: bool) -> np.ndarray:
    """Displacement (x, y) of each pixel from before to after, shape (side, side, 2)."""
    field = np.empty((side, side, 2), np.float32)
    field[:] = rng.uniform(-8, 8, 2)
    if warped:
        ys, xs = np.mgrid[0:side, 0:side].astype(np.float32) - side / 2
        turn = np.deg2rad(0.2)
        field += np.dstack([-turn * ys, turn * xs]).astype(np.float32)
        for axis in range(2):
            noise = fractal_noise((side, side), rng, coarsest=side / 3, finest=side / 6)
            field[..., axis] += noise * np.float32(0.8 / np.sqrt(2))
    return field


def seen_after(ground: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Ground, displaced by a field: inverted by iteration, since it is small and smooth."""
    ys, xs = np.mgrid[0 : field.shape[0], 0 : field.shape[1]].astype(np.float32)
    x, y = xs, ys
    for _ in range(6):
        here = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x, y = xs - here[..., 0], ys - here[..., 1]
    # Cubic and Lanczos kernels of OpenCV displace by up to 0.05 px of their own; on an image
    # three times as fine, made in frequency, a linear kernel displaces by less than 0.005.
    fine = _zoomed(ground)
    return cv2.remap(fine, x * _FINER, y * _FINER, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _zoomed(image: np.ndarray) -> np.ndarray:
    """The image sampled ``_FINER`` times as densely, exactly, from the same first pixel."""
    height, width = image.shape
    spectrum = np.fft.rfft2(image)
    half = height // 2
    wide = np.zeros((_FINER * height, _FINER * width // 2 + 1), np.complex64)
    wide[:half, : spectrum.shape[1]] = spectrum[:half]
    wide[-half:, : spectrum.shape[1]] = spectrum[-half:]
    return np.fft.irfft2(wide, (_FINER * height, _FINER * width)).astype(np.float32) * _FINER**2


def make_pair(paint: Painter, case: Case, rng: np.random.Generator) -> Pair:
    """One place on two dates: displaced, changed, hazy, toned and noisy."""
    wide = SIDE + 2 * _MARGIN
    inside = slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN)
    ground, other = paint(wide, rng), paint(SIDE, rng)
    field = truth_field(wide, rng, warped=case.warped)
    after = seen_after(ground, field)[inside]
    for part in _squares(case.changed, rng):
        after[part] = other[part]
    toned = 255 * (np.clip(after, 0, 255) / 255) ** rng.uniform(0.7, 1.4)
    veil = 0.15 + 0.15 * np.clip(
        fractal_noise((SIDE, SIDE), rng, coarsest=SIDE / 2, finest=300), -1, 1
    )
    toned = toned * (1 - veil) + 210 * veil
    noisy = [i + rng.normal(0, 4, i.shape) for i in (ground[inside], binned(toned, case.coarser))]
    valid = np.ones((SIDE, SIDE), bool)
    for part in _squares(case.holes, rng):
        valid[part] = False
    valid = valid[:: case.coarser, :: case.coarser]
    before, after = (np.clip(i, 0, 255) for i in noisy)
    after = np.where(valid, after, 0)
    scale, kind = (11.7, np.uint16) if case.sixteen_bit else (1.0, np.uint8)
    return Pair(
        (before * scale).astype(kind), after.astype(np.uint8), valid, field[inside], case.coarser
    )


def binned(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of ``factor`` pixels a side: what a coarser sensor sees."""
    height, width = (side // factor for side in image.shape)
    return image.reshape(height, factor, width, factor).mean(axis=(1, 3))


def _squares(share: float, rng: np.random.Generator) -> list[tuple[slice, slice]]:
    cells = SIDE // _CELL
    out = []
    for cell in rng.choice(cells**2, round(share * cells**2), replace=False):
        top, left = (int(v) * _CELL for v in divmod(cell, cells))
        out.append((slice(top, top + _CELL), slice(left, left + _CELL)))
    return out
