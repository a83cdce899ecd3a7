"""An index knows every file of an archive, reads none twice, and dies of none."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from geopandas.testing import assert_geodataframe_equal
from rasterio.crs import CRS

from geocd.archive.header import DatePattern
from geocd.archive.index import index_archive
from geocd.errors import ConfigError, InputError
from geocd.rasters.grid import Grid
from geocd.rasters.write import RowWriter
from geocd.testing import write_raster
from geocd.testing.archives import DATES, paint_archive
from geocd_cli.main import main

UTM = "EPSG:32633"
PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_archive(tmp_path_factory.mktemp("archive"))


def _tile(path, *, transform=PLACE, value=9, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((3, 40, 60), value, np.uint8)
    return write_raster(path, image, crs=options.pop("crs", UTM), transform=transform, **options)


def _row(table, path):
    return table.set_index("path").loc[str(path)]


def test_the_painted_archive_is_described_file_by_file(painted, tmp_path):
    result = index_archive([painted.folder], tmp_path / "a.parquet")
    table = result.table
    assert len(table) == result.read == 40
    assert table["status"].value_counts().to_dict() == {"ok": 39, "damaged": 1}
    assert _row(table, painted.damaged)["status"] == "damaged"
    assert _row(table, painted.damaged)["reason"]
    assert _row(table, painted.undated).isna()["date"]
    assert table["duplicate_of"].notna().sum() == 1
    assert {str(painted.copy), str(painted.tiles[1])} == set(
        table.loc[table["duplicate_of"].notna(), ["path", "duplicate_of"]].iloc[0]
    )
    dated = table[table["path"].isin([str(t) for t in painted.tiles])]
    assert dated["date"].value_counts().to_dict() == dict(zip(DATES, (14, 12, 11), strict=True))
    assert set(dated["crs"]) == {"EPSG:32633", "EPSG:3035"}
    assert set(table.loc[table.status == "ok", "bands"]) == {3}
    assert table.loc[table.status == "ok", "gsd"].between(0.49, 0.51).all()


def test_the_index_is_geoparquet_in_wgs_84_that_other_programs_read(painted, tmp_path):
    index_archive([painted.folder], tmp_path / "a.parquet")
    meta = json.loads(pyarrow.parquet.read_schema(tmp_path / "a.parquet").metadata[b"geo"])
    assert meta["version"] == "1.1.0"
    table = geopandas.read_parquet(tmp_path / "a.parquet")
    assert table.crs == "EPSG:4326"
    left, bottom, right, top = table.total_bounds
    assert 14.9 < left < right < 15.1
    assert 45 < bottom < top < 45.3


def test_only_new_and_altered_files_are_read_and_gone_ones_leave(tmp_path):
    folder = tmp_path / "tiles"
    for name in "abcd":
        _tile(folder / f"{name}.tif", value=ord(name))
    first = index_archive([folder], tmp_path / "a.parquet")
    assert (first.read, first.gone) == (4, 0)
    again = index_archive([folder], tmp_path / "a.parquet")
    assert (again.read, again.gone) == (0, 0)
    assert_geodataframe_equal(first.table.drop(columns="transform"),
                              again.table.drop(columns="transform"))  # fmt: skip
    _tile(folder / "b.tif", value=200)
    os.utime(folder / "b.tif", ns=(0, 1))
    _tile(folder / "new.tif", value=201)
    (folder / "c.tif").unlink()
    third = index_archive([folder], tmp_path / "a.parquet")
    assert (third.read, third.gone, len(third.table)) == (2, 1, 4)
    old, new = (_row(r.table, folder / "b.tif")["hash"] for r in (first, third))
    assert old != new


def test_the_footprint_is_the_outline_of_what_is_valid(tmp_path):
    image = np.full((3, 200, 200), 50, np.uint8)
    image[:, :, :100] = 0
    (tmp_path / "t").mkdir()
    write_raster(tmp_path / "t/a.tif", image, crs=UTM, transform=PLACE, nodata=0)
    table = index_archive([tmp_path / "t"], tmp_path / "a.parquet").table
    outline = table.to_crs(UTM).geometry.iloc[0]
    expected = shapely.box(500_050, 4_999_900, 500_100, 5_000_000)
    assert outline.symmetric_difference(expected).area < 0.04 * expected.area
    assert shapely.get_num_coordinates(outline) < 10


@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_alpha_and_masks_are_outlined_too(tmp_path, kind):
    (tmp_path / "t").mkdir()
    seen = np.zeros((100, 100), bool)
    seen[:50] = True
    write_raster(tmp_path / "t/a.tif", np.full((3, 100, 100), 7, np.uint8), crs=UTM,
                 transform=PLACE, **{kind: seen})  # fmt: skip
    row = index_archive([tmp_path / "t"], tmp_path / "a.parquet").table.to_crs(UTM).iloc[0]
    assert row.geometry.area == pytest.approx(50 * 25, rel=0.05)
    assert row["bands"] == 3


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path):
    folder = tmp_path / "t"
    _tile(folder / "no_crs.tif", crs=None)
    _tile(folder / "turned.tif", transform=PLACE @ Affine.rotation(20))
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.tif").write_text("not a raster")
    (folder / "dangling.tif").symlink_to(folder / "nowhere.tif")
    table = index_archive([folder], tmp_path / "a.parquet").table
    assert len(table) == 4
    assert _row(table, folder / "no_crs.tif")["status"] == "unplaced"
    assert "gdal_edit" in _row(table, folder / "no_crs.tif")["reason"]
    assert "rotated" in _row(table, folder / "turned.tif")["reason"]
    assert _row(table, folder / "empty.tif")["status"] == "damaged"
    assert _row(table, folder / "text.tif")["status"] == "damaged"


@pytest.mark.parametrize(
    "name", ["it's a \"tile\"", "two\nlines", "with # and ?", "100 % %20", "tile!x",
             "fläche-地図", " blank "],
)  # fmt: skip
def test_any_name_is_a_name(tmp_path, name):
    _tile(tmp_path / "t" / f"{name}.tif")
    result = index_archive([tmp_path / "t"], tmp_path / "a.parquet")
    assert tuple(result.table.loc[0, ["path", "status"]]) == (str(tmp_path / f"t/{name}.tif"), "ok")
    again = index_archive([tmp_path / "t"], tmp_path / "a.parquet")
    assert (again.read, again.gone) == (0, 0)


def test_names_and_folders_that_cannot_be_read_are_listed_on_a_line_each(tmp_path, monkeypatch):
    _tile(tmp_path / "t/sound.tif")
    (tmp_path / "t/two\nlines.tif").write_text("no raster")
    with open(os.fsencode(tmp_path / "t") + b"/caf\xe9.tif", "w"):  # noqa: PTH123
        pass
    (tmp_path / "t/closed").mkdir()
    listing = os.scandir

    def _closed(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(os, "scandir", _closed)
    result = index_archive([tmp_path / "t"], tmp_path / "a.parquet")
    assert result.table["status"].value_counts().to_dict() == {"ok": 1, "damaged": 3}
    lines = [line for line in result.report().splitlines() if "damaged" in line]
    assert len(lines) == 3
    assert any("not in UTF-8" in line for line in lines)
    assert any(r"two\nlines.tif" in line for line in lines)


def test_files_that_vanish_or_are_written_while_they_are_indexed_kill_nothing(
    tmp_path, monkeypatch
):
    from geocd.archive import index

    for name in "abc":
        _tile(tmp_path / f"t/{name}.tif", value=ord(name))
    whole = (tmp_path / "t/b.tif").read_bytes()
    reading = index.read_entry

    def _later(source):
        (tmp_path / "t/a.tif").unlink(missing_ok=True)
        (tmp_path / "t/b.tif").write_bytes(whole[:300])
        return reading(source)

    with monkeypatch.context() as patch:
        patch.setattr(index, "read_entry", _later)
        result = index_archive([tmp_path / "t"], tmp_path / "a.parquet", threads=1)
    assert list(result.table["status"]) == ["damaged", "damaged", "ok"]
    (tmp_path / "t/b.tif").write_bytes(whole)
    mended = index_archive([tmp_path / "t"], tmp_path / "a.parquet")
    assert list(mended.table["status"]) == ["ok", "ok"]


def test_a_row_takes_little_memory(tmp_path):
    count = 300
    (tmp_path / "t").mkdir()
    content = _tile(tmp_path / "first.tif").read_bytes()
    for number in range(count):
        (tmp_path / f"t/{number}.tif").write_bytes(content)
    index_archive([tmp_path / "t"], tmp_path / "a.parquet")
    tracemalloc.start()
    index_archive([tmp_path / "t"], tmp_path / "a.parquet")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / count < 20_000  # of which the most is what any table takes


def test_outputs_of_geocd_are_no_surveys_and_no_path_is_told_twice(tmp_path):
    folder = tmp_path / "t"
    made = {"GEOCD_PROVENANCE": json.dumps({"weights": {"name": "w"}})}
    moved = {"GEOCD_PROVENANCE": json.dumps({"weights": {}})}
    _tile(folder / "scores.tif", tags=made)
    _tile(folder / "aligned.tif", tags=moved)
    _tile(folder / "odd.tif", tags={"GEOCD_PROVENANCE": "{"})
    (folder / "text.tif").write_text("not a raster")
    grid = Grid(CRS.from_string(UTM), PLACE, 40, 60)
    with RowWriter(folder / "mask.tif", grid, bands=("change",), colours={1: (9, 9, 9)}) as writer:
        writer.write(np.zeros((1, 40, 60), np.uint8))
        writer.tag({"weights": {"name": "w"}})
    result = index_archive([folder], tmp_path / "a.parquet")
    status = {Path(path).stem: s for path, s in result.table[["path", "status"]].to_numpy()}
    assert status == {"scores": "output", "mask": "output", "aligned": "ok", "odd": "ok",
                      "text": "damaged"}  # fmt: skip
    lines = result.report().splitlines()[1:]
    assert any("output: " in line and "mask.tif: it is a change map" in line for line in lines)
    assert all(line.count(str(folder)) <= 1 for line in lines)


@pytest.mark.parametrize(
    ("pattern", "path", "date"),
    [
        ("ortho_YYYYMMDD", "/a/1999/ortho_20180611.tif", "2018-06-11"),
        ("YYYY-MM", "/a/2018-06/tile.tif", "2018-06"),
        ("/YYYY/", "/a/1999/2015/tile.tif", "2015"),
        ("DD.MM.YYYY", "x_30.05.2021.tif", "2021-05-30"),
        ("ortho_YYYYMMDD", "/a/ortho_20181399.tif", None),
        ("_YYYY_", "nothing.tif", None),
    ],
)
def test_dates_are_found_in_names(pattern, path, date):
    assert DatePattern(pattern).find(path) == date


@pytest.mark.parametrize("pattern", ["ortho", "YYYY(", "YYYY YYYY"])
def test_impossible_patterns_are_refused(pattern):
    with pytest.raises(ConfigError):
        DatePattern(pattern)


def test_a_pattern_goes_before_tags_and_works_on_an_index_that_is_there(tmp_path):
    folder = tmp_path / "survey_2011"
    _tile(folder / "a.tif", tags={"TIFFTAG_DATETIME": "2019:01:02 03:04:05"})
    plain = index_archive([folder], tmp_path / "a.parquet").table.iloc[0]
    assert (plain["date"], plain["date_source"]) == ("2019-01-02", "tags")
    result = index_archive([folder], tmp_path / "a.parquet", date_pattern="survey_YYYY")
    assert result.read == 0
    assert tuple(result.table.iloc[0][["date", "date_source"]]) == ("2011", "name")


def test_an_empty_folder_gives_an_empty_index_and_a_missing_one_an_error(tmp_path):
    (tmp_path / "t").mkdir()
    assert len(index_archive([tmp_path / "t"], tmp_path / "a.parquet").table) == 0
    assert len(index_archive([tmp_path / "t"], tmp_path / "a.parquet").table) == 0
    with pytest.raises(InputError, match="is not there"):
        index_archive([tmp_path / "nowhere"], tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"\.parquet"):
        index_archive([tmp_path / "t"], tmp_path / "a.gpkg")


def test_an_index_that_is_damaged_is_made_anew(tmp_path):
    _tile(tmp_path / "t/a.tif")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 cut short")
    assert index_archive([tmp_path / "t"], tmp_path / "a.parquet").read == 1


def test_the_command_tells_what_it_found(painted, tmp_path):
    output = tmp_path / "a.parquet"
    done = CliRunner().invoke(main, ["archive", "index", str(painted.folder), "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert "40 files" in done.stdout
    assert f"damaged: {painted.damaged}" in done.stdout
    assert Path(output).exists()
