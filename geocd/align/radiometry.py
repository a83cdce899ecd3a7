"""Radiometric normalisation: what one date's values would be in the light of the other.

The bands of after are brought to those of before by a straight line each, fitted to ground that
did not change. Which ground that is, both dates tell together: canonical variates of pixels
that did not change differ by no more than noise.

Source:
    IR-MAD: Nielsen (2007), doi:10.1109/TIP.2006.888195.
    Normalisation with it: Canty and Nielsen (2008), doi:10.1016/j.rse.2007.07.013.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from geocd.align.reader import FloatArray, MaskArray
from geocd.errors import ShapeError

Bytes = NDArray[np.uint8]
Status = Literal["applied", "refused", "off"]

_WINDOWS: Final = 8
"""Windows of the sample each way, at most."""
_SIDE: Final = 128
"""Side of a window of the sample, in pixels."""
_BLOCK: Final = 4
"""Side of the blocks whose means are compared, in pixels: misregistration and noise shrink."""
_ITERATIONS: Final = 50
_REST: Final = 1e-3
"""Change of the canonical correlations at which the iteration is at rest."""
_SATURATED: Final = (2.0, 253.0)
"""Means beyond these are clipped values, which lie on no line."""
_MIN_SAMPLE: Final = 200
"""Least number of blocks on which a fit rests."""
_UNLIKELY: Final = 0.05
"""Probability of 'no change' below which a block counts as changed."""
_MIN_UNCHANGED: Final = 0.2
"""Least share of the blocks that did not change."""
_MIN_CORRELATION: Final = 0.6
"""Least correlation of a band between the dates, on ground that did not change."""
_GAINS: Final = (1 / 3, 3.0)
"""Gains beyond these are no difference of light."""


class ReadDates(Protocol):
    """Reads both dates of a pair."""

    def __call__(
        self, rows: slice, cols: slice
    ) -> tuple[Bytes, NDArray[np.bool_], Bytes, NDArray[np.bool_]]:
        """(before, valid before, after, valid after) of a window.

        Images have the shape (bands, height, width), masks (height, width).
        """
        ...


@dataclass(frozen=True, slots=True)
class Radiometry:
    """How after's values answer to before's: ``before ~ gain * after + offset``, band by band.

    Attributes:
        status: applied: use it; refused: it could not be trusted; off: nothing was asked for.
        gain: one a band; empty unless ``status`` is "applied".
        offset: one a band, on the scale 0..255; likewise.
        unchanged: share of the sample that did not change, 0..1; None where nothing was fitted.
        sample: blocks of 4 x 4 pixels that were compared.
        reason: one clause, why.
    """

    status: Status
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    unchanged: float | None
    sample: int
    reason: str

    def tables(self) -> Bytes | None:
        """The normalised value of every value of after, shape (bands, 256); None: as they are."""
        if self.status != "applied":
            return None
        values = np.arange(256) * np.array(self.gain)[:, None] + np.array(self.offset)[:, None]
        return np.asarray(np.rint(values.clip(0, 255)), dtype=np.uint8)

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return {
            "status": self.status,
            "gain": list(self.gain),
            "offset": list(self.offset),
            "unchanged": self.unchanged,
            "sample": self.sample,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        if self.status != "applied":
            return f"radiometry as it is: {self.reason}"
        lines = ", ".join(
            f"{gain:.2f} x {offset:+.0f}"
            for gain, offset in zip(self.gain, self.offset, strict=True)
        )
        return f"radiometry of after brought to before's, by band: {lines}"


RADIOMETRY_OFF: Final = Radiometry("off", (), (), None, 0, "normalisation is switched off")


def estimate_radiometry(read: ReadDates, shape: tuple[int, int]) -> Radiometry:
    """The line of each band from after to before, on a sample of the pair.

    At most 8 x 8 windows of 128 x 128 pixels are read, spread over the grid; means of 4 x 4
    pixels are compared, so that what is left of the misregistration weighs little.

    Args:
        read: gives both dates on one grid, after as it was aligned.
        shape: (height, width) of that grid.
    """
    before, after = [], []
    for rows, cols in _windows(shape):
        first, valid_first, second, valid_second = read(rows, cols)
        valid = valid_first & valid_second
        if valid.any():
            blocks = _block_means(np.concatenate([first, second]), valid)  # (2 x bands, n)
            before.append(blocks[: len(first)])
            after.append(blocks[len(first) :])
    if not before:
        return _refused(0, "no pixel is valid on both dates")
    return fit_radiometry(np.concatenate(before, axis=1), np.concatenate(after, axis=1))


def fit_radiometry(before: FloatArray, after: FloatArray) -> Radiometry:
    """``estimate_radiometry`` for a sample in memory.

    Args:
        before: values of the earlier date, 0..255, shape (bands, n).
        after: of the later date, same shape.

    Raises:
        ShapeError: the two differ in shape.
    """
    if before.shape != after.shape or before.ndim != 2:
        raise ShapeError(
            f"both dates must have one shape (bands, n), got {before.shape} and {after.shape}"
        )
    both = np.concatenate([before, after])
    usable = ((both > _SATURATED[0]) & (both < _SATURATED[1])).all(axis=0)
    before, after = before[:, usable], after[:, usable]
    count = before.shape[1]
    if count < _MIN_SAMPLE:
        return _refused(count, f"only {count} samples are neither saturated nor unobserved")
    weight = unchanged_probability(before, after)
    unchanged = float((weight > _UNLIKELY).mean())
    if unchanged < _MIN_UNCHANGED:
        return _refused(count, f"only {unchanged:.0%} of the ground did not change", unchanged)
    gains, offsets = [], []
    for band, (x, y) in enumerate(zip(after, before, strict=True), 1):
        gain, offset, correlation = _line(x, y, weight)
        if not correlation >= _MIN_CORRELATION:
            return _refused(
                count, f"band {band} of the two dates is unlike (correlation {correlation:.2f})",
                unchanged,
            )  # fmt: skip
        if not _GAINS[0] <= gain <= _GAINS[1]:
            return _refused(
                count, f"band {band} would need a gain of {gain:.2f}, which is no difference of "
                "light", unchanged,
            )  # fmt: skip
        gains.append(gain)
        offsets.append(offset)
    reason = f"{unchanged:.0%} of {count} samples did not change"
    return Radiometry("applied", tuple(gains), tuple(offsets), unchanged, count, reason)


def unchanged_probability(before: FloatArray, after: FloatArray) -> FloatArray:
    """Probability of each sample that it did not change, 0..1, shape (n,).

    Iteratively reweighted: the canonical variates are found on the samples in proportion to
    their probability so far, until the canonical correlations rest. Bands that repeat others
    count once.

    Args:
        before: shape (bands, n).
        after: same shape; any linear map of its bands gives the same result.
    """
    weight = np.ones(before.shape[1])
    last = np.zeros(0)
    for _ in range(_ITERATIONS):
        first, second = _whitened(before, weight), _whitened(after, weight)
        cross = (first * weight) @ second.T / weight.sum()
        left, correlations, right = np.linalg.svd(cross, full_matrices=False)
        if not len(correlations):  # a date without contrast tells nothing
            return weight
        correlations = correlations.clip(0, 1)
        variates = left.T @ first - right @ second  # (variates, n): zero where nothing changed
        # Even equal images are rounded; without a floor their noise would be divided by zero.
        spread = 2 * (1 - correlations) / _narrowing(len(correlations))
        variance = np.maximum(spread, 1e-4)[:, None]
        weight = _chi2_above((variates**2 / variance).sum(axis=0), len(correlations))
        weight = np.maximum(weight, 1e-9)
        if len(last) == len(correlations) and np.abs(correlations - last).max(initial=0) < _REST:
            break
        last = correlations
    return weight


def _whitened(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Uncorrelated combinations of the bands with unit variance, shape (rank, n)."""
    centred = values - np.average(values, axis=1, weights=weight)[:, None]
    covariance = (centred * weight) @ centred.T / weight.sum()
    power, axes = np.linalg.eigh(covariance)
    kept = power > max(1e-6 * float(power[-1]), 1e-9)
    return np.asarray((axes[:, kept] / np.sqrt(power[kept])).T @ centred, dtype=np.float64)


