"""What appeared and what disappeared is told by which date shows it, or not told at all."""

from __future__ import annotations

import cv2
import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image
from rasterio.features import shapes

from geocd.errors import CrsMismatchError, InputError
from geocd.testing import paint_scene
from geocd.vectorize.direction import judge_directions
from geocd.vectorize.relation import relate, with_relation

SWAPPED = {"appeared": "disappeared", "disappeared": "appeared"}


def _judged(polygons, before, after, *, valid=None):
    valid = np.ones(before.shape[1:], bool) if valid is None else valid
    return judge_directions(
        np.array(polygons, object), Affine.identity(), valid.shape,
        lambda rows, cols: (before[:, rows, cols], after[:, rows, cols], valid[rows, cols]),
    )  # fmt: skip


def _ground(seed):
    """Rough ground without anything built, of a light of its own."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 40, (240, 320, 3)), (0, 0), 3)
    return np.moveaxis(noise + np.array([90, 110, 80]), 2, 0)


def _scene(seed=0):
    """Before and after with a building that goes and one that comes, and their polygons."""
    before, after = _ground(seed), _ground(seed + 1) * 0.8 + 20
    gone, new = (slice(40, 80), slice(30, 80)), (slice(120, 190), slice(200, 240))
    for image, (rows, cols) in ((before, gone), (after, new)):
        image[:, rows, cols] = np.array([170, 90, 80])[:, None, None]
    polygons = [shapely.box(c.start, r.start, c.stop, r.stop) for r, c in (gone, new)]
    return polygons, *(image.clip(0, 255).astype(np.uint8) for image in (before, after))


@pytest.mark.parametrize("seed", range(4))
def test_both_directions_are_told_and_swapping_the_dates_swaps_them(seed):
    polygons, before, after = _scene(seed)
    there = _judged(polygons, before, after)
    assert there.names.tolist() == ["disappeared", "appeared"]
    back = _judged(polygons, after, before)
    assert back.names.tolist() == [SWAPPED[name] for name in there.names]
    np.testing.assert_allclose(back.scores, there.scores)


def test_what_looks_alike_on_both_dates_is_not_told():
    polygons, before, _ = _scene()
    same = _judged(polygons, before, before)
    assert not set(same.names) & set(SWAPPED)
    assert same.scores.tolist() == [0.5, 0.5]
    # The first polygon is a building on both dates, the second is bare ground.
    assert same.names.tolist() == ["altered", "unknown"]


def test_the_size_of_the_squares_changes_nothing(monkeypatch):
    polygons, before, after = _scene()
    whole = _judged(polygons, before, after)
    monkeypatch.setattr("geocd.vectorize.direction._TILE", 48)
    parts = _judged(polygons, before, after)
    assert parts.names.tolist() == whole.names.tolist()
    np.testing.assert_allclose(parts.scores, whole.scores, atol=0.05)


def test_what_was_not_observed_is_unknown():
    polygons, before, after = _scene()
    found = _judged(polygons, before, after, valid=np.zeros(before.shape[1:], bool))
    assert found.names.tolist() == ["unknown", "unknown"]
    assert np.isnan(found.scores).all()


def test_nothing_to_judge_reads_nothing():
    found = judge_directions(np.empty(0, object), Affine.identity(), (9, 9), None)
    assert len(found.names) == len(found.scores) == 0


def test_painted_ground_of_one_band_will_do():
    ground = paint_scene((240, 320), seed=3)[:1] // 2 + 40
    after = ground.copy()
    after[:, 100:140, 100:160] = 230
    found = _judged([shapely.box(100, 100, 160, 140)], ground, after)
    assert found.names.tolist() == ["appeared"]


@pytest.mark.data
@pytest.mark.parametrize(("name", "least"), [("levir256", 0.75), ("whu512", 0.75)])
def test_new_buildings_of_real_pairs_appeared(data, name, least):
    told = right = count = 0
    for label in sorted((data / "pairs" / name / "label").iterdir()):
        mask = np.array(Image.open(label).convert("L")) > 0
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        polygons = [shapely.geometry.shape(s) for s, v in shapes(labels, mask=mask, connectivity=8)]
        polygons = [polygon for polygon in polygons if polygon.area >= 80]
        if not polygons:
            continue
        dates = [np.moveaxis(np.array(Image.open(label.parent.parent / d / label.name)
                                      .convert("RGB")), 2, 0) for d in "AB"]  # fmt: skip
        names = _judged(polygons, *dates).names
        count += len(names)
        told += np.isin(names, list(SWAPPED)).sum()
        right += (names == "appeared").sum()
    assert told / count >= least
    assert right / told >= 0.95


# Known footprints


def _changes(*rows):
    boxes, kinds, directions = zip(*rows, strict=True)
    return geopandas.GeoDataFrame(
        {"kind": kinds, "direction": directions},
        geometry=[shapely.MultiPolygon([shapely.box(*box)]) for box in boxes], crs=32633,
    )  # fmt: skip


HERE, AWAY = (0, 0, 10, 10), (50, 50, 60, 60)


@pytest.mark.parametrize(
    ("box", "direction", "relation"),
    [
        (AWAY, "appeared", "new"), (AWAY, "unknown", "new"), (AWAY, "disappeared", "confirmed"),
        (HERE, "disappeared", "removed"), (HERE, "appeared", "confirmed"),
        (HERE, "unknown", "altered"), (HERE, "altered", "altered"),
        ((8, 0, 18, 10), "appeared", "altered"),
        ((10, 0, 20, 10), "appeared", "new"),  # touches, and covers nothing
        ((9.9, 0, 20, 10), "appeared", "new"),  # a sliver of a hundredth
    ],
)  # fmt: skip
def test_the_relation_to_known_footprints_follows_the_rules(box, direction, relation):
    known = geopandas.GeoDataFrame(geometry=[shapely.box(*HERE)], crs=32633)
    assert relate(_changes((box, "building", direction)), known).tolist() == [relation]


def test_roads_have_no_relation_to_buildings():
    known = geopandas.GeoDataFrame(geometry=[shapely.box(*HERE)], crs=32633)
    assert relate(_changes((HERE, "road", "appeared")), known).tolist() == [None]


def test_footprints_in_another_crs_are_brought_over(tmp_path):
    changes = _changes(((5e5, 5e6, 5e5 + 20, 5e6 + 20), "building", "disappeared"))
    changes[["geometry"]].to_crs(4326).to_file(tmp_path / "known.gpkg")
    assert with_relation(changes, tmp_path / "known.gpkg")["relation"].tolist() == ["removed"]


def test_footprints_that_cannot_be_used_are_refused(tmp_path):
    changes = _changes((HERE, "building", "appeared"))
    with pytest.raises(InputError, match="cannot read"):
        with_relation(changes, tmp_path / "no.gpkg")
    points = geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=32633)
    points.to_file(tmp_path / "points.gpkg")
    with pytest.raises(InputError, match="no polygon"):
        with_relation(changes, tmp_path / "points.gpkg")
    changes[["geometry"]].to_file(tmp_path / "known.gpkg")
    with pytest.raises(CrsMismatchError, match="the images have no CRS"):
        with_relation(changes.set_crs(None, allow_override=True), tmp_path / "known.gpkg")
