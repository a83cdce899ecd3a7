"""However a raster is read and batched, its scores are the same, and no pixel is read twice."""

from __future__ import annotations

import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from arithmetic import Arithmetic
from hypothesis import given, settings
from hypothesis import strategies as st

import geocd.predict.flow as flow
from geocd.clock import Clock, profile_table
from geocd.config import DetectConfig, PredictConfig, TilingConfig, parse_bytes
from geocd.errors import ConfigError
from geocd.models.files import find_weights, read_card
from geocd.predict.flow import score_pieces
from geocd.predict.memory import fit_batch, memory_needed
from geocd.rasters.fill import fill_unobserved

CARD = read_card(find_weights("geocd-vhr"))
MIB = 2**20


class _Mean(Arithmetic):
    """Scores that depend on the whole window, as those of a network do."""

    def __call__(self, before, after):
        levels = (
            after.astype(int).sum(axis=1) + before.mean(axis=(1, 2, 3), dtype=int)[:, None, None]
        )
        return np.stack([levels % 255, levels % 199], axis=1).astype(np.uint8)


class _Scene:
    """Two dates with holes, that count how often each pixel is read."""

    def __init__(self, shape, seed=0):
        rng = np.random.default_rng(seed)
        self.dates = rng.integers(0, 255, (2, 3, *shape), np.uint8)
        self.valid = rng.random(shape) > 0.2
        self.valid[: shape[0] // 3, : shape[1] // 2] = False
        self.reads = np.zeros(shape, int)

    def read(self, rows, cols):
        self.reads[rows, cols] += 1
        before, after = self.dates[:, :, rows, cols]
        seen = self.valid[rows, cols]
        return SimpleNamespace(before=before, after=after, seen=seen, valid=seen)


def _scores(scene, tiling, batch_size, read_width, stripe_width=8192):
    old, flow.READ_WIDTH = flow.READ_WIDTH, read_width
    try:
        predictor = _Mean(SimpleNamespace(card=CARD))
        rows = score_pieces(predictor, scene.read, scene.valid.shape, tiling=tiling,
                            batch_size=batch_size, stripe_width=stripe_width)  # fmt: skip
        scores, tops = np.zeros((2, *scene.valid.shape), np.uint8), {}
        for piece in rows:
            top = tops.get(piece.left, 0)
            height, width = piece.levels.shape[1:]
            scores[:, top : top + height, piece.left : piece.left + width] = piece.levels
            tops[piece.left] = top + height
        return scores
    finally:
        flow.READ_WIDTH = old


def _one_by_one(scene, tiling):
    """The answer without any flow: windows in whole-raster arrays, averaged by their shares."""
    from geocd.tiling.windows import blending_weights, split, starts

    shape = scene.valid.shape
    total = np.zeros((2, *shape))
    shares = [blending_weights(n, tiling) for n in shape]
    begins = [starts(n, tiling.tile_size, tiling.overlap) for n in shape]
    for window in split(shape, tiling):
        place = (slice(None), *window.slices)
        seen = scene.valid[window.slices]
        if not seen.any():
            continue
        before, after = (fill_unobserved(date[place], seen)[None] for date in scene.dates)
        rows = shares[0][begins[0].index(window.row)]
        cols = shares[1][begins[1].index(window.col)]
        total[place] += _Mean(SimpleNamespace(card=CARD))(before, after)[0] * np.outer(rows, cols)
    return total


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 150), st.integers(1, 150), st.sampled_from([32, 48, 64]), st.floats(0, 0.9),
    st.integers(1, 9), st.integers(1, 200), st.integers(20, 200),
)  # fmt: skip
def test_any_plan_gives_identical_scores_and_reads_no_pixel_twice(
    height, width, tile, share, batch, read_width, stripe
):
    scene, tiling = _Scene((height, width)), TilingConfig(tile_size=tile, overlap=int(share * tile))
    planned = _scores(scene, tiling, batch, read_width)
    assert (scene.reads == 1).all()
    np.testing.assert_array_equal(planned, _scores(scene, tiling, 1, 10_000))
    np.testing.assert_array_equal(planned, _scores(scene, tiling, batch, read_width, stripe))
    assert (planned[:, ~scene.valid] == 255).all()
    expected = _one_by_one(scene, tiling)[:, scene.valid]
    assert np.abs(planned[:, scene.valid] - expected).max(initial=0) <= 0.5 + 1e-3


