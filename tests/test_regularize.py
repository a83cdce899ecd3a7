"""Buildings get right angles where their pixels have them, and only there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import rasterio.features
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geocd.errors import ConfigError, ShapeError
from geocd.vectorize.neighbours import with_shared_walls, without_new_overlaps
from geocd.vectorize.outline import as_multipolygons, smooth
from geocd.vectorize.regularize import Regularized, regularize
from geocd.vectorize.rough import longest_side, roundness, with_rough_ones

SIZE = 112
SHAPES = {
    "rectangle": shapely.box(0, 0, 40, 24),
    "L": shapely.union_all([shapely.box(0, 0, 44, 14), shapely.box(0, 0, 16, 36)]),
    "T": shapely.union_all([shapely.box(0, 0, 48, 12), shapely.box(17, 0, 31, 34)]),
    "U": shapely.union_all(
        [shapely.box(0, 0, 48, 12), shapely.box(0, 0, 12, 34), shapely.box(37, 0, 48, 28)]
    ),
    "courtyard": shapely.box(0, 0, 46, 40).difference(shapely.box(14, 13, 33, 28)),
}
SLANTED = {
    "round tank": shapely.Point(20, 20).buffer(12),
    "small round tank": shapely.Point(20, 20).buffer(6),
    "ellipse": shapely.affinity.scale(shapely.Point(20, 20).buffer(18), 1, 0.6),
    "triangle": shapely.Polygon([(0, 0), (40, 0), (20, 30)]),
    "hexagon": shapely.Polygon(
        [(20 + 20 * np.cos(k * np.pi / 3), 20 + 20 * np.sin(k * np.pi / 3)) for k in range(6)]
    ),
    "slanting wall": shapely.Polygon([(0, 0), (40, 0), (40, 30), (15, 30)]),
}


def _placed(shape, angle, offset=(0.0, 0.0)):
    """The shape without vertices on straight walls, turned, in the middle of the canvas."""
    middle = shape.centroid
    moved = shapely.affinity.translate(
        shapely.simplify(shape, 1e-9), SIZE / 2 - middle.x + offset[0],
        SIZE / 2 - middle.y + offset[1],
    )  # fmt: skip
    return shapely.affinity.rotate(moved, angle, origin=(SIZE / 2, SIZE / 2))


def _outlines(*labels):
    """Pixel outlines of the values 1, 2, ... of masks, together in one array."""
    result = []
    for mask in labels:
        for value in range(1, int(mask.max()) + 1):
            mine = (mask == value).astype(np.uint8)
            shapes = rasterio.features.shapes(mine, mask=mine, connectivity=8)
            result.append(shapely.MultiPolygon([shapely.geometry.shape(s) for s, _ in shapes]))
    return as_multipolygons(np.array(result, object))


def _mask(*shapes):
    burnt = [(shape, value) for value, shape in enumerate(shapes, start=1)]
    return rasterio.features.rasterize(burnt, (SIZE, SIZE), dtype="uint8")


def _regularized(mask, **options):
    outlines = _outlines(mask)
    return regularize(outlines, smooth(outlines, 0.6), **options)


def _iou(a, b):
    return shapely.area(shapely.intersection(a, b)) / shapely.area(shapely.union(a, b))


def _skew(polygon):
    """Largest departure of the polygon's angles from right ones, in radians."""
    worst = 0.0
    for ring in shapely.get_rings(shapely.get_parts(polygon)):
        way = np.diff(shapely.get_coordinates(ring), axis=0)
        unit = way / np.hypot(*way.T)[:, None]
        worst = max(worst, np.abs(np.sum(unit * np.roll(unit, 1, axis=0), axis=1)).max())
    return worst


# Shapes with right angles


@pytest.mark.parametrize("angle", [0, 7, 23, 45, 61, 88.5])
@pytest.mark.parametrize("name", SHAPES)
def test_corners_of_turned_buildings_are_found_to_a_fraction_of_a_pixel(name, angle):
    truth = _placed(SHAPES[name], angle, (0.3, 0.7))
    result = _regularized(_mask(truth))
    assert result.regularized.tolist() == [True]
    corners = shapely.get_coordinates(truth)
    found = shapely.get_coordinates(result.polygons[0])
    assert len(found) == len(corners)
    apart = np.hypot(*(corners[:, None] - found[None]).transpose(2, 0, 1)).min(axis=1)
    assert apart.max() <= 0.6
    assert _iou(truth, result.polygons[0]) >= 0.95
    assert _skew(result.polygons[0]) < 1e-9


