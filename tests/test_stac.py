"""STAC items are valid by the published schemas, and say where and when, anywhere in the world."""

from __future__ import annotations

import json
import re

import geopandas
import pandas as pd
import pytest
import shapely
from pystac.validation import validate_dict

from geocd.errors import ConfigError, OutputError
from geocd.maps.stac import check_stac_output, stac_item, write_stac

HERE = shapely.box(500_000, 5_000_000, 501_000, 5_002_000)
UTM = "EPSG:32633"


def _item(tmp_path, shape=HERE, *, crs=UTM, dates=(None, None), assets=None, record=None):
    footprint = geopandas.GeoDataFrame(
        {
            "observed": [0.75],
            "before_date": pd.array([dates[0]], "string"),
            "after_date": pd.array([dates[1]], "string"),
        },
        geometry=[shapely.MultiPolygon([shape])],
        crs=crs,
    )
    record = record or {"created": "2026-01-02T03:04:05+00:00", "weights": {"name": "w"}}
    write_stac(tmp_path / "item.json", footprint, assets=assets or {}, record=record)
    item = json.loads((tmp_path / "item.json").read_text())
    validate_dict(item)  # by the schemas that pystac carries: no network
    return item


def test_the_judge_of_these_tests_refuses_what_is_wrong(tmp_path):
    item = _item(tmp_path)
    del item["properties"]["datetime"]
    with pytest.raises(Exception, match="datetime"):
        validate_dict(item)


def test_an_item_says_where_and_what(tmp_path):
    item = _item(tmp_path, assets={"changes": tmp_path / "c.gpkg"})
    assert (item["type"], item["stac_version"]) == ("Feature", "1.1.0")
    assert re.fullmatch("item-[0-9a-f]{8}", item["id"])
    assert item["geometry"]["type"] == "Polygon"
    assert shapely.geometry.shape(item["geometry"]).exterior.is_ccw
    assert item["bbox"] == pytest.approx(shapely.geometry.shape(item["geometry"]).bounds)
    assert item["bbox"][:2] == pytest.approx([15, 45.15], abs=0.01)
    assert item["properties"]["geocd:observed"] == 0.75
    assert item["properties"]["created"] == "2026-01-02T03:04:05Z"
    assert item["assets"]["changes"] == {"href": "./c.gpkg", "title": "changes", "roles": ["data"],
                                         "type": "application/geopackage+sqlite3"}  # fmt: skip


def test_items_of_one_name_have_ids_of_their_own(tmp_path):
    ids = [_item(tmp_path, record={"created": f"2026-01-0{day}T00:00:00+00:00"})["id"]
           for day in (1, 2, 2)]  # fmt: skip
    assert ids[0] != ids[1] == ids[2]


def test_two_dates_are_an_interval(tmp_path):
    properties = _item(tmp_path, dates=("2011-05-01", "2023"))["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2011-05-01T00:00:00Z"
    assert properties["end_datetime"] == "2023-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("date", "moment"),
    [
        ("2012", "2012-01-01T00:00:00Z"),
        ("2012-05", "2012-05-01T00:00:00Z"),
        ("2012-05-06", "2012-05-06T00:00:00Z"),
        ("2012-05-06T07:08:09", "2012-05-06T07:08:09Z"),
        ("2012-05-06T07:08:09Z", "2012-05-06T07:08:09Z"),
        ("2012-05-06T01:08:09.5+02:00", "2012-05-05T23:08:09Z"),
    ],
)
def test_one_date_is_the_date_in_utc(tmp_path, date, moment):
    assert _item(tmp_path, dates=(None, date))["properties"]["datetime"] == moment


def test_dates_of_other_zones_are_put_in_order(tmp_path):
    dates = "2012-05-06T01:00:00+02:00", "2012-05-06T00:00:00Z"
    properties = _item(tmp_path, dates=dates)["properties"]
    assert properties["start_datetime"] == "2012-05-05T23:00:00Z"


def test_without_dates_it_is_of_the_time_of_the_run(tmp_path):
    properties = _item(tmp_path)["properties"]
    assert properties["datetime"] == properties["created"]
    assert "start_datetime" not in properties


def test_without_a_crs_it_has_no_place(tmp_path):
    item = _item(tmp_path, shapely.box(0, 0, 9, 9), crs=None)
    assert item["geometry"] is None
    assert "bbox" not in item


def test_assets_elsewhere_are_linked_whole_and_of_any_name(tmp_path):
    (tmp_path / "other").mkdir()
    names = {"a": tmp_path / "other" / "x.tif", "b": tmp_path.parent / "y'<b>.html"}
    assets = _item(tmp_path, assets=names)["assets"]
    assert assets["a"]["href"] == "./other/x.tif"
    assert assets["b"]["href"].startswith("file:///")


@pytest.mark.parametrize("crs", ["EPSG:32660", "EPSG:4326", "EPSG:3460"])
def test_an_extent_across_the_antimeridian_is_cut_there(tmp_path, crs):
    shape = {
        "EPSG:32660": shapely.box(814_000, 1_000, 854_000, 21_000),
        "EPSG:4326": shapely.box(179.8, -16.2, 180.2, -16),
        "EPSG:3460": shapely.box(2_100_000, 4_000_000, 2_140_000, 4_020_000),
    }[crs]
    item = _item(tmp_path, shape, crs=crs)
    cut = shapely.geometry.shape(item["geometry"])
    assert cut.is_valid
    west, south, east, north = item["bbox"]
    assert 179 < west <= 180
    assert -180 <= east < -179
    assert sorted(round(part.bounds[0]) for part in cut.geoms) == [-180, 180]
    assert 0.15 < north - south < 0.25
    assert cut.area == pytest.approx((east + 360 - west) * (north - south), rel=0.05)


@pytest.mark.parametrize(("crs", "latitude"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_an_extent_around_a_pole_reaches_it(tmp_path, crs, latitude):
    item = _item(tmp_path, shapely.box(-2000, -1500, 2500, 2000), crs=crs)
    cut = shapely.geometry.shape(item["geometry"])
    assert cut.is_valid
    assert item["bbox"][0] == -180
    assert item["bbox"][2] == 180
    assert latitude in (item["bbox"][1], item["bbox"][3])


@pytest.mark.parametrize("name", ["item.xml", "item"])
def test_an_item_of_another_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.json"):
        check_stac_output(tmp_path / name)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    footprint = geopandas.GeoDataFrame(
        {"observed": [1.0], "before_date": [None], "after_date": [None]},
        geometry=[shapely.MultiPolygon([HERE])], crs=UTM,
    )  # fmt: skip
    assert stac_item(tmp_path / "i.json", footprint, assets={}, record={})["id"].startswith("i-")
    with pytest.raises(OutputError, match="nowhere"):
        write_stac(tmp_path / "nowhere" / "i.json", footprint, assets={}, record={})
