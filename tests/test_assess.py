"""Measures count what they say; weights are evaluated beside baselines."""

from __future__ import annotations

import json
import math
import re
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from arithmetic import Arithmetic
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from rasterio.crs import CRS

import geocd
from geocd.assess import assess, write_report
from geocd.assess.baselines import BASELINES, difference_otsu, pca_kmeans
from geocd.assess.curves import ScoreHistogram
from geocd.assess.metrics import Confusion, bootstrap, confusion, total, worst_first
from geocd.assess.objects import match_objects
from geocd.assess.panels import FALSE_ALARM, HIT, MISS, UNSEEN, error_map
from geocd.assess.tables import Table
from geocd.config import AlignConfig, DetectConfig, ObjectConfig
from geocd.errors import (
    ConfigError,
    DatasetError,
    GeocdWarning,
    OutputExistsError,
    ShapeError,
    UnknownWeightsError,
)
from geocd.testing import paint_scene, write_raster
from geocd.tiling.stitch import classify
from geocd.training.datasets import LabelCoding, find_pairs
from geocd_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

counts = st.integers(0, 10_000)
confusions = st.builds(Confusion, counts, counts, counts, counts)
masks = arrays(bool, (12, 12))
ANY_SIZE = ObjectConfig(min_area=0)
OFF = DetectConfig(align=AlignConfig(mode="off"))


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


# Whole sets


def _dataset(folder, names=("one", "two"), *, label=255):
    for index, name in enumerate(names):
        image = np.clip(paint_scene((64, 64), seed=index), 0, 180)
        after, truth = image.copy(), np.zeros((1, 64, 64), np.uint8)
        after[:, 20:40, 20:40], truth[:, 20:40, 20:40] = 250, label
        for sub, array in (("A", image), ("B", after), ("label", truth)):
            _write(folder / sub / f"{name}.png", array)
    return folder


def _write(path, array):
    path.parent.mkdir(exist_ok=True, parents=True)
    count, height, width = array.shape
    with rasterio.open(path, "w", driver="PNG", height=height, width=width, count=count,
                       dtype="uint8") as dataset:  # fmt: skip
        dataset.write(array)


def _cut_short(path, *, keep=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])


@pytest.fixture
def arithmetic(monkeypatch):
    monkeypatch.setattr("geocd.pipeline.TorchPredictor", Arithmetic)


def test_evaluation_lists_every_image_and_the_baselines(tmp_path):
    results = geocd.evaluate(_dataset(tmp_path / "d"), config=geocd.DetectConfig())
    assert [r.method for r in results] == [
        "geocd-vhr", "colour difference + Otsu", "PCA + k-means", "everything changed",
        "nothing changed",
    ]  # fmt: skip
    assert all(set(r.images) == set(r.objects) == {"one", "two"} for r in results)
    assert results[3].total == Confusion(800, 2 * 64 * 64 - 800, 0, 0)
    assert results[4].total == Confusion(0, 0, 800, 2 * 64 * 64 - 800)
    assert results[0].total.recall > 0.1  # two plain bright squares: hardly buildings


@pytest.mark.usefixtures("arithmetic")
def test_painted_change_is_found_to_the_pixel(tmp_path):
    ours, *_, nothing = geocd.evaluate(_dataset(tmp_path / "d"), config=OFF)
    assert ours.total == Confusion(800, 0, 0, 2 * 64 * 64 - 800)
    assert ours.total.f1 == ours.total.kappa == ours.median_f1 == 1
    assert ours.intervals()["f1"] == (1, 1)
    assert ours.total_objects.to_dict()["found"] == 2
    assert ours.curve.average_precision == 1
    assert nothing.total.f1 == 0
    assert nothing.curve is None


@pytest.mark.usefixtures("arithmetic")
def test_baselines_see_after_as_it_was_aligned(tmp_path):
    scene = paint_scene((300, 300), seed=2)
    before, after = scene[:, 20:276, 20:276], scene[:, 15:271, 23:279]
    for sub, array in (("A", before), ("B", after), ("label", np.zeros((1, 256, 256), np.uint8))):
        _write(tmp_path / sub / "one.png", array)
    blind = assess(tmp_path, config=OFF).evaluations[1].total.false_positive
    aligned = assess(tmp_path, config=DetectConfig()).evaluations[1]
    assert aligned.total.size < 256 * 256  # what the shifted image does not show counts nowhere
    assert aligned.total.false_positive < blind