@pytest.mark.parametrize("name", SHAPES)
def test_noisy_masks_still_give_buildings(name):
    rng = np.random.default_rng(3)
    truth = _placed(SHAPES[name], 31)
    mask = _mask(truth)
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    mask[(rng.random(mask.shape) < 0.03) | (edge & (rng.random(mask.shape) < 0.15))] ^= 1
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    result = _regularized((labels == largest).astype(np.uint8))
    assert result.regularized[0]
    assert _iou(truth, result.polygons[0]) >= 0.9


def test_angles_are_right_on_the_ground_where_pixels_are_not_square():
    squat = shapely.affinity.scale(_placed(SHAPES["L"], 30), 1, 0.5, origin=(0, 0))
    result = _regularized(_mask(squat), aspect=2.0)
    assert result.regularized[0]
    on_the_ground = shapely.affinity.scale(result.polygons[0], 1, 2, origin=(0, 0))
    assert _skew(on_the_ground) < 1e-9


def test_pixels_of_noise_inside_and_at_the_corner_of_a_building_are_left_out():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:50] = 1
    mask[20, 20] = 0
    mask[30, 50] = 1
    result = _regularized(mask)
    assert result.regularized[0]
    assert shapely.equals_exact(
        shapely.normalize(result.polygons[0]),
        shapely.normalize(shapely.MultiPolygon([shapely.box(10, 10, 50, 30)])),
        tolerance=0.2,
    )


# What stays as it is


@pytest.mark.parametrize("angle", [0, 17, 45])
@pytest.mark.parametrize("name", SLANTED)
def test_what_has_no_right_angles_keeps_its_simplified_outline(name, angle):
    outlines = _outlines(_mask(_placed(SLANTED[name], angle)))
    simplified = smooth(outlines, 0.6)
    result = regularize(outlines, simplified)
    assert result.regularized.tolist() == [False]
    assert result.polygons[0].equals(simplified[0])


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, (14, 17), elements=st.sampled_from([0, 1, 1, 1])))
def test_any_mask_gives_valid_multipolygons_of_about_its_area(mask):
    if not mask.any():
        return
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    outlines = _outlines(labels)
    result = regularize(outlines, smooth(outlines, 0.6))
    assert len(result.polygons) == count - 1
    assert shapely.is_valid(result.polygons).all()
    assert {p.geom_type for p in result.polygons} <= {"MultiPolygon"}
    solid = np.array([shapely.area(shapely.MultiPolygon(
        [shapely.Polygon(part.exterior) for part in o.geoms])) for o in outlines])  # fmt: skip
    drawn = shapely.area(result.polygons[result.regularized])
    assert (drawn <= 1.12 * solid[result.regularized]).all()


def test_objects_are_drawn_the_same_alone_and_together():
    masks = [_mask(_placed(shape, 20 + i)) for i, shape in enumerate(SHAPES.values())]
    masks += [_mask(_placed(shape, 20)) for shape in SLANTED.values()]
    outlines = _outlines(*masks)
    together = regularize(outlines, smooth(outlines, 0.6))
    for i, mask in enumerate(masks):
        alone = _regularized(mask)
        assert alone.regularized[0] == together.regularized[i]
        assert shapely.equals_exact(alone.polygons[0], together.polygons[i], tolerance=1e-9)


def test_nothing_gives_nothing():
    nothing = np.empty(0, object)
    result = regularize(nothing, nothing)
    assert len(result.polygons) == len(result.regularized) == 0


def test_a_pixel_stays_a_pixel():
    mask = np.zeros((5, 5), np.uint8)
    mask[2, 2] = 1
    assert _regularized(mask).polygons[0].equals(shapely.box(2, 2, 3, 3))


# Masks that are rounder than buildings


def _as_seen_by_a_network(shape, radius=7.0):
    """Pixel outlines of a shape whose corners are worn and whose walls bulge a little."""
    mask = cv2.GaussianBlur(_mask(shape).astype(np.float32), (0, 0), radius)
    noise = np.random.default_rng(2).normal(0, 1, mask.shape).astype(np.float32)
    return _outlines((mask + cv2.GaussianBlur(noise, (0, 0), 4) * 0.3 > 0.45).astype(np.uint8))


def _drawn_as_a_whole(outlines, **options):
    simplified = smooth(outlines, 0.6)
    drawn = regularize(outlines, simplified, **options)
    return simplified, drawn, with_rough_ones(outlines, simplified, drawn, **options)


