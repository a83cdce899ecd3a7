"""Painted scenes show what they promise, and the public asserts can fail."""

from __future__ import annotations

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from geocd.config import CLASS_CODES, NOT_OBSERVED
from geocd.errors import ConfigError, ShapeError
from geocd.rasters.grid import Grid
from geocd.testing import (
    Light,
    Suburb,
    assert_valid_change_layer,
    comparison_picture,
    fractal_noise,
    paint_scene,
    paint_survey,
    plan_suburb,
    render,
    score_against_truth,
    shifted_pair,
    write_raster,
)
from geocd.testing.plan import Box, Building

NOON = Light(azimuth=180, elevation=50, lushness=0.5)
BUILDING, ROAD = CLASS_CODES["building"], CLASS_CODES["road"]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return paint_survey(
        tmp_path_factory.mktemp("survey"),
        size=(512, 480),
        seed=3,
        buildings_appeared=4,
        buildings_disappeared=2,
        roads_appeared=1,
    )


def on_grid(path, grid):
    """Bands and valid mask of a raster, resampled to a grid."""
    with (
        rasterio.open(path) as raster,
        WarpedVRT(
            raster, crs=grid.crs, transform=grid.transform, height=grid.height,
            width=grid.width, resampling=Resampling.cubic,
        ) as view,
    ):  # fmt: skip
        return view.read(), view.dataset_mask() > 0


def displacement(reference, moving):
    """(row, col) by phase correlation of the upper left parts."""
    gray = [cv2.cvtColor(np.moveaxis(i, 0, -1), cv2.COLOR_RGB2GRAY) for i in (reference, moving)]
    # OpenCV pads other sizes, and its answer is then off by half a pixel.
    side = 192 if min(gray[0].shape) >= 300 else 128
    first, second = (g[:side, :side].astype(np.float32) for g in gray)
    window = cv2.createHanningWindow((side, side), cv2.CV_32F)
    (col, row), _ = cv2.phaseCorrelate(first, second, window)
    return row, col


# -- the survey ------------------------------------------------------------------------------


def few(folder, **options):
    return paint_survey(
        folder,
        **{
            "size": (320, 320), "buildings_appeared": 1, "buildings_disappeared": 1,
            "roads_appeared": 0, "seed": 2, **options,
        },
    )  # fmt: skip


def test_equal_seeds_paint_equal_files_and_others_do_not(tmp_path):
    first, again = few(tmp_path / "a"), few(tmp_path / "b")
    other = few(tmp_path / "c", seed=11)
    for name in ("before", "after"):
        pixels = [rasterio.open(getattr(s, name)).read() for s in (first, again, other)]
        assert np.array_equal(pixels[0], pixels[1])
        assert pixels[0].shape != pixels[2].shape or (pixels[0] != pixels[2]).any()
    assert first.truth.geom_equals(again.truth).all()


def test_exactly_the_changes_asked_for_are_painted(survey):
    counts = survey.truth.groupby(["kind", "direction"]).size().to_dict()
    assert counts == {
        ("building", "appeared"): 4, ("building", "disappeared"): 2, ("road", "appeared"): 1
    }  # fmt: skip
    assert [c.polygon for c in survey.changes] == list(survey.truth.geometry)


def test_truth_polygons_and_truth_mask_agree(survey):
    assert survey.truth.crs == survey.grid.crs
    assert survey.truth_mask.shape == survey.grid.shape == (512, 480)
    pixel = abs(survey.grid.transform.determinant)
    rows, cols = np.mgrid[0.5:512, 0.5:480]
    x, y = survey.grid.transform * (cols, rows)
    expected = np.zeros_like(survey.truth_mask)
    for change in survey.changes:
        expected[shapely.contains_xy(change.polygon, x, y)] = CLASS_CODES[change.kind]
        assert change.pixels * pixel == pytest.approx(change.polygon.area, rel=0.05)
    # Centres on an edge may fall on either side.
    assert (expected != survey.truth_mask).mean() < 1e-4


