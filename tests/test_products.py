"""Scores become polygons at any threshold, with no network, and say what else they hold."""

from __future__ import annotations

import json

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


# Bad input


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
