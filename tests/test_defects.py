"""Defects synthesised on good pictures, and the camera that is no defect."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from geocd.errors import ConfigError, DatasetError
from geocd.inspect import Inspector
from geocd.models.checkpoint import load_weights
from geocd.training.camera import displaced, exposed
from geocd.training.datasets import read_image, read_pixels
from geocd.training.defect_source import DefectSource
from geocd.training.defects import KINDS, DefectPairs, with_defects
from geocd.training.fit import Trainer
from geocd.training.preview import write_preview
from geocd.training.real import RealPairs
from geocd.training.recipe import (
    PairsSource,
    Recipe,
    Stage,
    ValidationConfig,
    find_recipe,
    load_recipe,
)
from geocd.training.tiles import content_hash

SIDE = 96


def board() -> np.ndarray:
    """Dark tracks, a pad and a hole on a bright board, shape (96, 96, 3)."""
    image = np.full((SIDE, SIDE), 230, np.uint8)
    for row in (16, 32, 48):
        cv2.line(image, (0, row), (SIDE, row), 20, 6)
    cv2.circle(image, (60, 74), 14, 20, -1)
    cv2.circle(image, (60, 74), 4, 230, -1)
    return np.repeat(image[..., None], 3, axis=2)


@pytest.fixture
def goldens(tmp_path):
    for name in ("a1", "a2", "b1"):
        Image.fromarray(board()).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dark", [True, False])
def test_every_kind_of_defect_can_be_seen_and_stays_small(kind, dark):
    image = board()
    material = (image[..., 0] < 127) == dark
    draws = [KINDS[kind][0](image, material, np.random.default_rng(seed)) for seed in range(20)]
    drawn = [d for d in draws if d is not None]
    if kind == "missing" and dark:
        # The pad is cut off by no edge and small enough; the tracks reach beyond the picture.
        assert all((d[:55] == image[:55]).all() for d in drawn)
    assert drawn
    shares = [(d != image).any(axis=2).mean() for d in drawn]
    assert 0 < max(shares) < 0.3


@pytest.mark.parametrize("kind", ["pinhole", "bite", "cut"])
def test_spots_and_cuts_take_from_their_material_alone(kind):
    image = board()
    material = image[..., 0] < 127
    for seed in range(20):
        drawn = KINDS[kind][0](image, material, np.random.default_rng(seed))
        if drawn is not None:
            changed = np.abs(drawn.astype(int) - image).max(axis=2) > 100
            assert not (changed & ~material).any()


def test_a_cut_opens_a_track():
    image = board()
    opened = 0
    for seed in range(30):
        drawn = KINDS["cut"][0](image, image[..., 0] < 127, np.random.default_rng(seed))
        if drawn is not None:
            pieces = cv2.connectedComponents((drawn[..., 0] < 127).astype(np.uint8))[0]
            opened += pieces > cv2.connectedComponents((image[..., 0] < 127).astype(np.uint8))[0]
    assert opened >= 8


def test_the_label_is_where_the_sample_differs_and_nowhere_else():
    image = board()
    for seed in range(20):
        sample, where = with_defects(image, np.random.default_rng(seed))
        assert ((np.abs(sample.astype(int) - image).max(axis=2) > 30) == where).all()


def test_a_blank_picture_gets_defects_too():
    blank = np.full((64, 64, 3), 200, np.uint8)
    found = [with_defects(blank, np.random.default_rng(seed))[1].any() for seed in range(20)]
    assert sum(found) >= 12


def test_a_picture_is_displaced_by_less_than_the_bound():
    # A ramp tells how far each pixel came: its value is its column.
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None], 64, axis=0)[..., None].repeat(3, axis=2)
    for seed in range(10):
        moved = displaced(ramp, np.random.default_rng(seed), largest=2.0)
        inner = np.abs(moved.astype(int) - ramp)[4:-4, 4:-4]
        assert inner.max() <= 3
    assert (displaced(ramp, np.random.default_rng(0), largest=0.0) == ramp).all()


def test_an_exposure_moves_greys_but_not_edges():
    image = board()
    correlations = []
    for seed in range(10):
        out = exposed(image, np.random.default_rng(seed))
        assert out.shape == image.shape
        assert out.dtype == np.uint8
        correlations.append(np.corrcoef(out[..., 0].ravel(), image[..., 0].ravel())[0, 1])
    assert min(correlations) > 0.9
    assert not (exposed(image, np.random.default_rng(0)) == image).all()


def test_the_same_generator_gives_the_same_pair(goldens):
    pairs = DefectPairs(DefectSource(folder="."), goldens)
    first, again = (pairs.sample(np.random.default_rng(3), 64) for _ in range(2))
    for name in ("before", "after", "change"):
        assert (getattr(first, name) == getattr(again, name)).all()
    assert first.change.shape == (1, 64, 64)


def test_good_samples_have_no_label_and_faulty_ones_do(goldens):
    good = DefectPairs(DefectSource(folder=".", faulty=0), goldens)
    faulty = DefectPairs(DefectSource(folder=".", faulty=1), goldens)
    rngs = [np.random.default_rng(seed) for seed in range(12)]
    assert not any(good.sample(rng, 64).change.any() for rng in rngs)
    assert sum(bool(faulty.sample(rng, 64).change.any()) for rng in rngs) >= 10


def test_patterns_choose_the_pictures(goldens):
    assert len(DefectPairs(DefectSource(folder=".", include=("a*",)), goldens).pairs) == 2
    assert len(DefectPairs(DefectSource(folder=".", include=("a1*", "b*")), goldens).pairs) == 2
    with pytest.raises(DatasetError, match=r"no good pictures that match c\*"):
        DefectPairs(DefectSource(folder=".", include=("c*",)), goldens)
    with pytest.raises(DatasetError, match="there is no folder"):
        DefectPairs(DefectSource(folder="nowhere"), goldens)


def test_good_samples_are_brought_onto_their_golden(tmp_path):
    golden = board()
    turned = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 0.5, 1.0)
    turned[:, 2] += (2.3, -1.6)
    moved = cv2.warpAffine(golden, turned, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)
    noise = np.random.default_rng(0).integers(0, 255, golden.shape, dtype=np.uint8)
    for name, image in {"golden": golden, "good": moved, "other": noise}.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    pairs = DefectPairs(DefectSource(folder=".", golden="golden.png"), tmp_path)
    assert [Path(name).name for name in pairs.damaged] == ["other.png"]
    inner = (slice(8, -8), slice(8, -8))
    off = [np.abs(s.astype(int) - g)[inner].mean() for g, s in [*pairs.pairs, (golden, moved)]]
    assert off[0] == 0
    assert off[1] < off[2] / 4
    with pytest.raises(DatasetError, match=r"other.png cannot be brought onto golden.png"):
        DefectPairs(DefectSource(folder=".", golden="golden.png"), tmp_path, strict=True)
    with pytest.raises(DatasetError, match=r"the golden gold.png is none of"):
        DefectPairs(DefectSource(folder=".", golden="gold.png"), tmp_path)


def test_a_damaged_picture_is_skipped_and_named(goldens):
    (goldens / "a1.png").write_bytes((goldens / "a1.png").read_bytes()[:40])
    pairs = DefectPairs(DefectSource(folder="."), goldens)
    assert len(pairs.pairs) == 2
    assert [name.endswith("a1.png") for name in pairs.damaged] == [True]


@pytest.mark.parametrize("wrong", [{"faulty": 1.5}, {"camera": -0.1}, {"max_shift": -1.0}])
def test_impossible_sources_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DefectSource(folder=".", **wrong)


def test_pairs_are_chosen_by_name_and_seen_by_a_camera(tmp_path):
    for folder in ("A", "B", "label"):
        (tmp_path / folder).mkdir()
        for name in ("p1-1", "p1-2", "p2-1"):
            picture = board() if folder != "label" else np.zeros((SIDE, SIDE), np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{name}.png")
    source = PairsSource(folder=".", include=("p1*",), camera=1.0, max_shift=2.0, balanced=0)
    real = RealPairs(source, tmp_path, classes=("defect",), strict=True)
    assert [pair.name for pair in real.pairs.pairs] == ["p1-1", "p1-2"]
    pair = real.sample(np.random.default_rng(0), 64)
    assert (pair.before != pair.after).any()
    # All pictures are one and the same; a calibration on it will be refused.
    assert real.content_hashes() == {content_hash(read_pixels(tmp_path / "B" / "p1-2.png"))}
    with pytest.raises(DatasetError, match=r"no pair of .* matches p3\*"):
        RealPairs(
            PairsSource(folder=".", include=("p3*",)), tmp_path, classes=("defect",), strict=True
        )


def test_no_product_of_the_pcb_recipe_is_calibrated_or_tested_on():
    recipe = load_recipe(find_recipe("pcb"))
    trained = {pattern[:5] for s in (*recipe.pairs, *recipe.defects) for pattern in s.include}
    assert trained == {"00041", "20085", "50600"}


@pytest.mark.data
def test_the_pcb_recipe_finds_its_pairs_and_templates(data):
    recipe = load_recipe(find_recipe("pcb"))
    real = RealPairs(recipe.pairs[0], data, classes=recipe.planes, strict=True)
    assert len(real.pairs) == 111
    assert read_image(real.pairs.pairs[0].before).shape == (640, 640, 3)


def _recipe(folder: Path, **changes: str) -> Recipe:
    """The bundled recipe for new products, as small as it gets."""
    text = find_recipe("new-product").read_text()
    small = {"steps = 100": "steps = 2", "crop = 128": "crop = 32", "batch = 8": "batch = 2",
             "every = 25": "every = 1", "synthesised = 64": "synthesised = 3"}  # fmt: skip
    for old, new in (small | changes).items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "small.toml"
    path.write_text(text)
    return load_recipe(path)


def test_a_new_product_is_learnt_from_good_pictures_and_judged_on_other_defects(goldens, tmp_path):
    trainer = Trainer(_recipe(tmp_path), goldens, tmp_path / "run", device="cpu", workers=0)
    trainer.run()
    assert trainer.step == 2
    assert trainer.gain is not None
    history = load_weights(str(trainer.export())).card.training
    assert history["defects"][0]["pictures"] == 3
    assert history["initial_weights"] == "pcb"


def test_validation_without_pictures_of_any_kind_is_refused():
    with pytest.raises(ConfigError, match=r"needs \[\[validation.sources\]\] or \[\[defects\]\]"):
        Recipe(
            name="x", stages=(Stage(steps=1, crop=32, batch=1),), pairs=(PairsSource(folder="."),),
            validation=ValidationConfig(synthesised=3),
        )  # fmt: skip


def test_the_preview_shows_what_defects_will_be_taught(goldens, tmp_path):
    write_preview(_recipe(tmp_path), goldens, tmp_path / "look")
    with Image.open(tmp_path / "look" / "pairs.png") as sheet:
        assert np.ptp(np.asarray(sheet)) > 100


@pytest.mark.data
def test_the_bundled_weights_find_every_annotated_defect_of_a_product_they_never_saw(data):
    golden = data / "pcb/A/44000080.jpg"
    inspector = Inspector([golden])
    verdict = inspector.judge(data / "pcb/B/44000080.jpg")
    boxes = cv2.imread(str(data / "pcb/label_box/44000080.png"), cv2.IMREAD_GRAYSCALE) > 127
    count, numbers = cv2.connectedComponents(boxes.astype(np.uint8), connectivity=8)
    shown = (verdict.scores >= 127) & (verdict.scores < 255)
    assert verdict.word == "reject"
    assert set(numbers[shown]) >= set(range(1, count))
    grey = cv2.imread(str(golden), cv2.IMREAD_GRAYSCALE)
    darker = np.roll(grey, (2, -3), (0, 1)) * 0.8 + np.random.default_rng(0).normal(
        0, 6, grey.shape
    )
    assert inspector.judge(np.clip(darker, 0, 255).astype(np.uint8)).word == "pass"
