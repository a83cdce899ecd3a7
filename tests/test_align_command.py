"""geocd align moves images to where they lie on a reference, or says why it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

import geocd
from geocd.align import Motion, aligned_grid, apply, estimate_pair, open_for_alignment
from geocd.align.alignment import unaligned
from geocd.config import AlignConfig
from geocd.errors import ConfigError, CrsMismatchError, NoOverlapError, NotAlignedError
from geocd.maps.ties import TieSet, arrow_scale, residual_vectors, write_ties
from geocd.rasters.write import read_provenance
from geocd.testing import paint_scene, shifted_pair, write_raster
from geocd_cli.main import main

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SHAPE = (300, 340)
SHIFT = (4.0, -6.5)
"""(row, col): where after shows what before shows at (0, 0)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A pair that a shift aligns, an image of another place, and the shift undone."""
    folder = tmp_path_factory.mktemp("align")
    before, after = shifted_pair(SHAPE, shift=SHIFT, seed=5)
    for name, image in (
        ("before", before), ("after", after), ("elsewhere", paint_scene(SHAPE, seed=77)),
    ):  # fmt: skip
        write_raster(folder / f"{name}.tif", image, crs=UTM, transform=NORTH_UP, nodata=0)
    return folder


def _run(*arguments: object):
    return CliRunner().invoke(main, ["align", *map(str, arguments)])


def _pixels(path: Path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.dataset_mask() > 0


def _left(before: Path, after: Path) -> float:
    """What the two files still differ by on the ground that both show, in gray values."""
    pair = open_for_alignment(before, after)
    with pair.reader() as reader:
        window = reader.read(slice(8, pair.grid.height - 8), slice(8, pair.grid.width - 8))
    away = np.abs(window.before.astype(int) - window.after)
    return float(away[:, window.valid].mean())


# What is written


def test_the_aligned_image_lies_on_before(folder, tmp_path):
    out = tmp_path / "aligned.tif"
    done = _run(folder / "before.tif", folder / "after.tif", "-o", out, "-q")
    assert done.exit_code == 0, done.output
    assert _left(folder / "before.tif", folder / "after.tif") > 15
    assert _left(folder / "before.tif", out) < 4


def test_the_aligned_image_keeps_what_after_is(tmp_path, folder):
    _, image = shifted_pair(SHAPE, shift=SHIFT, seed=5)
    image = np.concatenate([image, image[:1]]).astype("uint16") * 90
    path = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=NORTH_UP, nodata=7,
                        tags={"TIFFTAG_DATETIME": "2024:09:02 14:35:00"})  # fmt: skip
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("red", "green", "blue", "near infrared")
        dataset.units = ("1e-4",) * 4
    done = _run(folder / "before.tif", path, "-o", tmp_path / "out.tif")
    assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.dtypes == ("uint16",) * 4
        assert dataset.nodata == 7
        assert dataset.descriptions == ("red", "green", "blue", "near infrared")
        assert dataset.units == ("1e-4",) * 4
        assert dataset.tags()["TIFFTAG_DATETIME"] == "2024:09:02 14:35:00"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    record = read_provenance(tmp_path / "out.tif")
    assert record["alignment"]["status"] == "applied"
    assert record["inputs"]["after"]["files"][0]["path"] == str(path)


@pytest.mark.parametrize("kind", ["alpha", "mask", "nothing"])
def test_holes_stay_holes_and_the_margin_is_one(folder, tmp_path, kind):
    _, image = shifted_pair(SHAPE, shift=SHIFT, seed=5)
    there = np.ones(SHAPE, bool)
    there[100:160, 120:200] = kind == "nothing"
    options = {} if kind == "nothing" else {kind: there}
    path = write_raster(tmp_path / "a.tif", image, crs=UTM, transform=NORTH_UP, **options)
    out = tmp_path / "out.tif"
    done = _run(folder / "before.tif", path, "-o", out, "--like-before", "-q")
    assert done.exit_code == 0, done.output
    _, valid = _pixels(out)
    # What before shows at (r, c) after shows at (r + 4, c - 6.5): its left columns are not there.
    assert not valid[:, :6].any()
    assert not valid[-4:].any()
    hole = valid[98:154, 129:205]
    assert hole.all() if kind == "nothing" else not hole.any()
    assert valid[10:90, 20:330].all()
    with rasterio.open(out) as dataset:
        alpha = ColorInterp.alpha in dataset.colorinterp
        assert (alpha, dataset.count) == ((True, 4) if kind == "alpha" else (False, 3))


@pytest.mark.parametrize(
    ("size", "side"),
    [
        (0.5, 0.5),
        (0.45, 0.5),
        (0.3, 0.25),
        (0.125, 0.125),
        (0.8, 0.5),
        (0.9, 1.0),
        (1.05, 1.0),
        (2.0, 2.0),
    ],
)
def test_pixels_nest_in_those_of_before(tmp_path, size, side):
    before = write_raster(tmp_path / "b.tif", paint_scene((90, 110), seed=1), crs=UTM,
                          transform=NORTH_UP)  # fmt: skip
    placed = Affine(size, 0, 499_997.3, 0, -size, 5_000_003.9)
    after = write_raster(tmp_path / "a.tif", paint_scene((90, 110), seed=1), crs=UTM,
                         transform=placed)  # fmt: skip
    pair = open_for_alignment(before, after)
    grid = aligned_grid(pair, Motion(Affine.translation(3, -2)))
    assert grid.pixel_size == pytest.approx((side, side))
    corner = ~NORTH_UP @ (grid.transform.c, grid.transform.f)
    on_before = np.array(corner) / max(1, side / 0.5) * max(1, 0.5 / side)
    assert on_before == pytest.approx(np.round(on_before), abs=1e-6)
    moved = pair.grid.transform @ Affine.translation(-3, 2) @ ~pair.grid.transform @ placed
    for col, row in ((0, 0), (110, 0), (0, 90), (110, 90)):
        x, y = ~grid.transform @ (moved @ (col, row))
        assert -1e-6 <= x <= grid.width + 1e-6
        assert -1e-6 <= y <= grid.height + 1e-6


def test_like_before_is_befores_very_grid(folder, tmp_path):
    out = tmp_path / "o.tif"
    assert _run(folder / "before.tif", folder / "after.tif", "-o", out, "--like-before",
                ).exit_code == 0  # fmt: skip
    with rasterio.open(out) as dataset, rasterio.open(folder / "before.tif") as before:
        assert (dataset.transform, dataset.shape) == (before.transform, before.shape)
        assert dataset.crs == before.crs


def test_an_image_that_needs_nothing_is_written_as_it_is(folder, tmp_path):
    out = tmp_path / "o.tif"
    done = _run(folder / "before.tif", folder / "before.tif", "-o", out)
    assert done.exit_code == 0, done.output
    assert "agree" in done.output
    for mine, theirs in zip(_pixels(out), _pixels(folder / "before.tif"), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_off_trusts_the_georeferencing(folder, tmp_path):
    out = tmp_path / "o.tif"
    done = _run(folder / "before.tif", folder / "elsewhere.tif", "-o", out, "--align", "off")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(_pixels(out)[0], _pixels(folder / "elsewhere.tif")[0])


def test_a_field_is_written_as_the_motion_says(folder, tmp_path):
    pair = open_for_alignment(folder / "before.tif", folder / "after.tif")
    bend = np.random.default_rng(0).uniform(-0.8, 0.8, (7, 8, 2)).astype(np.float32)
    motion = Motion(Affine.translation(SHIFT[1], SHIFT[0]), bend,
                    Affine.translation(1, 1) @ Affine.scale(1 / 75))  # fmt: skip
    found = estimate_pair(pair)
    apply(pair, replace(found, status="applied", motion=motion), tmp_path / "o.tif",
          like_before=True)  # fmt: skip
    written, valid = _pixels(tmp_path / "o.tif")
    with pair.with_motion(motion).reader() as reader:
        _, _, after, seen = reader.read_dates(slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    np.testing.assert_array_equal(valid, seen)
    np.testing.assert_array_equal(written[:, valid], after[:, valid])


def test_an_interpolated_value_is_never_mistaken_for_nodata(tmp_path, folder):
    # Between 98 and 102 lies 100, which means 'nothing here'.
    stripes = np.tile(np.repeat(np.array([98, 102], np.uint8), 2), (1, 300, 85))
    path = write_raster(tmp_path / "a.tif", stripes, crs=UTM, nodata=100,
                        transform=NORTH_UP @ Affine.translation(0.5, 0.5))  # fmt: skip
    pair = open_for_alignment(folder / "before.tif", path)
    apply(pair, unaligned("off", "as it is"), tmp_path / "o.tif", like_before=True)
    _, valid = _pixels(tmp_path / "o.tif")
    assert valid[4:-4, 4:-4].all()


def test_the_steps_are_there_in_python_without_an_import_of_their_own():
    code = "import geocd; print(geocd.align.apply.__name__, geocd.coregister.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["apply", "coregister"], done.stderr


# Many images, and what is said of them


@pytest.fixture(scope="module")
def many(folder, tmp_path_factory):
    """Three images to one reference: one aligned, one refused, one damaged."""
    out = tmp_path_factory.mktemp("many")
    broken = out / "broken.tif"
    broken.write_bytes((folder / "after.tif").read_bytes()[:3000])
    (out / "aligned").mkdir()
    (out / "pictures").mkdir()
    done = _run(folder / "before.tif", folder / "elsewhere.tif", broken, folder / "after.tif",
                "-o", out / "aligned", "--report", out / "r.json", "--tie-points", out / "t.gpkg",
                "--picture", out / "pictures")  # fmt: skip
    return out, done


def test_one_bad_image_does_not_stop_the_rest(many):
    out, done = many
    assert done.exit_code == 1
    assert [p.name for p in (out / "aligned").iterdir()] == ["after.tif"]
    assert "3 images" in done.output
    assert "1 failed, 1 not aligned, 1 written" in done.output


def test_the_report_says_everything_about_each_image(many):
    out, _ = many
    report = json.loads((out / "r.json").read_text())
    refused, failed, written = report["files"]
    assert [f["outcome"] for f in report["files"]] == ["not aligned", "failed", "written"]
    assert refused["output"] is None
    assert refused["alignment"]["status"] == "refused"
    assert len(refused["alignment"]["reason"]) > 10
    assert "broken.tif" in failed["error"]
    alignment = written["alignment"]
    assert {"median", "rmse", "p90"} == set(alignment["residual_before_px"])
    assert alignment["residual_before_px"]["median"] == pytest.approx(np.hypot(*SHIFT), abs=0.3)
    assert alignment["residual_after_px"]["median"] < 0.4
    assert alignment["model"] in ("shift", "affine", "local")
    assert 0.3 < written["covered"] <= 1
    assert written["output_grid"]["gsd_m"] == pytest.approx([0.5, 0.5], rel=1e-2)
    assert report["config"]["mode"] == "auto"
    # A field has many numbers; a line for each would bury the rest.
    assert len((out / "r.json").read_text().splitlines()) < 1000


def test_tie_points_and_arrows_stand_where_the_spots_are(many):
    out, _ = many
    layers = {name for name, _ in pyogrio.list_layers(out / "t.gpkg")}
    assert {"tie_points", "residual_arrows", "provenance", "layer_styles"} <= layers
    points = pyogrio.read_dataframe(out / "t.gpkg", layer="tie_points")
    points = points[points["image"] == "after.tif"]
    assert points.crs == UTM.to_wkt()
    assert points.geometry.within(shapely.box(500_000, 5_000_000 - 150, 500_170, 5_000_000)).all()
    held = points[points["role"] == "held-out"]
    assert np.median(held["dx_px"]) == pytest.approx(SHIFT[1], abs=0.3)
    assert np.median(held["dy_px"]) == pytest.approx(SHIFT[0], abs=0.3)
    arrows = pyogrio.read_dataframe(out / "t.gpkg", layer="residual_arrows")
    for when in ("before", "after"):
        some = arrows[(arrows["alignment"] == when) & (arrows["image"] == "after.tif")]
        assert len(some) == (points["role"] != "outlier").sum()
        length = some.geometry.length / 0.5  # in pixels
        np.testing.assert_allclose(length, some["residual_px"] * some["scale"], rtol=1e-6)
    first = arrows[(arrows["alignment"] == "before") & (arrows["image"] == "after.tif")].iloc[0]
    (x0, y0), (x1, y1) = first.geometry.coords
    # Rows grow southward.
    assert (x1 - x0, y0 - y1) == pytest.approx(
        (first["dx_px"] * first["scale"] * 0.5, first["dy_px"] * first["scale"] * 0.5)
    )
    assert not (arrows["role"] == "outlier").any()


def test_a_picture_shows_both_times_or_only_the_first(many):
    out, _ = many
    assert {p.name for p in (out / "pictures").iterdir()} == {"after.png", "elsewhere.png"}
    with Image.open(out / "pictures" / "after.png") as both:
        with Image.open(out / "pictures" / "elsewhere.png") as one:
            assert both.width > 1.8 * one.width
        blue = (np.asarray(both) == (0, 114, 178)).all(axis=-1)
        orange = (np.asarray(both) == (213, 94, 0)).all(axis=-1)
    middle = both.width // 2
    assert orange[:, :middle].sum() > 200 > orange[:, middle + 20 :].sum()
    assert blue[:, middle:].sum() > 200 > blue[:, : middle - 20].sum()


def test_a_refused_image_has_exit_code_3_and_a_reason(folder, tmp_path):
    out = tmp_path / "o.tif"
    done = _run(folder / "before.tif", folder / "elsewhere.tif", "-o", out)
    assert done.exit_code == 3
    assert done.output.count("not aligned") == done.stderr.count("Error: ") == 1
    assert "not aligned" in done.stderr
    assert not list(tmp_path.iterdir())


def test_python_refuses_with_an_error_of_its_own(folder, tmp_path):
    pair = open_for_alignment(folder / "before.tif", folder / "elsewhere.tif")
    with pytest.raises(NotAlignedError, match="nothing was written"):
        apply(pair, estimate_pair(pair), tmp_path / "o.tif")
    result = geocd.coregister(folder / "before.tif", [folder / "elsewhere.tif"], tmp_path / "o.tif")
    assert result.counts == {"not aligned": 1}


def test_images_without_a_crs_are_aligned_in_pixel_units(tmp_path):
    paths = [
        write_raster(tmp_path / f"{k}.tif", image, crs=None, transform=Affine.identity())
        for k, image in enumerate(shifted_pair(SHAPE, shift=SHIFT, seed=5))
    ]
    done = _run(*paths, "-o", tmp_path / "o.tif", "--tie-points", tmp_path / "t.gpkg", "-q")
    assert done.exit_code == 0, done.output
    points = pyogrio.read_dataframe(tmp_path / "t.gpkg", layer="tie_points")
    assert points.crs is None
    assert (points.geometry.y < 0).all()


def test_the_scale_of_arrows_is_round_and_makes_them_visible():
    vectors = np.tile([[0.3, 0.4]], (50, 1))
    scale = arrow_scale(vectors, (1000, 1200))
    assert scale == 100  # half a pixel becomes a twenty-fourth of 1200
    assert arrow_scale(np.empty((0, 2)), (10, 10)) == 1
    assert arrow_scale(vectors * 1e4, (10, 10)) == 1


def test_without_a_motion_there_is_nothing_after(folder):
    assert not len(residual_vectors(unaligned("refused", "no texture"), "after"))


# Bad input


def test_a_crs_on_one_side_only_is_refused(folder, tmp_path):
    bare = write_raster(tmp_path / "bare.tif", paint_scene(SHAPE, seed=1), crs=None,
                        transform=Affine.identity())  # fmt: skip
    done = _run(folder / "before.tif", bare, "-o", tmp_path / "o.tif")
    assert (done.exit_code, "gdal_edit.py -a_srs" in done.stderr) == (1, True)
    with pytest.raises(CrsMismatchError):
        open_for_alignment(bare, folder / "after.tif")


def test_images_that_share_no_ground_are_refused(folder, tmp_path):
    far = write_raster(tmp_path / "far.tif", paint_scene(SHAPE, seed=1), crs=UTM,
                       transform=NORTH_UP @ Affine.translation(9000, 0))  # fmt: skip
    done = _run(folder / "before.tif", far, "-o", tmp_path / "o.tif")
    assert (done.exit_code, "share no ground" in done.stderr) == (1, True)
    with pytest.raises(NoOverlapError):
        open_for_alignment(folder / "before.tif", far)


@pytest.mark.parametrize("option", ["-o", "--report", "--picture", "--tie-points"])
def test_an_output_that_is_an_input_is_refused(folder, tmp_path, option):
    after = tmp_path / "after.gpkg"  # the name of a file says nothing to GDAL
    after.write_bytes((folder / "after.tif").read_bytes())
    kept = after.read_bytes()
    options = ["-o", after] if option == "-o" else ["-o", tmp_path / "o.tif", option, after]
    done = _run(folder / "before.tif", after, *options, "--overwrite")
    assert (done.exit_code, "is an input" in done.stderr) == (2, True)
    assert after.read_bytes() == kept


def test_an_output_among_the_tiles_of_an_input_is_refused(folder, tmp_path):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "a.tif").write_bytes((folder / "after.tif").read_bytes())
    out = tmp_path / "tiles" / "o.tif"
    done = _run(folder / "before.tif", tmp_path / "tiles", "-o", out)
    assert (done.exit_code, "tiles of an input" in done.stderr) == (1, True)
    assert not out.exists()


def test_two_images_of_one_name_are_refused(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "out").mkdir()
    twin = tmp_path / "other" / "after.tif"
    twin.write_bytes((folder / "after.tif").read_bytes())
    done = _run(folder / "before.tif", folder / "after.tif", twin, "-o", tmp_path / "out")
    assert (done.exit_code, "different names" in done.stderr) == (2, True)


def test_several_images_want_a_folder(folder, tmp_path):
    done = _run(folder / "before.tif", folder / "after.tif", folder / "elsewhere.tif",
                "-o", tmp_path / "o.tif")  # fmt: skip
    assert (done.exit_code, "is no folder" in done.stderr) == (1, True)


def test_an_existing_output_is_kept(folder, tmp_path):
    out = tmp_path / "o.tif"
    out.write_text("precious")
    done = _run(folder / "before.tif", folder / "after.tif", "-o", out)
    assert (done.exit_code, out.read_text()) == (1, "precious")
    assert "--overwrite" in done.stderr


@pytest.mark.parametrize("which", ["before", "after"])
@pytest.mark.parametrize("damage", ["missing", "text"])
def test_an_unreadable_image_is_named(folder, tmp_path, which, damage):
    bad = tmp_path / "bad.tif"
    if damage == "text":
        bad.write_text("no raster")
    pair = [bad, folder / "after.tif"] if which == "before" else [folder / "before.tif", bad]
    done = _run(*pair, "-o", tmp_path / "o.tif")
    assert (done.exit_code, "bad.tif" in done.stderr) == (1, True)
    assert not (tmp_path / "o.tif").exists()


def test_a_folder_that_cannot_be_written_is_told_before_the_work(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("geocd.coregistration.open_for_alignment", lambda *_: pytest.fail("worked"))
    done = _run(folder / "before.tif", folder / "after.tif", "-o", tmp_path / "o.tif")
    assert (done.exit_code, "not writable" in done.stderr) == (1, True)


@pytest.mark.parametrize("shift", ["0", "-3"])
def test_an_impossible_shift_is_a_usage_error(folder, tmp_path, shift):
    done = _run(folder / "before.tif", folder / "after.tif", "-o", tmp_path / "o.tif",
                "--max-shift", shift)  # fmt: skip
    assert (done.exit_code, "max_shift" in done.stderr) == (2, True)


def test_a_shift_beyond_what_is_believed_is_refused(folder, tmp_path):
    done = _run(folder / "before.tif", folder / "after.tif", "-o", tmp_path / "o.tif",
                "--max-shift", 3)  # fmt: skip
    assert done.exit_code == 3


def test_tie_points_want_a_geopackage(folder, tmp_path):
    done = _run(folder / "before.tif", folder / "after.tif", "-o", tmp_path / "o.tif",
                "--tie-points", tmp_path / "t.shp")  # fmt: skip
    assert (done.exit_code, ".gpkg" in done.stderr) == (2, True)
    with pytest.raises(ConfigError):
        write_ties([], tmp_path / "t.json", provenance={})


def test_a_field_that_was_estimated_on_coarse_pixels_moves_fine_ones(tmp_path):
    # Before is four times finer: the pair is compared on after's pixels, and written on them.
    before, after = shifted_pair((600, 640), shift=(8.0, -12.0), seed=5)
    coarse = np.stack([b.reshape(150, 4, 160, 4).mean(axis=(1, 3)) for b in after.astype(float)])
    first = write_raster(tmp_path / "b.tif", before, crs=UTM, transform=NORTH_UP)
    second = write_raster(tmp_path / "a.tif", np.rint(coarse).astype(np.uint8), crs=UTM,
                          transform=NORTH_UP @ Affine.scale(4))  # fmt: skip
    pair = open_for_alignment(first, second)
    assert pair.grid.pixel_size == pytest.approx((2.0, 2.0))
    found = estimate_pair(pair, config=AlignConfig(mode="auto"))
    assert found.status == "applied", found
    moved = found.motion(np.array([[80.0, 75.0]]))[0] - (80, 75)
    assert moved == pytest.approx((-3, 2), abs=0.2)
    grid = apply(pair, found, tmp_path / "o.tif")
    assert grid.pixel_size == pytest.approx((2.0, 2.0))
    assert TieSet("a", found, pair.grid).grid.pixel_size == pytest.approx((2.0, 2.0))
