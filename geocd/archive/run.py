"""Doing a plan: what is missing or differs is done, whatever happened before."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import geopandas

from geocd.archive.journal import Journal, read_journals
from geocd.archive.lock import locked
from geocd.archive.plan import read_plan
from geocd.archive.unit import UNITS, WORK, Job, Outcome, do_unit, fingerprint, settings_hash
from geocd.archive.workers import Alone, Cluster, Work, Workers
from geocd.config import DetectConfig
from geocd.errors import ConfigError, OutputError
from geocd.outputs import replacing
from geocd.words import counted

Progress = Callable[[int, int, int], None]
"""Called with the units done, those that failed, and all that there are to do."""
KEEP_FREE = 256 * 2**20
"""Bytes that a run leaves free on the disk."""
PLAN, SETTINGS = "plan.parquet", "settings.json"


@dataclass(slots=True)
class RunResult:
    """What a run did."""

    folder: Path
    units: int
    """Units of the plan, or of the shard."""
    before: int
    """Units that had been done before."""
    given_up: int
    """Units that had failed before and were not tried again."""
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Why units failed, by unit."""
    changes: int = 0
    """Polygons of the units that were done."""

    def report(self) -> str:
        """The summary, for people."""
        counts = f"{self.before} had been done before, {len(self.failed)} failed"
        lines = [f"{counted(self.done, 'unit')} done, {counts} -> {self.folder}"]
        lines += [f"  failed: {unit}: {error}" for unit, error in sorted(self.failed.items())]
        if self.given_up:
            lines.append(f"  {self.given_up} failed in runs before; try them with --retry-failed")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The summary, JSON-ready."""
        return dataclasses.asdict(self) | {"folder": str(self.folder)}


def run_plan(
    plan: str | Path,
    folder: str | Path,
    *,
    config: DetectConfig | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    shard: str = "1/1",
    retry_failed: bool = False,
    keep_free: int = KEEP_FREE,
    work: Work = do_unit,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> RunResult:
    """Do the units of a plan that are not done yet with the same inputs, weights and settings.

    Every unit writes its files whole or not at all, then a line of the journal says so. The
    process may be killed at any time; the same call goes on.

    Args:
        plan: as `plan_archive` writes it.
        folder: of the run; made if it is not there.
        config: settings of `detect`; where they differ from before, units are done again.
        workers: processes; more than one takes Dask.
        scheduler: address of a Dask scheduler, instead of processes here.
        shard: "i/n": every n-th unit, from the i-th on; shards may run at the same time.
        retry_failed: try units again that failed before with the same fingerprint.
        keep_free: bytes that stay free on the disk.
        work: what does a unit.
        progress: called with the units done, those that failed, and all there are to do.
        announce: told where Dask shows the work, before it begins.

    Raises:
        InputError: the plan cannot be used.
        OutputError: another run works in the folder, or the disk is full; what is done is kept.
        BackendError: the scheduler cannot be reached, or went away.
    """
    config, out = config or DetectConfig(), Path(folder)
    part, parts = _parsed_shard(shard)
    if workers < 1:
        raise ConfigError(f"there must be at least one worker, got {workers}")
    units = read_plan(Path(plan))
    settings = settings_hash(config)
    for name in ("", UNITS, WORK):
        (out / name).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(out, shard))
        _keep(Path(plan), out, settings, config)
        mine = units.iloc[part - 1 :: parts]
        _sweep(out, set(mine["unit"]))
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(out / UNITS)}
        jobs, result = _to_do(mine, out, settings, config, sizes, retry_failed=retry_failed)
        if jobs:
            alone = workers == 1 and scheduler is None
            crew: Workers = Alone() if alone else Cluster(workers, scheduler)
            stack.enter_context(crew)
            if crew.dashboard and announce:
                announce(f"dashboard: {crew.dashboard}")
            name = "journal.jsonl" if parts == 1 else f"journal-{part}-of-{parts}.jsonl"
            journal = stack.enter_context(Journal(out / name))
            taken = _Taking(jobs, out, keep_free)
            superseded: dict[str, list[str]] = {}
            for old in sizes:
                superseded.setdefault(old.rsplit(".", 2)[0], []).append(old)
            for job, outcome in crew.run(partial(_guarded, work, keep_free), iter(taken)):
                if _record(journal, job, outcome, result, taken):
                    _remove(superseded.get(job.name, []), job, out)
                if progress:
                    progress(result.done, len(result.failed), len(jobs))
            taken.refuse_if_full(result)
        _sweep(out, set(mine["unit"]))
        with contextlib.suppress(OSError):
            (out / WORK).rmdir()  # unless another shard works in it
    return result


def _parsed_shard(shard: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"a shard is i/n with i from 1 to n, such as 2/8; got {shard!r}")
    return int(match[1]), int(match[2])


def _keep(plan: Path, out: Path, settings: str, config: DetectConfig) -> None:
    """The plan and the settings, for whoever merges the folder."""
    if not (out / PLAN).exists() or not (out / PLAN).samefile(plan):
        with replacing(out / PLAN) as draft:
            shutil.copyfile(plan, draft)
    record = {"settings": settings, "config": dataclasses.asdict(config)}
    with replacing(out / SETTINGS) as draft:
        draft.write_text(json.dumps(record, indent=1, sort_keys=True))


def _sweep(out: Path, mine: set[str]) -> None:
    """Remove what units were making when they were killed."""
    for left in list((out / WORK).glob("*")):
        if left.name in mine:
            shutil.rmtree(left, ignore_errors=True)


def _to_do(
    units: geopandas.GeoDataFrame, out: Path, settings: str, config: DetectConfig,
    sizes: dict[str, int], *, retry_failed: bool,
) -> tuple[list[Job], RunResult]:  # fmt: skip
    states = read_journals(out)
    result = RunResult(out, len(units), 0, 0)
    jobs = []
    for unit in units.drop(columns=["geometry"]).to_dict("records"):
        job = Job(unit, fingerprint(unit, settings), str(out), config)
        state = states.get((job.name, job.fingerprint), {})
        outputs = state.get("outputs", {})
        whole = all(sizes.get(name) == size for name, size in outputs.items())
        if state.get("status") in ("done", "empty") and whole:
            result.before += 1
        elif state.get("status") == "failed" and not retry_failed:
            result.given_up += 1
        else:
            jobs.append(job)
    return jobs, result


class _Taking:
    """Gives out jobs as long as there is room on the disk."""

    def __init__(self, jobs: list[Job], out: Path, keep_free: int) -> None:
        self._jobs, self._out, self._keep_free = jobs, out, keep_free
        self.full = False

    def __iter__(self) -> Iterator[Job]:
        for job in self._jobs:
            self.full = self.full or shutil.disk_usage(self._out).free < self._keep_free
            if self.full:
                return
            yield job

    def refuse_if_full(self, result: RunResult) -> None:
        if self.full:
            left = len(self._jobs) - result.done - len(result.failed)
            raise OutputError(
                f"the disk of {self._out} is full: {result.done + result.before} units are done "
                f"and kept, {left} are left; make room, then run the same command again"
            )


def _guarded(work: Work, keep_free: int, job: Job) -> Outcome:
    """The outcome of a unit, whatever happens in it."""
    try:
        return work(job)
    except Exception as error:
        # Libraries report a full disk in words of their own; free space speaks for itself.
        if shutil.disk_usage(job.folder).free < keep_free:
            return Outcome("full", str(error))
        return Outcome("failed", f"{type(error).__name__}: {error}")


def _record(
    journal: Journal, job: Job, outcome: Outcome, result: RunResult, taken: _Taking
) -> bool:  # fmt: skip
    """Write down what became of a unit; whether it is done."""
    if outcome.status == "full":
        taken.full = True
        return False
    try:
        journal.write(
            dataclasses.asdict(outcome) | {
                "unit": job.name, "fingerprint": job.fingerprint, "host": socket.gethostname(),
                "time": round(time.time(), 3), "seconds": round(outcome.seconds, 3),
            }
        )  # fmt: skip
    except OutputError:
        # A unit that no line tells of is done again.
        taken.full = True
        return False
    if outcome.status == "failed":
        result.failed[job.name] = outcome.error or ""
        return False
    result.done += 1
    result.changes += outcome.changes
    return True


def _remove(names: list[str], job: Job, out: Path) -> None:
    """Remove the files that a unit had under other settings."""
    for name in names:
        if not name.startswith(f"{job.stem}."):
            (out / UNITS / name).unlink(missing_ok=True)
