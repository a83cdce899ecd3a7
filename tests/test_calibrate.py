"""Operating points: misses are counted as told, and a point holds only where it was proven."""

from __future__ import annotations

import dataclasses
import io
import json
import math

import numpy as np
import pytest
import rasterio
from arithmetic import open_arithmetic
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from geocd.assess import calibrate as module
from geocd.assess.calibrate import calibrate
from geocd.assess.misses import count_misses, false_alarms
from geocd.assess.operating_point import OperatingPoint, read_operating_point, write_operating_point
from geocd.assess.reliability import (
    Scaling,
    fit_scaling,
    held_out_reliability,
    probabilities,
    reliability,
    reliability_diagram,
)
from geocd.assess.sample import Sample
from geocd.config import AlignConfig, CalibrateConfig, DetectConfig, PredictConfig, TilingConfig
from geocd.errors import ConfigError, DatasetError, OperatingPointError, OutputExistsError
from geocd.models.files import find_weights, read_card
from geocd.predict.backends import chosen
from geocd.report.layer import read_changes
from geocd.testing import paint_scene
from geocd.training.datasets import read_pixels
from geocd.training.tiles import content_hash
from geocd_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
OFF = DetectConfig(align=AlignConfig(mode="off"))
ANY = CalibrateConfig(min_area=0)


def _with(**settings):
    return CalibrateConfig(min_area=0, **settings)


# Counting


def test_an_object_is_missed_from_the_level_on_at_which_too_little_of_it_is_found():
    scores = np.array([[200, 150, 100, 50, 0, 30, 30]], np.uint8)
    truth = np.array([[1, 1, 1, 1, 0, 1, 1]], bool)
    half = count_misses(scores, truth, config=_with(cover=0.5), pixel_area=None)
    assert half.total == 2
    # Two of four pixels reach 150; both of two, hence one of two, reach 30.
    assert [half.missed[level - 1] for level in (1, 30, 31, 150, 151, 254)] == [0, 0, 1, 1, 2, 2]
    whole = count_misses(scores, truth, config=_with(cover=1), pixel_area=None)
    assert [whole.missed[level - 1] for level in (30, 31, 50, 51)] == [0, 1, 1, 2]


def test_pixels_and_images_are_counted_too():
    scores = np.array([[200, 150, 0, 30]], np.uint8)
    truth = np.array([[1, 1, 0, 1]], bool)
    pixels = count_misses(scores, truth, config=_with(unit="pixel"), pixel_area=None)
    assert (pixels.total, pixels.missed[99], pixels.missed[199], pixels.missed[200]) == (3, 1, 2, 3)
    image = count_misses(scores, truth, config=_with(unit="image"), pixel_area=None)
    assert (image.total, image.missed[199], image.missed[200]) == (1, 0, 1)


def test_small_objects_and_images_without_change_say_nothing():
    scores = np.full((10, 10), 99, np.uint8)
    truth = np.zeros((10, 10), bool)
    truth[:2, :2] = True
    for unit in ("object", "image"):
        config = CalibrateConfig(unit=unit, min_area=5)
        assert count_misses(scores, truth, config=config, pixel_area=1.0).total == 0
        assert count_misses(scores, truth, config=config, pixel_area=2.0).total == 1
        assert count_misses(scores, truth & False, config=config, pixel_area=2.0).total == 0


@given(
    arrays(np.uint8, (9, 9), elements=st.integers(0, 254)), arrays(bool, (9, 9)),
    st.sampled_from(["object", "pixel", "image"]), st.floats(0.05, 1),
)  # fmt: skip
def test_misses_never_fall_with_the_threshold_and_end_at_everything_but_the_best(
    scores, truth, unit, cover
):
    m = count_misses(scores, truth, config=_with(unit=unit, cover=cover), pixel_area=None)
    assert (np.diff(m.missed) >= 0).all()
    assert (m.missed <= m.total).all()
    if truth.any():
        assert m.total > 0


