"""The first look spares ground without a hint of change, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from arithmetic import Arithmetic, open_arithmetic

from geocd.predict.first_look import FirstLook

CARD = open_arithmetic("geocd-vhr", window=None, config=None, calibration=None).card


def _predictors():
    return [Arithmetic(SimpleNamespace(card=CARD)) for _ in range(2)]


def _windows(shape, changed):
    before = np.full((len(changed), 3, *shape), 100, np.uint8)
    after = before.copy()
    for window, has_change in zip(after, changed, strict=True):
        if has_change:
            window[:, 2:8, 2:9] = 220
    return before, after


@pytest.mark.parametrize("shape", [(32, 48), (31, 33), (8, 9)])
def test_windows_with_a_hint_are_scored_in_full_and_only_those(shape):
    full, look = _predictors()
    before, after = _windows(shape, [False, True, False, True])
    levels = FirstLook(full, look)(before, after)
    assert (full.calls, look.calls) == (1, 1)
    np.testing.assert_array_equal(levels, Arithmetic(SimpleNamespace(card=CARD))(before, after))


def test_ground_without_change_costs_the_look_alone():
    full, look = _predictors()
    levels = FirstLook(full, look)(*_windows((32, 32), [False, False]))
    assert full.calls == 0
    assert levels.shape == (2, 2, 32, 32)
    assert levels.max() == 0


def test_a_single_window_of_one_pixel_has_a_first_look():
    full, look = _predictors()
    assert FirstLook(full, look)(*_windows((1, 1), [False])).shape == (1, 2, 1, 1)
