"""Windows of a large raster lie where those of work units do: both see the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

import geocd
from geocd.archive.index import index_archive
from geocd.archive.merge import merge_run
from geocd.archive.plan import plan_archive, read_plan
from geocd.archive.rules import PlanRules
from geocd.archive.run import run_plan
from geocd.config import AlignConfig, DetectConfig, PredictConfig, TilingConfig
from geocd.rasters.grid import Grid
from geocd.rasters.pair import open_pair, with_fixed_windows
from geocd.rasters.scene import Sampler, Scene
from geocd.testing import paint_scene, write_raster

UTM = CRS.from_epsg(32633)
TINY = TilingConfig(tile_size=64, overlap=16)


@pytest.mark.parametrize(
    ("transform", "place"),
    [
        (Affine(0.5, 0, 500_010, 0, -0.5, 4_999_990), (-9_999_980, 1_000_020)),
        # 366837 / 0.6 is 611395, a little more or less in floats.
        (Affine(0.6, 0, 366_837 - 1e-9, 0, -0.6, 600 + 1e-9), (-1000, 611_395)),
        (Affine(0.5, 0, -10.2, 0, -0.5, -3.3), (7, -21)),
        (Affine(0.5, 0, 0, 0, 0.5, 0), None), (Affine(0.5, 0.1, 0, 0.1, -0.5, 0), None),
    ],
)  # fmt: skip
def test_pixels_are_counted_from_the_origin_of_the_crs(transform, place):
    assert Grid(UTM, transform, 10, 20).place_from_origin == place
    assert Grid(None, transform, 10, 20).place_from_origin is None


def _large_pair(folder, monkeypatch, **options):
    monkeypatch.setattr("geocd.rasters.pair.LARGE", 90 * 110)
    place = Affine(0.5, 0, 48 * 0.5 * 1000 + 13 * 0.5, 0, -0.5, 48 * 0.5 * 1000 - 40 * 0.5)
    path = write_raster(folder / "x.tif", paint_scene((100, 110), seed=1), transform=place,
                        **{"crs": UTM} | options)  # fmt: skip
    return open_pair(path, path, channels=3)


def test_windows_of_a_large_pair_do_not_depend_on_where_it_begins(tmp_path, monkeypatch):
    pair = _large_pair(tmp_path, monkeypatch)
    moved = with_fixed_windows(pair, pair.grid, tile=64, step=48)
    row, col = moved.grid.place_from_origin
    assert (row % 48, col % 48) == (0, 0)
    # Every window that touches a pixel, and no other: rows 40 to 140, columns 13 to 123.
    assert moved.grid.shape == (48 * 2 + 64, 48 * 3 + 64)
    assert (row - -48_000, col - 48_000) == (0, -48)
    assert moved.output_grid == pair.output_grid
    # An area of interest shows what all of it would show there.
    part = replace(pair, grid=pair.grid.crop(slice(30, 60), slice(50, 90)))
    inner = with_fixed_windows(part, pair.grid, tile=64, step=48).grid.place_from_origin
    assert (inner[0] % 48, inner[1] % 48) == (0, 0)


def test_windows_of_units_small_pairs_and_pairs_without_a_place_stay(tmp_path, monkeypatch):
    pair = _large_pair(tmp_path, monkeypatch)
    unit = replace(pair, grid=pair.grid.crop(slice(8, 72), slice(-13, 99)))
    assert with_fixed_windows(unit, pair.grid, tile=64, step=48) is unit
    small = replace(pair, grid=pair.grid.crop(slice(0, 90), slice(0, 110)))
    assert with_fixed_windows(small, small.grid, tile=64, step=48) is small
    nowhere = _large_pair(tmp_path, monkeypatch, crs=None)
    assert with_fixed_windows(nowhere, nowhere.grid, tile=64, step=48) is nowhere


def test_coarser_reading_does_not_depend_on_how_far_a_grid_reaches_beyond_a_scene(tmp_path):
    image = paint_scene((200, 240), seed=1).repeat(2, axis=1).repeat(2, axis=2)
    path = write_raster(
        tmp_path / "x.tif", image, crs=UTM, transform=Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    )
    grid = Scene.open(path).grid.scaled(1.99, 1.99)
    wide = grid.crop(slice(-90, grid.height + 150), slice(-140, grid.width + 30))
    with Sampler(Scene.open(path), grid) as near, Sampler(Scene.open(path), wide) as far:
        whole, seen = near.read(slice(0, grid.height), slice(0, grid.width), (1, 2, 3))
        again, _ = far.read(slice(90, 90 + grid.height), slice(140, 140 + grid.width), (1, 2, 3))
    np.testing.assert_allclose(again[:, seen].astype(int), whole[:, seen], atol=1)


def _scores_on_both_ways(folder, paths, config):
    """Scores of a pair cut into units, and of the whole raster."""
    index_archive([folder / "t"], folder / "a.parquet", date_pattern="YYYY-MM-DD")
    plan_archive(folder / "a.parquet", folder / "p.parquet",
                 rules=PlanRules(unit_size=96, halo=48, tiling=TINY))  # fmt: skip
    assert len(read_plan(folder / "p.parquet")) == 4
    assert not run_plan(folder / "p.parquet", folder / "out", config=config).failed
    units = merge_run(folder / "out", folder / "c.gpkg", mosaic="vrt")
    geocd.detect(*paths, folder / "w.gpkg", scores=folder / "w.tif", config=config)
    with rasterio.open(units.mosaics[0]) as pieces, rasterio.open(folder / "w.tif") as one:
        return pieces.read(window=pieces.window(*one.bounds)), one.read()


@pytest.mark.parametrize("finer", [1, 2])
def test_a_network_sees_the_same_windows_in_units_and_in_one_large_raster(
    tmp_path, finer, monkeypatch
):
    monkeypatch.setattr("geocd.rasters.pair.LARGE", 100 * 100)
    predict = PredictConfig(precision="float32", first_look=False)
    config = DetectConfig(
        align=AlignConfig(mode="off"), shift_check=False, tiling=TINY, predict=predict
    )
    before = paint_scene((130, 150), seed=5) // 2 + 40
    after = before.copy()
    after[:, 40:80, 30:120] = 250
    (tmp_path / "t").mkdir()
    place = Affine(0.5 / finer, 0, 499_980, 0, -0.5 / finer, 4_999_948)
    paths = [
        write_raster(tmp_path / f"t/{date}.tif",
                     image.repeat(finer, axis=1).repeat(finer, axis=2), crs=UTM, transform=place)
        for date, image in (("2015-06-01", before), ("2018-06-01", after))
    ]  # fmt: skip
    units, whole = _scores_on_both_ways(tmp_path, paths, config)
    apart = np.abs(units.astype(int) - whole)
    assert len(np.unique(whole)) > 20
    assert apart.max() <= 1
