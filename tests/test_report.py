"""The report: one file, within its budget, that says what is known and lets itself be reviewed."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import tracemalloc
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from PIL import Image
from report_samples import (
    BOXES,
    NORTH_UP,
    SHAPE,
    UTM,
    change_frame,
    layers_of_the_run,
    paint_run,
    record,
)

from geocd.align import Motion
from geocd.align.measurement import motion_of
from geocd.config import ReportConfig
from geocd.errors import (
    ConfigError,
    CrsMismatchError,
    InputError,
    NoOverlapError,
    OutputExistsError,
    RasterOpenError,
)
from geocd.maps import write_changes
from geocd.rasters.grid import Grid
from geocd.rasters.pair import open_pair
from geocd.report import write_report
from geocd.report.beside import layers_beside
from geocd.report.images import (
    Overview,
    Picture,
    draw_overview,
    encode_overview,
    thumbnails,
)
from geocd.report.layer import read_changes
from geocd.report.observed import observed_in_map
from geocd.report.page import packed
from geocd.report.shapes import encode_rings, polygons_in_pixels, windows_around
from geocd.testing import paint_scene, write_raster
from geocd_cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return paint_run(tmp_path_factory.mktemp("run"))


def _report(run, folder, **options):
    options.setdefault("mask", run.mask)
    return write_report(run.changes, **run.images, output=folder / "report.html", **options)


def _carried(page: str, name: str) -> dict:
    text = re.search(rf'id="{name}">([^<]*)</script>', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(text)))


def _pictures(page: str) -> list[np.ndarray]:
    """The overviews, before and after, (height, width, 3)."""
    facts = _carried(page, "facts")
    content = base64.b64decode(re.search(r'id="images">([^<]*)</script>', page)[1])
    first, second = facts["overview"]["bytes"]
    parts = content[:first], content[first : first + second]
    return [np.asarray(Image.open(io.BytesIO(part)).convert("RGB")).astype(int) for part in parts]


def test_a_report_is_one_file_that_names_no_other(run, tmp_path):
    result = _report(run, tmp_path)
    page = result.output.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert result.size == result.output.stat().st_size < 20e6
    markup = page.partition("<script>")[0]
    addresses = re.findall(r'(?:src|href)="([^"]*)"', markup)
    assert addresses
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert "url(images" not in page
    assert "sourceMappingURL" not in page
    assert "default-src 'none'" in page
    assert "Redistribution and use in source and binary forms" in page


def test_the_table_holds_every_change_largest_first(run, tmp_path):
    table = _carried(_report(run, tmp_path).output.read_text(), "table")
    assert table["id"] == ["c0", "c1", "c2", "c3"]
    assert table["area"] == [750, 540, 187.5, 36]
    assert table["score"] == [0.9, 0.55, 0.8, 0.7]
    assert [table["kinds"][k]["name"] for k in table["kind"]] == [kind for *_, kind in BOXES]
    assert [x * table["quantum"] for x in table["bounds"]["left"]] == [40, 120, 200, 250]
    assert [y * table["quantum"] for y in table["bounds"]["bottom"]] == [90, 200, 175, 52]
    lon, lat = table["points"][0]
    assert (lon, lat) == pytest.approx((15.0, 45.15), abs=0.01)


def test_totals_and_observed_area_are_told(run, tmp_path):
    page = _report(run, tmp_path).output.read_text()
    assert "1,514 m²" in page  # all changes
    assert "938 m²" in page  # the two buildings
    assert "93.8% of before" in page  # 300 of 320 columns
    assert "1.80 ha" in page  # 300 x 240 pixels of 0.25 m2
    assert "0.2 px" in page
    assert "2019-06-14" in page


def test_after_is_drawn_where_the_run_found_it_to_belong(run, tmp_path):
    before, after = _pictures(_report(run, tmp_path).output.read_text())
    quiet = np.s_[100:140, 150:280]
    shifted = np.abs(before[quiet] - np.roll(after, -4, axis=1)[quiet]).mean()
    assert np.abs(before[quiet] - after[quiet]).mean() < 6 < shifted
    assert after[45:85, 45:95].mean() > 240


def test_a_motion_with_a_field_is_read_as_it_was_written():
    field = np.random.default_rng(0).normal(size=(5, 6, 2)).astype(np.float32).round(2)
    motion = Motion(Affine.translation(3, -2), field, Affine.scale(0.1))
    read = motion_of(json.loads(json.dumps(motion.to_dict())))
    points = np.array([[3.0, 4.0], [30.0, 20.0]])
    assert read(points) == pytest.approx(motion(points), abs=1e-3)
    for nonsense in (None, [], {"affine": [0] * 6}, {"affine": [1, 0, 0, 0, 1, 0], "field": {}}):
        assert motion_of(nonsense) is None


def test_detect_writes_the_report_too(run, tmp_path):
    images = [str(run.before), str(run.after)]
    page, changes = tmp_path / "r.html", str(tmp_path / "c.gpkg")
    done = CliRunner().invoke(main, ["detect", *images, "-o", changes, "--report", str(page), "-q"])
    assert done.exit_code == 0, done.output
    assert "geocd-vhr" in page.read_text()
    refused = CliRunner().invoke(main, ["detect", *images, "-o", f"{changes}.gpkg",
                                        "--report", str(page)])  # fmt: skip
    assert refused.exit_code == 1
    assert "exists" in refused.stderr


def test_text_of_users_is_never_markup(run, tmp_path):
    named = tmp_path / "<script>alert(1)<'\"&.gpkg".replace("/", "")
    named.write_bytes(run.changes.read_bytes())
    page = write_report(named, **run.images, output=tmp_path / "r.html").output.read_text()
    assert "<script>window" not in page
    assert "<script>alert" not in page
    assert page.count("<script") == 4
    assert "&lt;script&gt;window.hacked=1&lt;/script&gt;" in page


def test_an_empty_result_says_so(tmp_path):
    run = paint_run(tmp_path, frame=change_frame((), ()))
    result = _report(run, tmp_path)
    page = result.output.read_text()
    assert result.changes == 0
    assert "No change was found" in page
    assert _carried(page, "table")["count"] == 0


def test_without_a_crs_everything_is_in_pixels(tmp_path):
    run = paint_run(tmp_path, georeferenced=False)
    page = _report(run, tmp_path).output.read_text()
    table, facts = _carried(page, "table"), _carried(page, "facts")
    assert table["unit"] == "px"
    assert table["points"] is None
    assert facts["metre"] is None
    assert [y * table["quantum"] for y in table["bounds"]["top"]] == [40, 20, 150, 40]
    assert "320 x 240 pixels without a CRS" in page
    assert "6,054 px" in page


def test_polygons_in_another_crs_land_on_the_same_pixels(run, tmp_path):
    other = tmp_path / "changes.geojson"
    write_changes(change_frame(), other, provenance={})
    page = write_report(other, **run.images, output=tmp_path / "r.html").output.read_text()
    table = _carried(page, "table")
    assert np.array(table["bounds"]["left"]) * table["quantum"] == pytest.approx(
        [40, 120, 200, 250], abs=0.5
    )
    assert "does not say how it was made" in page


def test_columns_that_are_missing_are_done_without(run, tmp_path):
    frame = change_frame()[["id", "kind", "score_mean", "geometry"]]
    frame.loc[0, "score_mean"] = np.nan
    other = tmp_path / "few.gpkg"
    write_changes(frame, other, provenance={})
    page = write_report(other, **run.images, output=tmp_path / "r.html").output.read_text()
    table = _carried(page, "table")
    assert table["count"] == 4
    assert None in table["score"]


def test_verdicts_in_the_file_are_carried_on(run, tmp_path):
    frame = change_frame()
    frame["verdict"] = ["accepted", None, "nonsense", "unsure"]
    frame["verdict_note"] = ["sure", None, None, None]
    other = tmp_path / "judged.gpkg"
    write_changes(frame, other, provenance=record())
    page = write_report(other, **run.images, output=tmp_path / "r.html").output.read_text()
    assert _carried(page, "table")["verdicts"] == [[0, "accepted", "sure"], [3, "unsure", ""]]


def _beside(page: str) -> dict[str, list[list[list[float]]]]:
    """The lines that a page carries beside its changes, in pixels."""
    facts = _carried(page, "facts")
    return {
        name: [np.cumsum(np.reshape(line, (-1, 2)), axis=0) * facts["quantum"] for line in lines]
        for name, lines in facts["beside"].items()
    }


def test_centrelines_gaps_and_the_footprint_lie_where_they_are(tmp_path):
    run = paint_run(tmp_path, layers=layers_of_the_run())
    page = _report(run, tmp_path).output.read_text()
    found = _beside(page)
    assert found["centrelines"][0].tolist() == [[20, 112], [180, 112]]
    (gap,), (frame,) = found["not_observed"], found["footprint"]
    assert [gap[:, 0].min(), gap[:, 0].max()] == [300, SHAPE[1]]
    assert [*frame.min(axis=0), *frame.max(axis=0)] == [0, 0, *SHAPE[::-1]]
    for name in ("road centrelines", "not observed", "footprint"):
        assert f"</svg>{name}</label>" in page


def test_a_file_without_these_layers_has_no_switches_for_them(run, tmp_path):
    page = _report(run, tmp_path).output.read_text()
    assert _beside(page) == {}
    assert 'name="layer" value="centrelines"' not in page
    assert 'name="layer" value="not_observed"' in page  # the change map tells that


def test_a_layer_that_does_not_fit_is_thinned_and_then_left_out(tmp_path):
    rng = np.random.default_rng(0)
    walk = np.column_stack([np.linspace(0, SHAPE[1], 4000), 100 + rng.normal(0, 1.5, 4000)])
    layers = layers_of_the_run()
    layers["centrelines"].geometry = [
        shapely.transform(shapely.LineString(walk), lambda xy: np.column_stack(NORTH_UP @ xy.T))
    ]
    layer = read_changes(paint_run(tmp_path, layers=layers).changes)
    grid = Grid(UTM, NORTH_UP, *SHAPE)
    lengths = []
    for most in (100, 1000, 10_000):
        found = layers_beside(layer, grid, most=most)
        assert len(packed(found)) <= most
        assert "footprint" in found
        lengths.append(sum(len(line) for line in found.get("centrelines", [])))
    assert lengths[0] == 0 < lengths[1] < lengths[2]


@pytest.mark.parametrize("max_mb", [0.3, 0.5, 2])
def test_a_report_keeps_to_its_budget(run, tmp_path, max_mb):
    result = _report(run, tmp_path, config=ReportConfig(max_mb=max_mb))
    assert result.size <= max_mb * 1e6


def test_a_budget_that_is_too_small_names_one_that_is_not(run, tmp_path):
    with pytest.raises(ConfigError, match=r"does not fit into 0.05 MB; it needs 0.3 at least"):
        _report(run, tmp_path, config=ReportConfig(max_mb=0.05))
    assert not list(tmp_path.iterdir())


def test_many_changes_fit_with_thinner_outlines_and_then_with_boxes(run, tmp_path):
    rng = np.random.default_rng(0)
    centres = np.column_stack([rng.uniform(500_005, 500_145, 1500),
                               rng.uniform(4_999_890, 4_999_995, 1500)])  # fmt: skip
    frame = geopandas.GeoDataFrame(
        {"id": range(1500), "kind": "building", "score_mean": 0.5},
        geometry=[shapely.MultiPolygon([shapely.Point(*c).buffer(3, 32)]) for c in centres],
        crs=UTM.to_wkt(),
    )
    many = tmp_path / "many.gpkg"
    write_changes(frame, many, provenance={})
    sizes = {}
    for max_mb in (0.32, 3):
        config = ReportConfig(max_mb=max_mb)
        result = write_report(many, **run.images, output=tmp_path / f"{max_mb}.html", config=config)
        table = _carried(result.output.read_text(), "table")
        assert result.size <= max_mb * 1e6
        sizes[max_mb] = 0 if table["rings"] is None else sum(len(r[0]) for r in table["rings"])
    assert sizes[0.32] < sizes[3]


def test_of_very_many_changes_the_largest_are_shown_and_the_number_is_told(run, tmp_path):
    result = _report(run, tmp_path, config=ReportConfig(max_changes=2))
    page = result.output.read_text()
    assert (result.changes, result.shown) == (4, 2)
    assert _carried(page, "table")["id"] == ["c0", "c1"]
    assert "the 2 largest of 4 changes" in page
    assert "1,514 m²" in page  # the totals count all


def test_a_coarse_overview_comes_with_sharper_pictures_of_the_largest(run, tmp_path):
    config = ReportConfig(overview_size=256, max_thumbnails=2)
    result = _report(run, tmp_path, config=config)
    lengths = _carried(result.output.read_text(), "facts")["sharp"]
    assert result.thumbnails == sum(first > 0 for first, _ in lengths) > 0
    assert len(lengths) == 2


def test_a_thumbnail_shows_its_window_even_over_the_edge(run):
    pair = open_pair(run.before, run.after, channels=3)
    (picture,) = thumbnails(pair, [(-32, -32, 64)], pixel=8)
    shown = np.asarray(Image.open(io.BytesIO(picture.before)).convert("RGBA"))
    assert shown.shape == (64, 64, 4)
    assert not shown[:31, :, 3].any()
    assert (shown[33:, 33:, 3] == 255).all()


def test_an_overview_is_the_mean_of_what_was_observed(tmp_path):
    image = np.full((3, 400, 600), 100, np.uint8)
    image[:, :, 300:] = 200
    image[:, :200] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0, crs=UTM, transform=NORTH_UP)
    pair = open_pair(path, path, channels=3)
    overview = draw_overview(pair, longest=60, progress=lambda done, total: None)
    assert overview.seen.shape == (40, 60)
    assert not overview.seen[:20].any()
    assert overview.seen[21:].all()
    assert (overview.before.colours[21:, :29] == 100).all()
    assert (overview.before.colours[21:, 31:] == 200).all()
    assert overview.extent == (400, 600)


def test_pictures_shrink_until_they_fit():
    noise = paint_scene((512, 512), seed=1)
    picture = Picture(np.ascontiguousarray(np.moveaxis(noise, 0, -1)), np.ones((512, 512), bool))
    overview = Overview(picture, picture, 1.0)
    large, small = encode_overview(overview, 10**7), encode_overview(overview, 40_000)
    assert len(small) <= 40_000 < len(large)
    assert (large.width, small.width <= 512) == (512, True)
    assert encode_overview(overview, 0).width == 256


def test_memory_follows_the_page_and_not_the_raster(tmp_path):
    height, width = 3000, 2500
    path = write_raster(tmp_path / "a.tif", np.zeros((3, height, width), np.uint8) + 7,
                        crs=UTM, transform=NORTH_UP)  # fmt: skip
    pair = open_pair(path, path, channels=3)
    tracemalloc.start()
    overview = draw_overview(pair, longest=150, progress=lambda done, total: None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert overview.seen.shape == (150, 125)
    assert peak < 0.8 * 3 * height * width


def test_observed_ground_is_counted_in_strips(tmp_path):
    codes = np.zeros((500, 300), np.uint8)
    codes[:125] = 255
    grid = Grid(UTM, NORTH_UP, 500, 300)
    path = write_raster(tmp_path / "m.tif", codes, grid=grid)
    observed = observed_in_map(path, grid, grid)
    assert observed.share == 0.75
    assert observed.area == pytest.approx(0.75 * 500 * 300 / 4, rel=2e-3)
    assert observed.unseen.sum() == 125 * 300


def test_outlines_come_back_from_their_numbers():
    ring = [(10, 10), (20.5, 10), (20.5, 30.25), (10, 30.25)]
    hole = [(12, 12), (14, 12), (14, 14), (12, 14)]
    polygons = np.array([shapely.Polygon(ring, [hole]), shapely.box(-3, 0, 1, 2)], dtype=object)
    rings = encode_rings(polygons, 0.1)
    assert [len(of_one) for of_one in rings] == [2, 1]
    points = np.cumsum(np.reshape(rings[0][0], (-1, 2)), axis=0) * 0.25
    assert {tuple(p) for p in points.tolist()} == set(ring)


def test_windows_hold_the_change_and_its_surroundings():
    windows = windows_around(np.array([shapely.box(100, 100, 200, 140)], dtype=object))
    assert windows == [(60, 30, 180)]


def test_a_crs_on_one_side_only_is_refused(run, tmp_path):
    frame = change_frame(crs=None, transform=Affine.scale(1, -1))
    with pytest.raises(CrsMismatchError, match="the images have a CRS and the polygons have none"):
        polygons_in_pixels(frame, Grid(UTM, NORTH_UP, 10, 10))


def _broken(run, tmp_path, what):
    images, changes, options = dict(run.images), run.changes, {}
    if what == "no changes":
        changes = tmp_path / "no.gpkg"
    elif what == "another file":
        changes = run.before
    elif what == "another layer":
        changes = tmp_path / "x.geojson"
        change_frame()[["geometry"]].to_crs(4326).to_file(changes)
    elif what == "twice the same id":
        changes = tmp_path / "twice.gpkg"
        frame = change_frame()
        frame["id"] = "same"
        write_changes(frame, changes, provenance={})
    elif what == "no image":
        images["after"] = tmp_path / "no.tif"
    elif what == "elsewhere":
        away = Affine.translation(9_000, 0) @ NORTH_UP
        images["after"] = write_raster(tmp_path / "f.tif", np.ones((3, 50, 50), np.uint8), crs=UTM,
                                       transform=away)  # fmt: skip
    elif what == "another mask":
        options["mask"] = write_raster(tmp_path / "m.tif", np.ones((9, 9), np.uint8), crs=UTM,
                                       transform=NORTH_UP)  # fmt: skip
    elif what == "no mask":
        options["mask"] = run.before
    return changes, images, options


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("no changes", InputError, "there is no file"),
        ("another file", InputError, "cannot read .* as change polygons"),
        ("another layer", InputError, "has no id and no kind"),
        ("twice the same id", InputError, "there twice"),
        ("no image", RasterOpenError, "no such file"),
        ("elsewhere", NoOverlapError, "share no ground"),
        ("another mask", InputError, "give the mask of the same run"),
        ("no mask", InputError, "it is no change map"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(run, tmp_path, what, error, message):
    changes, images, options = _broken(run, tmp_path, what)
    with pytest.raises(error, match=message):
        write_report(changes, **images, output=tmp_path / "r.html", **options)
    assert not (tmp_path / "r.html").exists()


def test_an_existing_report_and_inputs_are_not_replaced(run, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(OutputExistsError):
        _report(run, tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"written as \.html"):
        write_report(run.changes, **run.images, output=tmp_path / "report.pdf")


@pytest.mark.parametrize("setting", [{"max_mb": 0}, {"max_changes": 0}, {"overview_size": 10}])
def test_impossible_settings_fail_when_they_are_made(setting):
    with pytest.raises(ConfigError):
        ReportConfig(**setting)


def test_the_same_input_gives_the_same_page(run, tmp_path):
    first = _report(run, tmp_path).output.read_bytes()
    assert _report(run, tmp_path, overwrite=True).output.read_bytes() == first


def test_the_command_says_how_large_the_page_is(run, tmp_path):
    images = [part for name, path in run.images.items() for part in (f"--{name}", str(path))]
    target = str(tmp_path / "r.html")
    done = CliRunner().invoke(main, ["report", str(run.changes), *images, "-o", target])
    assert done.exit_code == 0, done.output
    assert re.search(r"4 changes, \d\.\d MB -> ", done.stdout)
    small = CliRunner().invoke(
        main, ["report", str(run.changes), *images, "-o", target, "--overwrite", "--max-mb", "0.01"]
    )
    assert small.exit_code == 2
    assert "try --max-mb" in small.stderr


@pytest.mark.data
def test_joplin_fits_into_its_budget(data, tmp_path):
    frame = geopandas.GeoDataFrame(
        {"id": [1], "kind": ["building"], "score_mean": [0.5]},
        geometry=[shapely.MultiPolygon([shapely.box(366700, 4103500, 366740, 4103540)])], crs=26915,
    )  # fmt: skip
    write_changes(frame, tmp_path / "j.gpkg", provenance={})
    result = write_report(
        tmp_path / "j.gpkg", before=data / "joplin" / "pre", after=data / "joplin" / "post",
        output=tmp_path / "j.html", config=ReportConfig(max_mb=0.8, overview_size=1024),
    )  # fmt: skip
    assert result.size <= 800_000
    before, after = _pictures(Path(result.output).read_text())
    assert min(before.std(), after.std()) > 20
