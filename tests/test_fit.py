"""A killed run ends as an uninterrupted one; recipes say everything; weights carry their card."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT

from geocd.assess.training_report import write_training_report
from geocd.errors import (
    ConfigError,
    DamagedWeightsError,
    DatasetError,
    DivergedError,
    GeocdWarning,
    OutputError,
    WeightsError,
)
from geocd.models.checkpoint import load_weights
from geocd.training.fit import Trainer
from geocd.training.recipe import (
    CardNotes,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    PairsSource,
    Recipe,
    Stage,
    TileSource,
    ValidationConfig,
    bundled_recipes,
    find_recipe,
    load_recipe,
)
from geocd.training.selflabel import SelfLabelConfig, believe, complete_labels
from geocd.training.tiles import IGNORE, content_hash, load_tiles

TILES = (
    TileSource(folder="both", gsd=0.6, building=1, road=2),
    TileSource(folder="buildings", gsd=0.5, building=255),
    TileSource(folder="plain", gsd=0.5, weight=0.3),
)
PAIRS = PairsSource(folder="real", gsd=0.5, read_gsd=(0.5, 0.8), photometric=0.5)
SNUNET = NetworkConfig(architecture="snunet", width=8, initial="random")


def _paint(rng, side=96):
    image = rng.integers(60, 100, (side, side, 3), dtype=np.uint8)
    label = np.zeros((side, side), np.uint8)
    for _ in range(4):
        y, x = rng.integers(0, side - 24, 2)
        image[y : y + 20, x : x + 22] = (200, 60, 50)
        label[y : y + 20, x : x + 22] = 1
    return image, label


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tiles and pairs in which red is built."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def write(path, array):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)

    for source in TILES:
        for index in range(3):
            image, label = _paint(rng, 128)
            value = label * (source.building or 0)
            if source.road:
                image[60:68], value[60:68] = (150, 150, 150), source.road
            write(folder / source.folder / "images" / f"{index}.png", image)
            if source.labels:
                write(folder / source.folder / "labels" / f"{index}.png", value)
    for index in range(5):
        image, label = _paint(rng)
        write(folder / "real" / "A" / f"{index}.png", rng.integers(60, 100, image.shape, np.uint8))
        write(folder / "real" / "B" / f"{index}.png", image)
        write(folder / "real" / "label" / f"{index}.png", label * 255)
    return folder


def _recipe(**changes):
    recipe = Recipe(
        name="tiny", seed=3, network=SNUNET, sources=TILES,
        stages=(Stage(steps=3, crop=32, batch=2), Stage(steps=3, crop=48, batch=2)),
        optimizer=OptimizerConfig(warmup=2), loss=LossConfig(auxiliary=0.4),
        card=CardNotes(summary="a test", terms="none", limitations=("useless",)),
    )  # fmt: skip
    return dataclasses.replace(recipe, **changes)


def _trainer(recipe, root, output, **options):
    return Trainer(recipe, root, output, device="cpu", workers=0, **options)


def _curve(folder):
    """Step and losses of every step, without the times."""
    lines = (folder / "log.csv").read_text().splitlines()
    return [[v for i, v in enumerate(line.split(",")) if i != 1] for line in lines]


# The run


VARIANTS = {
    "tiles": {},
    "tiles and pairs, in parts": {
        "pairs": (PAIRS,),
        "optimizer": OptimizerConfig(warmup=2, accumulate=2),
    },
    "dropout": {
        "network": NetworkConfig(architecture="fc-siam-conc", width=4, initial="random"),
        "loss": LossConfig(auxiliary=0.0, change="focal+dice"),
    },
    "self-labels": {
        "stages": (
            Stage(steps=3, crop=32, batch=2),
            Stage(steps=3, crop=32, batch=2, self_label=True),
        )
    },
    "exclusive, deep supervision": {
        "sources": (),
        "pairs": (PAIRS,),
        "classes": ("none", "change"),
        "network": NetworkConfig(architecture="siam-nested-unet", width=8, initial="random"),
        "loss": LossConfig(auxiliary=0.0, change="ce+dice"),
    },
    "critic": {
        "network": NetworkConfig(architecture="stacked-unet", width=4, initial="random"),
        "loss": LossConfig(auxiliary=0.0, change="bce", adversarial=0.1, l1=1.0),
        "stages": (Stage(steps=3, crop=32, batch=2), Stage(steps=3, crop=64, batch=2)),
    },
    "validated": {
        "pairs": (dataclasses.replace(PAIRS, fold="1/5"),),
        "validation": ValidationConfig(every=2, pairs=(dataclasses.replace(PAIRS, fold="1/5"),)),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_and_resumed_run_ends_as_an_uninterrupted_one(root, tmp_path, variant):
    recipe = _recipe(**VARIANTS[variant])
    whole = _trainer(recipe, root, tmp_path / "a")
    whole.run()
    # Stopped after two steps, killed two steps later without a checkpoint, then resumed.
    part = _trainer(recipe, root, tmp_path / "b")
    part.run(stop_after=2)
    checkpoint = (tmp_path / "b/checkpoint.pt").read_bytes()
    part.run(stop_after=2)
    (tmp_path / "b/checkpoint.pt").write_bytes(checkpoint)
    resumed = _trainer(recipe, root, tmp_path / "b")
    assert resumed.resume()
    assert resumed.step == 2
    resumed.run()
    assert _curve(tmp_path / "a") == _curve(tmp_path / "b")
    assert len(_curve(tmp_path / "a")) == 7  # with its header
    for key, value in whole.ema.items():
        assert torch.equal(value, resumed.ema[key]), key
    if whole.validation:
        texts = [(tmp_path / x / "validation.csv").read_text() for x in "ab"]
        assert texts[0] == texts[1]


def test_worker_processes_make_the_same_pairs(root, tmp_path):
    for workers in (0, 2):
        run = Trainer(_recipe(), root, tmp_path / str(workers), device="cpu", workers=workers)
        run.run(stop_after=3)
    assert _curve(tmp_path / "0") == _curve(tmp_path / "2")


def test_a_batch_in_parts_sees_the_same_pairs(root, tmp_path):
    whole = _trainer(_recipe(), root, tmp_path / "a")
    parts = _trainer(
        _recipe(optimizer=OptimizerConfig(warmup=2, accumulate=2)), root, tmp_path / "b"
    )
    (batch,) = next(whole._batches(whole._sampler(0), range(1)))
    first, second = next(parts._batches(parts._sampler(0), range(1)))
    assert torch.equal(batch[0], torch.cat([first[0], second[0]]))


def _in_two_processes(recipe, root, tmp_path, steps):
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "geocd_cli", "train", "--config", recipe, "--data", root,
         "-o", tmp_path / "two", "--workers", "0", "--quiet", "--steps", steps],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_two_processes_train_as_one_on_the_same_pairs_and_resume(root, tmp_path):
    """Started by torchrun; batch norm sees half a batch each, so losses agree but roughly."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(_TOML)
    _in_two_processes(recipe, root, tmp_path, "2")
    said = _in_two_processes(recipe, root, tmp_path, "9")
    assert said.count("step 4 of 4") == 1  # one process speaks
    one = _trainer(load_recipe(recipe), root, tmp_path / "one")
    one.run()
    ours, theirs = (np.array(_curve(tmp_path / x)[1:], float) for x in ("one", "two"))
    assert ours.shape == theirs.shape == (4, 3)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0.25)
    card = load_weights(str(tmp_path / "two/tiny.safetensors")).card
    assert card.training["processes"] == 2


