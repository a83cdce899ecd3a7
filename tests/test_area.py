"""Accuracy and area from samples are those that the papers print."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocd.assess.area import estimate_accuracy
from geocd.errors import InputError, ShapeError

ENDLESS = 10**6
"""Olofsson et al. leave the finite population correction out: as if each pixel were so many."""


def _from_counts(counts, sizes):
    """An assessment whose strata are the classes of the map, from counts (map, reference)."""
    counts = np.array(counts)
    mapped, reference = np.repeat(np.indices(counts.shape).reshape(2, -1), counts.ravel(), axis=1)
    names = [f"class {k}" for k in range(len(counts))]
    sizes = np.array(sizes) * ENDLESS
    return estimate_accuracy(mapped, mapped, reference, sizes=sizes, classes=names)


def _values(estimates, digits):
    return [round(e.value, digits) for e in estimates]


def _halves(estimates, digits, scale=1.0):
    return [round(1.96 * e.standard_error * scale, digits) for e in estimates]


def test_the_example_of_good_practices_gives_its_printed_digits():
    # Olofsson et al. (2014), doi 10.1016/j.rse.2014.02.015, tables 8 and 9, page 54 and 55:
    # deforestation, forest gain, stable forest, stable non-forest; pixels of 30 m.
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    a = _from_counts(counts, [200_000, 150_000, 3_200_000, 6_450_000])
    np.testing.assert_array_equal(a.counts, counts)
    np.testing.assert_array_equal(
        a.matrix.round(4),
        [[0.0176, 0, 0.0013, 0.0011], [0, 0.0110, 0.0016, 0.0024],
         [0.0019, 0, 0.2967, 0.0213], [0.0040, 0.0020, 0.0179, 0.6212]],
    )  # fmt: skip
    assert _values(a.user, 2) == [0.88, 0.73, 0.93, 0.96]
    assert _halves(a.user, 2) == [0.07, 0.10, 0.04, 0.02]
    assert _values(a.producer, 2) == [0.75, 0.85, 0.93, 0.96]
    # The paper prints 0.23 for the second and 0.01 for the fourth; its equation 7 gives these.
    assert _halves(a.producer, 2) == [0.21, 0.25, 0.03, 0.02]
    assert _values([a.overall], 2) == [0.95]
    assert _halves([a.overall], 2) == [0.02]
    hectares = 900_000
    areas = [round(e.value * hectares) for e in a.share]
    assert areas == [21_158, 11_686, 285_770, 581_386]
    assert _halves(a.share, 0, hectares) == [6_158, 3_756, 15_510, 16_282]


def test_the_first_example_of_making_better_use_gives_its_figures():
    # Olofsson et al. (2013), doi 10.1016/j.rse.2012.10.031, example 1: deforestation, forest,
    # non-forest. The paper rounds between its steps; these are the unrounded results of its
    # equations 9 to 16, on which two other implementations agree.
    a = _from_counts([[97, 0, 3], [3, 279, 18], [2, 1, 97]], [22_353, 1_122_543, 610_228])
    pixels = 22_353 + 1_122_543 + 610_228
    assert a.share[0].value * pixels == pytest.approx(45_112.4, abs=0.1)
    low, high = a.share[0].interval
    assert (high - low) / 2 * pixels == pytest.approx(21_072.37, abs=0.01)
    assert _values(a.user, 2) == [0.97, 0.93, 0.97]
    assert _values(a.producer, 7) == [0.4806308, 0.9941887, 0.8969259]
    assert round(a.overall.value, 7) == 0.9444168


def test_the_second_example_of_making_better_use_gives_its_figures():
    # Table 6 of the same paper, whose strata are given as shares of the ground.
    a = _from_counts([[127, 66, 54], [2, 322, 17], [0, 15, 540]], [7, 295, 698])
    assert _values(a.user, 4) == [0.5142, 0.9443, 0.9730]
    assert _halves(a.user, 5) == [0.06246, 0.02438, 0.01350]
    assert _values(a.producer, 3) == [0.675, 0.931, 0.977]
    assert [round(h, 3) for h in _halves(a.producer, 5)] == [0.305, 0.029, 0.010]
    assert (round(a.overall.value, 2), _halves([a.overall], 2)) == (0.96, [0.01])


def _stehman():
    letters = "ABCD"
    mapped = "A" * 7 + "B" * 3 + "A" + "B" * 11 + "C" * 6 + "BB" + "D" * 10
    reference = "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"
    codes = [np.array([letters.index(c) for c in word]) for word in (mapped, reference)]
    stratum = np.repeat(np.arange(4), 10)
    sizes = np.array([40_000, 30_000, 20_000, 10_000])
    return estimate_accuracy(stratum, *codes, sizes=sizes, classes=letters)


def test_strata_that_are_not_the_classes_give_the_printed_digits():
    # Stehman (2014), doi 10.1080/01431161.2014.930207, the numerical example, pages 4932-4936.
    a = _stehman()
    assert _values(a.share, 2)[0::2] == [0.35, 0.20]
    assert [round(a.share[k].standard_error, 3) for k in (0, 2)] == [0.082, 0.064]
    assert (round(a.overall.value, 2), round(a.overall.standard_error, 3)) == (0.63, 0.085)
    assert (round(a.user[1].value, 3), round(a.user[1].standard_error, 3)) == (0.574, 0.125)
    assert round(a.matrix[1, 2], 2) == 0.08
    assert round(a.producer[1].value, 3) == 0.794
    # The paper prints 0.114, with a variance of 0 in a stratum whose table 3 has 0.1.
    assert a.producer[1].standard_error == pytest.approx(0.1165, abs=1e-4)


def test_strata_ignored_would_give_other_figures():
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    a = _from_counts(counts, [200_000, 150_000, 3_200_000, 6_450_000])
    assert np.trace(counts) / np.sum(counts) == pytest.approx(0.917, abs=1e-3)
    assert a.overall.value == pytest.approx(0.947, abs=1e-3)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=2, max_size=40))
def test_shares_sum_to_the_whole_and_rows_and_columns_fit(units):
    mapped, reference = np.array(units).T
    a = estimate_accuracy(
        np.zeros(len(units), int), mapped, reference, sizes=np.array([1000]), classes="abc"
    )
    assert a.matrix.sum() == pytest.approx(1)
    np.testing.assert_allclose(a.matrix.sum(axis=0), [e.value for e in a.share])
    assert a.overall.value == pytest.approx(np.trace(a.matrix))
    low, high = a.overall.interval
    assert 0 <= low <= a.overall.value <= high <= 1


def test_a_ground_of_which_every_pixel_is_labelled_leaves_no_doubt():
    mapped, reference = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    a = estimate_accuracy(mapped, mapped, reference, sizes=np.array([2, 2]), classes="ab")
    assert [e.value for e in a.share] == [0.25, 0.75]
    assert all(e.standard_error == 0 for e in (*a.share, *a.user, *a.producer, a.overall))


def test_a_class_that_nobody_saw_has_no_accuracy_and_no_area():
    mapped = reference = np.array([0, 0, 1, 1])
    a = estimate_accuracy(mapped, mapped, reference, sizes=np.array([9, 9]), classes="abc")
    assert math.isnan(a.user[2].value)
    assert math.isnan(a.producer[2].value)
    assert a.share[2].value == 0
    assert a.to_dict()["classes"]["c"]["user"]["value"] is None


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # 500 samples of a map whose errors are known; small samples would need longer intervals.
    rng = np.random.default_rng(0)
    sizes = np.array([20_000, 80_000])
    truth = [np.arange(20_000) < 15_000, np.arange(80_000) < 4_000]
    share = 19_000 / 100_000
    held = 0
    for _ in range(500):
        reference = np.concatenate([rng.choice(t, 400, replace=False) for t in truth]).astype(int)
        stratum = np.repeat([0, 1], 400)
        a = estimate_accuracy(stratum, 1 - stratum, reference, sizes=sizes, classes="nc")
        low, high = a.share[1].interval
        held += low <= share <= high
    assert 0.925 <= held / 500 <= 0.975


@pytest.mark.parametrize(
    ("stratum", "sizes", "says"),
    [
        ([0, 0, 0], [10, 5], "stratum 1 has 5 units, and 0 of them"),
        ([0, 0, 1], [10, 5], "stratum 1 has 5 units, and 1 of them"),
        ([0, 0, 0], [2], "another map"),
    ],
)
def test_strata_that_say_too_little_are_refused(stratum, sizes, says):
    stratum = np.array(stratum)
    with pytest.raises(InputError, match=says):
        estimate_accuracy(
            stratum, np.zeros(3, int), np.zeros(3, int), sizes=np.array(sizes), classes="a"
        )


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ShapeError):
        estimate_accuracy(
            np.zeros(3, int), np.zeros(2, int), np.zeros(3, int), sizes=np.array([9]), classes="a"
        )
