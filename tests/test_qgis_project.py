"""A project of a run opens in QGIS as it is meant to be looked at, wherever its folder goes."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import headless_qgis
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from arithmetic import open_arithmetic
from click.testing import CliRunner
from PIL import Image
from pyproj import Transformer
from rasterio.crs import CRS

import geocd
from geocd.config import AlignConfig, DetectConfig, VectorizeConfig
from geocd.errors import ConfigError, GeocdWarning, OutputExistsError
from geocd.maps import write_changes, write_qgis_project
from geocd.products import vectorize
from geocd.rasters.scene import Scene
from geocd.testing import paint_scene, write_raster
from geocd_cli.main import main

NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
UTM = CRS.from_epsg(32633)
NASTY = """be"fore <b> & 'co'.tif"""
CONFIG = DetectConfig(align=AlignConfig(mode="off"), vectorize=VectorizeConfig(min_area=0))


@pytest.fixture(scope="module")
def painted():
    """Two dates, shape (3, 200, 240): a building and a road more, and a corner not seen."""
    before = paint_scene((200, 240), seed=2) // 2 + 64
    after = before.copy()
    after[:, 30:70, 40:90], after[:, 120:130, 10:220], after[:, 150:154, 20:25] = 250, 2, 250
    after[:, 170:200, 200:240] = 0
    return before, after


def _tiles(image, folder, **options) -> Path:
    """The image as four tiles in a folder."""
    folder.mkdir()
    for number, (top, left) in enumerate([(0, 0), (0, 120), (100, 0), (100, 120)]):
        write_raster(folder / f"{number}.tif", image[:, top : top + 100, left : left + 120],
                     transform=NORTH_UP @ Affine.translation(left, top), **options)  # fmt: skip
    return folder