@pytest.mark.usefixtures("arithmetic")
def test_georeferenced_pairs_on_two_grids_are_measured_in_square_metres(tmp_path):
    scene = paint_scene((80, 80), seed=6).astype(np.uint16) * 4 + 300
    after, truth = scene.copy(), np.zeros((1, 80, 80), np.uint8)
    after[:, 20:50, 20:50], truth[:, 20:50, 20:50] = 2500, 1
    utm, corner = CRS.from_epsg(32633), Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    for sub in ("A", "B", "label"):
        (tmp_path / sub).mkdir()
    write_raster(tmp_path / "A" / "one.tif", scene, crs=utm, transform=corner)
    write_raster(tmp_path / "label" / "one.tif", truth, crs=utm, transform=corner)
    # The later image lacks the first ten columns.
    moved = corner @ Affine.translation(10, 0)
    write_raster(tmp_path / "B" / "one.tif", after[:, :, 10:], crs=utm, transform=moved)
    assessment = assess(tmp_path, config=OFF)
    ours, otsu = assessment.evaluations[:2]
    assert assessment.unit == "m2"
    assert ours.total_objects.found == (0, 1, 0)  # 900 pixels of 0.25 m2
    assert ours.total.size == otsu.total.size == 80 * 70
    assert otsu.total.recall == 1


@pytest.mark.usefixtures("arithmetic")
def test_pairs_of_a_manifest_are_measured_against_polygons_within_the_labelled_area(tmp_path):
    scene = np.clip(paint_scene((80, 80), seed=6), 0, 180)
    after = scene.copy()
    after[:, 20:50, 20:50] = 250  # labelled
    after[:, 60:70, 60:70] = 250  # an alarm, outside the labelled area
    utm, corner = CRS.from_epsg(32633), Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    write_raster(tmp_path / "a.tif", scene[[2, 1, 0]], crs=utm, transform=corner)
    moved = corner @ Affine.translation(10, 0)
    write_raster(tmp_path / "b.tif", after[:, :, 10:], crs=utm, transform=moved)
    for name, outline in (("truth", (20, 20, 50, 50)), ("area", (0, 0, 80, 55))):
        left, top, right, bottom = outline
        square = shapely.box(*(corner @ (left, bottom)), *(corner @ (right, top)))
        geopandas.GeoDataFrame(geometry=[square], crs=utm).to_crs(4326).to_file(
            tmp_path / f"{name}.gpkg"
        )
    (tmp_path / "pairs.toml").write_text(
        '[[pairs]]\nbefore = "a.tif"\nafter = "b.tif"\nlabel = "truth.gpkg"\n'
        'area = "area.gpkg"\nbands = [3, 2, 1]\n'
    )
    ours = geocd.evaluate(tmp_path / "pairs.toml", config=OFF)[0].total
    assert ours.size == 55 * 70
    assert ours == Confusion(900, 0, 0, 55 * 70 - 900)


@pytest.mark.usefixtures("arithmetic")
def test_ignored_label_pixels_count_nowhere(tmp_path):
    folder = _dataset(tmp_path / "d", ["one"], label=1)
    truth = np.zeros((1, 64, 64), np.uint8)
    truth[:, 20:30, 20:40], truth[:, 30:40, 20:40], truth[:, :5] = 1, 9, 2
    _write(folder / "label" / "one.png", truth)
    coding = LabelCoding(values={"building": 1, "road": 2}, ignore=9)
    ours, *_, everything, _ = geocd.evaluate(folder, config=OFF, coding=coding)
    assert ours.total == Confusion(200, 0, 0, 64 * 64 - 400)
    assert everything.total.size == 64 * 64 - 200
    roads = geocd.evaluate(folder, config=OFF, coding=coding, kind="road")[0]
    assert roads.total == Confusion(0, 0, 5 * 64, 64 * 64 - 200 - 5 * 64)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("damaged", ["A", "B", "label"])
def test_a_damaged_image_is_named_and_the_others_are_evaluated(tmp_path, damaged):
    folder = _dataset(tmp_path / "d", ["one", "two", "three"])
    _cut_short(folder / damaged / "two.png")
    with pytest.warns(GeocdWarning, match=r"two is skipped: .*two\.png"):
        assessment = assess(folder, config=OFF)
    assert list(assessment.evaluations[0].images) == ["one", "three"]
    assert "two.png" in assessment.to_dict()["skipped"]["two"]
    assert all(e.to_dict()["skipped"] == 1 for e in assessment.evaluations)
    with pytest.raises(DatasetError, match=r"two cannot be evaluated: .*two\.png"):
        assess(folder, config=OFF, strict=True)


@pytest.mark.usefixtures("arithmetic")
def test_an_image_cut_short_near_its_end_is_not_evaluated_as_if_whole(tmp_path):
    folder = _dataset(tmp_path / "d")
    _cut_short(folder / "B" / "two.png", keep=0.8)
    with pytest.warns(GeocdWarning, match=r"B/two\.png"):
        assert list(geocd.evaluate(folder, config=OFF)[0].images) == ["one"]