def test_the_dates_differ_in_crs_resolution_and_extent(survey):
    with rasterio.open(survey.before) as before, rasterio.open(survey.after) as after:
        assert before.crs == CRS.from_epsg(32633)
        assert after.crs == CRS.from_epsg(3035)
        assert before.res == (0.5, 0.5)
        assert after.res[0] == pytest.approx(0.45, abs=0.005)
        assert before.shape != after.shape
        assert (before.transform, before.shape) == (survey.grid.transform, survey.grid.shape)


def test_files_are_tiled_deflated_and_dated(survey):
    for path, year in ((survey.before, "2019:06:14"), (survey.after, "2024:09:02")):
        with rasterio.open(path) as raster:
            assert raster.profile["tiled"]
            assert raster.compression.name == "deflate"
            assert raster.tags()["TIFFTAG_DATETIME"].startswith(year)


@pytest.mark.parametrize("offset", [(5.0, -3.5), (0.0, 0.0), (-2.25, 6.5)])
def test_after_is_misregistered_by_the_stated_offset(tmp_path, offset):
    # One sun for both dates: shadows that turn with it would be measured as a shift.
    survey = few(tmp_path, misregistration_px=offset, lights=(NOON, NOON))
    before, _ = on_grid(survey.before, survey.grid)
    after, _ = on_grid(survey.after, survey.grid)
    assert survey.offset_px == offset
    assert displacement(before, after) == pytest.approx(offset, abs=0.3)


def test_before_is_valid_everywhere_and_after_has_a_nodata_margin(survey):
    with rasterio.open(survey.before) as before, rasterio.open(survey.after) as after:
        assert before.nodata is None
        assert after.nodata == 0
        pixels = after.read()
    there = (pixels > 0).all(axis=0)
    assert np.array_equal(there, (pixels > 0).any(axis=0))
    assert 0.05 < 1 - there.mean() < 0.4
    # The corners of the file are empty, because reprojection turned the picture.
    assert not there[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_one_corner_is_not_observed_after_and_holds_no_change(survey):
    _, seen = on_grid(survey.after, survey.grid)
    assert 0.02 < 1 - seen.mean() < 0.12
    assert not seen[-1, -1]
    assert not survey.truth_mask[~seen].any()


def test_colours_lie_near_those_of_real_tiles(survey):
    for path in (survey.before, survey.after):
        pixels, seen = on_grid(path, survey.grid)
        colours = pixels[:, seen].astype(float)
        assert ((colours.mean(axis=1) > 70) & (colours.mean(axis=1) < 130)).all()
        assert ((colours.std(axis=1) > 28) & (colours.std(axis=1) < 55)).all()


def test_what_did_not_change_is_painted_at_the_same_place():
    place = {"shape": (300, 300), "gsd": 0.5, "seed": 5}
    suburb = plan_suburb(
        150, 150, seed=5, buildings_appeared=2, buildings_disappeared=1, roads_appeared=0,
        observed=shapely.box(5, 5, 145, 145),
    )  # fmt: skip
    before = render(suburb, "before", NOON, **place).astype(float).mean(axis=0)
    after = render(suburb, "after", NOON, **place).astype(float).mean(axis=0)
    differences: dict[bool, list[float]] = {True: [], False: []}
    y, x = np.mgrid[0.25:150:0.5, 0.25:150:0.5]
    for building in suburb.buildings:
        inside = shapely.contains_xy(building.polygon.buffer(-1), x, y)
        if inside.any():
            difference = float(np.median(np.abs(before - after)[inside]))
            differences[building.stage == "both"].append(difference)
    assert len(differences[True]) > 3
    assert max(differences[True]) < 4
    assert len(differences[False]) == 3
    assert min(differences[False]) > 8


@pytest.mark.parametrize(
    ("azimuth", "shaded", "lit"), [(270, "east", "west"), (90, "west", "east")]
)
def test_shadows_fall_away_from_the_sun(azimuth, shaded, lit):
    hall = Building(
        (Box((30, 30), (1, 0), 20, 20),), "flat", "membrane", (200, 200, 200), 8.0, 0.0, 1
    )  # fmt: skip
    light = Light(azimuth=azimuth, elevation=45, lushness=0.5)
    place = Suburb(60, 60, buildings=[hall])
    image = render(place, "before", light, shape=(120, 120), gsd=0.5, seed=1).mean(axis=0)
    sides = {"west": image[46:74, 28:36].mean(), "east": image[46:74, 84:92].mean()}
    assert sides[shaded] < 0.7 * sides[lit]


def test_a_place_too_small_for_the_changes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="larger place"):
        few(tmp_path, buildings_appeared=500)
    with pytest.raises(ConfigError, match="larger place"):
        few(tmp_path, roads_appeared=50)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2263"])
