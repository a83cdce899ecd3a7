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
    betting_p_values,
    binomial_p_values,
    choose_level,
    threshold_of,
)
from geocd.errors import ConfigError

SURE = Promise(0.05, 0.95)
levels = np.arange(1, LEVELS + 1)


# Figures of others


@pytest.mark.parametrize(
    ("scale", "confidence", "bound"),
    [(0.0, 0.95, 0.040), (0.0, 0.9, 0.030), (0.5, 0.95, 0.044), (0.5, 0.9, 0.036),
     (1.0, 0.95, 0.050), (1.5, 0.95, 0.054), (1.5, 0.9, 0.046)],
)  # fmt: skip
def test_bounds_of_betting_are_those_of_mapie(scale, confidence, bound):
    # MAPIE 1.6.0, get_r_hat_plus with the bound wsr on limits of 0.002, 0.004, ... It adds the
    # maxima of two halves, which is the maximum of the whole where no bet loses, as here.
    losses = ((np.arange(80) * 37) % 80 / 80 * 0.02 * scale)[:, None]
    limits = np.arange(1, 40) / 500
    p = [betting_p_values(losses, limit=r, confidence=confidence)[0] for r in limits]
    assert limits[np.array(p) < 1 - confidence][0] == pytest.approx(bound)


def test_the_capital_of_a_small_example_is_known():
    # Bets of 2 ln 2 / 2 over a variance of 1/4 before, and (1/4 + 1/16) / 2 after a loss of 0.
    first = min(1, math.sqrt(math.log(2) / 0.25))
    second = min(1, math.sqrt(math.log(2) / ((0.25 + 0.25**2) / 2)))
    assert (first, second) == (1, 1)
    losses = np.array([[0.0, 0.5], [0.0, 0.5]])
    p = betting_p_values(losses, limit=0.2, confidence=0.5)
    np.testing.assert_allclose(p, [1 / 1.2**2, 1])


def test_p_values_of_losses_that_are_all_or_none_are_binomial():
    # At most k of 100 with a chance of 0.05 each, as MAPIE 1.6.0 has them with binary=True.
    p = binomial_p_values(np.array([0.0, 0.01, 0.02, 0.04]), units=100, limit=0.05)
    np.testing.assert_allclose(p, [0.00592052922, 0.03708120933, 0.1182629812, 0.4359813007])


@pytest.mark.parametrize(("max_miss", "mean"), [(0.05, 124), (0.1, 137)])
def test_thresholds_on_average_are_those_of_mapie(max_miss, mean):
    # MAPIE 1.6.0 on the same 80 losses, by conformal risk control.
    critical = (np.arange(80)[:, None] * 37) % 254 * 0.6 + 100
    losses = np.clip((levels - critical) / 60, 0, 1)
    assert choose_level(losses, Promise(max_miss, None)) == mean


@pytest.mark.parametrize(
    ("promise", "units"),
    [(SURE, 63), (Promise(0.02, 0.95), 154), (Promise(0.1, 0.9), 25), (Promise(0.05, None), 19),
     (Promise(0.1, None), 9), (Promise(0.05, 0.95, True), 59), (Promise(0.02, 0.95, True), 149),
     (Promise(0.1, 0.9, True), 22)],
)  # fmt: skip
def test_the_number_of_units_needed_is_exact(promise, units):
    assert promise.needed_units == units
    nothing_missed = np.zeros((units, LEVELS))
    assert choose_level(nothing_missed, promise) == LEVELS
    assert choose_level(nothing_missed[1:], promise) == 0


# Simulation: populations of images whose scores are known


coarse = np.arange(1, LEVELS + 1, 12)
"""Levels of the simulations: fewer, for speed."""


def _population(unit, images=3000, seed=0, levels=coarse):
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
    """The images of so many calibration sets, drawn anew each, shape (sets, units)."""
    return np.random.default_rng(seed).integers(0, len(losses), (sets, units))


def _chosen(losses, promise, units, sets=1000):
    return np.array([choose_level(losses[i], promise) for i in _draws(losses, units, sets)])


def _true_miss(losses, chosen):
    return np.concatenate([[0], losses.mean(axis=0)])[chosen]


@pytest.mark.parametrize("units", [120, 300])
@pytest.mark.parametrize("unit", ["pixel", "object", "image"])
def test_over_a_thousand_calibration_sets_the_promise_holds_as_often_as_stated(unit, units):
    losses = _population(unit)
    chosen = _chosen(losses, Promise(0.05, 0.95, unit == "image"), units)
    assert (_true_miss(losses, chosen) <= 0.05).mean() >= 0.935
    assert (chosen > 0).mean() > (0.9 if units == 120 else 0.99)  # not by refusing every time
    # Nor by promising far less than it could.
    assert _true_miss(losses, chosen).mean() > (0.013 if units == 120 else 0.022)


@pytest.mark.parametrize("unit", ["pixel", "object", "image"])
def test_the_highest_threshold_that_looks_good_enough_breaks_the_promise(unit):
    losses = _population(unit)
    looks_good = np.array([(losses[i].mean(axis=0) <= 0.05).sum() for i in _draws(losses, 60)])
    assert (_true_miss(losses, looks_good) <= 0.05).mean() < 0.75


@pytest.mark.parametrize("unit", ["pixel", "object", "image"])
def test_without_a_confidence_the_mean_over_all_sets_holds(unit):
    losses = _population(unit)
    mean = _true_miss(losses, _chosen(losses, Promise(0.05, None), 60)).mean()
    assert 0.02 < mean <= 0.05


def test_objects_of_one_image_taken_for_units_break_the_promise():
    # 40 images with 30 objects each are 40 units, not 1,200: their objects are missed together.
    rng = np.random.default_rng(0)
    ease = rng.beta(4, 2, 3000)
    losses = 1 / (1 + np.exp(-(coarse / LEVELS - ease[:, None]) * 60))
    sets = _draws(losses, 40, sets=150)
    chosen = np.array([choose_level(losses[i].repeat(30, axis=0), SURE) for i in sets])
    assert (_true_miss(losses, chosen) <= 0.05).mean() < 0.9


# Properties


@given(st.integers(0, 2**32), st.floats(0.01, 0.3), st.booleans())
def test_a_stricter_promise_never_gives_a_higher_threshold(seed, spread, all_or_none):
    steepness = np.random.default_rng(seed).exponential(spread, 80)
    losses = np.clip(steepness[:, None] * coarse / 60 - 0.1, 0, 1)
    losses = np.round(losses) if all_or_none else losses
    chosen = [choose_level(losses, Promise(m, 0.95, all_or_none)) for m in (0.4, 0.2, 0.1)]
    assert chosen == sorted(chosen, reverse=True)


def test_a_level_is_passed_by_its_own_scores_and_not_by_lower_ones():
    for level in (1, 127, 254):
        threshold = np.float32(threshold_of(level))
        assert np.float32(level - 1) < threshold * np.float32(254) < np.float32(level)
        assert 0 < threshold < 1


def test_levels_above_one_that_is_not_proven_are_not_taken():
    losses = np.zeros((100, LEVELS))
    losses[:, 99] = 0.5  # cannot be: misses do not fall; nothing above may count
    assert choose_level(losses, SURE) == 99


@pytest.mark.parametrize(
    "wrong", [(0, 0.95), (1, 0.95), (math.nan, 0.9), (0.05, 0), (0.05, 1), (0.05, math.nan)]
)
def test_impossible_promises_are_refused(wrong):
    with pytest.raises(ConfigError):
        Promise(*wrong)
