"""Chips hold the pixels, the labels and the ground of their pair, and splits share no ground."""

from __future__ import annotations

import itertools
import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from PIL import Image
from rasterio.crs import CRS

from geocd.archive.chiplabels import ChipLabels
from geocd.archive.chips import tile_pair
from geocd.archive.rules import ChipRules
from geocd.config import AlignConfig
from geocd.errors import (
    ConfigError,
    CrsMismatchError,
    DatasetError,
    InputError,
    NothingObservedError,
    OutputError,
    OutputExistsError,
)
from geocd.rasters.grid import Grid
from geocd.rasters.write import RowWriter
from geocd.testing import write_raster
from geocd.training.datasets import LabelCoding, find_pairs, inspect_pairs
from geocd_cli.main import main

UTM = "EPSG:32633"
PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
RULES = ChipRules(size=32, overlap=8)
OFF = AlignConfig(mode="off")
SHAPE = (160, 240)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Before and after, and where they differ: as polygons, as polygons elsewhere, as a mask."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(1)
    before = rng.integers(1, 200, (3, *SHAPE)).astype(np.uint8)
    after = before.copy()
    truth = np.zeros(SHAPE, np.uint8)
    boxes = []
    for row, col in itertools.product(range(10, 150, 50), range(15, 220, 60)):
        truth[row : row + 12, col : col + 20] = 1
        left, top = PLACE @ (col, row)
        boxes.append(shapely.box(left, top - 6, left + 10, top))
    after[:, truth == 1] = 255
    after[:, :, :40] = 0
    place = {"crs": UTM, "transform": PLACE}
    write_raster(folder / "before.tif", before, **place)
    write_raster(folder / "after.tif", after, nodata=0, **place)
    write_raster(folder / "mask.tif", truth[None] * 255, **place)
    layer = geopandas.GeoDataFrame({"kind": ["building"] * len(boxes)}, geometry=boxes, crs=UTM)
    layer.to_file(folder / "labels.gpkg")
    layer.to_crs(3035).to_file(folder / "elsewhere.gpkg")
    return folder, before, after, truth


def _tile(folder, output, *, labels="labels.gpkg", rules=RULES, **options):
    label = None if labels is None else ChipLabels(folder / labels)
    return tile_pair(folder / "before.tif", folder / "after.tif", output, labels=label,
                     rules=rules, align=OFF, **options)  # fmt: skip


# Pixels, labels, ground


@pytest.mark.parametrize("labels", ["labels.gpkg", "elsewhere.gpkg", "mask.tif"])
def test_a_chip_holds_the_pixels_and_the_label_of_its_place(pair, tmp_path, labels):
    folder, before, after, truth = pair
    result = _tile(folder, tmp_path / "c", labels=labels)
    assert len(result.index) > 20
    for row in result.index.itertuples():
        at = np.s_[row.row : row.row + 32, row.col : row.col + 32]
        with rasterio.open(tmp_path / "c" / "label" / f"{row.name}.tif") as dataset:
            label = dataset.read(1)
            assert dataset.crs == CRS.from_string(UTM)
            assert dataset.transform == PLACE @ Affine.translation(row.col, row.row)
        known = np.indices(SHAPE)[1][at] >= 40
        assert (label[~known] == 255).all()
        wrong = (label != truth[at])[known].mean()
        assert wrong == 0 if labels != "elsewhere.gpkg" else wrong < 0.02
        for part, image in (("A", before), ("B", after)):
            with rasterio.open(tmp_path / "c" / part / f"{row.name}.tif") as dataset:
                assert (dataset.read()[:, known] == image[:, *at][:, known]).all()


