"""The command line: exit codes, one line of error, results on stdout, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from affine import Affine
from click.testing import CliRunner
from rasterio.crs import CRS

from geocd.models.snunet import SNUNet
from geocd.testing import paint_scene, write_raster
from geocd_cli.main import main

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


@pytest.fixture
def pair(tmp_path):
    before = paint_scene((128, 160), seed=1)
    after = before.copy()
    after[:, 40:80, 40:90] = 240
    paths = [write_raster(tmp_path / f"{name}.tif", image, crs=UTM, transform=NORTH_UP)
             for name, image in (("before", before), ("after", after))]  # fmt: skip
    return [str(p) for p in paths]


def _geocd(*arguments: object) -> object:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_detect_reports_on_stdout_and_exits_0(pair, tmp_path):
    done = _geocd("detect", *pair, "-o", tmp_path / "c.gpkg", "--mask", tmp_path / "m.tif")
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "c.gpkg") in done.stdout
    assert (tmp_path / "m.tif").exists()


def test_json_is_one_object_on_stdout_and_progress_is_not(pair, tmp_path):
    done = _geocd("detect", *pair, "-o", tmp_path / "c.gpkg", "--json")
    summary = json.loads(done.stdout)
    assert {"count", "kinds", "alignment", "observed", "seconds", "weights"} <= set(summary)
    assert len(summary["weights"]["sha256"]) == 64
    assert "predict" in done.stderr


def test_quiet_says_nothing(pair, tmp_path):
    done = _geocd("detect", *pair, "-o", tmp_path / "c.gpkg", "--quiet")
    assert done.exit_code == 0
    assert done.output == ""


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_the_extension_chooses_the_format(pair, tmp_path, suffix):
    done = _geocd("detect", *pair, "-o", tmp_path / f"c{suffix}", "-q")
    assert done.exit_code == 0, done.output
    assert (tmp_path / f"c{suffix}").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.tif", "{after}"], 1, "no such file"),
        (["{before}", "{after}", "--weights", "nothing"], 1, "bundled are"),
        (["{before}", "{after}", "--bands", "1,2,9"], 1, "no band 9"),
        (["{before}", "{after}", "--bands", "red"], 2, "wanted numbers"),
        (["{before}", "{after}", "--threshold", "7"], 2, "between 0 and 1"),
        (["{before}", "{after}", "--tile-size", "100"], 2, "multiple of 16"),
        (["{before}", "{after}", "--overlap", "300"], 2, "overlap"),
        (["{before}", "{after}", "--gsd", "-1"], 2, "gsd"),
        (["{before}", "{after}", "--aoi", "nowhere.geojson"], 1, "area of interest"),
        (["{before}"], 2, "AFTER"),
    ],
)
def test_mistakes_give_one_line_and_the_right_code(pair, tmp_path, arguments, code, message):
    filled = [a.format(before=pair[0], after=pair[1]) for a in arguments]
    done = _geocd("detect", *filled, "-o", tmp_path / "c.gpkg")
    assert done.exit_code == code
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["after.tif", "before.tif"]


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [("no/c.gpkg", 1, "does not exist"), ("c.shp", 2, ".gpkg"), ("c", 2, ".gpkg")],
)
def test_outputs_that_cannot_be_are_refused(pair, tmp_path, output, code, message):
    done = _geocd("detect", *pair, "-o", tmp_path / output)
    assert done.exit_code == code
    assert message in done.stderr


def test_an_existing_output_needs_overwrite(pair, tmp_path):
    (tmp_path / "c.gpkg").write_bytes(b"precious")
    done = _geocd("detect", *pair, "-o", tmp_path / "c.gpkg")
    assert done.exit_code == 1
    assert "--overwrite" in done.stderr
    assert (tmp_path / "c.gpkg").read_bytes() == b"precious"
    assert _geocd("detect", *pair, "-o", tmp_path / "c.gpkg", "--overwrite").exit_code == 0


def test_weights_with_other_bands_say_what_they_want(pair, tmp_path):
    torch.save(SNUNet(bands=4, width=8).state_dict(), tmp_path / "net.pth")
    assert (
        _geocd("models", "import", tmp_path / "net.pth", "-o", tmp_path / "n.safetensors").exit_code
        == 0
    )
    done = _geocd(
        "detect", *pair, "-o", tmp_path / "c.gpkg", "--weights", tmp_path / "n.safetensors"
    )
    assert done.exit_code == 1
    assert "want 4 bands" in done.stderr


def test_imported_binary_weights_run_and_their_kinds_are_judged_by_shape(pair, tmp_path):
    torch.save({"state_dict": SNUNet(width=8).state_dict()}, tmp_path / "net.pth")
    done = _geocd("models", "import", tmp_path / "net.pth", "-o", tmp_path / "n.safetensors",
                  "--mean", "127,127,127", "--std", "128,128,128", "--gsd", "0.3,1")  # fmt: skip
    assert done.exit_code == 0, done.output
    done = _geocd("detect", *pair, "-o", tmp_path / "c.gpkg",
                  "--weights", tmp_path / "n.safetensors", "--threshold", "0.001",
                  "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["kinds"]) <= {"building", "road"}


def test_models_are_listed_and_shown():
    listed = _geocd("models", "list")
    assert "geocd-vhr" in listed.stdout
    assert "snunet" in listed.stdout
    card = json.loads(_geocd("models", "show", "geocd-vhr").stdout)
    assert card["classes"] == ["building", "road"]
    assert card["training"]["content_sha256"] == "1255 images"  # and not a screen for each ten


def test_info_names_versions_and_devices():
    facts = json.loads(_geocd("info", "--json").stdout)
    assert {"geocd", "torch", "rasterio", "gdal (rasterio)", "cuda devices"} <= set(facts)
    assert "gdal" in _geocd("info").stdout


def test_training_runs_from_the_command_line_and_resumes(tmp_path):
    import cv2

    for sub in ("images", "labels"):
        (tmp_path / "tiles" / sub).mkdir(parents=True)
    image = np.moveaxis(paint_scene((128, 128), seed=0), 0, -1).copy()
    label = np.zeros((128, 128), np.uint8)
    image[30:60, 30:70], label[30:60, 30:70] = 220, 255
    cv2.imwrite(str(tmp_path / "tiles/images/a.png"), image)
    cv2.imwrite(str(tmp_path / "tiles/labels/a.png"), label)
    (tmp_path / "r.toml").write_text(
        'name = "tiny"\nnetwork = {width = 16}\n[[stages]]\nsteps = 2\ncrop = 32\nbatch = 1\n'
        '[[sources]]\nfolder = "tiles"\ngsd = 0.5\nbuilding = 255\n'
    )
    command = ["train", "--config", tmp_path / "r.toml", "--data", tmp_path, "-o",
               tmp_path / "run", "--workers", 0]  # fmt: skip
    assert _geocd(*command, "--steps", 1).exit_code == 0
    done = _geocd(*command)
    assert done.exit_code == 0, done.output
    assert "resumed at step 1 of 2" in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    shown = _geocd("models", "show", tmp_path / "run" / "tiny.safetensors")
    assert json.loads(shown.stdout)["training"]["steps"] == 2


def test_a_recipe_can_be_looked_at_before_it_is_trained(tmp_path):
    (tmp_path / "r.toml").write_text(
        'name = "tiny"\n[[stages]]\nsteps = 2\ncrop = 32\nbatch = 1\n'
        "[[sources]]\npainted = 2\ngsd = 0.9\n"
    )
    done = _geocd("train", "--config", tmp_path / "r.toml", "--preview", "-o", tmp_path / "look")
    assert done.exit_code == 0, done.output
    assert {p.name for p in (tmp_path / "look").iterdir()} == {"tiles.png", "pairs.png"}
    assert "fine-tune" in _geocd("train", "--list").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_available(shell):
    done = subprocess.run(
        [sys.executable, "-m", "geocd_cli"], capture_output=True, text=True,
        env=os.environ | {"_GEOCD_COMPLETE": f"{shell}_source"},
    )  # fmt: skip
    assert "_GEOCD_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_run_that_is_stopped_leaves_nothing_and_says_so_by_its_code(tmp_path, number, code):
    image = paint_scene((512, 512), seed=1)
    paths = [write_raster(tmp_path / f"{n}.tif", np.tile(image, (1, 4, 4)), crs=UTM,
                          transform=NORTH_UP) for n in ("before", "after")]  # fmt: skip
    run = subprocess.Popen(
        [sys.executable, "-m", "geocd_cli", "detect", *map(str, paths), "-o",
         str(tmp_path / "c.gpkg"), "--mask", str(tmp_path / "m.tif"), "--align", "off"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # A shell's background jobs, and so their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not any(p.name.endswith(".scratch") for p in tmp_path.iterdir()):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == code, errors
    assert "Traceback" not in errors
    # Nobody can tidy up after SIGKILL; but then, too, nothing has a final name.
    left = [p.name for p in tmp_path.iterdir() if code > 0 or not p.name.startswith(".")]
    assert sorted(left) == ["after.tif", "before.tif"]


def test_the_demo_finds_some_of_what_it_painted_and_draws_it(tmp_path):
    done = _geocd("demo", "-o", tmp_path / "demo")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "demo" / "changes.png").stat().st_size > 50_000
    row = next(line for line in done.stdout.splitlines() if line.startswith("building"))
    painted, found = map(int, row.split()[1:3])
    assert found >= painted / 2
    assert _geocd("demo", "-o", tmp_path / "demo", "-q").exit_code == 1
