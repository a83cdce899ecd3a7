"""Scores become polygons at any threshold, with no network, and say what else they hold."""

from __future__ import annotations

import json
import sqlite3

import geopandas
import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner
from rasterio.crs import CRS

from geocd.config import CHANGE_MAP_COLOURS, VectorizeConfig
from geocd.errors import ConfigError, InputError, OutputError
from geocd.products import vectorize
from geocd.rasters.grid import Grid
from geocd.rasters.write import RowWriter
from geocd.testing import write_raster
from geocd.vectorize.compared import compared_pair
from geocd.vectorize.scorefile import read_header
from geocd_cli.main import main

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
ANY_SIZE = VectorizeConfig(min_area=0)


def _scores(path, planes=None, *, crs=UTM, thresholds=None, colours=None, dates=(None, None)):
    """A score raster as a run writes it; roads first, so that names are not in the ABC's order."""
    if planes is None:
        planes = np.zeros((2, 60, 80), np.uint8)
        planes[0, 40:44, 5:75] = 120  # a road, 0.47
        planes[1, 5:15, 5:15] = 240  # buildings, 0.94, 0.55 and 0.35
        planes[1, 5:15, 25:35] = 140
        planes[1, 5:15, 45:55] = 90
    thresholds = thresholds or {"road": 0.4, "building": 0.5}
    grid = Grid(crs, NORTH_UP if crs else Affine.identity(), *planes.shape[1:])
    inputs = {role: {"date": date} for role, date in zip(("before", "after"), dates, strict=True)}
    with RowWriter(path, grid, bands=tuple(thresholds), colours=colours) as writer:
        writer.tag({"geocd": "0", "inputs": inputs, "thresholds": thresholds})
        writer.write(planes)
    return path


@pytest.fixture
def scores(tmp_path):
    return _scores(tmp_path / "scores.tif", dates=("2011-05-01", "2023"))


def _run(*words):
    return CliRunner().invoke(main, ["vectorize", *map(str, words)])


def test_without_a_threshold_the_one_of_the_run_counts(scores, tmp_path):
    result = vectorize(scores, tmp_path / "c.gpkg", config=ANY_SIZE)
    assert {kind: s.count for kind, s in result.kinds.items()} == {"building": 2, "road": 1}
    assert result.thresholds == {"road": 0.4, "building": 0.5}
    layer = geopandas.read_file(tmp_path / "c.gpkg", layer="changes")
    assert set(layer["after_date"]) == {"2023"}
    record = geopandas.read_file(tmp_path / "c.gpkg", layer="provenance").set_index("key")["value"]
    assert json.loads(record["thresholds"]) == {"road": 0.4, "building": 0.5}
    assert json.loads(record["vectorized"])["config"]["min_area"] == 0


@pytest.mark.parametrize(
    ("threshold", "buildings", "roads"),
    [({"building": 0.3}, 3, 1), ({"road": 0.5}, 2, 0), (0.45, 2, 1), (0.9, 1, 0)],
)
def test_another_threshold_needs_no_network(scores, tmp_path, threshold, buildings, roads):
    result = vectorize(scores, tmp_path / "c.gpkg", threshold=threshold, config=ANY_SIZE)
    kinds = result.changes["kind"].value_counts().to_dict()
    assert (kinds.get("building", 0), kinds.get("road", 0)) == (buildings, roads)


def test_a_quiet_command_without_an_output_still_prints_the_table(scores, tmp_path):
    assert "what other thresholds give" in _run(scores, "-q").stdout
    assert _run(scores, "-q", "-o", tmp_path / "c.gpkg").stdout == ""


def test_the_table_counts_objects_and_areas_at_each_threshold(scores):
    table = vectorize(scores, table=(0.5, 0.3, 0.95), config=ANY_SIZE).table
    found = [(r.name, r.threshold, r.summary.count, r.summary.area_px) for r in table]
    assert found == [("road", 0.3, 1, 280), ("road", 0.5, 0, 0), ("road", 0.95, 0, 0),
                     ("building", 0.3, 3, 300), ("building", 0.5, 2, 200),
                     ("building", 0.95, 0, 0)]  # fmt: skip
    assert table[3].summary.area_m2 == pytest.approx(75, rel=2e-3)


def test_the_table_keeps_to_the_minimum_mapping_unit(scores):
    config = VectorizeConfig(min_area={"building": 26, "road": 20})
    table = vectorize(scores, table=(0.3,), config=config).table
    assert [row.summary.count for row in table] == [1, 0]