def test_errors_that_concern_every_pair_are_not_skipped(tmp_path):
    folder = _dataset(tmp_path / "d")
    with pytest.raises(UnknownWeightsError):
        geocd.evaluate(folder, config=DetectConfig(weights="no-such-weights"))
    with pytest.raises(ConfigError, match="the labels show road, not building"):
        geocd.evaluate(folder, config=OFF, coding=LabelCoding(values={"road": 1}))


@pytest.mark.parametrize("missing", ["B", "label"])
def test_a_missing_partner_is_named(tmp_path, missing):
    folder = _dataset(tmp_path / "d")
    (folder / missing / "two.png").unlink()
    with pytest.raises(DatasetError, match=r"two\.png has no partner"):
        find_pairs(folder)


def test_an_empty_folder_or_a_split_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="A/, B/ and label/"):
        geocd.evaluate(tmp_path)
    with pytest.raises(DatasetError, match="no split 'test'"):
        geocd.evaluate(_dataset(tmp_path / "d"), split="test")
    for sub in ("A", "B", "label"):
        (tmp_path / "empty" / "test" / sub).mkdir(parents=True)
    with pytest.raises(DatasetError, match="empty"):
        geocd.evaluate(tmp_path / "empty", split="test")


@pytest.mark.usefixtures("arithmetic")
def test_only_the_split_asked_for_is_evaluated(tmp_path):
    _dataset(tmp_path / "test", ["one"])
    _dataset(tmp_path / "train", ["two"])
    assert list(geocd.evaluate(tmp_path, config=OFF, split="test")[0].images) == ["test/one"]
    assert len(geocd.evaluate(tmp_path, config=OFF)[0].images) == 2


@pytest.mark.usefixtures("arithmetic")
def test_a_label_of_another_size_is_refused(tmp_path):
    folder = _dataset(tmp_path / "d", ["one"])
    _write(folder / "label" / "one.png", np.zeros((1, 10, 10), np.uint8))
    with (
        pytest.warns(GeocdWarning, match="10 x 10"),
        pytest.raises(DatasetError, match=r"none of the 1 pairs .* 10 x 10"),
    ):
        geocd.evaluate(folder, config=OFF)


# Reports


def test_hits_alarms_and_misses_are_coloured_as_the_legend_says():
    found, truth = np.array([[1, 1, 0, 0, 1]], bool), np.array([[1, 0, 1, 0, 1]], bool)
    valid = np.array([[1, 1, 1, 1, 0]], bool)
    picture = error_map(np.full((1, 5, 3), 200, np.uint8), found, truth, valid)
    assert [tuple(pixel) for pixel in picture[0].tolist()] == [
        HIT, FALSE_ALARM, MISS, (80, 80, 80), UNSEEN
    ]  # fmt: skip


def test_the_colours_of_errors_differ_even_without_hue():
    def luminance(colour):
        linear = (np.array(colour) / 255) ** 2.2
        return linear @ [0.2126, 0.7152, 0.0722]

    dark, middle, light = sorted(map(luminance, (HIT, FALSE_ALARM, MISS)))
    assert (middle + 0.05) / (dark + 0.05) > 1.5
    assert (light + 0.05) / (middle + 0.05) > 1.5


def test_names_cannot_break_a_table():
    table = Table("c", ["", "x"], [["a|b*<i>", "1"]])
    assert table.to_markdown().splitlines()[-1] == r"| a\|b\*\<i\> | 1 |"
    assert "a|b*&lt;i&gt;" in table.to_html()
    assert table.to_text().splitlines() == ["c", "         x", "a|b*<i>  1"]


@pytest.fixture
def report(tmp_path, arithmetic):
    """A report of images with false alarms, misses, a hostile name and one that is damaged."""
    folder = _dataset(tmp_path / "d", ["<b>&one", "two", "three", "bad"])
    _write(folder / "label" / "two.png", np.zeros((1, 64, 64), np.uint8))
    missed = np.zeros((1, 64, 64), np.uint8)
    missed[:, 20:40, 20:60] = 255
    missed[:, :10, :10] = 255
    _write(folder / "label" / "<b>&one.png", missed)
    _cut_short(folder / "B" / "bad.png")
    with pytest.warns(GeocdWarning):
        assessment = assess(folder, config=OFF)
    write_report(assessment, tmp_path / "out" / "report")
    return assessment, tmp_path / "out" / "report"