_TOML = """
name = "tiny"
seed = 3
network = { architecture = "snunet", width = 8, initial = "random" }
optimizer = { warmup = 2 }
[[stages]]
steps = 4
crop = 32
batch = 4
[[sources]]
folder = "both"
gsd = 0.6
building = 1
road = 2
"""


def test_training_lowers_the_loss(root, tmp_path):
    recipe = _recipe(
        stages=(Stage(steps=30, crop=64, batch=4),),
        optimizer=OptimizerConfig(warmup=5, ema=0.9),
    )
    _trainer(recipe, root, tmp_path).run()
    losses = [float(row[1]) for row in _curve(tmp_path)[1:]]
    assert np.mean(losses[-6:]) < np.mean(losses[:6]) - 0.03


def test_a_student_comes_closer_to_its_teacher(root, tmp_path):
    teacher = _recipe(
        name="teacher", loss=LossConfig(auxiliary=0.0),
        optimizer=OptimizerConfig(warmup=1, learning_rate=2e-2, ema=0.0),
    )  # fmt: skip
    run = _trainer(teacher, root, tmp_path / "teacher")
    run.run()
    weights = run.export()
    student = _recipe(
        loss=LossConfig(auxiliary=0.0, teacher=str(weights), imitation=50.0),
        stages=(Stage(steps=30, crop=32, batch=4),),
        optimizer=OptimizerConfig(warmup=5, learning_rate=2e-3),
    )
    _trainer(student, root, tmp_path / "student").run()
    far = [float(row[-1]) for row in _curve(tmp_path / "student")[1:]]
    assert _curve(tmp_path / "student")[0][-1] == "teacher"
    assert np.mean(far[-5:]) < 0.8 * np.mean(far[:5])