def test_the_command_prints_the_table_and_json(scores, tmp_path):
    shown = _run(scores, "-o", tmp_path / "c.gpkg", "--threshold", "building=0.3,road=0.4",
                 "--min-area", "building=20,road=50", "--before-date", "2010-01")  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "4 changes" in shown.output
    assert "0.30" in shown.output
    assert set(geopandas.read_file(tmp_path / "c.gpkg", layer="changes")["before_date"]) == {
        "2010-01"
    }
    summary = json.loads(_run(scores, "--json", "--table", "0.5", "-q").stdout)
    assert summary["output"] is None
    assert [row["count"] for row in summary["table"]] == [0, 2]


def _painted_scores(folder, *, shift=0):
    """Scores of a building that appears and of one that goes, and the images they come from.

    The record says that after lies ``shift`` columns to the right of before.
    """
    ground = np.random.default_rng(0).normal(110, 4, (3, 60, 80))
    images = [ground.copy(), ground.copy()]
    images[1][:, 5:15, 5:15] = 220
    images[0][:, 40:52, 45:60] = 30
    planes = np.zeros((1, 60, 80), np.uint8)
    planes[0, 5:15, 5:15] = planes[0, 40:52, 45:60] = 250
    paths = [folder / "before.tif", folder / "after.tif"]
    for path, image, move in zip(paths, images, (0, shift), strict=True):
        moved = np.roll(image, move, axis=2).clip(0, 255).astype(np.uint8)
        write_raster(path, moved, crs=UTM, transform=NORTH_UP)
    with RowWriter(folder / "s.tif", Grid(UTM, NORTH_UP, 60, 80), bands=("building",)) as writer:
        motion = {"affine": [1.0, 0.0, float(shift), 0.0, 1.0, 0.0], "field": None}
        alignment = {"motion": motion, "grid_transform": [float(v) for v in NORTH_UP[:6]]}
        writer.tag({"geocd": "0", "thresholds": {"building": 0.5}, "alignment": alignment})
        writer.write(planes)
    return folder / "s.tif", paths


@pytest.mark.parametrize("shift", [0, 9])
def test_with_both_images_directions_are_judged_as_the_run_aligned_them(tmp_path, shift):
    scores, (before, after) = _painted_scores(tmp_path, shift=shift)
    result = vectorize(scores, tmp_path / "c.gpkg", before=before, after=after)
    found = result.changes.set_index("area_px")["direction"].to_dict()
    assert found == {180: "disappeared", 100: "appeared"}
    assert (result.changes["direction_score"] > 0.9).all()
    assert result.directions.sure > 0.9
    assert "1 appeared, 1 disappeared (median probability" in result.report()


def test_directions_are_those_of_the_run_whatever_pixels_it_read(tmp_path):
    scores, (before, after) = _painted_scores(tmp_path)
    header = read_header(scores)
    coarse = NORTH_UP @ Affine.scale(2)
    header.record["alignment"]["grid_transform"] = [float(v) for v in coarse[:6]]
    pair = compared_pair(before, after, header)
    assert pair.grid.transform == coarse
    assert pair.grid.shape == (30, 40)


def test_without_images_directions_are_unknown(scores, tmp_path):
    result = vectorize(scores, tmp_path / "c.gpkg", config=ANY_SIZE)
    assert set(result.changes["direction"]) == {"unknown"}
    assert result.directions is None


def test_images_that_the_scores_do_not_come_from_are_refused(tmp_path):
    scores, (_, after) = _painted_scores(tmp_path)
    write_raster(tmp_path / "x.tif", np.ones((3, 40, 80), np.uint8), crs=UTM, transform=NORTH_UP)
    with pytest.raises(InputError, match=r"80 x 60 pixels.*80 x 40 pixels"):
        vectorize(scores, tmp_path / "c.gpkg", before=tmp_path / "x.tif", after=after)
    assert not (tmp_path / "c.gpkg").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-o", "c.gpkg", "--before", "b.tif"), "give after too"),
        (("-o", "c.gpkg", "--after", "a.tif"), "give before too"),
        (("--before", "b.tif", "--after", "a.tif"), "name an output"),
        (("--table", ""), "nothing is asked for"),
    ],
)
def test_half_a_question_is_a_usage_error(scores, words, told):
    shown = _run(scores, *words)
    assert shown.exit_code == 2
    assert told in shown.output


def test_nothing_found_is_a_valid_layer(scores, tmp_path):
    result = vectorize(scores, tmp_path / "c.gpkg", threshold=0.99)
    assert len(result.changes) == 0
    assert len(geopandas.read_file(tmp_path / "c.gpkg", layer="changes")) == 0
    assert "0 changes" in result.report()


def test_without_a_crs_areas_are_pixels(tmp_path):
    result = vectorize(_scores(tmp_path / "s.tif", crs=None), tmp_path / "c.gpkg", table=(0.5,),
                       config=ANY_SIZE)  # fmt: skip
    assert result.table[1].summary.area_m2 is None
    assert "200 pixels" in result.report()


# Layers and the catalogue


