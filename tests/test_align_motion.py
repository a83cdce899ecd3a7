"""A motion is smooth, bounded, the same from every grid, and known to fold where it does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geocd.align import Motion
from geocd.align.patches import block_edges
from geocd.align.spline import Lattice, Normal, trust_of
from geocd.align.ties import Ties
from geocd.errors import ShapeError

SHAPE = (240, 320)


def _motion(seed=0, size=1.0):
    lattice = Lattice.over(SHAPE, spacing=80)
    rng = np.random.default_rng(seed)
    field = rng.normal(0, size, (lattice.rows, lattice.cols, 2)).astype(np.float32)
    return Motion(Affine.translation(3, -2) @ Affine.rotation(0.3), field, lattice.knots)


def _centres(rows, cols, step):
    x = cols.start + (np.arange(-(-(cols.stop - cols.start) // step)) + 0.5) * step
    y = rows.start + (np.arange(-(-(rows.stop - rows.start) // step)) + 0.5) * step
    return np.stack(np.meshgrid(x, y), axis=-1)


@pytest.mark.parametrize("step", [1, 3])
def test_positions_of_a_window_are_those_of_its_pixels(step):
    rows, cols = slice(17, 80), slice(200, 320)
    centres = _centres(rows, cols, step)
    found = _motion().positions(rows, cols, step=step)
    np.testing.assert_allclose(found, _motion()(centres.reshape(-1, 2)).reshape(centres.shape))


@settings(max_examples=20, deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.25, 4), st.floats(0.25, 4))
def test_a_motion_seen_from_another_grid_moves_the_same_ground(x, y, across, down):
    place = Affine.translation(x, y) @ Affine.scale(across, down)
    points = np.random.default_rng(0).uniform(-100, 400, (50, 2))
    there = np.column_stack(~place @ tuple(points.T))
    seen = _motion().seen_from(place)(there)
    np.testing.assert_allclose(np.column_stack(place @ tuple(seen.T)), _motion()(points), atol=1e-4)


def test_a_field_never_exceeds_its_control_points_and_is_not_extrapolated():
    motion = _motion(size=5.0)
    far = np.array([[-1000.0, 50], [0, 50], [2000, 9000], [320, 240]])
    moved = motion.displacement(far)
    assert np.abs(moved).max() <= np.abs(motion.field).max()
    np.testing.assert_allclose(moved[0], moved[1])
    np.testing.assert_allclose(motion.displacement(far * 10)[2], moved[2])


def test_folding_is_seen():
    assert not _motion(size=0.5).folds()
    lattice = Lattice.over(SHAPE, spacing=80)
    field = np.zeros((lattice.rows, lattice.cols, 2), np.float32)
    field[:, 3, 0] = 200  # carries a column of ground over its neighbour
    assert Motion(field=field, knots=lattice.knots).folds()
    assert Motion(Affine.scale(-1, 1)).folds()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.floats(1, 60))
def test_what_is_not_said_to_fold_is_one_to_one(seed, size):
    motion = _motion(seed, size)
    if not motion.folds():
        found = motion.positions(slice(0, 240), slice(0, 320), step=2.0)
        across, down = np.diff(found, axis=1)[:-1], np.diff(found, axis=0)[:, :-1]
        assert (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0] > 0).all()


def test_a_motion_can_be_stored_as_json():
    motion = _motion()
    stored = json.loads(json.dumps(motion.to_dict()))
    np.testing.assert_allclose(stored["field"]["displacement"], motion.field, atol=1e-4)
    np.testing.assert_allclose(stored["affine"], motion.affine[:6])
    assert Motion().to_dict()["field"] is None


@pytest.mark.parametrize("shape", [(3, 5, 2), (5, 5), (5, 5, 3)])
def test_a_field_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError):
        Motion(field=np.zeros(shape, np.float32))


def test_knots_that_turn_are_refused():
    with pytest.raises(ShapeError):
        Motion(field=np.zeros((5, 5, 2), np.float32), knots=Affine.rotation(10))


@settings(max_examples=40, deadline=None)
@given(st.integers(32, 30000), st.integers(32, 30000))
def test_blocks_share_no_pixel_and_their_number_has_a_bound(height, width):
    area = 1
    for edges, length in zip(block_edges((height, width)), (height, width), strict=True):
        ends = np.concatenate([np.column_stack([e[:-1], e[1:]]) for e in edges])
        assert (ends[:, 0] < ends[:, 1]).all()
        assert (ends[:-1, 1] <= ends[1:, 0]).all()
        assert ends[0, 0] == 0
        assert ends[-1, 1] == length
        assert len(ends) <= 128
        area *= int((ends[:, 1] - ends[:, 0]).sum())
    assert area <= 70e6


def test_a_spline_follows_ties_and_forgets_false_ones():
    lattice, rng = Lattice.over(SHAPE, spacing=80), np.random.default_rng(0)
    spots = rng.uniform(0, [320, 240], (400, 2))
    truth = 0.8 * np.column_stack([np.sin(spots[:, 1] / 50), np.cos(spots[:, 0] / 60)])
    seen = truth + rng.normal(0, 0.02, truth.shape)
    seen[:60] += rng.uniform(-3, 3, (60, 2))
    design, weight, trust = lattice.design(spots), np.ones(400), np.ones(400)
    for _ in range(5):
        control = Normal.of(design, seen, weight * trust).solve(lattice.energy, 0.001)
        trust = trust_of(np.hypot(*(seen - design @ control).T), weight)
    assert np.hypot(*(design @ control - truth)[60:].T).mean() < 0.05
    assert trust[:60].mean() < 0.2


def test_neighbours_are_held_out_together():
    spots = np.random.default_rng(0).uniform(0, 1000, (600, 2))
    fit, held = Ties(spots, spots).split(seed=3)
    assert 0.25 < len(held) / 600 < 0.4
    squares = [
        set(map(tuple, np.floor(t.reference / np.ptp(spots, 0).max() * 10))) for t in (fit, held)
    ]
    assert not squares[0] & squares[1]