# Validation


def _validated(**changes):
    fold = dataclasses.replace(PAIRS, fold="1/5")
    config = ValidationConfig(every=1, pairs=(fold,), **changes)
    return _recipe(
        sources=(), pairs=(fold,), validation=config, loss=LossConfig(auxiliary=0.0),
        stages=(Stage(steps=8, crop=32, batch=2),),
        optimizer=OptimizerConfig(warmup=1, learning_rate=1e-8, ema=0.0),
    )  # fmt: skip


def test_training_stops_when_the_validation_gets_no_better(root, tmp_path):
    run = _trainer(_validated(patience=3), root, tmp_path)
    run.run()
    assert run.step < 8
    assert run.state.stale == 3
    again = _trainer(_validated(patience=3), root, tmp_path)
    again.resume()
    again.run()
    assert again.step == run.step


def test_the_best_weights_are_kept_and_a_loss_is_admitted(root, tmp_path):
    start = _trainer(_recipe(loss=LossConfig(auxiliary=0.0)), root, tmp_path / "start")
    start.run(stop_after=1)
    weights = start.export()
    network = dataclasses.replace(SNUNET, initial=str(weights))
    # So high a rate that the weights are ruined.
    ruin = dataclasses.replace(
        _validated(), network=network,
        optimizer=OptimizerConfig(warmup=1, learning_rate=0.3, ema=0.0),
        stages=(Stage(steps=2, crop=32, batch=2),),
    )  # fmt: skip
    run = _trainer(ruin, root, tmp_path / "ruin")
    run.run()
    kept = load_weights(str(run.export())).network.state_dict()
    if run.gain.step == 0:
        assert "no better after" in str(run.gain)
        for key, value in load_weights(str(weights)).network.state_dict().items():
            torch.testing.assert_close(kept[key].float(), value.float(), rtol=1e-2, atol=1e-3)
    else:
        assert run.gain.after > run.gain.before


def test_a_recipe_may_keep_the_last_weights_whatever_the_validation_says(root, tmp_path):
    recipe = dataclasses.replace(
        _validated(), optimizer=OptimizerConfig(warmup=1, learning_rate=0.3, ema=0.0),
        stages=(Stage(steps=3, crop=32, batch=2),),
    )  # fmt: skip
    _trainer(recipe, root, tmp_path).run()
    # The run is over, and may still be exported otherwise.
    last = dataclasses.replace(
        recipe, validation=dataclasses.replace(recipe.validation, keep="last")
    )
    run = _trainer(last, root, tmp_path)
    assert run.resume()
    weights = load_weights(str(run.export()))
    assert weights.card.training["steps"] == 3
    for key, value in weights.network.state_dict().items():
        if value.is_floating_point():
            kept = run.ema[f"network.{key}"]
            torch.testing.assert_close(value, kept, rtol=1e-2, atol=1e-3)
    with pytest.raises(ConfigError, match="patience"):
        ValidationConfig(keep="last", patience=2)


def test_training_leaves_the_validation_fold_out(root, tmp_path):
    run = _trainer(_validated(), root, tmp_path)
    trained = {p.name for p in run.real[0].pairs.pairs}
    validated = {name.split("/")[-1] for name, _ in run.validation}
    assert len(validated) == 1
    assert len(trained) == 4
    assert not trained & validated


def test_the_report_shows_curves_and_the_worst_pair_and_needs_no_network(root, tmp_path):
    run = _trainer(_validated(), root, tmp_path)
    run.run(stop_after=2)
    page = write_training_report(run).read_text()
    assert page.count("<svg") == 2  # the loss, and F1 of the one class that is labelled
    assert "1. real/" in page
    assert page.count("data:image/jpeg") == 3
    assert "http" not in page


# Self-labels


def test_scores_complete_and_doubt_labels():
    labels = np.array([[[IGNORE, IGNORE, IGNORE, 1, 0, 1, 0]]], np.uint8)
    scores = np.array([[[0.9, 0.5, 0.05, 0.01, 0.99, 0.5, 0.5]]], np.float32)
    out = believe(labels, scores, SelfLabelConfig(present=0.85, absent=0.1, doubt=0.05))
    assert out.tolist() == [[[1, IGNORE, 0, IGNORE, IGNORE, 1, 0]]]


# What stays


