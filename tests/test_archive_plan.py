"""A plan compares what the rules say, covers the shared ground, and cuts it on a fixed grid."""

from __future__ import annotations

import json
from zlib import crc32

import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from PIL import Image
from rasterio.crs import CRS

from geocd.archive.index import index_archive
from geocd.archive.plan import plan_archive, read_plan
from geocd.archive.rules import PlanRules
from geocd.errors import ConfigError, InputError, OutputExistsError
from geocd.rasters.grid import Grid
from geocd.testing import write_raster
from geocd.testing.archives import DATES, paint_archive
from geocd_cli.main import main

UTM = CRS.from_epsg(32633)
PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def painted_index(painted, tmp_path_factory):
    return index_archive([painted.folder], tmp_path_factory.mktemp("index") / "a.parquet").output


def _tile(folder, date, *, col=0, row=0, size=400, gsd=0.5, **options):
    """A tile of 200 m; the place is told in tiles."""
    folder.mkdir(exist_ok=True)
    side = round(size * 0.5 / gsd)
    place = Affine(gsd, 0, 500_000 + size / 2 * col, 0, -gsd, 5_000_000 - size / 2 * row)
    # Other values on other dates, or the files would be copies.
    image = np.full((3, side, side), 1 + crc32(date.encode()) % 200, np.uint8)
    write_raster(folder / f"{date}_{row}_{col}.tif", image, crs=UTM, transform=place, **options)


def _plan(tmp_path, **rules):
    pattern = "YYYY-MM-DD" if next((tmp_path / "t").iterdir()).name[4] == "-" else "YYYY_"
    index = index_archive([tmp_path / "t"], tmp_path / "a.parquet", date_pattern=pattern)
    return plan_archive(index.output, tmp_path / "p.parquet", rules=PlanRules(**rules),
                        overwrite=True)  # fmt: skip


def _dates(result):
    return set(zip(result.units.before_date, result.units.after_date, strict=True))


FOUR = ("2010-06-01", "2012-06-01", "2015-01-10", "2018-06-01")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, {(0, 1), (1, 2), (2, 3)}),
        ({"pairs": "first-last"}, {(0, 3)}),
        ({"pairs": "all"}, {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}),
        ({"pairs": "baseline=2012"}, {(1, 2), (1, 3)}),
        ({"season": "05-01..09-30"}, {(0, 1), (1, 3)}),
        ({"season": "12-01..06-30", "pairs": "first-last"}, {(0, 3)}),
        ({"max_gap": 1000}, {(0, 1), (1, 2)}),
    ],
)
def test_the_rules_say_which_dates_are_compared(tmp_path, rules, expected):
    for date in FOUR:
        _tile(tmp_path / "t", date)
    assert _dates(_plan(tmp_path, **rules)) == {(FOUR[a], FOUR[b]) for a, b in expected}


def test_where_a_survey_has_a_gap_the_one_before_meets_the_one_after(tmp_path):
    for col in (0, 1):
        _tile(tmp_path / "t", "2010-06-01", col=col)
        _tile(tmp_path / "t", "2018-06-01", col=col)
    _tile(tmp_path / "t", "2014-06-01", col=0)
    units = _plan(tmp_path, unit_size=192).units.to_crs(UTM)
    around_the_gap = units[(units.before_date == "2010-06-01") & (units.after_date == "2018-06-01")]
    ground = shapely.union_all(around_the_gap.geometry.to_numpy())
    gap = shapely.box(500_200, 4_999_800, 500_400, 5_000_000)
    assert ground.intersection(gap).area == pytest.approx(gap.area, rel=1e-3)
    assert ground.area < 1.6 * gap.area


def test_files_of_another_resolution_can_be_left_out(tmp_path):
    for date, gsd in zip(FOUR, (0.5, 2.0, 0.5, 0.5), strict=True):
        _tile(tmp_path / "t", date, gsd=gsd)
    result = _plan(tmp_path, gsd=(0.3, 0.6))
    assert _dates(result) == {(FOUR[0], FOUR[2]), (FOUR[2], FOUR[3])}
    assert result.left_out == {"of another resolution": 1}


