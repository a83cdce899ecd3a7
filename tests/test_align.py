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

from geocd.align import GrayPair, Motion, estimate, estimate_arrays
from geocd.align.gate import MIN_JURY, judge, split_evidence
from geocd.align.reader import transform_points
from geocd.align.ties import Ties
from geocd.config import AlignConfig
from geocd.errors import ShapeError
from geocd.testing import fractal_noise, paint_scene, shifted_pair

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
        assert _error(found.motion.affine, Affine.translation(dx, dy)) < 0.1


def test_a_rotation_with_scale_is_found():
    truth = Affine.translation(6, -4) @ Affine.rotation(0.6, (260, 240)) @ Affine.scale(1.004)
    scene = _scene()
    found = estimate_arrays(scene, _moved(scene, truth))
    assert found.status == "applied"
    assert _error(found.motion.affine, truth) < 0.2
    assert found.residual_after_px < 0.3 < found.residual_before_px


def test_an_initial_error_of_sixty_pixels_is_bridged():
    before, after = shifted_pair(SHAPE, shift=(40, -45), seed=3)
    found = estimate_arrays(_gray(before), _gray(after))
    assert found.status == "applied"
    assert _error(found.motion.affine, Affine.translation(-45, 40)) < 0.1


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
    assert _error(found.motion.affine, Affine.translation(-5, 7)) < 0.15


def test_images_that_agree_already_are_left_alone():
    scene = _scene()
    found = estimate_arrays(scene, scene)
    assert found.status == "not needed"
    assert str(found).startswith("alignment not needed: the images already agree")
    assert found.motion.is_identity


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
    assert found.motion.is_identity
    assert found.reason
    assert str(found).startswith("not aligned")


def test_unrelated_places_are_never_warped():
    for seed in range(6):
        found = estimate_arrays(*(_scene((320, 340), seed=k) for k in (seed, 100 + seed)))
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


def _evidence(motion, held, fit=None):
    return split_evidence(
        "features", "shift", Motion(motion), held if fit is None else fit, held,
        tolerance=3.0, chance=0.001, reach=100.0,
    )  # fmt: skip


def _judged(motion, held, **settings):
    observed = np.ones((50, 50), bool)
    return judge(_evidence(motion, held), observed, (400, 400), config=AlignConfig(**settings))


@settings(max_examples=60, deadline=None)
@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(0, 2), st.integers(0, 10**6))
def test_no_motion_that_increases_the_held_out_residual_is_kept(dx, dy, blur, seed):
    # Any candidate, against any true shift of at most a pixel and ties of any exactness.
    rng = np.random.default_rng(seed)
    spots = rng.uniform(0, 400, (80, 2))
    held = Ties(spots, spots + rng.uniform(-1, 1, 2) + rng.normal(0, blur, spots.shape))
    motion = Affine.translation(dx, dy)
    verdict = _judged(motion, held, min_gain=0)
    away = [
        np.hypot(*(transform_points(m, held.reference) - held.moving).T)
        for m in (Affine.identity(), motion)
    ]
    explained = np.minimum(*away) < 3.0
    if verdict.status == "applied":
        assert np.median(away[1][explained]) <= np.median(away[0][explained])
    else:
        assert verdict.motion.is_identity


def test_a_motion_that_held_out_ties_confirm_is_kept():
    spots = np.random.default_rng(0).uniform(0, 400, (80, 2))
    motion = Affine.translation(2, -1)
    ties = Ties(spots, transform_points(motion, spots))
    verdict = _judged(motion, ties)
    assert verdict.status == "applied"
    assert verdict.motion == Motion(motion)


def _fine_grained(shape, shift):
    """A pair whose texture is too fine to be seen in an overview a few times smaller."""
    height, width = shape
    wide = fractal_noise((height + 40, width + 40), np.random.default_rng(0), coarsest=5, finest=2)
    gray = np.clip(128 + 40 * wide, 0, 255).astype(np.uint8)
    dy, dx = shift
    return (
        gray[20 : 20 + height, 20 : 20 + width],
        gray[20 - dy : 20 - dy + height, 20 - dx : 20 - dx + width],
    )


