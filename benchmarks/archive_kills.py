"""Runs of a painted archive that are killed, or shared by two, against one that nothing happens to.

python benchmarks/archive_kills.py kills --kills 10 --seed 0
python benchmarks/archive_kills.py shards --namespaces

Both call the real command with the weights that come with geocd; with --cheap, the same run with
a stand-in for the network, on more units. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from archive_scenes import command, planned_history, planned_square
from geopandas.testing import assert_geodataframe_equal

KINDS = ("run", "worker", "write")
"""What is killed: the run's own process; a worker, and the run after it has gone on; the run with
all its workers while one of them has a file half written."""
_APART = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


@dataclass(frozen=True)
class Runs:
    """How a plan is run: the plan, the workers, and whether the network is stood in for."""

    plan: Path
    workers: int
    cheap: bool

    def start(self, out: Path, *options: object, apart: bool = False) -> subprocess.Popen[bytes]:
        """A run in a session of its own; apart: in a network of its own, too."""
        words = command(self.plan, out, "--workers", self.workers, *options, cheap=self.cheap)
        return subprocess.Popen([*(_APART if apart else []), *words], start_new_session=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env=os.environ | {"STUB_SECONDS": "0.2"})  # fmt: skip

    def undisturbed(self, out: Path) -> None:
        """A run that nothing happens to."""
        begun = time.monotonic()
        if self.start(out).wait() != 0:
            raise SystemExit("the run that nothing was done to failed")
        print(f"nothing killed: {time.monotonic() - begun:.0f} s", flush=True)


@dataclass
class Watch:
    """Looks at the folder of a run every few milliseconds."""

    out: Path
    attempts: set[str] = field(default_factory=set)
    """Units that were begun: unit, process and a random name."""

    def look(self) -> list[Path]:
        """Folders in which units are being done."""
        now = list(self.out.glob("work/2*/*"))
        self.attempts.update(f"{path.parent.name}/{path.name}" for path in now)
        return now

    def until(self, condition: Callable[[], object], process: subprocess.Popen[bytes]) -> bool:
        """Look until a condition holds; False if the process ends before."""
        while process.poll() is None:
            self.look()
            if condition():
                return True
            time.sleep(0.005)
        return False

    def half_written(self) -> list[Path]:
        """Rasters that are being made."""
        return [p for folder in self.look() for p in folder.glob("*.tif") if p.exists()]

    def lines(self) -> Counter[str]:
        """How often the journal says of each unit that it is done."""
        journal = self.out / "journal.jsonl"
        done: Counter[str] = Counter()
        for line in journal.read_text().splitlines() if journal.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            done[entry["unit"]] += entry["status"] in ("done", "empty")
        return done


def killed(kind: str, runs: Runs, watch: Watch, rng: np.random.Generator) -> str:
    """Start a run and kill it; what was killed and what it left, or nothing if it ended before."""
    process = runs.start(watch.out)
    before = len(watch.attempts)
    more = int(rng.integers(1, 8))
    if not watch.until(lambda: len(watch.attempts) >= before + more, process):
        return ""
    if kind == "write":
        if not watch.until(watch.half_written, process):
            return ""
        os.killpg(process.pid, signal.SIGKILL)
    else:
        end = time.monotonic() + rng.uniform(0, 2)
        watch.until(lambda: time.monotonic() > end, process)
        if kind == "worker" and not _worker_killed(watch, process):
            return ""
        process.kill()
    if process.wait() == 0:
        return ""
    left = len(list(watch.out.glob("work/2*/*/*")))
    seconds = _alone(process.pid)
    done = sum(watch.lines().values())
    return f"{kind}: {done} done, {left} files half made, all gone after {seconds:.1f} s"


def _worker_killed(watch: Watch, process: subprocess.Popen[bytes]) -> bool:
    """Kill a worker that has a unit in hand; whether the run then goes on."""
    if not watch.until(watch.look, process):
        return False
    folders = watch.look()
    if not folders:
        return True
    pid = int(folders[0].name.partition("-")[0])
    assert pid != process.pid
    os.kill(pid, signal.SIGKILL)
    done = sum(watch.lines().values())
    return watch.until(lambda: sum(watch.lines().values()) > done, process)


def _alone(session: int) -> float:
    """Seconds until nothing of a session runs any more."""
    begun = time.monotonic()
    while any(_of_session(path, session) for path in Path("/proc").glob("[0-9]*/stat")):
        if time.monotonic() - begun > 120:
            raise SystemExit("workers outlive their run")
        time.sleep(0.05)
    return time.monotonic() - begun


def _of_session(path: Path, session: int) -> bool:
    try:
        values = path.read_text().rpartition(")")[2].split()
    except OSError:
        return False  # it has just ended
    return values[0] != "Z" and int(values[3]) == session


def differences(one: Path, other: Path) -> list[str]:
    """Files of two runs that are not there in both, or hold something else."""
    names = [{path.name for path in out.glob("units/*")} for out in (one, other)]
    wrong = sorted(names[0] ^ names[1])
    for name in sorted(names[0] & names[1]):
        paths = [out / "units" / name for out in (one, other)]
        if paths[0].read_bytes() == paths[1].read_bytes():
            continue
        if paths[0].suffix == ".tif":
            with rasterio.open(paths[0]) as a, rasterio.open(paths[1]) as b:
                same = np.array_equal(a.read(), b.read()) and a.tags() == b.tags()
        else:
            same = geopandas.read_parquet(paths[0]).equals(geopandas.read_parquet(paths[1]))
        wrong += [] if same else [name]
    return wrong


def strays(out: Path) -> list[str]:
    """What lies in the folder of a run that has ended and should not."""
    known = {"units", "pairs", "plan.parquet", "settings.json", "run.lock"}
    found = [p.name for p in out.iterdir() if p.name not in known]
    found = [name for name in found if not name.startswith("journal")]
    stems = Counter(p.stem for p in out.glob("units/*"))
    return found + [stem for stem, count in stems.items() if count != 2]


def merged(out: Path) -> geopandas.GeoDataFrame:
    target = out.with_suffix(".parquet")
    words = [sys.executable, "-m", "geocd_cli", "archive", "merge", str(out), "-o", str(target)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return geopandas.read_parquet(target)


def _compare(calm: Path, out: Path) -> bool:
    wrong, stray = differences(calm, out), strays(out)
    layers = merged(calm), merged(out)
    assert_geodataframe_equal(*layers)
    print(f"{len(list(calm.glob('units/*')))} files, {len(wrong)} differ; {len(stray)} strays; "
          f"the merged layers are equal ({len(layers[0])} polygons)")  # fmt: skip
    return not wrong and not stray


def kills(runs: Runs, folder: Path, count: int, seed: int) -> bool:
    runs.undisturbed(folder / "calm")
    rng, watch = np.random.default_rng(seed), Watch(folder / "out")
    done = 0
    for number in range(count):
        told = killed(KINDS[number % 3], runs, watch, rng)
        done += bool(told)
        print(f"kill {number + 1}, {told or 'too late: the run had ended'}", flush=True)
    process = runs.start(watch.out)
    watch.until(lambda: False, process)
    lines = watch.lines()
    again = len(watch.attempts) - len(lines)
    # A worker that was killed had one in hand, and the run that was killed after it as many as it
    # has workers.
    bound = done * runs.workers + sum(KINDS[n % 3] == "worker" for n in range(count))
    print(f"{done} kills, {len(lines)} units, begun again {again} times (at most {bound} were in "
          f"flight), lines of a unit in the journal: {set(lines.values())}")  # fmt: skip
    sound = process.returncode == 0 and again <= bound and set(lines.values()) == {1}
    return _compare(folder / "calm", watch.out) and sound and done == count


def shards(runs: Runs, folder: Path, namespaces: bool) -> bool:
    runs.undisturbed(folder / "calm")
    parts = [
        runs.start(folder / "out", "--shard", f"{part}/2", apart=namespaces) for part in (1, 2)
    ]
    codes = [process.wait() for process in parts]
    return _compare(folder / "calm", folder / "out") and codes == [0, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    killing = what.add_parser("kills")
    killing.add_argument("--kills", type=int, default=10)
    killing.add_argument("--seed", type=int, default=0)
    sharing = what.add_parser("shards")
    sharing.add_argument("--namespaces", action="store_true", help="A network for each; as root.")
    for one in (killing, sharing):
        one.add_argument("--workers", type=int, default=2)
        one.add_argument("--cheap", action="store_true", help="A stand-in for the network.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = planned_square(folder, 1152, 192) if options.cheap else planned_history(folder)
        runs = Runs(plan, options.workers, options.cheap)
        if options.what == "kills":
            sound = kills(runs, folder, options.kills, options.seed)
        else:
            sound = shards(runs, folder, options.namespaces)
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
