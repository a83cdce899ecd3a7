"""Catalogues in, catalogues out: STAC names what an archive holds and what was found in it."""

from __future__ import annotations

import json

import geopandas
import pytest
import shapely
from pystac.validation import validate_dict

from geocd.archive.stac import collection_of, write_collection

UTM = "EPSG:32633"


def _footprint():
    """Two pairs of dates; the second in two parts."""
    return geopandas.GeoDataFrame(
        {"before_date": ["2015-05-20", "2018", "2018"],
         "after_date": ["2018", "2021-05-30", "2021-05-30"]},
        geometry=[shapely.box(500_000, 5_000_000, 501_000, 5_001_000),
                  shapely.box(500_000, 5_000_000, 500_500, 5_001_000),
                  shapely.box(509_000, 5_000_000, 510_000, 5_001_000)], crs=UTM,
    )  # fmt: skip


def test_a_collection_tells_of_the_whole_and_of_each_pair_of_dates(tmp_path):
    assets = {"changes": tmp_path / "c.gpkg", "scores-a": tmp_path / "maps/a.vrt"}
    found = collection_of(tmp_path / "c.json", _footprint(), assets=assets,
                          record={"weights": {"name": "w"}})  # fmt: skip
    validate_dict(found)
    boxes, spans = (found["extent"][k][n] for k, n in (("spatial", "bbox"),
                                                        ("temporal", "interval")))  # fmt: skip
    assert [span[0][:10] for span in spans] == ["2015-05-20", "2015-05-20", "2018-01-01"]
    assert [span[1][:10] for span in spans] == ["2021-05-30", "2018-01-01", "2021-05-30"]
    assert boxes[0] == boxes[2]
    assert boxes[0][0] == boxes[1][0] < boxes[1][2] < boxes[0][2]
    whole = shapely.box(*_footprint().to_crs(4326).total_bounds)
    assert shapely.box(*boxes[0]).symmetric_difference(whole).area < 1e-3 * whole.area
    assert found["assets"]["scores-a"]["href"] == "./maps/a.vrt"
    assert found["assets"]["changes"]["type"].startswith("application/geopackage")
    assert found["summaries"]["geocd:weights"] == [{"name": "w"}]


def test_a_collection_of_one_pair_tells_of_it_once(tmp_path):
    write_collection(tmp_path / "c.json", _footprint()[:1], assets={}, record={})
    found = json.loads((tmp_path / "c.json").read_text())
    validate_dict(found)
    assert len(found["extent"]["spatial"]["bbox"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_ground_across_the_antimeridian_has_a_box_from_west_to_east(tmp_path):
    far = _footprint()[:1].set_geometry([shapely.box(170, -10, 190, -5)], crs=4326)
    box = collection_of(tmp_path / "c.json", far, assets={}, record={})["extent"]["spatial"]
    assert box["bbox"][0] == pytest.approx([170, -10, -170, -5])