@pytest.mark.parametrize("angle", [0, 27, 58])
def test_a_worn_rectangle_becomes_a_rectangle_nearer_to_the_truth(angle):
    truth = _placed(shapely.box(0, 0, 44, 26), angle)
    simplified, drawn, result = _drawn_as_a_whole(_as_seen_by_a_network(truth))
    assert not drawn.regularized[0]
    assert result.regularized[0]
    assert shapely.get_num_coordinates(result.polygons[0]) == 5
    assert _skew(result.polygons[0]) < 1e-9
    assert _iou(truth, result.polygons[0]) > _iou(truth, simplified[0])


def test_a_worn_wing_keeps_its_corner():
    truth = _placed(shapely.union_all([shapely.box(0, 0, 60, 26), shapely.box(0, 0, 26, 60)]), 14)
    simplified, drawn, result = _drawn_as_a_whole(_as_seen_by_a_network(truth, 6.0))
    assert (drawn.regularized[0], result.regularized[0]) == (False, True)
    assert shapely.get_num_coordinates(result.polygons[0]) == 7
    assert _iou(truth, result.polygons[0]) > _iou(truth, simplified[0])


def test_angles_of_worn_buildings_are_right_on_the_ground_where_pixels_are_not_square():
    squat = shapely.affinity.scale(_placed(shapely.box(0, 0, 60, 34), 30), 1, 0.5, origin="center")
    _, drawn, result = _drawn_as_a_whole(_as_seen_by_a_network(squat, 3.5), aspect=2.0)
    assert (drawn.regularized[0], result.regularized[0]) == (False, True)
    assert _skew(shapely.affinity.scale(result.polygons[0], 1, 2, origin=(0, 0))) < 1e-9


def test_a_blob_stands_as_the_buildings_around_it_do():
    clear = [_placed(shapely.box(0, 0, 30, 14), 24, (x, y))
             for x, y in ((-36, 0), (36, 0), (0, -36), (0, 36))]  # fmt: skip
    blob = _as_seen_by_a_network(_placed(shapely.box(0, 0, 32, 28), 24), 6.0)
    alone = _drawn_as_a_whole(blob)[2]
    among = _drawn_as_a_whole(np.concatenate([blob, _outlines(_mask(*clear))]))[2]
    assert alone.regularized[0]
    assert among.regularized.all()
    off = np.degrees([longest_side(r.polygons[:1])[0] for r in (alone, among)]) - 24
    off = np.abs((off + 45) % 90 - 45)
    assert off[1] < min(3, off[0])


def test_specks_stay_as_they_are_and_have_no_say():
    blob = _as_seen_by_a_network(_placed(shapely.box(0, 0, 44, 26), 27))
    specks = np.zeros((SIZE, SIZE), np.uint8)
    specks[2:8:3, 2:110:3] = 1
    outlines = np.concatenate([blob, _outlines(cv2.connectedComponents(specks)[1])])
    alone, among = _drawn_as_a_whole(blob)[2], _drawn_as_a_whole(outlines)[2]
    assert among.regularized.tolist() == [True] + [False] * (len(outlines) - 1)
    assert shapely.equals_exact(alone.polygons[0], among.polygons[0], tolerance=1e-9)


@pytest.mark.parametrize("angle", [0, 17, 30, 45])
@pytest.mark.parametrize("name", SLANTED)
def test_what_has_no_right_angles_has_none_as_a_whole_either(name, angle):
    places = (-36, 0), (36, 0), (0, -36), (0, 36)
    houses = [_placed(shapely.box(0, 0, 30, 14), 8, place) for place in places]
    shape = _placed(SLANTED[name], angle)
    outlines = _outlines(_mask(*houses), _mask(shape))
    simplified, _, result = _drawn_as_a_whole(outlines)
    assert result.regularized.tolist() == [True] * 4 + [False]
    assert result.polygons[-1].equals(simplified[-1])


def test_drawings_that_are_exact_are_left_alone():
    outlines = _outlines(*(_mask(_placed(shape, 20)) for shape in SHAPES.values()))
    _, drawn, result = _drawn_as_a_whole(outlines)
    assert drawn.regularized.all()
    assert shapely.equals_exact(drawn.polygons, result.polygons, tolerance=0).all()


def test_discs_and_ellipses_are_rounder_than_rectangles():
    disc = shapely.Point(300, 200).buffer(20, quad_segs=32)
    shapes = [disc, shapely.affinity.rotate(shapely.affinity.scale(disc, 2, 0.5), 30),
              shapely.box(3, 4, 80, 20),
              shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 7, 7))]  # fmt: skip
    found = roundness(np.array([shapely.MultiPolygon([s]) for s in shapes], object))
    # A square of 9 without one of 5: its area over 12 times the root of the moments.
    ring = (81 - 25) * 3 / (np.pi * (9**4 - 5**4) / (81 - 25))
    np.testing.assert_allclose(found, [1, 1, 3 / np.pi, ring], atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, (24, 27), elements=st.sampled_from([0, 1, 1, 1])))
