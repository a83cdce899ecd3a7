"""Splits share no ground, have the shares that were asked for, and chips cover what there is."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geocd.archive.blocks import Blocks, Ground, chip_places, draw_splits, fitting_side
from geocd.errors import InputError
from geocd.rasters.grid import Grid

UTM = "EPSG:32633"
PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 300), width=st.integers(1, 300), overlap=st.integers(0, 31),
    side=st.integers(32, 200), seed=st.integers(0, 3),
)  # fmt: skip
def test_chips_of_different_splits_share_no_pixel(height, width, overlap, side, seed):
    grid = Grid(CRS.from_string(UTM), PLACE, height, width)
    ground, blocks = Ground(grid), Blocks.of_raster(grid, side)
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    try:
        splits = draw_splits(blocks, [ground], size=32, overlap=overlap, shares=shares, seed=seed)
    except InputError:
        return
    seen = {name: np.zeros((height + 32, width + 32), bool) for name in shares}
    for row, col in chip_places(ground, blocks, 32, overlap):
        name = splits.split(ground.chip((row, col), 32))
        if name is not None:
            seen[name][row : row + 32, col : col + 32] = True
    assert sum(plane.astype(int) for plane in seen.values()).max() <= 1


@pytest.mark.parametrize("crs", [UTM, "EPSG:3035"])
def test_ground_keeps_its_split_on_rasters_of_any_crs(crs):
    first = Grid(CRS.from_string(UTM), PLACE, 400, 400)
    other = Grid(CRS.from_string(UTM), PLACE @ Affine.translation(0.37, 5.6), 400, 400)
    if crs != UTM:
        left, top = 4_621_000, 2_465_000
        middle = geopandas.GeoSeries([first.footprint.centroid], crs=UTM).to_crs(crs).iloc[0]
        left, top = middle.x - 100, middle.y + 100
        other = Grid(CRS.from_string(crs), Affine(0.5, 0, left, 0, -0.5, top), 400, 400)
    grounds = [Ground(first), Ground(other)]
    blocks = Blocks.of_ground(first, 100)
    splits = draw_splits(blocks, grounds, size=32, overlap=8, seed=0,
                         shares={"train": 0.5, "test": 0.5})  # fmt: skip
    covered = {"train": [], "test": []}
    for ground in grounds:
        for place in chip_places(ground, blocks, 32, 8):
            chip = ground.chip(place, 32)
            name = splits.split(chip)
            if name is not None:
                outline = geopandas.GeoSeries([chip.footprint], crs=chip.crs.to_wkt())
                covered[name].append(outline.to_crs(UTM).iloc[0])
    assert min(map(len, covered.values())) > 20
    shared = shapely.union_all(covered["train"]).intersection(shapely.union_all(covered["test"]))
    assert shared.area < 1e-2


def test_every_pixel_of_a_raster_of_whole_blocks_is_covered_as_asked():
    grid = Grid(None, Affine.identity(), 5 * 80, 3 * 80)
    places = chip_places(Ground(grid), Blocks.of_raster(grid, 80), 32, 8)
    covered = np.zeros(grid.shape, int)
    for row, col in places:
        covered[row : row + 32, col : col + 32] += 1
    assert covered.min() == 1
    assert len(places) == 15 * 9  # three chips of stride 24 across a block of 80


@pytest.mark.parametrize(("shares", "blocks"), [((0.8, 0.1, 0.1), 100), ((0.5, 0.3, 0.2), 36)])
def test_splits_have_the_shares_that_were_asked_for(shares, blocks):
    side = int(blocks**0.5) * 32
    grid = Grid(None, Affine.identity(), side, side)
    named = dict(zip(("train", "val", "test"), shares, strict=True))
    splits = draw_splits(Blocks.of_raster(grid, 32), [Ground(grid)], size=32, overlap=0,
                         shares=named, seed=4)  # fmt: skip
    counts = {name: [*splits.split_of.values()].count(name) / blocks for name in named}
    assert counts == pytest.approx(named, abs=1.5 / blocks)


def test_blocks_are_as_large_as_leaves_enough_of_them():
    large, small = (Ground(Grid(None, Affine.identity(), n, n)) for n in (8000, 400))
    assert fitting_side([large], 64, 16, alone=True) == 64 + 7 * 48
    assert fitting_side([small], 64, 16, alone=True) == 64