def test_before_must_be_in_metres(tmp_path, crs):
    with pytest.raises(ConfigError, match="metres"):
        few(tmp_path, before_crs=crs)


def test_after_may_be_geographic(tmp_path):
    survey = few(tmp_path, after_crs="EPSG:4326")
    with rasterio.open(survey.after) as after:
        assert after.crs.is_geographic
    assert on_grid(survey.after, survey.grid)[1].mean() > 0.85


# -- cheap scenes ----------------------------------------------------------------------------


def test_noise_has_mean_zero_deviation_one_and_structure_of_the_size_asked_for():
    rng = np.random.default_rng(1)
    smooth = fractal_noise((200, 240), rng, coarsest=60, finest=20)
    rough = fractal_noise((200, 240), rng, coarsest=2, finest=1)
    for noise in (smooth, rough):
        assert noise.dtype == np.float32
        assert noise.mean() == pytest.approx(0, abs=1e-4)
        assert noise.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(smooth)).mean() < 0.15 < 0.4 < np.abs(np.diff(rough)).mean()


@pytest.mark.parametrize("shape", [(256, 256), (31, 200), (1, 64)])
def test_a_scene_is_textured_repeatable_and_free_of_zeros(shape):
    scene = paint_scene(shape, seed=4)
    assert scene.shape == (3, *shape)
    assert scene.dtype == np.uint8
    assert scene.min() >= 1
    assert scene.std() > 10
    assert np.array_equal(scene, paint_scene(shape, seed=4))
    assert not np.array_equal(scene, paint_scene(shape, seed=5))


@pytest.mark.parametrize("shift", [(4.0, -7.0), (0.5, 2.25), (0.0, 0.0)])
def test_a_shifted_pair_is_shifted_by_what_was_asked_for(shift):
    reference, moving = shifted_pair((200, 220), shift=shift, seed=2)
    assert reference.shape == moving.shape == (3, 200, 220)
    assert displacement(reference, moving) == pytest.approx(shift, abs=0.3)


def test_whole_pixels_of_shift_are_exact():
    reference, moving = shifted_pair((90, 80), shift=(4, -7), seed=2)
    assert np.array_equal(moving[:, 4:, :-7], reference[:, :-4, 7:])


def test_a_shift_longer_than_the_image_is_refused():
    with pytest.raises(ShapeError, match="shift"):
        shifted_pair((50, 60), shift=(55, 0), seed=1)


# -- small rasters ---------------------------------------------------------------------------

HERE = Grid(CRS.from_epsg(32633), Affine(2, 0, 400000, 0, -2, 5800000), 20, 30)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_written_raster_keeps_values_type_and_place(tmp_path, dtype):
    array = np.arange(1200).reshape(2, 20, 30).astype(dtype)
    path = write_raster(tmp_path / "a.tif", array, grid=HERE, nodata=7, tags={"WHO": "me"})
    with rasterio.open(path) as raster:
        assert raster.read().dtype == dtype
        assert np.array_equal(raster.read(), array)
        assert (raster.crs, raster.transform, raster.nodata) == (HERE.crs, HERE.transform, 7)
        assert raster.tags()["WHO"] == "me"


