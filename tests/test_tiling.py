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
from geocd.tiling.classify import classify
from geocd.tiling.stitch import Stitcher, hide_unobserved
from geocd.tiling.windows import Window, blending_weights, count, split, starts

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


def _stitched(image, config, *, skipped=()):
    """An image (classes, height, width) cut into windows and put together again."""
    shape = image.shape[1:]
    stitcher = Stitcher(shape, len(image), config)
    parts = []
    for _, row in itertools.groupby(split(shape, config), key=lambda w: w.row):
        for window in row:
            if window not in skipped:
                stitcher.add(window, image[(slice(None), *window.slices)])
        rows, levels = stitcher.take()
        assert rows.start == sum(part.shape[1] for part in parts)
        parts.append(levels)
    return np.concatenate(parts, axis=1)


@settings(deadline=None)
@given(sides, sides, tiles, shares)
def test_stitching_undoes_splitting(height, width, tile, share):
    config = TilingConfig(tile_size=tile, overlap=int(share * tile))
    image = np.random.default_rng(0).integers(0, 255, (2, height, width), np.uint8)
    np.testing.assert_array_equal(_stitched(image, config), image)


@settings(deadline=None)
@given(sides, sides, tiles, shares, st.data())
def test_a_window_that_is_left_out_spoils_nothing_but_itself(height, width, tile, share, data):
    config = TilingConfig(tile_size=tile, overlap=int(share * tile))
    image = np.random.default_rng(0).integers(0, 255, (1, height, width), np.uint8)
    hole = data.draw(st.sampled_from(list(split((height, width), config))))
    outside = np.ones((height, width), bool)
    outside[hole.slices] = False
    result = _stitched(image, config, skipped=(hole,))
    np.testing.assert_array_equal(result[0][outside], image[0][outside])


def _peak_bytes(shape: tuple[int, int], overlap: int) -> int:
    config = TilingConfig(tile_size=64, overlap=overlap)
    stitcher = Stitcher(shape, 1, config)
    level = np.ones((1, 64, 64), np.uint8)
    tracemalloc.start()
    for _, row in itertools.groupby(split(shape, config), key=lambda w: w.row):
        for window in row:
            stitcher.add(window, level)
        stitcher.take()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_stitching_memory_does_not_depend_on_the_height():
    assert _peak_bytes((6400, 2048), 32) < 1.05 * _peak_bytes((640, 2048), 32)


def test_stitching_memory_grows_with_the_overlap_and_not_with_floats_of_the_tile():
    width = 20_000
    # The shared rows of two strips in floats, the finished rows in bytes, the one after them.
    assert _peak_bytes((232, width), 8) < width * (2 * 4 * 8 + 2 * 64) * 1.1


@given(sides, tiles, shares)
def test_shares_are_positive_and_sum_to_one_everywhere(length, tile, share):
    config = TilingConfig(tile_size=tile, overlap=int(share * tile))
    shares = blending_weights(length, config)
    total = np.zeros(length)
    for start, part in zip(starts(length, tile, config.overlap), shares, strict=True):
        assert part.min() > 0
        total[start : start + len(part)] += part
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("window", [Window(0, 0, 32, 32), Window(32, 5, 32, 32)])
def test_a_window_out_of_turn_is_refused(window):
    stitcher = Stitcher((64, 64), 1, TilingConfig(tile_size=32, overlap=0))
    stitcher.add(Window(0, 32, 32, 32), np.zeros((1, 32, 32), np.uint8))
    with pytest.raises(ShapeError, match="order of split"):
        stitcher.add(window, np.zeros((1, 32, 32), np.uint8))


def test_scores_that_do_not_fit_their_window_are_refused():
    stitcher = Stitcher((64, 64), 1, TilingConfig(tile_size=32, overlap=0))
    with pytest.raises(ShapeError, match="needs levels"):
        stitcher.add(Window(0, 0, 32, 32), np.zeros((2, 32, 32), np.uint8))


def test_the_class_with_the_larger_relative_margin_wins():
    scores = np.array([[[200, 130, 10]], [[150, 190, 10]]], np.uint8)
    change = classify(scores, (0.5, 0.3), (1, 2))
    assert change.tolist() == [[1, 2, 0]]  # margins 0.57 : 0.42, 0.02 : 0.64, none


@pytest.mark.parametrize("road", [0.5, 0.4, 0.3, 0.2, 0.1])
def test_a_lower_threshold_of_roads_takes_no_ground_from_buildings(road):
    building = np.arange(180, 255, dtype=np.uint8)  # 0.71 and more, at a threshold of 0.6
    scores = np.stack([building, 254 - building])[:, None]
    assert (classify(scores, (0.6, road), (1, 2)) == 1).all()


def test_what_is_not_observed_is_neither_change_nor_no_change():
    scores = np.full((1, 2, 2), 229, np.uint8)
    valid = np.array([[True, False], [True, True]])
    encoded = hide_unobserved(scores, valid)
    assert classify(encoded, (0.5,), (1,)).tolist() == [[1, 255], [1, 1]]


@pytest.mark.parametrize(("tile", "overlap"), [(250, 64), (16, 0), (256, 256), (256, -1)])
def test_impossible_tiling_is_refused_when_it_is_built(tile, overlap):
    with pytest.raises(ConfigError):
        TilingConfig(tile_size=tile, overlap=overlap)
