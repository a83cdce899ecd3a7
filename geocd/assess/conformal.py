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
        return math.ceil(math.log(1 - self.confidence) / math.log(1 - self.max_miss) - _ROUNDING)


def threshold_of(level: int) -> float:
    """The threshold, 0..1, that scores of so many of 254 reach and lower ones do not."""
    # Half a level lower, so that rounding keeps the scores of the level itself.
    return (level - 0.5) / SCORE_SCALE


def choose_level(risks: Floats, *, units: int, promise: Promise, all_or_none: bool = False) -> int:
    """The highest level at which the promise is proven; 0 where it is at none.

    With a confidence, levels are tested from the lowest one upwards until one fails (fixed
    sequence testing). As misses never fall with the level, this is the risk-controlling
    prediction set of the same bound, and one wrong rejection is all that can go wrong.
    Without, the threshold is that of conformal risk control.

    Args:
        risks: mean loss of the units at levels 1, 2, ... , shape (..., levels), never falling.
        units: number of units behind each mean.
        promise: what to prove.
        all_or_none: each loss is 0 or 1, so the exact binomial test holds.

    Returns:
        Level counted from 1; an array for several rows of risks.

    Source:
        Angelopoulos et al. (2022), conformal risk control, arXiv 2208.02814; Bates et al. (2021),
        risk-controlling prediction sets, doi 10.1145/3478535; Angelopoulos et al. (2021), learn
        then test, arXiv 2110.01052.
    """
    return int(choose_levels(risks[None], units=units, promise=promise,
                             all_or_none=all_or_none)[0])  # fmt: skip


def choose_levels(
    risks: Floats, *, units: int, promise: Promise, all_or_none: bool = False
) -> NDArray[np.int64]:
    """``choose_level`` for each of several sets of units, shape (sets, levels)."""
    if promise.confidence is None:
        proven = (units * risks + 1) / (units + 1) <= promise.max_miss + _ROUNDING
    else:
        test = binomial_p_values if all_or_none else hoeffding_bentkus_p_values
        p = test(risks, units=units, limit=promise.max_miss)
        proven = p <= 1 - promise.confidence + _ROUNDING
    # All levels up to the first that is not proven.
    return np.asarray(np.minimum.accumulate(proven, axis=-1).sum(axis=-1))


def binomial_p_values(risks: Floats, *, units: int, limit: float) -> Floats:
    """How likely so few of so many units are missed, were each missed with chance ``limit``.

    Args:
        risks: share of the units that is missed, any shape.
        units: number of units.
        limit: the largest mean miss, 0..1.
    """
    missed = np.round(risks * units).astype(np.int64)
    return np.asarray(_binomial_cdf(units, limit)[missed])


def hoeffding_bentkus_p_values(risks: Floats, *, units: int, limit: float) -> Floats:
    """How likely a mean loss so low is at most, were the true mean ``limit`` or more.

    Args:
        risks: mean of losses in 0..1, any shape.
        units: number of losses.
        limit: the largest mean miss, 0..1.

    Source:
        Bates et al. (2021), doi 10.1145/3478535, theorem 2 and section 3.1.
    """
    below = np.minimum(risks, limit)
    hoeffding = np.exp(-units * _relative_entropy(below, limit))
    missed = np.minimum(np.ceil(risks * units - _ROUNDING), units).astype(np.int64)
    bentkus = math.e * _binomial_cdf(units, limit)[missed]
    p = np.minimum(np.minimum(hoeffding, bentkus), 1.0)
    return np.asarray(np.where(risks >= limit, 1.0, p))


def _relative_entropy(share: Floats, limit: float) -> Floats:
    """Kullback-Leibler divergence of two coins."""
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.where(share > 0, share * np.log(share / limit), 0.0)
        tails = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - limit)), 0.0)
    return np.asarray(heads + tails)


def _binomial_cdf(units: int, chance: float) -> Floats:
    """Chance of at most 0, 1, ... units successes in so many trials, shape (units + 1,)."""
    logs = [
        math.lgamma(units + 1) - math.lgamma(k + 1) - math.lgamma(units - k + 1)
        + k * math.log(chance) + (units - k) * math.log1p(-chance)
        for k in range(units + 1)
    ]  # fmt: skip
    return np.asarray(np.minimum(np.exp(logs).cumsum(), 1.0))
