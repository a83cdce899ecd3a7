"""Running the program geocd: where it is, what it is told, what it says. Knows nothing of QGIS."""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

# What QGIS sets for its own Python, GDAL and PROJ would break those of geocd.
_STRANGE = {"PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "GDAL_DRIVER_PATH"}
_STRANGE_BEGINNING = "PROJ_"
_EVERY = "GEOCD_PROGRESS_EVERY"
_SECONDS = "0.5"
_STEP = re.compile(r"(?P<stage>[a-z ]+): (?P<done>\d+)/(?P<total>\d+) \(\d+ s\)")
_STAGES = {
    "align": (0, 15), "predict": (15, 70), "resample": (70, 75), "write rasters": (75, 80),
    "trace": (80, 90), "check": (90, 93), "draw": (93, 97), "thumbnails": (97, 100),
}  # fmt: skip
"""Percent of a run at which stages usually begin and end."""
_PATIENCE = 20.0
"""Seconds in which a cancelled run may remove its temporary files."""


class GeocdNotFoundError(Exception):
    """The program geocd is not where it was looked for."""


def find_geocd(chosen: str) -> str:
    """Path of the program.

    Args:
        chosen: path from the settings; empty: the one on PATH.

    Raises:
        GeocdNotFoundError: there is no such program.
    """
    found = shutil.which(chosen or "geocd")
    if found is None:
        where = f"at {chosen}" if chosen else "on PATH"
        raise GeocdNotFoundError(
            f"there is no program geocd {where}; install it in a Python environment of its own "
            "(not in that of QGIS), and name its file in Settings > Options > Processing > "
            "Providers > geocd"
        )
    return found


def clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that are meant for QGIS, and with frequent progress."""
    kept = {
        name: value
        for name, value in variables.items()
        if name not in _STRANGE and not name.startswith(_STRANGE_BEGINNING)
    }
    return {**kept, _EVERY: _SECONDS, "PYTHONUNBUFFERED": "1"}


def percent_of(line: str) -> float | None:
    """How far the whole run is by a line of progress, 0..100; None for other lines."""
    found = _STEP.fullmatch(line.strip())
    if found is None or found["stage"] not in _STAGES:
        return None
    begin, end = _STAGES[found["stage"]]
    share = int(found["done"]) / max(int(found["total"]), 1)
    return begin + (end - begin) * min(share, 1.0)


def is_progress(line: str) -> bool:
    """Whether a line only tells how far a stage is."""
    return _STEP.fullmatch(line.strip()) is not None


def run(
    command: Sequence[str],
    *,
    heard: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> int:
    """Run a program to its end, or stop it.

    A cancelled program is asked to end (SIGTERM), upon which geocd removes what it has begun to
    write; one that does not is killed.

    Args:
        command: the program and what it is told.
        heard: called with each line that it says, in the thread of the caller.
        cancelled: asked ten times a second.

    Returns:
        Its exit code; negative if a signal ended it.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=clean_environment(os.environ), text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_listen, args=(process, lines), daemon=True).start()
    while True:
        if cancelled():
            return _stopped(process)
        try:
            line = lines.get(timeout=0.1)
        except queue.Empty:
            continue
        if line is None:
            return process.wait()
        heard(line)


def _listen(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout as said:
        for line in said:
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _stopped(process: subprocess.Popen[str]) -> int:
    process.terminate()
    try:
        return process.wait(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
