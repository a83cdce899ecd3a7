"""Light, sensor, yards, misregistration and lean change what they say, by as much as they say."""

from __future__ import annotations

import numpy as np
import pytest

from geocd.training.augment import _season, photometric, smooth_noise
from geocd.training.clutter import clutter
from geocd.training.crops import BUILDING, ROAD, View
from geocd.training.parts import grown
from geocd.training.synthesis import lean, misregistration

# Light, season, sensor


@pytest.mark.parametrize("strong", [False, True])
def test_light_and_season_change_values_but_not_places(strong):
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = 200
    for seed in range(10):
        out = photometric(image, np.random.default_rng(seed), strong=strong).mean(axis=2)
        assert out.shape == (64, 64)
        assert out[24:40, 24:40].mean() > out[:10].mean()


def test_strong_light_differs_more_than_mild_light():
    image = np.random.default_rng(0).integers(40, 200, (48, 48, 3)).astype(np.uint8)
    mild, strong = (
        np.mean([abs(photometric(image, np.random.default_rng(s), strong=k).astype(float) - image)
                 for s in range(30)]) for k in (False, True)
    )  # fmt: skip
    assert 1 < mild < strong


def test_the_image_that_goes_in_is_not_written_to():
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3)).astype(np.uint8)
    kept = image.copy()
    for seed in range(12):
        photometric(image, np.random.default_rng(seed), strong=True)
        clutter(image, np.ones((48, 48), bool), 0.5, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, kept)


def test_season_moves_greens_and_leaves_roofs():
    image = np.zeros((32, 32, 3), np.float32)
    image[:, :16], image[:, 16:] = (0.2, 0.5, 0.2), (0.7, 0.3, 0.2)
    out = image.copy()
    _season(out, 1.0, np.random.default_rng(0))
    assert abs(out[:, :16] - image[:, :16]).max() > 0.01
    np.testing.assert_array_equal(out[:, 16:], image[:, 16:])


def test_smooth_noise_is_smooth_and_of_unit_size():
    noise = smooth_noise((200, 300), 20, np.random.default_rng(0))
    assert noise.shape == (200, 300)
    assert 0.6 < noise.std() < 1.2
    assert abs(np.diff(noise, axis=0)).max() < 0.5


def test_a_yard_is_painted_where_it_may_lie_and_nowhere_else():
    image = np.full((96, 96, 3), 90, np.uint8)
    free = np.ones((96, 96), bool)
    free[:, :48] = False
    painted = 0
    for seed in range(12):
        out, yard = clutter(image, free, 0.5, np.random.default_rng(seed))
        assert not yard[:, :40].any()
        # Less than a fiftieth of what is painted shows beyond the soft edge.
        assert abs(out[~yard].astype(int) - image[~yard]).max() <= 4
        np.testing.assert_array_equal(out[:, :40], image[:, :40])
        painted += int((out[yard] != 90).any())
    assert painted >= 8


# Misregistration and lean


@pytest.mark.parametrize("crop", [32, 128, 256])
@pytest.mark.parametrize("largest", [0.0, 1.5, 3.0])
def test_no_pixel_is_displaced_by_more_than_the_largest_shift(crop, largest):
    edge = np.arange(crop, dtype=np.float64)
    x, y = np.meshgrid(edge, edge)
    points = np.stack([x.ravel(), y.ravel(), np.ones(crop**2)])
    found = []
    for seed in range(60):
        matrix = misregistration(crop, largest, np.random.default_rng(seed))
        found.append(np.hypot(*(matrix @ points - points[:2])).max())
    assert max(found) <= largest + 1e-9
    assert largest == 0 or max(found) > 0.8 * largest


def test_only_roofs_lean():
    rng = np.random.default_rng(0)
    view = View(rng.integers(0, 255, (96, 96, 3)).astype(np.uint8), np.zeros((2, 96, 96), np.uint8))
    np.testing.assert_array_equal(lean(view, rng), view.image)
    view.labels[BUILDING, 30:50, 30:50] = 1
    # The lean fades out over the eight pixels of its blur.
    around = grown(view.labels[BUILDING] == 1, 9)
    for seed in range(5):
        moved = (lean(view, np.random.default_rng(seed)) != view.image).any(axis=2)
        assert not moved[~around].any()
        assert moved[34:46, 34:46].any()


def test_roads_do_not_lean():
    rng = np.random.default_rng(0)
    view = View(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8), np.zeros((2, 64, 64), np.uint8))
    view.labels[ROAD, 20:30] = 1
    np.testing.assert_array_equal(lean(view, rng), view.image)