def test_any_mask_as_a_whole_gives_valid_multipolygons_of_about_its_area(mask):
    if not mask.any():
        return
    _, labels = cv2.connectedComponents(cv2.medianBlur(mask, 3), connectivity=8)
    outlines = _outlines(labels)
    if not len(outlines):
        return
    simplified, drawn, result = _drawn_as_a_whole(outlines)
    assert shapely.is_valid(result.polygons).all()
    new = result.regularized & ~drawn.regularized
    area = shapely.area(simplified[new])
    assert (np.abs(shapely.area(result.polygons[new]) - area) <= 0.1 * area + 1e-9).all()


# Neighbours


def _row(angle, jumps=(0, 0, 0)):
    houses = [shapely.box(13 * k, jump, 13 * k + 13, jump + 20) for k, jump in enumerate(jumps)]
    middle = shapely.union_all(houses).centroid
    move = SIZE / 2 - middle.x + 0.4, SIZE / 2 - middle.y + 0.2
    return [shapely.affinity.rotate(shapely.affinity.translate(house, *move), angle,
                                    origin=(SIZE / 2, SIZE / 2)) for house in houses]  # fmt: skip


@pytest.mark.parametrize("jumps", [(0, 0, 0), (0, 5, 0), (0, 0, 6)])
@pytest.mark.parametrize("angle", [0, 12, 37, 80])
def test_row_houses_share_their_walls(angle, jumps):
    houses = _row(angle, jumps)
    outlines = _outlines(_mask(*houses))
    simplified = smooth(outlines, 0.6)
    result = with_shared_walls(outlines, simplified, regularize(outlines, simplified))
    assert result.regularized.all()
    for a, b in ((0, 1), (1, 2)):
        common = shapely.intersection(result.polygons[a], result.polygons[b])
        assert shapely.area(common) < 1e-6
        assert shapely.length(common) == pytest.approx(20 - abs(jumps[a] - jumps[b]), abs=1.5)
    for house, drawn in zip(houses, result.polygons, strict=True):
        assert _iou(house, drawn) >= 0.9


def test_touching_objects_without_right_angles_all_keep_their_simplified_outlines():
    tanks = [shapely.Point(44, 56).buffer(12), shapely.Point(67, 56).buffer(12)]
    outlines = _outlines(_mask(*tanks))
    simplified = smooth(outlines, 0.6)
    result = with_shared_walls(outlines, simplified, regularize(outlines, simplified))
    assert not result.regularized.any()
    assert shapely.equals(result.polygons, simplified).all()


def test_a_drawing_that_claims_the_ground_of_a_neighbour_gives_way():
    box = [shapely.MultiPolygon([shapely.box(*b)]) for b in
           ((0, 0, 10, 10), (10.5, 0, 30, 10), (50, 0, 60, 10))]  # fmt: skip
    drawn = [shapely.MultiPolygon([shapely.box(0, 0, 11, 10)]), *box[1:]]
    result = without_new_overlaps(
        Regularized(np.array(drawn, object), np.array([True, False, True])), np.array(box, object)
    )
    assert result.regularized.tolist() == [False, False, True]
    assert result.polygons[0].equals(box[0])


def test_of_two_drawings_that_overlap_the_larger_stays():
    box = [shapely.MultiPolygon([shapely.box(*b)]) for b in ((0, 0, 10, 10), (10.5, 0, 30, 10))]
    drawn = [shapely.MultiPolygon([shapely.box(*b)]) for b in ((0, 0, 10.6, 10), (10.2, 0, 30, 10))]
    result = without_new_overlaps(
        Regularized(np.array(drawn, object), np.array([True, True])), np.array(box, object)
    )
    assert result.regularized.tolist() == [False, True]


# Bad input


def test_outlines_and_simplified_outlines_of_other_objects_are_refused():
    outlines = _outlines(_mask(_placed(SHAPES["L"], 0)))
    with pytest.raises(ShapeError, match="same objects"):
        regularize(outlines, outlines[:0])


@pytest.mark.parametrize("aspect", [0, -1, np.nan, np.inf])
def test_an_impossible_aspect_is_refused(aspect):
    outlines = _outlines(_mask(_placed(SHAPES["L"], 0)))
    with pytest.raises(ConfigError, match="aspect"):
        regularize(outlines, outlines, aspect=aspect)