def test_tiles_of_a_month_or_a_year_can_be_one_date(tmp_path):
    for date, col in (("2010-06-01", 0), ("2010-06-09", 1), ("2015-06-01", 0), ("2015-07-01", 1)):
        _tile(tmp_path / "t", date, col=col)
    assert _dates(_plan(tmp_path, scene_by="year")) == {("2010", "2015")}
    assert _dates(_plan(tmp_path)) == {("2010-06-01", "2015-06-01"), ("2010-06-09", "2015-07-01")}


def test_too_little_shared_ground_is_no_pair(tmp_path):
    _tile(tmp_path / "t", "2010-06-01")
    _tile(tmp_path / "t", "2015-06-01", col=0.95)
    assert len(_plan(tmp_path, min_overlap=0.03).units) == 1
    with pytest.raises(InputError, match="no two dates"):
        _plan(tmp_path, min_overlap=0.1)


def test_without_dates_the_error_says_where_they_are_given(tmp_path):
    _tile(tmp_path / "t", "2010-06-01")
    _tile(tmp_path / "t", "2012-06-01")
    index = index_archive([tmp_path / "t"], tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no date; 2 files .* geocd archive index --date-pattern"):
        plan_archive(index.output, tmp_path / "p.parquet")


def test_a_year_is_not_before_a_day_in_it(tmp_path):
    _tile(tmp_path / "t", "2010_a")
    index = index_archive([tmp_path / "t"], tmp_path / "a.parquet", date_pattern="YYYY_")
    assert index.table["date"].tolist() == ["2010"]
    _tile(tmp_path / "t", "x", tags={"TIFFTAG_DATETIME": "2010:06:01 00:00:00"})
    index_archive([tmp_path / "t"], tmp_path / "a.parquet", date_pattern="YYYY_")
    with pytest.raises(InputError, match="2010, 2010-06-01"):
        plan_archive(tmp_path / "a.parquet", tmp_path / "p.parquet")


def test_units_cover_the_shared_ground_without_overlap(tmp_path):
    for date in FOUR[:2]:
        for row in (0, 1):
            for col in (0, 1):
                _tile(tmp_path / "t", date, row=row, col=col)
    units = _plan(tmp_path, unit_size=192).units
    cores = [Grid(UTM, Affine(*u.transform), u.height, u.width).footprint
             for u in units.itertuples()]  # fmt: skip
    whole = shapely.box(500_000, 4_999_600, 500_400, 5_000_000)
    assert shapely.union_all(cores).intersection(whole).area == pytest.approx(whole.area)
    assert sum(core.area for core in cores) == pytest.approx(shapely.union_all(cores).area)
    ground = units.to_crs(UTM).geometry.area.sum()
    assert ground == pytest.approx(whole.area, rel=1e-3)


def test_where_tiles_end_at_a_border_of_the_grid_rounding_makes_no_units(tmp_path):
    for date in FOUR[:2]:
        # A unit is 96 m wide; 499,968 and 4,999,968 are multiples of that.
        _tile(tmp_path / "t", date, size=192, col=(499_968 - 500_000) / 96, row=32 / 96)
    units = _plan(tmp_path, unit_size=192).units
    assert len(units) == 1
    assert (units["height"].item(), units["width"].item()) == (192, 192)


def test_windows_of_neighbouring_units_lie_on_one_lattice(painted_index, tmp_path):
    rules = PlanRules(unit_size=300, halo=50)
    units = plan_archive(painted_index, tmp_path / "p.parquet", rules=rules).units
    assert rules.side == 384
    for unit in units[units["crs"] == "EPSG:32633"].itertuples():
        left, top = unit.transform[2] / 0.5, -unit.transform[5] / 0.5
        assert (left % 192, top % 192) == (0, 0)
        # Then the windows of a unit are whole steps apart, without one that is squeezed in.
        for side in (unit.height, unit.width):
            assert (side + unit.margin_before + unit.margin_after - 256) % 192 == 0


def test_images_that_are_read_coarser_are_cut_by_the_pixels_that_are_read(tmp_path):
    for date in FOUR[:2]:
        _tile(tmp_path / "t", date, gsd=0.1)
    rules = PlanRules(unit_size=192)
    assert [rules.finer(gsd) for gsd in (0.1, 0.2501, 0.4998, 0.6, 5.0)] == [5, 2, 1, 1, 1]
    units = _plan(tmp_path, unit_size=192).units
    # 200 m are 2000 pixels, 400 of them as they are read, which is three units or less each way.
    assert 4 <= len(units) <= 9
    assert set(units["height"]) | set(units["width"]) <= {960}
    # A window of 256 of the pixels that are read, wherever it begins, lies within what is seen.
    assert (units[["margin_before", "margin_after"]] >= 5 * 256).all(axis=None)


def test_an_archive_that_grows_keeps_the_units_it_has(tmp_path):
    for date in FOUR[:2]:
        _tile(tmp_path / "t", date)
    before = set(_plan(tmp_path, unit_size=192).units["unit"])
    for date in FOUR[:2]:
        _tile(tmp_path / "t", date, col=-1)
    after = set(_plan(tmp_path, unit_size=192).units["unit"])
    assert before < after


def test_the_painted_archive_gives_the_pairs_of_its_dates(painted, painted_index, tmp_path):
    result = plan_archive(painted_index, tmp_path / "p.parquet", rules=PlanRules(unit_size=192),
                          picture=tmp_path / "p.png")  # fmt: skip
    assert {(DATES[0], DATES[1]), (DATES[1], DATES[2])} <= _dates(result)
    assert result.left_out == {"damaged": 1, "copies of others": 1, "without a date": 1}
    assert result.units["unit"].is_unique
    assert result.seconds > 0
    tiles = {tile[0] for side in result.units["before"] for tile in json.loads(side)["tiles"]}
    assert str(painted.damaged) not in tiles
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    assert (picture == (255, 106, 0)).all(axis=-1).sum() > 500


def test_a_plan_of_another_version_is_refused(painted_index, tmp_path):
    units = plan_archive(painted_index, tmp_path / "p.parquet").units
    assert len(read_plan(tmp_path / "p.parquet")) == len(units)
    units.assign(version=99).to_parquet(tmp_path / "old.parquet")
    for wrong in ("old.parquet", "missing.parquet"):
        with pytest.raises(InputError):
            read_plan(tmp_path / wrong)
    with pytest.raises(InputError, match="something else"):
        read_plan(painted_index)


def test_an_index_without_files_says_so(tmp_path):
    (tmp_path / "t").mkdir()
    index_archive([tmp_path / "t"], tmp_path / "a.parquet")
    with pytest.raises(InputError, match="there is no date"):
        plan_archive(tmp_path / "a.parquet", tmp_path / "p.parquet")


@pytest.mark.parametrize(
    "wrong",
    [{"pairs": "some"}, {"pairs": "baseline=now"}, {"season": "May"}, {"min_overlap": 0},
     {"unit_size": 0}, {"halo": -1}, {"max_gap": 0}, {"gsd": (2.0, 1.0)}, {"scene_by": "week"},
     {"seconds_per_megapixel": 0}],
    ids=str,
)  # fmt: skip
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(ConfigError):
        PlanRules(**wrong)


def test_the_command_tells_the_totals_and_replaces_nothing_unasked(painted_index, tmp_path):
    command = ["archive", "plan", str(painted_index), "-o", str(tmp_path / "p.parquet")]
    done = CliRunner().invoke(main, [*command, "--unit-size", "192", "--pairs", "all"])
    assert done.exit_code == 0, done.output
    assert f"{DATES[0]} to {DATES[2]}" in done.stdout
    assert CliRunner().invoke(main, command).exit_code == 1
    assert CliRunner().invoke(main, [*command, "--pairs", "odd", "--overwrite"]).exit_code == 2
    with pytest.raises(OutputExistsError):
        plan_archive(painted_index, tmp_path / "p.parquet")