def test_exported_weights_carry_a_complete_card(root, tmp_path):
    run = _trainer(_recipe(pairs=(PAIRS,)), root, tmp_path)
    run.run(stop_after=1)
    path = run.export(figures={"set": {"f1": 0.5}})
    card = load_weights(str(path)).card
    assert card.training["steps"] == 1
    assert [s["tiles"] for s in card.training["tiles"]] == [3, 3, 3]
    assert card.training["pairs"][0]["pairs"] == 5
    assert card.validation == {"set": {"f1": 0.5}}
    assert card.limitations == ("useless",)


def test_the_previous_checkpoint_survives_a_failed_save(root, tmp_path, monkeypatch):
    run = _trainer(_recipe(), root, tmp_path)
    run.run(stop_after=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def _full(state, path):
        path.write_bytes(b"half a check")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", _full)
    run._unlogged = []
    with pytest.raises(OutputError, match="full"):
        run.save()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "log.csv"]


# Bad input


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_damaged_checkpoint_is_refused(root, tmp_path, damage):
    run = _trainer(_recipe(), root, tmp_path)
    run.run(stop_after=1)
    path = tmp_path / "checkpoint.pt"
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 64] = bytes(255 - b for b in whole[middle : middle + 64])
    path.write_bytes({"cut": whole[:middle], "empty": b"", "flipped": bytes(whole)}[damage])
    with pytest.raises(DamagedWeightsError, match="remove it"):
        _trainer(_recipe(), root, tmp_path).resume()


def test_a_run_that_diverges_stops_before_its_state_is_lost(root, tmp_path, monkeypatch):
    run = _trainer(_recipe(), root, tmp_path)
    run.run(stop_after=2)
    monkeypatch.setattr(
        run.task, "forward",
        lambda *batch: ({"change": run.task.network.conv_final.bias.sum() * torch.nan}, None),
    )  # fmt: skip
    with pytest.raises(DivergedError, match=r"step 3.*change nan"):
        run.run()
    assert all(v.isfinite().all() for v in run.ema.values())


def test_logs_of_a_run_killed_before_its_first_checkpoint_are_forgotten(root, tmp_path):
    run = _trainer(_validated(), root, tmp_path)
    run.validations.add([{"step": 4, "change": 0.5}])
    run.losses.add([{"step": 4, "seconds": 1, "change": 0.5}])
    assert not run.resume()
    run.run(stop_after=1)
    assert [row["step"] for row in run.validations.rows()] == ["1"]
    assert [row["step"] for row in run.losses.rows()] == ["1"]


def test_self_labels_of_another_run_are_made_anew(root, tmp_path):
    tiles = load_tiles(root, TILES[:1], classes=2)
    for value, name in ((0.0, "one"), (1.0, "other")):

        def segment(image, value=value):
            return np.full((2, *image.shape[:2]), value, np.float32)

        config = SelfLabelConfig(doubt=0.0)
        path = tmp_path / "labels.safetensors"
        unknown = [dataclasses.replace(t, labels=np.full_like(t.labels, IGNORE)) for t in tiles]
        made = complete_labels(unknown, path, segment, config, run=name)
        assert set(np.unique(made[0].labels)) == {value}


