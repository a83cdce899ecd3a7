"""Measures and baselines count what they say, on masks painted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geocd.assess.baselines import BASELINES, difference_otsu, pca_kmeans
from geocd.assess.curves import ScoreHistogram
from geocd.assess.metrics import Confusion, bootstrap, confusion, total, worst_first
from geocd.assess.objects import match_objects
from geocd.config import ObjectConfig
from geocd.errors import ConfigError, ShapeError
from geocd.tiling.classify import classify

counts = st.integers(0, 10_000)
confusions = st.builds(Confusion, counts, counts, counts, counts)
masks = arrays(bool, (12, 12))
ANY_SIZE = ObjectConfig(min_area=0)


# Pixels


def test_a_known_confusion_is_counted():
    predicted = np.array([[1, 1, 0], [0, 1, 0]], bool)
    truth = np.array([[1, 0, 0], [1, 1, 0]], bool)
    valid = np.array([[1, 1, 1], [1, 1, 0]], bool)
    assert confusion(predicted, truth) == Confusion(2, 1, 1, 2)
    assert confusion(predicted, truth, valid=valid) == Confusion(2, 1, 1, 1)


@given(counts, counts, counts, counts)
def test_f1_is_the_harmonic_mean_and_iou_follows_from_it(tp, fp, fn, tn):
    c = Confusion(tp, fp, fn, tn)
    if tp:
        assert c.f1 == pytest.approx(2 / (1 / c.precision + 1 / c.recall))
        assert c.iou == pytest.approx(c.f1 / (2 - c.f1))
    if tp + fp + fn == 0:
        assert math.isnan(c.f1)


def test_kappa_is_that_of_a_published_table():
    # Two clinicians and 39 patients: Sim and Wright (2005), doi 10.1093/ptj/85.3.257.
    c = Confusion(22, 2, 4, 11)
    assert c.accuracy == pytest.approx(33 / 39)
    assert c.kappa == pytest.approx(0.67, abs=0.005)


@given(counts, counts)
def test_kappa_of_a_constant_map_is_zero_where_the_truth_has_both_classes(changed, same):
    everything, nothing = Confusion(changed, same, 0, 0), Confusion(0, 0, changed, same)
    if changed and same:
        assert everything.kappa == nothing.kappa == 0
    else:
        assert everything.kappa == 0 or math.isnan(everything.kappa)


def test_alarms_without_change_score_zero_and_neither_is_undefined():
    alarms, neither = Confusion(0, 5, 0, 95), Confusion(0, 0, 0, 100)
    assert alarms.f1 == alarms.iou == 0
    assert math.isnan(alarms.recall)
    assert all(math.isnan(getattr(neither, name)) for name in ("precision", "recall", "f1", "iou"))
    assert neither.to_dict()["f1"] is None


def test_masks_of_different_shapes_are_refused():
    small, wide = np.zeros((2, 2), bool), np.zeros((2, 3), bool)
    with pytest.raises(ShapeError):
        confusion(small, wide)
    with pytest.raises(ShapeError):
        match_objects(small, wide, config=ANY_SIZE)
    with pytest.raises(ShapeError):
        ScoreHistogram().add(np.zeros((2, 2), np.uint8), wide, valid=wide)


def test_images_are_ordered_by_wrong_pixels_whether_or_not_they_have_change():
    images = {
        "b: one false pixel in an empty image": Confusion(0, 1, 0, 999),
        "c: half of the change missed": Confusion(50, 0, 50, 900),
        "d: many alarms in an empty image": Confusion(0, 300, 0, 700),
        "a: as wrong as b": Confusion(0, 0, 1, 999),
    }
    assert "".join(name[0] for name in worst_first(images)) == "dcab"


# Intervals


def test_the_interval_of_identical_images_has_no_width():
    c = Confusion(30, 10, 20, 40)
    for name, (low, high) in bootstrap([c] * 7).items():
        assert low == pytest.approx(getattr(c, name))
        assert high == pytest.approx(getattr(c, name))


@given(st.lists(confusions, min_size=2, max_size=8))
def test_an_interval_lies_between_the_worst_and_the_best_image(images):
    for name, (low, high) in bootstrap(images, resamples=50).items():
        ratios = [getattr(c, name) for c in images if not math.isnan(getattr(c, name))]
        if ratios:
            assert min(ratios) - 1e-9 <= low <= high <= max(ratios) + 1e-9
        else:
            assert math.isnan(low)
            assert math.isnan(high)


def test_an_interval_is_the_same_every_time_and_holds_the_figure_of_the_set():
    rng = np.random.default_rng(5)
    images = [Confusion(*rng.integers(1, 1000, 4).tolist()) for _ in range(20)]
    assert bootstrap(images) == bootstrap(images)
    assert bootstrap(images) != bootstrap(images, seed=1)
    for name, (low, high) in bootstrap(images).items():
        assert low < getattr(total(images), name) < high


def test_the_interval_of_two_images_is_that_of_their_three_sums():
    # Two images give (1, 1), (1, 2) and (2, 2) with shares 1/4, 1/2 and 1/4.
    low, high = bootstrap([Confusion(1, 0, 0, 0), Confusion(0, 0, 1, 0)])["recall"]
    assert (low, high) == (0, 1)
    low, high = bootstrap([Confusion(1, 0, 0, 0), Confusion(0, 0, 1, 0)], level=0.4)["recall"]
    assert (low, high) == (0.5, 0.5)


def test_one_image_says_nothing_of_others():
    assert all(math.isnan(bound) for bounds in bootstrap([Confusion(1, 1, 1, 1)]).values()
               for bound in bounds)  # fmt: skip


# Objects


def _squares(*corners, side=10, shape=(60, 60)):
    mask = np.zeros(shape, bool)
    for row, col in corners:
        mask[row : row + side, col : col + side] = True
    return mask


def test_objects_are_found_missed_and_false_as_painted():
    truth = _squares((0, 0), (20, 20), (40, 40))
    # Exact; two columns off (IoU 80 / 120); eight columns off (IoU 20 / 180); nothing there.
    found = _squares((0, 0), (20, 22), (40, 48), (0, 40))
    objects = match_objects(found, truth, config=ANY_SIZE)
    assert (sum(objects.found), sum(objects.missed), objects.false) == (2, 1, 2)
    assert (objects.precision, objects.recall) == (2 / 4, 2 / 3)
    assert objects.f1 == pytest.approx(4 / 7)
    strict = match_objects(found, truth, config=ObjectConfig(min_area=0, iou=0.7))
    assert (sum(strict.found), sum(strict.missed), strict.false) == (1, 2, 3)


def test_pixels_that_touch_at_a_corner_are_one_object():
    diagonal = np.eye(6, dtype=bool)
    objects = match_objects(diagonal, diagonal, config=ANY_SIZE)
    assert sum(objects.found) == 1


def test_an_object_in_two_halves_is_found_once_and_the_other_half_is_false():
    truth = np.zeros((10, 21), bool)
    truth[:, :20] = True
    halves = truth.copy()
    halves[:, 9:11] = False  # 90 of 200 pixels each
    objects = match_objects(halves, truth, config=ObjectConfig(min_area=0, iou=0.4))
    assert (sum(objects.found), sum(objects.missed), objects.false) == (1, 0, 1)


def test_the_larger_overlap_is_paired_first():
    # One long object of the map over two of the truth: the second covers more of it.
    truth, found = np.zeros((1, 20), bool), np.zeros((1, 20), bool)
    truth[0, :4] = truth[0, 5:14] = True
    found[0, :14] = True
    objects = match_objects(found, truth, config=ObjectConfig(min_area=0, iou=0.25))
    assert (sum(objects.found), sum(objects.missed), objects.false) == (1, 1, 0)


def test_small_objects_count_nowhere_nor_do_those_that_pair_with_them():
    truth = _squares((0, 0)) | _squares((30, 30), (50, 0), side=3)
    found = _squares((0, 0)) | _squares((30, 30), (50, 50), side=3)
    objects = match_objects(found, truth, config=ObjectConfig(min_area=10))
    assert (sum(objects.found), sum(objects.missed), objects.false) == (1, 0, 0)
    everything = match_objects(found, truth, config=ANY_SIZE)
    assert (sum(everything.found), sum(everything.missed), everything.false) == (2, 1, 1)


def test_size_classes_are_in_square_metres_where_the_scale_is_known():
    truth = _squares((0, 0), side=5) | _squares((20, 0), side=12) | _squares((0, 30), side=25)
    found = _squares((0, 30), side=25)
    in_pixels = match_objects(found, truth, config=ANY_SIZE)  # 25, 144 and 625 pixels
    assert (in_pixels.found, in_pixels.missed) == ((0, 1, 0), (2, 0, 0))
    in_metres = match_objects(found, truth, config=ANY_SIZE, pixel_area=1.0)
    assert (in_metres.found, in_metres.missed) == ((0, 0, 1), (1, 1, 0))
    recalls = in_metres.recall_by_size()
    assert recalls == {"small": 0, "medium": 0, "large": 1}
    few = match_objects(found, truth, config=ObjectConfig(min_area=20), pixel_area=0.25)
    assert (few.found, few.missed) == ((0, 1, 0), (1, 0, 0))  # 6 m2 is below the minimum


@given(masks, masks)
def test_matching_is_symmetric_and_perfect_with_itself(first, second):
    one, other = (
        match_objects(a, b, config=ANY_SIZE) for a, b in ((first, second), (second, first))
    )
    assert sum(one.found) == sum(other.found)
    assert sum(one.missed) == other.false
    same = match_objects(first, first, config=ANY_SIZE)
    assert sum(same.missed) == same.false == 0
    assert same.f1 == 1 or not first.any()


def test_objects_of_images_add_up():
    truth, found = _squares((0, 0)), _squares((30, 30))
    one = match_objects(found, truth, config=ANY_SIZE)
    both = one + match_objects(truth, truth, config=ANY_SIZE)
    assert (sum(both.found), sum(both.missed), both.false) == (1, 1, 1)
    assert both.false_per_image == 0.5


@pytest.mark.parametrize(
    "wrong", [{"iou": 0}, {"iou": 1.2}, {"min_area": -1}, {"min_area": math.inf}]
)
def test_impossible_objects_are_refused(wrong):
    with pytest.raises(ConfigError):
        ObjectConfig(**wrong)


# Curves


def _curve(scores, truth, threshold=0.5):
    histogram = ScoreHistogram()
    scores, truth = np.array([scores], np.uint8), np.array([truth], bool)
    histogram.add(scores, truth, valid=scores != 255)
    return histogram.curve(threshold)


def test_average_precision_of_a_small_ranking_is_known():
    # Change at ranks 1 and 3: precision 1 and 2/3 at recalls 1/2 and 1.
    curve = _curve([250, 200, 150, 100, 255], [1, 0, 1, 0, 1])
    assert curve.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert curve.f1_at_threshold == pytest.approx(0.8)
    threshold, f1 = curve.best
    assert f1 == pytest.approx(0.8)
    assert 100 / 254 < threshold < 150 / 254


def test_equal_scores_rank_together():
    assert _curve([100, 100, 100, 100], [1, 0, 0, 0]).average_precision == 0.25


def test_without_change_there_is_no_curve_but_no_error():
    curve = _curve([250, 10], [0, 0])
    assert math.isnan(curve.average_precision)
    assert math.isnan(curve.best[1])
    assert curve.to_dict()["average_precision"] is None


@given(
    arrays(np.uint8, (8, 8), elements=st.integers(0, 255)), arrays(bool, (8, 8)),
    st.floats(0.01, 0.99),
)  # fmt: skip
def test_a_point_of_the_curve_is_the_confusion_of_the_map_at_that_threshold(scores, truth, at):
    histogram = ScoreHistogram()
    histogram.add(scores, truth, valid=scores != 255)
    curve = histogram.curve(at)

    def f1_of_map(threshold):
        mapped = classify(scores[None], (threshold,), (1,))
        return confusion(mapped == 1, truth, valid=mapped != 255).f1

    if (truth & (scores != 255)).any():
        assert curve.f1_at_threshold == pytest.approx(f1_of_map(at))
        threshold, f1 = curve.best
        assert f1 == pytest.approx(f1_of_map(threshold))
        assert f1 >= curve.f1_at_threshold or curve.point[0] == 1  # all pixels is no threshold


def test_scores_of_several_images_are_counted_together():
    histogram = ScoreHistogram()
    for score, change in ((250, 1), (200, 0), (150, 1), (100, 0)):
        one = np.full((1, 1), score, np.uint8)
        histogram.add(one, np.full((1, 1), change, bool), valid=np.ones((1, 1), bool))
    assert histogram.curve(0.5).average_precision == pytest.approx(5 / 6)


# Baselines


def test_otsu_finds_a_bright_square():
    before = np.full((50, 50, 3), 90, np.uint8)
    after = before.copy()
    after[10:20, 10:20] = 200
    expected = np.zeros((50, 50), bool)
    expected[10:20, 10:20] = True
    np.testing.assert_array_equal(difference_otsu(before, after), expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_pca_finds_a_square_in_noise_to_half_a_block(sign):
    rng = np.random.default_rng(3)
    before = np.full((80, 90, 3), 120, np.uint8)
    noise = rng.integers(-8, 9, before.shape)
    step = np.zeros((80, 90, 1), int)
    step[20:50, 30:60] = 90 * sign
    found = pca_kmeans(before, (before + noise + step).astype(np.uint8))
    assert found[22:48, 32:58].all()
    outside = np.ones_like(found)
    outside[17:53, 27:63] = False
    assert not found[outside].any()


def test_pca_gives_the_same_map_every_time():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)
    np.testing.assert_array_equal(pca_kmeans(before, after), pca_kmeans(before, after))


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 9, 3), (5, 4, 1), (8, 8, 4)])
@pytest.mark.parametrize("name", BASELINES)
def test_baselines_take_any_size_and_see_no_change_in_equal_images(name, shape):
    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    mask = BASELINES[name](image, image)
    assert mask.shape == shape[:2]
    assert mask.dtype == bool
    assert mask.any() == (name == "everything changed")
