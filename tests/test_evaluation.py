"""Weights are evaluated on sets of pairs, beside baselines, and reported."""

from __future__ import annotations

import json
import re
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from arithmetic import open_arithmetic
from click.testing import CliRunner
from PIL import Image
from rasterio.crs import CRS

import geocd
from geocd.assess import assess, write_report
from geocd.assess.baselines import BASELINES
from geocd.assess.metrics import Confusion
from geocd.assess.panels import FALSE_ALARM, HIT, MISS, UNSEEN, error_map
from geocd.assess.report import card_figures
from geocd.assess.tables import Table
from geocd.config import AlignConfig, DetectConfig
from geocd.errors import (
    ConfigError,
    DatasetError,
    GeocdWarning,
    OutputExistsError,
    UnknownWeightsError,
)
from geocd.testing import paint_scene, write_raster
from geocd.training.datasets import LabelCoding, find_pairs
from geocd_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

OFF = DetectConfig(align=AlignConfig(mode="off"))


# Whole sets


def _dataset(folder, names=("one", "two"), *, label=255):
    for index, name in enumerate(names):
        image = np.clip(paint_scene((64, 64), seed=index), 0, 180)
        after, truth = image.copy(), np.zeros((1, 64, 64), np.uint8)
        after[:, 20:40, 20:40], truth[:, 20:40, 20:40] = 250, label
        for sub, array in (("A", image), ("B", after), ("label", truth)):
            _write(folder / sub / f"{name}.png", array)
    return folder


def _write(path, array):
    path.parent.mkdir(exist_ok=True, parents=True)
    count, height, width = array.shape
    with rasterio.open(path, "w", driver="PNG", height=height, width=width, count=count,
                       dtype="uint8") as dataset:  # fmt: skip
        dataset.write(array)


def _cut_short(path, *, keep=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])