def test_a_run_that_is_given_up_stops_all_its_threads():
    scene = _Scene((200, 64))
    rows = score_pieces(_Mean(SimpleNamespace(card=CARD)), scene.read, (200, 64),
                      tiling=TilingConfig(tile_size=32, overlap=0), batch_size=1)  # fmt: skip
    next(rows)
    rows.close()
    assert not any(t.name == "geocd-prefetch" for t in threading.enumerate())


def test_the_clock_tells_the_overlapping_stages_apart():
    clock = Clock()
    scene = _Scene((64, 64))
    list(score_pieces(_Mean(SimpleNamespace(card=CARD)), scene.read, (64, 64),
                    tiling=TilingConfig(tile_size=32, overlap=0), batch_size=2,
                    clock=clock))  # fmt: skip
    assert set(clock.wall) == {"read", "network", "stitch"}
    stages = Clock()
    with stages.stage("predict"):
        pass
    assert {"predict", "read", "network", "stitch"} <= set(
        profile_table(stages, "predict", clock).split()
    )


# Memory


def _bounded(memory, **tiling):
    return DetectConfig(predict=PredictConfig(memory=memory, batch_size=64),
                        tiling=TilingConfig(**tiling))  # fmt: skip


def test_the_batch_is_the_largest_that_fits_the_memory():
    shape = (40_000, 40_000)
    config = _bounded(1500 * MIB)
    batch = fit_batch(shape, CARD, config)
    assert 1 <= batch < 64
    assert memory_needed(shape, CARD, config.with_batch(batch)) <= 1500 * MIB
    assert memory_needed(shape, CARD, config.with_batch(batch + 1)) > 1500 * MIB


def test_without_a_bound_the_batch_is_as_configured():
    assert fit_batch((1000, 1000), CARD, DetectConfig(predict=PredictConfig(batch_size=5))) == 5


def test_memory_follows_the_width_and_not_the_height():
    config = DetectConfig()
    wide, tall = (memory_needed(s, CARD, config) for s in ((1000, 40_000), (40_000, 1000)))
    assert tall == pytest.approx(memory_needed((1000, 1000), CARD, config), rel=1e-3)
    assert wide > tall
    largest, small = (memory_needed((n, n), CARD, config) for n in (40_000, 10_000))
    assert largest < 1.5 * 1024 * MIB
    assert largest < 1.1 * small


def test_too_little_memory_is_refused_with_what_is_needed():
    with pytest.raises(ConfigError, match=r"needs about \d+ MiB.*smaller tile size"):
        fit_batch((1000, 1000), CARD, _bounded(200 * MIB))
    with pytest.raises(ConfigError, match="1024 pixels"):
        fit_batch((4000, 4000), dataclasses.replace(CARD, width=400), _bounded(800 * MIB,
                  tile_size=1024))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 << 30), ("1.5 GiB", 3 << 29), ("800m", 800 << 20), ("4096", 4096), ("64kB", 65536)],
)
def test_sizes_of_memory_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["much", "2 GBytes", "-1GB", ""])
def test_what_is_no_size_of_memory_is_refused(text):
    with pytest.raises(ConfigError, match="memory"):
        parse_bytes(text)


def test_a_tile_that_its_overlap_fills_is_refused():
    with pytest.raises(ConfigError, match="less than the tile size"):
        TilingConfig(tile_size=64, overlap=64)


def test_ground_that_nobody_observed_does_not_pile_up():
    scene = _Scene((4000, 64))
    scene.valid[:] = False
    pieces = score_pieces(
        _Mean(SimpleNamespace(card=CARD)), scene.read, scene.valid.shape,
        tiling=TilingConfig(tile_size=32, overlap=16), batch_size=8,
    )  # fmt: skip
    next(pieces)
    # Two batches wait in each of two queues, two are in hand: 4 strips of 16 rows each.
    assert scene.reads.any(axis=1).sum() < 1000
    pieces.close()