def test_the_index_lies_on_the_ground_and_tells_the_shares(pair, tmp_path):
    folder, _, _, truth = pair
    result = _tile(folder, tmp_path / "c", rules=ChipRules(size=32, overlap=8, shares=(1, 0, 0)))
    index = geopandas.read_parquet(tmp_path / "c" / "chips.parquet")
    assert index.crs == "EPSG:4326"
    ground = index.to_crs(UTM)
    expected = shapely.box(500_000, 5_000_000 - 32 / 2, 500_000 + 32 / 2, 5_000_000)
    first = ground.set_index("name")
    assert "before_00000_00000" not in first.index  # nothing of it was observed
    moved = shapely.affinity.translate(expected, 32 * 0.5)
    assert first.loc["before_00000_00032"].geometry.symmetric_difference(moved).area < 0.1
    row = index.iloc[len(index) // 2]
    at = np.s_[row.row : row.row + 32, row.col : row.col + 32]
    assert row.share_change == pytest.approx(truth[at].mean() / row.known, abs=0.01)
    assert index.known.between(0, 1, inclusive="right").all()
    assert set(result.shares()) == {"train"}


def test_lists_name_every_chip_once_and_the_set_is_one_that_training_reads(pair, tmp_path):
    folder, _, _, _ = pair
    result = _tile(folder, tmp_path / "c")
    listed = {
        split: (tmp_path / f"c/list/{split}.txt").read_text().split()
        for split in ("train", "val", "test")
    }
    assert sorted(itertools.chain(*listed.values())) == list(result.index["name"])
    pairs = find_pairs(tmp_path / "c")
    assert {(p.split, p.label.stem) for p in pairs} == {
        (split, name) for split, names in listed.items() for name in names
    }
    coding = LabelCoding(classes=("change",), values={"change": 1}, ignore=255)
    report = inspect_pairs(tmp_path / "c", coding=coding)
    assert report.ok
    done = CliRunner().invoke(
        main, ["data", str(tmp_path / "c"), "--class", "change=1", "--ignore", "255", "--quiet"]
    )
    assert done.exit_code == 0, done.output


RECIPE = """
name = "tiny"
classes = ["change"]
network = { architecture = "stacked-unet", width = 4, initial = "random" }
loss = { change = "bce", auxiliary = 0.0 }
card = { summary = "a test", terms = "none" }
stages = [{ steps = 1, crop = 32, batch = 2 }]

[[pairs]]
folder = "."
split = "train"
values = { change = 1 }
ignore = 255

[validation]
every = 1

[[validation.pairs]]
folder = "."
split = "val"
values = { change = 1 }
ignore = 255
"""


@pytest.mark.parametrize("form", ["tif", "png"])
def test_training_takes_the_splits(pair, tmp_path, form):
    folder, _, _, _ = pair
    _tile(folder, tmp_path / "c", rules=ChipRules(size=32, overlap=0, format=form))
    (tmp_path / "r.toml").write_text(RECIPE)
    done = CliRunner().invoke(
        main, ["train", "--config", str(tmp_path / "r.toml"), "--data", str(tmp_path / "c"), "-o",
               str(tmp_path / "run"), "--workers", "0", "--device", "cpu", "--quiet"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run/tiny.safetensors").exists()


def test_png_chips_have_world_files_and_the_same_pixels(pair, tmp_path):
    folder, _, _, _ = pair
    _tile(folder, tmp_path / "tif")
    _tile(folder, tmp_path / "png", rules=ChipRules(size=32, overlap=8, format="png"))
    name = find_pairs(tmp_path / "tif")[0].before.stem
    with (
        rasterio.open(tmp_path / f"tif/B/{name}.tif") as tif,
        rasterio.open(tmp_path / f"png/B/{name}.png") as png,
    ):
        assert (tif.read() == png.read()).all()
        assert png.transform.almost_equals(tif.transform)
        assert png.crs == tif.crs
        expected = (tif.transform.a, 0, 0, tif.transform.e, *(tif.transform @ (0.5, 0.5)))
    world = (tmp_path / f"png/B/{name}.pgw").read_text().split()
    assert [float(value) for value in world] == pytest.approx(expected)
    label = np.asarray(Image.open(tmp_path / f"png/label/{name}.png"))
    assert set(np.unique(label)) <= {0, 1, 255}
    assert inspect_pairs(tmp_path / "png").splits[0].samples > 0


def test_the_same_seed_gives_the_same_set_and_another_one_other_splits(pair, tmp_path):
    folder, _, _, _ = pair
    for name, seed in (("a", 0), ("b", 0), ("c", 5)):
        _tile(folder, tmp_path / name, rules=ChipRules(size=32, overlap=8, seed=seed))
    files = [
        {p.relative_to(tmp_path / name): p.read_bytes()
         for p in (tmp_path / name).rglob("*") if p.suffix in (".tif", ".txt")}
        for name in ("a", "b", "c")
    ]  # fmt: skip
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_empty_chips_can_be_left_out(pair, tmp_path):
    folder, _, _, _ = pair
    all_of_them = _tile(folder, tmp_path / "all").index
    some = _tile(folder, tmp_path / "some",
                 rules=ChipRules(size=32, overlap=8, skip_empty=True))  # fmt: skip
    assert set(some.index["name"]) == set(all_of_them.loc[all_of_them.share_change > 0, "name"])
    assert some.left_out["without change"] == (all_of_them.share_change == 0).sum() > 0


def test_classes_of_a_column_and_of_a_raster_are_counted_from_one(pair, tmp_path):
    folder, _, _, truth = pair
    label = ChipLabels(folder / "labels.gpkg", {"road": 7, "building": 3}, attribute="kind")
    result = tile_pair(folder / "before.tif", folder / "after.tif", tmp_path / "v", labels=label,
                       rules=RULES, align=OFF)  # fmt: skip
    write_raster(tmp_path / "classes.tif", truth[None] * 3, crs=UTM, transform=PLACE)
    label = ChipLabels(tmp_path / "classes.tif", {"road": 7, "building": 3})
    raster = tile_pair(folder / "before.tif", folder / "after.tif", tmp_path / "r", labels=label,
                       rules=RULES, align=OFF)  # fmt: skip
    assert result.classes == ("road", "building")
    assert result.index.share_road.max() == 0
    assert result.index.share_building.max() > 0.1
    np.testing.assert_allclose(result.index.share_building, raster.index.share_building)
    values = {int(v) for p in (tmp_path / "v/label").iterdir()
              for v in np.unique(np.asarray(Image.open(p)))}  # fmt: skip
    assert values <= {0, 2, 255}


def test_a_change_map_of_detect_is_a_label(pair, tmp_path):
    folder, _, _, truth = pair
    codes = np.where(truth == 1, 2, 0).astype(np.uint8)
    codes[:, 200:] = 255
    grid = Grid(CRS.from_string(UTM), PLACE, *SHAPE)
    with RowWriter(tmp_path / "map.tif", grid, bands=("change",),
                   colours={2: (9, 9, 9, 255)}) as writer:  # fmt: skip
        writer.write(codes[None])
    index = _tile(folder, tmp_path / "c", labels=tmp_path / "map.tif").index
    assert index.share_change.max() > 0.1
    columns = np.arange(SHAPE[1])
    for row in index.itertuples():
        seen = columns[row.col : row.col + 32]
        assert row.known == pytest.approx(((seen >= 40) & (seen < 200)).mean())


def test_outside_the_area_of_complete_labels_nothing_is_known(pair, tmp_path):
    folder, _, _, _ = pair
    area = geopandas.GeoDataFrame(geometry=[shapely.box(500_050, 4_999_960, 500_100, 5_000_000)],
                                  crs=UTM)  # fmt: skip
    area.to_file(tmp_path / "area.gpkg")
    index = _tile(folder, tmp_path / "c", aoi=tmp_path / "area.gpkg").index.to_crs(UTM)
    for row in index.itertuples():
        inside = row.geometry.intersection(area.geometry.iloc[0]).area / row.geometry.area
        assert row.known == pytest.approx(inside, abs=0.02)


def test_without_labels_there_are_only_images(pair, tmp_path):
    folder, _, _, _ = pair
    result = _tile(folder, tmp_path / "c", labels=None)
    assert result.classes == ()
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["A", "B", "chips.parquet", "list"]


def test_a_pair_without_georeferencing_is_cut_in_pixels(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (3, 70, 90)).astype(np.uint8)
    for name in ("a", "b"):
        Image.fromarray(np.moveaxis(image, 0, -1)).save(tmp_path / f"{name}.png")
    result = tile_pair(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c",
                       rules=ChipRules(size=32, overlap=0, format="png"), align=OFF)  # fmt: skip
    assert result.index.crs is None
    row = result.index.iloc[-1]
    chip = np.asarray(Image.open(tmp_path / f"c/A/{row['name']}.png"))
    assert (np.moveaxis(chip, -1, 0) == image[:, row.row : row.row + 32, row.col : row.col + 32]
            ).all()  # fmt: skip


def test_a_raster_smaller_than_a_chip_gives_one_with_unknown_margins(tmp_path):
    image = np.full((3, 20, 27), 9, np.uint8)
    for name in ("a", "b"):
        write_raster(tmp_path / f"{name}.tif", image, crs=UTM, transform=PLACE)
    write_raster(tmp_path / "m.tif", np.ones((1, 20, 27), np.uint8), crs=UTM, transform=PLACE)
    result = tile_pair(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "c",
                       labels=ChipLabels(tmp_path / "m.tif"), align=OFF,
                       rules=ChipRules(size=32, overlap=8, shares=(1, 0, 0)))  # fmt: skip
    label = np.asarray(Image.open(tmp_path / f"c/label/{result.index['name'].iloc[0]}.tif"))
    assert (label[:20, :27] == 1).all()
    assert (label == 255).sum() == 32 * 32 - 20 * 27


def test_after_is_moved_onto_before_as_detect_would(tmp_path):
    from geocd.testing.textures import paint_scene

    ground = paint_scene((300, 300), seed=5)
    write_raster(tmp_path / "a.tif", ground[:, :280, :280], crs=UTM, transform=PLACE)
    write_raster(tmp_path / "b.tif", ground[:, 6:286, 4:284], crs=UTM, transform=PLACE)
    differ = {}
    for mode in ("off", "auto"):
        result = tile_pair(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / mode,
                           rules=ChipRules(size=64, overlap=0, shares=(1, 0, 0)),
                           align=AlignConfig(mode=mode))  # fmt: skip
        name = result.index.loc[(result.index.row == 64) & (result.index.col == 64), "name"].iloc[0]
        first, second = (np.asarray(Image.open(tmp_path / mode / part / f"{name}.tif"), int)
                         for part in "AB")  # fmt: skip
        differ[mode] = np.abs(first - second).mean()
    assert differ["auto"] < 0.1 * differ["off"]
    assert "aligned by" in result.report()


# Refused, killed, gone on with


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, "multiple of 16"), ({"size": 0}, "multiple of 16"),
        ({"size": 64, "overlap": 64}, "overlap"), ({"overlap": -1}, "overlap"),
        ({"shares": (0.8, 0.1, 0.2)}, "sum is 1"), ({"shares": (1.2, -0.1, -0.1)}, "sum is 1"),
        ({"shares": (1.0,)}, "three"), ({"format": "jpg"}, "tif or png"),
        ({"block": 100}, "hold a chip"),
    ],
)  # fmt: skip
def test_impossible_rules_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ChipRules(**options)


