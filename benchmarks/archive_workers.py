"""What several workers gain, and what a run adds to the time of `detect`; on a quiet machine.

python benchmarks/archive_workers.py gain --side 4608 --workers 2
python benchmarks/archive_workers.py overhead --side 2304

The first runs a painted archive with one worker and with several, one processor each, as users
do; the rate is that between the first unit's begin and the last one's end, so that starting the
processes, which is told too, does not hide in it. The second does units one after another and
says how much of the time was not spent in `detect`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from archive_scenes import command, planned_square

import geocd.pipeline
from geocd.archive import unit
from geocd.archive.run import run_plan
from geocd.archive.unit import Job, Outcome


def timed(plan: Path, out: Path, workers: int) -> tuple[float, float]:
    """Seconds of the whole run, and units a second between the first begin and the last end."""
    begun = time.perf_counter()
    subprocess.run(command(plan, out, "--workers", workers), check=True, stdout=subprocess.DEVNULL,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    whole = time.perf_counter() - begun
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    first = min(line["time"] - line["seconds"] for line in lines)
    return whole, len(lines) / (max(line["time"] for line in lines) - first)


def gain(side: int, unit_size: int, workers: int) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = planned_square(folder, side, unit_size)
        tiny = Path(name) / "tiny"
        tiny.mkdir()
        timed(
            planned_square(tiny, 192, 192), tiny / "out", 1
        )  # converts the network, once per machine
        one = timed(plan, folder / "one", 1)
        several = timed(plan, folder / "several", workers)
    print(f"1 worker: {one[0]:.0f} s, {60 * one[1]:.1f} units a minute; {workers} workers: "
          f"{several[0]:.0f} s, {60 * several[1]:.1f} units a minute; {several[1] / one[1]:.2f} "
          f"times as many, the whole run {one[0] / several[0]:.2f} times as fast "
          f"(load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores)")  # fmt: skip
    return several[1] / one[1] >= 1.7


def overhead(side: int, unit_size: int) -> bool:
    spent = {"detect": 0.0, "unit": 0.0}
    detect = geocd.pipeline.detect

    def timed_detect(*arguments: object, **options: object) -> object:
        begun = time.perf_counter()
        try:
            return detect(*arguments, **options)  # type: ignore[arg-type]
        finally:
            spent["detect"] += time.perf_counter() - begun

    def timed_unit(job: Job) -> Outcome:
        begun = time.perf_counter()
        try:
            return unit.do_unit(job)
        finally:
            spent["unit"] += time.perf_counter() - begun

    geocd.pipeline.detect = timed_detect
    with tempfile.TemporaryDirectory() as name:
        plan = planned_square(Path(name), side, unit_size)
        begun = time.perf_counter()
        result = run_plan(plan, Path(name) / "out", work=timed_unit)
        whole = time.perf_counter() - begun
    shares = [part / spent["detect"] for part in (spent["unit"] - spent["detect"],
                                                  whole - spent["unit"])]  # fmt: skip
    print(f"{result.done} units, {whole:.1f} s, of which {spent['detect']:.1f} s in detect; "
          f"inputs checked, outputs cropped and written {shares[0]:.1%}, plan, lock, journal "
          f"{shares[1]:.1%}")  # fmt: skip
    return whole / spent["detect"] <= 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    for name, side, size in (("gain", 4608, 1152), ("overhead", 2304, 2304)):
        one = what.add_parser(name)
        one.add_argument("--side", type=int, default=side, help="Of the painted ground, in pixels.")
        one.add_argument("--unit-size", type=int, default=size)
        if name == "gain":
            one.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    sound = (
        gain(options.side, options.unit_size, options.workers)
        if options.what == "gain"
        else overhead(options.side, options.unit_size)
    )
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
