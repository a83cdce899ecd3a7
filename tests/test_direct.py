"""Pixels that coincide with the grid's are read as they are, and as a warp would give them."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

import geocd.rasters.scene as scenes
from geocd.rasters.direct import whole_pixel_shift
from geocd.rasters.grid import Grid
from geocd.rasters.scene import Sampler, Scene
from geocd.testing import paint_scene, write_raster

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SOUTH_UP = Affine(0.5, 0, 500_000, 0, 0.5, 4_990_000)
GRID = Grid(UTM, NORTH_UP, 60, 80)


def _read(path, grid):
    with Sampler(Scene.open(path), grid) as sampler:
        return sampler.read_raw(slice(0, grid.height), slice(0, grid.width), (1, 2, 3))


def _hole(image):
    mask = np.ones(image.shape[1:], bool)
    mask[10:20, 30:50] = False
    return mask


@pytest.mark.parametrize("kind", ["plain", "nodata", "one band nodata", "alpha", "mask", "float"])
@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, NORTH_UP @ Affine.rotation(30)])
@pytest.mark.parametrize("shift", [(0, 0), (-7, 5), (30, -40), (200, 0)])
def test_reading_without_a_warp_gives_what_a_warp_gives(
    tmp_path, monkeypatch, kind, transform, shift
):
    image, options = paint_scene((60, 80), seed=1), {}
    hole = _hole(image)
    if kind == "nodata":
        image, options = np.where(hole, image, 0), {"nodata": 0}
    elif kind == "one band nodata":
        image[1][~hole], options = 0, {"nodata": 0}
    elif kind in ("alpha", "mask"):
        options = {kind: hole}
    elif kind == "float":
        image = np.where(hole, image, np.nan).astype(np.float32)
    path = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=transform, **options)
    grid = Grid(UTM, transform @ Affine.translation(*shift[::-1]), 50, 70)
    values, valid = _read(path, grid)
    monkeypatch.setattr(scenes, "whole_pixel_shift", lambda *_: None)
    warped, usable = _read(path, grid)
    np.testing.assert_array_equal(valid, usable)
    np.testing.assert_array_equal(values[:, valid], warped[:, valid])


def test_a_shift_is_where_the_grid_begins_in_the_file():
    moved = Grid(UTM, NORTH_UP @ Affine.translation(3, -2), 10, 10)
    assert whole_pixel_shift(GRID, moved) == (-2, 3)


@pytest.mark.parametrize(
    "other",
    [
        Grid(UTM, NORTH_UP @ Affine.translation(0.3, 0), 60, 80),
        Grid(UTM, NORTH_UP @ Affine.scale(1.001), 60, 80),
        Grid(UTM, NORTH_UP @ Affine.rotation(0.1), 60, 80),
        Grid(CRS.from_epsg(32634), NORTH_UP, 60, 80),
        Grid(None, NORTH_UP, 60, 80),
    ],
    ids=["fraction", "scale", "rotation", "CRS", "no CRS"],
)
def test_pixels_that_differ_have_no_shift(other):
    assert whole_pixel_shift(GRID, other) is None
