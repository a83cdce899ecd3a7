"""How fast an archive is indexed, and how much of a run is scheduling.

python benchmarks/archives.py index --files 2000
python benchmarks/archives.py hand-out --units 100000
python benchmarks/archives.py schedule --units 100000 --seconds 0.001 --workers 2
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet
from affine import Affine

from geocd.archive.index import index_archive
from geocd.archive.jobs import Shard, ToDo
from geocd.archive.plan import plan_archive
from geocd.archive.rules import PlanRules
from geocd.archive.run import run_plan
from geocd.archive.unit import Job, Outcome
from geocd.config import DetectConfig
from geocd.testing import write_raster
from geocd.testing.archives import paint_archive


def index(files: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tiles"
        folder.mkdir()
        image = np.random.default_rng(0).integers(1, 255, (3, 32, 32)).astype(np.uint8)
        for number in range(files):
            row, col = divmod(number, 100)
            place = Affine(0.5, 0, 500_000 + 16 * col, 0, -0.5, 5_000_000 - 16 * row)
            write_raster(folder / f"{number:06}.tif", image, crs="EPSG:32633", transform=place)
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            index_archive([folder], Path(name) / "archive.parquet")
            seconds.append(time.perf_counter() - begun)
    first, second = seconds
    print(f"{files} files: first {first:.1f} s ({files / first:.0f} files/s), "
          f"second {second:.2f} s ({first / second:.0f} x faster)")  # fmt: skip


def _sleep(seconds: float, job: Job) -> Outcome:
    time.sleep(seconds)
    return Outcome("done", seconds=seconds)


def schedule(units: int, seconds: float, workers: int) -> None:
    """Units that sleep: what a run takes beyond them, and memory, with that of Dask's scheduler."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _plan_of(units, folder)
        before = _resident()
        begun, busy = time.perf_counter(), time.process_time()
        run_plan(folder / "p.parquet", folder / "out", workers=workers,
                 work=partial(_sleep, seconds))  # fmt: skip
        taken, busy = time.perf_counter() - begun, time.process_time() - busy
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        begun = time.perf_counter()
        again = run_plan(folder / "p.parquet", folder / "out", work=partial(_sleep, seconds))
        resumed = time.perf_counter() - begun
    ideal = units * seconds / workers
    print(f"{units} units of {seconds} s, {workers} workers: {taken:.1f} s, {ideal:.1f} s without "
          f"scheduling, {1000 * (taken - ideal) / units:.2f} ms a unit ({1000 * busy / units:.2f} "
          f"ms of one core); {most:.0f} MB at most, {before:.0f} MB before; called again: "
          f"{again.before} had been done, {resumed:.1f} s")  # fmt: skip


def hand_out(units: int) -> None:
    """What reading a plan and handing it out takes, without anybody who does the units."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _plan_of(units, folder)
        (folder / "out" / "units").mkdir(parents=True)
        before, busy = _resident(), time.process_time()
        todo = ToDo(folder / "p.parquet", folder / "out", Shard(1, 1), "settings", DetectConfig(),
                    retry_failed=False, keep_free=0)  # fmt: skip
        handed_out = sum(1 for _ in todo)
        busy = time.process_time() - busy
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{handed_out} units handed out: {before:.0f} MB before, {most:.0f} MB at most, "
          f"{1000 * busy / units:.2f} ms of one core a unit")  # fmt: skip


def _plan_of(units: int, folder: Path) -> None:
    """A plan of so many units; made in pieces, so that this takes no memory to speak of."""
    paint_archive(folder / "tiles")
    index_archive([folder / "tiles"], folder / "a.parquet")
    plan_archive(folder / "a.parquet", folder / "one.parquet", rules=PlanRules(unit_size=192))
    one = pyarrow.parquet.read_table(folder / "one.parquet")
    piece = pyarrow.concat_tables([one] * (5000 // len(one)))
    with pyarrow.parquet.ParquetWriter(folder / "p.parquet", one.schema) as writer:
        for first in range(0, units, len(piece)):
            part = piece.slice(0, min(len(piece), units - first))
            names = [f"unit_{first + number}" for number in range(len(part))]
            place = part.schema.get_field_index("unit")
            field = part.schema.field("unit")
            writer.write_table(part.set_column(place, field, pyarrow.array(names, field.type)))


def _resident() -> float:
    """Megabytes of this process that are in memory."""
    text = Path("/proc/self/statm").read_text()
    return int(text.split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("index").add_argument("--files", type=int, default=2000)
    what.add_parser("hand-out").add_argument("--units", type=int, default=100_000)
    scheduling = what.add_parser("schedule")
    scheduling.add_argument("--units", type=int, default=200)
    scheduling.add_argument("--seconds", type=float, default=0.05)
    scheduling.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "index":
        index(arguments.files)
    elif arguments.what == "hand-out":
        hand_out(arguments.units)
    else:
        schedule(arguments.units, arguments.seconds, arguments.workers)


if __name__ == "__main__":
    main()
