"""Scenes of every kind are read on one grid; what is not observed is told apart."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geocd.align import Motion
from geocd.errors import (
    BandError,
    ConfigError,
    CrsMismatchError,
    GeocdWarning,
    InputError,
    NoOverlapError,
    RasterOpenError,
)
from geocd.rasters.grid import Grid, reproject_geometry
from geocd.rasters.pair import load_area, open_pair, reading_grid
from geocd.rasters.scene import Sampler, Scene
from geocd.rasters.write import RowWriter, read_provenance, return_freed_memory, write_cog
from geocd.testing import paint_scene, write_raster

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


def _image(height: int = 60, width: int = 80, bands: int = 3) -> np.ndarray:
    return paint_scene((height, width), seed=1)[:bands]


def _read(scene: Scene, grid: Grid, bands=(1,), **options):
    with Sampler(scene, grid, **options) as sampler:
        return sampler.read(slice(0, grid.height), slice(0, grid.width), bands)


def _whole(path: Path, bands=(1,), **options):
    scene = Scene.open(path)
    return _read(scene, scene.grid, bands, **options)


# Grids


@given(st.floats(0.05, 20), st.integers(1, 400), st.integers(1, 400))
def test_a_scaled_grid_covers_the_same_ground(factor, height, width):
    grid = Grid(UTM, NORTH_UP, height, width)
    scaled = grid.scaled(factor, factor)
    assert scaled.footprint.buffer(1e-3 * factor).contains(grid.footprint)
    assert scaled.height * factor < height + factor + 1e-6


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 50), st.integers(1, 50))
def test_the_slices_over_a_crop_are_the_crop(row, height, col, width):
    grid = Grid(UTM, NORTH_UP @ Affine.rotation(20), 100, 100)
    rows, cols = slice(row, row + height), slice(col, col + width)
    assert grid.slices_over(grid.crop(rows, cols).footprint) == (rows, cols)


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        (UTM, NORTH_UP, (0.5, 0.5)),
        (UTM, NORTH_UP @ Affine.rotation(30), (0.5, 0.5)),
        (CRS.from_epsg(4326), Affine(1e-5, 0, 15, 0, -1e-5, 60), (1.1141, 0.558)),
        (CRS.from_epsg(3857), Affine(1, 0, 1.67e6, 0, -1, 8_399_738), (0.5, 0.5)),
        (CRS.from_epsg(2263), Affine(1, 0, 980_000, 0, -1, 200_000), (0.3048, 0.3048)),
    ],
)
def test_the_ground_sample_distance_is_metres_in_any_crs(crs, transform, metres):
    assert Grid(crs, transform, 10, 10).gsd() == pytest.approx(metres, rel=5e-3)


# Scenes


def test_a_scene_is_a_jpeg(tmp_path):
    write_raster(tmp_path / "a.tif", _image(), crs=None, transform=Affine.identity())
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.jpg", driver="JPEG", QUALITY=95)
    values, valid = _whole(tmp_path / "a.jpg", (1, 2, 3))
    assert valid.all()
    assert np.abs(values.astype(int) - _image()).mean() < 12


@pytest.mark.parametrize("suffix", [".tif", ".png", ".vrt"])
def test_a_scene_is_a_file_of_any_raster_format(tmp_path, suffix):
    image = _image()
    path = write_raster(tmp_path / "a.tif", image, crs=None, transform=Affine.identity())
    if suffix == ".png":
        path = tmp_path / "a.png"
        rasterio.shutil.copy(tmp_path / "a.tif", path, driver="PNG")
    if suffix == ".vrt":
        path = tmp_path / "a.vrt"
        rasterio.shutil.copy(tmp_path / "a.tif", path, driver="VRT")
    values, valid = _whole(path, (1, 2, 3))
    np.testing.assert_array_equal(values, image)
    assert valid.all()


def test_a_scene_is_a_url(tmp_path):
    write_raster(tmp_path / "a.tif", _image(), crs=UTM, transform=NORTH_UP)
    # A process of its own: GDAL may hold the interpreter while it waits for the answer.
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        port = re.search(r"port (\d+)", server.stdout.readline()).group(1)
        values, _ = _whole(f"http://127.0.0.1:{port}/a.tif")
    finally:
        server.kill()
    np.testing.assert_array_equal(values[0], _image()[0])


def test_a_folder_of_tiles_is_one_mosaic_with_its_gaps(tmp_path):
    image = _image(60, 100)
    parts = {"a": (slice(0, 40), slice(0, 50)), "b": (slice(0, 60), slice(50, 98))}
    for name, (rows, cols) in parts.items():
        transform = NORTH_UP @ Affine.translation(cols.start, rows.start)
        write_raster(tmp_path / f"{name}.tif", image[:, rows, cols], crs=UTM, transform=transform)
    scene = Scene.open(tmp_path)
    assert scene.grid == Grid(UTM, NORTH_UP, 60, 98)
    values, valid = _read(scene, scene.grid, (1, 2, 3))
    expected = np.ones((60, 98), bool)
    expected[40:, :50] = False
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(values[:, valid], image[:, :, :98][:, expected])


def test_where_tiles_overlap_the_later_name_lies_on_top(tmp_path):
    for name, value in (("a", 10), ("b", 20)):
        write_raster(tmp_path / f"{name}.tif", np.full((1, 8, 8), value, np.uint8), crs=UTM,
                     transform=NORTH_UP)  # fmt: skip
    assert (_whole(tmp_path)[0] == 20).all()


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 500_000, 0, 0.5, 4_999_970),  # south-up
        NORTH_UP @ Affine.rotation(25),
        NORTH_UP @ Affine.rotation(-100) @ Affine.scale(1, 1.5),
    ],
)
def test_south_up_and_rotated_rasters_are_read_where_they_lie(tmp_path, transform):
    image = _image()
    path = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=transform)
    values, valid = _whole(path)
    assert valid.all()
    np.testing.assert_array_equal(values[0], image[0])
    # Read on a north-up grid, the centre pixel shows the same ground.
    x, y = transform @ (40.5, 30.5)
    grid = Grid(UTM, Affine(0.5, 0, x - 0.25, 0, -0.5, y + 0.25), 1, 1)
    assert abs(int(_read(Scene.open(path), grid)[0][0, 0, 0]) - int(image[0, 30, 40])) <= 12


# What is not observed


def _holed() -> tuple[np.ndarray, np.ndarray]:
    image = np.clip(_image(), 1, 255)
    valid = np.ones(image.shape[1:], bool)
    valid[10:30, 20:50] = False
    return image, valid


@pytest.mark.parametrize("how", ["nodata", "alpha", "mask", "nan", "uint16 nodata"])
def test_a_hole_is_not_observed_however_it_is_marked(tmp_path, how):
    image, valid = _holed()
    options = {}
    if how == "nodata":
        image, options = np.where(valid, image, 0).astype(np.uint8), {"nodata": 0}
    elif how == "uint16 nodata":
        image, options = np.where(valid, image * np.uint16(10), np.uint16(65535)), {"nodata": 65535}
    elif how == "nan":
        image = np.where(valid, image, np.nan).astype(np.float32)
    else:
        options = {how: valid}
    path = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=NORTH_UP, **options)
    np.testing.assert_array_equal(_whole(path)[1], valid)


def test_outside_the_image_is_not_observed(tmp_path):
    path = write_raster(tmp_path / "a.tif", _image(), crs=UTM, transform=NORTH_UP)
    larger = Grid(UTM, NORTH_UP @ Affine.translation(-7, -3), 70, 100)
    _, valid = _read(Scene.open(path), larger)
    expected = np.zeros((70, 100), bool)
    expected[3:63, 7:87] = True
    np.testing.assert_array_equal(valid, expected)


def test_a_hole_in_one_date_is_not_observed_and_looks_the_same_on_both(tmp_path):
    image, valid = _holed()
    one = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=NORTH_UP)
    two = write_raster(tmp_path / "b.tif", np.where(valid, image, 0).astype(np.uint8), crs=UTM,
                       transform=NORTH_UP, nodata=0)  # fmt: skip
    for before, after in ((one, two), (two, one)):
        with open_pair(before, after, channels=3).reader() as reader:
            window = reader.read(slice(0, 60), slice(0, 80))
        np.testing.assert_array_equal(window.valid, valid)
        np.testing.assert_array_equal(window.before, window.after)


# Values


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_other_types_are_stretched_to_bytes_keeping_their_order(tmp_path, dtype):
    image = _image().astype(np.float64)
    path = write_raster(tmp_path / "a.tif", (image * 11 + 300).astype(dtype), crs=UTM,
                        transform=NORTH_UP)  # fmt: skip
    stretch = Scene.open(path).stretch((1, 2, 3))
    values, _ = _whole(path, (1, 2, 3), stretch=stretch)
    assert values.dtype == np.uint8
    assert values.min() == 0
    assert values.max() == 255
    assert np.corrcoef(values.ravel(), image.ravel())[0, 1] > 0.99


def test_bytes_are_never_stretched(tmp_path):
    path = write_raster(tmp_path / "a.tif", _image() // 4, crs=UTM, transform=NORTH_UP)
    assert Scene.open(path).stretch((1, 2, 3)) == (0, 255)


def test_bands_are_chosen_in_the_order_asked_for(tmp_path):
    image = np.stack([np.full((8, 8), v, np.uint8) for v in (10, 20, 30, 40)])
    path = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=NORTH_UP)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:3], rasterio.enums.ColorInterp.undefined]
    scene = Scene.open(path)
    assert scene.choose_bands(3, None) == (1, 2, 3)
    values, _ = _whole(path, scene.choose_bands(3, (4, 2, 1)))
    assert values[:, 0, 0].tolist() == [40, 20, 10]


def test_one_band_serves_for_all_channels(tmp_path):
    path = write_raster(tmp_path / "a.tif", _image(bands=1), crs=UTM, transform=NORTH_UP)
    values, _ = _whole(path, Scene.open(path).choose_bands(3, None))
    np.testing.assert_array_equal(values[0], values[2])


@pytest.mark.parametrize(
    ("count", "bands"), [(2, None), (3, (1, 2, 7)), (4, (1, 2)), (3, (0, 1, 2))]
)
def test_bands_that_do_not_fit_are_refused(tmp_path, count, bands):
    image = np.zeros((count, 8, 8), np.uint8)
    path = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=NORTH_UP)
    with pytest.raises(BandError):
        Scene.open(path).choose_bands(3, bands)


def test_a_band_that_is_marked_as_alpha_is_not_taken_for_values(tmp_path):
    path = write_raster(tmp_path / "a.tif", _image(), crs=UTM, transform=NORTH_UP,
                        alpha=np.ones((60, 80)))  # fmt: skip
    with pytest.raises(BandError, match="colorinterp_4 undefined"):
        Scene.open(path).choose_bands(3, (4, 2, 1))


@pytest.mark.parametrize(
    ("tag", "value"),
    [("TIFFTAG_DATETIME", "2019:06:14 10:12:00"), ("ACQUISITIONDATETIME", "2019-06-14T10:12:00Z")],
)
def test_the_acquisition_date_is_read_from_the_tags(tmp_path, tag, value):
    path = write_raster(tmp_path / "a.tif", _image(), crs=UTM, transform=NORTH_UP,
                        tags={tag: value})  # fmt: skip
    assert Scene.open(path).date == "2019-06-14"


# Pairs


def _pair(tmp_path, *, transform=NORTH_UP, crs=UTM, after=None, **options):
    before = write_raster(tmp_path / "before.tif", _image(), crs=UTM, transform=NORTH_UP)
    image = _image() if after is None else after
    later = write_raster(tmp_path / "after.tif", image, crs=crs, transform=transform)
    return open_pair(before, later, channels=3, **options)


def test_the_common_grid_is_befores_over_the_intersection(tmp_path):
    shift = Affine.translation(10.5, -5.25)
    pair = _pair(tmp_path, transform=NORTH_UP @ shift)
    assert pair.output_grid == Grid(UTM, NORTH_UP, 60, 80)
    assert pair.grid == pair.output_grid.crop(slice(0, 55), slice(10, 80))
    with pair.reader() as reader:
        window = reader.read(slice(0, 55), slice(0, 70))
    # Column 10 lies half outside: its centre is on the after image's edge.
    assert window.valid[:54, 1:].all()


def test_another_crs_and_resolution_show_the_same_ground(tmp_path):
    image = paint_scene((160, 200), seed=3)
    path = write_raster(tmp_path / "before.tif", image, crs=UTM, transform=NORTH_UP)
    target = CRS.from_epsg(3035)
    with rasterio.open(path) as dataset:
        transform, width, height = rasterio.warp.calculate_default_transform(
            UTM, target, 200, 160, *dataset.bounds, resolution=0.4
        )
        warped = np.zeros((3, height, width), np.uint8)
        rasterio.warp.reproject(image, warped, src_transform=NORTH_UP, src_crs=UTM, dst_crs=target,
                                dst_transform=transform, resampling=rasterio.enums.Resampling.cubic,
                                dst_nodata=0)  # fmt: skip
    after = write_raster(tmp_path / "after.tif", warped, crs=target, transform=transform, nodata=0)
    with open_pair(path, after, channels=3).reader() as reader:
        window = reader.read(slice(10, 150), slice(10, 190))
    difference = np.abs(window.before.astype(int) - window.after)[:, window.valid]
    assert window.valid.mean() > 0.98
    assert difference.mean() < 6


def test_a_motion_is_applied_together_with_the_reading(tmp_path):
    image = paint_scene((100, 120), seed=5)
    shifted = np.roll(image, (4, -3), axis=(1, 2))
    before = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=NORTH_UP)
    after = write_raster(tmp_path / "b.tif", shifted, crs=UTM, transform=NORTH_UP)
    pair = open_pair(before, after, channels=3).with_motion(Motion(Affine.translation(-3, 4)))
    with pair.reader() as reader:
        window = reader.read(slice(10, 90), slice(10, 110))
    np.testing.assert_array_equal(window.before, window.after)


@pytest.mark.parametrize(
    ("gsd", "expected"),
    [(0.5, 0.5), (0.2, 0.4), (1.6, 1.0), (5.0, 2.5), (0.41, 0.41), (0.995, 0.995)],
)
def test_a_pair_is_read_within_the_range_of_the_weights(gsd, expected):
    grid = Grid(UTM, Affine(gsd, 0, 500_000, 0, -gsd, 5_000_000), 300, 400)
    read = reading_grid(grid, gsd_range=(0.4, 1.0))
    assert read.pixel_size == pytest.approx((expected, expected), rel=1e-3)


def test_oblong_pixels_are_read_square():
    grid = Grid(CRS.from_epsg(4326), Affine(6e-6, 0, 15, 0, -6e-6, 60), 300, 400)
    dy, dx = reading_grid(grid, gsd_range=(0.4, 1.0)).gsd()
    assert dy == pytest.approx(dx, rel=1e-2)


def test_a_gsd_without_known_pixels_is_refused():
    with pytest.raises(ConfigError, match="pixel_size"):
        reading_grid(Grid(None, NORTH_UP, 10, 10), gsd_range=None, gsd=0.5)


def test_images_without_a_crs_run_in_pixel_units(tmp_path):
    before = write_raster(tmp_path / "a.tif", _image(), crs=None, transform=Affine.identity())
    after = write_raster(tmp_path / "b.tif", _image(), crs=None, transform=Affine.identity())
    pair = open_pair(before, after, channels=3, gsd_range=(0.4, 1.0))
    assert pair.grid == Grid(None, Affine(1, 0, 0, 0, -1, 0), 60, 80)
    with pair.reader() as reader:
        window = reader.read(slice(0, 60), slice(0, 80))
    np.testing.assert_array_equal(window.before, _image())
    assert window.valid.all()


def test_an_area_of_interest_hides_the_rest(tmp_path):
    ring = shapely.box(500_010, 4_999_980, 500_020, 4_999_990)
    lonlat = reproject_geometry(shapely.segmentize(ring, 1), UTM, CRS.from_epsg(4326))
    aoi = tmp_path / "aoi.geojson"
    aoi.write_text(json.dumps(shapely.geometry.mapping(lonlat)))
    pair = _pair(tmp_path, area=aoi)
    with pair.reader() as reader:
        window = reader.read(slice(0, pair.grid.height), slice(0, pair.grid.width))
    assert pair.grid.shape == pytest.approx((20, 20), abs=1)
    assert window.valid.sum() == pytest.approx(400, abs=20)


@pytest.mark.parametrize("shape", [(1, 80), (60, 1), (1, 1), (5, 7)])
def test_strips_and_specks_can_be_read(tmp_path, shape):
    image = _image()[:, : shape[0], : shape[1]]
    path = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=NORTH_UP)
    with open_pair(path, path, channels=3).reader() as reader:
        window = reader.read(slice(0, shape[0]), slice(0, shape[1]))
    np.testing.assert_array_equal(window.before, image)
    assert window.valid.all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 60), st.integers(1, 20))
def test_a_window_equals_the_same_part_of_the_whole(row, height, col, width):
    image = _image()
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", height=60, width=80, count=3, dtype="uint8", crs=UTM,
                         transform=NORTH_UP) as dataset:  # fmt: skip
            dataset.write(image)
        scene = Scene.open(memory.name)
        with Sampler(scene, scene.grid) as sampler:
            part, _ = sampler.read(slice(row, row + height), slice(col, col + width), (1, 2, 3))
    np.testing.assert_array_equal(part, image[:, row : row + height, col : col + width])


# Bad input


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RasterOpenError, match=r"nowhere\.tif.*no such file"):
        Scene.open(tmp_path / "nowhere.tif")


@pytest.mark.parametrize("content", [b"", b"hello", b"II*\x00\x08\x00\x00\x00"])
def test_a_file_that_is_no_raster_is_refused(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(RasterOpenError):
        Scene.open(tmp_path / "a.tif")


def test_a_truncated_raster_is_named_when_it_is_read(tmp_path):
    path = write_raster(tmp_path / "a.tif", paint_scene((600, 600), seed=2), crs=UTM,
                        transform=NORTH_UP)  # fmt: skip
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RasterOpenError, match=r"a\.tif"):
        _whole(path, (1, 2, 3))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(RasterOpenError, match="no rasters in the folder"):
        Scene.open(tmp_path)


def test_tiles_of_different_kinds_are_refused(tmp_path):
    write_raster(tmp_path / "a.tif", _image(), crs=UTM, transform=NORTH_UP)
    write_raster(tmp_path / "b.tif", _image(bands=1), crs=UTM, transform=NORTH_UP)
    with pytest.raises(BandError, match=r"b\.tif"):
        Scene.open(tmp_path)


def test_a_colour_table_is_refused_with_what_to_do(tmp_path):
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=8, width=8, count=1,
                       dtype="uint8", crs=UTM, transform=NORTH_UP) as dataset:  # fmt: skip
        dataset.write_colormap(1, {0: (0, 0, 0, 255), 1: (9, 9, 9, 255)})
    with pytest.raises(BandError, match="gdal_translate -expand rgb"):
        Scene.open(tmp_path / "a.tif")


def test_images_that_share_no_ground_are_refused_with_their_bounds(tmp_path):
    with pytest.raises(NoOverlapError, match="before covers 500000"):
        _pair(tmp_path, transform=NORTH_UP @ Affine.translation(500, 0))


@pytest.mark.parametrize("bare", ["before", "after"])
def test_a_crs_on_one_side_only_is_refused(tmp_path, bare):
    paths = [
        write_raster(tmp_path / f"{name}.tif", _image(), crs=None if name == bare else UTM,
                     transform=NORTH_UP)
        for name in ("before", "after")
    ]  # fmt: skip
    with pytest.raises(CrsMismatchError, match=rf"{bare}\.tif has no CRS"):
        open_pair(*paths, channels=3)


def test_an_area_outside_the_images_is_refused(tmp_path):
    aoi = tmp_path / "aoi.geojson"
    aoi.write_text(json.dumps(shapely.geometry.mapping(shapely.box(1, 1, 2, 2))))
    with pytest.raises(NoOverlapError, match="area of interest"):
        _pair(tmp_path, area=aoi)


def test_an_area_that_is_no_polygon_is_refused(tmp_path):
    aoi = tmp_path / "aoi.geojson"
    aoi.write_text(json.dumps(shapely.geometry.mapping(shapely.Point(15, 45))))
    with pytest.raises(InputError, match="no polygon"):
        load_area(aoi, Grid(UTM, NORTH_UP, 10, 10))


def test_much_coarser_imagery_than_the_weights_want_is_warned_of(tmp_path):
    coarse = Affine(5, 0, 500_000, 0, -5, 5_000_000)
    path = write_raster(tmp_path / "a.tif", _image(), crs=UTM, transform=coarse)
    with pytest.warns(GeocdWarning, match="expect little"):
        open_pair(path, path, channels=3, gsd_range=(0.4, 1.0))


# Writing


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 700), st.integers(1, 90), st.lists(st.integers(1, 300), min_size=1))
def test_rows_written_in_any_portions_come_back(tmp_path_factory, height, width, portions):
    path = tmp_path_factory.mktemp("w") / "a.tif"
    grid = Grid(UTM, NORTH_UP, height, width)
    image = np.random.default_rng(0).integers(0, 255, (2, height, width)).astype(np.uint8)
    with RowWriter(path, grid, bands=("a", "b")) as writer:
        top = 0
        while top < height:
            for portion in portions:
                writer.write(image[:, top : top + portion])
                top = min(height, top + portion)
                if top == height:
                    break
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), image)
        assert dataset.descriptions == ("a", "b")


def test_a_cog_keeps_provenance_colours_and_place(tmp_path):
    grid = Grid(UTM, NORTH_UP, 40, 50)
    with RowWriter(tmp_path / "t.tif", grid, bands=("change",),
                   colours={0: (0, 0, 0, 255), 1: (200, 10, 20, 255)}) as writer:  # fmt: skip
        writer.tag({"geocd": "x", "weights": {"name": "w"}})
        writer.write(np.ones((1, 40, 50), np.uint8))
    write_cog(tmp_path / "t.tif", tmp_path / "c.tif", overviews="mode")
    with rasterio.open(tmp_path / "c.tif") as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (dataset.crs, dataset.transform, dataset.shape) == (UTM, NORTH_UP, (40, 50))
        assert dataset.colormap(1)[1][:3] == (200, 10, 20)
        assert dataset.nodata == 255
    assert read_provenance(tmp_path / "c.tif")["weights"] == {"name": "w"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have no such call")
def test_freed_memory_goes_back_to_the_system():
    def _resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    blocks = [bytearray(100_000) for _ in range(600)]
    above = blocks.pop()  # in use, above all the others
    blocks.clear()
    held = _resident()
    return_freed_memory()
    assert held - _resident() > 40e6
    assert len(above) == 100_000


def test_where_freed_memory_cannot_be_handed_back_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    return_freed_memory()
