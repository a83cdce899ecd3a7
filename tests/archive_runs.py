"""A small planned archive, and runs of it that are processes of their own and can be killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from affine import Affine

from geocd.archive.index import index_archive
from geocd.archive.plan import plan_archive
from geocd.archive.rules import PlanRules
from geocd.testing import paint_scene, write_raster

STUB = Path(__file__).parent / "archive_stub.py"
UNITS = 9
"""Units of the plan."""


def paint_plan(folder, *, islands=()):
    """Two dates of 3 x 3 tiles, a bright block in the middle; more tiles far to the east."""
    (folder / "tiles").mkdir(parents=True)
    size = 128
    before = paint_scene((3 * size,) * 2, seed=1) // 2 + 40
    after = before.copy()
    after[:, 150:250, 150:250] = 250
    places = [(row, col, col) for row in range(3) for col in range(3)]
    for date, image in (("2015-06-01", before), ("2018-06-01", after)):
        for row, col, east in [*places, *((0, 0, east) for east in islands)]:
            place = Affine(0.5, 0, 500_000 + 64 * east, 0, -0.5, 5_000_000 - 64 * row)
            part = image[:, row * size : (row + 1) * size, col * size : (col + 1) * size]
            write_raster(folder / "tiles" / f"{date}_{row}{east}.tif", part, crs="EPSG:32633",
                         transform=place)  # fmt: skip
    index_archive([folder / "tiles"], folder / "a.parquet", date_pattern="YYYY-MM-DD")
    rules = PlanRules(unit_size=192)
    return plan_archive(folder / "a.parquet", folder / "p.parquet", rules=rules).output


def outputs_of(folder):
    """What a run has made, by name; nothing else may lie in its folder."""
    known = {"units", "pairs", "plan.parquet", "settings.json", "run.lock"}
    left = {path.name for path in folder.iterdir()} - known
    assert all(name.startswith("journal") for name in left), left
    assert {path.suffix for path in folder.glob("pairs/*")} <= {".json", ""}
    assert {path.suffix for path in folder.glob("units/*")} <= {".tif", ".parquet"}
    assert not list(folder.glob("units/.*"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("units/*")}


def start(plan, folder, *options, **environment):
    """A run with the stand-in, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(STUB), str(plan), str(folder), *map(str, options)],
        env=os.environ | {name: str(value) for name, value in environment.items()},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def begun(folder):
    """Units that were begun with the stand-in, and the processes they were begun in."""
    log = folder.parent / f"{folder.name}.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(name, int(pid)) for name, pid in map(str.split, lines)]


def wait_for(condition, process=None, seconds=300):
    """What a condition gives as soon as it gives anything."""
    deadline = time.monotonic() + seconds
    while not (met := condition()):
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)
    return met


def kill(process):
    """As the kernel would, for want of memory: without a warning."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def running(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
