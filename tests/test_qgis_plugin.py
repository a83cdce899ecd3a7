"""The plugin finds geocd, runs it as QGIS asks for, and stops it without a trace."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import itertools
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import headless_qgis
import numpy as np
import pyogrio
import pytest
from affine import Affine
from conftest import ROOT
from rasterio.crs import CRS

import geocd
from geocd.config import DEFAULT_WEIGHTS, AlignMode
from geocd.errors import GeocdError
from geocd.models.files import bundled_weights
from geocd.testing import shifted_pair, write_raster
from geocd_cli.reporting import StageProgress

PLUGIN = ROOT / "qgis" / "geocd_qgis"
GEOCD = Path(sys.executable).parent / "geocd"


def _module(path: Path):
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


runner = _module(PLUGIN / "runner.py")


def _constant(file: str, name: str):
    """A list in a module of the plugin, which cannot be imported without QGIS."""
    for node in ast.parse((PLUGIN / file).read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {name} in {file}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[Path]:
    """Two images of one place, one of them with a bright roof more."""
    folder = tmp_path_factory.mktemp("pair")
    before, after = shifted_pair((320, 384), shift=(0, 0), seed=3)
    after[:, 100:160, 120:200] = 240
    grid = {"crs": CRS.from_epsg(32633), "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    return [write_raster(folder / f"{name} it's.tif", image, **grid)
            for name, image in (("before", before), ("after", after))]  # fmt: skip


def test_the_program_does_not_see_what_qgis_sets_for_itself():
    strange = ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA")
    given = {"HOME": "/home/me", "LANG": "C"} | dict.fromkeys(strange, "/usr/share/qgis")
    seen = runner.clean_environment(given)
    assert {name for name in given if name in seen} == {"HOME", "LANG"}


def test_a_program_that_is_not_there_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(runner.GeocdNotFoundError, match="on PATH; install"):
        runner.find_geocd("")
    with pytest.raises(runner.GeocdNotFoundError, match="at /opt/geocd; install"):
        runner.find_geocd("/opt/geocd")
    assert runner.find_geocd(str(GEOCD)) == str(GEOCD)


@pytest.mark.parametrize(
    ("line", "percent"),
    [("align: 0/1 (0 s)", 0), ("predict: 10/20 (3 s)", 42.5), ("write rasters: 2/2 (0 s)", 80),
     ("predict: 0/0 (0 s)", 15), ("unheard of: 1/2 (0 s)", None), ("15 changes -> x.gpkg", None),
     ("aligned by a shift: 6/7 (", None)],
)  # fmt: skip
def test_lines_of_progress_become_percents_of_the_run(line, percent):
    assert runner.percent_of(line) == percent


@pytest.mark.parametrize(("seconds", "lines"), [("0", 4), ("3600", 1), ("", 1), ("often", 1)])
def test_geocd_tells_how_far_it_is_as_often_as_asked(monkeypatch, capsys, seconds, lines):
    monkeypatch.setenv(runner._EVERY, seconds)
    progress = StageProgress(quiet=False)
    for done in range(4):
        progress("predict", done, 3)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert runner.percent_of(said[-1]) == 70


def test_stages_of_progress_follow_each_other_to_the_end():
    stages = list(runner._STAGES.values())
    assert stages[0][0] == 0
    assert stages[-1][1] == 100
    assert all(a[1] == b[0] for a, b in itertools.pairwise(stages))


def test_lines_and_exit_code_of_the_program_arrive():
    program = "import sys; print('to stdout', flush=True); print('Ä', file=sys.stderr); sys.exit(3)"
    said = []
    code = runner.run([sys.executable, "-c", program], heard=said.append, cancelled=lambda: False)
    assert code == 3
    assert said == ["to stdout", "Ä"]


def test_a_program_that_ignores_the_request_to_end_is_killed(monkeypatch):
    monkeypatch.setattr(runner, "_PATIENCE", 0.2)
    program = ("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
               "print('here', flush=True); time.sleep(60)")  # fmt: skip
    said = []
    code = runner.run([sys.executable, "-c", program], heard=said.append,
                      cancelled=lambda: bool(said))  # fmt: skip
    assert code == -9


def test_a_cancelled_run_of_geocd_leaves_nothing(pair, tmp_path):
    said = []
    command = [GEOCD, "detect", *pair, "-o", tmp_path / "c.gpkg", "--mask", tmp_path / "m.tif",
               "--tile-size", "64", "--overlap", "48"]  # fmt: skip
    code = runner.run(list(map(str, command)), heard=said.append,
                      cancelled=lambda: "align: 1/1" in "".join(said))  # fmt: skip
    assert code == 128 + 15, said
    assert list(tmp_path.iterdir()) == []


def test_choices_are_those_of_geocd():
    assert _constant("algorithm.py", "ALIGN_MODES") == list(get_args(AlignMode))
    weights = _constant("detect.py", "WEIGHTS")
    assert set(weights) == set(bundled_weights()) - {"pcb"}  # for inspection, not for maps
    assert weights[0] == DEFAULT_WEIGHTS


def test_the_plugin_describes_itself():
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(PLUGIN / "metadata.txt")
    general = metadata["general"]
    assert general["hasProcessingProvider"] == "yes"
    assert general["version"] == geocd.__version__
    assert (PLUGIN / general["icon"]).is_file()


def test_the_archive_holds_the_plugin_and_is_the_same_each_time(tmp_path):
    make_zip = _module(ROOT / "qgis" / "make_zip.py").make_zip
    first, second = make_zip(tmp_path / "a"), make_zip(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert names == sorted(names)
    modules = {p.name for p in PLUGIN.glob("*.py")}
    wanted = modules | {"LICENSE", "icon.svg", "metadata.txt"}
    assert set(names) == {f"geocd_qgis/{name}" for name in wanted}


@pytest.fixture(scope="module")
def qgis(tmp_path_factory):
    """Runs qgis_process with the plugin switched on, in a profile of its own."""
    headless_qgis.require()
    folder = tmp_path_factory.mktemp("profile")
    # Its folder, not that of the virtual environment, whose Python would become that of QGIS.
    (folder / "bin").mkdir()
    (folder / "bin" / "geocd").symlink_to(GEOCD)

    def _run(*words: str, path: str = f"{folder / 'bin'}:/usr/bin:/bin"):
        variables = headless_qgis.environment(
            HOME=str(folder), PATH=path, QGIS_PLUGINPATH=str(PLUGIN.parent)
        )
        return subprocess.run(["/usr/bin/qgis_process.bin", *words], env=variables,
                              capture_output=True, text=True, timeout=300)  # fmt: skip

    _run("plugins", "enable", "geocd_qgis")
    return _run


@pytest.mark.qgis
def test_qgis_finds_the_algorithms_through_its_plugin_path(qgis):
    listed = qgis("list").stdout
    assert all(f"geocd:{name}" in listed for name in ("detect", "align", "vectorize"))


@pytest.mark.qgis
def test_detect_and_vectorize_run_in_qgis_and_what_they_write_opens_styled(qgis, pair, tmp_path):
    done = qgis("run", "geocd:detect", f"--BEFORE={pair[0]}", f"--AFTER={pair[1]}",
                f"--OUTPUT={tmp_path / 'c.gpkg'}", f"--MASK={tmp_path / 'm.tif'}",
                f"--SCORES={tmp_path / 's.tif'}", f"--PROJECT={tmp_path / 'c.qgz'}",
                "--ALIGN=off", "--THRESHOLD=0.3")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--align off --threshold 0.3 " in done.stdout
    assert "observed on both dates: 100.0%" in done.stdout
    layers = headless_qgis.probe("project", tmp_path / "c.qgz")["layers"]
    assert all(layer["valid"] for layer in layers.values())
    assert {"Before", "After", "Change map", "Change polygons", "Score: road"} <= set(layers)
    words = (PLUGIN.parent, GEOCD, tmp_path / "s.tif", tmp_path / "v.gpkg")
    assert headless_qgis.probe("load", *words) == {"Change polygons": "categorizedSymbol"}
    done = qgis("run", "geocd:vectorize", f"--SCORES={tmp_path / 's.tif'}", "--SPLIT=false",
                f"--BEFORE={pair[0]}", f"--AFTER={pair[1]}",
                f"--OUTPUT={tmp_path / 'w.gpkg'}")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--regularize --no-split --before " in done.stdout
    found = pyogrio.read_dataframe(tmp_path / "w.gpkg", layer="changes")
    assert found["direction_score"].notna().all()


@pytest.mark.qgis
def test_align_runs_in_qgis(qgis, pair, tmp_path):
    done = qgis("run", "geocd:align", f"--BEFORE={pair[0]}", f"--AFTER={pair[1]}",
                f"--OUTPUT={tmp_path / 'a.tif'}", "--ALIGN=shift")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--align shift --max-shift 100.0" in done.stdout
    assert (tmp_path / "a.tif").is_file()


@pytest.mark.qgis
def test_errors_of_geocd_arrive_in_qgis_as_they_are(qgis, pair, tmp_path):
    elsewhere = write_raster(tmp_path / "far.tif", np.full((3, 64, 64), 90, np.uint8),
                             crs=CRS.from_epsg(32633),
                             transform=Affine(0.5, 0, 6e5, 0, -0.5, 5e6))  # fmt: skip
    with pytest.raises(GeocdError) as caught:
        geocd.detect(pair[0], elsewhere, tmp_path / "c.gpkg")
    done = qgis("run", "geocd:detect", f"--BEFORE={pair[0]}", f"--AFTER={elsewhere}",
                f"--OUTPUT={tmp_path / 'c.gpkg'}")  # fmt: skip
    assert done.returncode != 0
    assert f"Error: {caught.value}" in done.stdout + done.stderr
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".gpkg"] == []


@pytest.mark.qgis
def test_qgis_says_where_geocd_was_looked_for(qgis, pair, tmp_path):
    done = qgis("run", "geocd:align", f"--BEFORE={pair[0]}", f"--AFTER={pair[1]}",
                f"--OUTPUT={tmp_path / 'a.tif'}", path="/usr/bin:/bin")  # fmt: skip
    assert done.returncode != 0
    assert "there is no program geocd on PATH" in done.stdout + done.stderr


@pytest.mark.qgis
def test_cancelling_in_qgis_stops_geocd_and_leaves_no_output(qgis, pair, tmp_path):
    facts = headless_qgis.probe("cancel", PLUGIN.parent, GEOCD, *pair, tmp_path / "c.gpkg")
    assert facts["cancelled"]
    assert facts["percent"] >= 15
    assert "geocd was stopped" in facts["log"]
    assert list(tmp_path.iterdir()) == []
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if _mentions(p, tmp_path)]


def _mentions(command: Path, folder: Path) -> bool:
    try:
        return os.fsencode(folder) in command.read_bytes()
    except OSError:  # it ended meanwhile
        return False
