"""Measures count what they say; weights are evaluated beside baselines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import geocd
from geocd.assess.baselines import difference_otsu
from geocd.assess.metrics import Confusion, confusion
from geocd.errors import DatasetError, ShapeError
from geocd.testing import paint_scene
from geocd.training.datasets import find_pairs

counts = st.integers(0, 10_000)


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


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ShapeError):
        confusion(np.zeros((2, 2), bool), np.zeros((2, 3), bool))


def test_otsu_finds_a_bright_square():
    before = np.full((50, 50, 3), 90, np.uint8)
    after = before.copy()
    after[10:20, 10:20] = 200
    expected = np.zeros((50, 50), bool)
    expected[10:20, 10:20] = True
    np.testing.assert_array_equal(difference_otsu(before, after), expected)


def _dataset(folder, names=("one", "two")):
    for index, name in enumerate(names):
        image = np.clip(paint_scene((64, 64), seed=index), 0, 180)
        after, label = image.copy(), np.zeros((1, 64, 64), np.uint8)
        after[:, 20:40, 20:40], label[:, 20:40, 20:40] = 250, 255
        for sub, array in (("A", image), ("B", after), ("label", label)):
            (folder / sub).mkdir(exist_ok=True, parents=True)
            with rasterio.open(folder / sub / f"{name}.png", "w", driver="PNG", height=64, width=64,
                               count=len(array), dtype="uint8") as dataset:  # fmt: skip
                dataset.write(array)
    return folder


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_evaluation_lists_every_image_and_the_baselines(tmp_path):
    results = geocd.evaluate(_dataset(tmp_path / "d"), config=geocd.DetectConfig())
    methods = [r.method for r in results]
    assert methods == ["geocd-vhr", "colour difference + Otsu", "everything changed"]
    assert all(set(r.images) == {"one", "two"} for r in results)
    assert results[2].total == Confusion(800, 2 * 64 * 64 - 800, 0, 0)
    assert results[0].total.recall > 0.1  # two plain bright squares: hardly buildings


@pytest.mark.parametrize("missing", ["B", "label"])
def test_a_missing_partner_is_named(tmp_path, missing):
    folder = _dataset(tmp_path / "d")
    (folder / missing / "two.png").unlink()
    with pytest.raises(DatasetError, match=r"two\.png has no partner"):
        find_pairs(folder)


def test_a_folder_without_dates_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="A/, B/ and label/"):
        find_pairs(tmp_path)


def test_a_label_of_another_size_is_refused(tmp_path):
    folder = _dataset(tmp_path / "d", ["one"])
    with rasterio.open(folder / "label" / "one.png", "w", driver="PNG", height=10, width=10,
                       count=1, dtype="uint8") as dataset:  # fmt: skip
        dataset.write(np.zeros((1, 10, 10), np.uint8))
    with pytest.raises(DatasetError, match="10 x 10"):
        geocd.evaluate(folder, config=geocd.DetectConfig())


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "pixel_size", "floor"), [("levir256", 0.5, 0.55), ("whu512", 0.2, 0.60)]
)
def test_the_bundled_weights_find_real_building_change_they_never_saw(
    data, name, pixel_size, floor
):
    config = geocd.DetectConfig(pixel_size=pixel_size)
    ours, otsu, everything = geocd.evaluate(data / "pairs" / name, config=config)
    assert ours.total.f1 >= floor
    assert otsu.total.f1 < 0.3
    assert everything.total.f1 < 0.3
