"""After is brought to before's light by ground that did not change, or left as it is."""

from __future__ import annotations

import numpy as np
import pytest

from geocd.align.radiometry import (
    RADIOMETRY_OFF,
    estimate_radiometry,
    fit_radiometry,
    unchanged_probability,
)
from geocd.errors import ShapeError
from geocd.testing import paint_scene

GAIN, OFFSET = np.array([0.8, 1.1, 1.25]), np.array([20.0, -15.0, 4.0])


def _sample(count=3000, *, changed=0.0, seed=0, noise=2.0):
    """(before, after, changed) of three correlated bands; before = GAIN * after + OFFSET."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform(60, 160, count)
    after = np.stack([ground + rng.normal(0, 12, count) for _ in range(3)])
    before = GAIN[:, None] * after + OFFSET[:, None] + rng.normal(0, noise, after.shape)
    hit = rng.random(count) < changed
    before[:, hit] = rng.uniform(5, 250, (3, int(hit.sum())))
    return before, after, hit


def _reader(before, after, valid=None):
    valid = np.ones(before.shape[1:], bool) if valid is None else valid

    def _read(rows, cols):
        return before[:, rows, cols], valid[rows, cols], after[:, rows, cols], valid[rows, cols]

    return _read


@pytest.mark.parametrize("changed", [0.0, 0.1, 0.3])
def test_the_line_is_found_whatever_part_of_the_ground_changed(changed):
    before, after, _ = _sample(changed=changed)
    found = fit_radiometry(before, after)
    assert found.status == "applied"
    np.testing.assert_allclose(found.gain, GAIN, atol=0.03)
    np.testing.assert_allclose(np.array(found.gain) * 110 + found.offset, GAIN * 110 + OFFSET,
                               atol=1.0)  # fmt: skip


def test_what_changed_has_no_weight():
    before, after, hit = _sample(changed=0.3)
    weight = unchanged_probability(before, after)
    assert weight[hit].mean() < 0.05
    assert weight[~hit].mean() > 0.35


def test_a_linear_map_of_one_date_does_not_change_what_counts_as_changed():
    before, after, _ = _sample(changed=0.2)
    mixed = np.array([[1, 0.2, 0], [0, 0.5, 0.3], [-0.1, 0, 2]]) @ after + 7
    np.testing.assert_allclose(
        unchanged_probability(before, after), unchanged_probability(before, mixed), atol=1e-5
    )


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_any_number_of_bands_is_fitted(bands):
    before, after, _ = _sample(changed=0.2)
    chosen = [0, 1, 2, 0][:bands]  # the fourth repeats the first
    found = fit_radiometry(before[chosen], after[chosen])
    np.testing.assert_allclose(found.gain, GAIN[chosen], atol=0.06)


def test_equal_dates_keep_their_values():
    _, after, _ = _sample()
    tables = fit_radiometry(after, after).tables()
    assert (tables == np.arange(256)).all()


def test_a_table_holds_the_rounded_and_clipped_line_of_each_band():
    before, after, _ = _sample(noise=0.01)
    tables = fit_radiometry(before, after).tables()
    assert tables.shape == (3, 256)
    assert tables.dtype == np.uint8
    line = np.clip(GAIN[:, None] * np.arange(256) + OFFSET[:, None], 0, 255)
    assert np.abs(tables - line).max() <= 1


def test_a_scene_in_another_light_comes_back():
    before = paint_scene((300, 260), seed=3)
    after = np.rint(before * 0.7 + 30).astype(np.uint8)
    after[:, 40:120, 40:120] = 240
    found = estimate_radiometry(_reader(before, after), (300, 260))
    restored = np.take_along_axis(found.tables(), after.reshape(3, -1), axis=1).reshape(after.shape)
    away = np.abs(restored.astype(float) - before)
    away[:, 40:120, 40:120] = 0
    assert np.median(away) <= 1


def test_a_large_pair_is_sampled_and_not_read():
    read = []

    def _read(rows, cols):
        read.append((rows.stop - rows.start) * (cols.stop - cols.start))
        image = np.random.default_rng(len(read)).integers(50, 200, (3, 128, 128)).astype(np.uint8)
        valid = np.ones((128, 128), bool)
        return image, valid, image, valid

    assert estimate_radiometry(_read, (50_000, 40_000)).status == "applied"
    assert len(read) == 64
    assert sum(read) == 64 * 128 * 128


# Refusals


def test_nothing_observed_is_refused():
    image = np.full((3, 80, 80), 90, np.uint8)
    found = estimate_radiometry(_reader(image, image, np.zeros((80, 80), bool)), (80, 80))
    assert found.status == "refused"
    assert "valid" in found.reason
    assert found.tables() is None


@pytest.mark.parametrize("size", [1, 8])
def test_too_small_a_pair_is_refused(size):
    image = paint_scene((size, size), seed=1)
    found = estimate_radiometry(_reader(image, image), (size, size))
    assert found.status == "refused"


def test_a_negative_image_is_refused():
    before, after, _ = _sample()
    found = fit_radiometry(before, 255 - after)
    assert found.status == "refused"
    assert "unlike" in found.reason


def test_an_extreme_gain_is_refused():
    before, after, _ = _sample(noise=0.1)
    found = fit_radiometry(before, 100 + after / 10)
    assert found.status == "refused"
    assert "gain" in found.reason


def test_unrelated_dates_are_refused():
    rng = np.random.default_rng(5)
    found = fit_radiometry(rng.uniform(20, 230, (3, 2000)), rng.uniform(20, 230, (3, 2000)))
    assert found.status == "refused"


def test_constant_dates_are_refused():
    flat = np.full((3, 1000), 90.0)
    assert fit_radiometry(flat, flat).status == "refused"


def test_saturated_values_do_not_bend_the_line():
    before, after, _ = _sample(noise=0.5)
    before, after = before - 60, after - 60
    clipped = [np.clip(np.rint(values), 0, 255) for values in (before, after)]
    found = fit_radiometry(*clipped)
    np.testing.assert_allclose(found.gain, GAIN, atol=0.06)


def test_samples_of_two_shapes_are_no_sample():
    with pytest.raises(ShapeError, match="one shape"):
        fit_radiometry(np.zeros((3, 10)), np.zeros((3, 11)))


def test_what_was_not_asked_for_changes_nothing():
    assert RADIOMETRY_OFF.tables() is None
    assert "switched off" in str(RADIOMETRY_OFF)
