"""Catalogues in, catalogues out: STAC names what an archive holds and what was found in it."""

from __future__ import annotations

import json
import subprocess
import sys

import geopandas
import numpy as np
import pystac
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from pystac.validation import validate_dict

from geocd.archive.index import index_archive
from geocd.archive.stac import collection_of, write_collection
from geocd.errors import ConfigError, InputError
from geocd.testing import write_raster
from geocd_cli.main import main

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


# Catalogues in


def _tile(path, *, value=9, col=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Affine(0.5, 0, 500_000 + 30 * col, 0, -0.5, 5_000_000)
    return write_raster(path, np.full((3, 40, 60), value, np.uint8), crs=UTM, transform=place,
                        **options)  # fmt: skip


def _item(href, when="2017-03-04T10:00:00Z", name="x", **asset):
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [],
            "properties": {"datetime": when},
            "assets": {"thumbnail": {"href": "x.png", "type": "image/png"},
                       "data": {"href": href, "roles": ["data"]} | asset}}  # fmt: skip


def _catalog(*links, **keys):
    return {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "d",
            "links": [{"rel": rel, "href": href} for rel, href in links]} | keys  # fmt: skip


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _paint_catalog(folder, form):
    """A tile with its date in STAC of some form; returns the file to begin with."""
    _tile(folder / "tiles/a.tif")
    first = folder / "catalog.json"
    if form == "item":
        return _write(first, _item("tiles/a.tif"))
    if form == "items":
        return _write(first, {"type": "FeatureCollection", "features": [_item("tiles/a.tif")]})
    _write(folder / "deep/item.json", _item("../tiles/a.tif"))
    _write(folder / "deep/child.json", _catalog(("item", "item.json"), ("root", "../catalog.json")))
    # Catalogs that lead back to themselves are no trap.
    return _write(first, _catalog(("child", "deep/child.json"), ("child", "catalog.json")))


FORMS = ["item", "items", "catalog"]


