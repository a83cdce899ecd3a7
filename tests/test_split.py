"""Houses of a row are taken apart where the scores dip between them, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from geocd.errors import ShapeError
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
