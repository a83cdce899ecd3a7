"""Pairs are synthesised with known change, from tiles that are read or painted."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from PIL import Image

from geocd.errors import ConfigError, DatasetError, OutputExistsError
from geocd.training import synthesis
from geocd.training.crops import BUILDING, ROAD, Cropper, View
from geocd.training.parts import (
    clean_offset,
    decoys,
    grown,
    objects,
    shadow_reach,
    some_of,
    stretches,
)
from geocd.training.preview import change_picture, outlined, write_sheet, write_tiles
from geocd.training.recipe import SynthesisConfig, TileSource, find_recipe, load_recipe
from geocd.training.stream import Mixture, PairStream
from geocd.training.synthesis import PairSynthesizer, compose, differ
from geocd.training.tiles import IGNORE, Tile, load_tiles

SOURCES = (
    TileSource(folder="both", gsd=0.6, building=1, road=2),
    TileSource(folder="buildings", gsd=0.5, building=255),
    TileSource(folder="plain", gsd=0.5, weight=0.3),
)
KINDS = list(SynthesisConfig().shares)
ROOF, STREET = (200, 60, 50), (150, 150, 150)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tiles painted so that a pixel's class can be read off its colour."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    for source in SOURCES:
        for sub in ("images", "labels"):
            (folder / source.folder / sub).mkdir(parents=True)
        for index in range(3):
            image = rng.integers(60, 100, (200, 220, 3), dtype=np.uint8)
            label = np.zeros((200, 220), np.uint8)
            for _ in range(6):
                y, x = rng.integers(0, 170, 2)
                image[y : y + 22, x : x + 26] = ROOF
                label[y : y + 22, x : x + 26] = source.building or 0
            if source.road:
                image[95:103], label[95:103] = STREET, source.road
            name = f"{index}.png"
            cv2.imwrite(str(folder / source.folder / "images" / name), image[..., ::-1])
            if source.labels:
                cv2.imwrite(str(folder / source.folder / "labels" / name), label)
    return folder


@pytest.fixture(scope="module")
def tiles(root):
    return load_tiles(root, SOURCES, classes=2)


@pytest.fixture
def plain(monkeypatch):
    """Without light, season, sensor and lean: what differs was put there."""
    monkeypatch.setattr(synthesis, "photometric", lambda image, rng, strong: image)
    monkeypatch.setattr(synthesis, "lean", lambda view, rng: view.image)


def _only(kind, **settings):
    nothing = dict.fromkeys(KINDS, 0.0)
    return SynthesisConfig(**(nothing | {kind: 1.0} | settings))


def _synthesizer(tiles, kind, **settings):
    return PairSynthesizer(tiles, SOURCES, _only(kind, **settings))


def _known(tiles):
    """Those of which both classes are known."""
    return [t for t in tiles if t.source == 0]


def _samples(make, count, crop=96):
    return [make.sample(np.random.default_rng([8, i]), crop) for i in range(count)]


# Every kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_is_decided_by_its_generator(tiles, kind):
    make = _synthesizer(tiles, kind, clutter=0.5)
    first = [make.sample(np.random.default_rng(s), 64) for s in range(4)]
    # Neither what was drawn before nor the generators of libraries play a part.
    make = _synthesizer(tiles, kind, clutter=0.5)
    cv2.setRNGSeed(99)
    again = [make.sample(np.random.default_rng(s), 64) for s in reversed(range(4))][::-1]
    for a, b in zip(first, again, strict=True):
        assert a.kind == kind
        for field in ("before", "after", "change", "labels_before", "labels_after"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert not np.array_equal(first[0].before, first[1].before)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_have_the_promised_shapes_and_values(tiles, kind):
    pair = _synthesizer(tiles, kind).sample(np.random.default_rng(5), 64)
    assert pair.before.shape == pair.after.shape == (64, 64, 3)
    assert pair.before.dtype == pair.after.dtype == np.uint8
    assert pair.change.shape == pair.labels_before.shape == pair.labels_after.shape == (2, 64, 64)
    for plane in (pair.change, pair.labels_before, pair.labels_after):
        assert set(np.unique(plane)) <= {0, 1, IGNORE}


@pytest.mark.parametrize("kind", [k for k in KINDS if "road" not in k])
def test_one_class_is_enough(root, kind):
    one = load_tiles(root, SOURCES, classes=1)
    pair = _synthesizer(one, kind, clutter=1.0).sample(np.random.default_rng(5), 64)
    assert pair.change.shape == (1, 64, 64)


@pytest.mark.parametrize("kind", ["construction", "paste", "removal", "road_paste", "road_removal"])
def test_things_come_and_go_equally_often(tiles, kind):
    plane = ROAD if "road" in kind else BUILDING
    make = _synthesizer(_known(tiles), kind, max_shift=0.0)
    came = went = 0
    for pair in _samples(make, 24):
        came += int((pair.labels_after[plane] > pair.labels_before[plane]).any())
        went += int((pair.labels_after[plane] < pair.labels_before[plane]).any())
    assert min(came, went) >= 5


@pytest.mark.parametrize("kind", KINDS)
def test_without_misregistration_the_change_is_the_difference_of_the_dates(tiles, kind):
    make = _synthesizer(_known(tiles), kind, max_shift=0.0)
    for pair in _samples(make, 6):
        np.testing.assert_array_equal(pair.change, differ(pair.labels_before, pair.labels_after))


def test_unchanged_pairs_have_no_change_even_where_nothing_is_labelled(tiles):
    make = _synthesizer(tiles, "unchanged")
    assert not any(pair.change.any() for pair in _samples(make, 12, 64))


@pytest.mark.parametrize(
    ("kind", "plane"),
    [("paste", 0), ("removal", 0), ("construction", 0), ("road_paste", 1), ("road_removal", 1)],
)
def test_pairs_of_change_hold_change(tiles, kind, plane):
    make = _synthesizer(tiles, kind)
    assert np.mean([(pair.change[plane] == 1).mean() for pair in _samples(make, 12)]) > 0.02


@pytest.mark.parametrize("kind", ["paste", "removal", "patch", "road_paste", "road_removal"])
def test_change_is_where_one_date_is_built_give_or_take_the_misregistration(tiles, kind):
    make = _synthesizer(tiles, kind)
    kernel = np.ones((7, 7), np.uint8)
    for pair in _samples(make, 12):
        one = differ(pair.labels_before, pair.labels_after)
        for plane, change in zip(one, pair.change, strict=True):
            near = cv2.dilate((plane != 0).astype(np.uint8), kernel) > 0
            assert not ((change == 1) & ~near).any()


def test_unrelated_scenes_differ_where_exactly_one_is_built():
    a = np.array([0, 1, 0, 1, IGNORE, 1, IGNORE], np.uint8)
    b = np.array([0, 0, 1, 1, 1, IGNORE, IGNORE], np.uint8)
    assert differ(a, b).tolist() == [0, 1, 1, 0, IGNORE, IGNORE, IGNORE]


def test_the_two_dates_get_a_light_of_their_own(tiles):
    gains = np.array([
        (pair.before.mean(), pair.after.mean())
        for pair in _samples(_synthesizer(tiles, "unchanged"), 60, 48)
    ])  # fmt: skip
    difference = gains[:, 0] - gains[:, 1]
    assert difference.std() > 5
    assert abs(difference.mean()) < difference.std()


# Roads and buildings beside each other


def test_a_pasted_or_removed_road_is_no_change_of_buildings(tiles):
    for kind in ("road_paste", "road_removal"):
        make = _synthesizer(_known(tiles), kind, max_shift=0.0)
        pairs = _samples(make, 16)
        assert sum((p.change[ROAD] == 1).any() for p in pairs) > 8
        for pair in pairs:
            before, after = pair.labels_before[BUILDING], pair.labels_after[BUILDING]
            # Fills may show buildings where ground is scarce; nothing may be cut away.
            assert (
                not ((before == 1) & (after == 0)).any() or not ((before == 0) & (after == 1)).any()
            )
            assert (pair.change[BUILDING] == 1).mean() < 0.01


def test_a_pasted_building_cuts_neither_buildings_nor_roads(tiles):
    make = _synthesizer(_known(tiles), "paste", max_shift=0.0)
    for pair in _samples(make, 16):
        assert not (pair.change[ROAD] == 1).any()
        gone = (pair.labels_before[BUILDING] == 1) & (pair.labels_after[BUILDING] == 0)
        come = (pair.labels_before[BUILDING] == 0) & (pair.labels_after[BUILDING] == 1)
        assert not (gone.any() and come.any())


def test_a_removed_building_leaves_its_neighbours_whole(tiles):
    make = _synthesizer(_known(tiles), "removal", max_shift=0.0)
    for pair in _samples(make, 16):
        dates = (pair.labels_before[BUILDING] == 1, pair.labels_after[BUILDING] == 1)
        full, left = sorted(dates, key=np.sum, reverse=True)
        numbers = objects(full)
        for number in range(1, numbers.max() + 1):
            share = left[numbers == number].mean()
            # Where nothing is vacant, a fill may show a piece of another building.
            assert share < 0.5 or share == 1


def test_stretches_of_a_road_are_cut_square_to_it():
    road = np.zeros((60, 200), bool)
    road[25:35] = True
    numbers = stretches(road, np.random.default_rng(0))
    assert set(np.unique(numbers[~road])) == {0}
    assert numbers[road].min() == 1
    columns = [set(np.unique(numbers[25:35, col])) for col in range(200)]
    # A cut between two pixels of a road 10 wide may slant a little.
    assert np.mean([len(values) == 1 for values in columns]) > 0.6
    assert len(set.union(*columns)) >= 3


def test_no_part_is_chosen_that_reaches_what_it_must_not():
    present = np.zeros((40, 40), bool)
    present[2:8, 2:8] = present[20:30, 20:30] = True
    without = np.zeros((40, 40), bool)
    without[5, 5] = True
    chosen = [
        some_of(objects(present), np.random.default_rng(s), without=without) for s in range(9)
    ]
    assert not any(mask[2:8, 2:8].any() for mask in chosen)
    assert any(mask[20:30, 20:30].all() for mask in chosen)


def test_nothing_there_is_nothing_chosen():
    nothing = np.zeros((20, 20), bool)
    rng = np.random.default_rng(0)
    assert not some_of(objects(nothing), rng).any()
    assert not some_of(stretches(nothing, rng), rng).any()
    assert clean_offset(nothing, nothing, rng) is None


def test_roads_without_labelled_roads_are_refused(tiles):
    with pytest.raises(DatasetError, match="no tile has roads"):
        PairSynthesizer([t for t in tiles if t.source == 1], SOURCES, _only("road_paste"))


# Shadows, fills, seams


def _house(direction, length=10):
    """A bright roof in the middle of ground, its shadow to one side."""
    image = np.full((80, 80, 3), 120, np.uint8)
    built = np.zeros((80, 80), bool)
    for step in range(length + 1):
        dy, dx = round(step * direction[1]), round(step * direction[0])
        image[32 + dy : 48 + dy, 32 + dx : 48 + dx] = 30
    image[32:48, 32:48], built[32:48, 32:48] = 220, True
    return image, built


@pytest.mark.parametrize("direction", [(1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7)])
def test_the_shadow_is_found_on_its_side_and_to_its_end(direction):
    reach = np.array(shadow_reach(*_house(direction)))
    length = float(np.hypot(*reach))
    assert reach @ direction / length / np.hypot(*direction) > 0.9
    assert 6 <= length <= 14


def test_without_a_shadow_there_is_no_reach():
    image, built = _house((1, 0), length=0)
    assert shadow_reach(image, built) == (0.0, 0.0)
    assert shadow_reach(image, np.zeros_like(built)) == (0.0, 0.0)
    assert shadow_reach(image[:1, :1], built[:1, :1]) == (0.0, 0.0)


def test_a_mask_grows_towards_the_shadow_more_than_away_from_it():
    mask = np.zeros((60, 60), bool)
    mask[25:35, 25:35] = True
    rows, cols = np.nonzero(grown(mask, 2, (8.0, -5.0)))
    assert (cols.min(), cols.max(), rows.min(), rows.max()) == (23, 44, 18, 36)


def _shaded_tile():
    image = np.full((260, 260, 3), 110, np.uint8)
    labels = np.zeros((2, 260, 260), np.uint8)
    for y, x in itertools.product((30, 130), (40, 90, 140)):
        image[y : y + 20, x + 6 : x + 28] = 15
        image[y : y + 20, x : x + 20], labels[0, y : y + 20, x : x + 20] = 200, 1
    return Tile("shaded", image, labels, 0.5, 0)


@pytest.mark.parametrize("kind", ["paste", "removal"])
def test_a_shadow_comes_and_goes_with_its_building(plain, kind):
    settings = {"max_shift": 0.0, "gsd": (0.5, 0.5)}
    make = PairSynthesizer([_shaded_tile()], SOURCES[:1], _only(kind, **settings))
    with_it, without = 0, 0
    for pair in _samples(make, 20):
        dates = [(pair.labels_before, pair.before), (pair.labels_after, pair.after)]
        dates.sort(key=lambda date: int((date[0] == 1).sum()))
        (few, empty), (many, full) = dates
        around = grown((many[0] == 1) & (few[0] == 0), 9)
        with_it += int((full[around] < 60).sum())
        without += int((empty[around] < 60).sum())
    assert with_it > 500
    assert without < 0.25 * with_it


@pytest.mark.parametrize("kind", ["removal", "road_removal", "paste"])
def test_the_fill_is_no_cue(tiles, plain, kind):
    make = _synthesizer(_known(tiles), kind, max_shift=0.0)
    elsewhere = []
    for pair in _samples(make, 20):
        touched = (pair.before != pair.after).any(axis=2)
        near = grown((pair.change == 1).any(axis=0), 12, (0.0, 0.0))
        elsewhere.append((touched & ~near).sum())
    # Ground is replaced where nothing came or went, and is not labelled as change.
    assert np.mean(np.array(elsewhere) > 20) > 0.3


def test_decoys_are_the_same_shape_elsewhere():
    mask = np.zeros((80, 80), bool)
    mask[38:42, 36:46] = True
    moved = [decoys(mask, np.random.default_rng(s)) for s in range(8)]
    assert sum(m.sum() == mask.sum() for m in moved) >= 5
    assert not any(np.array_equal(m, mask) for m in moved)


def test_ground_is_cloned_from_where_nothing_stands():
    mask, taken = np.zeros((60, 60), bool), np.ones((60, 60), bool)
    mask[10:16, 10:16] = True
    taken[:, 20:40] = False
    dx, dy = clean_offset(mask, taken, np.random.default_rng(3))
    assert 10 <= dx <= 24
    assert dy >= -10
    assert clean_offset(mask, np.ones_like(taken), np.random.default_rng(3)) is None


def test_a_seam_is_soft_in_the_image_and_sharp_in_the_labels():
    base = View(np.full((40, 40, 3), 50, np.uint8), np.zeros((2, 40, 40), np.uint8))
    other = View(np.full((40, 40, 3), 250, np.uint8), np.ones((2, 40, 40), np.uint8))
    mask = np.zeros((40, 40), bool)
    mask[:20, 10:20] = True
    out = compose(base, other, mask, 1.0)
    np.testing.assert_array_equal(out.labels[0], mask)
    assert (out.image[:, :6] == 50).all()
    assert (out.image[:, 24:] == 50).all()
    assert out.image[2, 15].min() > 245
    assert 50 < out.image[2, 10].min() < 250
    assert (base.image == 50).all()


def test_an_empty_mask_changes_nothing():
    base = View(np.full((20, 20, 3), 50, np.uint8), np.zeros((2, 20, 20), np.uint8))
    out = compose(base, View(base.image + 9, base.labels + 1), np.zeros((20, 20), bool), 1.0)
    np.testing.assert_array_equal(out.image, base.image)
    assert not out.labels.any()


# Where crops are taken


def test_vacant_ground_is_empty_where_there_is_room(tiles):
    cropper = Cropper(_known(tiles), SOURCES, SynthesisConfig())
    views = [cropper.vacant(np.random.default_rng(s), 32, 0.6, planes=(0, 1)) for s in range(20)]
    assert np.mean([view.taken().mean() for view in views]) < 0.01


def test_crops_near_a_class_show_it(tiles):
    cropper = Cropper(_known(tiles), SOURCES, SynthesisConfig())
    for plane in (BUILDING, ROAD):
        views = [cropper.near(plane, np.random.default_rng(s), 64, 0.6) for s in range(20)]
        assert np.mean([view.shows(plane).any() for view in views]) > 0.8


def test_tiles_without_buildings_serve_as_vacant_ground(tiles):
    bare = Tile("bare", np.full((200, 200, 3), 240, np.uint8), np.zeros((2, 200, 200), np.uint8),
                0.6, 1)  # fmt: skip
    cropper = Cropper([*_known(tiles), bare], SOURCES, SynthesisConfig())
    views = [cropper.vacant(np.random.default_rng(s), 64, 0.6) for s in range(30)]
    assert any((view.image == 240).all() for view in views)


def test_a_tile_smaller_than_a_crop_still_makes_pairs(tiles):
    small = [dataclasses.replace(t, image=t.image[80:120, 80:120],
                                 labels=np.ascontiguousarray(t.labels[:, 80:120, 80:120]))
             for t in _known(tiles)]  # fmt: skip
    small[0].labels[0, 4:20, 4:20] = 1
    for kind in ("construction", "removal", "road_paste"):
        assert (
            _synthesizer(small, kind).sample(np.random.default_rng(1), 128).change.shape[1] == 128
        )


# Bad input


def test_tiles_without_buildings_cannot_make_pairs(tiles):
    with pytest.raises(DatasetError, match="buildings"):
        PairSynthesizer([t for t in tiles if t.source == 2], SOURCES, SynthesisConfig())


def test_sources_that_weigh_nothing_are_refused(tiles):
    sources = [dataclasses.replace(s, weight=0.0) for s in SOURCES]
    with pytest.raises(DatasetError, match="weight 0"):
        PairSynthesizer(tiles, sources, SynthesisConfig())


@pytest.mark.parametrize(
    "settings",
    [
        {"paste": 0.9},
        {"construction": 0.5, "patch": 0.0, "unchanged": -0.06},
        {"clutter": 1.5},
        {"strong": -0.1},
        {"gsd": (1.0, 0.5)},
        {"zoom": (0.0, 1.0)},
        {"max_shift": -1.0},
    ],
)
def test_impossible_mixes_of_pairs_are_refused(settings):
    with pytest.raises(ConfigError):
        SynthesisConfig(**settings)


# The sheet


def test_a_sheet_shows_pairs_of_every_kind(tiles, tmp_path):
    make = _synthesizer(tiles, "paste")
    write_sheet(make, tmp_path / "a.png", kinds=["paste", "unchanged"], number=2, crop=48)
    write_sheet(make, tmp_path / "b.png", kinds=["paste", "unchanged"], number=2, crop=48)
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (2 * (48 + 26), 2 * (3 * 48 + 12) + 4, 3)
    np.testing.assert_array_equal(sheet, np.asarray(Image.open(tmp_path / "b.png")))
    write_sheet(make, tmp_path / "c.png", number=1, crop=48)
    assert Image.open(tmp_path / "c.png").size[1] == 48 + 26


def test_the_picture_of_change_has_a_colour_for_each_class_and_none_for_no_change(tiles):
    pair = _synthesizer(tiles, "unchanged").sample(np.random.default_rng(0), 32)
    pair.change[0, :4], pair.change[1, 4:8] = 1, 1
    picture = change_picture(pair).astype(int)
    assert len(np.unique(picture[:4].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(picture[4:8].reshape(-1, 3), axis=0)) == 1
    assert (picture[0, 0] != picture[4, 0]).any()
    assert (np.ptp(picture[8:], axis=2) == 0).all()


def test_a_sheet_refuses_what_it_cannot_show(tiles, tmp_path):
    make = _synthesizer(tiles, "paste")
    with pytest.raises(ConfigError, match="got pastte"):
        write_sheet(make, tmp_path / "a.png", kinds=["pastte"])
    with pytest.raises(ConfigError, match="0 pairs"):
        write_sheet(make, tmp_path / "a.png", number=0)
    write_sheet(make, tmp_path / "a.png", number=1, crop=32)
    with pytest.raises(OutputExistsError):
        write_sheet(make, tmp_path / "a.png", number=1, crop=32)


def test_tiles_are_shown_with_the_outlines_of_their_labels(tiles, tmp_path):
    tile = _known(tiles)[0]
    touched = (outlined(tile) != tile.image).any(axis=2)
    assert touched.any()
    assert not touched[(tile.labels == 0).all(axis=0)].any()
    inside = cv2.erode((tile.labels[BUILDING] == 1).astype(np.uint8), np.ones((3, 3), np.uint8))
    assert not touched[inside == 1].any()
    write_tiles(tiles, tmp_path / "a.png", number=5, side=64)
    assert Image.open(tmp_path / "a.png").size == (4 * 68 + 4, 2 * 90)
    with pytest.raises(OutputExistsError):
        write_tiles(tiles, tmp_path / "a.png")
    with pytest.raises(ConfigError, match="at least one tile"):
        write_tiles([], tmp_path / "b.png")


def test_a_stream_leaves_no_threads_of_opencv_that_a_forked_worker_would_wait_for(tiles):
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        recipe = load_recipe(find_recipe("painted"))
        PairStream(Mixture([_synthesizer(tiles, "paste")], [1.0]), recipe, range(1), process=(0, 1))
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)
