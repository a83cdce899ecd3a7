"""Outlines are compared as drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from geocd.assess.boundary import match_boundaries
from geocd.assess.objects import match_objects
from geocd.config import ObjectConfig
from geocd.errors import ConfigError, ShapeError

ALL = np.ones((40, 40), bool)


def _square(row, col, side=10):
    mask = np.zeros((40, 40), bool)
    mask[row : row + side, col : col + side] = True
    return mask


def _match(found, truth, tolerance=0.0, valid=ALL):
    return match_boundaries(found & valid, truth & valid, valid=valid, tolerance=tolerance)


def test_a_shift_is_forgiven_up_to_the_tolerance():
    truth, shifted = _square(10, 10), _square(10, 13)
    assert _match(truth, truth).f1 == 1
    exact = _match(shifted, truth)
    # The 36 outline pixels share the 7 columns of both upper and both lower sides.
    assert (exact.mapped_close, exact.mapped, exact.true_close, exact.true) == (14, 36, 14, 36)
    assert _match(shifted, truth, 2).f1 < 1
    assert _match(shifted, truth, 3).f1 == 1


def test_a_false_object_costs_precision_and_a_missed_one_recall():
    one, both = _square(2, 2), _square(2, 2) | _square(20, 20)
    assert (_match(both, one, 2).precision, _match(both, one, 2).recall) == (0.5, 1)
    assert (_match(one, both, 2).precision, _match(one, both, 2).recall) == (1, 0.5)


def test_the_frame_and_unobserved_ground_are_no_outlines():
    assert _match(ALL, ALL).mapped == 0
    at_the_corner = _square(0, 0)
    assert _match(at_the_corner, at_the_corner).mapped == 19
    valid = ALL.copy()
    valid[:, 15:] = False
    assert _match(_square(10, 10), _square(10, 10), valid=valid).mapped == 5 + 5 + 8


def test_outlines_on_one_side_only_are_wrong_and_on_neither_undefined():
    empty = np.zeros((40, 40), bool)
    assert _match(_square(5, 5), empty, 2).f1 == 0
    assert _match(empty, _square(5, 5), 2).f1 == 0
    assert math.isnan(_match(empty, empty).f1)
    assert _match(empty, empty).to_dict()["f1"] is None


@given(arrays(bool, (12, 12)), arrays(bool, (12, 12)))
def test_map_and_truth_may_change_places(first, second):
    there, back = (
        match_boundaries(a, b, valid=np.ones((12, 12), bool), tolerance=1.5)
        for a, b in ((first, second), (second, first))
    )
    assert (there.mapped_close, there.mapped) == (back.true_close, back.true)
    assert there + back == back + there


def test_other_shapes_and_tolerances_are_refused():
    with pytest.raises(ShapeError):
        match_boundaries(ALL, ALL[:5], valid=ALL, tolerance=1)
    with pytest.raises(ConfigError):
        ObjectConfig(boundary=-1)


def test_false_objects_are_counted_by_the_square_kilometre_of_observed_ground():
    found = _square(0, 0) | _square(20, 20)
    objects = match_objects(found, found & False, config=ObjectConfig(min_area=0), pixel_area=0.25,
                            observed=800)  # fmt: skip
    assert objects.false_per_km2 == pytest.approx(2 / (800 * 0.25 / 1e6))
    assert (objects + objects).false_per_km2 == objects.false_per_km2
    unknown = match_objects(found, found, config=ObjectConfig())
    assert math.isnan(unknown.false_per_km2)