@pytest.fixture
def arithmetic(monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", open_arithmetic)


def test_evaluation_lists_every_image_and_the_baselines(tmp_path):
    results = geocd.evaluate(_dataset(tmp_path / "d"), config=geocd.DetectConfig())
    assert [r.method for r in results] == [
        "geocd-vhr", "colour difference + Otsu", "PCA + k-means", "everything changed",
        "nothing changed",
    ]  # fmt: skip
    assert all(set(r.images) == set(r.objects) == {"one", "two"} for r in results)
    assert results[3].total == Confusion(800, 2 * 64 * 64 - 800, 0, 0)
    assert results[4].total == Confusion(0, 0, 800, 2 * 64 * 64 - 800)
    assert results[0].total.recall > 0.1  # two plain bright squares: hardly buildings


@pytest.mark.usefixtures("arithmetic")
def test_painted_change_is_found_to_the_pixel(tmp_path):
    ours, *_, nothing = geocd.evaluate(_dataset(tmp_path / "d"), config=OFF)
    assert ours.total == Confusion(800, 0, 0, 2 * 64 * 64 - 800)
    assert ours.total.f1 == ours.total.kappa == ours.median_f1 == 1
    assert ours.intervals()["f1"] == (1, 1)
    assert ours.total_objects.to_dict()["found"] == 2
    assert ours.curve.average_precision == 1
    assert nothing.total.f1 == 0
    assert nothing.curve is None


@pytest.mark.usefixtures("arithmetic")
def test_baselines_see_after_as_it_was_aligned(tmp_path):
    scene = paint_scene((300, 300), seed=2)
    before, after = scene[:, 20:276, 20:276], scene[:, 15:271, 23:279]
    for sub, array in (("A", before), ("B", after), ("label", np.zeros((1, 256, 256), np.uint8))):
        _write(tmp_path / sub / "one.png", array)
    blind = assess(tmp_path, config=OFF).evaluations[1].total.false_positive
    aligned = assess(tmp_path, config=DetectConfig()).evaluations[1]
    assert aligned.total.size < 256 * 256  # what the shifted image does not show counts nowhere
    assert aligned.total.false_positive < blind


@pytest.mark.usefixtures("arithmetic")
def test_georeferenced_pairs_on_two_grids_are_measured_in_square_metres(tmp_path):
    scene = paint_scene((80, 80), seed=6).astype(np.uint16) * 4 + 300
    after, truth = scene.copy(), np.zeros((1, 80, 80), np.uint8)
    after[:, 20:50, 20:50], truth[:, 20:50, 20:50] = 2500, 1
    utm, corner = CRS.from_epsg(32633), Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    for sub in ("A", "B", "label"):
        (tmp_path / sub).mkdir()
    write_raster(tmp_path / "A" / "one.tif", scene, crs=utm, transform=corner)
    write_raster(tmp_path / "label" / "one.tif", truth, crs=utm, transform=corner)
    # The later image lacks the first ten columns.
    moved = corner @ Affine.translation(10, 0)
    write_raster(tmp_path / "B" / "one.tif", after[:, :, 10:], crs=utm, transform=moved)
    assessment = assess(tmp_path, config=OFF)
    ours, otsu = assessment.evaluations[:2]
    assert assessment.unit == "m2"
    assert ours.total_objects.found == (0, 1, 0)  # 900 pixels of 0.25 m2
    assert ours.total.size == otsu.total.size == 80 * 70
    assert otsu.total.recall == 1


@pytest.mark.usefixtures("arithmetic")
def test_pairs_of_a_manifest_are_measured_against_polygons_within_the_labelled_area(tmp_path):
    scene = np.clip(paint_scene((80, 80), seed=6), 0, 180)
    after = scene.copy()
    after[:, 20:50, 20:50] = 250  # labelled
    after[:, 60:70, 60:70] = 250  # an alarm, outside the labelled area
    utm, corner = CRS.from_epsg(32633), Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    write_raster(tmp_path / "a.tif", scene[[2, 1, 0]], crs=utm, transform=corner)
    moved = corner @ Affine.translation(10, 0)
    write_raster(tmp_path / "b.tif", after[:, :, 10:], crs=utm, transform=moved)
    for name, outline in (("truth", (20, 20, 50, 50)), ("area", (0, 0, 80, 55))):
        left, top, right, bottom = outline
        square = shapely.box(*(corner @ (left, bottom)), *(corner @ (right, top)))
        geopandas.GeoDataFrame(geometry=[square], crs=utm).to_crs(4326).to_file(
            tmp_path / f"{name}.gpkg"
        )
    (tmp_path / "pairs.toml").write_text(
        '[[pairs]]\nbefore = "a.tif"\nafter = "b.tif"\nlabel = "truth.gpkg"\n'
        'area = "area.gpkg"\nbands = [3, 2, 1]\n'
    )
    ours = geocd.evaluate(tmp_path / "pairs.toml", config=OFF)[0].total
    assert ours.size == 55 * 70
    assert ours == Confusion(900, 0, 0, 55 * 70 - 900)


@pytest.mark.usefixtures("arithmetic")
def test_ignored_label_pixels_count_nowhere(tmp_path):
    folder = _dataset(tmp_path / "d", ["one"], label=1)
    truth = np.zeros((1, 64, 64), np.uint8)
    truth[:, 20:30, 20:40], truth[:, 30:40, 20:40], truth[:, :5] = 1, 9, 2
    _write(folder / "label" / "one.png", truth)
    coding = LabelCoding(values={"building": 1, "road": 2}, ignore=9)
    ours, *_, everything, _ = geocd.evaluate(folder, config=OFF, coding=coding)
    assert ours.total == Confusion(200, 0, 0, 64 * 64 - 400)
    assert everything.total.size == 64 * 64 - 200
    roads = geocd.evaluate(folder, config=OFF, coding=coding, kind="road")[0]
    assert roads.total == Confusion(0, 0, 5 * 64, 64 * 64 - 200 - 5 * 64)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("damaged", ["A", "B", "label"])
def test_a_damaged_image_is_named_and_the_others_are_evaluated(tmp_path, damaged):
    folder = _dataset(tmp_path / "d", ["one", "two", "three"])
    _cut_short(folder / damaged / "two.png")
    with pytest.warns(GeocdWarning, match=r"two is skipped: .*two\.png"):
        assessment = assess(folder, config=OFF)
    assert list(assessment.evaluations[0].images) == ["one", "three"]
    assert "two.png" in assessment.to_dict()["skipped"]["two"]
    assert all(e.to_dict()["skipped"] == 1 for e in assessment.evaluations)
    with pytest.raises(DatasetError, match=r"two cannot be evaluated: .*two\.png"):
        assess(folder, config=OFF, strict=True)


@pytest.mark.usefixtures("arithmetic")
def test_an_image_cut_short_near_its_end_is_not_evaluated_as_if_whole(tmp_path):
    folder = _dataset(tmp_path / "d")
    _cut_short(folder / "B" / "two.png", keep=0.8)
    with pytest.warns(GeocdWarning, match=r"B/two\.png"):
        assert list(geocd.evaluate(folder, config=OFF)[0].images) == ["one"]


def test_errors_that_concern_every_pair_are_not_skipped(tmp_path):
    folder = _dataset(tmp_path / "d")
    with pytest.raises(UnknownWeightsError):
        geocd.evaluate(folder, config=DetectConfig(weights="no-such-weights"))
    with pytest.raises(ConfigError, match="the labels show road, not building"):
        geocd.evaluate(folder, config=OFF, coding=LabelCoding(values={"road": 1}))


@pytest.mark.parametrize("missing", ["B", "label"])
def test_a_missing_partner_is_named(tmp_path, missing):
    folder = _dataset(tmp_path / "d")
    (folder / missing / "two.png").unlink()
    with pytest.raises(DatasetError, match=r"two\.png has no partner"):
        find_pairs(folder)


def test_an_empty_folder_or_a_split_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="A/, B/ and label/"):
        geocd.evaluate(tmp_path)
    with pytest.raises(DatasetError, match="no split 'test'"):
        geocd.evaluate(_dataset(tmp_path / "d"), split="test")
    for sub in ("A", "B", "label"):
        (tmp_path / "empty" / "test" / sub).mkdir(parents=True)
    with pytest.raises(DatasetError, match="empty"):
        geocd.evaluate(tmp_path / "empty", split="test")


