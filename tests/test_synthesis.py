"""Pairs are synthesised with known change."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from geocd.errors import ConfigError, DatasetError
from geocd.training.augment import photometric
from geocd.training.recipe import SynthesisConfig, TileSource
from geocd.training.synthesis import PairSynthesizer, differ
from geocd.training.tiles import IGNORE, load_tiles

SOURCES = (
    TileSource(folder="both", gsd=0.6, building=1, road=2),
    TileSource(folder="buildings", gsd=0.5, building=255),
    TileSource(folder="plain", gsd=0.5, weight=0.3),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tiles painted so that a pixel's class can be read off its colour."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    for source in SOURCES:
        values = {"building": source.building, "road": source.road}
        for sub in ("images", "labels"):
            (folder / source.folder / sub).mkdir(parents=True)
        for index in range(3):
            image = rng.integers(60, 100, (200, 220, 3), dtype=np.uint8)
            label = np.zeros((200, 220), np.uint8)
            for _ in range(6):
                y, x = rng.integers(0, 170, 2)
                image[y : y + 22, x : x + 26] = (200, 60, 50)
                label[y : y + 22, x : x + 26] = values["building"] or 0
            if values["road"]:
                image[95:103], label[95:103] = (150, 150, 150), values["road"]
            name = f"{index}.png"
            cv2.imwrite(str(folder / source.folder / "images" / name), image[..., ::-1])
            if source.labels:
                cv2.imwrite(str(folder / source.folder / "labels" / name), label)
    return folder


def _synthesizer(root, **shares):
    config = SynthesisConfig()
    if shares:
        nothing = dict.fromkeys(config.shares, 0.0)
        config = SynthesisConfig(**(nothing | shares))
    return PairSynthesizer(load_tiles(root, SOURCES, classes=2), SOURCES, config)


# Synthesis


@pytest.mark.parametrize("kind", list(SynthesisConfig().shares))
def test_a_pair_is_decided_by_its_seed(root, kind):
    make = _synthesizer(root, **{kind: 1.0})
    a, b, c = (make.sample(np.random.default_rng(s), 64) for s in (1, 1, 2))
    assert a.kind == kind
    for field in ("before", "after", "change", "labels_before", "labels_after"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert not np.array_equal(a.before, c.before)


@pytest.mark.parametrize("kind", list(SynthesisConfig().shares))
def test_arrays_have_the_promised_shapes_and_values(root, kind):
    pair = _synthesizer(root, **{kind: 1.0}).sample(np.random.default_rng(5), 64)
    assert pair.before.shape == pair.after.shape == (64, 64, 3)
    assert pair.change.shape == pair.labels_before.shape == pair.labels_after.shape == (2, 64, 64)
    for plane in (pair.change, pair.labels_before, pair.labels_after):
        assert set(np.unique(plane)) <= {0, 1, IGNORE}


def test_unchanged_pairs_have_no_change_even_where_nothing_is_labelled(root):
    make = _synthesizer(root, unchanged=1.0)
    for seed in range(12):
        assert not make.sample(np.random.default_rng(seed), 64).change.any()


@pytest.mark.parametrize("kind", ["paste", "removal", "construction"])
def test_pairs_of_change_hold_change(root, kind):
    make = _synthesizer(root, **{kind: 1.0})
    changed = [(make.sample(np.random.default_rng(s), 96).change[0] == 1).mean() for s in range(12)]
    assert np.mean(changed) > 0.02


@pytest.mark.parametrize("kind", ["paste", "removal", "patch"])
def test_change_is_where_one_date_is_built_give_or_take_the_misregistration(root, kind):
    make = _synthesizer(root, **{kind: 1.0})
    kernel = np.ones((15, 15), np.uint8)
    for seed in range(12):
        pair = make.sample(np.random.default_rng(seed), 96)
        one = differ(pair.labels_before, pair.labels_after)[0]
        near = cv2.dilate((one != 0).astype(np.uint8), kernel) > 0
        assert not ((pair.change[0] == 1) & ~near).any()


def test_unrelated_scenes_differ_where_exactly_one_is_built():
    a = np.array([0, 1, 0, 1, IGNORE, 1], np.uint8)
    b = np.array([0, 0, 1, 1, 1, IGNORE], np.uint8)
    assert differ(a, b).tolist() == [0, 1, 1, 0, IGNORE, IGNORE]


def test_classes_that_a_source_does_not_label_are_unknown_where_nothing_else_stands(root):
    by_source = {t.source: t for t in load_tiles(root, SOURCES, classes=2)}
    buildings, roads = by_source[1].labels
    assert set(np.unique(buildings)) == {0, 1}
    assert (roads[buildings == 1] == 0).all()
    assert (roads[buildings == 0] == IGNORE).all()
    assert set(np.unique(by_source[2].labels)) == {IGNORE}
    assert set(np.unique(by_source[0].labels)) == {0, 1}


@pytest.mark.parametrize("strong", [False, True])
def test_light_and_season_change_values_but_not_places(strong):
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = 200
    for seed in range(10):
        out = photometric(image, np.random.default_rng(seed), strong=strong).mean(axis=2)
        assert out.shape == (64, 64)
        assert out[24:40, 24:40].mean() > out[:10].mean()


# Bad input


def test_a_label_of_another_size_is_named(root, tmp_path):
    for sub in ("images", "labels"):
        (tmp_path / "both" / sub).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "both/images/x.png"), np.zeros((20, 20, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "both/labels/x.png"), np.zeros((20, 21), np.uint8))
    with pytest.raises(DatasetError, match=r"x\.png: image is 20 x 20, label is 20 x 21"):
        load_tiles(tmp_path, SOURCES[:1], classes=2)


def test_an_empty_source_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no images"):
        load_tiles(tmp_path, SOURCES[:1], classes=2)


def test_tiles_without_buildings_cannot_make_pairs(root):
    tiles = [t for t in load_tiles(root, SOURCES, classes=2) if t.source == 2]
    with pytest.raises(DatasetError, match="buildings"):
        PairSynthesizer(tiles, SOURCES, SynthesisConfig())


def test_the_shares_of_pairs_must_sum_to_one():
    with pytest.raises(ConfigError, match="sum to 1"):
        SynthesisConfig(paste=0.9)
