"""Thresholds that keep a promise about misses, chosen on calibration units.

A unit is what can be exchanged with what comes: an image, or a site of several images. Its loss
at a threshold is the share of what changed in it that is missed there, so it lies in 0..1 and
never falls as the threshold rises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocd.config import SCORE_SCALE
from geocd.errors import ConfigError

Floats = NDArray[np.float64]

LEVELS = SCORE_SCALE
"""Thresholds to choose from: scores that reach 1, 2, ... 254 of 254."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised of units to come."""

    max_miss: float
    """Largest mean share that is missed, 0..1."""
    confidence: float | None = 0.95
    """How sure, over the draw of the calibration units, that the mean miss of all units stays
    below ``max_miss``. None: only the mean over such draws as well stays below it."""
    all_or_none: bool = False
    """Whether each loss is 0 or 1, so that the exact binomial test holds."""

    def __post_init__(self) -> None:
        if not 0 < self.max_miss < 1:
            raise ConfigError(f"max_miss must lie between 0 and 1, got {self.max_miss}")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ConfigError(f"confidence must lie between 0 and 1, got {self.confidence}")

    @property
    def needed_units(self) -> int:
        """Units below which even units without any miss would prove nothing."""
        if self.confidence is None:
            return math.ceil(1 / self.max_miss - 1 - _ROUNDING)
        # No test proves anything with fewer than the binomial one.
        units = math.ceil(math.log(1 - self.confidence) / math.log(1 - self.max_miss) - _ROUNDING)
        while not self.proves(np.zeros((max(units, 1), 1)))[0]:
            units += 1
        return units

    def proves(self, losses: Floats) -> NDArray[np.bool_]:
        """Where losses of units, shape (units, levels), prove the promise, level by level."""
        units, risks = len(losses), losses.mean(axis=0)
        if self.confidence is None:
            return np.asarray((units * risks + 1) / (units + 1) <= self.max_miss + _ROUNDING)
        p = (
            binomial_p_values(risks, units=units, limit=self.max_miss)
            if self.all_or_none
            else betting_p_values(losses, limit=self.max_miss, confidence=self.confidence)
        )
        return np.asarray(p <= 1 - self.confidence + _ROUNDING)


def threshold_of(level: int) -> float:
    """The threshold, 0..1, that scores of so many of 254 reach and lower ones do not."""
    # Half a level lower, so that rounding keeps the scores of the level itself.
    return (level - 0.5) / SCORE_SCALE


def choose_level(losses: Floats, promise: Promise) -> int:
    """The highest level at which the promise is proven; 0 where it is at none.

    With a confidence, levels are tested from the lowest one upwards until one fails (fixed
    sequence testing). As misses never fall with the level, this is the risk-controlling
    prediction set of the same bound, and one wrong rejection is all that can go wrong.
    Without, the threshold is that of conformal risk control.

    Args:
        losses: of each unit at levels 1, 2, ... , shape (units, levels), 0..1, never falling
            along the levels. Bets are laid in the order of the units, which must not follow
            from their losses.
        promise: what to prove.

    Returns:
        Level counted from 1.

    Source:
        Angelopoulos et al. (2022), conformal risk control, arXiv 2208.02814; Bates et al. (2021),
        risk-controlling prediction sets, doi 10.1145/3478535; Angelopoulos et al. (2021), learn
        then test, arXiv 2110.01052.
    """
    # All levels up to the first that is not proven.
    return int(np.minimum.accumulate(promise.proves(losses)).sum())


def binomial_p_values(risks: Floats, *, units: int, limit: float) -> Floats:
    """How likely so few of so many units are missed, were each missed with chance ``limit``.

    Args:
        risks: share of the units that is missed, any shape.
        units: number of units.
        limit: the largest mean miss, 0..1.
    """
    missed = np.round(risks * units).astype(np.int64)
    return np.asarray(_binomial_cdf(units, limit)[missed])


def betting_p_values(losses: Floats, *, limit: float, confidence: float) -> Floats:
    """How likely losses so low are at most, were their true mean ``limit`` or more.

    A gambler bets, unit after unit, that losses lie below the limit. Were the mean the limit,
    no strategy would gain on average, so the chance that the capital ever grows by a factor is
    at most one over it. Each bet follows the spread of the losses before it, which is why
    losses that differ little prove more than a bound that only knows their mean.

    Args:
        losses: of units in an order that does not follow from them, shape (units, levels), 0..1.
        limit: the largest mean miss, 0..1.
        confidence: what the bets aim at, 0..1; the p-values hold for any.

    Returns:
        Shape (levels,).

    Source:
        Waudby-Smith and Ramdas (2024), doi 10.1093/jrsssb/qkad009; with the bets of Bates et al.
        (2021), doi 10.1145/3478535, proposition 5.
    """
    units = len(losses)
    seen = np.arange(2, units + 2)[:, None]
    mean = (0.5 + losses.cumsum(axis=0)) / seen
    variance = (0.25 + ((losses - mean) ** 2).cumsum(axis=0)) / seen
    before = np.concatenate([np.full_like(variance[:1], 0.25), variance[:-1]])
    bets = np.minimum(np.sqrt(2 * math.log(1 / (1 - confidence)) / (units * before)), 1.0)
    capital = np.log1p(-bets * (losses - limit)).cumsum(axis=0).max(axis=0)
    return np.asarray(np.exp(-np.maximum(capital, 0.0)))


def _binomial_cdf(units: int, chance: float) -> Floats:
    """Chance of at most 0, 1, ... units successes in so many trials, shape (units + 1,)."""
    logs = [
        math.lgamma(units + 1) - math.lgamma(k + 1) - math.lgamma(units - k + 1)
        + k * math.log(chance) + (units - k) * math.log1p(-chance)
        for k in range(units + 1)
    ]  # fmt: skip
    return np.asarray(np.minimum(np.exp(logs).cumsum(), 1.0))
