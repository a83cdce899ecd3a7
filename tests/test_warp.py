"""Through a field of displacements, pixels come from where the motion says, resampled once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geocd.align import Motion
from geocd.rasters.grid import Grid, transformer_between
from geocd.rasters.pair import open_pair
from geocd.rasters.scene import Sampler, Scene
from geocd.rasters.warp import Lattice, locator, place_through, transform_array
from geocd.testing import paint_scene, write_raster

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
GRID = Grid(UTM, NORTH_UP, 120, 150)


def _field(seed: int = 0, *, amplitude: float = 2.0, spacing: float = 40.0) -> Motion:
    """A motion that bends, over ``GRID``."""
    rng = np.random.default_rng(seed)
    control = rng.uniform(-amplitude, amplitude, (6, 7, 2)).astype(np.float32)
    knots = Affine.translation(1, 1) @ Affine.scale(1 / spacing)
    return Motion(Affine.translation(0.7, -1.3), control, knots)


def _still() -> Motion:
    """A field that moves nothing."""
    return replace(_field(), affine=Affine.identity(), field=np.zeros((6, 7, 2), np.float32))


def _wave(x, y):
    """A smooth image that is known everywhere: a colour at a place in pixels."""
    return np.stack([128 + 80 * np.sin(x / 9) * np.cos(y / 11), 100 + x / 4 + y / 5])


def _centres(height, width):
    return np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)


def _read(path, grid, motion, *, bands=(1, 2, 3), rows=None, cols=None):
    place = place_through(grid, motion, Affine.identity())
    near = replace(grid, transform=grid.transform @ motion.affine)
    with Sampler(Scene.open(path), near, place=place) as sampler:
        return sampler.read_raw(rows or slice(0, grid.height), cols or slice(0, grid.width), bands)


def _read_gdal(path, grid, *, bands=(1, 2, 3)):
    with Sampler(Scene.open(path), grid) as sampler:
        return sampler.read_raw(slice(0, grid.height), slice(0, grid.width), bands)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_a_pixel_shows_what_the_motion_points_at(tmp_path, dtype):
    motion, gain = _field(), 1 if dtype == "uint8" else 100
    image = _wave(*_centres(*GRID.shape)) * gain
    image = (image if dtype.startswith("float") else np.rint(image)).astype(dtype)
    path = write_raster(tmp_path / "a.tif", image, grid=GRID)
    values, valid = _read(path, GRID, motion, bands=(1, 2))
    x, y = np.moveaxis(motion.positions(slice(0, 120), slice(0, 150)), -1, 0)
    inside = valid & (x > 2) & (y > 2) & (x < 148) & (y < 118)
    truth = _wave(x, y) * gain
    assert values.dtype == dtype
    assert inside.mean() > 0.9
    assert np.abs(values.astype(float) - truth)[:, inside].max() < gain * 0.05 + 1.1


@pytest.mark.parametrize("shrink", [1.0, 2.0, 3.3])
@pytest.mark.parametrize("crs", [UTM, CRS.from_epsg(4326)], ids=["same CRS", "degrees"])
def test_a_field_that_moves_nothing_reads_as_gdal_does(tmp_path, shrink, crs):
    transform = NORTH_UP
    if crs != UTM:
        lon, lat = transformer_between(UTM, crs).transform(500_000, 5_000_000)
        transform = Affine(6.5e-6, 0, lon, 0, -4.5e-6, lat)
    image = paint_scene((180, 200), seed=1)
    image[:, 40:60, 50:90] = 0
    path = write_raster(tmp_path / "a.tif", image, crs=crs, transform=transform, nodata=0)
    grid = Grid(UTM, NORTH_UP @ Affine.translation(3.3, 5.6), 90, 110).scaled(shrink, shrink)
    gdal, seen_by_gdal = _read_gdal(path, grid)
    values, valid = _read(path, grid, _still())
    both = valid & seen_by_gdal
    assert (valid == seen_by_gdal).mean() > 0.99
    away = np.abs(values[:, both].astype(int) - gdal[:, both])
    # GDAL approximates reprojection to an eighth of a pixel, and so cannot be met closer.
    assert away.mean() < (0.1 if crs == UTM and shrink == 1 else 2)
    assert np.percentile(away, 99) <= (1 if crs == UTM and shrink == 1 else 12)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 110), st.integers(1, 60), st.integers(0, 140), st.integers(1, 60),
       st.sampled_from([1.0, 2.4]))  # fmt: skip
def test_reading_by_windows_is_reading_the_whole(tmp_path_factory, top, height, left, width, fine):
    folder = tmp_path_factory.mktemp("seams")
    source = GRID.scaled(1 / fine, 1 / fine)
    path = write_raster(folder / "a.tif", paint_scene(source.shape, seed=3), grid=source, nodata=9)
    whole, valid = _read(path, GRID, _field())
    rows, cols = slice(top, min(top + height, 120)), slice(left, min(left + width, 150))
    part, seen = _read(path, GRID, _field(), rows=rows, cols=cols)
    np.testing.assert_array_equal(seen, valid[rows, cols])
    assert np.abs(part.astype(int) - whole[:, rows, cols]).max() <= 1


def test_blocks_leave_no_seam(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", paint_scene(GRID.shape, seed=3), grid=GRID)
    whole, _ = _read(path, GRID, _field())
    monkeypatch.setattr("geocd.rasters.warp._BLOCK", 32)
    np.testing.assert_array_equal(_read(path, GRID, _field())[0], whole)


def test_detail_finer_than_the_grid_does_not_alias(tmp_path):
    stripes = np.tile(np.array([0, 200], np.uint8), (480, 300))[None]
    fine = GRID.scaled(0.25, 0.25)
    path = write_raster(tmp_path / "a.tif", stripes, grid=fine)
    values, valid = _read(path, GRID, _field(), bands=(1,))
    inside = values[0, 6:-6, 6:-6][valid[6:-6, 6:-6]]
    assert np.abs(inside.astype(int) - 100).max() <= 6


@pytest.mark.parametrize("kind", ["nodata", "alpha", "mask", "nan"])
def test_holes_move_with_the_ground(tmp_path, kind):
    image = paint_scene(GRID.shape, seed=2)
    there = np.ones(GRID.shape, bool)
    there[30:70, 50:100] = False
    options = {}
    if kind == "nodata":
        image, options = np.where(there, image, 0), {"nodata": 0}
    elif kind == "nan":
        image = np.where(there, image.astype("float32"), np.nan)
    else:
        options = {kind: there}
    path = write_raster(tmp_path / "a.tif", image, grid=GRID, **options)
    motion = _field()
    values, valid = _read(path, GRID, motion)
    x, y = np.moveaxis(motion.positions(slice(0, 120), slice(0, 150)), -1, 0)
    # A hole's edge lies between the centres of pixels; a pixel more or less is no error.
    hole = (x > 51) & (x < 99) & (y > 31) & (y < 69)
    around = (x > 1) & (y > 1) & (x < 149) & (y < 119)
    around &= (x < 49) | (x > 101) | (y < 29) | (y > 71)
    assert not valid[hole].any()
    assert valid[around].all()
    assert np.isfinite(values[:, valid]).all()
    assert values[:, valid].min() >= 1 - (kind == "nan") * 60  # floats may overshoot, bytes not


def test_a_scene_of_tiles_is_read_without_a_seam(tmp_path):
    image = paint_scene(GRID.shape, seed=4)
    whole = write_raster(tmp_path / "whole.tif", image, grid=GRID)
    (tmp_path / "tiles").mkdir()
    # Tiles overlap, as those of a survey do, or their edges could not be interpolated.
    for k, cols in enumerate((slice(0, 80), slice(70, 150))):
        part = GRID.crop(slice(0, 120), cols)
        write_raster(tmp_path / "tiles" / f"{k}.tif", image[:, :, cols], grid=part)
    values, valid = _read(tmp_path / "tiles", GRID, _field())
    truth, seen = _read(whole, GRID, _field())
    np.testing.assert_array_equal(valid, seen)
    # The kernel meets the edge of a tile on two pixels either side.
    assert (values != truth).any(axis=(0, 1)).sum() <= 12
    assert np.abs(values.astype(int) - truth).max() < 40


@pytest.mark.parametrize("crs", [UTM, CRS.from_epsg(3035), CRS.from_epsg(4326)])
def test_positions_between_knots_are_exact_to_a_hundredth_of_a_pixel(crs):
    grid = Grid(UTM, NORTH_UP, 2000, 2400)
    control = np.random.default_rng(1).uniform(-2, 2, (28, 33, 2)).astype(np.float32)
    motion = Motion(Affine.rotation(0.2), control, Affine.translation(1, 1) @ Affine.scale(1 / 80))
    corner = np.column_stack(transformer_between(UTM, crs).transform([500_000], [5_000_000]))[0]
    size = 0.5 if crs.is_projected else 5e-6
    source = Grid(crs, Affine(size, 0, corner[0], 0, -size, corner[1]), 2000, 2400)
    locate = locator(place_through(grid, motion, Affine.identity()), grid, source)
    lattice = Lattice(locate, grid.shape)
    found = lattice.positions(slice(300, 900), slice(700, 1500), (1, 1))
    x, y = np.meshgrid(np.arange(700, 1500) + 0.5, np.arange(300, 900) + 0.5)
    exact = locate(np.column_stack([x.ravel(), y.ravel()])).T.reshape(found.shape)
    assert np.abs(found - exact).max() < 0.01


def test_a_pair_is_read_through_a_field_at_any_step(tmp_path):
    # After shows the ground two pixels further right; the motion says so, and bends nothing.
    image = paint_scene((140, 180), seed=6)
    grid = Grid(UTM, NORTH_UP, 120, 150)
    before = write_raster(tmp_path / "b.tif", image[:, 10:130, 10:160], grid=grid)
    after = write_raster(tmp_path / "a.tif", image[:, 10:130, 8:158], grid=grid)
    pair = open_pair(before, after, channels=3)
    moved = pair.with_motion(replace(_still(), affine=Affine.translation(2, 0)))
    for step in (1.0, 3.0):
        window = slice(20, 80), slice(30, 120)
        with moved.reader(step=step, window=window) as reader:
            everything = slice(0, reader.grid.height), slice(0, reader.grid.width)
            first, _, second, valid = reader.read_dates(*everything)
        assert valid.all()
        away = np.abs(first.astype(int) - second)
        assert away.mean() < (0.1 if step == 1 else 1.5)


def test_what_no_projection_can_place_is_not_observed(tmp_path):
    # UTM has no answer on the far side of the earth.
    path = write_raster(tmp_path / "a.tif", paint_scene((60, 60), seed=1), crs=UTM,
                        transform=NORTH_UP)  # fmt: skip
    grid = Grid(CRS.from_epsg(4326), Affine(3, 0, -180, 0, -3, 90), 60, 120)
    _, valid = _read(path, grid, _still())
    assert not valid.any()


def test_a_transform_of_points_is_that_of_affine():
    points = np.array([[3.0, 4.0], [-1.0, 0.5]])
    moved = transform_array(NORTH_UP, points)
    assert [tuple(p) for p in moved] == [NORTH_UP @ tuple(p) for p in points]
