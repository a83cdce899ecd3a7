"""Roads become lines of the right length and width, without spurs, joined where they meet."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import rasterio.features
import shapely
import shapely.affinity

from geocd.errors import ConfigError
from geocd.vectorize import medial
from geocd.vectorize.centrelines import _contract, centrelines
from geocd.vectorize.outline import as_multipolygons, smooth
from geocd.vectorize.roads import LINE_COLUMNS, measured_along, road_lines

SIZE = 300


def _painted(lines, width, *, cap="flat"):
    """The polygon that tracing makes of roads along lines."""
    truth = shapely.buffer(lines, width / 2, cap_style=cap)
    mask = rasterio.features.rasterize([truth], (SIZE, SIZE), dtype="uint8")
    shapes = rasterio.features.shapes(mask, mask=mask, connectivity=8)
    polygons = [shapely.geometry.shape(s) for s, _ in shapes]
    return smooth(as_multipolygons(np.array(polygons, object)), 0.6)


def _line(angle, length=200):
    straight = shapely.LineString([(150 - length / 2, 150.3), (150 + length / 2, 150.3)])
    return shapely.affinity.rotate(straight, angle, origin=(150, 150))


def _ends(found):
    points = np.array([p for line in found.lines for p in (line.coords[0], line.coords[-1])])
    return np.unique(points.round(3), axis=0, return_counts=True)


@pytest.mark.parametrize("width", [5, 8, 14, 24])
@pytest.mark.parametrize("angle", [0, 20, 45, 71])
def test_a_straight_road_is_one_straight_line_from_end_to_end(angle, width):
    truth = _line(angle)
    found = centrelines(_painted(truth, width))
    assert found.road.tolist() == [0]
    assert found.lines[0].length == pytest.approx(truth.length, rel=0.02)
    assert found.width[0] == pytest.approx(width, abs=0.5)
    assert shapely.hausdorff_distance(found.lines[0], truth) < 1.5


@pytest.mark.parametrize("radius", [40, 90])
def test_a_curved_road_is_one_smooth_line(radius):
    angles = np.radians(np.linspace(20, 160, 200))
    curve = shapely.LineString(np.column_stack([150 + radius * np.cos(angles),
                                                50 + radius * np.sin(angles)]))  # fmt: skip
    found = centrelines(_painted(curve, 11))
    assert len(found.lines) == 1
    assert found.lines[0].length == pytest.approx(curve.length, rel=0.02)
    assert found.width[0] == pytest.approx(11, abs=0.5)
    # A staircase is longer, and turns by far more than its curve does.
    way = np.diff(shapely.get_coordinates(found.lines[0]), axis=0)
    turn = np.diff(np.unwrap(np.arctan2(way[:, 1], way[:, 0])))
    assert np.abs(turn).sum() < 1.2 * np.radians(140)


@pytest.mark.parametrize("angle", [0, 17, 45])
@pytest.mark.parametrize("width", [6, 12])
def test_a_side_road_meets_the_main_road_in_one_point(angle, width):
    roads = shapely.MultiLineString([[(40, 150), (260, 150)], [(150, 150), (150, 250)]])
    truth = shapely.affinity.rotate(roads, angle, origin=(150, 150))
    found = centrelines(_painted(truth, width))
    assert len(found.lines) == 3
    assert sorted(_ends(found)[1].tolist()) == [1, 1, 1, 3]
    assert shapely.length(found.lines).sum() == pytest.approx(truth.length, rel=0.02)
    np.testing.assert_allclose(found.width, width, atol=0.5)
    junction = _ends(found)[0][_ends(found)[1] == 3][0]
    assert np.hypot(*(junction - 150)) < 1.5


@pytest.mark.parametrize("angle", [0, 17, 45])
def test_a_crossing_is_one_point_where_four_lines_meet(angle):
    roads = shapely.MultiLineString([[(40, 150), (260, 150)], [(150, 50), (150, 250)]])
    truth = shapely.affinity.rotate(roads, angle, origin=(150, 150))
    found = centrelines(_painted(truth, 12))
    assert sorted(_ends(found)[1].tolist()) == [1, 1, 1, 1, 4]
    assert shapely.length(found.lines).sum() == pytest.approx(truth.length, rel=0.02)
    np.testing.assert_allclose(found.width, 12, atol=0.5)


def test_a_ring_road_is_a_closed_line():
    ring = shapely.Point(150, 150).buffer(80, quad_segs=32).exterior
    found = centrelines(_painted(ring, 10))
    assert len(found.lines) == 1
    assert found.lines[0].is_closed
    assert found.lines[0].length == pytest.approx(ring.length, rel=0.02)
    assert found.width[0] == pytest.approx(10, abs=0.5)


def test_bumps_shorter_than_the_road_is_wide_are_no_roads():
    truth = _line(30)
    bumps = shapely.buffer(shapely.points(shapely.get_coordinates(
        shapely.affinity.translate(shapely.segmentize(truth, 25), 3, 6))[1:-1]), 4)  # fmt: skip
    road = shapely.union_all([truth.buffer(6, cap_style="flat"), *bumps])
    mask = rasterio.features.rasterize([road], (SIZE, SIZE), dtype="uint8")
    shapes = rasterio.features.shapes(mask, mask=mask, connectivity=8)
    polygons = np.array([shapely.geometry.shape(s) for s, _ in shapes], object)
    assert len(centrelines(smooth(as_multipolygons(polygons), 0.6)).lines) == 1


def test_no_road_goes_round_a_hole_that_is_smaller_than_it_is_wide():
    road = _line(0).buffer(7, cap_style="flat").difference(shapely.Point(150, 150).buffer(3))
    found = centrelines(np.array([shapely.MultiPolygon([road])], object))
    assert len(found.lines) == 1
    assert found.lines[0].length == pytest.approx(200, rel=0.02)


def test_gaps_between_facing_ends_are_bridged_and_no_others():
    roads = shapely.MultiLineString(
        [[(30, 100), (120, 100)], [(128, 100), (250, 100)], [(124, 130), (124, 220)]]
    )
    polygons = _painted(roads, 8)
    assert len(polygons) == 3
    apart, joined = centrelines(polygons), centrelines(polygons, bridge=12)
    assert set(_ends(apart)[1].tolist()) == {1}
    assert sorted(_ends(joined)[1].tolist()) == [1, 1, 1, 1, 2]
    assert shapely.length(joined.lines).sum() == pytest.approx(
        shapely.length(apart.lines).sum() + 8, abs=1.5
    )


def test_large_roads_are_worked_on_in_squares_with_the_same_result(monkeypatch):
    roads = shapely.MultiLineString(
        [[(20, y), (280, y)] for y in (60, 150, 240)] + [[(x, 60), (x, 240)] for x in (80, 220)]
    )
    polygons = _painted(roads, 9)
    whole = centrelines(polygons)
    monkeypatch.setattr(medial, "_MOST_SITES", 60)
    squares = centrelines(polygons)
    assert len(whole.lines) == len(squares.lines)
    np.testing.assert_allclose(sorted(shapely.length(whole.lines)),
                               sorted(shapely.length(squares.lines)), rtol=1e-3)  # fmt: skip
    assert shapely.length(whole.lines).sum() == pytest.approx(roads.length, rel=0.02)


@pytest.mark.parametrize("shape", [shapely.box(5, 5, 6, 6), shapely.box(5, 5, 14, 14),
                                   shapely.Point(20, 20).buffer(9)])  # fmt: skip
def test_every_road_has_a_line_even_if_it_is_none(shape):
    found = centrelines(np.array([shapely.MultiPolygon([shape])], object))
    assert len(found.lines) >= 1
    assert (shapely.length(found.lines) > 0).all()
    assert (found.width > 0).all()


def test_nothing_gives_nothing():
    found = centrelines(np.empty(0, object))
    assert len(found.lines) == len(found.road) == len(found.width) == 0


def test_a_negative_gap_is_refused():
    with pytest.raises(ConfigError, match="negative"):
        centrelines(np.empty(0, object), bridge=-1)


# The layer


def _layer(crs, *, scale=0.5, origin=(500_000, 5_000_000)):
    roads = [shapely.LineString([(0, 0), (100, 40)]), shapely.LineString([(106, 42.4), (180, 72)])]
    polygons = [road.buffer(4, cap_style="flat") for road in roads] + [shapely.box(0, 60, 20, 80)]
    moved = shapely.transform(np.array(polygons, object), lambda xy: xy * scale + origin)
    return geopandas.GeoDataFrame(
        {"id": ["a", "b", "c"], "kind": ["road", "road", "building"],
         "length_m": 1.0, "width_m": 1.0},
        geometry=[shapely.MultiPolygon([p]) for p in moved], crs=crs,
    )  # fmt: skip


def test_lines_know_their_polygon_their_length_and_their_width():
    changes = _layer("EPSG:32633")
    lines = road_lines(changes, pixel_size=0.5, bridge=0)
    assert lines.crs == changes.crs
    assert lines["change_id"].tolist() == ["a", "b"]
    assert lines["length_m"][0] == pytest.approx(np.hypot(50, 20), rel=0.02)
    assert lines["width_m"].to_numpy() == pytest.approx(4, abs=0.1)
    measured = measured_along(changes, lines)
    assert measured["length_m"][1] == pytest.approx(lines["length_m"][1])
    assert measured["length_m"][2] == measured["width_m"][2] == 1.0


def test_lines_of_a_layer_in_degrees_are_measured_in_metres():
    metres = _layer("EPSG:32633")
    lines = road_lines(metres.to_crs(4326), pixel_size=0.5, bridge=0)
    assert lines.crs == "EPSG:4326"
    assert lines["length_m"][0] == pytest.approx(np.hypot(50, 20), rel=0.02)


def test_a_gap_is_bridged_in_metres():
    changes = _layer("EPSG:32633")  # the gap is 6.5 pixels or 3.2 m long
    far, near = (road_lines(changes, pixel_size=0.5, bridge=b) for b in (2.5, 4))
    assert near["length_m"].sum() - far["length_m"].sum() == pytest.approx(3.2, abs=0.3)


def test_without_a_crs_lengths_in_metres_are_unknown():
    lines = road_lines(_layer(None, scale=1, origin=(0, 0)), pixel_size=1)
    assert len(lines) == 2
    assert lines["length_m"].isna().all()


def test_a_layer_without_roads_has_no_lines():
    changes = _layer("EPSG:32633")
    lines = road_lines(changes[changes["kind"] == "building"], pixel_size=0.5)
    assert len(lines) == 0
    assert tuple(lines.columns) == (*LINE_COLUMNS, "geometry")
    assert lines.crs == changes.crs


def test_of_two_ways_between_two_junctions_the_short_one_is_contracted():
    def branch(start, stop, points, radius):
        points = np.array(points, float)
        return medial.Branch(start, stop, points, np.full(len(points), radius))

    middle = medial.Middle([
        branch(0, 1, [(-20, 0), (0, 0)], 4.0),
        branch(1, 2, [(0, 0), (1, 30), (2, 0)], 1.0),
        branch(1, 2, [(0, 0), (2, 0)], 4.0),
        branch(2, 3, [(2, 0), (20, 0)], 4.0),
    ])  # fmt: skip
    _contract(middle)
    assert all(b.length > 4 for b in middle.branches)
    assert sum(b.length for b in middle.branches) == pytest.approx(98, abs=3)