def test_false_alarms_are_objects_without_change_in_them():
    scores = np.zeros((20, 20), np.uint8)
    scores[2:5, 2:5] = scores[10:13, 10:13] = 200
    scores[18, 18] = 200
    truth = np.zeros((20, 20), bool)
    truth[4:8, 4:8] = True
    valid = np.ones((20, 20), bool)
    valid[:, 19] = False
    config = CalibrateConfig(min_area=2)
    f = false_alarms(scores, truth, valid, level=200, config=config, pixel_area=1.0)
    assert (f.objects, f.pixels, f.unchanged, f.area_m2) == (1, 8 + 9 + 1, 380 - 16, 380)
    none = false_alarms(scores, truth, valid, level=201, config=config, pixel_area=None)
    assert (none.objects, none.pixels) == (0, 0)
    assert math.isnan(none.area_m2)


# Whole sets, with scores that are painted


def _names(folder, count):
    for index in range(count):
        for sub in ("A", "B", "label"):
            _write(folder / sub / f"s{index // 2:03}_{index % 2}.png", index)
    return folder


def _write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((1, 4, 4), value % 250, np.uint8)
    array[0, 0, 0], array[0, 0, 1] = value // 250, len(path.parts[-2])
    with rasterio.open(path, "w", driver="PNG", height=4, width=4, count=1, dtype="uint8") as d:
        d.write(array)


@pytest.fixture
def painted(monkeypatch):
    """Every image has one object whose score rises with its number, and one false alarm."""

    def _run(pair, labelled, card, config, scratch):
        stem = pair.name.split("/")[-1]
        index = 2 * int(stem[1:4]) + int(stem[5])
        truth = np.zeros((16, 16), bool)
        truth[2:6, 2:6] = True
        scores = np.zeros((16, 16), np.uint8)
        scores[truth] = 60 + index
        scores[10:14, 10:14] = 90
        picture = np.zeros((16, 16, 3), np.uint8)
        return Sample(picture, picture, truth, scores > 127, np.ones_like(truth), scores, 4.0)

    monkeypatch.setattr(module, "run_pair", _run)


@pytest.mark.usefixtures("painted")
def test_the_threshold_is_the_highest_that_the_objects_prove(tmp_path):
    result = calibrate(_names(tmp_path / "d", 100), config=OFF)
    # Of 100 images one may miss its object: the binomial tail of 1 is 0.037 and of 2 is 0.118.
    # The bound for any loss proves no level at which one is missed wholly.
    assert result.point.threshold == pytest.approx(59.5 / 254)
    assert result.promised.miss == 0
    assert result.promised.alarms.objects == 100
    in_images = calibrate(tmp_path / "d", config=OFF, promise=_with(unit="image"))
    assert in_images.point.threshold == pytest.approx(60.5 / 254)
    assert in_images.promised.miss == 0.01
    assert result.point.kind == "building"
    assert result.point.calibration["units"] == 100
    costs = result.to_dict()["calibration"]["promised"]
    assert costs["false_objects_per_image"] == 1
    assert costs["false_objects_per_km2"] == pytest.approx(1e6 / (256 * 4.0))
    assert "with a confidence of 95.0%" in result.report()
    card = result.as_on_the_card
    assert card.threshold == read_card(find_weights("geocd-vhr")).thresholds[0]
    assert card.miss > 0.5
    assert card.alarms.objects == 0


@pytest.mark.usefixtures("painted")
def test_images_of_one_site_are_one_unit(tmp_path):
    folder = _names(tmp_path / "d", 100)
    with pytest.raises(OperatingPointError, match=r"63 sites .* there are 50 images"):
        calibrate(folder, config=OFF, promise=_with(site=r"s\d+"))
    result = calibrate(folder, config=OFF, promise=_with(site=r"s(\d+)", max_miss=0.1))
    assert result.point.calibration["units"] == 50
    with pytest.raises(DatasetError, match="finds nothing"):
        calibrate(folder, config=OFF, promise=_with(site="town"))


@pytest.mark.usefixtures("painted")
def test_too_few_units_are_refused_with_the_number_needed(tmp_path):
    with pytest.raises(OperatingPointError, match=r"63 images .* there are 40 .*--max-miss 0\.079"):
        calibrate(_names(tmp_path / "d", 40), config=OFF)
    enough = calibrate(tmp_path / "d", config=OFF, promise=_with(max_miss=0.079))
    assert enough.promised.miss == 0
    mean = calibrate(tmp_path / "d", config=OFF, promise=_with(confidence=None))
    assert mean.promised.miss <= 0.05
    assert "on average" in mean.report()