def test_a_geopackage_has_the_footprint_and_what_was_not_observed(tmp_path):
    planes = np.zeros((2, 60, 80), np.uint8)
    planes[:, 10:20, 10:30] = planes[:, 40:42, 70:] = 255
    scores = _scores(tmp_path / "s.tif", planes, dates=("2011", "2023"))
    vectorize(scores, tmp_path / "c.gpkg")
    gaps = geopandas.read_file(tmp_path / "c.gpkg", layer="not_observed")
    assert gaps["area_px"].tolist() == [200, 20]
    assert gaps["area_m2"][0] == pytest.approx(50, rel=2e-3)
    assert gaps.crs == UTM
    (whole,) = geopandas.read_file(tmp_path / "c.gpkg", layer="footprint").itertuples()
    assert whole.observed == pytest.approx(1 - 220 / 4800)
    assert whole.after_date == "2023"
    assert whole.geometry.bounds == (500_000, 4_999_970, 500_040, 5_000_000)


def test_roads_have_a_layer_of_centrelines(scores, tmp_path):
    vectorize(scores, tmp_path / "c.gpkg")
    (line,) = geopandas.read_file(tmp_path / "c.gpkg", layer="centrelines").itertuples()
    roads = geopandas.read_file(tmp_path / "c.gpkg", layer="changes").query("kind == 'road'")
    assert line.change_id == roads["id"].iloc[0]
    assert line.length_m == pytest.approx(35, abs=1.5)
    assert roads["width_m"].iloc[0] == pytest.approx(2, abs=0.3)


def test_layers_of_a_run_that_saw_everything_and_found_nothing_are_there(tmp_path):
    scores = _scores(tmp_path / "s.tif", np.zeros((2, 9, 9), np.uint8))
    vectorize(scores, tmp_path / "c.gpkg")
    for name, count in (("changes", 0), ("centrelines", 0), ("not_observed", 0), ("footprint", 1)):
        assert len(geopandas.read_file(tmp_path / "c.gpkg", layer=name)) == count


def test_a_stac_item_lies_beside_the_polygons(scores, tmp_path):
    vectorize(scores, tmp_path / "c.gpkg", stac=tmp_path / "item.json")
    item = json.loads((tmp_path / "item.json").read_text())
    assert item["properties"]["start_datetime"] == "2011-05-01T00:00:00Z"
    assert set(item["assets"]) == {"changes", "scores"}
    for asset in item["assets"].values():
        assert (tmp_path / asset["href"]).is_file()


def test_a_stac_item_that_could_not_be_written_stops_the_run_before_it_begins(scores, tmp_path):
    with pytest.raises(ConfigError, match=r"\.json"):
        vectorize(scores, tmp_path / "c.gpkg", stac=tmp_path / "item.xml")
    with pytest.raises(ConfigError, match="beside change polygons"):
        vectorize(scores, stac=tmp_path / "item.json")
    assert not (tmp_path / "c.gpkg").exists()


# Bad input


def test_text_from_outside_is_carried_as_text(tmp_path):
    name = "a'b\"c <script>.gpkg"
    record_of = _scores(tmp_path / "s'; drop table x; --.tif", dates=("2011", "2023"))
    vectorize(record_of, tmp_path / name, stac=tmp_path / "i<b>.json")
    record = geopandas.read_file(tmp_path / name, layer="provenance").set_index("key")["value"]
    assert json.loads(record["vectorized"])["scores"] == str(record_of)
    assert json.loads((tmp_path / "i<b>.json").read_text())["assets"]["changes"]["href"].endswith(
        name
    )


def test_a_geopackage_that_another_program_holds_is_replaced_whole_or_not_at_all(scores, tmp_path):
    target = tmp_path / "c.gpkg"
    vectorize(scores, target)
    other = sqlite3.connect(target, isolation_level=None)
    other.execute("begin exclusive")
    other.execute("create table edits (a)")
    before = target.read_bytes()
    try:
        with pytest.raises(OutputError, match="close it"):
            vectorize(scores, target, overwrite=True)
        assert target.read_bytes() == before
    finally:
        other.execute("rollback")
        other.close()
    vectorize(scores, target, overwrite=True)


