"""A whole plan becomes chips: ground keeps its split on all dates, and bad units are told of."""

from __future__ import annotations

import itertools
import json
import shutil
from functools import partial

import geopandas
import pytest
import shapely
from click.testing import CliRunner

from geocd.archive import chips as chips_module
from geocd.archive.chiplabels import ChipLabels
from geocd.archive.chips import tile_plan
from geocd.archive.index import index_archive
from geocd.archive.plan import plan_archive, read_plan
from geocd.archive.rules import ChipRules, PlanRules
from geocd.config import AlignConfig
from geocd.errors import InputError, OutputError
from geocd.testing.archives import paint_archive
from geocd.training.datasets import find_pairs
from geocd_cli.main import main

RULES = ChipRules(size=32, overlap=0, shares=(0.6, 0.2, 0.2), block=64)
OFF = AlignConfig(mode="off")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Three dates in two CRSs, their plan, and what changed, with dates."""
    folder = tmp_path_factory.mktemp("planned")
    painted = paint_archive(folder / "surveys")
    index_archive([folder / "surveys"], folder / "a.parquet")
    plan_archive(folder / "a.parquet", folder / "p.parquet", rules=PlanRules(unit_size=192))
    dates = read_plan(folder / "p.parquet")[["before_date", "after_date"]].drop_duplicates()
    rows = [
        {"before_date": before, "after_date": after, "geometry": block.polygon}
        for before, after in dates.itertuples(index=False)
        for block in painted.blocks
        if len({stands for date, stands in zip(("2015-05-20", "2018-06-11", "2021-05-30"),
                                               block.stands, strict=True)
                if date in (before, after)}) == 2
    ]  # fmt: skip
    layer = geopandas.GeoDataFrame(rows, crs="EPSG:32633")
    layer.to_file(folder / "dated.gpkg")
    return folder, painted


@pytest.fixture(scope="module")
def chips(planned, tmp_path_factory):
    folder, _ = planned
    output = tmp_path_factory.mktemp("chips") / "c"
    return tile_plan(folder / "p.parquet", output, labels=ChipLabels(folder / "dated.gpkg"),
                     rules=RULES, align=OFF)  # fmt: skip


def test_splits_share_no_ground_over_all_dates(chips):
    assert chips.index[["before_date", "after_date"]].drop_duplicates().shape[0] == 3
    ground = chips.index.to_crs(32633).dissolve("split").geometry
    assert set(ground.index) == {"train", "val", "test"}
    for a, b in itertools.combinations(ground, 2):
        assert shapely.intersection(a, b).area < 1e-2
    assert len(find_pairs(chips.output)) == len(chips.index)


def test_polygons_with_dates_count_for_these_dates(chips, planned):
    _, painted = planned
    for row in chips.index.to_crs(32633).itertuples():
        if row.known < 1:
            continue
        expected = sum(
            block.polygon.intersection(row.geometry).area
            for block in painted.blocks
            if block.stands[_number(row.before_date)] != block.stands[_number(row.after_date)]
        )
        assert row.share_change == pytest.approx(expected / row.geometry.area, abs=0.03)


def _number(date):
    return ("2015-05-20", "2018-06-11", "2021-05-30").index(date)


def test_a_unit_that_fails_is_told_of_and_nothing_is_called_whole(planned, tmp_path):
    folder, _ = planned
    plan = read_plan(folder / "p.parquet")[2:5].reset_index(drop=True)
    side = json.loads(plan.loc[0, "before"])
    tiles = [tile[0] for tile in side["tiles"]]
    side["tiles"] = [[str(tmp_path / f"{n}.tif"), *tile[1:]]
                     for n, tile in enumerate(side["tiles"])]  # fmt: skip
    plan.loc[0, "before"] = json.dumps(side)
    plan.to_parquet(tmp_path / "p.parquet", schema_version="1.1.0", write_covering_bbox=True)
    options = {"rules": ChipRules(size=48, overlap=0, shares=(1, 0, 0)), "align": OFF}
    with pytest.raises(InputError, match=r"1 unit failed: .*is not now.*--skip-failed"):
        tile_plan(tmp_path / "p.parquet", tmp_path / "c", **options)
    assert [p.name for p in (tmp_path / "c").iterdir()] == [".tiling"]
    less = tile_plan(tmp_path / "p.parquet", tmp_path / "less", skip_failed=True, **options)
    assert list(less.failed) == [plan.loc[0, "unit"]]
    assert set(less.index["pair"]) == set(plan["unit"][1:])
    assert len(list((less.output / "A").iterdir())) == len(less.index)
    for number, tile in enumerate(tiles):
        shutil.copy(tile, tmp_path / f"{number}.tif")
    mended = tile_plan(tmp_path / "p.parquet", tmp_path / "c", **options)
    assert set(mended.index["pair"]) == set(plan["unit"])
    assert not mended.failed


def test_a_killed_run_goes_on_with_the_units_that_are_missing(planned, tmp_path, monkeypatch):
    folder, _ = planned
    plan = tmp_path / "p.parquet"
    read_plan(folder / "p.parquet")[2:5].to_parquet(plan, schema_version="1.1.0",
                                                    write_covering_bbox=True)  # fmt: skip
    options = {"rules": ChipRules(size=48, overlap=0, shares=(1, 0, 0)), "align": OFF}
    tile_plan(plan, tmp_path / "whole", **options)
    write, written = chips_module.write_image, []

    def _killed(after, path, image, grid):
        write(path, image, grid)
        written.append(path.name)
        if len(written) == after:
            path.write_bytes(b"half a chip")
            raise KeyboardInterrupt

    for after in (2, 21):
        with monkeypatch.context() as patch:
            patch.setattr(chips_module, "write_image", partial(_killed, after))
            with pytest.raises(KeyboardInterrupt):
                tile_plan(plan, tmp_path / "c", **options)
    assert len(list((tmp_path / "c/.tiling/parts").iterdir())) == 1
    tile_plan(plan, tmp_path / "c", **options)
    whole, resumed = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.t[ix][ft]")}
        for n in ("whole", "c")
    )
    assert whole == resumed
    assert len(whole) > 20


def test_a_full_disk_stops_the_run_and_says_so(planned, tmp_path, monkeypatch):
    folder, _ = planned

    def _full(path, *_):
        raise OutputError(f"{path} was not written: No space left on device")

    monkeypatch.setattr(chips_module, "write_image", _full)
    with pytest.raises(OutputError, match="No space left"):
        tile_plan(folder / "p.parquet", tmp_path / "c", rules=RULES, align=OFF, skip_failed=True)
    assert not (tmp_path / "c/chips.parquet").exists()


def test_the_command_tiles_a_plan(planned, tmp_path):
    folder, _ = planned
    done = CliRunner().invoke(
        main, ["tile", "--plan", str(folder / "p.parquet"), "-o", str(tmp_path / "c"), "--size",
               "96", "--overlap", "0", "--align", "off", "--split", "1/0/0", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["splits"] == {"train": told["chips"]}
    assert told["alignments"] == {"off": len(read_plan(folder / "p.parquet"))}