def test_a_report_holds_figures_table_curve_and_page(report):
    assessment, folder = report
    assert sorted(p.name for p in folder.iterdir()) == [
        "evaluation.json", "pr.png", "table.md", "worst.html"
    ]  # fmt: skip
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["images"] == 3
    assert list(content["skipped"]) == ["bad"]
    assert content["methods"][0]["total"]["f1"] == round(assessment.evaluations[0].total.f1, 5)
    assert len(content["methods"][0]["curve"]["precision"]) == 255
    with Image.open(folder / "pr.png") as chart:
        assert chart.format == "PNG"
        assert len(chart.getcolors(1 << 20)) > 10
    table = (folder / "table.md").read_text()
    assert "3 images, 1 skipped" in table
    assert all(method in table for method in BASELINES)


def test_the_page_shows_the_worst_first_needs_no_network_and_escapes_names(report):
    _, folder = report
    page = (folder / "worst.html").read_text()
    titles = re.findall("<h3>(.*)</h3>", page)
    assert titles == ["1. &lt;b&gt;&amp;one", "2. two"]  # 500 and 400 wrong pixels
    assert "<b>" not in page
    assert "three" not in titles  # nothing is wrong with it
    assert "3 images, 1 skipped" in page
    assert re.findall(r"https?://", page) == []
    assert set(re.findall(r'(?:src|srcset)="(.{10})', page)) == {"data:image"}
    assert page.index("<table") < page.index("Precision and recall") < page.index("<h3>")
    assert page.count("<figure>") == 2 * 4
    assert "prefers-color-scheme: dark" in page


def test_an_existing_report_is_kept_unless_overwriting_is_asked_for(report):
    assessment, folder = report
    (folder / "table.md").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(assessment, folder)
    assert (folder / "table.md").read_text() == "mine"
    write_report(assessment, folder, overwrite=True)
    assert (folder / "table.md").read_text() != "mine"


@pytest.mark.usefixtures("arithmetic")
def test_pictures_of_the_ten_worst_images_are_kept_and_of_no_others(tmp_path):
    folder = _dataset(tmp_path / "d", [f"image {i:02}" for i in range(12)])
    for index, path in enumerate(sorted((folder / "label").iterdir())):
        truth = np.zeros((1, 64, 64), np.uint8)
        truth[:, 20:40, 20 : 20 + index + 1] = 255
        _write(path, truth)
    panels = assess(folder, config=OFF).panels
    assert list(panels) == [f"image {i:02}" for i in range(10)]


@pytest.mark.usefixtures("arithmetic")
def test_the_command_prints_tables_or_json_and_writes_the_report(tmp_path):
    folder = _dataset(tmp_path / "d", ["one", "two", "three"])
    shutil.copy(folder / "A" / "one.png", folder / "B" / "three.png")
    _cut_short(folder / "B" / "two.png")
    base = ["evaluate", "--data", str(folder), "--align", "off", "-q"]
    done = CliRunner().invoke(main, [*base, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "2 images, 1 skipped" in done.stdout
    assert "Warning: two is skipped" in done.stderr
    assert all(method in done.stdout for method in BASELINES)
    assert (tmp_path / "out" / "worst.html").exists()
    again = CliRunner().invoke(main, [*base, "-o", str(tmp_path / "out"), "--json"])
    assert again.exit_code == 1
    assert "exists" in again.stderr
    printed = CliRunner().invoke(main, [*base, "--json"])
    assert json.loads(printed.stdout)["images"] == 2
    strict = CliRunner().invoke(main, [*base, "--strict"])
    assert strict.exit_code == 1
    assert "two cannot be evaluated" in strict.stderr


@pytest.mark.parametrize(
    "wrong", [["--class", "building"], ["--class", "road=1"], ["--iou", "2"], ["--min-area", "-1"]]
)
def test_settings_that_make_no_sense_are_usage_errors(tmp_path, wrong):
    done = CliRunner().invoke(main, ["evaluate", "--data", str(_dataset(tmp_path / "d")), *wrong])
    assert done.exit_code == 2


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "pixel_size", "floor"), [("levir256", 0.5, 0.55), ("whu512", 0.2, 0.60)]
)
def test_the_bundled_weights_find_real_building_change_they_never_saw(
    data, name, pixel_size, floor
):
    config = geocd.DetectConfig(pixel_size=pixel_size)
    ours, *baselines = geocd.evaluate(data / "pairs" / name, config=config)
    assert ours.total.f1 >= floor
    assert ours.curve.average_precision >= floor
    assert all(baseline.total.f1 < 0.3 for baseline in baselines)
    assert ours.total_objects.f1 > max(b.total_objects.f1 for b in baselines)
