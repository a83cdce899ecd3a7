"""From a folder of tiles to one layer: nothing is cut where units meet, nothing told twice."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from arithmetic import open_arithmetic
from click.testing import CliRunner
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

import geocd
from geocd.archive.history import places_over_time, without_duplicates
from geocd.archive.index import index_archive
from geocd.archive.merge import merge_run
from geocd.archive.plan import plan_archive, read_plan
from geocd.archive.rules import PlanRules
from geocd.archive.run import run_plan
from geocd.config import AlignConfig, DetectConfig, TilingConfig, VectorizeConfig
from geocd.errors import ConfigError, InputError, OutputExistsError
from geocd.testing import paint_scene, write_raster
from geocd.testing.archives import DATES, paint_archive
from geocd_cli.main import main

ON = DetectConfig(vectorize=VectorizeConfig(min_area=5), shift_check=False)
OFF = dataclasses.replace(ON, align=AlignConfig(mode="off"))
SMALL = TilingConfig(tile_size=128, overlap=32)
UTM = CRS.from_epsg(32633)


@pytest.fixture(scope="module")
def arithmetic():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geocd.pipeline.open_predictor", open_arithmetic)
        yield


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def merged(painted, arithmetic, tmp_path_factory):
    """The painted archive, from the folder to the layer."""
    folder = tmp_path_factory.mktemp("run")
    index_archive([painted.folder], folder / "a.parquet")
    plan_archive(folder / "a.parquet", folder / "p.parquet", rules=PlanRules(unit_size=384))
    assert not run_plan(folder / "p.parquet", folder / "out", config=OFF).failed
    return merge_run(folder / "out", folder / "c.gpkg", mosaic="vrt", report=folder / "r.html",
                     stac=folder / "s.json")  # fmt: skip


def _span(changes, before, after):
    return changes[(changes.before_date == before) & (changes.after_date == after)]


def test_what_was_painted_is_found_with_its_dates_and_once(painted, merged):
    assert len(merged.changes) == 4
    # Around the gap of 2018 the first block is seen in 2018 and in 2021: the newest is kept.
    for block, before, after in (
        (0, DATES[0], DATES[2]), (1, DATES[0], DATES[1]),
        (1, DATES[1], DATES[2]), (2, DATES[1], DATES[2]),
    ):  # fmt: skip
        found = _span(merged.changes, before, after)
        shared = found.intersection(painted.blocks[block].polygon).area.sum()
        assert shared == pytest.approx(painted.blocks[block].polygon.area, rel=0.03)
    assert set(merged.changes["direction"]) == {"appeared", "disappeared"}


def test_the_history_tells_when_a_place_changed(painted, merged):
    assert len(merged.history) == 3
    for block, seen in zip(
        painted.blocks,
        ((DATES[1], DATES[2]), (DATES[1], DATES[2]), (DATES[2], DATES[2])), strict=True,
    ):  # fmt: skip
        place = merged.history[merged.history.intersects(block.polygon)].iloc[0]
        first, last = seen
        assert place["first_seen"] == first
        assert place["last_seen"] <= last


def test_the_geopackage_has_all_layers_and_mosaics_point_to_the_units(merged):
    layers = {name for name, _ in pyogrio.list_layers(merged.output)}
    assert {"changes", "history", "footprint", "not_observed", "provenance"} <= layers
    assert merged.changes.crs == "EPSG:32633"
    assert len(merged.mosaics) >= 2
    with rasterio.open(merged.mosaics[0]) as mosaic:
        assert mosaic.descriptions == ("building", "road")
        assert (mosaic.read(1) == 254).any()


def test_parquet_has_the_history_beside_it_and_nothing_is_replaced_unasked(merged, tmp_path):
    run = merged.output.parent / "out"
    result = merge_run(run, tmp_path / "c.parquet", mosaic="cog")
    assert len(geopandas.read_parquet(tmp_path / "c.parquet")) == len(merged.changes)
    assert len(geopandas.read_parquet(tmp_path / "c-history.parquet")) == len(merged.history)
    with rasterio.open(result.mosaics[0]) as mosaic, rasterio.open(merged.mosaics[0]) as same:
        np.testing.assert_array_equal(mosaic.read(), same.read())
    with pytest.raises(OutputExistsError):
        merge_run(run, tmp_path / "c.parquet")


def test_the_page_tells_of_kinds_years_pairs_and_ground_and_asks_for_nothing(merged):
    text = merged.page.read_text()
    assert "4 changes" in text
    for before, after in {(DATES[0], DATES[1]), (DATES[1], DATES[2]), (DATES[0], DATES[2])}:
        assert f"{before} to {after}" in text
    assert re.findall(r'text-anchor="end">(\d+)<', text) == ["2018", "2021"]
    assert "Ground compared" in text
    assert "alignment is switched off" in text
    assert "Not done" not in text
    assert "geocd-vhr" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", text)[1])))
    pixels = np.asarray(picture).reshape(-1, 3)
    for shade in ((0, 114, 178), (0, 158, 115)):  # the first and the last span
        assert (pixels == shade).all(axis=1).sum() > 100


def test_the_collection_lists_all_that_was_written(merged):
    content = json.loads(merged.stac.read_text())
    assert pystac.Collection.from_dict(content).validate is not None
    assets = {name: merged.stac.parent / a["href"] for name, a in content["assets"].items()}
    assert all(path.is_file() for path in assets.values())
    assert {path.resolve() for path in assets.values()} == {
        path.resolve() for path in (merged.output, merged.page, *merged.mosaics)
    }
    interval = content["extent"]["temporal"]["interval"][0]
    assert [moment[:10] for moment in interval] == [DATES[0], DATES[2]]


def test_changes_tell_what_their_units_saw_of_registration(merged):
    columns = list(merged.changes.columns)
    place = columns.index("misregistration_px")
    assert columns[place + 1] == "shift_stable"
    # Nothing was measured, and nothing was checked.
    assert merged.changes["misregistration_px"].isna().all()
    assert merged.changes["shift_stable"].isna().all()


def test_units_that_are_not_done_are_told_of_and_other_settings_are_not_mixed_in(merged, tmp_path):
    run = merged.output.parent / "out"
    copy = tmp_path / "out"
    shutil.copytree(run, copy)
    gone = next(iter(sorted(copy.glob("units/*.tif"))))
    gone.unlink()
    cut = next(iter(sorted(copy.glob("units/*.parquet"), reverse=True)))
    cut.write_bytes(cut.read_bytes()[:-1])
    lines = [json.loads(line) for line in (copy / "journal.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if f"{line['unit']}." not in gone.name + cut.name)
    with (copy / "journal.jsonl").open("w") as journal:
        for line in lines:
            if line == last:
                line |= {"status": "failed", "error": "<it> burnt", "outputs": {}}
            journal.write(json.dumps(line) + "\n")
    result = merge_run(copy, tmp_path / "c.gpkg", report=tmp_path / "r.html")
    assert (result.missing, result.failed) == (3, 1)
    assert "3 units not done (1 failed)" in result.report()
    assert "geocd archive run" in result.report()
    page = (tmp_path / "r.html").read_text()
    assert "2 units not begun" in page
    assert "&lt;it&gt; burnt" in page
    assert last["unit"] in page
    text = (copy / "settings.json").read_text()
    (copy / "settings.json").write_text(text.replace('"settings": "', '"settings": "0'))
    with pytest.raises(InputError, match=r"no unit .*missing.*geocd archive run"):
        merge_run(copy, tmp_path / "d.gpkg")


def test_a_run_of_a_plan_of_another_version_is_refused(merged, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(merged.output.parent / "out", copy)
    read_plan(copy / "plan.parquet").assign(version=1).to_parquet(copy / "plan.parquet")
    with pytest.raises(InputError, match=r"version 1, this geocd reads version 2.*archive plan"):
        merge_run(copy, tmp_path / "c.gpkg")


def _journal_all(run, status):
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(line | {"status": status, "outputs": {}}) + "\n" for line in lines)
    (run / "journal.jsonl").write_text(text)


def test_a_run_that_observed_nothing_or_failed_everywhere_says_so(merged, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(merged.output.parent / "out", copy)
    _journal_all(copy, "empty")
    with pytest.raises(InputError, match="no unit observed ground on both dates"):
        merge_run(copy, tmp_path / "c.gpkg")
    _journal_all(copy, "failed")
    with pytest.raises(InputError, match=r"\d+ failed.*--retry-failed"):
        merge_run(copy, tmp_path / "c.gpkg")


@pytest.mark.usefixtures("arithmetic")
def test_where_nothing_changed_layers_and_page_are_there_and_empty(tmp_path):
    (tmp_path / "t").mkdir()
    ground = paint_scene((150, 150), seed=2)
    for number, date in enumerate(("2015-06-01", "2018-06-01")):
        image = (ground + np.uint8(number)).clip(1, 255)
        place = Affine(0.5, 0, 499_980, 0, -0.5, 4_999_948)
        write_raster(tmp_path / f"t/{date}.tif", image, crs=UTM, transform=place)
    index_archive([tmp_path / "t"], tmp_path / "a.parquet", date_pattern="YYYY-MM-DD")
    plan_archive(tmp_path / "a.parquet", tmp_path / "p.parquet",
                 rules=PlanRules(unit_size=192, halo=96, tiling=SMALL))  # fmt: skip
    run_plan(tmp_path / "p.parquet", tmp_path / "out",
             config=dataclasses.replace(OFF, tiling=SMALL))  # fmt: skip
    for name in ("c.gpkg", "c.parquet"):
        result = merge_run(tmp_path / "out", tmp_path / name, mosaic="cog", overwrite=True,
                           report=tmp_path / "r.html", stac=tmp_path / "s.json")  # fmt: skip
        assert (len(result.changes), len(result.history)) == (0, 0)
        assert "0 changes" in result.report()
    assert "No change was found" in (tmp_path / "r.html").read_text()
    assert len(geopandas.read_file(tmp_path / "c.gpkg", layer="footprint")) == 1
    assert geopandas.read_parquet(tmp_path / "c.parquet").empty


def test_a_folder_without_a_run_and_impossible_outputs_are_refused(merged, tmp_path):
    with pytest.raises(InputError, match="no folder of a run"):
        merge_run(tmp_path, tmp_path / "c.gpkg")
    with pytest.raises(ConfigError):
        merge_run(merged.output.parent / "out", tmp_path / "c.shp")
    for option in ({"report": tmp_path / "r.pdf"}, {"stac": tmp_path / "s.xml"}):
        with pytest.raises(ConfigError):
            merge_run(merged.output.parent / "out", tmp_path / "c.gpkg", **option)
    assert not list(tmp_path.iterdir())


def _in_units_and_whole(paths, config, folder):
    """What is found in four units of a pair of rasters, merged, and in the pair at once."""
    index_archive([paths[0].parent], folder / "a.parquet", date_pattern="YYYY-MM-DD")
    plan_archive(
        folder / "a.parquet",
        folder / "p.parquet",
        rules=PlanRules(unit_size=192, halo=96, tiling=SMALL),
    )
    assert not run_plan(folder / "p.parquet", folder / "out", config=config).failed
    assert len(read_plan(folder / "p.parquet")) == 4
    units = merge_run(folder / "out", folder / "c.gpkg", mosaic="vrt")
    whole = geocd.detect(*paths, folder / "w.gpkg", scores=folder / "w.tif", config=config)
    return units, whole


def _share_of_equal_scores(mosaic, raster):
    with rasterio.open(mosaic) as pieces, rasterio.open(raster) as one:
        return (pieces.read(window=pieces.window(*one.bounds)) == one.read()).mean()


@pytest.mark.parametrize(
    ("shift", "dtype", "finer", "settings"),
    [
        ((0, 0), "uint8", 1, {"align": AlignConfig(mode="off")}),
        ((4, -3), "uint8", 1, {}),
        ((-5, 2), "uint16", 1, {"radiometry": "linear"}),
        ((4, -3), "uint8", 2, {}),
    ],
    ids=["off", "aligned", "aligned and stretched", "aligned and read coarser"],
)
@pytest.mark.usefixtures("arithmetic")
def test_one_raster_and_the_same_cut_into_units_agree(tmp_path, shift, dtype, finer, settings):
    before = paint_scene((260, 320), seed=5) // 2 + 40
    after = before.copy()
    after[:, 90:160, 90:290] = 250
    after[:, 200:208, 20:300] = 2
    config = dataclasses.replace(ON, tiling=SMALL, **settings)
    after = np.roll(after, shift, axis=(1, 2))
    before, after = (
        image.repeat(finer, axis=1).repeat(finer, axis=2).astype(dtype) for image in (before, after)
    )
    (tmp_path / "t").mkdir()
    place = Affine(0.5 / finer, 0, 499_980, 0, -0.5 / finer, 4_999_948)
    paths = [
        write_raster(tmp_path / f"t/{date}.tif", image, crs=UTM, transform=place)
        for date, image in (("2015-06-01", before), ("2018-06-01", after))
    ]
    units, whole = _in_units_and_whole(paths, config, tmp_path)
    assert whole.alignment.status == ("applied" if any(shift) else "off")
    assert _share_of_equal_scores(units.mosaics[0], tmp_path / "w.tif") > 0.999
    # The layer is that of the whole raster: nothing is cut, nothing is counted twice.
    assert set(whole.changes.columns) < set(units.changes.columns)
    found, expected = (r.changes.sort_values("area_px").reset_index() for r in (units, whole))
    assert found["area_px"].tolist() == expected["area_px"].tolist()
    assert found["direction"].tolist() == expected["direction"].tolist()
    assert found.geometry.geom_equals_exact(expected.geometry, 0.01).all()
    # Rounding decides which of the tie points that are as far away count.
    np.testing.assert_allclose(
        found["misregistration_px"], expected["misregistration_px"], rtol=0.05
    )


@pytest.mark.usefixtures("arithmetic")
def test_a_date_in_another_crs_leaves_no_cut_where_units_meet(tmp_path):
    before = paint_scene((260, 320), seed=5) // 2 + 40
    after = before.copy()
    after[:, 90:160, 90:290] = 250
    after[:, 200:208, 20:300] = 2
    place = Affine(0.5, 0, 499_980, 0, -0.5, 4_999_948)
    (tmp_path / "t").mkdir()
    paths = [tmp_path / f"t/{date}.tif" for date in ("2015-06-01", "2018-06-01")]
    write_raster(paths[0], before, crs=UTM, transform=place)
    moved, turned = reproject(after, src_crs=UTM, src_transform=place, dst_crs="EPSG:32634",
                              resampling=Resampling.cubic, dst_resolution=0.5)  # fmt: skip
    write_raster(paths[1], moved, crs=CRS.from_epsg(32634), transform=turned)
    units, whole = _in_units_and_whole(paths, dataclasses.replace(OFF, tiling=SMALL), tmp_path)
    assert _share_of_equal_scores(units.mosaics[0], tmp_path / "w.tif") > 0.999
    found, expected = (r.changes.sort_values("area_px").reset_index() for r in (units, whole))
    assert len(found) == len(expected) == 2
    # GDAL approximates a reprojection part by part: pixels at edges may differ, objects not.
    apart = found.geometry.symmetric_difference(expected.geometry).area / expected.geometry.area
    assert (apart < 0.01).all()


def _changes(*rows):
    names = ["kind", "before_date", "after_date", "observed", "x", "size"]
    table = pd.DataFrame(rows, columns=names)
    table["pair"] = table["before_date"] + "_" + table["after_date"]
    left, size = (table[name].to_numpy(float) for name in ("x", "size"))
    boxes = shapely.box(left, 0, left + size, 10)
    return geopandas.GeoDataFrame(table, geometry=boxes, crs=UTM.to_wkt())


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        # The same change in spans that overlap: the newest date stays, of two the closer span.
        ([("building", "2010", "2015", 1, 0, 10), ("building", "2010", "2018", 1, 1, 10)], [1]),
        ([("building", "2010", "2018", 1, 0, 10), ("building", "2015", "2018", 1, 1, 10)], [1]),
        # Spans that follow one another are two changes; so are kinds and places.
        ([("building", "2010", "2015", 1, 0, 10), ("building", "2015", "2018", 1, 0, 10)], [0, 1]),
        ([("building", "2010", "2015", 1, 0, 10), ("road", "2010", "2018", 1, 0, 10)], [0, 1]),
        ([("building", "2010", "2015", 1, 0, 10), ("building", "2010", "2018", 1, 8, 10)], [0, 1]),
        # What a gap cuts off does not replace what was seen whole.
        ([("building", "2010", "2015", 1, 0, 10), ("building", "2010", "2018", 0.8, 0, 4)], [0]),
        # Two halves in one pair, one whole in another: both halves, or the whole.
        ([("building", "2010", "2018", 1, 0, 4), ("building", "2010", "2018", 1, 5, 5),
          ("building", "2010", "2015", 1, 0, 10)], [0, 1]),
        ([], []),
    ],
)  # fmt: skip
def test_one_change_in_several_pairs_is_kept_once(rows, kept):
    changes = _changes(*rows)
    expected = changes.iloc[kept].reset_index(drop=True)
    result = without_duplicates(changes)
    assert result["pair"].tolist() == expected["pair"].tolist()
    assert result["x"].tolist() == expected["x"].tolist()


def test_a_place_has_one_row_with_all_its_dates():
    changes = _changes(
        ("building", "2010", "2015", 1, 0, 10), ("road", "2015", "2018", 1, 2, 10),
        ("building", "2015", "2018", 1, 50, 10),
    )  # fmt: skip
    places = places_over_time(changes)
    assert places["times"].tolist() == [2, 1]
    first = places.iloc[0]
    dates = tuple(first[["last_before", "first_seen", "last_seen"]])
    assert dates == ("2010", "2015", "2018")
    assert first["kinds"] == "building,road"
    assert first.geometry.bounds == (0, 0, 12, 10)
    assert places_over_time(_changes()).empty


def test_the_command_tells_what_changed(merged, tmp_path):
    run = merged.output.parent / "out"
    output = str(tmp_path / "c.gpkg")
    pages = ["--report", str(tmp_path / "r.html"), "--stac", str(tmp_path / "s.json")]
    done = CliRunner().invoke(
        main, ["archive", "merge", str(run), "-o", output, "--mosaic", "vrt", *pages]
    )
    assert all(Path(path).is_file() for path in pages[1::2])
    assert done.exit_code == 0, done.output
    assert "4 changes" in done.stdout
    assert f"{DATES[1]} to {DATES[2]}: 2" in done.stdout
    assert CliRunner().invoke(main, ["archive", "merge", str(run), "-o", output]).exit_code == 1
