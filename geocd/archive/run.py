"""Doing a plan: what is missing or differs is done, whatever happened before."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from geocd.archive.jobs import Shard, ToDo, read_units
from geocd.archive.journal import Journal
from geocd.archive.lock import locked
from geocd.archive.unit import PLAN as PLAN
from geocd.archive.unit import UNITS, WORK, Job, Outcome, do_unit, publish, settings_hash
from geocd.archive.workers import Alone, Cluster, Work, Workers
from geocd.config import DetectConfig
from geocd.errors import ConfigError, OutputError
from geocd.words import counted

Progress = Callable[[int, int, int], None]
"""Called with the units done, those that failed, and all that there are to do."""
KEEP_FREE = 256 * 2**20
"""Bytes that a run leaves free on the disk."""
SETTINGS = "settings.json"
_KEEPING = "keep-"
"""How names of folders begin in which the two are made."""


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
    config, out, own = config or DetectConfig(), Path(folder), Shard.parse(shard)
    if workers < 1:
        raise ConfigError(f"there must be at least one worker, got {workers}")
    settings = settings_hash(config)
    for _ in read_units(Path(plan), own, ["unit"]):
        break  # a file that is no plan is refused before anything is written
    for name in ("", UNITS, WORK):
        (out / name).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(out, shard, announce))
        _keep(Path(plan), out, own, settings, config)
        _sweep(out, own)
        todo = ToDo(out / PLAN, out, own, settings, config,
                    retry_failed=retry_failed, keep_free=keep_free)  # fmt: skip
        result = RunResult(out, todo.units, todo.before, todo.given_up)
        total = len(todo)
        if total:
            alone = workers == 1 and scheduler is None
            crew: Workers = Alone() if alone else Cluster(workers, scheduler)
            stack.enter_context(crew)
            if crew.dashboard and announce:
                announce(f"dashboard: {crew.dashboard}")
            name = "journal.jsonl" if own.parts == 1 else f"journal-{own}.jsonl"
            journal = stack.enter_context(Journal(out / name))
            for job, outcome in crew.run(partial(_guarded, work, keep_free), iter(todo)):
                _record(journal, job, outcome, result, todo)
                if progress:
                    progress(result.done, len(result.failed), total)
            if todo.full:
                raise OutputError(_full(result, total))
        _sweep(out, own)
        with contextlib.suppress(OSError):
            (out / WORK).rmdir()  # unless another shard works in it
    return result


def _keep(plan: Path, out: Path, own: Shard, settings: str, config: DetectConfig) -> None:
    """The plan and the settings, for whoever merges the folder."""
    record = {"settings": settings, "config": dataclasses.asdict(config)}
    # Not beside their places: what is left there when this is killed, nobody would remove.
    work = out / WORK / f"{_KEEPING}{own}"
    try:
        work.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan, work / PLAN)
        (work / SETTINGS).write_text(json.dumps(record, indent=1, sort_keys=True))
        publish([work / PLAN, work / SETTINGS], out)
    except OSError as error:
        raise OutputError(
            f"cannot write to {out}: {error.strerror}; make room, or write elsewhere"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sweep(out: Path, own: Shard) -> None:
    """Remove what was being made when it was killed: by this shard, or by one of another count.

    The lock keeps shards of another count away, so nobody is making that any more.
    """
    names = {path.name for path in (out / WORK).glob("*")}
    gone = {name for name in names if name.startswith(_KEEPING)}
    gone = {name for name in gone if not name.endswith(f"-of-{own.parts}")}
    units = names if own.parts == 1 else (u["unit"] for u in read_units(out / PLAN, own, ["unit"]))
    for name in names & {*gone, *units}:
        shutil.rmtree(out / WORK / name, ignore_errors=True)


def _guarded(work: Work, keep_free: int, job: Job) -> Outcome:
    """The outcome of a unit, whatever happens in it."""
    try:
        return work(job)
    except Exception as error:
        if _for_want_of_room(error, Path(job.folder), keep_free):
            return Outcome("full", str(error))
        return Outcome("failed", f"{type(error).__name__}: {error}")


def _for_want_of_room(error: BaseException | None, folder: Path, keep_free: int) -> bool:
    # A quota can be used up where the disk is not. Libraries report both in words of their own;
    # then free space speaks for itself.
    if shutil.disk_usage(folder).free < keep_free:
        return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _record(
    journal: Journal, job: Job, outcome: Outcome, result: RunResult, todo: ToDo
) -> None:  # fmt: skip
    """Write down what became of a unit."""
    if outcome.status == "full":
        todo.full = True
        return
    try:
        journal.write(
            dataclasses.asdict(outcome) | {
                "unit": job.name, "fingerprint": job.fingerprint, "host": socket.gethostname(),
                "time": round(time.time(), 3), "seconds": round(outcome.seconds, 3),
            }
        )  # fmt: skip
    except OutputError:
        # A unit that no line tells of is done again.
        todo.full = True
        return
    if outcome.status == "failed":
        result.failed[job.name] = outcome.error or ""
        return
    result.done += 1
    result.changes += outcome.changes
    todo.remove_old(job)


def _full(result: RunResult, total: int) -> str:
    left = total - result.done - len(result.failed)
    return (
        f"the disk of {result.folder} is full: {counted(result.done + result.before, 'unit')} done "
        f"and kept, {left} left; make room, then run the same command again"
    )