def test_a_promise_that_no_threshold_keeps_is_refused(tmp_path, monkeypatch):
    truth = np.ones((8, 8), bool)
    blind = Sample(None, None, truth, truth, truth, np.zeros((8, 8), np.uint8), None)
    monkeypatch.setattr(module, "run_pair", lambda *rest: blind)
    with pytest.raises(OperatingPointError, match=r"lowest misses 100\.00%"):
        calibrate(_names(tmp_path / "d", 63), config=OFF, promise=ANY)


@pytest.mark.usefixtures("painted")
def test_images_of_the_training_are_refused_by_folder_and_by_hash(tmp_path, monkeypatch):
    folder = tmp_path / "d"
    for index in range(63):
        for sub in ("A", "B", "label"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
            scene = paint_scene((24, 24), seed=3 * index + len(sub))[0]
            Image.fromarray(scene).save(folder / sub / f"s{index // 2:03}_{index % 2}.png")
    (tmp_path / "trained" / "images").mkdir(parents=True)
    copy = (folder / "B" / "s003_0.png").read_bytes()
    (tmp_path / "trained" / "images" / "other.png").write_bytes(copy)
    with pytest.raises(OperatingPointError, match=r"trained on .*s003_0"):
        calibrate(folder, config=OFF, against=[tmp_path / "trained"])
    card = read_card(find_weights("geocd-vhr"))
    hashes = [content_hash(read_pixels(folder / "A" / "s010_1.png"))]
    known = dataclasses.replace(card, training={"content_sha256": hashes})
    monkeypatch.setattr(module, "read_card", lambda path: known)
    with pytest.raises(OperatingPointError, match=r"s010_1.*by the hash on the card"):
        calibrate(folder, config=OFF)
    # Another encoding of the same pixels is the same image; a lossy one is another.
    place = folder / "A" / "s010_1.png"
    Image.open(place).save(place.with_suffix(".tif"))
    place.unlink()
    with pytest.raises(OperatingPointError, match=r"s010_1\.tif.*by the hash on the card"):
        calibrate(folder, config=OFF)
    strange = dataclasses.replace(card, training={"content_sha256": ["0" * 64]})
    monkeypatch.setattr(module, "read_card", lambda path: strange)
    told = calibrate(folder, config=OFF).report()
    assert "126 images were compared with the 1 that the card names as trained on" in told
    silent = dataclasses.replace(card, training={})
    monkeypatch.setattr(module, "read_card", lambda path: silent)
    assert "carries no hashes" in calibrate(folder, config=OFF).report()


def test_weights_refuse_to_be_calibrated_on_a_tile_that_they_were_trained_on(tmp_path):
    for index in range(3):
        scene = np.moveaxis(paint_scene((64, 64), seed=index), 0, -1)
        label = np.zeros((64, 64), np.uint8)
        label[20:40, 20:40] = 255
        for folder, image in (("tiles/images", scene), ("tiles/labels", label), ("d/A", scene),
                              ("d/B", scene // 2), ("d/label", label)):  # fmt: skip
            if folder.startswith("d/") or index == 1:
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(tmp_path / folder / f"{index}.png")
    (tmp_path / "r.toml").write_text(
        'name = "tiny"\nnetwork = {width = 16}\n[[stages]]\nsteps = 1\ncrop = 32\nbatch = 1\n'
        '[[sources]]\nfolder = "tiles"\ngsd = 0.5\nbuilding = 255\n'
    )
    trained = CliRunner().invoke(
        main, ["train", "--config", str(tmp_path / "r.toml"), "--data", str(tmp_path), "-o",
               str(tmp_path / "run"), "--workers", "0"],
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    refused = CliRunner().invoke(
        main, ["calibrate", "--data", str(tmp_path / "d"), "--weights",
               str(tmp_path / "run" / "tiny.safetensors"), "--max-miss", "0.75", "--confidence",
               "0.8", "-o", str(tmp_path / "p.json")],
    )  # fmt: skip
    assert refused.exit_code == 1
    assert "d/A/1.png (by the hash on the card)" in refused.stderr


@pytest.mark.usefixtures("painted")
def test_the_hash_of_the_set_follows_every_file_and_no_name(tmp_path):
    def _hash():
        found = calibrate(tmp_path / "d", config=OFF, promise=_with(confidence=None, max_miss=0.1))
        return found.point.calibration["sha256"]

    _names(tmp_path / "d", 20)
    first = _hash()
    assert first == _hash()
    _write(tmp_path / "d" / "label" / "s004_1.png", 99)
    assert _hash() != first


# Files


def _point(**changes):
    card = read_card(find_weights("geocd-vhr"))
    fields = {
        "kind": "building", "threshold": 0.2,
        "weights": {"name": card.name, "architecture": card.architecture,
                    "sha256": card.tensors_sha256},
        "settings": module.settings_of(OFF), "promise": {"words": "w"}, "calibration": {},
        "made": {},
    }  # fmt: skip
    return OperatingPoint(**fields | changes)


def test_a_point_brings_its_threshold_to_the_same_weights_and_settings(tmp_path):
    write_operating_point(_point(), tmp_path / "p.json")
    point = read_operating_point(tmp_path / "p.json")
    assert point == _point()
    in_full = dataclasses.replace(OFF.predict, first_look=False)
    assert point.apply(OFF) == dataclasses.replace(
        OFF, threshold={"building": 0.2}, operating_point=point.sha256, predict=in_full
    )
    inputs_may_differ = dataclasses.replace(OFF, pixel_size=0.2, bands=(3, 2, 1))
    assert point.apply(inputs_may_differ).threshold == {"building": 0.2}
    with pytest.raises(OutputExistsError):
        write_operating_point(_point(), tmp_path / "p.json")


def test_other_weights_and_other_settings_are_refused():
    with pytest.raises(OperatingPointError, match=r"proven for geocd-vhr .* are geocd-snunet"):
        _point().apply(dataclasses.replace(OFF, weights="geocd-snunet"))
    with pytest.raises(OperatingPointError, match=r"align.mode was 'off' and is 'auto'"):
        _point().apply(DetectConfig())
    other = "openvino" if chosen(OFF.predict)[0] == "torch" else "torch"
    for changed in ({"gsd": 0.7}, {"radiometry": "linear"}, {"unaligned": "mask"},
                    {"tiling": TilingConfig(tile_size=512)}, {"tiling": TilingConfig(overlap=32)},
                    {"predict": PredictConfig(backend=other)}):  # fmt: skip
        with pytest.raises(OperatingPointError, match="other settings"):
            _point().apply(dataclasses.replace(OFF, **changed))
    # What this machine takes by itself is the same as what it takes when it is told.
    backend, precision = chosen(OFF.predict)
    told = PredictConfig(backend=backend, precision=precision)
    assert _point().apply(dataclasses.replace(OFF, predict=told)).threshold == {"building": 0.2}
    with pytest.raises(ConfigError, match="leave --threshold out"):
        _point().apply(dataclasses.replace(OFF, threshold=0.5))


def test_a_point_that_was_changed_by_hand_is_refused(tmp_path):
    write_operating_point(_point(), tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "changed.json").write_text(json.dumps(content | {"threshold": 0.9}))
    with pytest.raises(OperatingPointError, match="not as geocd calibrate wrote it"):
        read_operating_point(tmp_path / "changed.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": "0", "format": "x"}'])
def test_other_files_are_no_point(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(OperatingPointError):
        read_operating_point(tmp_path / "p.json")
    with pytest.raises(OperatingPointError):
        read_operating_point(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "wrong", [{"unit": "house"}, {"max_miss": 0}, {"confidence": 1}, {"cover": 0}, {"cover": 1.1},
              {"min_area": -1}, {"site": "("}, {"max_miss": math.nan}],
)  # fmt: skip
def test_impossible_promises_are_refused(wrong):
    with pytest.raises(ConfigError):
        CalibrateConfig(**wrong)


# Probabilities


def _counts(scaling, pixels=400_000, seed=0):
    rng = np.random.default_rng(seed)
    level = rng.integers(1, 254, pixels)
    changed = rng.random(level.size) < probabilities(scaling)[level]
    return np.stack([np.bincount(level[changed == k], minlength=255) for k in (0, 1)])


def test_a_scaling_that_was_laid_on_scores_is_found_again():
    counts = _counts(Scaling(0.4, -1.5))
    found = fit_scaling(counts)
    assert (found.scale, found.bias) == pytest.approx((0.4, -1.5), rel=0.02)
    raw, scaled = reliability(counts), reliability(counts, found)
    assert raw.expected_error > 0.1
    assert scaled.expected_error < 0.005
    assert scaled.weight.sum() == pytest.approx(1)


def test_scores_that_part_both_kinds_have_a_finite_scaling():
    counts = np.zeros((2, 255), int)
    counts[0, :100], counts[1, 150:] = 5, 5
    found = fit_scaling(counts)
    assert 1 < found.scale < 1000
    assert reliability(counts, found).expected_error < 0.01


def test_the_error_on_images_held_out_is_not_that_of_the_fit():
    same = np.array([_counts(Scaling(0.5, -1), 20_000, seed) for seed in range(10)])
    held_out = held_out_reliability(same)
    assert held_out.expected_error < 0.02
    assert held_out.scaling == fit_scaling(same.sum(axis=0))
    # Images that have nothing in common: what suits the others does not suit this one.
    apart = np.array([_counts(Scaling(1, 3 * (-1) ** seed), 20_000, seed) for seed in range(2)])
    fitted = reliability(apart.sum(axis=0), fit_scaling(apart.sum(axis=0)))
    assert fitted.expected_error < 0.1
    assert held_out_reliability(apart).expected_error > 0.3
    assert held_out_reliability(np.stack([apart[0], np.zeros((2, 255), int)])) is None


def test_the_expected_error_of_a_small_example_is_known():
    counts = np.zeros((2, 255), int)
    counts[:, 254], counts[:, 127] = (1, 3), (2, 2)  # 0.998 against 0.75, and 0.5 against 0.5
    expected = 0.5 * (1 - 0.5 / 254 - 0.75)
    assert reliability(counts).expected_error == pytest.approx(expected)


def test_without_change_there_is_no_scaling_and_the_diagram_is_a_picture():
    counts = np.zeros((2, 255), int)
    counts[0, 5] = 9
    assert fit_scaling(counts) is None
    picture = Image.open(io.BytesIO(reliability_diagram(reliability(counts), None)))
    assert picture.format == "PNG"


# Commands


def test_the_command_calibrates_and_detect_takes_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", open_arithmetic)
    for index in range(3):
        before = np.clip(paint_scene((64, 64), seed=index), 0, 150)
        after, truth = before.copy(), np.zeros((1, 64, 64), np.uint8)
        after[:, 20:40, 20:40], truth[:, 20:40, 20:40] = 250, 255
        for sub, array in (("A", before), ("B", after), ("label", truth)):
            path = tmp_path / "d" / sub / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(path, "w", driver="PNG", height=64, width=64, count=len(array),
                               dtype="uint8") as dataset:  # fmt: skip
                dataset.write(array)
    base = ["calibrate", "--data", str(tmp_path / "d"), "--align", "off", "-q",
            "-o", str(tmp_path / "p.json")]  # fmt: skip
    few = CliRunner().invoke(main, base)
    assert few.exit_code == 1
    assert "63 images" in few.stderr
    assert few.stderr.rstrip().endswith("there are 3 images. Label more")
    done = CliRunner().invoke(main, [*base, "--max-miss", "0.75", "--confidence", "0.8",
                                     "--diagram", str(tmp_path / "r.png"), "--json"])  # fmt: skip
    assert done.exit_code == 0, done.output
    point = json.loads(done.stdout)
    assert point["calibration"]["promised"]["miss"] == 0
    assert (tmp_path / "r.png").stat().st_size > 1000
    images = [str(tmp_path / "d" / sub / "0.png") for sub in "AB"]
    detect = ["detect", *images, "-o", str(tmp_path / "c.gpkg"), "--operating-point",
              str(tmp_path / "p.json"), "--overwrite"]  # fmt: skip
    refused = CliRunner().invoke(main, detect)
    assert refused.exit_code == 1
    assert "align.mode was 'off' and is 'auto'" in refused.stderr
    taken = CliRunner().invoke(main, [*detect, "--align", "off", "--json"])
    assert taken.exit_code == 0, taken.output
    assert json.loads(taken.stdout)["count"] == 1
    made_by = read_changes(tmp_path / "c.gpkg").provenance["config"]
    assert made_by["operating_point"] == point["sha256"]
    assert made_by["predict"]["first_look"] is False
    windows = CliRunner().invoke(main, [*detect, "--align", "off", "--overlap", "32"])
    assert "tiling.overlap was 64 and is 32" in windows.stderr
    both = CliRunner().invoke(main, [*detect, "--align", "off", "--threshold", "0.5"])
    assert both.exit_code == 2