def test_an_error_in_a_worker_is_one_of_ours(root, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(root / "real", folder / "real")
    for path in (folder / "real/B").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    recipe = _recipe(sources=(), pairs=(PAIRS,), loss=LossConfig(auxiliary=0.0))
    run = Trainer(recipe, folder, tmp_path / "run", device="cpu", workers=1, strict=True)
    with pytest.raises(DatasetError, match=r"\.png"):
        run.run()


def test_an_output_that_is_a_file_is_refused(root, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError, match="--output"):
        _trainer(_recipe(), root, tmp_path / "x")


def test_weights_fed_with_other_numbers_are_refused(root, tmp_path):
    start = _trainer(_recipe(loss=LossConfig(auxiliary=0.0)), root, tmp_path / "start")
    start.run(stop_after=1)
    network = dataclasses.replace(SNUNET, initial=str(start.export()), mean=0.0, std=1.0)
    with pytest.raises(WeightsError, match="mean"):
        _trainer(_recipe(network=network), root, tmp_path / "next")


def test_a_checkpoint_of_another_recipe_is_refused_with_what_differs(root, tmp_path):
    run = _trainer(_recipe(), root, tmp_path)
    run.run(stop_after=1)
    with pytest.raises(ConfigError, match=r"another recipe.*seed"):
        _trainer(_recipe(seed=4), root, tmp_path).resume()


def test_weights_of_another_architecture_are_refused(root, tmp_path):
    network = NetworkConfig(architecture="snunet", width=8, initial="geocd-vhr")
    with pytest.raises(WeightsError, match=r"siam-nested-lite of width 32.*snunet of width 8"):
        _trainer(_recipe(network=network), root, tmp_path)


def test_a_teacher_of_other_classes_is_refused(root, tmp_path):
    recipe = _recipe(
        sources=(), pairs=(PAIRS,), classes=("none", "change"),
        loss=LossConfig(auxiliary=0.0, change="ce", teacher="geocd-vhr"),
    )  # fmt: skip
    with pytest.raises(WeightsError, match="same classes"):
        _trainer(recipe, root, tmp_path)


def test_a_network_without_maps_of_single_dates_cannot_segment_them(root, tmp_path):
    network = NetworkConfig(architecture="stacked-unet", width=4, initial="random")
    stages = (Stage(steps=1, crop=32, batch=2),)
    with pytest.raises(ConfigError, match="auxiliary = 0"):
        _trainer(_recipe(network=network, stages=stages), root, tmp_path)


def test_a_damaged_pair_is_named_skipped_and_counted_or_refused(root, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(root / "real", folder / "real")
    bad = folder / "real/B/3.png"
    bad.write_bytes(bad.read_bytes()[:200])
    recipe = _recipe(sources=(), pairs=(PAIRS,), loss=LossConfig(auxiliary=0.0))
    run = _trainer(recipe, folder, tmp_path / "run")
    with pytest.warns(GeocdWarning, match=r"pair 3 is skipped.*3\.png"):
        run.run()
    assert run.damaged == {"3"}
    assert load_weights(str(run.export())).card.training["damaged"] == ["3"]
    with pytest.raises(DatasetError, match=r"3\.png"):
        _trainer(recipe, folder, tmp_path / "strict", strict=True).run()


def test_crops_that_the_network_cannot_take_are_refused(root, tmp_path):
    network = NetworkConfig(architecture="stacked-unet", width=4, initial="random")
    recipe = _recipe(network=network, loss=LossConfig(auxiliary=0.0))
    with pytest.raises(ConfigError, match=r"48 px.*multiples of 32"):
        _trainer(recipe, root, tmp_path)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ConfigError, match="3 equal parts"):
        _recipe(optimizer=OptimizerConfig(accumulate=3))


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipes_can_be_read_and_name_an_existing_network(name):
    from geocd.models.registry import build_model

    recipe = load_recipe(find_recipe(name))
    assert recipe.name
    config = recipe.network
    build_model(config.architecture, bands=3, classes=len(recipe.classes), width=config.width,
                options=config.options)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("learning_rate", "lerning_rate"), "lerning_rate"),
        (("width = 32", 'width = "32"'), "network: width must be a number"),
        (("width = 32", "width = 0"), "width"),
        (("[optimizer]", "[optimizer]\nschedule = 'linear'"), "schedule"),
        (('classes = ["building", "road"]', 'classes = "change"'), "classes must be a list"),
        (('classes = ["building", "road"]', 'classes = ["none"]'), "class of change"),
        (("seed = 777", "seed = -1"), "seed"),
        (('name = "geocd-vhr"', 'name = "a/b"'), "file name"),
        (("thresholds = [0.7, 0.4]", "thresholds = [0.7]"), "1 thresholds for 2"),
    ],
)
def test_a_wrong_recipe_is_refused_by_the_name_of_its_mistake(tmp_path, change, message):
    (tmp_path / "r.toml").write_text(find_recipe("geocd-vhr").read_text().replace(*change))
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize("text", ["", "not toml [", "name = 'x'", "name = 'x'\nstages = 3"])
def test_a_recipe_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError):
        load_recipe(tmp_path / "r.toml")


def test_an_unknown_recipe_is_refused_with_the_bundled_ones():
    with pytest.raises(ConfigError, match="geocd-vhr"):
        find_recipe("nothing")


def test_the_published_protocol_halves_its_rate_every_eight_epochs():
    config = load_recipe(find_recipe("snunet-cdd")).optimizer
    assert config.rate(4_999, 62_500) == 1
    assert config.rate(5_000, 62_500) == 0.5
    assert config.rate(62_499, 62_500) == 0.5**12


# Leaks


@pytest.mark.data
@pytest.mark.parametrize("name", ["geocd-vhr", "geocd-snunet"])
def test_no_training_tile_is_an_image_of_the_validation_pairs(data, name):
    recipe = load_recipe(find_recipe(name))
    trained = {content_hash(t.image) for t in load_tiles(data, recipe.sources, classes=2)}
    for path in (data / "pairs").rglob("*.*"):
        if path.parent.name in ("A", "B"):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
            assert content_hash(image) not in trained
