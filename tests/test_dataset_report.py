"""``geocd data`` counts what is in a set and finds what is wrong with it."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from rasterio.crs import CRS
from samples import block_label, picture, save, triple

from geocd.errors import DatasetError
from geocd.testing import write_raster
from geocd.training.datasets import LabelCoding, inspect_pairs
from geocd.training.datasets.files import read_label_values
from geocd_cli.main import main

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
PIXELS = 24 * 32
CHANGED = 48


@pytest.fixture
def folder(tmp_path):
    """Two splits of two pairs each; the second pair of each has no change."""
    for number, name in enumerate(("train/1", "train/2", "val/3", "val/4")):
        split, stem = name.split("/")
        triple(tmp_path / "set" / split, stem, seed=number)
        if stem in "24":
            save(tmp_path / "set" / split / "label" / f"{stem}.png", np.zeros((24, 32), np.uint8))
    return tmp_path / "set"


def _geocd(*arguments):
    return CliRunner().invoke(main, ["data", "-q", *map(str, arguments)])


def test_every_split_is_counted(folder):
    report = inspect_pairs(folder)
    assert report.ok
    assert (report.kind, [s.split for s in report.splits]) == ("pairs", ["train", "val"])
    train = report.splits[0]
    assert train.samples == 2
    assert train.sizes == {"24 x 32": 4}
    assert train.bands == {"3 x uint8": 4}
    assert train.label_values == {0: 2 * PIXELS - CHANGED, 255: CHANGED}
    pixels = train.classes["change"]
    assert (pixels.none, pixels.change, pixels.ignored) == (2 * PIXELS - CHANGED, CHANGED, 0)
    assert train.without_change == ("train/2",)
    assert report.leaks == report.duplicates == ()


def test_classes_are_counted_by_their_coding(folder):
    coding = LabelCoding(values={"road": 255}, ignore=7)
    save(folder / "train" / "label" / "2.png", block_label(value=7))
    classes = inspect_pairs(folder, coding=coding).splits[0].classes
    assert classes["road"].ignored == classes["road"].change == CHANGED
    assert classes["building"].ignored == 2 * PIXELS


@pytest.mark.parametrize(("date", "other"), [("A", "A"), ("A", "B"), ("B", "B")])
def test_an_image_of_either_date_in_two_splits_is_a_leak(folder, date, other):
    # The same pixels in another file format.
    save(folder / "val" / other / "4.tif", picture(0 if date == "A" else 1))
    (folder / "val" / other / "4.png").unlink()
    (leak,) = inspect_pairs(folder).leaks
    assert leak.places == ("train", "val")
    assert leak.files == (str(folder / "train" / date / "1.png"),
                          str(folder / "val" / other / "4.tif"))  # fmt: skip
    done = _geocd(folder)
    assert done.exit_code == 1
    assert "Leaks across splits or sets: 1" in done.stdout


def test_equal_images_within_a_split_are_duplicates_and_no_error(folder):
    save(folder / "train" / "B" / "2.png", picture(0))
    report = inspect_pairs(folder)
    assert report.ok
    assert [len(d.files) for d in report.duplicates] == [2]


def test_a_file_that_two_lists_name_is_a_leak(tmp_path):
    for number in range(2):
        triple(tmp_path, str(number), seed=number)
    (tmp_path / "train.txt").write_text("0.png\n1.png\n")
    (tmp_path / "test.txt").write_text("1.png\n")
    report = inspect_pairs(tmp_path)
    assert len(report.leaks) == 2  # both of its dates
    assert not report.ok


def test_images_of_one_colour_are_no_leak(folder):
    for split, stem in (("train", "1"), ("val", "3")):
        save(folder / split / "A" / f"{stem}.png", np.zeros((24, 32, 3), np.uint8))
    assert inspect_pairs(folder).ok


def test_damaged_and_mismatched_files_are_listed(folder):
    broken = folder / "train" / "A" / "1.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    save(folder / "val" / "label" / "3.png", block_label((24, 30)))
    report = inspect_pairs(folder)
    assert not report.ok
    train, val = report.splits
    assert [str(broken) in message for message in train.damaged] == [True]
    assert ["24 x 30" in message for message in val.mismatched] == [True]
    assert train.classes["change"].change == 0  # of the pair that is left
    done = _geocd(folder)
    assert done.exit_code == 1
    assert "DAMAGED" in done.stdout
    assert "MISMATCHED" in done.stdout


def test_wrong_class_values_are_a_mismatch(folder):
    done = _geocd(folder, "--class", "building=1")
    assert done.exit_code == 1
    assert "wrong class values 255" in done.stdout
    assert _geocd(folder, "--class", "building=255").exit_code == 0
    assert _geocd(folder, "--class", "building=255", "--ignore", "3").exit_code == 0


def test_other_sets_must_not_share_an_image(folder, tmp_path):
    other = tmp_path / "other"
    save(other / "images" / "x.png", picture(3))  # after of train/2
    save(other / "images" / "y.png", picture(99))
    (leak,) = inspect_pairs(folder, against=[other]).leaks
    assert leak.places == ("train", str(other))
    save(other / "images" / "x.png", picture(98))
    assert _geocd(folder, "--against", other).exit_code == 0
    (other / "images" / "y.png").write_bytes(b"")
    done = _geocd(folder, "--against", other)
    assert done.exit_code == 1
    assert "Not compared: cannot read" in done.stdout


def test_single_date_tiles_are_reported_too(tmp_path):
    for number in range(3):
        save(tmp_path / "images" / f"{number}.png", picture(number))
    for number in range(2):
        save(tmp_path / "labels" / f"{number}.png", block_label(value=number))
    report = inspect_pairs(tmp_path)
    assert report.kind == "tiles"
    (tiles,) = report.splits
    assert (tiles.samples, tiles.unlabelled, tiles.without_change) == (3, 1, ("0",))
    assert tiles.classes["labelled"].change == CHANGED
    assert "labelled       none 96.88 %, present 3.12 %" in report.text()


def test_blurred_labels_are_pointed_out(tmp_path):
    triple(tmp_path / "jpg", "1", seed=0, shape=(64, 64))
    (tmp_path / "jpg" / "label" / "1.png").unlink()
    jpeg = save(tmp_path / "jpg" / "label" / "1.jpg", block_label((64, 64)), quality=70)
    triple(tmp_path / "png", "1", seed=0, shape=(64, 64))
    save(tmp_path / "png" / "label" / "1.png", read_label_values(jpeg)[0])
    assert "1 lossy file, cut at 128" in inspect_pairs(tmp_path / "jpg").text()
    assert "look like labels blurred" in inspect_pairs(tmp_path / "png").text()


def test_scenes_are_reported_and_shared_ground_is_found(tmp_path):
    for name, left, seed in (("a", 0, 1), ("b", 0, 2), ("c", 60, 3), ("d", 60, 4)):
        write_raster(tmp_path / f"{name}.tif", np.moveaxis(picture(seed, (50, 80)), 2, 0), crs=UTM,
                     transform=NORTH_UP @ Affine.translation(left, 0))  # fmt: skip
    house = shapely.box(500_005, 4_999_980, 500_010, 4_999_990)
    geopandas.GeoDataFrame(geometry=[house], crs=UTM).to_file(tmp_path / "label.gpkg")
    manifest = tmp_path / "pairs.toml"

    def _write(*rows):
        manifest.write_text("".join(
            f'[[pairs]]\nbefore = "{b}.tif"\nafter = "{a}.tif"\nlabel = "label.gpkg"\n'
            f'split = "{s}"\n' for b, a, s in rows
        ))  # fmt: skip

    _write(("a", "b", "train"), ("c", "d", "train"))
    report = inspect_pairs(manifest)
    assert report.ok
    assert report.splits[0].sizes == {"50 x 80": 2}
    assert report.splits[0].bands == {"3 x uint8": 4}
    assert report.splits[0].classes["change"].change == 10 * 20
    assert report.splits[0].without_change == ("c",)
    _write(("a", "b", "train"), ("c", "d", "test"))
    report = inspect_pairs(manifest)
    assert not report.ok
    assert [o.files for o in report.overlaps] == [("a", "c")]
    assert "Overlaps of ground across splits: 1" in report.text()
    _write(("a", "b", "train"), ("b", "a", "test"))
    assert len(inspect_pairs(manifest).leaks) == 2


def test_json_holds_what_the_text_says(folder):
    done = _geocd(folder, "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["splits"][1]["label_values"] == {"0": 2 * PIXELS - CHANGED, "255": CHANGED}
    text = _geocd(folder).stdout
    assert "val: 2 pairs" in text
    assert "nothing there  1 pair: val/4" in text


def test_mistakes_on_the_command_line_are_told_from_bad_data(folder, tmp_path):
    assert _geocd(folder, "--class", "building").exit_code == 2
    assert _geocd(folder, "--class", "a=1", "--class", "b=1").exit_code == 2
    done = _geocd(tmp_path / "nowhere")
    assert done.exit_code == 1
    assert "nowhere" in done.stderr
    (tmp_path / "empty" / "images").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no images in"):
        inspect_pairs(tmp_path / "empty")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "pairs", "share"), [("levir256", 9, 0.1397), ("whu512", 8, 0.0851)]
)
def test_real_pairs_are_sound_and_share_no_image_with_the_tiles(data, name, pairs, share):
    report = inspect_pairs(data / "pairs" / name, against=[data / "buildings"])
    assert report.ok
    (split,) = report.splits
    assert split.samples == pairs
    assert set(split.label_values) == {0, 255}
    counted = split.classes["change"]
    assert counted.change / (counted.none + counted.change) == pytest.approx(share, abs=1e-3)
