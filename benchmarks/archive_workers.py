"""What several workers gain, and what a run adds to the time of `detect`; on a quiet machine.

python benchmarks/archive_workers.py gain --side 2304 --workers 2
python benchmarks/archive_workers.py overhead --side 2304

The first runs a painted archive with one worker and with several, one processor each (a run with
one worker is kept to one, so that its reading does not borrow another); the rate is that after
each worker has ended its first unit, because until then processes are started and the alignment
of the pair is measured, once for all; the whole run is told, too. The second does units one after
another and says how much of the time was not spent in `detect`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archive_scenes import command, planned_square

from geocd import pipeline
from geocd.archive import unit
from geocd.archive.run import run_plan


def timed(plan: Path, out: Path, workers: int) -> tuple[float, float]:
    """Seconds of the whole run, and units a second once each worker has ended its first."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:workers])
    begun = time.perf_counter()
    subprocess.run(command(plan, out, "--workers", workers), check=True,
                   env=os.environ | {"OMP_NUM_THREADS": "1"},
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    whole = time.perf_counter() - begun
    os.sched_setaffinity(0, mine)
    lines = (out / "journal.jsonl").read_text().splitlines()
    ends = sorted(json.loads(line)["time"] for line in lines)
    return whole, (len(ends) - workers) / max(ends[-1] - ends[workers - 1], 1e-9)


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


class _Timed:
    """A function whose seconds are added up."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return self._function(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - begun


def overhead(side: int, unit_size: int) -> bool:
    detect, measure = _Timed(pipeline.detect), _Timed(pipeline.measure)
    work = _Timed(unit.do_unit)
    pipeline.detect, pipeline.measure = detect, measure  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as name:
        plan = planned_square(Path(name), side, unit_size)
        begun = time.perf_counter()
        result = run_plan(plan, Path(name) / "out", work=work)
        whole = time.perf_counter() - begun
    bare = detect.seconds + measure.seconds
    print(f"{result.done} units, {whole:.1f} s: {detect.seconds:.1f} s in detect, "
          f"{measure.seconds:.1f} s measuring alignment; on top of that {whole / bare - 1:.1%}, "
          f"of which {(work.seconds - bare) / bare:.1%} checking inputs, cropping and writing "
          f"outputs, the rest plan, lock and journal")  # fmt: skip
    return whole / bare <= 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    for name, side, size in (("gain", 2304, 576), ("overhead", 2304, 2304)):
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