def test_ground_too_small_for_the_splits_is_refused_with_what_to_try(pair, tmp_path):
    folder, _, _, _ = pair
    with pytest.raises(InputError, match="--split 1/0/0"):
        _tile(folder, tmp_path / "c", rules=ChipRules(size=160, overlap=0))


def test_labels_elsewhere_are_refused_with_where_they_are(pair, tmp_path):
    folder, _, _, _ = pair
    far = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    far.to_file(tmp_path / "far.gpkg")
    with pytest.raises(InputError, match=r"outside the ground.*EPSG:4326"):
        _tile(folder, tmp_path / "c", labels=tmp_path / "far.gpkg")
    far[:0].to_file(tmp_path / "none.gpkg")
    with pytest.raises(InputError, match="holds no labels"):
        _tile(folder, tmp_path / "c", labels=tmp_path / "none.gpkg")
    assert not (tmp_path / "c").exists()


def test_labels_that_mean_nothing_are_refused(pair, tmp_path):
    folder, _, _, truth = pair
    place = {"crs": UTM, "transform": PLACE}
    doubtful = truth.copy()
    doubtful[0, :] = 255
    write_raster(tmp_path / "doubtful.tif", doubtful[None], **place)
    with pytest.raises(InputError, match=r"--ignore 255.*--class change=255"):
        _tile(folder, tmp_path / "a", labels=tmp_path / "doubtful.tif")
    write_raster(tmp_path / "real.tif", truth[None].astype("float32"), **place)
    with pytest.raises(DatasetError, match="whole class values"):
        _tile(folder, tmp_path / "b", labels=tmp_path / "real.tif")
    write_raster(tmp_path / "no_crs.tif", truth[None])
    with pytest.raises((DatasetError, CrsMismatchError), match="CRS"):
        _tile(folder, tmp_path / "c", labels=tmp_path / "no_crs.tif")
    with pytest.raises(DatasetError, match="wrong class values 1"):
        tile_pair(folder / "before.tif", folder / "after.tif", tmp_path / "d", rules=RULES,
                  align=OFF,
                  labels=ChipLabels(tmp_path / "doubtful.tif", {"a": 2}, 255))  # fmt: skip
    with pytest.raises(InputError, match="there are no labels"):
        ChipLabels(tmp_path / "nowhere.gpkg")
    for options, message in (
        ({"attribute": "sort", "classes": {"a": 1}}, "no column 'sort'"),
        ({"attribute": "kind"}, "holds 'building'"),
        ({"attribute": "kind", "classes": {"road": 1}}, "also holds 'building'"),
    ):
        with pytest.raises((InputError, ConfigError), match=message):
            tile_pair(folder / "before.tif", folder / "after.tif", tmp_path / "e", rules=RULES,
                      align=OFF, labels=ChipLabels(folder / "labels.gpkg", **options))  # fmt: skip