def test_a_read_only_folder_is_refused_before_the_work(scores, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root is never refused for real
    with pytest.raises(OutputError, match="not writable"):
        vectorize(scores, tmp_path / "c.gpkg")


EDGES_OF_THE_WORLD = {
    "antimeridian": ("EPSG:32660", Affine(0.5, 0, 814_000, 0, -0.5, 1_000)),
    "antimeridian in degrees": ("EPSG:4326", Affine(5e-6, 0, 179.9998, 0, -5e-6, -16)),
    "north pole": ("EPSG:3413", Affine(0.5, 0, -20, 0, -0.5, 15)),
    "south pole": ("EPSG:3031", Affine(0.5, 0, -20, 0, -0.5, 15)),
}


@pytest.mark.parametrize("place", EDGES_OF_THE_WORLD)
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_changes_at_the_edges_of_the_world_are_measured_and_written(tmp_path, place, suffix):
    crs, transform = EDGES_OF_THE_WORLD[place]
    planes = np.zeros((1, 60, 80), np.uint8)
    planes[0, 20:40, 20:60] = 240
    path = tmp_path / "s.tif"
    with RowWriter(path, Grid(CRS.from_string(crs), transform, 60, 80), bands=("building",)) as w:
        w.tag({"thresholds": {"building": 0.5}})
        w.write(planes)
    result = vectorize(path, tmp_path / f"c{suffix}", stac=tmp_path / "i.json")
    # A pixel in degrees is 0.535 by 0.553 m there; scales at the poles are off by 3 %.
    expected = 237 if "degrees" in place else 200
    assert result.changes["area_m2"][0] == pytest.approx(expected, rel=0.07)
    assert result.changes.geometry.is_valid.all()
    if suffix == ".geojson":
        (shape,) = geopandas.read_file(tmp_path / f"c{suffix}").geometry
        assert shape.is_valid
        west, south, east, north = shape.bounds
        assert -180 <= west <= east <= 180
        assert -90 <= south <= north <= 90


def test_a_raster_of_another_program_is_refused(tmp_path):
    path = write_raster(tmp_path / "ndvi.tif", np.zeros((1, 9, 9), np.uint8), crs=UTM,
                        transform=NORTH_UP)  # fmt: skip
    with pytest.raises(InputError, match=r"ndvi\.tif is no score raster.*--scores"):
        vectorize(path, tmp_path / "c.gpkg")
    shown = _run(path)
    assert shown.exit_code == 1
    assert "Traceback" not in shown.output


def test_a_raster_of_floats_is_refused(tmp_path):
    path = write_raster(tmp_path / "p.tif", np.zeros((3, 9, 9), np.float32), crs=UTM,
                        transform=NORTH_UP)  # fmt: skip
    with pytest.raises(InputError, match="3 bands are float32, not uint8"):
        vectorize(path)


def test_a_change_map_is_not_taken_for_scores(tmp_path):
    path = _scores(tmp_path / "mask.tif", np.zeros((1, 9, 9), np.uint8),
                   thresholds={"change": 0.5}, colours=CHANGE_MAP_COLOURS)  # fmt: skip
    with pytest.raises(InputError, match="colour table"):
        vectorize(path)


@pytest.mark.parametrize(
    "thresholds", [{"roof": 0.5}, {"building": 1.5}, {"building": "<script>"}, {}, []]
)
def test_a_damaged_record_is_refused(tmp_path, thresholds):
    path = tmp_path / "s.tif"
    with RowWriter(path, Grid(UTM, NORTH_UP, 9, 9), bands=("building",)) as writer:
        writer.tag({"thresholds": thresholds})
        writer.write(np.zeros((1, 9, 9), np.uint8))
    with pytest.raises(InputError, match="no score raster"):
        vectorize(path)


@pytest.mark.parametrize("threshold", [{"roof": 0.5}, {"building": 0.0}, 1.0, float("nan")])
def test_impossible_thresholds_are_refused(scores, tmp_path, threshold):
    with pytest.raises(ConfigError, match="threshold"):
        vectorize(scores, tmp_path / "c.gpkg", threshold=threshold)
    assert not (tmp_path / "c.gpkg").exists()


def test_growing_must_begin_below_the_threshold(scores, tmp_path):
    with pytest.raises(ConfigError, match="above its threshold"):
        vectorize(scores, tmp_path / "c.gpkg", config=VectorizeConfig(grow=0.9))


def test_growing_of_a_class_that_is_none_is_refused_by_name(scores, tmp_path):
    shown = _run(scores, "-o", tmp_path / "c.gpkg", "--grow", "house=0.3")
    assert shown.exit_code == 2
    assert "'house' cannot grow, the classes are road, building" in " ".join(shown.output.split())


@pytest.mark.parametrize(
    "words",
    [["--threshold", "building"], ["--threshold", "building=x"], ["--threshold", "=0.5"],
     ["--min-area", "roof=3"], ["--min-area", "-1"], ["--before-date", "14.6.2019"],
     ["--table", "a"], ["--opening", "-1"], ["--grow", "2"]],
)  # fmt: skip
def test_misspelt_options_are_usage_errors(scores, words):
    shown = _run(scores, *words)
    assert shown.exit_code == 2, shown.output
    assert "Traceback" not in shown.output


def test_scores_are_never_overwritten(scores):
    target = scores.with_suffix(".gpkg")
    scores.rename(target)
    with pytest.raises((ConfigError, OutputError)):
        vectorize(target, target, overwrite=True)
