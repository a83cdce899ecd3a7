"""Formats keep the CRS, an index and the digits of a millimetre."""

from __future__ import annotations

import json
import sqlite3

import cv2
import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine

from geocd.config import VectorizeConfig
from geocd.maps import write_changes
from geocd.testing import write_raster
from geocd.vectorize import trace_changes
from geocd.vectorize.ground import decimals_of, rounded

RECORD = {"geocd": "0"}
CUSTOM = "+proj=laea +lat_0=12.5 +lon_0=33.25 +x_0=1000 +y_0=2000 +datum=WGS84 +units=m +no_defs"


def _layer(crs="EPSG:32633", *, empty=False):
    boxes = [shapely.box(500_000, 5_000_000, 500_020, 5_000_010),
             shapely.box(500_050, 5_000_000, 500_060, 5_000_030)]  # fmt: skip
    shapes = [shapely.MultiPolygon([box]) for box in boxes]
    layer = geopandas.GeoDataFrame({"id": [1, 2]}, geometry=shapes, crs=crs)
    return layer.iloc[:0] if empty else layer


def _read(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, layer="changes")


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
@pytest.mark.parametrize("crs", ["EPSG:2154", "EPSG:2263", "EPSG:4979", CUSTOM])
def test_the_crs_comes_back_exactly(tmp_path, suffix, crs):
    layer = _layer(crs)
    write_changes(layer, tmp_path / f"c{suffix}", provenance=RECORD)
    found = _read(tmp_path / f"c{suffix}").crs
    assert found.equals(layer.crs, ignore_axis_order=True)
    assert found.to_authority() == layer.crs.to_authority()


def test_every_layer_of_a_geopackage_has_a_spatial_index(tmp_path):
    layers = {"footprint": _layer()[["geometry"]], "not_observed": _layer(empty=True)}
    write_changes(_layer(), tmp_path / "c.gpkg", provenance=RECORD, layers=layers)
    database = sqlite3.connect(tmp_path / "c.gpkg")
    indexed = {row[0] for row in database.execute(
        "select table_name from gpkg_extensions where extension_name = 'gpkg_rtree_index'"
    )}  # fmt: skip
    (count,) = database.execute("select count(*) from rtree_changes_geom").fetchone()
    database.close()
    assert indexed == {"changes", "footprint", "not_observed"}
    assert count == 2


def test_flatgeobuf_is_read_by_place_without_reading_the_rest(tmp_path):
    write_changes(_layer(), tmp_path / "c.fgb", provenance=RECORD)
    info = pyogrio.read_info(tmp_path / "c.fgb")
    assert info["capabilities"]["fast_spatial_filter"]
    near = pyogrio.read_dataframe(tmp_path / "c.fgb", bbox=(500_040, 4_999_990, 500_070, 5_000_040))
    assert near["id"].tolist() == [2]


def test_geoparquet_is_of_version_1_1_with_boxes_to_filter_by(tmp_path):
    write_changes(_layer(), tmp_path / "c.parquet", provenance=RECORD)
    file = pyarrow.parquet.ParquetFile(tmp_path / "c.parquet")
    about = json.loads(file.metadata.metadata[b"geo"])
    column = about["columns"][about["primary_column"]]
    assert about["version"] == "1.1.0"
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32633}
    assert column["covering"] == {"bbox": {side: ["bbox", side] for side in
                                           ("xmin", "ymin", "xmax", "ymax")}}  # fmt: skip
    boxes = file.read()["bbox"].to_pylist()
    assert boxes[1] == {"xmin": 500_050, "ymin": 5_000_000, "xmax": 500_060, "ymax": 5_000_030}
    near = geopandas.read_parquet(tmp_path / "c.parquet",
                                  bbox=(500_040, 4_999_990, 500_070, 5_000_040))  # fmt: skip
    assert near["id"].tolist() == [2]


# Digits


@pytest.mark.parametrize(
    ("crs", "pixel", "decimals"),
    [
        ("EPSG:32633", 0.5, 3),
        ("EPSG:32633", 30, 3),
        ("EPSG:32633", 0.02, 4),
        ("EPSG:2263", 0.3, 3),  # US survey feet
        ("EPSG:4326", 0.5, 8),
        (None, 1, 3),
    ],
)
def test_coordinates_have_the_digits_of_a_millimetre(crs, pixel, decimals):
    assert decimals_of(None if crs is None else pyproj.CRS(crs), pixel) == decimals


@pytest.mark.parametrize(("crs", "pixel", "decimals"), [("EPSG:32633", 0.3, 3), (None, 1, 3)])
def test_traced_coordinates_are_rounded_and_valid(tmp_path, crs, pixel, decimals):
    codes = np.zeros((80, 80), np.uint8)
    cv2.fillPoly(codes, [np.array([[10, 20], [50, 8], [62, 44], [22, 58]], np.int32)], 1)
    transform = Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000) if crs else Affine.identity()
    file = write_raster(tmp_path / "s.tif", codes[None] * 200, crs=crs, transform=transform)
    layer = trace_changes(file, classes=("building",), thresholds=(0.5,),
                          config=VectorizeConfig(min_area=0))  # fmt: skip
    points = shapely.get_coordinates(layer.geometry)
    np.testing.assert_array_equal(points, points.round(decimals))
    assert layer["regularized"].all()
    assert layer.geometry.is_valid.all()
    sides = np.diff(points, axis=0)
    turns = np.sum(sides[1:] * sides[:-1], axis=1) / np.prod(np.hypot(*sides.T)[[0, 1]])
    assert np.abs(turns).max() < 2e-4  # of sides of 10 m, rounded by half a millimetre at each end


def test_shared_corners_stay_shared_and_needles_keep_their_digits():
    left = shapely.box(0, 0, 1 / 3, 1)
    right = shapely.box(1 / 3, 0, 1, 1)
    needle = shapely.Polygon([(0, 0), (5, 1e-5), (5, 0)])
    shapes = np.array([shapely.MultiPolygon([s]) for s in (left, right, needle)], dtype=object)
    result = rounded(shapes, 3)
    assert shapely.is_valid(result).all()
    assert result[0].touches(result[1])
    assert shapely.union_all(result[:2]).equals(shapely.box(0, 0, 1, 1))
    assert result[0].bounds == (0, 0, 0.333, 1)
    assert result[2].equals(shapes[2])
