"""A sample of a map is random, spread over its strata, and says how it was labelled."""

from __future__ import annotations

import json
import os
import subprocess

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from rasterio.crs import CRS

from geocd.assess import sampling
from geocd.assess.sampled import judge_sample, make_sample
from geocd.assess.sampling import draw_sample
from geocd.config import SampleConfig
from geocd.errors import ConfigError, GeocdWarning, InputError, OutputExistsError, RasterOpenError
from geocd.testing import write_raster
from geocd_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


def _codes(shape=(120, 150)):
    codes = np.zeros(shape, np.uint8)
    codes[30:50, 40:60] = 1
    codes[70:74, 10:130] = 2
    codes[:, 140:] = 255
    return codes


def _map(path, codes=None, *, crs=UTM, transform=NORTH_UP):
    return write_raster(path, _codes() if codes is None else codes, crs=crs, transform=transform,
                        nodata=255)  # fmt: skip


def _draw(path, **settings):
    return draw_sample(path, config=SampleConfig(**settings))


# Drawing


def test_every_unit_lies_in_its_stratum_and_none_is_drawn_twice(tmp_path):
    codes = _codes()
    s = _draw(_map(tmp_path / "m.tif"), per_stratum=40, buffer=2.5)  # 5 pixels of 0.5 m
    assert [(x.name, x.map_class, x.drawn) for x in s.strata] == [
        ("none", "none", 40), ("near", "none", 40), ("building", "building", 40),
        ("road", "road", 40),
    ]  # fmt: skip
    changed_row, changed_col = np.nonzero((codes == 1) | (codes == 2))
    for index, row, col in zip(s.stratum, s.row, s.col, strict=True):
        apart = np.hypot(changed_row - row, changed_col - col).min()
        expected = {0: "near" if apart <= 5 else "none", 1: "building", 2: "road"}
        assert s.strata[index].name == expected[codes[row, col]]
    assert len({*zip(s.row.tolist(), s.col.tolist(), strict=True)}) == 160
    assert sum(x.pixels for x in s.strata) == (codes != 255).sum()
    assert s.pixel_area == pytest.approx(0.25, rel=2e-3)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_the_pieces_in_which_a_map_is_read_change_nothing(tmp_path, monkeypatch, rows):
    path = _map(tmp_path / "m.tif")
    whole = _draw(path, per_stratum=30, buffer=4)
    monkeypatch.setattr(sampling, "_PIECE_PIXELS", 150 * rows)
    pieces = _draw(path, per_stratum=30, buffer=4)
    assert pieces.strata == whole.strata
    np.testing.assert_array_equal([pieces.row, pieces.col], [whole.row, whole.col])


def test_the_same_seed_draws_the_same_pixels_and_another_seed_others(tmp_path):
    path = _map(tmp_path / "m.tif")
    one, same, other = (_draw(path, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.row, same.row)
    assert (one.row != other.row).any()


def test_another_number_in_one_stratum_moves_no_unit_of_another(tmp_path):
    path = _map(tmp_path / "m.tif")
    few, many = (
        _draw(path, per_stratum={"none": n, "near": 20, "building": 20, "road": 20})
        for n in (10, 90)
    )
    ours, theirs = (
        {(r, c) for i, r, c in zip(s.stratum, s.row, s.col, strict=True) if i == 3}
        for s in (few, many)
    )
    assert ours == theirs


def test_each_pixel_of_a_stratum_has_the_same_chance(tmp_path):
    codes = np.zeros((6, 8), np.uint8)
    path = _map(tmp_path / "m.tif", codes)
    hits = np.zeros(codes.shape)
    for seed in range(120):
        s = _draw(path, per_stratum=12, seed=seed)
        hits[s.row, s.col] += 1
    # Expected 30 each, with a deviation of 4.7.
    assert np.abs(hits - 30).max() < 4.5 * 4.7
    assert hits.sum() == 120 * 12


def test_the_order_of_the_units_tells_nothing_of_their_strata(tmp_path):
    s = _draw(_map(tmp_path / "m.tif"), per_stratum=50)
    assert 80 < np.count_nonzero(np.diff(s.stratum)) < 180  # 3 if sorted; 150 expected


def test_without_a_buffer_there_is_no_stratum_near_change(tmp_path):
    s = _draw(_map(tmp_path / "m.tif"), buffer=0)
    assert [x.name for x in s.strata] == ["none", "building", "road"]


def test_without_a_crs_areas_and_the_buffer_are_in_pixels(tmp_path):
    path = _map(tmp_path / "m.tif", crs=None, transform=Affine.identity())
    s = _draw(path, buffer=1)
    assert (s.unit, s.pixel_area) == ("px", 1)
    ring = next(x for x in s.strata if x.name == "near")
    assert ring.pixels == 2 * (20 + 20) + 2 * (4 + 120)


def test_a_small_stratum_is_taken_whole_and_said_so(tmp_path):
    codes = np.zeros((20, 20), np.uint8)
    codes[3, 3:6] = 1
    with pytest.warns(GeocdWarning, match="building has 3 pixels"):
        s = _draw(_map(tmp_path / "m.tif", codes), per_stratum=10, buffer=0)
    assert [x.drawn for x in s.strata] == [10, 3]


def test_pixels_of_unequal_size_are_warned_of(tmp_path):
    path = _map(tmp_path / "m.tif", np.zeros((30, 30), np.uint8), crs=CRS.from_epsg(4326),
                transform=Affine(0.1, 0, 10, 0, -0.1, 60))  # fmt: skip
    with pytest.warns(GeocdWarning, match="equal-area"):
        _draw(path)


# Bad input


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"none": 9, "near": 9, "building": 9, "road": 9, "change": 9}, "no stratum 'change'"),
        ({"none": 9, "near": 9, "building": 9}, "'road', which has 480 pixels"),
        ({"none": 9, "near": 9, "building": 9, "road": 9, "roof": 9}, "no stratum 'roof'"),
    ],
)
def test_empty_strata_by_name_and_strata_left_out_are_refused(tmp_path, wanted, says):
    with pytest.raises(ConfigError, match=says):
        _draw(_map(tmp_path / "m.tif"), per_stratum=wanted)


