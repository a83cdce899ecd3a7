"""Debian's QGIS without a window: its environment, and what a probe sees in it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
# The virtual environment's GDAL and PROJ are not those of Debian's QGIS.
_STRANGE = ("PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "PROJ_LIB", "PROJ_DATA", "VIRTUAL_ENV")


def environment(**more: str) -> dict[str, str]:
    """Variables under which QGIS runs headless."""
    kept = {k: v for k, v in os.environ.items() if k not in _STRANGE}
    return kept | {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": "/tmp"} | more


def require() -> None:
    """Skip the test where QGIS is not installed."""
    try:
        found = subprocess.run([SYSTEM_PYTHON, "-c", "import qgis.core"], env=environment(),
                               capture_output=True).returncode == 0  # fmt: skip
    except OSError:
        found = False
    if not found:
        pytest.skip("Debian's QGIS is not installed (make system-deps)")


def probe(kind: str, path: Path | str, *more: Path | str) -> dict[str, object]:
    """What QGIS finds in a file; see ``qgis_probe.py``."""
    done = subprocess.run(
        [SYSTEM_PYTHON, Path(__file__).parent / "qgis_probe.py", kind, path, *more],
        env=environment(), capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