def test_a_plane_without_georeferencing_is_one_band(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.ones((5, 6), np.uint8))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path) as raster:
        assert (raster.count, raster.crs) == (1, None)


@pytest.mark.parametrize("way", ["alpha", "mask"])
def test_absent_pixels_are_masked(tmp_path, way):
    there = np.zeros((20, 30), bool)
    there[:, 10:] = True
    array = np.full((3, 20, 30), 9, np.uint8)
    path = write_raster(tmp_path / "a.tif", array, grid=HERE, **{way: there})
    with rasterio.open(path) as raster:
        assert np.array_equal(raster.dataset_mask() > 0, there)
        assert raster.count == (4 if way == "alpha" else 3)
        assert (ColorInterp.alpha in raster.colorinterp) == (way == "alpha")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("way", ["alpha", "mask", "grid"])
def test_companions_of_another_size_are_refused(tmp_path, way):
    wrong = HERE if way == "grid" else np.ones((5, 5), bool)
    with pytest.raises(ShapeError, match=way):
        write_raster(tmp_path / "a.tif", np.ones((4, 4), np.uint8), **{way: wrong})


# -- checks ----------------------------------------------------------------------------------


def layer(**columns):
    geometry = columns.pop("geometry", [shapely.box(0, 0, 1, 1), shapely.box(3, 3, 5, 5)])
    data = {"id": [1, 2], "kind": ["building", "road"], "observed": [1.0, 0.5], **columns}
    return geopandas.GeoDataFrame(data, geometry=geometry, crs="EPSG:32633")


def test_a_sound_layer_passes_even_when_it_is_empty():
    assert_valid_change_layer(layer(area_m2=[1.0, None]))
    assert_valid_change_layer(layer().iloc[:0])


BOW_TIE = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"id": [1, 1]}, "unique"),
        ({"kind": ["building", "tree"]}, "known classes; broken by id 2"),
        ({"observed": [0.5, 1.5]}, "observed"),
        ({"score_max": [0.5, -0.1]}, "score_max"),
        ({"area_m2": [1.0, 0.0]}, "area_m2"),
        ({"geometry": [BOW_TIE, shapely.box(0, 0, 1, 1)]}, "valid; broken by id 1"),
        ({"geometry": [shapely.box(0, 0, 1, 1), shapely.Polygon()]}, "empty; broken by id 2"),
        ({"geometry": [shapely.box(0, 0, 1, 1), None]}, "empty"),
        ({"geometry": [shapely.Point(0, 0), shapely.box(0, 0, 1, 1)]}, "polygons"),
    ],
)
def test_a_broken_layer_fails_and_the_message_says_why(broken, message):
    with pytest.raises(AssertionError, match=message):
        assert_valid_change_layer(layer(**broken))


def test_missing_columns_are_named():
    with pytest.raises(AssertionError, match="area_m2, score_mean"):
        assert_valid_change_layer(layer(), columns=("id", "score_mean", "area_m2"))


def masks():
    """Truth: two buildings of 100 pixels and a road of 60."""
    truth = np.zeros((60, 60), np.uint8)
    truth[5:15, 5:15] = truth[30:40, 5:15] = BUILDING
    truth[0:60, 40] = ROAD
    return truth.copy(), truth


def test_the_truth_itself_scores_one():
    found, truth = masks()
    for kind, objects in (("building", 2), ("road", 1), ("any", 3)):
        assert score_against_truth(found, truth)[kind] == {
            "objects": objects, "found": objects, "missed": 0, "false": 0,
            "precision": 1.0, "recall": 1.0, "f1": pytest.approx(1.0),
        }  # fmt: skip


