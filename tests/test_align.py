"""Motions are found, judged on held-out tie points, and refused where they would harm."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geocd.align import GrayPair, estimate, estimate_arrays
from geocd.align.gate import MIN_JURY, unaligned
from geocd.config import AlignConfig
from geocd.errors import ShapeError
from geocd.testing import paint_scene, shifted_pair

SHAPE = (480, 520)


def _gray(image):
    return image.mean(axis=0).astype(np.uint8)


def _scene(shape=SHAPE, seed=1):
    return _gray(paint_scene(shape, seed=seed))


def _moved(scene, motion):
    """What the after image looks like if ``motion`` is true (corners of pixels at integers)."""
    centred = Affine.translation(-0.5, -0.5) @ motion @ Affine.translation(0.5, 0.5)
    matrix = np.array([[centred.a, centred.b, centred.c], [centred.d, centred.e, centred.f]])
    return cv2.warpAffine(scene, matrix, scene.shape[::-1], flags=cv2.INTER_CUBIC,
                          borderMode=cv2.BORDER_REFLECT_101)  # fmt: skip


def _error(found, truth, shape=SHAPE):
    """Dense root mean square distance between two motions, pixels."""
    rows, cols = np.mgrid[0 : shape[0] : 20, 0 : shape[1] : 20].astype(float)
    pairs = [
        np.stack([m.a * cols + m.b * rows + m.c, m.d * cols + m.e * rows + m.f])
        for m in (found, truth)
    ]
    return float(np.sqrt(((pairs[0] - pairs[1]) ** 2).sum(axis=0).mean()))


@settings(max_examples=8, deadline=None)
@given(st.floats(-20, 20), st.floats(-20, 20), st.integers(0, 50))
def test_a_shift_is_found_to_a_tenth_of_a_pixel(dy, dx, seed):
    before, after = shifted_pair((320, 340), shift=(dy, dx), seed=seed)
    found = estimate_arrays(_gray(before), _gray(after))
    if found.status == "not needed":
        assert np.hypot(dy, dx) < 0.5
    else:
        assert found.status == "applied", found
        assert _error(found.motion, Affine.translation(dx, dy)) < 0.1


def test_a_rotation_with_scale_is_found():
    truth = Affine.translation(6, -4) @ Affine.rotation(0.6, (260, 240)) @ Affine.scale(1.004)
    scene = _scene()
    found = estimate_arrays(scene, _moved(scene, truth))
    assert found.status == "applied"
    assert _error(found.motion, truth) < 0.2
    assert found.residual_after_px < 0.3 < found.residual_before_px


def test_an_initial_error_of_sixty_pixels_is_bridged():
    before, after = shifted_pair(SHAPE, shift=(40, -45), seed=3)
    found = estimate_arrays(_gray(before), _gray(after))
    assert found.status == "applied"
    assert _error(found.motion, Affine.translation(-45, 40)) < 0.1


@pytest.mark.parametrize("trouble", ["change", "holes", "gamma and haze", "noise"])
def test_what_real_pairs_bring_does_not_spoil_a_shift(trouble):
    before, after = (_gray(i) for i in shifted_pair(SHAPE, shift=(7, -5), seed=4))
    valid = np.ones(SHAPE, bool)
    if trouble == "change":
        other = _scene(seed=99)
        after[100:380, 60:330] = other[100:380, 60:330]  # 30 % of the area
    elif trouble == "holes":
        valid[:160], valid[300:, 400:] = False, False
        after = np.where(valid, after, 0).astype(np.uint8)
    elif trouble == "gamma and haze":
        after = (90 + 120 * (after / 255) ** 1.8).astype(np.uint8)
    else:
        noise = np.random.default_rng(0).normal(0, 12, SHAPE)
        after = np.clip(after + noise, 0, 255).astype(np.uint8)
    found = estimate_arrays(before, after, valid_moving=valid)
    assert found.status == "applied", found
    assert _error(found.motion, Affine.translation(-5, 7)) < 0.15


def test_images_that_agree_already_are_left_alone():
    scene = _scene()
    found = estimate_arrays(scene, scene)
    assert found.status == "not needed"
    assert found.motion == Affine.identity()


def _nothing_to_align():
    scene, valid = _scene(), np.ones(SHAPE, bool)
    yield "unrelated", scene, _scene(seed=77), valid
    yield "no texture", np.full(SHAPE, 90, np.uint8), np.full(SHAPE, 120, np.uint8), valid
    yield "all nodata", scene, scene, np.zeros(SHAPE, bool)
    yield "mirrored", scene, scene[:, ::-1].copy(), valid
    yield "upside down", scene, scene[::-1, ::-1].copy(), valid
    yield "too small", scene[:20, :20], scene[:20, :20], valid[:20, :20]


@pytest.mark.parametrize(
    ("before", "after", "valid"),
    [pytest.param(*case, id=name) for name, *case in _nothing_to_align()],
)
def test_what_cannot_be_aligned_is_refused_with_a_reason(before, after, valid):
    found = estimate_arrays(before, after, valid_moving=valid)
    assert found.status == "refused"
    assert found.motion == Affine.identity()
    assert found.reason
    assert str(found).startswith("not aligned")


def test_unrelated_places_are_never_warped():
    for seed in range(6):
        found = estimate_arrays(_scene(seed=seed), _scene(seed=100 + seed))
        assert found.status == "refused", seed


def test_a_warp_is_kept_only_if_held_out_ties_say_that_it_helps():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        before, after = shifted_pair((320, 320), shift=tuple(rng.uniform(-3, 3, 2)), seed=seed)
        after = np.clip(_gray(after) + rng.normal(0, 30, (320, 320)), 0, 255).astype(np.uint8)
        found = estimate_arrays(_gray(before), after)
        if found.status == "applied":
            gain = found.residual_before_px - found.residual_after_px
            assert gain >= AlignConfig().min_gain
            assert found.held_out >= MIN_JURY


def test_the_same_seed_gives_the_same_motion():
    before, after = (_gray(i) for i in shifted_pair(SHAPE, shift=(3.3, 2.2), seed=6))
    assert estimate_arrays(before, after, seed=5) == estimate_arrays(before, after, seed=5)


def test_switched_off_reads_nothing():
    def _refuse(*_, **__):
        raise AssertionError("read")

    found = estimate(_refuse, SHAPE, config=AlignConfig(mode="off"))
    assert (found.status, found.motion) == ("off", Affine.identity())


def test_a_large_raster_is_read_in_bounded_pieces_and_aligned_in_full_resolution():
    # A sparse field of blocks, computed where it is asked for: no array of the whole exists.
    truth, sizes = Affine.translation(9.0, -6.0), []

    def _texture(xs, ys):
        column, row = (np.floor(v / 9).astype(np.int64).astype(np.uint32) for v in (xs, ys))
        mixed = column * np.uint32(73856093) ^ row * np.uint32(19349663)
        mixed = (mixed ^ mixed >> np.uint32(13)) * np.uint32(1274126177)
        blocks = (mixed ^ mixed >> np.uint32(16)) / 2**32
        return (40 + 170 * blocks).astype(np.uint8)

    def _read(rows, cols, *, step, motion):
        height = int(np.ceil((rows.stop - rows.start) / step))
        width = int(np.ceil((cols.stop - cols.start) / step))
        sizes.append((height, width))
        ys, xs = np.mgrid[0:height, 0:width]
        xs, ys = cols.start + (xs + 0.5) * step, rows.start + (ys + 0.5) * step
        back = ~truth @ motion
        moved = _texture(back.a * xs + back.b * ys + back.c, back.d * xs + back.e * ys + back.f)
        valid = np.ones((height, width), bool)
        return GrayPair(_texture(xs, ys), moved, valid, valid)

    config = AlignConfig(overview_size=1024)
    found = estimate(_read, (2000, 2400), config=config)
    assert max(map(max, sizes)) <= 1024
    assert found.status == "applied", found
    assert _error(found.motion, truth, (2000, 2400)) < 0.2


def test_phase_correlation_takes_over_where_features_fail(monkeypatch):
    # The package's function of that name hides the module.
    task = sys.modules["geocd.align.estimate"]._Task
    monkeypatch.setattr(task, "by_features", lambda _: unaligned("refused", "no features"))
    before, after = (_gray(i) for i in shifted_pair((600, 640), shift=(5, -8), seed=2))
    found = estimate_arrays(before, after)
    assert (found.status, found.method) == ("applied", "phase-shift")
    assert _error(found.motion, Affine.translation(-8, 5)) < 0.2


def test_what_was_measured_can_be_stored_as_json():
    before, after = (_gray(i) for i in shifted_pair(SHAPE, shift=(3, 2), seed=6))
    stored = json.loads(json.dumps(estimate_arrays(before, after).to_dict()))
    assert stored["status"] == "applied"
    assert len(stored["motion"]) == 6


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ShapeError):
        estimate_arrays(_scene(), _scene((100, 100)))
