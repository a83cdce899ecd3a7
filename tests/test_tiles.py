"""Labelled tiles are read as they are, or painted; what cannot be used is refused by name."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import shapely
from PIL import Image

from geocd.errors import ConfigError, DatasetError, GeocdWarning
from geocd.testing import Light, Suburb, render
from geocd.testing.lands import LANDS, LandBuilder
from geocd.testing.plan import Patch
from geocd.testing.suburb import Planner
from geocd.testing.towns import TOWN_KINDS
from geocd.training.crops import BUILDING, ROAD
from geocd.training.painted import paint_tile
from geocd.training.parts import objects
from geocd.training.recipe import TileSource, find_recipe, load_recipe
from geocd.training.tiles import IGNORE, load_tiles


def _folder(tmp_path, label, image=None):
    for sub in ("images", "labels"):
        (tmp_path / "set" / sub).mkdir(parents=True)
    image = np.zeros((*np.shape(label), 3), np.uint8) if image is None else image
    for name in ("a", "b"):
        Image.fromarray(image).save(tmp_path / f"set/images/{name}.png")
        Image.fromarray(np.asarray(label, np.uint8)).save(tmp_path / f"set/labels/{name}.png")
    return TileSource(folder="set", gsd=0.5, building=1, road=2)


def test_tiles_are_those_of_the_files(tmp_path):
    rng = np.random.default_rng(0)
    label, image = rng.integers(0, 3, (9, 7)), rng.integers(0, 255, (9, 7, 3)).astype(np.uint8)
    first, second = load_tiles(tmp_path, [_folder(tmp_path, label, image)], classes=2)
    assert (first.name, second.name) == ("set/a.png", "set/b.png")
    np.testing.assert_array_equal(first.image, image)
    np.testing.assert_array_equal(first.labels, [label == 1, label == 2])


def test_what_a_source_does_not_label_is_unknown_except_where_something_else_stands(tmp_path):
    source = dataclasses.replace(_folder(tmp_path, [[0, 1]]), road=None)
    assert load_tiles(tmp_path, [source], classes=2)[0].labels.tolist() == [[[0, 1]], [[IGNORE, 0]]]
    roads = dataclasses.replace(source, building=None, road=1)
    assert load_tiles(tmp_path, [roads], classes=2)[0].labels.tolist() == [[[IGNORE, 0]], [[0, 1]]]
    nothing = dataclasses.replace(source, building=None)
    assert (load_tiles(tmp_path, [nothing], classes=2)[0].labels == IGNORE).all()


def test_there_are_as_many_planes_as_classes(tmp_path):
    source = _folder(tmp_path, [[0, 1, 2]])
    one, three = (load_tiles(tmp_path, [source], classes=n)[0].labels.tolist() for n in (1, 3))
    assert one == [[[0, 1, 0]]]
    assert three == [[[0, 1, 0]], [[0, 0, 1]], [[IGNORE] * 3]]


def test_values_that_the_source_does_not_name_are_refused_by_file_and_value(tmp_path):
    source = _folder(tmp_path, [[0, 1], [7, 255]])
    with pytest.raises(DatasetError, match=r"labels.a\.png holds 7, 255; .* 1 building, 2 road"):
        load_tiles(tmp_path, [source], classes=2)


def test_declared_values_are_ignored_in_every_class(tmp_path):
    source = dataclasses.replace(_folder(tmp_path, [[0, 1], [2, 255]]), ignore=255)
    labels = load_tiles(tmp_path, [source], classes=2)[0].labels
    assert labels.tolist() == [[[0, 1], [0, IGNORE]], [[0, 0], [1, IGNORE]]]


@pytest.mark.parametrize("victim", ["images/a.png", "labels/a.png"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no"])
def test_damaged_tiles_are_named_skipped_and_counted(tmp_path, victim, damage):
    rng = np.random.default_rng(0)
    label, image = rng.integers(0, 3, (40, 40)), rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
    source = _folder(tmp_path, label, image)
    path = tmp_path / "set" / victim
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(GeocdWarning, match=r"a\.png") as caught:
        tiles = load_tiles(tmp_path, [source], classes=2)
    assert len(caught) == 1
    assert tiles.damaged == ("set/a.png",)
    assert [t.name for t in tiles] == ["set/b.png"]
    with pytest.raises(DatasetError, match=r"a\.png"):
        load_tiles(tmp_path, [source], classes=2, strict=True)


def test_a_source_without_a_whole_tile_is_refused(tmp_path):
    source = _folder(tmp_path, [[0, 1]])
    for name in ("a", "b"):
        (tmp_path / f"set/images/{name}.png").write_bytes(b"")
    with (
        pytest.warns(GeocdWarning),
        pytest.raises(DatasetError, match="none of 2 tiles in set can be read"),
    ):
        load_tiles(tmp_path, [source], classes=2)


def test_a_label_of_another_size_is_named(tmp_path):
    source = _folder(tmp_path, np.zeros((20, 21)), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"a\.png: image is 20 x 20, label is 20 x 21"):
        load_tiles(tmp_path, [source], classes=2)


def test_a_missing_label_is_named(tmp_path):
    source = _folder(tmp_path, [[0, 1]])
    (tmp_path / "set/labels/b.png").unlink()
    with pytest.raises(DatasetError, match=r"b\.png has no label"):
        load_tiles(tmp_path, [source], classes=2)


def test_an_empty_source_is_named(tmp_path):
    source = TileSource(folder="absent", gsd=0.5)
    with pytest.raises(DatasetError, match=r"no images that match '\*' in .*absent"):
        load_tiles(tmp_path, [source], classes=2)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"folder": "x", "painted": 3},
        {"painted": -1},
        {"painted": 3, "building": 1},
        {"folder": "x", "building": 1, "road": 1},
        {"folder": "x", "building": 0},
        {"folder": "x", "building": 1, "ignore": 1},
        {"folder": "x", "weight": -1.0},
        {"folder": "x", "gsd": 0.0},
    ],
)
def test_impossible_sources_are_refused(settings):
    with pytest.raises(ConfigError):
        TileSource(**({"gsd": 0.5} | settings))


@pytest.mark.data
@pytest.mark.parametrize("name", ["geocd-vhr", "geocd-snunet"])
def test_the_real_sets_hold_no_values_but_those_that_recipes_name(data, name):
    recipe = load_recipe(find_recipe(name))
    for source in (*recipe.sources, *recipe.validation.sources):
        images = data / source.folder / "images"
        images = images if images.is_dir() else data / source.folder
        for path in sorted(images.glob(source.include))[::40]:
            one = dataclasses.replace(source, include=path.name)
            tile = load_tiles(data, [one], classes=2)[0]
            assert tile.has(BUILDING) <= (source.building is not None)
            assert tile.has(ROAD) <= (source.road is not None)


# Painted tiles


@pytest.fixture(scope="module")
def towns():
    """One small tile of every kind."""
    return {kind: paint_tile([5], gsd=0.7, size=256, kind=kind) for kind in TOWN_KINDS}


@pytest.mark.parametrize("kind", TOWN_KINDS)
def test_a_painted_tile_is_decided_by_its_seed(towns, kind):
    first, again = towns[kind], paint_tile([5], gsd=0.7, size=256, kind=kind)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, paint_tile([6], gsd=0.7, size=256, kind=kind).image)


@pytest.mark.parametrize("kind", TOWN_KINDS)
def test_everything_is_known_about_a_painted_tile(towns, kind):
    tile = towns[kind]
    assert tile.kind == kind
    assert tile.image.shape == (256, 256, 3)
    assert tile.image.dtype == tile.labels.dtype == np.uint8
    assert tile.labels.shape == (2, 256, 256)
    assert set(np.unique(tile.labels)) <= {0, 1}
    assert not (tile.labels[BUILDING] & tile.labels[ROAD]).any()
    assert tile.image.std() > 10


def _steepness(tile, plane, moved):
    """Mean step of brightness across the outline of a class, with the labels moved aside."""
    grey = cv2.cvtColor(tile.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    step = np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1))
    label = tile.labels[plane]
    outline = cv2.dilate(label, np.ones((3, 3), np.uint8)) - label
    return step[moved:, moved:][outline[: 256 - moved, : 256 - moved] == 1].mean()


@pytest.mark.parametrize("kind", ["suburb", "blocks", "slabs", "industry"])
def test_painted_roofs_lie_where_the_labels_say(kind):
    tile = paint_tile([3], gsd=0.7, size=256, kind=kind)
    assert tile.labels[BUILDING].mean() > 0.03
    here = _steepness(tile, BUILDING, 0)
    assert here > 1.25 * _steepness(tile, BUILDING, 5)


def test_open_land_has_no_buildings_whatever_stands_on_it():
    tiles = [paint_tile([s], gsd=0.7, size=192, kind="open") for s in range(8)]
    assert not any(tile.labels[BUILDING].any() for tile in tiles)


def test_industry_has_large_roofs():
    areas = []
    for seed in range(4):
        roofs = paint_tile([seed], gsd=1.0, size=256, kind="industry").labels[BUILDING]
        areas += np.bincount(objects(roofs == 1).ravel())[1:].tolist()
    assert max(areas) > 3000  # square metres


@pytest.mark.parametrize("land", LANDS)
def test_land_without_buildings_has_none(land):
    planner = Planner(200, 200, 3, shapely.box(0, 0, 200, 200))
    LandBuilder(planner).fill(land, (-80, 80, -80, 80))
    town = planner.suburb
    assert not town.buildings
    things = (town.fields, town.patches, town.lines, town.cars, town.clutter)
    assert any(things)
    if land != "plough":
        assert planner.ground.taken_at(100 + planner.offset[0], 100 + planner.offset[1])


def test_water_mirrors_the_sun_in_specks():
    def _lake(glint):
        town = Suburb(100, 100)
        town.patches.append(Patch(np.array([[20, 20], [80, 20], [80, 80], [20, 80.0]]), "water",
                                  (50, 60, 70), glint=glint))  # fmt: skip
        light = Light(azimuth=150, elevation=45, lushness=0.5)
        return render(town, "before", light, shape=(100, 100), gsd=1.0, seed=1)[:, 25:75, 25:75]

    calm, bright = (_lake(glint) for glint in (0.0, 0.9))
    assert calm.max() < 120
    assert 0.01 < (bright > 200).mean() < 0.6


def test_a_source_of_painted_tiles_reads_no_folder(tmp_path):
    sources = [
        TileSource(painted=2, gsd=1.0, seed=4),
        TileSource(painted=1, gsd=1.0, seed=5),
    ]
    tiles = load_tiles(tmp_path / "absent", sources, classes=2)
    assert [t.source for t in tiles] == [0, 0, 1]
    assert len({t.name for t in tiles}) == 3
    assert len({t.image.tobytes() for t in tiles}) == 3
    assert tiles[0].image.shape == (512, 512, 3)
    assert set(np.unique(tiles[0].labels)) <= {0, 1}
    assert load_tiles(tmp_path, sources[1:], classes=1)[0].labels.shape == (1, 512, 512)


def test_the_painted_recipe_needs_no_imagery_and_validates_on_other_towns():
    recipe = load_recipe(find_recipe("painted"))
    assert not recipe.pairs
    assert not recipe.validation.pairs
    assert all(source.painted for source in (*recipe.sources, *recipe.validation.sources))
    seeds = {source.seed for source in recipe.sources}
    assert seeds.isdisjoint(source.seed for source in recipe.validation.sources)
    assert len(seeds) == len(recipe.sources)
    assert recipe.synthesis.road_paste > 0
