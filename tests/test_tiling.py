"""Windows cover, stitching undoes splitting, memory does not follow the height."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocd.config import TilingConfig
from geocd.errors import ConfigError, ShapeError
from geocd.tiling.stitch import Stitcher, blending_window, classify, encode_scores
from geocd.tiling.windows import Window, count, split, starts

sides = st.integers(1, 300)
tiles = st.sampled_from([32, 48, 64, 256])
shares = st.floats(0, 0.95)


@given(sides, sides, tiles, shares)
def test_windows_cover_every_pixel_and_stay_inside(height, width, tile, share):
    config = TilingConfig(tile_size=tile, overlap=int(share * tile))
    seen = np.zeros((height, width), int)
    windows = list(split((height, width), config))
    for window in windows:
        assert window.row + window.height <= height
        assert window.col + window.width <= width
        seen[window.slices] += 1
    assert seen.min() >= 1
    assert len(windows) == count((height, width), config)


@given(sides, tiles, shares)
def test_neighbouring_windows_share_at_least_the_overlap(length, tile, share):
    overlap = int(share * tile)
    begins = starts(length, tile, overlap)
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(begins))
    assert len(set(begins)) == len(begins)


@settings(deadline=None)
@given(sides, sides, tiles, shares)
def test_stitching_undoes_splitting(height, width, tile, share):
    config = TilingConfig(tile_size=tile, overlap=int(share * tile))
    image = np.random.default_rng(0).integers(0, 255, (2, height, width), np.uint8)
    stitcher = Stitcher((height, width), 2)
    rows, tops = [], starts(height, config.tile_size, config.overlap)
    for index, top in enumerate(tops):
        for window in split((height, width), config):
            if window.row == top:
                weight = blending_window(window.shape, config.overlap)
                stitcher.add(window, image[(slice(None), *window.slices)], weight=weight)
        first, part = stitcher.take(tops[index + 1] if index + 1 < len(tops) else height)
        assert first == sum(p.shape[1] for p in rows)
        rows.append(part)
    np.testing.assert_allclose(np.concatenate(rows, axis=1), image, atol=1e-3)


def _peak_bytes(height: int) -> int:
    config = TilingConfig(tile_size=64, overlap=32)
    tops = starts(height, 64, 32)
    stitcher = Stitcher((height, 2048), 1)
    weight = blending_window((64, 64), 32)
    score = np.ones((1, 64, 64), np.uint8)
    tracemalloc.start()
    for index, top in enumerate(tops):
        for window in split((64, 2048), config):
            stitcher.add(Window(top, window.col, 64, 64), score, weight=weight)
        stitcher.take(tops[index + 1] if index + 1 < len(tops) else height)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_stitching_memory_does_not_depend_on_the_height():
    assert _peak_bytes(6400) < 1.05 * _peak_bytes(640)


@given(sides, sides, st.integers(0, 200))
def test_blending_weights_are_positive_and_symmetric(height, width, margin):
    weight = blending_window((height, width), margin)
    assert weight.min() > 0
    np.testing.assert_array_equal(weight, weight[::-1, ::-1])


def test_a_window_above_taken_rows_is_refused():
    stitcher = Stitcher((64, 32), 1)
    stitcher.take(32)
    with pytest.raises(ShapeError, match="taken already"):
        stitcher.add(Window(0, 0, 32, 32), np.zeros((1, 32, 32), np.uint8),
                     weight=np.ones((32, 32), np.float32))  # fmt: skip


def test_the_class_with_the_larger_margin_wins():
    scores = np.array([[[200, 130, 10]], [[150, 190, 10]]], np.uint8)
    change = classify(scores, (0.5, 0.3), (1, 2))
    assert change.tolist() == [[2, 2, 0]]  # margins 73 : 74, 3 : 114, none


def test_what_is_not_observed_is_neither_change_nor_no_change():
    scores = np.full((1, 2, 2), 229, np.float32)
    scores[0, 1, 1] = np.nan
    valid = np.array([[True, False], [True, True]])
    encoded = encode_scores(scores, valid)
    assert classify(encoded, (0.5,), (1,)).tolist() == [[1, 255], [1, 255]]


@given(st.floats(0, 1, width=32))
def test_a_stored_score_is_within_half_a_step_and_never_means_not_observed(score):
    level = np.full((1, 1, 1), score * 254, np.float32)
    stored = encode_scores(level, np.ones((1, 1), bool))[0, 0, 0]
    assert stored <= 254
    assert abs(stored / 254 - score) <= 0.5 / 254 + 1e-6


@pytest.mark.parametrize(("tile", "overlap"), [(250, 64), (16, 0), (256, 256), (256, -1)])
def test_impossible_tiling_is_refused_when_it_is_built(tile, overlap):
    with pytest.raises(ConfigError):
        TilingConfig(tile_size=tile, overlap=overlap)
