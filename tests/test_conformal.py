"""Promises about misses hold as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocd.assess.conformal import (
    LEVELS,
    Promise,
    binomial_p_values,
    choose_level,
    choose_levels,
    hoeffding_bentkus_p_values,
    threshold_of,
)
from geocd.errors import ConfigError

SURE = Promise(0.05, 0.95)
levels = np.arange(1, LEVELS + 1)


# Figures of others


@pytest.mark.parametrize(
    ("units", "limit", "expected"),
    [
        (60, 0.05, [0.04606979899, 0.1086533175, 0.3000892964, 0.6893398513, 0.9838176639, 1]),
        (100, 0.1, [2.656139889e-5, 1.496579654e-4, 0.0016060194, 0.01912090522, 0.1260031357,
                    0.3184619805]),
        (300, 0.05, [2.075303348e-7, 1.514310574e-5, 0.001877881474, 0.1556563817, 0.921664965, 1]),
    ],
)  # fmt: skip
def test_p_values_are_those_of_mapie(units, limit, expected):
    # MAPIE 1.6.0, compute_hoeffding_bentkus_p_value.
    risks = np.array([0.0, 0.004, 0.0131, 0.0277, 0.045, 0.06])
    p = hoeffding_bentkus_p_values(risks, units=units, limit=limit)
    np.testing.assert_allclose(p, expected, rtol=1e-8)


def test_p_values_of_losses_that_are_all_or_none_are_binomial():
    # At most k of 100 with a chance of 0.05 each, as MAPIE 1.6.0 has them with binary=True.
    p = binomial_p_values(np.array([0.0, 0.01, 0.02, 0.04]), units=100, limit=0.05)
    np.testing.assert_allclose(p, [0.00592052922, 0.03708120933, 0.1182629812, 0.4359813007])


@pytest.mark.parametrize(
    ("max_miss", "mean", "sure_95", "sure_90"), [(0.05, 124, 106, 109), (0.1, 137, 120, 123)]
)
def test_thresholds_are_those_of_mapie(max_miss, mean, sure_95, sure_90):
    # MAPIE 1.6.0 on the same 80 losses: CRC, and fixed sequence testing of its p-values.
    critical = (np.arange(80)[:, None] * 37) % 254 * 0.6 + 100
    risks = np.clip((levels - critical) / 60, 0, 1).mean(axis=0)
    assert choose_level(risks, units=80, promise=Promise(max_miss, None)) == mean
    assert choose_level(risks, units=80, promise=Promise(max_miss, 0.95)) == sure_95
    assert choose_level(risks, units=80, promise=Promise(max_miss, 0.90)) == sure_90


@pytest.mark.parametrize(
    ("promise", "units"),
    [(SURE, 59), (Promise(0.02, 0.95), 149), (Promise(0.1, 0.9), 22), (Promise(0.05, None), 19),
     (Promise(0.1, None), 9)],
)  # fmt: skip
def test_the_number_of_units_needed_is_exact(promise, units):
    assert promise.needed_units == units
    nothing_missed = np.zeros(LEVELS)
    assert choose_level(nothing_missed, units=units, promise=promise) == LEVELS
    assert choose_level(nothing_missed, units=units - 1, promise=promise) == 0


# Simulation: populations of images whose scores are known


def _population(unit, images=3000, seed=0):
    """Share missed of each image at each level, shape (images, levels), by unit."""
    rng = np.random.default_rng(seed)
    # Images differ: in some, everything is harder.
    ease = rng.beta(4, 2, images)
    if unit == "pixel":
        # Scores of an image's changed pixels, as a smooth distribution around its ease.
        return 1 / (1 + np.exp(-(levels / LEVELS - ease[:, None] - 0.1) * 12))
    count = rng.integers(1, 9, images)
    critical = np.clip(ease[:, None] + rng.normal(0, 0.15, (images, 8)), 0, 1) * LEVELS
    critical[np.arange(8) >= count[:, None]] = np.nan
    if unit == "image":
        return (np.nanmax(critical, axis=1)[:, None] < levels).astype(float)
    return np.nanmean(np.where(np.isnan(critical)[..., None], np.nan,
                               critical[..., None] < levels), axis=1)  # fmt: skip


def _draws(losses, units, sets=1000, seed=1):
    """Mean losses of so many calibration sets, drawn anew each, shape (sets, levels)."""
    rng = np.random.default_rng(seed)
    times = rng.multinomial(units, np.full(len(losses), 1 / len(losses)), size=sets)
    return times.astype(np.float32) @ losses.astype(np.float32) / units


def _true_miss(losses, chosen):
    return np.concatenate([[0], losses.mean(axis=0)])[chosen]


@pytest.mark.parametrize("units", [120, 300])
@pytest.mark.parametrize("unit", ["pixel", "object", "image"])
def test_over_a_thousand_calibration_sets_the_promise_holds_as_often_as_stated(unit, units):
    losses = _population(unit)
    risks = _draws(losses, units)
    chosen = choose_levels(risks, units=units, promise=SURE, all_or_none=unit == "image")
    assert (_true_miss(losses, chosen) <= 0.05).mean() >= 0.935
    assert (chosen > 0).mean() > (0.4 if units == 120 else 0.95)  # not by refusing every time


@pytest.mark.parametrize("unit", ["pixel", "object", "image"])
def test_the_highest_threshold_that_looks_good_enough_breaks_the_promise(unit):
    losses = _population(unit)
    looks_good = (_draws(losses, 60) <= 0.05).sum(axis=1)
    assert (_true_miss(losses, looks_good) <= 0.05).mean() < 0.75


@pytest.mark.parametrize("unit", ["pixel", "object", "image"])
def test_without_a_confidence_the_mean_over_all_sets_holds(unit):
    losses = _population(unit)
    chosen = choose_levels(_draws(losses, 60), units=60, promise=Promise(0.05, None))
    mean = _true_miss(losses, chosen).mean()
    assert 0.02 < mean <= 0.05


def test_objects_of_one_image_taken_for_units_break_the_promise():
    # 40 images with 30 objects each are 40 units, not 1,200: their objects are missed together.
    rng = np.random.default_rng(0)
    ease = rng.beta(4, 2, 3000)
    losses = 1 / (1 + np.exp(-(levels / LEVELS - ease[:, None]) * 60))
    risks = _draws(losses, 40)
    chosen = choose_levels(risks, units=1200, promise=SURE)
    assert (_true_miss(losses, chosen) <= 0.05).mean() < 0.9


# Properties


@given(st.lists(st.floats(0, 0.2), min_size=LEVELS, max_size=LEVELS), st.integers(20, 400))
def test_more_confidence_never_gives_a_higher_threshold(steps, units):
    risks = np.minimum(np.cumsum(steps) / 20, 1)
    chosen = [choose_level(risks, units=units, promise=Promise(0.05, c)) for c in (0.5, 0.9, 0.99)]
    assert chosen == sorted(chosen, reverse=True)


def test_a_level_is_passed_by_its_own_scores_and_not_by_lower_ones():
    for level in (1, 127, 254):
        threshold = np.float32(threshold_of(level))
        assert np.float32(level - 1) < threshold * np.float32(254) < np.float32(level)
        assert 0 < threshold < 1


def test_levels_above_one_that_is_not_proven_are_not_taken():
    risks = np.zeros(LEVELS)
    risks[99] = 0.5  # cannot be: misses do not fall; nothing above may count
    assert choose_level(risks, units=100, promise=SURE) == 99


@pytest.mark.parametrize(
    "wrong", [(0, 0.95), (1, 0.95), (math.nan, 0.9), (0.05, 0), (0.05, 1), (0.05, math.nan)]
)
def test_impossible_promises_are_refused(wrong):
    with pytest.raises(ConfigError):
        Promise(*wrong)