def test_where_the_overview_shows_nothing_full_resolution_is_searched(monkeypatch):
    seen, split = [], Ties.split

    def _recorded(ties, seed):
        seen.append(ties)
        return split(ties, seed)

    monkeypatch.setattr(Ties, "split", _recorded)
    before, after = _fine_grained((1400, 1440), (9, -14))
    found = estimate_arrays(before, after, config=AlignConfig(overview_size=256))
    assert (found.status, found.method) == ("applied", "features"), found
    assert _error(found.motion.affine, Affine.translation(-14, 9), (1400, 1440)) < 0.05
    # Windows of this search overlap, and no spot may sit on both sides of the hold-out.
    spots = seen[-1].reference
    apart = np.abs(spots[:, None] - spots[None]).max(axis=2)
    assert len(spots) > 100
    assert (apart[np.triu_indices(len(spots), 1)] >= 0.5).all()


def test_the_same_seed_gives_the_same_motion():
    before, after = (_gray(i) for i in shifted_pair((320, 340), shift=(3.3, 2.2), seed=6))
    assert estimate_arrays(before, after, seed=5) == estimate_arrays(before, after, seed=5)


def test_switched_off_reads_nothing():
    def _refuse(*_, **__):
        raise AssertionError("read")

    found = estimate(_refuse, SHAPE, config=AlignConfig(mode="off"))
    assert found.status == "off"
    assert found.motion.is_identity


def test_a_large_raster_is_aligned_from_bounded_pieces():
    # Computed where it is asked for: a scene that repeats every 1000 pixels, far out of reach.
    shape, truth, sizes = (1500, 1400), Affine.translation(9.0, -6.0), []
    scene = _scene((1001, 1001))

    def _seen(place, size, step):
        xs, ys = np.meshgrid(*((np.arange(n) + 0.5) for n in size))
        x, y = (v.astype(np.float32) for v in place @ (xs, ys))
        source = cv2.GaussianBlur(scene, (0, 0), 0.4 * step) if step > 1 else scene
        return cv2.remap(source, (x - 0.5) % 1000, (y - 0.5) % 1000, cv2.INTER_LINEAR)

    def _read(rows, cols, *, step, motion):
        place = Affine.translation(cols.start, rows.start) @ Affine.scale(step)
        height, width = (int(np.ceil((s.stop - s.start) / step)) for s in (rows, cols))
        sizes.append((height, width))
        valid = np.ones((height, width), bool)
        before = _seen(place, (width, height), step)
        after = _seen(~truth @ motion @ place, (width, height), step)
        return GrayPair(before, after, valid, valid)

    found = estimate(_read, shape, config=AlignConfig(overview_size=512))
    assert max(map(max, sizes)) <= 1100
    assert sum(h * w for h, w in sizes) < 1.3 * shape[0] * shape[1]
    assert found.status == "applied", found
    assert _error(found.motion.affine, truth, shape) < 0.1


def test_phase_correlation_takes_over_where_features_fail(monkeypatch):
    # The package's function of that name hides the module.
    task = sys.modules["geocd.align.estimate"]._Task
    monkeypatch.setattr(task, "_by_features", lambda *_: None)
    before, after = (_gray(i) for i in shifted_pair((600, 640), shift=(5, -8), seed=2))
    found = estimate_arrays(before, after)
    assert (found.status, found.method) == ("applied", "phase")
    assert _error(found.motion.affine, Affine.translation(-8, 5)) < 0.2


def test_fine_texture_under_noise_that_features_miss_is_aligned_by_its_phase():
    rng = np.random.default_rng(0)
    scene = 128 + 20 * fractal_noise((592, 592), rng, coarsest=1)
    noisy = [
        np.clip(part + rng.normal(0, 30, part.shape), 0, 255).astype(np.uint8)
        for part in (scene[40:552, 40:552], scene[47:559, 29:541])
    ]
    found = estimate_arrays(*noisy)
    assert (found.status, found.method) == ("applied", "phase")
    assert _error(found.motion.affine, Affine.translation(11, -7)) < 0.2


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 300), st.sampled_from([0, 40]), st.integers(0, 99))
def test_strips_and_specks_are_refused_and_never_an_error(height, width, noise, seed):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(128, noise, (2, height, width)).clip(0, 255).astype(np.uint8)
    valid = rng.random((height, width)) > 0.3
    found = estimate_arrays(before, after, valid_moving=valid)
    assert found.status == "refused"
    assert found.motion.is_identity
    assert found.reason


def test_what_was_measured_can_be_stored_as_json():
    before, after = (_gray(i) for i in shifted_pair((320, 340), shift=(3, 2), seed=6))
    stored = json.loads(json.dumps(estimate_arrays(before, after).to_dict()))
    assert stored["status"] == "applied"
    assert len(stored["motion"]["affine"]) == 6


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ShapeError):
        estimate_arrays(_scene(), _scene((100, 100)))