@pytest.mark.parametrize("form", FORMS)
def test_stac_names_files_and_dates(tmp_path, form):
    first = _paint_catalog(tmp_path, form)
    row = index_archive([first], tmp_path / "a.parquet").table.iloc[0]
    assert row["path"] == str(tmp_path / "tiles/a.tif")
    assert tuple(row[["status", "date", "date_source"]]) == ("ok", "2017-03-04", "stac")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder and its URL; a process of its own serves it, because GDAL waits for what it asks."""
    folder = tmp_path_factory.mktemp("served")
    code = (
        "import functools, http.server, sys\n"
        "handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n"
        "print(server.server_address[1], flush=True)\n"
        "server.serve_forever()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as process:  # fmt: skip
        yield folder, f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@pytest.mark.parametrize("form", FORMS)
def test_stac_is_read_from_the_web_and_what_it_tells_of_is_not_read_twice(served, tmp_path, form):
    folder, url = served
    first = _paint_catalog(folder / form, form)
    source = f"{url}/{form}/{first.name}"
    result = index_archive([source], tmp_path / "a.parquet")
    row = result.table.iloc[0]
    assert row["path"] == f"{url}/{form}/tiles/a.tif"
    assert tuple(row[["status", "date", "crs"]]) == ("ok", "2017-03-04", UTM)
    assert index_archive([source], tmp_path / "a.parquet").read == 0
    altered = folder / form / ("deep/item.json" if form == "catalog" else first.name)
    altered.write_text(altered.read_text().replace("2017-03-04T10", "2018-05-06T10"))
    again = index_archive([source], tmp_path / "a.parquet")
    assert (again.read, again.table["date"].iloc[0]) == (1, "2018-05-06")


def test_pages_of_an_item_collection_are_followed(served, tmp_path):
    folder, url = served
    for number in range(3):
        _tile(folder / f"pages/{number}.tif", value=number + 1)
        links = [{"rel": "next", "href": f"{url}/pages/{number + 1}.json"}] if number < 2 else []
        _write(folder / f"pages/{number}.json",
               {"type": "FeatureCollection", "links": links,
                "features": [_item(f"{url}/pages/{number}.tif")]})  # fmt: skip
    assert len(index_archive([f"{url}/pages/0.json"], tmp_path / "a.parquet").table) == 3
    _write(folder / "pages/post.json",
           {"type": "FeatureCollection", "features": [],
            "links": [{"rel": "next", "href": url, "method": "POST"}]})  # fmt: skip
    with pytest.raises(InputError, match="save the whole answer"):
        index_archive([f"{url}/pages/post.json"], tmp_path / "b.parquet")


def test_what_the_web_does_not_have_is_told_of(served, tmp_path):
    folder, url = served
    with pytest.raises(InputError, match=r"nothing\.json: .*ot found"):
        index_archive([f"{url}/nothing.json"], tmp_path / "a.parquet")
    with pytest.raises(InputError, match="refused"):
        index_archive(["http://127.0.0.1:9/c.json"], tmp_path / "a.parquet")
    _write(folder / "gone.json", _item("nowhere.tif"))
    table = index_archive([f"{url}/gone.json"], tmp_path / "a.parquet").table
    assert table["status"].iloc[0] == "damaged"
    _tile(folder / "nowhere.tif")  # it may come later, though its item is the same
    assert index_archive([f"{url}/gone.json"], tmp_path / "a.parquet").read == 1


def test_a_file_that_stac_names_and_that_is_not_there_is_damaged(tmp_path):
    _write(tmp_path / "i.json", _item("gone.tif"))
    row = index_archive([tmp_path / "i.json"], tmp_path / "a.parquet").table.iloc[0]
    assert row["status"] == "damaged"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"type": "Topology"}', "<html>", '{"type": "Feature", "geometry": null}',
     '{"type": "FeatureCollection", "features": [{"type": "Feature"}]}',
     '{"type": "Catalog", "links": "none"}'],
)  # fmt: skip
def test_what_is_no_stac_is_refused_by_name(tmp_path, content):
    _write(tmp_path / "i.json", content)
    with pytest.raises(InputError, match=r"i\.json"):
        index_archive([tmp_path / "i.json"], tmp_path / "a.parquet")


def test_without_pystac_it_is_said_what_is_missing(tmp_path, monkeypatch):
    _write(tmp_path / "i.json", _item("gone.tif"))
    monkeypatch.setitem(sys.modules, "pystac", None)
    with pytest.raises(ConfigError, match=r"geocd\[archive\]"):
        index_archive([tmp_path / "i.json"], tmp_path / "a.parquet")


# Catalogues out


def test_an_index_becomes_items_that_are_valid_and_give_the_same_index(tmp_path):
    tags = {"a": "2019:01:02 03:04:05", "b b": "2020:05:06 00:00:00"}
    for number, (name, date) in enumerate(tags.items()):
        _tile(tmp_path / f"t/{name}.tif", value=number + 1, col=number,
              tags={"TIFFTAG_DATETIME": date}, nodata=0)  # fmt: skip
    _tile(tmp_path / "t/undated.tif", value=7)
    (tmp_path / "t/bad.tif").write_text("no raster")
    first = index_archive([tmp_path / "t"], tmp_path / "a.parquet", stac=tmp_path / "i.json")
    assert "STAC items" in first.report()
    assert "without 1 file that have no date" in first.report()
    content = json.loads((tmp_path / "i.json").read_text())
    assert pystac.ItemCollection.is_item_collection(content)
    for item in content["features"]:
        validate_dict(item | {"stac_extensions": []})  # the schema of the extension is elsewhere
    assert [item["properties"]["datetime"][:10] for item in content["features"]] == [
        "2019-01-02", "2020-05-06",
    ]  # fmt: skip
    assert content["features"][0]["assets"]["data"]["href"] == "./t/a.tif"
    second = index_archive([tmp_path / "i.json"], tmp_path / "b.parquet").table
    dated = first.table[first.table["date"].notna()].reset_index(drop=True)
    same = ["path", "status", "date", "crs", "gsd", "hash", "size"]
    assert second[same].equals(dated[same])
    assert second.geometry.equals(dated.geometry)


@pytest.mark.parametrize(
    ("date", "first", "last"),
    [("2016-02", "2016-02-01T00", "2016-02-29T23"), ("2015", "2015-01-01T00", "2015-12-31T23")],
)
def test_a_month_or_a_year_is_an_interval(tmp_path, date, first, last):
    _tile(tmp_path / f"t/{date}/a.tif")
    pattern = "/YYYY/" if len(date) == 4 else "/YYYY-MM/"
    done = CliRunner().invoke(
        main, ["archive", "index", str(tmp_path / "t"), "-o", str(tmp_path / "a.parquet"),
               "--date-pattern", pattern, "--stac", str(tmp_path / "i.json")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    item = json.loads((tmp_path / "i.json").read_text())["features"][0]
    validate_dict(item | {"stac_extensions": []})
    assert item["properties"]["start_datetime"].startswith(first)
    assert item["properties"]["end_datetime"].startswith(last)


def test_items_are_written_as_json_or_not_at_all(tmp_path):
    _tile(tmp_path / "t/a.tif")
    with pytest.raises(ConfigError, match=r"\.json"):
        index_archive([tmp_path / "t"], tmp_path / "a.parquet", stac=tmp_path / "i.xml")
    assert not (tmp_path / "a.parquet").exists()
