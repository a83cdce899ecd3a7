"""The code base keeps its own rules: lint, types, contracts, surface, wheel, light imports."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

import geocd

BIN = Path(sys.executable).parent
SURFACE = Path(__file__).parent / "surface.json"


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]],
    ids=lambda command: " ".join(command[:2]),
)
def test_lint_types_and_contracts_are_clean(command):
    done = _run(BIN / command[0], *command[1:])
    assert done.returncode == 0, done.stdout + done.stderr


def test_public_names_are_the_recorded_ones():
    assert sorted(geocd.__all__) == json.loads(SURFACE.read_text())
    assert all(hasattr(geocd, name) for name in geocd.__all__)


@pytest.mark.parametrize("command", [["-c", "import geocd"], ["-m", "geocd_cli", "--help"]])
def test_importing_and_asking_for_help_load_neither_torch_nor_rasterio(command):
    done = _run(sys.executable, "-X", "importtime", *command)
    assert done.returncode == 0
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "geocd" in loaded
    assert loaded.isdisjoint({"torch", "rasterio", "geopandas", "numpy", "cv2"})


def test_the_wheel_holds_two_packages_the_weights_and_the_styles(tmp_path):
    done = _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"geocd", "geocd_cli"}
    for wanted in ("weights/geocd-vhr.safetensors", "styles/changes.qml", "recipes/geocd-vhr.toml",
                   "assets/report.html", "assets/labelling.html", "leaflet/LICENSE",
                   "geocd/py.typed"):  # fmt: skip
        assert any(n.endswith(wanted) for n in names), wanted