def test_images_that_show_nothing_together_are_refused(tmp_path):
    place = {"crs": UTM, "transform": PLACE}
    write_raster(tmp_path / "a.tif", np.full((3, 96, 96), 7, np.uint8), **place)
    write_raster(tmp_path / "b.tif", np.zeros((3, 96, 96), np.uint8), nodata=0, **place)
    with pytest.raises(NothingObservedError):
        tile_pair(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "c", align=OFF,
                  rules=ChipRules(size=16, overlap=0))  # fmt: skip


def test_a_folder_that_holds_something_is_left_alone(pair, tmp_path):
    folder, _, _, _ = pair
    _tile(folder, tmp_path / "c")
    with pytest.raises(OutputExistsError, match="holds chips already"):
        _tile(folder, tmp_path / "c")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("")
    with pytest.raises(OutputExistsError, match="not empty"):
        _tile(folder, tmp_path / "other")
    with pytest.raises(OutputError, match="not a folder"):
        _tile(folder, tmp_path / "other/mine.txt")
    with pytest.raises(OutputError, match="does not exist"):
        _tile(folder, tmp_path / "no/where")


def test_a_run_that_was_cut_off_shows_nothing_and_can_be_gone_on_with(pair, tmp_path, monkeypatch):
    folder, _, _, _ = pair
    _tile(folder, tmp_path / "whole")

    def _cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("geocd.archive.chips.publish", _cut)
        with pytest.raises(KeyboardInterrupt):
            _tile(folder, tmp_path / "c")
    assert [p.name for p in (tmp_path / "c").iterdir()] == [".tiling"]
    with pytest.raises(OutputExistsError, match="begun with other rules"):
        _tile(folder, tmp_path / "c", rules=ChipRules(size=48, overlap=8))
    with monkeypatch.context() as patch:
        patch.setattr("geocd.archive.chips.estimate", _cut)  # what is cut is not cut again
        _tile(folder, tmp_path / "c")
    names = [sorted(p.relative_to(tmp_path / n).as_posix() for p in (tmp_path / n).rglob("*"))
             for n in ("whole", "c")]  # fmt: skip
    assert names[0] == names[1]


