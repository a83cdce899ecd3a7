"""Houses of a row are taken apart where the scores dip between them, and only there."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from affine import Affine

from geocd.config import VectorizeConfig
from geocd.errors import ShapeError
from geocd.testing import assert_valid_change_layer, write_raster
from geocd.vectorize import scorefile, split, trace_changes
from geocd.vectorize.split import split_by_scores


def _row(depth, count=3, noise=0.0):
    """A row of houses 16 pixels wide, with scores that are lower by ``depth`` between them."""
    mask = np.zeros((40, 20 + 16 * count), bool)
    mask[10:30, 10 : 10 + 16 * count] = True
    scores = np.full(mask.shape, 0.9)
    for k in range(1, count):
        scores[:, 10 + 16 * k - 2 : 10 + 16 * k + 2] -= depth
    scores += np.random.default_rng(0).normal(0, noise, mask.shape)
    return mask, np.clip(scores * 254, 0, 254).astype(np.uint8)


@pytest.mark.parametrize("noise", [0, 0.03])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_row_of_houses_is_taken_apart_where_the_scores_dip(count, noise):
    mask, scores = _row(0.35, count, noise)
    labels = split_by_scores(mask, scores, dip=0.15)
    assert labels.max() == count
    np.testing.assert_array_equal(labels > 0, mask)
    areas = np.bincount(labels[mask])[1:]
    np.testing.assert_allclose(areas, 16 * 20, rtol=0.2)


@pytest.mark.parametrize("noise", [0, 0.03])
def test_an_even_object_stays_whole(noise):
    mask, scores = _row(0.0, 3, noise)
    np.testing.assert_array_equal(split_by_scores(mask, scores, dip=0.15), mask)


def test_a_dip_that_is_too_shallow_divides_nothing():
    mask, scores = _row(0.08)
    np.testing.assert_array_equal(split_by_scores(mask, scores, dip=0.15), mask)


def test_parts_that_would_be_too_small_stay_with_the_whole():
    mask, scores = _row(0.35)
    np.testing.assert_array_equal(split_by_scores(mask, scores, least_area=400), mask)


def test_scores_outside_the_object_do_not_matter():
    mask, scores = _row(0.35)
    other = np.where(mask, scores, 255).astype(np.uint8)
    np.testing.assert_array_equal(split_by_scores(mask, scores), split_by_scores(mask, other))


def test_an_empty_mask_has_no_parts():
    assert not split_by_scores(np.zeros((5, 5), bool), np.zeros((5, 5), np.uint8)).any()


def test_scores_of_another_window_are_refused():
    with pytest.raises(ShapeError, match="the scores are"):
        split_by_scores(np.ones((5, 5), bool), np.zeros((5, 6), np.uint8))


# In tracing


def _trace(folder, scores, *, kind="building", threshold=0.3, **config):
    planes = np.zeros((2, *scores.shape), np.uint8)
    planes[("building", "road").index(kind)] = scores
    path = write_raster(folder / "s.tif", planes, crs="EPSG:32633",
                        transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6))  # fmt: skip
    return trace_changes(path, classes=("building", "road"), thresholds=(threshold,) * 2,
                         config=VectorizeConfig(**config))  # fmt: skip


def _overlap(layer):
    pairs = itertools.combinations(layer.geometry, 2)
    return max(a.intersection(b).area for a, b in pairs)


def _scored_row(depth=0.35, **options):
    mask, scores = _row(depth, **options)
    return np.where(mask, scores, 0).astype(np.uint8)


def test_a_row_is_traced_as_houses_that_share_walls(tmp_path):
    layer = _trace(tmp_path, _scored_row())
    assert_valid_change_layer(layer)
    assert layer["regularized"].all()
    np.testing.assert_allclose(layer["area_m2"], [80, 80, 80], rtol=0.1)
    assert layer["area_m2"].sum() == pytest.approx(240, rel=0.02)
    assert _overlap(layer) == pytest.approx(0, abs=1e-2)
    joined = layer.geometry.buffer(2e-3).union_all()
    assert joined.geom_type == "Polygon"
    assert len(set(layer["id"])) == 3


def test_houses_of_a_row_have_exactly_the_pixels_of_the_row(tmp_path):
    layer = _trace(tmp_path, _scored_row(), simplify=0)
    whole = _trace(tmp_path, _scored_row(), simplify=0, split=False)
    assert len(layer) == 3
    assert len(whole) == 1
    assert _overlap(layer) == 0
    assert layer.geometry.union_all().equals(whole.geometry[0])
    assert layer["area_px"].sum() == whole["area_px"][0]
    means = layer["score_mean"] * layer["area_px"]
    assert means.sum() == pytest.approx(whole["score_mean"][0] * whole["area_px"][0])


def test_the_height_of_the_bands_changes_no_part(tmp_path, monkeypatch):
    rows = np.vstack([_scored_row(noise=0.03)] * 4)
    whole = _trace(tmp_path, rows)
    monkeypatch.setattr(scorefile, "_BAND_PIXELS", 1)
    monkeypatch.setattr(scorefile, "_BLOCK", 7)
    assert len(whole) == 12
    assert whole.equals(_trace(tmp_path, rows))


def test_roads_stay_whole(tmp_path):
    assert len(_trace(tmp_path, _scored_row(), kind="road")) == 1


def test_parts_below_the_threshold_or_the_minimum_mapping_unit_stay_with_the_whole(tmp_path):
    scores = _scored_row(0.5)
    scores[:, 44:] = scores[:, 44:] * 0.75  # the last house reaches 0.675
    assert len(_trace(tmp_path, scores)) == 3
    assert len(_trace(tmp_path, scores, threshold=0.7, grow=0.3)) == 1
    assert len(_trace(tmp_path, scores, min_area=90)) == 1


def test_objects_too_large_to_hold_stay_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(split, "_WINDOW_PIXELS", 900)
    assert len(_trace(tmp_path, _scored_row())) == 1