@pytest.mark.parametrize(("rows", "found_too"), [(5, 1), (4, 0)])
def test_an_object_counts_as_found_from_half_of_its_pixels_on(rows, found_too):
    found, truth = masks()
    found[30 + rows : 40, 5:15] = 0
    score = score_against_truth(found, truth)["building"]
    assert (score["found"], score["missed"]) == (1 + found_too, 1 - found_too)
    assert score["recall"] == pytest.approx((100 + 10 * rows) / 200)
    assert score["false"] == 0


def test_what_is_not_there_is_false_and_a_wrong_kind_too():
    found, truth = masks()
    found[50:54, 10:14] = BUILDING
    found[30:40, 5:15] = ROAD
    score = score_against_truth(found, truth)
    assert score["building"]["false"] == 1
    assert score["building"]["missed"] == 1
    assert score["building"]["precision"] == pytest.approx(100 / 116)
    assert score["road"]["false"] == 1
    assert score["any"]["missed"] == 0


def test_specks_are_no_objects_when_told_so():
    found, truth = masks()
    found[50, 50] = BUILDING
    assert score_against_truth(found, truth)["building"]["false"] == 1
    assert score_against_truth(found, truth, min_pixels=2)["building"]["false"] == 0


def test_not_observed_counts_nowhere():
    found, truth = masks()
    found[:, :20] = NOT_OBSERVED
    score = score_against_truth(found, truth)
    assert score["building"]["objects"] == 0
    assert score["road"]["f1"] == pytest.approx(1.0)


def test_the_plain_class_change_counts_as_any():
    found, truth = masks()
    found[found > 0] = CLASS_CODES["change"]
    score = score_against_truth(found, truth)
    assert score["any"]["found"] == 3
    assert score["building"]["found"] == 0


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ShapeError, match="one grid"):
        score_against_truth(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))


# -- pictures --------------------------------------------------------------------------------


def has(picture, colour):
    return bool((np.asarray(picture) == np.array(colour)).all(axis=-1).any())


def test_the_picture_outlines_what_was_found_and_what_is_true(tmp_path):
    found, truth = masks()
    found[30:40, 5:15] = 0
    image = np.full((60, 60, 3), 90, np.uint8)
    path = comparison_picture(image, image, found, truth, tmp_path / "p.png")
    panel = np.asarray(Image.open(path))[30 : 30 + 60, 12 + 2 * 72 : 12 + 2 * 72 + 60]
    assert has(panel[3:17, 3:17], (255, 106, 0))
    assert has(panel[28:42, 3:17], (255, 255, 255))
    assert not has(panel[28:42, 3:17], (255, 106, 0))
    assert has(panel[:, 36:44], (64, 180, 255))


def test_large_images_are_shrunk_to_panels_and_the_inputs_stay(tmp_path):
    image = np.full((1200, 2000, 3), 90, np.uint8)
    nothing = np.zeros((1200, 2000), np.uint8)
    path = comparison_picture(image, image, nothing, None, tmp_path / "p.png")
    width, height = Image.open(path).size
    assert width == 3 * 900 + 4 * 12
    assert 540 < height < 760
    assert (image == 90).all()


def test_what_was_not_observed_is_veiled_in_the_third_panel_only(tmp_path):
    image = np.full((200, 200, 3), 250, np.uint8)
    found = np.zeros((200, 200), np.uint8)
    found[:, :100] = NOT_OBSERVED
    sheet = np.asarray(
        Image.open(comparison_picture(image, image, found, None, tmp_path / "p.png"))
    )
    left = [12 + 212 * panel for panel in range(3)]
    values = [sheet[100, x + 50].mean() for x in left] + [sheet[100, left[2] + 150].mean()]
    assert values[0] == values[1] == values[3] == 250
    assert values[2] < 190


def test_pictures_of_different_grids_are_refused(tmp_path):
    image = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ShapeError, match="one shape"):
        comparison_picture(image, image, np.zeros((20, 21), np.uint8), None, tmp_path / "p.png")
