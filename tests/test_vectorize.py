"""Polygons are where the pixels are, valid, measured on the ground, and say what they know."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import cv2
import geopandas.testing
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
import shapely.affinity
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyproj import Transformer
from rasterio.crs import CRS

from geocd.config import CLASS_CODES, NOT_OBSERVED, VectorizeConfig
from geocd.errors import BandError, InputError, RasterOpenError
from geocd.testing import assert_valid_change_layer, write_raster
from geocd.vectorize import COLUMNS, trace_changes

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
EVERYTHING = VectorizeConfig(min_area=0)
CLASSES = ("building", "road")
small_maps = arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)),
                    elements=st.sampled_from([0, 0, 1, 2, 255]))  # fmt: skip


def _scores_of(codes, classes):
    """Scores that make this change map at thresholds of 0.5."""
    planes = [np.where(codes == CLASS_CODES[name], 200, 0) for name in classes]
    return np.where(codes == NOT_OBSERVED, 255, planes)


def _trace(folder, codes, *, scores=None, crs=UTM, transform=NORTH_UP, config=EVERYTHING,
           classes=CLASSES, thresholds=None, **options):  # fmt: skip
    codes = None if codes is None else np.asarray(codes, np.uint8)
    scores = _scores_of(codes, classes) if scores is None else np.asarray(scores)
    file = write_raster(folder / "scores.tif", scores.astype(np.uint8), crs=crs,
                        transform=transform, nodata=NOT_OBSERVED)  # fmt: skip
    return trace_changes(file, classes=classes, thresholds=thresholds or (0.5,) * len(classes),
                         config=config, **options)  # fmt: skip


def _canvas(*boxes, shape=(60, 80)):
    """A map with rectangles: (first row, first col, height, width, code)."""
    codes = np.zeros(shape, np.uint8)
    for row, col, height, width, code in boxes:
        codes[row : row + height, col : col + width] = code
    return codes


# Shape


@settings(max_examples=40, deadline=None)
@given(small_maps)
def test_any_map_gives_valid_objects_that_hold_its_pixels(tmp_path_factory, codes):
    layer = _trace(tmp_path_factory.mktemp("t"), codes)
    assert layer["area_px"].sum() == np.isin(codes, (1, 2)).sum()
    assert layer.geometry.is_valid.all()
    assert set(layer.geometry.geom_type) <= {"MultiPolygon"}
    # Smoothing keeps the size of every object about as it was.
    drawn = layer.geometry.area / 0.25
    assert ((drawn - layer["area_px"]).abs() <= 0.16 * layer["area_px"] + 1e-6).all()


def test_a_layer_passes_the_public_assertion(tmp_path):
    layer = _trace(tmp_path, _canvas((5, 5, 10, 20, 1), (30, 30, 9, 9, 2)))
    assert_valid_change_layer(layer, columns=COLUMNS)


def test_pixels_that_touch_by_a_corner_are_one_object(tmp_path):
    layer = _trace(tmp_path, _canvas((10, 10, 5, 5, 1), (15, 15, 5, 5, 1)))
    assert len(layer) == 1
    assert layer["area_px"].tolist() == [50]


def test_parts_that_touch_by_a_corner_only_are_parts_of_one_multipolygon(tmp_path):
    codes = _canvas((10, 10, 5, 5, 1), (15, 15, 5, 5, 1))
    layer = _trace(tmp_path, codes, config=VectorizeConfig(min_area=0, simplify=0))
    assert shapely.area(layer.geometry[0].geoms).tolist() == [6.25, 6.25]


GRIDS = {
    "north-up": (UTM, NORTH_UP),
    "south-up": (UTM, Affine(0.5, 0, 500_000, 0, 0.5, 4_999_970)),
    "rotated": (UTM, NORTH_UP @ Affine.rotation(25)),
    "degrees": (CRS.from_epsg(4326), Affine(5e-6, 0, 15, 0, -5e-6, 60)),
    "no CRS": (None, Affine.identity()),
}


@settings(max_examples=60, deadline=None)
@given(small_maps, st.sampled_from(sorted(GRIDS)))
def test_unsmoothed_polygons_burn_back_to_the_map(tmp_path_factory, codes, name):
    crs, transform = GRIDS[name]
    layer = _trace(tmp_path_factory.mktemp("t"), codes, crs=crs, transform=transform,
                   config=VectorizeConfig(min_area=0, simplify=0))  # fmt: skip
    shapes = zip(layer.geometry, layer["kind"].map({"building": 1, "road": 2}), strict=True)
    place = transform if crs else Affine(1, 0, 0, 0, -1, 0)
    burnt = rasterio.features.rasterize([*shapes, (shapely.Point(1e9, 1e9), 9)], codes.shape,
                                        transform=place)  # fmt: skip
    np.testing.assert_array_equal(burnt, np.where(codes == NOT_OBSERVED, 0, codes))
    pieces = (cv2.connectedComponents((codes == c).astype(np.uint8), connectivity=8)[0] - 1
              for c in (1, 2))  # fmt: skip
    assert len(layer) == sum(pieces)


@pytest.mark.parametrize("simplify", [0, 0.6, 5])
@pytest.mark.parametrize(("row", "col"), [(0, 0), (0, 79), (59, 0), (59, 79), (30, 40)])
def test_an_object_of_one_pixel_is_that_pixel(tmp_path, row, col, simplify):
    config = VectorizeConfig(min_area=0, simplify=simplify)
    layer = _trace(tmp_path, _canvas((row, col, 1, 1, 2)), config=config)
    pixel = shapely.transform(shapely.box(col, row, col + 1, row + 1),
                              lambda xy: np.column_stack(NORTH_UP @ xy.T))  # fmt: skip
    assert layer.geometry[0].equals(shapely.MultiPolygon([pixel]))


def test_classes_that_touch_stay_apart(tmp_path):
    layer = _trace(tmp_path, _canvas((10, 10, 10, 10, 1), (10, 20, 10, 15, 2)))
    assert layer["kind"].tolist() == ["road", "building"]
    assert layer["area_px"].tolist() == [150, 100]


def test_a_hole_stays_a_hole(tmp_path):
    layer = _trace(tmp_path, _canvas((10, 10, 30, 30, 1), (18, 18, 12, 12, 0)))
    assert len(layer.geometry[0].geoms[0].interiors) == 1
    assert layer["area_px"].tolist() == [900 - 144]


def test_the_steps_of_pixels_do_not_show(tmp_path):
    rows, cols = np.mgrid[0:60, 0:80]
    layer = _trace(tmp_path, ((np.abs(rows - cols * 0.5) < 8) & (cols > 8) & (cols < 70)))
    # The outline of the pixels has some 130 corners.
    assert shapely.get_num_coordinates(layer.geometry[0]) < 16
    assert layer.geometry[0].area == pytest.approx(0.25 * layer["area_px"][0], rel=0.02)


def test_an_l_shaped_building_keeps_its_six_corners(tmp_path):
    codes = _canvas((10, 10, 30, 12, 1), (28, 22, 12, 25, 1))
    assert shapely.get_num_coordinates(_trace(tmp_path, codes).geometry[0]) == 7


def test_an_object_at_the_edge_of_the_raster_is_kept(tmp_path):
    layer = _trace(tmp_path, _canvas((0, 0, 12, 12, 1), (50, 70, 10, 10, 2)))
    assert layer["area_px"].tolist() == [144, 100]


# Place


@pytest.mark.parametrize(
    "transform",
    [NORTH_UP, Affine(0.5, 0, 500_000, 0, 0.5, 4_999_970), NORTH_UP @ Affine.rotation(25)],
    ids=["north-up", "south-up", "rotated"],
)
def test_polygons_lie_where_their_pixels_lie(tmp_path, transform):
    layer = _trace(tmp_path, _canvas((10, 20, 16, 24, 1)), transform=transform)
    corners = [transform @ corner for corner in ((20, 10), (44, 10), (44, 26), (20, 26))]
    expected = shapely.Polygon(corners)
    overlap = layer.geometry[0].intersection(expected).area
    assert overlap / layer.geometry[0].union(expected).area > 0.97
    assert layer.crs == UTM


def test_without_a_crs_y_is_minus_the_row(tmp_path):
    layer = _trace(tmp_path, _canvas((10, 20, 16, 24, 1)), crs=None, transform=Affine.identity())
    assert layer.total_bounds.tolist() == pytest.approx([20, -26, 44, -10], abs=0.6)
    assert layer["area_m2"].isna().all()
    assert layer["area_px"].tolist() == [384]


@pytest.mark.parametrize("epsg", [3857, 4326])
def test_areas_are_square_metres_whatever_the_projection(tmp_path, epsg):
    # A square of 100 m near 60 degrees north, 100 pixels a side.
    crs = CRS.from_epsg(epsg)
    way = Transformer.from_crs(32633, epsg, always_xy=True)
    (x0, x1), (y0, y1) = way.transform([500_000, 500_100], [6_650_100, 6_650_000])
    transform = Affine((x1 - x0) / 100, 0, x0, 0, (y1 - y0) / 100, y0) @ Affine.translation(-9, -9)
    layer = _trace(tmp_path, _canvas((9, 9, 100, 100, 1), shape=(120, 120)), crs=crs,
                   transform=transform)  # fmt: skip
    assert layer["area_m2"][0] == pytest.approx(10_000, rel=5e-3)
    assert layer["perimeter_m"][0] == pytest.approx(400, rel=1e-2)


def test_areas_are_square_metres_where_the_unit_is_feet(tmp_path):
    feet = Affine(1 / 0.3048006, 0, 6_000_000, 0, -1 / 0.3048006, 2_000_000)
    layer = _trace(tmp_path, _canvas((10, 20, 20, 30, 1)), crs=CRS.from_epsg(2227), transform=feet)
    assert layer["area_m2"][0] == pytest.approx(600, rel=2e-3)


# What is known


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, (12, 16), elements=st.sampled_from([0, 1, 1])), st.floats(0.3, 20))
def test_no_polygon_is_smaller_than_the_minimum_mapping_unit(tmp_path_factory, codes, least):
    layer = _trace(tmp_path_factory.mktemp("t"), codes, config=VectorizeConfig(min_area=least))
    assert (layer["area_m2"] >= least * (1 - 1e-6)).all()
    # UTM's scale of 0.9996 makes a pixel here 0.2502 square metres.
    count, _, stats, _ = cv2.connectedComponentsWithStats(codes, connectivity=8)
    large = sum(0.2502 * stats[i, cv2.CC_STAT_AREA] >= least * 1.001 for i in range(1, count))
    assert len(layer) >= large


def test_the_minimum_mapping_unit_is_ground_where_there_is_a_crs_and_pixels_elsewhere(tmp_path):
    codes = _canvas((5, 5, 8, 8, 1), (30, 30, 12, 12, 1))  # 16 and 36 m2, 64 and 144 pixels
    config = VectorizeConfig(min_area=20)
    assert len(_trace(tmp_path, codes, config=config)) == 1
    bare = _trace(tmp_path, codes, config=config, crs=None, transform=Affine.identity())
    assert len(bare) == 2


def test_scores_are_those_of_the_objects_pixels_in_their_class(tmp_path):
    codes = _canvas((10, 10, 10, 10, 1), (40, 10, 4, 50, 2))
    scores = np.full((2, 60, 80), 13)
    scores[0, 10:20, 10:15], scores[0, 10:20, 15:20], scores[1, 40:44, 10:60] = 254, 127, 200
    layer = _trace(tmp_path, codes, scores=scores).set_index("kind")
    assert layer.loc["building", "score_mean"] == pytest.approx(0.75)
    assert layer.loc["building", "score_max"] == pytest.approx(1.0)
    assert layer.loc["road", "score_mean"] == pytest.approx(200 / 254)


@settings(max_examples=25, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 9)),
              elements=st.sampled_from([0, 1, 1, 1, 255])))  # fmt: skip
def test_objects_read_in_strips_are_measured_like_whole_ones(tmp_path_factory, codes):
    scores = 127 + np.arange(codes.size).reshape(1, *codes.shape) % 128  # all of them pass
    scores = np.where(codes == 1, scores, np.where(codes == NOT_OBSERVED, 255, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geocd.vectorize.attributes._STRIP_PIXELS", 1)  # strips of 16 rows
        layer = _trace(tmp_path_factory.mktemp("t"), codes, scores=scores, classes=("building",),
                       config=replace(EVERYTHING, split=False))  # fmt: skip
    count, labels = cv2.connectedComponents((codes == 1).astype(np.uint8), connectivity=8)
    seen = np.pad(codes != NOT_OBSERVED, 3)
    disc = np.hypot(*np.mgrid[-3:4, -3:4]) <= 3
    expected = []
    for label in range(1, count):
        inside = labels == label
        near = cv2.dilate(np.pad(inside, 3).astype(np.uint8), disc.astype(np.uint8)) == 1
        values = scores[0][inside] / 254
        expected.append((inside.sum(), values.mean(), values.max(), seen[near].mean()))
    found = layer[["area_px", "score_mean", "score_max", "observed"]].to_numpy().round(9)
    assert sorted(found.tolist()) == sorted(np.round(expected, 9).tolist())


def test_an_object_at_a_hole_knows_that_it_may_go_on(tmp_path):
    codes = _canvas((10, 10, 10, 10, 1), (40, 40, 10, 10, 1), (10, 20, 10, 30, NOT_OBSERVED))
    observed = sorted(_trace(tmp_path, codes)["observed"])
    assert observed[0] == pytest.approx(1 - 30 / 256, abs=0.03)  # 3 of 16 columns, 10 rows
    assert observed[1] == 1


def test_an_object_that_the_edge_of_the_raster_cuts_off_was_not_seen_whole(tmp_path):
    layer = _trace(tmp_path, _canvas((0, 10, 10, 10, 1), (20, 30, 9, 9, 1)))
    # 3 rows of 10 pixels lie above the edge, and what a disc of radius 3 adds at two corners:
    # of the rows beyond the edge, 2, 2 and 0 pixels on each side.
    near = 10 * 10 + 4 * 30 + 4 * 4
    assert layer["observed"].tolist() == pytest.approx([1 - 38 / near, 1])


def test_the_largest_object_comes_first(tmp_path):
    layer = _trace(tmp_path, _canvas((5, 5, 4, 4, 1), (20, 20, 20, 20, 2), (50, 5, 6, 6, 1)))
    assert layer["area_px"].tolist() == [400, 36, 16]


def test_an_object_keeps_its_id_whatever_else_is_found(tmp_path):
    alone = _trace(tmp_path, _canvas((5, 5, 9, 9, 1)))
    among = _trace(tmp_path, _canvas((5, 5, 9, 9, 1), (20, 20, 20, 20, 2), (50, 5, 4, 4, 1)),
                   config=VectorizeConfig(min_area=5))  # fmt: skip
    assert among["id"].is_unique
    assert alone["id"][0] == among["id"][1]
    assert (alone["id"].str.len() == 12).all()
    other = _trace(tmp_path, _canvas((5, 5, 9, 9, 2)))
    assert other["id"][0] != alone["id"][0]


def test_equal_objects_come_from_the_top_left(tmp_path):
    boxes = [(40, 10, 6, 6, 2), (5, 60, 6, 6, 2), (5, 5, 6, 6, 1), (40, 40, 6, 6, 1)]
    layer = _trace(tmp_path, _canvas(*boxes))
    assert layer["kind"].tolist() == ["building", "road", "road", "building"]
    left = (layer.geometry.bounds["minx"] - 500_000) / 0.5
    assert left.tolist() == pytest.approx([5, 60, 10, 40])


@settings(max_examples=60, deadline=None)
@given(small_maps, st.integers(1, 15), st.sampled_from([0, 1.2]), st.booleans())
def test_the_height_of_the_bands_changes_nothing(tmp_path_factory, codes, height, opening, fill):
    levels = np.random.default_rng(codes.size).integers(127, 255, codes.shape)
    scores = np.where(codes == NOT_OBSERVED, 255, [np.where(codes == c, levels, 0) for c in (1, 2)])
    config = VectorizeConfig(min_area=0, opening=opening / 2, fill_holes=9 * fill,
                             grow=0.5)  # fmt: skip
    folder = tmp_path_factory.mktemp("t")
    whole = _trace(folder, codes, scores=scores, config=config, thresholds=(0.8, 0.8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geocd.vectorize.scorefile._BAND_PIXELS", 1)
        patch.setattr("geocd.vectorize.scorefile._BLOCK", height)
        banded = _trace(folder, codes, scores=scores, config=config, thresholds=(0.8, 0.8))
    geopandas.testing.assert_geodataframe_equal(whole, banded)
    assert shapely.equals_exact(whole.geometry.array, banded.geometry.array).all()


def test_a_million_specks_are_dropped_in_bounded_memory(tmp_path, monkeypatch):
    codes = np.zeros((2048, 2048), np.uint8)
    codes[::2, ::2] = 1  # a million of them, and a building
    codes[1000:1040, 1001:1041] = 1
    file = write_raster(tmp_path / "s.tif", codes[None] * 200, crs=UTM, transform=NORTH_UP)
    monkeypatch.setattr("geocd.vectorize.scorefile._BAND_PIXELS", 1 << 19)
    tracemalloc.start()
    layer = trace_changes(file, classes=("building",), thresholds=(0.5,), config=VectorizeConfig())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(layer) == 1
    assert peak < 100e6  # of a band: every fourth pixel of it is an object of its own


# Cleaning


def _levels(*boxes, shape=(60, 80)):
    """Scores of buildings and roads, with rectangles: (class, rows, cols, level)."""
    scores = np.zeros((2, *shape), np.uint8)
    for plane, rows, cols, level in boxes:
        scores[plane, slice(*rows), slice(*cols)] = level
    return scores


def test_objects_grow_from_sure_pixels_and_only_from_those(tmp_path):
    scores = _levels((0, (5, 25), (5, 25), 140), (0, (10, 12), (10, 12), 230),
                     (0, (5, 25), (40, 60), 140))  # fmt: skip
    grown = _trace(tmp_path, None, scores=scores, thresholds=(0.8, 0.8),
                   config=VectorizeConfig(min_area=0, grow=0.5))  # fmt: skip
    assert grown["area_px"].tolist() == [400]
    assert grown["score_max"][0] == pytest.approx(230 / 254)
    assert _trace(tmp_path, None, scores=scores, thresholds=(0.8, 0.8))["area_px"].tolist() == [4]


def test_classes_may_grow_by_scores_of_their_own(tmp_path):
    scores = _levels((0, (5, 25), (5, 25), 140), (0, (10, 12), (10, 12), 230),
                     (1, (40, 44), (5, 75), 140), (1, (41, 43), (9, 11), 230))  # fmt: skip
    layer = _trace(tmp_path, None, scores=scores, thresholds=(0.8, 0.8),
                   config=VectorizeConfig(min_area=0, grow={"road": 0.5}))  # fmt: skip
    assert dict(zip(layer["kind"], layer["area_px"], strict=True)) == {"road": 280, "building": 4}


def test_opening_takes_off_what_is_thinner_than_the_disc(tmp_path):
    codes = _canvas((10, 10, 20, 20, 1), (20, 30, 2, 30, 1))  # a building and a fence of 1 m
    opened = _trace(tmp_path, codes, config=VectorizeConfig(min_area=0, opening=1.5, simplify=0))
    assert len(opened) == 1
    assert opened.total_bounds[2] == 500_015
    assert 350 < opened["area_px"][0] <= 400
    assert _trace(tmp_path, codes)["area_px"].tolist() == [460]


def test_opening_leaves_what_the_edge_of_the_raster_cuts_off(tmp_path):
    codes = _canvas((0, 10, 4, 30, 1), (30, 10, 4, 30, 1))
    opened = _trace(tmp_path, codes, config=VectorizeConfig(min_area=0, opening=1.5, simplify=0))
    assert opened.total_bounds[3] == 5_000_000  # which may go on beyond it
    assert len(opened) == 1


def test_small_holes_are_closed_unless_another_object_lies_in_them(tmp_path):
    codes = _canvas((5, 5, 50, 50, 1), (10, 10, 4, 4, 0), (30, 10, 4, 4, 0), (31, 11, 2, 2, 2),
                    (30, 30, 12, 12, 0))  # fmt: skip
    layer = _trace(tmp_path, codes, config=VectorizeConfig(min_area=0, fill_holes=5))
    building = layer[layer["kind"] == "building"].iloc[0]
    assert len(building.geometry.geoms[0].interiors) == 2
    assert building["area_px"] == 2500 - 16 - 144
    assert len(layer) == 2


def test_an_object_that_is_large_enough_with_its_holes_closed_is_kept(tmp_path):
    codes = _canvas((5, 5, 12, 12, 1), (6, 6, 10, 10, 0))  # 44 pixels round 100
    config = VectorizeConfig(min_area=30, fill_holes=30)
    assert len(_trace(tmp_path, codes, config=config)) == 1
    assert len(_trace(tmp_path, codes, config=VectorizeConfig(min_area=30))) == 0


def test_each_kind_has_a_minimum_mapping_unit(tmp_path):
    codes = _canvas((5, 5, 10, 10, 1), (30, 5, 4, 25, 2))  # 25 square metres each
    kinds = {
        least: set(_trace(tmp_path, codes, config=VectorizeConfig(min_area=dict(least)))["kind"])
        for least in ((("building", 30),), (("road", 30), ("building", 10)), (("road", 1),))
    }
    assert list(kinds.values()) == [{"road"}, {"building"}, {"building", "road"}]


def test_length_width_and_direction_are_those_of_the_building(tmp_path):
    rows, cols = np.mgrid[0:120, 0:120] - 60
    turn = np.radians(30)  # clockwise from north, rows downwards
    along, across = (
        cols * np.sin(turn) - rows * np.cos(turn),
        cols * np.cos(turn) + rows * np.sin(turn),
    )
    layer = _trace(tmp_path, (np.abs(along) < 40) & (np.abs(across) < 16))
    assert layer["length_m"][0] == pytest.approx(40, abs=0.8)
    assert layer["width_m"][0] == pytest.approx(16, abs=0.8)
    assert layer["orientation"][0] == pytest.approx(30, abs=1)


def test_the_width_of_a_road_is_that_of_its_strip(tmp_path):
    codes = _canvas((10, 5, 6, 70, 2), (10, 69, 45, 6, 2))  # bent by a right angle
    layer = _trace(tmp_path, codes)
    assert layer["width_m"][0] == pytest.approx(3, abs=0.2)
    assert layer["length_m"][0] == pytest.approx((70 + 39) / 2, rel=0.05)


def test_the_size_of_a_batch_changes_nothing(tmp_path, monkeypatch):
    codes = np.random.default_rng(5).choice([0, 0, 0, 1, 2, 255], (40, 50))
    whole = _trace(tmp_path, codes)
    monkeypatch.setattr("geocd.vectorize.draw._BATCH", 1)
    assert len(whole) > 50
    assert _trace(tmp_path, codes).equals(whole)


def test_a_wide_strip_is_a_road_only_where_metres_are_unknown(tmp_path):
    codes = _canvas((2, 2, 8, 76, 3))  # 8 by 76 pixels of 5 m: 40 m wide
    coarse = Affine(5, 0, 500_000, 0, -5, 5_000_000)
    for crs, transform, kind in ((UTM, coarse, "building"), (UTM, NORTH_UP, "road"),
                                 (None, Affine.identity(), "road")):  # fmt: skip
        layer = _trace(tmp_path, codes, crs=crs, transform=transform, classes=("change",))
        assert layer["kind"].tolist() == [kind]


def test_the_kind_of_binary_change_is_judged_by_its_shape(tmp_path):
    codes = _canvas((5, 5, 14, 16, 3), (40, 2, 5, 75, 3))
    layer = _trace(tmp_path, codes, classes=("change",)).set_index("kind")
    assert layer.loc["road", "area_px"] == 375
    assert layer.loc["building", "area_px"] == 224
    assert set(layer["kind_source"]) == {"shape"}
    assert set(_trace(tmp_path, _canvas((5, 5, 9, 9, 1)))["kind_source"]) == {"network"}


def test_dates_are_carried(tmp_path):
    layer = _trace(tmp_path, _canvas((5, 5, 9, 9, 1)), dates=("2019-06-14", None))
    assert layer["before_date"].tolist() == ["2019-06-14"]
    assert layer["after_date"].isna().all()


@pytest.mark.parametrize("value", [0, NOT_OBSERVED])
def test_nothing_gives_an_empty_layer_with_every_column(tmp_path, value):
    layer = _trace(tmp_path, np.full((20, 30), value))
    assert len(layer) == 0
    assert tuple(layer.columns) == (*COLUMNS, "geometry")
    assert layer.crs == UTM
    full = _trace(tmp_path, _canvas((5, 5, 9, 9, 1)))
    assert layer.dtypes.to_dict() == full.dtypes.to_dict()


def test_progress_ends_at_the_last_row(tmp_path):
    seen = []
    _trace(tmp_path, _canvas((5, 5, 9, 9, 1)), progress=lambda *step: seen.append(step))
    assert seen[-1] == (60, 60)
    assert seen == sorted(seen)


# Bad input


def test_a_missing_raster_is_named(tmp_path):
    with pytest.raises(RasterOpenError, match=r"nowhere\.tif"):
        trace_changes(tmp_path / "nowhere.tif", classes=CLASSES, thresholds=(0.5, 0.5),
                      config=EVERYTHING)  # fmt: skip


def test_a_file_that_is_no_raster_is_named(tmp_path):
    (tmp_path / "notes.tif").write_text("not a raster")
    with pytest.raises(RasterOpenError, match=r"notes\.tif"):
        trace_changes(tmp_path / "notes.tif", classes=CLASSES, thresholds=(0.5, 0.5),
                      config=EVERYTHING)  # fmt: skip


def test_scores_with_other_bands_are_refused(tmp_path):
    with pytest.raises(BandError, match="3 bands for 2 classes"):
        _trace(tmp_path, _canvas(), scores=np.zeros((3, 60, 80)))


def test_an_unknown_class_is_refused(tmp_path):
    with pytest.raises(InputError, match="tree"):
        _trace(tmp_path, _canvas(), scores=np.zeros((2, 9, 9)), classes=("building", "tree"))


def test_scores_of_other_numbers_are_refused(tmp_path):
    path = write_raster(tmp_path / "m.tif", np.zeros((9, 9), np.float32), crs=UTM,
                        transform=NORTH_UP)  # fmt: skip
    with pytest.raises(InputError, match="must be uint8"):
        trace_changes(path, classes=("change",), thresholds=(0.5,), config=EVERYTHING)


# Right angles


def _turned_house(shape=(60, 80), angle=25.0):
    corners = shapely.affinity.rotate(shapely.box(20, 18, 58, 42), angle)
    return rasterio.features.rasterize([corners], shape, dtype="uint8")


def test_buildings_get_right_angles_and_roads_do_not(tmp_path):
    house = _turned_house()
    layer = _trace(tmp_path, house)
    assert layer["regularized"].tolist() == [True]
    assert len(shapely.get_coordinates(layer.geometry[0])) == 5
    assert _trace(tmp_path, house * 2)["regularized"].tolist() == [False]


@pytest.mark.parametrize("config", [{"regularize": False}, {"simplify": 0}])
def test_outlines_stay_where_right_angles_are_not_asked_for(tmp_path, config):
    layer = _trace(tmp_path, _turned_house(), config=VectorizeConfig(min_area=0, **config))
    assert layer["regularized"].tolist() == [False]


def test_angles_are_right_on_the_ground_in_degrees(tmp_path):
    house = shapely.affinity.rotate(shapely.box(20, 30, 58, 70), 25)
    squat = rasterio.features.rasterize(
        [shapely.affinity.scale(house, 1.0, 0.5)], (90, 80), dtype="uint8"
    )
    degrees = Affine(1e-5, 0, 15, 0, -1e-5, 60)  # at 60 degrees north a pixel is twice as high
    layer = _trace(tmp_path, squat, crs=CRS.from_epsg(4326), transform=degrees)
    assert layer["regularized"].tolist() == [True]
    flat = layer.to_crs(layer.estimate_utm_crs()).geometry[0].geoms[0]
    way = np.diff(shapely.get_coordinates(flat), axis=0)
    unit = way / np.hypot(*way.T)[:, None]
    assert np.abs(np.sum(unit * np.roll(unit, 1, axis=0), axis=1)).max() < 2e-3


def test_a_drawing_that_meets_a_road_gives_way(tmp_path):
    codes = _turned_house()
    road = (cv2.dilate(codes, np.ones((5, 5), np.uint8)) > 0) & (codes == 0)
    codes[road] = 2
    layer = _trace(tmp_path, codes)
    assert not layer["regularized"].any()
    assert _trace(tmp_path, codes * (codes == 1))["regularized"].all()