# The command


def test_the_command_reports_splits_and_shares_and_draws_them(pair, tmp_path):
    folder, _, _, _ = pair
    inputs = [str(folder / "before.tif"), str(folder / "after.tif")]
    done = CliRunner().invoke(
        main, ["tile", *inputs, "--labels", str(folder / "mask.tif"), "-o", str(tmp_path / "c"),
               "--size", "32", "--overlap", "8", "--align", "off", "--split", "0.6/0.2/0.2",
               "--picture", str(tmp_path / "p.png"), "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["chips"] == sum(told["splits"].values()) > 20
    assert set(told["shares"]) == {"train", "val", "test"}
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize(
    "arguments",
    [["a.tif"], ["a.tif", "b.tif", "--plan", "p.parquet"], [], ["a.tif", "b.tif", "--class", "a=1"],
     ["a.tif", "b.tif", "--split", "80/20"], ["a.tif", "b.tif", "--split", "0.9/0.2/0.1"],
     ["a.tif", "b.tif", "--size", "100"]],
)  # fmt: skip
def test_mistakes_of_the_command_line_exit_with_2(arguments, tmp_path):
    done = CliRunner().invoke(main, ["tile", *arguments, "-o", str(tmp_path / "c")])
    assert done.exit_code == 2, done.output