@pytest.mark.usefixtures("arithmetic")
def test_only_the_split_asked_for_is_evaluated(tmp_path):
    _dataset(tmp_path / "test", ["one"])
    _dataset(tmp_path / "train", ["two"])
    assert list(geocd.evaluate(tmp_path, config=OFF, split="test")[0].images) == ["test/one"]
    assert len(geocd.evaluate(tmp_path, config=OFF)[0].images) == 2


@pytest.mark.usefixtures("arithmetic")
def test_a_label_of_another_size_is_refused(tmp_path):
    folder = _dataset(tmp_path / "d", ["one"])
    _write(folder / "label" / "one.png", np.zeros((1, 10, 10), np.uint8))
    with (
        pytest.warns(GeocdWarning, match="10 x 10"),
        pytest.raises(DatasetError, match=r"none of the 1 pairs .* 10 x 10"),
    ):
        geocd.evaluate(folder, config=OFF)


# Reports


def test_hits_alarms_and_misses_are_coloured_as_the_legend_says():
    found, truth = np.array([[1, 1, 0, 0, 1]], bool), np.array([[1, 0, 1, 0, 1]], bool)
    valid = np.array([[1, 1, 1, 1, 0]], bool)
    picture = error_map(np.full((1, 5, 3), 200, np.uint8), found, truth, valid)
    assert [tuple(pixel) for pixel in picture[0].tolist()] == [
        HIT, FALSE_ALARM, MISS, (80, 80, 80), UNSEEN
    ]  # fmt: skip


def test_the_colours_of_errors_differ_even_without_hue():
    def luminance(colour):
        linear = (np.array(colour) / 255) ** 2.2
        return linear @ [0.2126, 0.7152, 0.0722]

    dark, middle, light = sorted(map(luminance, (HIT, FALSE_ALARM, MISS)))
    assert (middle + 0.05) / (dark + 0.05) > 1.5
    assert (light + 0.05) / (middle + 0.05) > 1.5


def test_names_cannot_break_a_table():
    table = Table("c", ["", "x"], [["a|b*<i>", "1"]])
    assert table.to_markdown().splitlines()[-1] == r"| a\|b\*\<i\> | 1 |"
    assert "a|b*&lt;i&gt;" in table.to_html()
    assert table.to_text().splitlines() == ["c", "         x", "a|b*<i>  1"]


@pytest.fixture
def report(tmp_path, arithmetic):
    """A report of images with false alarms, misses, a hostile name and one that is damaged."""
    folder = _dataset(tmp_path / "d", ["<b>&one", "two", "three", "bad"])
    _write(folder / "label" / "two.png", np.zeros((1, 64, 64), np.uint8))
    missed = np.zeros((1, 64, 64), np.uint8)
    missed[:, 20:40, 20:60] = 255
    missed[:, :10, :10] = 255
    _write(folder / "label" / "<b>&one.png", missed)
    _cut_short(folder / "B" / "bad.png")
    with pytest.warns(GeocdWarning):
        assessment = assess(folder, config=OFF)
    write_report(assessment, tmp_path / "out" / "report")
    return assessment, tmp_path / "out" / "report"


def test_a_report_holds_figures_table_curve_and_page(report):
    assessment, folder = report
    assert sorted(p.name for p in folder.iterdir()) == [
        "evaluation.json", "pr.png", "table.md", "worst.html"
    ]  # fmt: skip
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["images"] == 3
    assert list(content["skipped"]) == ["bad"]
    assert content["methods"][0]["total"]["f1"] == round(assessment.evaluations[0].total.f1, 5)
    assert len(content["methods"][0]["curve"]["precision"]) == 255
    with Image.open(folder / "pr.png") as chart:
        assert chart.format == "PNG"
        assert len(chart.getcolors(1 << 20)) > 10
    table = (folder / "table.md").read_text()
    assert "3 images, 1 skipped" in table
    assert all(method in table for method in BASELINES)


