"""Shift by phase correlation: for images too blurred or too noisy for local features.

Source:
    Foroosh, Zerubia and Berthod (2002), doi:10.1109/83.988953.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.align.reader import FloatArray, GrayPair, PairReader, to_grid, transform_points
from geocd.align.ties import Ties, normalise

_WINDOWS = 8
"""Windows each way, at most."""
_PEAK_WIDTH = 1.0
"""Standard deviation, in pixels, that the peak of the correlation is given."""
_MIN_VALID = 0.6
"""Least share of a window that must be valid on both dates."""


def correlate(pair: GrayPair, *, limit: float) -> tuple[float, float] | None:
    """The shift (x, y) in pixels from reference to moving; None where nothing can be said.

    Args:
        pair: the images; each is normalised, masked and tapered here.
        limit: largest displacement each way, in pixels.
    """
    valid = pair.valid_reference & pair.valid_moving
    if min(valid.shape) < 16 or valid.mean() < 0.1:
        return None
    height, width = valid.shape
    taper = np.hanning(height)[:, None] * np.hanning(width)[None, :] * valid
    a = np.fft.rfft2(normalise(pair.reference, valid) * taper)
    b = np.fft.rfft2(normalise(pair.moving, valid) * taper)
    cross = np.conj(a) * b
    size = np.abs(cross)
    if not size.max() > 0:
        return None
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    # A Gaussian in frequency makes the peak a Gaussian, whose top three samples give exactly.
    soft = np.exp(-2 * (np.pi * _PEAK_WIDTH) ** 2 * (fx * fx + fy * fy))
    surface = np.fft.irfft2(cross / np.maximum(size, 1e-9 * size.max()) * soft, valid.shape)
    return _peak(surface, limit)


def _peak(surface: NDArray[np.float64], limit: float) -> tuple[float, float] | None:
    """Place (x, y) of the highest value within the limit, below a pixel."""
    height, width = surface.shape
    reach_y, reach_x = (int(min(limit, n // 2 - 2)) for n in (height, width))
    rows, cols = np.arange(-reach_y, reach_y + 1), np.arange(-reach_x, reach_x + 1)
    near = surface[rows[:, None] % height, cols[None, :] % width]
    if -near.min() > near.max():  # a negative: what is bright on one date is dark on the other
        surface, near = -surface, -near
    r, c = np.unravel_index(near.argmax(), near.shape)
    row, col = int(rows[r]), int(cols[c])
    dy = _top([surface[(row + k) % height, col % width] for k in (-1, 0, 1)])
    dx = _top([surface[row % height, (col + k) % width] for k in (-1, 0, 1)])
    if dx is None or dy is None:
        return None
    return col + dx, row + dy


def _top(values: list[np.float64]) -> float | None:
    """Offset of the top of a Gaussian through three samples, -1..1; None if it has none."""
    if min(values) <= 0:
        return None
    low, middle, high = np.log(values)
    bend = 2 * middle - low - high
    return None if bend <= 0 else float(np.clip((high - low) / (2 * bend), -1, 1))


@dataclass(frozen=True, slots=True)
class WindowTies:
    """Ties from the windows of a checkerboard, apart by colour."""

    even: Ties
    odd: Ties


def window_ties(
    read: PairReader, shape: tuple[int, int], *, motion: Affine, limit: float
) -> WindowTies:
    """One tie for each of a bounded number of windows of the full resolution.

    Args:
        read: the pair.
        shape: (height, width) of the reading grid.
        motion: the shift through which the windows are read.
        limit: largest further displacement each way, in pixels.
    """
    side = int(np.clip(min(shape) // 6, 32, 256))
    colours: tuple[list[tuple[FloatArray, FloatArray]], ...] = ([], [])
    for i, top in enumerate(_starts(shape[0], side)):
        for j, left in enumerate(_starts(shape[1], side)):
            rows, cols = slice(top, top + side), slice(left, left + side)
            pair = read(rows, cols, step=1.0, motion=motion)
            if (pair.valid_reference & pair.valid_moving).mean() < _MIN_VALID:
                continue
            found = correlate(pair, limit=limit)
            if found is not None:
                middle = np.array([[(side - 1) / 2, (side - 1) / 2]])
                ends = (
                    to_grid(p, rows=rows, cols=cols, step=1.0) for p in (middle, middle + found)
                )
                here, there = ends
                colours[(i + j) % 2].append((here, transform_points(motion, there)))
    return WindowTies(_as_ties(colours[0]), _as_ties(colours[1]))


def _starts(length: int, side: int) -> list[int]:
    """Where windows begin along one axis: evenly, and no two share a pixel.

    Otherwise the same ground would sit on both sides of the hold-out.
    """
    count = int(np.clip(length // side, 1, _WINDOWS))
    return [int(v) for v in np.linspace(0, max(length - side, 0), count).round()]


def _as_ties(pairs: list[tuple[FloatArray, FloatArray]]) -> Ties:
    if not pairs:
        return Ties(np.empty((0, 2)), np.empty((0, 2)))
    return Ties(np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]))


def middle_shift(ties: Ties, tolerance: float) -> Affine | None:
    """Median displacement of the ties near the median displacement; None without ties."""
    if not len(ties):
        return None
    away = ties.moving - ties.reference
    centre = np.median(away, axis=0)
    near = np.hypot(*(away - centre).T) < tolerance
    if near.any():
        centre = np.median(away[near], axis=0)
    return Affine.translation(float(centre[0]), float(centre[1]))