@pytest.mark.parametrize(
    "wrong",
    [{"per_stratum": 1}, {"per_stratum": 2.5}, {"buffer": -1}, {"buffer": np.nan}, {"seed": -1},
     {"per_stratum": {"none": 0}}],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        SampleConfig(**wrong)


def test_other_rasters_are_refused(tmp_path):
    with pytest.raises(RasterOpenError):
        _draw(tmp_path / "nothing.tif")
    with pytest.raises(InputError, match="2 of uint8"):
        _draw(_map(tmp_path / "two.tif", np.zeros((2, 9, 9), np.uint8)))
    with pytest.raises(InputError, match="value 7"):
        _draw(_map(tmp_path / "seven.tif", np.full((9, 9), 7, np.uint8)))
    with pytest.raises(InputError, match="no pixel"):
        _draw(_map(tmp_path / "unseen.tif", np.full((9, 9), 255, np.uint8)))


# Files and labels


@pytest.fixture
def sample(tmp_path):
    make_sample(_map(tmp_path / "m.tif"), tmp_path / "s.gpkg", config=SampleConfig(buffer=2))
    return tmp_path / "s.gpkg"


def _label(path, label):
    """Fill in the column reference, as QGIS does it: in place."""
    units = pyogrio.read_dataframe(path, layer="sample")
    units["reference"] = [label(u) for u in units.itertuples()]
    pyogrio.write_dataframe(units, path, layer="sample", driver="GPKG")


def test_units_are_the_squares_of_their_pixels(sample, tmp_path):
    units = geopandas.read_file(sample, layer="sample")
    assert units.crs == UTM
    np.testing.assert_allclose(units.area, 0.25)
    with rasterio.open(tmp_path / "m.tif") as dataset:
        codes = dataset.read(1)
        for unit in units.itertuples():
            assert dataset.index(*unit.geometry.centroid.coords[0]) == (unit.row, unit.col)
            name = {"none": 0, "building": 1, "road": 2}[unit.map_class]
            assert codes[unit.row, unit.col] == name
    assert units["reference"].isna().all()
    strata = pyogrio.read_dataframe(sample, layer="strata")
    assert strata["pixels"].sum() == 120 * 140
    assert strata["area"].sum() == pytest.approx(120 * 140 * 0.25, rel=2e-3)


def test_a_map_that_is_right_everywhere_is_found_to_be(sample):
    _label(sample, lambda unit: unit.map_class)
    content = judge_sample(sample).to_dict()
    assert content["overall"]["value"] == 1
    building = content["classes"]["building"]["area"]
    assert building["value"] == pytest.approx(building["mapped"]) == pytest.approx(100, rel=2e-3)
    assert building["standard_error"] == pytest.approx(0, abs=1e-9)


def test_change_that_the_map_misses_near_its_edge_is_added_to_the_area(sample, tmp_path):
    truth = _codes() == 1
    truth[28:52, 38:62] = True  # the map's buildings are two pixels too small all around
    codes = {0: "none", 1: "building", 2: "road"}

    def _true_class(unit):
        return "building" if truth[unit.row, unit.col] else codes[_codes()[unit.row, unit.col]]

    _label(sample, _true_class)
    result = judge_sample(sample, output=tmp_path / "a.json")
    building = result.to_dict()["classes"]["building"]
    low, high = building["area"]["interval_95"]
    assert building["area"]["mapped"] == pytest.approx(100, rel=2e-3)
    assert low < truth.sum() * 0.25 < high
    assert low > 100
    assert building["user"]["value"] == 1
    assert building["producer"]["value"] < 0.95
    assert json.loads((tmp_path / "a.json").read_text())["units"] == 200
    assert "building" in result.report()
    with pytest.raises(OutputExistsError):
        judge_sample(sample, output=tmp_path / "a.json")


def test_plain_change_is_met_by_any_kind_of_it(tmp_path):
    codes = np.where(_codes() == 1, 3, 0).astype(np.uint8)
    make_sample(_map(tmp_path / "m.tif", codes), tmp_path / "s.gpkg")
    _label(tmp_path / "s.gpkg", lambda u: "building" if u.map_class == "change" else "none")
    content = judge_sample(tmp_path / "s.gpkg").to_dict()
    assert list(content["classes"]) == ["none", "change"]
    assert content["overall"]["value"] == 1


def test_units_that_nobody_can_judge_are_left_out_and_counted(sample):
    _label(sample, lambda u: "Unclear" if u.unit <= 7 else u.map_class)
    result = judge_sample(sample)
    assert result.to_dict()["unclear"] == 7
    assert result.to_dict()["units"] == 193
    assert "7 units could not be judged" in result.report()


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (lambda u: None if u.unit == 5 else u.map_class, "1 of 200 units have no label .*5"),
        (lambda u: " " if u.unit < 3 else u.map_class, "2 of 200 units have no label"),
        (lambda u: "roof" if u.unit == 9 else u.map_class, "unit 9 is labelled 'roof'"),
        (lambda u: "unclear" if u.stratum == "road" else u.map_class, "0 of them in the sample"),
    ],
)
def test_labels_that_are_missing_or_unknown_are_refused(sample, label, says):
    _label(sample, label)
    with pytest.raises(InputError, match=says):
        judge_sample(sample)