def _detect(before, after, folder, **more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geocd.pipeline.open_predictor", open_arithmetic)
        return geocd.detect(before, after, folder / "c.gpkg", qgis_project=folder / "c.qgz",
                            config=CONFIG, **more)  # fmt: skip


@pytest.fixture(scope="module")
def run(painted, tmp_path_factory):
    """A folder with images, every product and the project."""
    folder = tmp_path_factory.mktemp("run")
    before = write_raster(folder / NASTY, painted[0], crs=UTM, transform=NORTH_UP, nodata=0)
    after = _tiles(painted[1], folder / "after", crs=UTM, nodata=0)
    _detect(before, after, folder, mask=folder / "m.tif", scores=folder / "s.tif",
            dates=("2019-06-14", "2023"))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def opened(run, tmp_path_factory):
    """What QGIS finds in the project after its folder was moved, and a picture of it."""
    headless_qgis.require()
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(run, moved)
    run.rename(run.with_name("gone"))
    try:
        facts = headless_qgis.probe("project", moved / "c.qgz", moved / "p.png")
    finally:
        run.with_name("gone").rename(run)
    return moved, facts


@pytest.mark.qgis
def test_a_moved_project_opens_with_every_layer_in_its_place(opened):
    moved, facts = opened
    assert facts["read"]
    assert facts["title"] == "Changes from 2019-06-14 to 2023"
    assert facts["crs"] == "EPSG:32633"
    layers = facts["layers"]
    assert all(layer["valid"] and layer["crs"] == "EPSG:32633" for layer in layers.values())
    assert all(layer["source"].startswith(str(moved)) for layer in layers.values())
    assert facts["legend"] == [
        ["Changes", ["Road centrelines", "Change polygons", "Not observed", "Extent"]],
        ["Rasters of the run", ["Change map", "Score: building", "Score: road"]],
        "After (2023)",
        "Before (2019-06-14)",
    ]


@pytest.mark.qgis
def test_layers_of_a_project_are_styled(opened):
    renderers = {name: layer["renderer"] for name, layer in opened[1]["layers"].items()}
    assert renderers == {
        "Change polygons": "categorizedSymbol", "Road centrelines": "RuleRenderer",
        "Not observed": "RuleRenderer", "Extent": "RuleRenderer", "Change map": "paletted",
        "Score: building": "singlebandpseudocolor", "Score: road": "singlebandpseudocolor",
        "After (2023)": "multibandcolor", "Before (2019-06-14)": "multibandcolor",
    }  # fmt: skip


@pytest.mark.qgis
def test_swiping_or_a_theme_uncovers_the_image_before(opened):
    facts = opened[1]
    on_top = ["Road centrelines", "Change polygons", "Not observed", "Extent"]
    assert facts["shown"] == [*on_top, "After (2023)", "Before (2019-06-14)"]
    assert facts["themes"] == {
        "Before": [*on_top, "Before (2019-06-14)"], "After": [*on_top, "After (2023)"],
    }  # fmt: skip


@pytest.mark.qgis
def test_the_largest_changes_are_bookmarked_with_ground_around_them(opened):
    bookmarks = opened[1]["bookmarks"]
    assert [b[0] for b in bookmarks] == ["01 Road, 525 m²", "02 Building, 500 m²",
                                         "03 Building, 5 m²"]  # fmt: skip
    assert {b[1] for b in bookmarks} == {"Largest changes"}
    assert {b[3] for b in bookmarks} == {"EPSG:32633"}
    left, bottom, right, top = bookmarks[1][2]
    building = shapely.box(500_020, 4_999_965, 500_045, 4_999_985)
    assert shapely.box(left, bottom, right, top).contains(building)
    assert right - left == pytest.approx(75, abs=3)


@pytest.mark.qgis
def test_a_project_shows_the_whole_run_at_first(opened):
    moved, facts = opened
    margin = 0.03 * 120
    assert facts["extent"] == pytest.approx(
        [500_000 - margin, 4_999_900 - margin, 500_120 + margin, 5_000_000 + margin]
    )
    picture = np.asarray(Image.open(moved / "p.png").convert("RGB")).astype(int)
    for colour in ((213, 94, 0), (0, 90, 140)):
        assert (np.abs(picture - colour).sum(axis=-1) < 30).sum() > 100


@pytest.mark.qgis
def test_a_project_without_a_crs_opens_in_pixels(painted, tmp_path):
    headless_qgis.require()
    before, after = (
        write_raster(tmp_path / f"{name}.tif", image, crs=None, transform=Affine.identity())
        for name, image in zip(("before", "after"), painted, strict=True)
    )
    _detect(before, after, tmp_path)
    facts = headless_qgis.probe("project", tmp_path / "c.qgz")
    assert facts["crs"] == ""
    assert all(layer["valid"] for layer in facts["layers"].values())
    assert facts["bookmarks"][0][0] == "01 Road, 2,100 pixels"
    assert facts["title"] == "Changes"


@pytest.mark.qgis
def test_sixteen_bits_one_band_and_no_changes_open_too(painted, tmp_path):
    headless_qgis.require()
    before = write_raster(tmp_path / "b.tif", painted[0][:1].astype(np.uint16) * 40, crs=UTM,
                          transform=NORTH_UP)  # fmt: skip
    # No code has this one: another false easting.
    own = CRS.from_proj4("+proj=tmerc +lon_0=15 +k=0.9996 +x_0=500001 +ellps=GRS80 +units=m")
    after = write_raster(tmp_path / "a.tif", painted[0][:1].astype(np.uint16) * 40, crs=own,
                         transform=NORTH_UP @ Affine.translation(2, 0))  # fmt: skip
    result = _detect(before, after, tmp_path)
    assert result.count == 0
    facts = headless_qgis.probe("project", tmp_path / "c.qgz", tmp_path / "p.png")
    assert {layer["renderer"] for name, layer in facts["layers"].items()
            if name in ("Before", "After")} == {"singlebandgray"}  # fmt: skip
    assert all(layer["valid"] for layer in facts["layers"].values())
    assert facts["bookmarks"] == []
    grey = np.asarray(Image.open(tmp_path / "p.png").convert("L"))[200:400, 200:400]
    assert grey.max() - grey.min() > 100


def test_names_are_escaped_and_paths_relative(run):
    root = ElementTree.fromstring(zipfile.ZipFile(run / "c.qgz").read("project.qgs"))
    sources = {e.text for e in root.iter("datasource")}
    assert f"./{NASTY}" in sources
    assert all(source.startswith("./") for source in sources)
    assert root.find("properties/Paths/Absolute").text == "false"


def test_letters_that_xml_cannot_hold_do_not_break_the_file(run, tmp_path):
    strange = shutil.copy(run / NASTY, tmp_path / "a\x01b.tif")
    package = shutil.copy(run / "c.gpkg", tmp_path)
    write_qgis_project(package, tmp_path / "c.qgz", before=strange)
    root = ElementTree.fromstring(zipfile.ZipFile(tmp_path / "c.qgz").read("project.qgs"))
    assert "./a\ufffdb.tif" in {e.text for e in root.iter("datasource")}


def test_the_same_run_gives_the_same_project(run, tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        package = shutil.copy(run / "c.gpkg", tmp_path / name)
        write_qgis_project(package, tmp_path / name / "c.qgz")
    assert (tmp_path / "x/c.qgz").read_bytes() == (tmp_path / "y/c.qgz").read_bytes()


def test_tiles_of_a_folder_are_one_file_that_reads_as_they_do(run, painted):
    with rasterio.open(run / "c.after.vrt") as mosaic:
        assert (mosaic.crs, mosaic.transform, mosaic.nodata) == (UTM, NORTH_UP, 0)
        np.testing.assert_array_equal(mosaic.read(), painted[1])
        assert Path(mosaic.files[1]).parent.name == "after"


def test_a_mosaic_keeps_degrees_and_sizes_of_tiles(painted, tmp_path):
    folder, half = tmp_path / "tiles", Affine(2e-5, 0, 15, 0, -2e-5, 45)
    folder.mkdir()
    write_raster(folder / "0.tif", painted[0], crs=CRS.from_epsg(4326), transform=half)
    coarse = half @ Affine.translation(240, 0) @ Affine.scale(2)
    write_raster(folder / "1.tif", painted[1][:, ::2, ::2], crs=CRS.from_epsg(4326),
                 transform=coarse)  # fmt: skip
    write_changes(_one(CRS.from_epsg(4326)), tmp_path / "c.gpkg", provenance={})
    write_qgis_project(tmp_path / "c.gpkg", tmp_path / "c.qgz", after=folder)
    with rasterio.open(tmp_path / "c.after.vrt") as mosaic:
        assert mosaic.crs == CRS.from_epsg(4326)
        assert mosaic.transform.almost_equals(half, 1e-12)
        pixels = mosaic.read()
    np.testing.assert_array_equal(pixels[:, :, :240], painted[0])
    np.testing.assert_array_equal(pixels[:, ::2, 240::2], painted[1][:, ::2, ::2])


def _alignment(*, field=None, status="applied"):
    """A run that read at 1 m, from 10 m east and south, and found after 4 and 2 m off."""
    return {
        "status": status, "model": "shift", "residual_before_px": {"median": 4.5},
        "motion": {"affine": [1.0, 0.0, 4.0, 0.0, 1.0, 2.0], "field": field},
        "grid_transform": [1.0, 0.0, 500_010.0, 0.0, -1.0, 4_999_990.0],
    }  # fmt: skip


@pytest.mark.parametrize("degrees", [False, True])
def test_after_is_shown_where_the_run_moved_it(painted, tmp_path, degrees):
    off = NORTH_UP @ Affine.translation(8, 4)  # in pixels of half a metre
    crs = UTM
    if degrees:
        to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
        west, north = to_degrees.transform(off.c, off.f)
        east, south = to_degrees.transform(*(off @ (240, 200)))
        crs, off = CRS.from_epsg(4326), Affine(
            (east - west) / 240, 0, west, 0, (south - north) / 200, north
        )  # fmt: skip
    after = write_raster(tmp_path / "a.tif", painted[1], crs=crs, transform=off)
    write_changes(_one(UTM), tmp_path / "c.gpkg", provenance={"alignment": _alignment()})
    write_qgis_project(tmp_path / "c.gpkg", tmp_path / "c.qgz", after=after)
    with rasterio.open(tmp_path / "c.after.vrt") as shown:
        np.testing.assert_array_equal(shown.read(), painted[1])
        places = [shown.transform @ place for place in ((0, 0), (240, 200))]
    if degrees:
        places = [to_degrees.transform(*place, direction="INVERSE") for place in places]
    np.testing.assert_allclose(places, [NORTH_UP @ (0, 0), NORTH_UP @ (240, 200)], atol=0.2)
    text = zipfile.ZipFile(tmp_path / "c.qgz").read("project.qgs").decode()
    assert "lay 4.5 pixels off" in text
    assert "shown where the run moved it" in text


@pytest.mark.parametrize("status", ["refused", "unneeded"])
def test_an_image_that_no_run_moved_is_shown_as_it_is(painted, tmp_path, status):
    after = write_raster(tmp_path / "a.tif", painted[1], crs=UTM, transform=NORTH_UP)
    record = {"alignment": _alignment(status=status)}
    write_changes(_one(UTM), tmp_path / "c.gpkg", provenance=record)
    write_qgis_project(tmp_path / "c.gpkg", tmp_path / "c.qgz", after=after)
    assert not (tmp_path / "c.after.vrt").exists()
    assert "moved" not in zipfile.ZipFile(tmp_path / "c.qgz").read("project.qgs").decode()


def test_a_local_motion_is_said_to_be_missing(painted, tmp_path):
    field = {"knots": [0.01, 0.0, 1.0, 0.0, 0.01, 1.0],
             "displacement": np.zeros((4, 4, 2)).tolist()}  # fmt: skip
    after = write_raster(tmp_path / "a.tif", painted[1], crs=UTM, transform=NORTH_UP)
    record = {"alignment": _alignment(field=field)}
    write_changes(_one(UTM), tmp_path / "c.gpkg", provenance=record)
    write_qgis_project(tmp_path / "c.gpkg", tmp_path / "c.qgz", after=after)
    text = zipfile.ZipFile(tmp_path / "c.qgz").read("project.qgs").decode()
    assert "without its local displacements" in text


def test_alpha_of_tiles_stays_alpha(painted, tmp_path):
    four = np.concatenate([painted[0], np.full((1, 200, 240), 255, np.uint8)])
    folder = _tiles(four, tmp_path / "tiles", crs=UTM)
    for tile in folder.iterdir():
        with rasterio.open(tile, "r+") as dataset:
            dataset.colorinterp = [*dataset.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    write_changes(_one(UTM), tmp_path / "c.gpkg", provenance={})
    write_qgis_project(tmp_path / "c.gpkg", tmp_path / "c.qgz", before=folder)
    assert Scene.open(tmp_path / "c.before.vrt").tiles[0].alpha == 4


def test_tiles_that_no_mosaic_can_hold_are_layers_of_a_group(painted, tmp_path):
    folder = _tiles(painted[0], tmp_path / "tiles", crs=UTM)
    write_raster(folder / "4.tif", painted[0][:, :50, :50], crs=CRS.from_epsg(32634),
                 transform=Affine(0.5, 0, 30_000, 0, -0.5, 5_000_000))  # fmt: skip
    write_changes(_one(UTM), tmp_path / "c.gpkg", provenance={})
    write_qgis_project(tmp_path / "c.gpkg", tmp_path / "c.qgz", before=folder)
    root = ElementTree.fromstring(zipfile.ZipFile(tmp_path / "c.qgz").read("project.qgs"))
    (group,) = [g for g in root.iter("layer-tree-group") if g.get("name") == "Before"]
    names = [leaf.get("name") for leaf in group]
    assert names == ["4.tif", "3.tif", "2.tif", "1.tif", "0.tif"]
    assert not list(tmp_path.glob("*.vrt"))


def _one(crs) -> geopandas.GeoDataFrame:
    box = shapely.MultiPolygon([shapely.box(500_000, 4_999_990, 500_010, 5_000_000)])
    return geopandas.GeoDataFrame({"id": [1], "kind": ["building"], "area_m2": [100.0]},
                                  geometry=[box], crs=crs)  # fmt: skip


@pytest.mark.parametrize(
    ("url", "source"),
    [("https://h/a.tif", "/vsicurl/https://h/a.tif"), ("s3://b/a.tif", "/vsis3/b/a.tif"),
     ("/vsizip/x.zip/a.tif", "/vsizip/x.zip/a.tif")],
)  # fmt: skip
def test_urls_are_spelled_as_gdal_reads_them(url, source, tmp_path):
    from geocd.maps.qgis_project import _relative

    assert _relative(url, tmp_path) == source
    assert _relative(tmp_path / "a.tif", tmp_path / "x") == "../a.tif"


def test_a_project_of_vectorize_shows_the_images_of_the_run(run, tmp_path):
    words = ["vectorize", run / "s.tif", "-o", tmp_path / "v.gpkg", "--table", "",
             "--qgis-project", tmp_path / "v.qgz"]  # fmt: skip
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    root = ElementTree.fromstring(zipfile.ZipFile(tmp_path / "v.qgz").read("project.qgs"))
    names = {e.text for e in root.iter("layername")}
    assert {"Before (2019-06-14)", "After (2023)", "Score: road", "Change polygons"} <= names


def test_images_that_are_gone_are_left_out_with_a_warning(run, tmp_path):
    hidden = (run / NASTY).rename(run / "hidden.tif")
    try:
        with pytest.warns(GeocdWarning, match="is without before: cannot open"):
            vectorize(run / "s.tif", tmp_path / "v.gpkg", qgis_project=tmp_path / "v.qgz")
    finally:
        hidden.rename(run / NASTY)
    root = ElementTree.fromstring(zipfile.ZipFile(tmp_path / "v.qgz").read("project.qgs"))
    names = {e.text for e in root.iter("layername")}
    assert "After (2023)" in names
    assert "Before (2019-06-14)" not in names


def test_projects_that_could_not_be_written_are_refused_before_the_work(run, tmp_path):
    before, after = run / NASTY, run / "after"
    with pytest.raises(ConfigError, match=r"written as \.qgz"):
        geocd.detect(before, after, tmp_path / "c.gpkg", qgis_project=tmp_path / "c.qgs")
    with pytest.raises(ConfigError, match=r"write the change polygons as \.gpkg"):
        geocd.detect(before, after, tmp_path / "c.geojson", qgis_project=tmp_path / "c.qgz")
    (tmp_path / "c.before.vrt").touch()
    with pytest.raises(OutputExistsError, match=r"c\.before\.vrt"):
        geocd.detect(before, after, tmp_path / "c.gpkg", qgis_project=tmp_path / "c.qgz")
    with pytest.raises(ConfigError, match="a QGIS project is written beside change polygons"):
        vectorize(run / "s.tif", qgis_project=tmp_path / "v.qgz")
    with pytest.raises(ConfigError, match="into a folder that is read as tiles"):
        geocd.detect(before, after, tmp_path / "c.gpkg", qgis_project=run / "after" / "c.qgz")
    assert [p.name for p in tmp_path.iterdir()] == ["c.before.vrt"]