def test_the_page_shows_the_worst_first_needs_no_network_and_escapes_names(report):
    _, folder = report
    page = (folder / "worst.html").read_text()
    titles = re.findall("<h3>(.*)</h3>", page)
    assert titles == ["1. &lt;b&gt;&amp;one", "2. two"]  # 500 and 400 wrong pixels
    assert "<b>" not in page
    assert "three" not in titles  # nothing is wrong with it
    assert "3 images, 1 skipped" in page
    assert re.findall(r"https?://", page) == []
    assert set(re.findall(r'(?:src|srcset)="(.{10})', page)) == {"data:image"}
    assert page.index("<table") < page.index("Precision and recall") < page.index("<h3>")
    assert page.count("<figure>") == 2 * 4
    assert "prefers-color-scheme: dark" in page


def test_an_existing_report_is_kept_unless_overwriting_is_asked_for(report):
    assessment, folder = report
    (folder / "table.md").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(assessment, folder)
    assert (folder / "table.md").read_text() == "mine"
    write_report(assessment, folder, overwrite=True)
    assert (folder / "table.md").read_text() != "mine"


@pytest.mark.usefixtures("arithmetic")
def test_pictures_of_the_ten_worst_images_are_kept_and_of_no_others(tmp_path):
    folder = _dataset(tmp_path / "d", [f"image {i:02}" for i in range(12)])
    for index, path in enumerate(sorted((folder / "label").iterdir())):
        truth = np.zeros((1, 64, 64), np.uint8)
        truth[:, 20:40, 20 : 20 + index + 1] = 255
        _write(path, truth)
    panels = assess(folder, config=OFF).panels
    assert list(panels) == [f"image {i:02}" for i in range(10)]


@pytest.mark.usefixtures("arithmetic")
def test_the_command_prints_tables_or_json_and_writes_the_report(tmp_path):
    folder = _dataset(tmp_path / "d", ["one", "two", "three"])
    shutil.copy(folder / "A" / "one.png", folder / "B" / "three.png")
    _cut_short(folder / "B" / "two.png")
    base = ["evaluate", "--data", str(folder), "--align", "off", "-q"]
    done = CliRunner().invoke(main, [*base, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "2 images, 1 skipped" in done.stdout
    assert "Warning: two is skipped" in done.stderr
    assert all(method in done.stdout for method in BASELINES)
    assert (tmp_path / "out" / "worst.html").exists()
    again = CliRunner().invoke(main, [*base, "-o", str(tmp_path / "out"), "--json"])
    assert again.exit_code == 1
    assert "exists" in again.stderr
    printed = CliRunner().invoke(main, [*base, "--json"])
    assert json.loads(printed.stdout)["images"] == 2
    strict = CliRunner().invoke(main, [*base, "--strict"])
    assert strict.exit_code == 1
    assert "two cannot be evaluated" in strict.stderr


@pytest.mark.parametrize(
    "wrong", [["--class", "building"], ["--class", "road=1"], ["--iou", "2"], ["--min-area", "-1"]]
)
def test_settings_that_make_no_sense_are_usage_errors(tmp_path, wrong):
    done = CliRunner().invoke(main, ["evaluate", "--data", str(_dataset(tmp_path / "d")), *wrong])
    assert done.exit_code == 2


@pytest.mark.data
@pytest.mark.parametrize(
    ("weights", "name", "pixel_size", "floor"),
    [
        ("geocd-vhr", "levir256", 0.5, 0.72),
        ("geocd-vhr", "whu512", 0.2, 0.80),
        ("geocd-snunet", "levir256", 0.5, 0.50),
        ("geocd-snunet", "whu512", 0.2, 0.60),
    ],
)
def test_the_bundled_weights_find_real_building_change_they_never_saw(
    data, weights, name, pixel_size, floor
):
    config = geocd.DetectConfig(weights=weights, pixel_size=pixel_size)
    ours, *baselines = geocd.evaluate(data / "pairs" / name, config=config)
    assert ours.total.f1 >= floor
    assert ours.curve.average_precision >= floor
    assert all(baseline.total.f1 < 0.3 for baseline in baselines)
    assert ours.total_objects.f1 > max(b.total_objects.f1 for b in baselines)


def test_a_weights_card_keeps_figures_and_conditions_but_no_images(tmp_path):
    assessment = assess(_dataset(tmp_path / "d"), config=geocd.DetectConfig())
    path = tmp_path / "e.json"
    path.write_text(json.dumps(assessment.to_dict()))
    kept = card_figures(path)
    assert kept["figures"]["total"] == assessment.evaluations[0].total.to_dict()
    assert set(kept["f1_of_baselines"]) == {e.method for e in assessment.evaluations[1:]}
    assert "methods" not in kept
    assert kept["images"] == 2


@pytest.mark.parametrize("text", ["", "[]", '{"methods": []}', '{"methods": [3]}'])
def test_figures_of_another_program_are_refused(tmp_path, text):
    path = tmp_path / "e.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="geocd evaluate --json"):
        card_figures(path)