def test_deleted_units_are_refused(sample):
    units = pyogrio.read_dataframe(sample, layer="sample").assign(reference="none")
    pyogrio.write_dataframe(units[units.unit != 3], sample, layer="sample", driver="GPKG")
    with pytest.raises(InputError, match=r"50 units were drawn .* and 49 are there"):
        judge_sample(sample)


def test_other_files_are_no_sample(tmp_path):
    frame = geopandas.GeoDataFrame({"a": [1]}, geometry=[shapely.Point(0, 0)], crs=UTM)
    frame.to_file(tmp_path / "x.gpkg", layer="changes")
    for path in (tmp_path / "x.gpkg", tmp_path / "nothing.gpkg"):
        with pytest.raises(InputError, match="geocd sample"):
            judge_sample(path)


def test_labels_are_not_overwritten_by_accident_nor_written_elsewhere(sample, tmp_path):
    with pytest.raises(OutputExistsError):
        make_sample(tmp_path / "m.tif", sample)
    with pytest.raises(ConfigError, match=r"\.gpkg"):
        make_sample(tmp_path / "m.tif", tmp_path / "s.geojson")


# Commands


def test_the_commands_draw_and_assess(tmp_path):
    _map(tmp_path / "m.tif")
    base = ["sample", str(tmp_path / "m.tif"), "-o", str(tmp_path / "s.gpkg"), "-q"]
    done = CliRunner().invoke(main, [*base, "--per-stratum", "none=9,near=8,building=7,road=6",
                                     "--json"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["units"] == 30
    unlabelled = CliRunner().invoke(main, ["assess", str(tmp_path / "s.gpkg")])
    assert unlabelled.exit_code == 1
    assert "have no label" in unlabelled.stderr
    _label(tmp_path / "s.gpkg", lambda u: u.map_class)
    done = CliRunner().invoke(main, ["assess", str(tmp_path / "s.gpkg")])
    assert done.exit_code == 0, done.output
    assert "error-adjusted" in done.stdout
    wrong = CliRunner().invoke(main, [*base, "--overwrite", "--per-stratum", "1"])
    assert wrong.exit_code == 2


_PROBE = """
import json, sys
from qgis.core import QgsApplication, QgsProject, QgsVectorLayer
app = QgsApplication([], False); app.initQgis()
layer = QgsVectorLayer(sys.argv[1] + "|layername=sample", "s", "ogr")
setup = {f.name(): layer.editorWidgetSetup(i) for i, f in enumerate(layer.fields())}
facts = {"types": {k: s.type() for k, s in setup.items()}, "map": setup["reference"].config(),
         "renderer": layer.renderer().type(), "valid": layer.isValid()}
print(json.dumps(facts)); del layer; QgsProject.instance().clear(); app.exitQgis()
"""


@pytest.mark.qgis
def test_qgis_offers_the_labels_in_words_and_hides_what_the_map_says(sample):
    # The virtual environment's GDAL and PROJ are not those of Debian's QGIS.
    strange = ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "PROJ_LIB", "PROJ_DATA", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in strange}
    environment |= {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": "/tmp"}
    try:
        done = subprocess.run(["/usr/bin/python3", "-c", _PROBE, sample], env=environment,
                              capture_output=True, text=True, timeout=180)  # fmt: skip
    except OSError:
        pytest.skip("Debian's QGIS is not installed (make system-deps)")
    if "No module named 'qgis'" in done.stderr:
        pytest.skip("Debian's QGIS is not installed (make system-deps)")
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["valid"]
    assert facts["renderer"] == "categorizedSymbol"
    assert facts["types"]["reference"] == "ValueMap"
    assert facts["types"]["stratum"] == facts["types"]["map_class"] == "Hidden"
    offered = {value for entry in facts["map"]["map"] for value in entry.values()}
    assert offered == {"none", "building", "road", "change", "unclear"}
