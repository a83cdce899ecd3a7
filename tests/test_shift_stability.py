"""Changes that registration may explain are flagged; ground that contradicts it can be left out."""

from __future__ import annotations

import dataclasses
import itertools
import json
from types import SimpleNamespace

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from arithmetic import Arithmetic, open_arithmetic
from click.testing import CliRunner
from rasterio.crs import CRS
from rasterio.features import rasterize

import geocd
from geocd.align import Alignment, Motion, Residuals, TiePoints
from geocd.align.alignment import unaligned
from geocd.align.coverage import contradicted_ground
from geocd.config import AlignConfig, DetectConfig, TilingConfig, VectorizeConfig
from geocd.errors import ConfigError, NothingObservedError
from geocd.models.files import find_weights, read_card
from geocd.rasters.pair import PairWindow
from geocd.testing import paint_scene, write_raster
from geocd.vectorize.stability import LEAST_WINDOWS, SHIFTS, STEADY, shift_stability, steadiness
from geocd_cli.main import main

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
CHECKED = DetectConfig(align=AlignConfig(mode="off"), vectorize=VectorizeConfig(min_area=0))
CARD = read_card(find_weights("geocd-vhr"))


@pytest.fixture
def arithmetic(monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", open_arithmetic)


def _built_and_ghosts():
    """A new roof, and light lines that the later image shows one pixel farther right."""
    before = np.full((3, 200, 300), 100, np.uint8)
    before[:, 20:180, 150:280:10] = 200
    after = np.roll(before, 1, axis=2)
    after[:, 60:100, 40:90] = 250
    return before, after


def _files(folder, before, after):
    return tuple(
        write_raster(folder / f"{name}.tif", image, crs=UTM, transform=NORTH_UP)
        for name, image in (("before", before), ("after", after))
    )


def _detect(folder, images, config=CHECKED, **options):
    paths = _files(folder, *images)
    return geocd.detect(*paths, folder / "c.gpkg", config=config, overwrite=True, **options)


# Does a change survive a pixel


@pytest.mark.usefixtures("arithmetic")
def test_a_roof_survives_a_pixel_and_a_ghost_of_misregistration_does_not(tmp_path):
    result = _detect(tmp_path, _built_and_ghosts())
    roof = result.changes["area_px"] == 40 * 50
    assert roof.sum() == 1
    assert result.changes["shift_stable"][roof].all()
    assert not result.changes["shift_stable"][~roof].any()
    # The ghosts are 13 lines that appeared and 13 that went.
    assert result.shift_unstable == (~roof).sum() == 26
    assert result.to_dict()["shift_unstable"] == 26
    assert "26 of them do not survive" in result.report()
    assert result.shift_unchecked == result.to_dict()["shift_unchecked"] == 0
    assert "not moved by a pixel" not in result.report()


@pytest.mark.usefixtures("arithmetic")
def test_by_default_a_house_is_stable_and_a_sliver_of_displacement_is_not(tmp_path):
    before = np.full((3, 200, 300), 100, np.uint8)
    before[:, 40:140, 150:200] = 200
    after = np.roll(before, 1, axis=2)  # a strip beside the old house, a metre and more wide
    after[:, 60:90, 40:66] = 250  # a house of 13 m by 15 m
    result = _detect(tmp_path, (before, after), DetectConfig(align=AlignConfig(mode="off")))
    found = result.changes.set_index("area_px")["shift_stable"]
    assert found[26 * 30]
    assert not found[100].any()


@pytest.mark.usefixtures("arithmetic")
def test_what_the_budget_does_not_reach_is_null_and_told(tmp_path):
    before = np.full((3, 120, 2300), 100, np.uint8)
    after = before.copy()
    after[:, 20:100, 30::190] = 250  # a line in each window, and hardly any work allowed
    config = dataclasses.replace(CHECKED, shift_budget=0.0)
    result = _detect(tmp_path, (before, after), config)
    unchecked = int(result.changes["shift_stable"].isna().sum())
    assert 0 < unchecked < result.count
    assert result.shift_unstable == result.count - unchecked
    assert result.shift_unchecked == result.to_dict()["shift_unchecked"] == unchecked
    assert f"{unchecked} of them were not moved by a pixel" in result.report()
    everything = _detect(tmp_path, (before, after), dataclasses.replace(CHECKED, shift_budget=4.0))
    assert everything.shift_unstable == everything.count
    assert everything.shift_unchecked == 0


@pytest.mark.usefixtures("arithmetic")
def test_the_check_asks_without_a_first_look(tmp_path, monkeypatch):
    asked = []

    def _stability(outlines, *args, predictor, **options):
        asked.append(predictor)
        return pd.array([True] * len(outlines), dtype="boolean")

    monkeypatch.setattr("geocd.pipeline.FirstLook", _Looked)
    monkeypatch.setattr("geocd.vectorize.registration.FirstLook", _Looked)
    monkeypatch.setattr("geocd.vectorize.registration.shift_stability", _stability)
    result = _detect(tmp_path, _built_and_ghosts())
    assert result.backend == "looked"
    assert [type(predictor) for predictor in asked] == [Arithmetic]


class _Looked:
    """Everything that a first look sees is run in full."""

    description = "looked"

    def __init__(self, predictor, look):
        self.card, self.in_full = predictor.card, predictor

    def __call__(self, before, after):
        return self.in_full(before, after)


@pytest.mark.usefixtures("arithmetic")
def test_flagging_changes_nothing_else(tmp_path):
    images = _built_and_ghosts()
    flagged = _detect(tmp_path, images).changes
    plain = _detect(tmp_path, images, dataclasses.replace(CHECKED, shift_check=False)).changes
    assert plain["shift_stable"].isna().all()
    pd.testing.assert_frame_equal(
        flagged.drop(columns="shift_stable"), plain.drop(columns="shift_stable")
    )


@pytest.mark.usefixtures("arithmetic")
def test_what_was_not_checked_is_not_counted(tmp_path):
    result = _detect(tmp_path, _built_and_ghosts(), dataclasses.replace(CHECKED, shift_check=False))
    assert result.shift_unstable is None
    assert result.shift_unchecked is None
    assert "survive" not in result.report()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
@pytest.mark.usefixtures("arithmetic")
def test_flags_are_written_as_booleans_in_every_format(tmp_path, suffix):
    paths, path = _files(tmp_path, *_built_and_ghosts()), tmp_path / f"c{suffix}"
    result = geocd.detect(*paths, path, config=CHECKED)
    read = geopandas.read_parquet if suffix == ".parquet" else geopandas.read_file
    back = read(path)
    assert dict(zip(back["id"], back["shift_stable"].astype(bool), strict=True)) == dict(
        zip(result.changes["id"], result.changes["shift_stable"].astype(bool), strict=True)
    )
    assert "misregistration_px" in back.columns


@pytest.mark.usefixtures("arithmetic")
def test_no_change_is_checked_without_asking(tmp_path):
    before, _ = _built_and_ghosts()
    last: dict[str, tuple[int, int]] = {}
    result = _detect(tmp_path, (before, before),
                     progress=lambda stage, *steps: last.update({stage: steps}))  # fmt: skip
    assert result.count == 0
    assert "check" not in last
    assert {"misregistration_px", "shift_stable"} <= set(result.changes.columns)


class _Images:
    """Both dates in memory, and how much of them was read."""

    def __init__(self, before, after, valid=None):
        self.before, self.after = before, after
        self.valid = np.ones(before.shape[1:], bool) if valid is None else valid
        self.largest = 0

    def read(self, rows, cols):
        self.largest = max(self.largest, rows.stop - rows.start, cols.stop - cols.start)
        assert rows.start >= 0
        assert cols.start >= 0
        valid = self.valid[rows, cols]
        return PairWindow(self.before[:, rows, cols], self.after[:, rows, cols], valid, valid)

    def stability(self, outlines, classes, tiling=None, scores=0.5, budget=4.0, **options):
        """Flags, and calls of the predictor; by default every polygon is barely a change."""
        predictor = Arithmetic(SimpleNamespace(card=CARD))
        found = shift_stability(
            np.array(outlines, dtype=object), classes, np.broadcast_to(scores, len(outlines)),
            read=self.read, predictor=predictor, thresholds=(0.5, 0.5), budget=budget,
            shape=self.before.shape[1:], tiling=tiling or TilingConfig(tile_size=64, overlap=16),
            **options,
        )  # fmt: skip
        return found, predictor.calls


def _whole(images, outlines, classes):
    """The same by brute force, on whole images."""
    predictor = Arithmetic(SimpleNamespace(card=CARD))
    stable = []
    for outline, band in zip(outlines, classes, strict=True):
        inside = rasterize([outline], out_shape=images.valid.shape).astype(bool) & images.valid
        shares = []
        for down, right in SHIFTS:
            wide = np.pad(images.after, ((0, 0), (1, 1), (1, 1)), mode="edge")
            moved = np.roll(wide, (down, right), axis=(1, 2))[:, 1:-1, 1:-1]
            shares.append((predictor(images.before[None], moved[None])[0, band] > 0)[inside].mean())
        stable.append(min(shares) >= 0.5)
    return stable


@pytest.mark.parametrize("shape", [(90, 131), (20, 31)])
@pytest.mark.parametrize("tile", [(64, 16), (32, 0), (48, 30)])
def test_windows_give_what_the_whole_image_gives(shape, tile):
    rng = np.random.default_rng(0)
    before = rng.integers(60, 130, (3, *shape)).astype(np.uint8)
    after = before.copy()
    after[:, :, : shape[1] // 2] = 240
    after[:, ::3, shape[1] // 2 :] = 0
    outlines, classes = [], []
    # The first spans everything, the others lie anywhere, over edges and corners too.
    boxes = [(0, 0, shape[1], shape[0])] + [
        (x, y, x + w, y + h)
        for x, y, w, h in zip(rng.integers(0, shape[1] - 4, 12), rng.integers(0, shape[0] - 4, 12),
                              rng.integers(2, 40, 12), rng.integers(2, 40, 12), strict=True)
    ]  # fmt: skip
    for box in boxes:
        outlines.append(shapely.box(*box).intersection(shapely.box(0, 0, shape[1], shape[0])))
        classes.append(len(classes) % 2)
    images = _Images(before, after)
    tiling = TilingConfig(tile_size=tile[0], overlap=tile[1])
    # One at a time: of polygons that overlap only one can own a pixel.
    found = [
        images.stability([o], [c], tiling)[0][0] for o, c in zip(outlines, classes, strict=True)
    ]
    assert found == _whole(images, outlines, classes)
    assert 0 < sum(found) < len(found)


def test_only_windows_with_polygons_are_read():
    images = _Images(*(np.full((3, 1000, 2000), value, np.uint8) for value in (100, 200)))
    found, calls = images.stability([shapely.box(500, 500, 520, 510)], [0])
    assert list(found) == [True]
    assert calls <= 2
    assert images.largest <= 64 + 2


def test_a_polygon_that_goes_round_a_window_does_not_make_it_run():
    images = _Images(*(np.full((3, 400, 400), value, np.uint8) for value in (100, 200)))
    ring = shapely.box(10, 10, 390, 390).difference(shapely.box(20, 20, 380, 380))
    _, everywhere = images.stability([shapely.box(0, 0, 400, 400)], [0])
    _, around = images.stability([ring], [0])
    assert around < 0.6 * everywhere


def test_half_of_the_pixels_must_pass_in_every_direction():
    before = np.full((3, 64, 64), 100, np.uint8)
    after = before.copy()
    after[:, 10:20, 30:32] = 250  # two columns: half remains when it moves sideways
    after[:, 40:50, 30] = 250  # one column: nothing remains
    images = _Images(before, after)
    found, _ = images.stability([shapely.box(30, 10, 32, 20), shapely.box(30, 40, 31, 50)], [0, 0])
    assert list(found) == [True, False]


def test_pixels_that_were_not_observed_do_not_count():
    before, after = (np.full((3, 64, 64), 100, np.uint8) for _ in range(2))
    after[:, 10:30, 10:30] = 250
    valid = np.ones((64, 64), bool)
    valid[10:30, 30:60] = False
    images = _Images(before, after, valid)
    # Two thirds of the first lie on ground that nobody saw, all of the second.
    found, _ = images.stability([shapely.box(10, 10, 60, 12), shapely.box(32, 12, 50, 28)], [0, 0])
    assert found[0]
    assert found[1] is pd.NA


def test_a_polygon_without_the_centre_of_a_pixel_is_not_judged():
    images = _Images(*(np.full((3, 64, 64), value, np.uint8) for value in (100, 200)))
    found, _ = images.stability([shapely.box(10.6, 10.6, 11.4, 11.4)], [0])
    assert found[0] is pd.NA


def test_the_check_counts_its_windows_to_the_end():
    images = _Images(*(np.full((3, 200, 200), value, np.uint8) for value in (100, 200)))
    steps: list[tuple[int, int]] = []
    images.stability([shapely.box(0, 0, 200, 200)], [0], progress=lambda *s: steps.append(s))
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1] == (len(steps), len(steps))


def test_steadiness_is_width_times_sureness():
    square, strip = shapely.box(0, 0, 20, 20), shapely.box(0, 0, 1000, 4)
    outlines = np.array([square, square, strip, strip], dtype=object)
    found = steadiness(outlines, np.array([1, 0.75, 1, 0.4]), np.array([0.5, 0.5, 0.5, 0.5]))
    assert found == pytest.approx([10, 5, 4, -0.8], rel=0.01)


def test_wide_and_sure_polygons_are_stable_without_asking():
    # Nothing is bright here: asked, the network would find neither.
    images = _Images(*(np.full((3, 200, 200), 100, np.uint8) for _ in range(2)))
    side = 2 * STEADY
    wide, narrow = (shapely.box(10, 10, 10 + 2 * side, 10 + s) for s in (2 * side, 0.5 * side))
    found, calls = images.stability([wide], [0], scores=0.95)
    assert (list(found), calls) == ([True], 0)
    found, calls = images.stability([narrow], [0], scores=0.95)
    assert (list(found), calls > 0) == ([False], True)
    found, calls = images.stability([wide], [0], scores=0.52)
    assert (list(found), calls > 0) == ([False], True)


def _rows_of_slivers(count):
    """As many windows with a line each, thinner from left to right."""
    images = _Images(*(np.full((3, 64, 64 * count), 100, np.uint8) for _ in range(2)))
    slivers = [shapely.box(64 * i + 20, 10, 64 * i + 24 - 3 * i / count, 50) for i in range(count)]
    return images, slivers, TilingConfig(tile_size=64, overlap=0)


@pytest.mark.parametrize(("budget", "windows"), [(0, LEAST_WINDOWS), (0.5, 5), (1, 10), (4, 40)])
def test_the_check_keeps_to_its_budget_and_asks_the_likeliest_first(budget, windows):
    images, slivers, tiling = _rows_of_slivers(40)
    found, calls = images.stability(slivers, [0] * 40, tiling, scores=0.9, budget=budget)
    assert calls == windows
    assert list(pd.isna(found)) == [True] * (40 - windows) + [False] * windows
    assert not any(found[40 - windows :])


def test_a_budget_never_flags_what_the_whole_check_would_not():
    rng = np.random.default_rng(3)
    before = np.full((3, 400, 400), 100, np.uint8)
    after = before.copy()
    outlines = []
    for x, y in itertools.product(range(10, 390, 48), range(10, 390, 77)):
        width = int(rng.integers(1, 5))
        after[:, y : y + 16, x : x + width] = 250
        outlines.append(shapely.box(x, y, x + width, y + 16))
    images = _Images(before, after)
    whole = pd.Series(images.stability(outlines, [0] * 40)[0])
    part = pd.Series(images.stability(outlines, [0] * 40, budget=1.0)[0])
    assert 0 < part.isna().sum() < 40
    assert set(part.dropna()) == {True, False}
    decided = part.notna()
    assert (part[decided] == whole[decided]).all()


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_no_call_holds_more_windows_than_a_batch(batch):
    images = _Images(*(np.full((3, 64, 64), value, np.uint8) for value in (100, 200)))
    found, calls = images.stability([shapely.box(10, 10, 20, 20)], [0], batch_size=batch)
    assert list(found) == [True]
    assert calls == -(-4 // batch)


# What is left of the misregistration


@pytest.mark.usefixtures("arithmetic")
def test_polygons_carry_the_residual_about_them(tmp_path):
    before = paint_scene((500, 520), seed=4) // 2 + 64
    after = before.copy()
    after[:, 200:240, 300:340] = 250
    images = before, np.roll(after, (7, -5), axis=(1, 2))
    config = DetectConfig(vectorize=VectorizeConfig(min_area=0))
    result = _detect(tmp_path, images, config)
    assert result.alignment.status == "applied"
    left = result.changes["misregistration_px"]
    assert left.notna().any()
    assert left.max() < 1
    alone = _detect(tmp_path, images, CHECKED).changes
    assert alone["misregistration_px"].isna().all()
    columns = list(alone.columns)
    assert columns[columns.index("observed") + 1 :][:2] == ["misregistration_px", "shift_stable"]


# Ground on which the alignment is contradicted


def _alignment(positions, roles, *, status="applied", reach=20.0):
    n = len(positions)
    ties = TiePoints(np.array(positions, float), np.zeros((n, 2)), np.zeros(n), np.zeros(n),
                     np.array(roles), np.full(n, np.nan))  # fmt: skip
    left = Residuals(0.1, 0.1, 0.1)
    return Alignment(status, "features", "shift", Motion(), left, left, 0.0, n, n, "", ties, reach)


FOUR = [(50, 50), (52, 50), (50, 52), (52, 52)]


def test_ground_where_every_tie_point_disagrees_is_contradicted():
    ground = contradicted_ground(_alignment(FOUR, ["outlier"] * 4), (200, 300))
    assert ground.contains(shapely.Point(51, 51))
    assert not ground.intersects(shapely.Point(51, 51).buffer(40).exterior)


@pytest.mark.parametrize("role", ["fit", "held-out"])
def test_one_explained_tie_point_vouches_for_its_surroundings(role):
    ground = contradicted_ground(_alignment(FOUR, ["outlier"] * 3 + [role]), (200, 300))
    assert not ground.contains(shapely.Point(51, 51))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_ground_with_little_to_compare_contradicts_nothing(count):
    alignment = _alignment(np.reshape(FOUR[:count], (-1, 2)), ["outlier"] * count)
    assert contradicted_ground(alignment, (200, 300)).is_empty


def test_a_refused_alignment_explains_no_tie_point():
    refused = _alignment(FOUR, ["fit"] * 4, status="refused")
    assert contradicted_ground(refused, (200, 300)).contains(shapely.Point(51, 51))
    assert contradicted_ground(unaligned("refused", "no texture"), (200, 300)).is_empty


def test_an_alignment_that_was_switched_off_contradicts_nothing():
    assert contradicted_ground(_alignment(FOUR, ["outlier"] * 4, status="off"), (90, 90)).is_empty


def test_contradicted_ground_stays_on_the_grid():
    corner = [(0, 0), (1, 1), (2, 0), (299, 199), (298, 199), (299, 197)]
    ground = contradicted_ground(_alignment(corner, ["outlier"] * 6), (200, 300))
    assert shapely.box(0, 0, 300, 200).covers(ground)
    assert ground.covers(shapely.Point(0.5, 0.5))
    assert ground.covers(shapely.Point(299.5, 199.5))


@pytest.mark.parametrize("mode", ["mask", "keep"])
@pytest.mark.usefixtures("arithmetic")
def test_contradicted_ground_is_not_observed_on_request(tmp_path, monkeypatch, mode):
    alignment = _alignment(FOUR, ["outlier"] * 4)
    monkeypatch.setattr("geocd.pipeline.estimate", lambda *_, **__: alignment)
    before, after = _built_and_ghosts()
    config = dataclasses.replace(CHECKED, unaligned=mode, align=AlignConfig())
    result = _detect(tmp_path, (before, after), config, mask=tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        codes = dataset.read(1)
    hidden = codes == 255
    if mode == "keep":
        assert not hidden.any()
        assert result.unaligned == 0
        return
    assert hidden[50:53, 50:53].all()
    assert not hidden[100:].any()
    assert result.unaligned == pytest.approx(hidden.mean(), abs=1e-6)
    assert result.observed == pytest.approx(1 - hidden.mean(), abs=1e-6)
    assert result.to_dict()["unaligned"] > 0
    assert "not aligned" in result.report()


@pytest.mark.usefixtures("arithmetic")
def test_nothing_is_masked_where_alignment_is_off(tmp_path):
    config = dataclasses.replace(CHECKED, unaligned="mask")
    assert _detect(tmp_path, _built_and_ghosts(), config).observed == 1


@pytest.mark.usefixtures("arithmetic")
def test_a_pair_that_contradicts_its_alignment_everywhere_is_refused(tmp_path, monkeypatch):
    ys, xs = np.mgrid[0:200:10, 0:300:10]
    everywhere = np.column_stack([xs.ravel(), ys.ravel()])
    alignment = _alignment(everywhere, ["outlier"] * len(everywhere), status="refused")
    monkeypatch.setattr("geocd.pipeline.estimate", lambda *_, **__: alignment)
    config = dataclasses.replace(CHECKED, unaligned="mask", align=AlignConfig())
    with pytest.raises(NothingObservedError, match="--unaligned"):
        _detect(tmp_path, _built_and_ghosts(), config)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["after.tif", "before.tif"]


# From the command line


@pytest.mark.usefixtures("arithmetic")
def test_the_switches_reach_the_run(tmp_path):
    paths = _files(tmp_path, *_built_and_ghosts())
    base = ["detect", *map(str, paths), "--align", "off", "--min-area", "0", "--json", "-q"]
    counts = []
    for switch in ("--shift-check", "--no-shift-check"):
        output = tmp_path / f"{switch[2:4]}.gpkg"
        ran = CliRunner().invoke(main, [*base, "-o", str(output), switch, "--unaligned", "mask",
                                        "--radiometry", "linear"])  # fmt: skip
        assert ran.exit_code == 0, ran.output
        counts.append(json.loads(ran.stdout)["shift_unstable"])
    assert counts == [26, None]


@pytest.mark.usefixtures("arithmetic")
def test_a_required_alignment_that_cannot_be_proven_exits_with_3_and_writes_nothing(tmp_path):
    flat = np.full((3, 100, 120), 90, np.uint8)
    paths = _files(tmp_path, flat, flat)
    output = tmp_path / "c.gpkg"
    command = ["detect", *map(str, paths), "-o", str(output), "-q", "--align", "require"]
    ran = CliRunner().invoke(main, [*command, "--mask", str(tmp_path / "m.tif")])
    assert ran.exit_code == 3
    assert "alignment" in ran.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["after.tif", "before.tif"]


def test_unknown_modes_are_refused():
    with pytest.raises(ConfigError, match="mask or keep"):
        DetectConfig(unaligned="drop")
    with pytest.raises(ConfigError, match="none or linear"):
        DetectConfig(radiometry="histogram")


@pytest.mark.parametrize("budget", [-0.1, float("nan"), float("inf")])
def test_impossible_budgets_are_refused(budget):
    with pytest.raises(ConfigError, match="shift_budget"):
        DetectConfig(shift_budget=budget)