def _narrowing(variates: int) -> float:
    """Variance of normal noise under the weights that it is given, over its variance.

    Without it the noise would seem smaller at every iteration, until nothing is unchanged. It is
    E[min(a, b)] / variates of two independent chi-squares a and b.
    """
    half = variates / 2
    return 1 - math.gamma(variates) / (2.0 ** (variates - 1) * half * math.gamma(half) ** 2)


def _chi2_above(squares: FloatArray, degrees: int) -> FloatArray:
    """Probability that a sum of so many squared standard normals exceeds the given values."""
    half = squares / 2
    if degrees % 2:
        total = np.vectorize(math.erfc, otypes=[float])(np.sqrt(half))
        exponents = np.arange(1, degrees, 2) / 2
    else:
        total = np.zeros_like(half)
        exponents = np.arange(0, degrees, 2) / 2
    for exponent in exponents:
        total = total + half**exponent * np.exp(-half) / math.gamma(exponent + 1)
    return np.asarray(total, dtype=np.float64)


def _line(x: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[float, float, float]:
    """(gain, offset, correlation) of ``y ~ gain * x + offset``; NaN where a side is constant.

    Orthogonal regression: both dates are noisy, and least squares in one of them would
    flatten the line.
    """
    mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
    xx, yy, xy = (
        float(np.average(product, weights=weight))
        for product in ((x - mean_x) ** 2, (y - mean_y) ** 2, (x - mean_x) * (y - mean_y))
    )
    if xx * yy <= 0 or xy == 0:
        return math.nan, math.nan, math.nan
    gain = (yy - xx + math.hypot(yy - xx, 2 * xy)) / (2 * xy)
    return gain, float(mean_y - gain * mean_x), xy / math.sqrt(xx * yy)


def _windows(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the windows of the sample, spread over the grid."""
    spans = [
        [
            slice(int(start), min(int(start) + _SIDE, length))
            for start in np.linspace(
                0, max(length - _SIDE, 0), min(_WINDOWS, -(-length // _SIDE))
            ).round()
        ]
        for length in shape
    ]
    return ((rows, cols) for rows in spans[0] for cols in spans[1])


def _block_means(planes: Bytes, valid: MaskArray) -> FloatArray:
    """Means of the blocks that are valid everywhere, shape (planes, n)."""
    height, width = (side // _BLOCK * _BLOCK for side in valid.shape)
    split = (height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    whole = valid[:height, :width].reshape(split).all(axis=(1, 3))
    means = planes[:, :height, :width].reshape(len(planes), *split).mean(axis=(2, 4))
    return np.asarray(means[:, whole], dtype=np.float64)


def _refused(sample: int, reason: str, unchanged: float | None = None) -> Radiometry:
    return Radiometry("refused", (), (), unchanged, sample, reason)
