"""A pair is measured once, as a whole, from the tiles that are sound, whoever comes first."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from archive_stub import CHEAP

from geocd.archive.index import index_archive
from geocd.archive.pairs import pair_hash, rows_of, whole_pair
from geocd.archive.plan import plan_archive, read_plan
from geocd.archive.rules import PlanRules
from geocd.archive.run import run_plan
from geocd.archive.unit import Job, do_unit, fingerprint, measurement_path, settings_hash
from geocd.config import DetectConfig, TilingConfig
from geocd.errors import RasterOpenError
from geocd.testing import write_raster

TILE, COUNT = 96, 5
SMALL = TilingConfig(tile_size=64, overlap=16)


def _archive(folder, dates=("2015-06-01", "2018-06-01")):
    """Tiles of one unit each, in a row."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for date in dates:
        for col in range(COUNT):
            image = rng.integers(1, 255, (3, TILE, TILE), dtype=np.uint8)
            place = Affine(0.5, 0, 499_968 + 48 * col, 0, -0.5, 4_999_968)
            write_raster(folder / f"{date}_{col}.tif", image, crs="EPSG:32633", transform=place)
    return folder


def _planned(tiles, folder):
    index_archive([tiles], folder / "a.parquet", date_pattern="YYYY-MM-DD")
    return plan_archive(folder / "a.parquet", folder / "p.parquet", overwrite=True,
                        rules=PlanRules(unit_size=TILE, halo=16, tiling=SMALL)).output  # fmt: skip


@pytest.fixture
def plan(tmp_path):
    return _planned(_archive(tmp_path / "t"), tmp_path)


@pytest.fixture
def asked(monkeypatch):
    """What was measured, with a stand-in for the pipeline."""
    calls = []

    def measure(before, after, output, *, config, made_by):
        with rasterio.open(before) as first, rasterio.open(after) as second:
            calls.append(SimpleNamespace(bounds=first.bounds, seen=second.dataset_mask() > 0,
                                         made_by=made_by))  # fmt: skip
            for dataset in (first, second):
                try:
                    dataset.read()
                except rasterio.errors.RasterioError as error:
                    raise RasterOpenError(str(error)) from None
        Path(output).write_text("{}")

    monkeypatch.setitem(
        sys.modules, "geocd.pipeline", SimpleNamespace(detect=CHEAP.detect, measure=measure)
    )
    return calls


def test_a_pair_is_measured_once_over_all_its_ground_and_its_units_name_the_file(
    plan, tmp_path, asked
):
    assert run_plan(plan, tmp_path / "out").done == COUNT
    assert len(asked) == 1
    assert tuple(asked[0].bounds) == (499_968, 4_999_920, 499_968 + COUNT * 48, 4_999_968)
    assert asked[0].made_by["left_out"] == []
    kept = list((tmp_path / "out/pairs").glob("*.json"))
    assert kept == [measurement_path(read_plan(plan).iloc[0], tmp_path / "out", DetectConfig())]
    # Settings that do not matter to it do not ask again; others do.
    run_plan(plan, tmp_path / "out", config=DetectConfig(threshold=0.3))
    assert len(asked) == 1
    run_plan(plan, tmp_path / "out", config=DetectConfig(radiometry="linear"))
    assert len(asked) == 2


def test_tiles_that_vanish_fail_their_units_and_are_left_out_of_the_measuring(
    plan, tmp_path, asked
):
    gone = tmp_path / f"t/2018-06-01_{COUNT - 1}.tif"
    gone.unlink()
    result = run_plan(plan, tmp_path / "out")
    # Units see more than their own ground: neighbours need the tile, too.
    assert result.done >= 1
    assert result.done + len(result.failed) == COUNT
    assert asked[0].made_by["left_out"] == [str(gone)]
    assert not asked[0].seen[:, -TILE:].any()


def test_tiles_that_cannot_be_read_are_left_out_of_the_measuring(tmp_path, asked):
    bad = _archive(tmp_path / "t") / f"2018-06-01_{COUNT - 1}.tif"
    content = bytearray(bad.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    bad.write_bytes(content)
    result = run_plan(_planned(tmp_path / "t", tmp_path), tmp_path / "out")
    assert [call.made_by["left_out"] for call in asked[:2]] == [[], [str(bad)]]
    assert result.done >= 1
    assert result.done + len(result.failed) == COUNT


def test_all_of_a_pair_is_done_again_if_a_tile_of_it_was_altered_and_nothing_if_it_moved(tmp_path):
    tiles = _archive(tmp_path / "t")
    rows = rows_of(read_plan(_planned(tiles, tmp_path)))
    before = {row["unit"]: fingerprint(row, "settings") for row in rows}
    moved = [row | {"before": row["before"].replace("/t/", "/elsewhere/")} for row in rows]
    assert {row["unit"]: fingerprint(row, "settings") for row in moved} == before
    assert pair_hash(moved) == pair_hash(rows) == rows[0]["pair_hash"]
    with rasterio.open(tiles / "2018-06-01_2.tif", "r+") as dataset:
        dataset.write(255 - dataset.read())
    after = rows_of(read_plan(_planned(tiles, tmp_path)))
    assert {row["unit"] for row in after} == set(before)
    assert all(fingerprint(row, "settings") != before[row["unit"]] for row in after)


def test_a_whole_pair_has_every_tile_once_in_the_order_of_their_paths(plan):
    pair = whole_pair(rows_of(read_plan(plan)))
    for side, date in (("before", "2015-06-01"), ("after", "2018-06-01")):
        names = [Path(tile[0]).name for tile in json.loads(pair[side])["tiles"]]
        assert names == [f"{date}_{col}.tif" for col in range(COUNT)]


def test_the_plan_begins_with_one_unit_of_every_pair(tmp_path):
    dates = ("2015-06-01", "2018-06-01", "2020-06-01")
    units = read_plan(_planned(_archive(tmp_path / "t", dates), tmp_path))
    assert units["pair"].nunique() == 2
    assert units["pair"].iloc[:2].is_unique
    assert units["unit"].is_unique


def _one_unit(row, folder, settings):
    def measure(before, after, output, *, config, made_by):
        with (Path(folder) / "log").open("a") as log:
            log.write("measured\n")
        time.sleep(0.5)
        Path(output).write_text("{}")

    sys.modules["geocd.pipeline"] = SimpleNamespace(detect=CHEAP.detect, measure=measure)
    do_unit(Job(row, fingerprint(row, settings), folder, DetectConfig()))


def test_whoever_comes_second_waits_for_the_measuring_instead_of_doing_it_again(plan, tmp_path):
    folder = tmp_path / "out"
    (folder / "units").mkdir(parents=True)
    (folder / "plan.parquet").write_bytes(plan.read_bytes())
    settings = settings_hash(DetectConfig())
    processes = [
        multiprocessing.get_context("fork").Process(
            target=_one_unit, args=(row, str(folder), settings)
        )
        for row in rows_of(read_plan(plan).drop(columns="geometry"))[:2]
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (folder / "log").read_text() == "measured\n"
    assert len(list(folder.glob("units/*.tif"))) == 2
