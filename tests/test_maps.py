"""What is written comes back, styled and whole, or is not written at all."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sqlite3
from xml.etree import ElementTree

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geocd import outputs
from geocd.config import CHANGE_MAP_COLOURS, CLASS_CODES, VectorizeConfig
from geocd.errors import ConfigError, OutputError, OutputExistsError
from geocd.maps import check_output, vector, write_changes, write_raster_style
from geocd.maps.qml import style_text
from geocd.testing import write_raster
from geocd.vectorize import trace_changes

FORMATS = [".gpkg", ".geojson", ".fgb", ".parquet"]
RECORD = {"geocd": "0", "weights": {"name": "w", "sha256": "abc"}}


def _layer(crs="EPSG:32633", *, empty=False):
    boxes = [shapely.box(500_000, 5_000_000, 500_020, 5_000_010),
             shapely.box(500_050, 5_000_000, 500_060, 5_000_030)]  # fmt: skip
    layer = geopandas.GeoDataFrame(
        {
            "id": [1, 2],
            "kind": ["building", "road"],
            "score_mean": [0.75, 0.5],
            "area_m2": [200.0, np.nan],
            "before_date": pd.Series(["2019-06-14", None], dtype="string"),
        },
        geometry=[shapely.MultiPolygon([box]) for box in boxes],
        crs=crs,
    )
    return layer.iloc[:0] if empty else layer


def _read(path):
    if path.suffix.lower() == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, layer="changes")


def _traced(folder, codes, *, crs="EPSG:32633", pixel=0.5, simplify=0.6):
    """Change polygons with every column, of a change map in pixels."""
    transform = Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000) if crs else Affine.identity()
    codes = np.asarray(codes, np.uint8)
    scores = np.stack([np.where(codes == code, 200, 0) for code in (1, 2)]).astype(np.uint8)
    file = write_raster(folder / "scores.tif", scores, crs=crs, transform=transform)
    layer = trace_changes(
        file, classes=("building", "road"), thresholds=(0.5, 0.5), dates=("2019-06-14", None),
        config=VectorizeConfig(min_area=0, simplify=simplify),
    )  # fmt: skip
    file.unlink()
    return layer


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", None])
def test_a_layer_comes_back_as_it_was(tmp_path, suffix, crs):
    layer, path = _layer(crs), tmp_path / f"c{suffix}"
    write_changes(layer, path, provenance=RECORD)
    back = _read(path).sort_values("id").reset_index(drop=True)
    assert back["kind"].tolist() == ["building", "road"]
    assert back["score_mean"].tolist() == [0.75, 0.5]
    assert back["area_m2"].isna().tolist() == [False, True]
    assert back["before_date"].isna().tolist() == [False, True]
    if suffix != ".geojson":
        assert back.crs == layer.crs
        assert shapely.equals_exact(back.geometry.array, layer.geometry.array, 1e-6).all()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_empty_layer_is_valid_and_keeps_its_columns(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    write_changes(_layer(empty=True), path, provenance=RECORD)
    back = _read(path)
    assert len(back) == 0
    if suffix != ".geojson":  # GeoJSON has columns only where it has features
        assert {"id", "kind", "score_mean", "area_m2"} <= set(back.columns)


@pytest.mark.parametrize("suffix", [*FORMATS, ".GPKG", ".GeoJSON", ".FGB", ".Parquet"])
@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_traced_polygons_come_back_with_every_column(tmp_path, suffix, crs):
    codes = np.zeros((30, 40))
    codes[5:15, 5:25], codes[20:23], codes[8:11, 9:12] = 1, 2, 0
    layer = _traced(tmp_path, codes, crs=crs, simplify=0)
    layer = layer.sort_values("id", ignore_index=True)
    write_changes(layer, tmp_path / f"c{suffix}", provenance=RECORD)
    back = _read(tmp_path / f"c{suffix}").sort_values("id").reset_index(drop=True)
    assert list(back.columns) == list(layer.columns)
    assert set(back.geometry.geom_type) == {"MultiPolygon"}
    for name in layer.columns.drop("geometry"):
        assert back[name].isna().tolist() == layer[name].isna().tolist()
        if name != "before_date" and layer[name].notna().all():
            texts = pd.api.types.is_string_dtype(layer[name].dtype)
            expected = layer[name].tolist()
            assert back[name].tolist() == (expected if texts else pytest.approx(expected))
    assert (pd.to_datetime(back["before_date"]) == pd.Timestamp(2019, 6, 14)).all()
    assert sorted(len(g.geoms[0].interiors) for g in back.geometry) == [0, 1]
    if suffix.lower() != ".geojson":
        assert back.crs == layer.crs


def test_geojson_without_a_crs_is_in_pixels(tmp_path):
    layer = _traced(tmp_path, np.pad(np.ones((6, 9)), 3), crs=None, simplify=0)
    write_changes(layer, tmp_path / "c.geojson", provenance=RECORD)
    assert _read(tmp_path / "c.geojson").total_bounds.tolist() == [3, -9, 12, -3]


@pytest.mark.parametrize(("seed", "share"), [(5, 0.5), (20, 0.5), (29, 0.4), (37, 0.4)])
def test_polygons_of_small_pixels_survive_the_rounding_of_geojson(tmp_path, seed, share):
    # Each of these has a neck that plain rounding crosses, or shrinks to a line.
    codes = np.random.default_rng(seed).random((60, 60)) < share
    layer = _traced(tmp_path, codes, pixel=0.05)
    write_changes(layer, tmp_path / "c.geojson", provenance=RECORD)
    table = json.loads((tmp_path / "c.geojson").read_text())
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in table["features"]]
    assert len(shapes) == len(layer)
    assert {s.geom_type for s in shapes} == {"MultiPolygon"}
    assert all(s.is_valid for s in shapes)


def test_geojson_is_cut_at_the_antimeridian(tmp_path):
    island = shapely.MultiPolygon([shapely.box(179.999, -16.5, 180.001, -16.499)])
    layer = geopandas.GeoDataFrame({"id": [1]}, geometry=[island], crs=4326).to_crs(3460)
    write_changes(layer, tmp_path / "c.geojson", provenance=RECORD)
    (shape,) = _read(tmp_path / "c.geojson").geometry
    assert shape.is_valid
    assert sorted(round(part.bounds[0], 3) for part in shape.geoms) == [-180, 179.999]
    assert shape.area == pytest.approx(island.area, rel=1e-3)


def test_geojson_is_longitude_and_latitude_wound_by_the_right_hand(tmp_path):
    write_changes(_layer(), tmp_path / "c.geojson", provenance=RECORD)
    table = json.loads((tmp_path / "c.geojson").read_text())
    assert "crs" not in table
    ring = np.array(table["features"][0]["geometry"]["coordinates"][0][0])
    assert ring[:, 0] == pytest.approx(15, abs=1e-3)
    assert ring[:, 1] == pytest.approx(45.15, abs=1e-2)
    assert shapely.LinearRing(ring).is_ccw
    assert all(len(re.sub(r".*\.", "", str(v))) <= 7 for v in ring.ravel())


def test_a_geopackage_carries_its_style_and_what_made_it(tmp_path):
    write_changes(_layer(), tmp_path / "c.gpkg", provenance=RECORD)
    database = sqlite3.connect(tmp_path / "c.gpkg")
    row = database.execute(
        "select f_table_name, f_geometry_column, useAsDefault, styleQML from layer_styles"
    ).fetchall()
    assert [r[:3] for r in row] == [("changes", "geom", 1)]
    assert "categorizedSymbol" in row[0][3]
    contents = dict(database.execute("select table_name, data_type from gpkg_contents").fetchall())
    assert contents == {"changes": "features", "provenance": "attributes",
                        "layer_styles": "attributes"}  # fmt: skip
    stored = dict(database.execute("select key, value from provenance").fetchall())
    assert json.loads(stored["weights"]) == RECORD["weights"]
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.parametrize(("crs", "code"), [("EPSG:32633", 32633), (None, 99999)])
@pytest.mark.parametrize("empty", [False, True])
def test_a_geopackage_lists_its_tables_with_their_place(tmp_path, crs, code, empty):
    layer = _layer(crs, empty=empty)
    write_changes(layer, tmp_path / "c.gpkg", provenance=RECORD)
    database = sqlite3.connect(tmp_path / "c.gpkg")
    columns = "table_name, identifier, min_x, min_y, max_x, max_y"
    contents = {r[0]: r[1:] for r in database.execute(f"select {columns} from gpkg_contents")}
    systems = database.execute(
        "select organization_coordsys_id from gpkg_geometry_columns "
        "join gpkg_spatial_ref_sys using (srs_id)"
    ).fetchall()
    tables = {r[0] for r in database.execute("select name from sqlite_master")}
    orphans = database.execute("pragma foreign_key_check").fetchall()
    database.close()
    box = (None,) * 4 if empty else tuple(layer.total_bounds)
    assert contents["changes"] == ("changes", *box)
    assert set(contents) <= tables
    assert systems == [(code,)]
    assert _read(tmp_path / "c.gpkg").crs == crs
    assert orphans == []


@pytest.mark.parametrize("name", ["c.docx", "c", "c.gpkg.zip"])
def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.gpkg, \.geojson, \.fgb, \.parquet"):
        check_output(tmp_path / name, overwrite=False)


def test_a_shapefile_is_refused_with_advice(tmp_path):
    with pytest.raises(ConfigError, match=r"use \.gpkg"):
        write_changes(_layer(), tmp_path / "c.shp", provenance=RECORD)


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_existing_file_is_replaced_only_when_asked(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        write_changes(_layer(), path, provenance=RECORD)
    assert path.read_bytes() == b"precious"
    write_changes(_layer(), path, provenance=RECORD, overwrite=True)
    assert len(_read(path)) == 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "c.gpkg"
    path.write_bytes(b"precious")

    def _fail(*_, **__):
        raise error("no")

    monkeypatch.setattr("geocd.maps.vector.add_layer_style", _fail)
    with pytest.raises((error, OutputError)):
        write_changes(_layer(), path, provenance=RECORD, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["c.gpkg"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_writer_stopped_halfway_leaves_nothing(tmp_path, monkeypatch, suffix, error):
    def _halfway(changes, path, provenance):
        path.write_bytes(b"half")
        path.with_name(f"{path.name}-journal").write_bytes(b"half")
        raise error

    monkeypatch.setitem(vector._WRITERS, suffix, _halfway)
    with pytest.raises(error):
        write_changes(_layer(), tmp_path / f"c{suffix}", provenance=RECORD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_fills_while_polygons_are_written_is_an_output_error(tmp_path, suffix):
    layer = pd.concat([_layer()] * 500, ignore_index=True)
    path = tmp_path / f"c{suffix}"
    path.write_bytes(b"precious")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="was not written"):
            write_changes(layer, path, provenance=RECORD, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_fills_while_the_style_is_written_is_an_output_error(tmp_path, monkeypatch):
    def _full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("geocd.maps.vector.add_layer_style", _full)
    with pytest.raises(OutputError, match="disk is full"):
        write_changes(_layer(), tmp_path / "c.gpkg", provenance=RECORD)
    assert list(tmp_path.iterdir()) == []


def test_a_geopackage_that_another_program_is_writing_to_is_refused(tmp_path):
    path = tmp_path / "c.gpkg"
    write_changes(_layer(), path, provenance=RECORD)
    other = sqlite3.connect(path)
    other.execute("pragma journal_mode = wal")
    other.execute("create table edits (a)")
    other.commit()
    # Left beside the new file, the log would bring the old polygons back into it.
    with pytest.raises(OutputError, match=r"c\.gpkg-wal; close it"):
        write_changes(_layer(empty=True), path, provenance=RECORD, overwrite=True)
    other.close()
    write_changes(_layer(empty=True), path, provenance=RECORD, overwrite=True)
    assert len(_read(path)) == 0


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb"])
def test_a_file_that_was_cut_short_in_silence_is_not_kept(tmp_path, monkeypatch, suffix):
    # A driver that writes its last bytes on closing cannot say that the disk is full.
    write = pyogrio.write_dataframe

    def _cut_short(table, path, **options):
        write(table, path, **options)
        os.truncate(path, path.stat().st_size - 30 if suffix != ".gpkg" else 40_000)

    monkeypatch.setattr(pyogrio, "write_dataframe", _cut_short)
    with pytest.raises(OutputError, match="was not written"):
        write_changes(_layer(), tmp_path / f"c{suffix}", provenance=RECORD)
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_name_is_left_in_a_file(tmp_path):
    write_changes(_layer(), tmp_path / "c.geojson", provenance=RECORD)
    assert json.loads((tmp_path / "c.geojson").read_text())["name"] == "changes"
    write_changes(_layer(), tmp_path / "c.fgb", provenance=RECORD)
    assert pyogrio.list_layers(tmp_path / "c.fgb")[0, 0] == "changes"


def test_provenance_of_any_kind_is_kept(tmp_path):
    write_changes(_layer(), tmp_path / "c.gpkg", provenance={"before": {"path": tmp_path}})
    database = sqlite3.connect(tmp_path / "c.gpkg")
    (value,) = database.execute("select value from provenance").fetchone()
    database.close()
    assert json.loads(value) == {"path": str(tmp_path)}


# Outputs in general


def test_the_target_appears_only_when_the_block_ends_well(tmp_path):
    path = tmp_path / "a.txt"
    with outputs.replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_sidecars_of_the_temporary_file_go_with_it(tmp_path):
    def _write():
        with outputs.replacing(tmp_path / "a.gpkg") as temporary:
            temporary.write_text("x")
            temporary.with_name(temporary.name + "-journal").write_text("y")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        _write()
    assert list(tmp_path.iterdir()) == []


@given(st.text(alphabet="ab[]*?'\" .-_é", min_size=1, max_size=12))
def test_any_file_name_can_be_written(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("w")
    path = folder / f"{name}x.txt"
    with outputs.replacing(path) as temporary:
        temporary.write_text("x")
    assert [p.name for p in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("letter", ["n", "é"])
def test_a_name_as_long_as_names_may_be_can_be_written(tmp_path, letter):
    stem = letter * (250 // len(letter.encode()))
    write_changes(_layer(), tmp_path / f"{stem}.fgb", provenance=RECORD)
    with outputs.scratch_folder(tmp_path / f"{stem}.fgb") as folder:
        assert folder.is_dir()
    assert [p.stem for p in tmp_path.iterdir()] == [stem]


def test_a_full_disk_is_recognised_behind_the_words_of_a_library(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="disk is full"), outputs.replacing(tmp_path / "a"):
        raise RuntimeError("IWriteBlock failed")


def test_a_block_that_writes_nothing_is_an_output_error(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OutputError, match="was not written"), outputs.replacing(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "old"


def test_a_full_disk_is_said_in_plain_words(tmp_path):
    with pytest.raises(OutputError, match="disk is full"), outputs.replacing(tmp_path / "a"):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/c.gpkg", "does not exist"), ("file/c.gpkg", "is a file"), ("folder.gpkg", "is a folder")],
)
def test_a_path_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, message):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(OutputError, match=message):
        check_output(tmp_path / name, overwrite=True)


def test_a_read_only_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root is never refused for real
    with pytest.raises(OutputError, match="not writable"):
        check_output(tmp_path / "c.gpkg", overwrite=False)


def test_a_scratch_folder_goes_even_when_the_work_fails(tmp_path):
    def _work():
        with outputs.scratch_folder(tmp_path / "c.gpkg") as folder:
            (folder / "big.tif").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _work()
    assert list(tmp_path.iterdir()) == []


# Styles


def test_styles_show_the_colours_of_the_change_map():
    palette = ElementTree.fromstring(style_text("change_map")).iter("paletteEntry")
    shown = {
        int(e.get("value")): (*bytes.fromhex(e.get("color")[1:]), int(e.get("alpha")))
        for e in palette
    }
    assert shown == CHANGE_MAP_COLOURS
    text = style_text("changes")
    for kind in ("building", "road", "change"):
        red, green, blue, _ = CHANGE_MAP_COLOURS[CLASS_CODES[kind]]
        assert f'"{red},{green},{blue},255"' in text


def test_the_style_of_a_raster_lies_beside_it(tmp_path):
    path = write_raster_style(tmp_path / "mask.tif")
    assert path == tmp_path / "mask.qml"
    assert "Not observed" in path.read_text()


def test_the_style_of_a_raster_needs_a_folder(tmp_path):
    with pytest.raises(OutputError, match="was not written"):
        write_raster_style(tmp_path / "no" / "mask.tif")
