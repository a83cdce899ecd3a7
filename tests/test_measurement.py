"""What was measured of a pair comes back from its file as it was, and serves parts of the pair."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from arithmetic import open_arithmetic
from click.testing import CliRunner
from rasterio.crs import CRS

import geocd
from geocd.align import Alignment, Motion, Residuals, TiePoints
from geocd.align.measurement import Measurement, read_measurement
from geocd.align.radiometry import Radiometry
from geocd.config import AlignConfig, DetectConfig, VectorizeConfig
from geocd.errors import ConfigError, InputError
from geocd.pipeline import measure
from geocd.rasters.grid import Grid
from geocd.rasters.pair import Lattice
from geocd.testing import paint_scene, write_raster
from geocd_cli.main import main

UTM = CRS.from_epsg(32633)
PLACE = Affine(0.5, 0, 500_000.25, 0, -0.5, 5_000_000.75)
GRID = Grid(UTM, PLACE, 300, 400)
DARK = DetectConfig(vectorize=VectorizeConfig(min_area=5))


@pytest.fixture
def _arithmetic(monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", open_arithmetic)


def _found(*, field=True, **changed):
    rng = np.random.default_rng(3)
    motion = Motion(
        Affine(1.000123456789, 1e-5, 3.3, -2e-5, 0.9998765, -2.7),
        rng.normal(0, 1, (5, 6, 2)).astype(np.float32) if field else None,
        Affine.translation(1, 1) @ Affine.scale(1 / 137.7),
    )
    after = rng.random(9)
    after[2] = np.nan
    role = np.array(["held-out"] * 6 + ["fit", "fit", "outlier"])
    ties = TiePoints(rng.random((9, 2)) * 300, rng.random((9, 2)), rng.random(9), after, role,
                     np.full(9, np.nan))  # fmt: skip
    alignment = Alignment(
        "applied", "features", "local", motion, Residuals(0.1, 1 / 3, 0.7), Residuals(0, 0.1, 0.2),
        4.1, 8, 6, "it helps", ties, 55.5,
    )  # fmt: skip
    light = Radiometry("applied", (1.1, 0.9, 1 / 3), (1.0, -2.0, 0.1), 0.8, 900, "because")
    return Measurement(GRID, alignment, light, ((0.0, 255.0), (17.25, 1e3 / 7)), **changed)


@pytest.mark.parametrize("field", [True, False])
def test_everything_comes_back_to_the_last_bit(tmp_path, field):
    found = _found(field=field)
    found.write(tmp_path / "m.json", made_by={"who": "a test"})
    json.loads((tmp_path / "m.json").read_text(), parse_constant=pytest.fail)
    back = read_measurement(tmp_path / "m.json")
    assert back == found
    assert back.alignment.motion == found.alignment.motion


def test_a_part_of_the_pair_sees_the_same_motion_at_the_same_ground():
    found = _found()
    rows, cols = slice(100, 180), slice(-40, 260)
    part = found.alignment_on(GRID.crop(rows, cols))
    points, corner = np.array([[0.0, 0.0], [33.3, 70.1]]), np.array([cols.start, rows.start])
    moved = found.alignment.motion(points + corner) - corner
    np.testing.assert_allclose(part.motion(points), moved, atol=1e-9)
    np.testing.assert_allclose(
        part.misregistration(points),
        found.alignment.misregistration(points + corner),
    )
    finer = found.alignment_on(GRID.scaled(0.5, 0.5))
    np.testing.assert_allclose(finer.motion(points * 2), found.alignment.motion(points) * 2)
    assert (finer.shift_px, finer.reach) == pytest.approx((8.2, 111))


def test_windows_of_a_part_are_those_of_the_pair():
    lattice = Lattice(GRID, 64, 48)
    assert lattice.whole_windows(GRID) is GRID
    part = GRID.crop(slice(96, 96 + 112), slice(48, 48 + 64))
    assert lattice.whole_windows(part) is part
    odd = lattice.whole_windows(GRID.crop(slice(97, 150), slice(-5, 60)))
    col, row = ~GRID.transform @ (odd.transform.c, odd.transform.f)
    assert (round(row) % 48, round(col) % 48) == (0, 0)
    assert all((side - 64) % 48 == 0 for side in odd.shape)
    assert odd.footprint.buffer(1e-6).contains(GRID.crop(slice(97, 150), slice(0, 60)).footprint)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "{}", '{"files": []}', '{"files": 3}', '{"alignment": {}}', '{"files": [{}]}'],
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match="geocd align"):
        read_measurement(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "fine"), ("motion", {"affine": [1, 0, 0, 0, 0, 0]}), ("reach", None),
     ("ties", {"col": [1]}), ("shift_px", "far")],
)  # fmt: skip
def test_altered_files_are_refused(tmp_path, name, value):
    record = _found().to_dict()
    record["alignment"][name] = value
    (tmp_path / "m.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="no alignment"):
        read_measurement(tmp_path / "m.json")


def test_a_missing_file_and_one_of_other_ground_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_measurement(tmp_path / "m.json")
    with pytest.raises(InputError, match="measured in"):
        _found().place_of(Grid(CRS.from_epsg(3035), PLACE, 10, 10))
    with pytest.raises(InputError, match="lie otherwise"):
        _found().place_of(Grid(UTM, PLACE @ Affine.rotation(20), 10, 10))


def _pair(folder, *, size=(280, 340)):
    before = paint_scene(size, seed=5) // 2 + 40
    after = before.copy()
    after[:, 100:180, 90:220] = 250
    after = np.roll(after, (4, -3), axis=(1, 2))
    return [
        write_raster(folder / f"{name}.tif", image, crs=UTM, transform=PLACE)
        for name, image in (("before", before), ("after", after))
    ]


@pytest.mark.usefixtures("_arithmetic")
def test_a_measured_pair_gives_what_measuring_there_gives(tmp_path):
    paths = _pair(tmp_path)
    found = measure(*paths, tmp_path / "m.json", config=DARK)
    assert found.alignment.status == "applied"
    assert found.alignment.shift_px == pytest.approx(5, abs=0.3)
    results = []
    for name, options in (("a", {}), ("b", {"alignment": tmp_path / "m.json"})):
        result = geocd.detect(*paths, tmp_path / f"{name}.gpkg", scores=tmp_path / f"{name}.tif",
                              config=DARK, **options)  # fmt: skip
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            results.append((result, dataset.read()))
    (first, scores), (second, same) = results
    np.testing.assert_array_equal(scores, same)
    assert first.alignment == second.alignment
    assert first.changes.equals(second.changes)


@pytest.mark.usefixtures("_arithmetic")
def test_the_report_of_geocd_align_serves_geocd_detect(tmp_path):
    before, after = map(str, _pair(tmp_path))
    report, changes = str(tmp_path / "align.json"), str(tmp_path / "c.gpkg")
    aligned = ["align", before, after, "-o", str(tmp_path / "moved.tif"), "--report", report]
    assert CliRunner().invoke(main, aligned).exit_code == 0
    command = ["detect", before, after, "-o", changes, "--alignment", report, "--min-area", "5"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "aligned by a shift from features: 5.0 px" in done.stdout
    assert "1 change" in done.stdout
    off = CliRunner().invoke(main, [*command, "--align", "off", "--overwrite"])
    assert off.exit_code == 2
    assert "leave out either" in off.output


@pytest.mark.usefixtures("_arithmetic")
def test_ground_elsewhere_is_refused(tmp_path):
    paths = _pair(tmp_path)
    away = Grid(UTM, PLACE @ Affine.translation(5000, 0), 300, 400)
    found = _found()
    Measurement(away, found.alignment).write(tmp_path / "m.json", made_by={})
    with pytest.raises(InputError, match="other ground"):
        geocd.detect(*paths, tmp_path / "c.gpkg", alignment=tmp_path / "m.json", config=DARK)
    with pytest.raises(InputError, match="no alignment"):
        geocd.detect(*paths, tmp_path / "c.gpkg", alignment=paths[0], config=DARK)
    off = DetectConfig(align=AlignConfig(mode="off"))
    with pytest.raises(ConfigError, match="leave out either"):
        geocd.detect(*paths, tmp_path / "c.gpkg", alignment=tmp_path / "m.json", config=off)
