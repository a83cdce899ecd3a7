"""What a run has to do, read from its plan in batches: memory does not grow with the plan."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from geocd.archive.journal import read_journals
from geocd.archive.plan import refuse_other_versions
from geocd.archive.unit import UNITS, Job, fingerprint
from geocd.config import DetectConfig
from geocd.errors import ConfigError, InputError

_BATCH = 256
"""Units that are read at once: each names all tiles that it sees."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Every ``parts``-th unit of a plan, from the ``part``-th on."""

    part: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "i/n".

        Raises:
            ConfigError: it is no such thing.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f"a shard is i/n with i from 1 to n, such as 2/8; got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.part}-of-{self.parts}"


def read_units(
    plan: Path, shard: Shard, columns: list[str] | None = None
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The units of a shard, one after another, by column; without their outlines.

    Raises:
        InputError: the plan is missing, no plan, or one of another version.
    """
    number = 0
    try:
        with ParquetFile(plan) as file:
            names = file.schema_arrow.names
            if not {"unit", "version"} <= set(names):
                refuse_other_versions(plan, {"of something else"})
            columns = columns or [name for name in names if name != "geometry"]
            for batch in file.iter_batches(_BATCH, columns=[*{*columns, "version"}]):
                refuse_other_versions(plan, set(batch["version"].to_pylist()))
                for unit in batch.to_pylist():
                    if number % shard.parts == shard.part - 1:
                        yield unit
                    number += 1
    except (ArrowException, OSError) as error:
        raise InputError(f"cannot read the plan {plan}: {error}") from None


class ToDo:
    """The units of a shard that are missing, or whose inputs, weights or settings differ.

    The plan is read twice: once to know how much there is to do, once to hand it out.

    Args:
        plan: must stay as it is.
        out: folder of the run.
        shard: whose units.
        settings: hash of what decides a result beside the inputs.
        config: settings.
        retry_failed: count units that failed before.
        keep_free: bytes that stay free on the disk; when they no longer do, nothing more is
            handed out.

    Attributes:
        units: of the shard.
        before: of these, done before.
        given_up: of these, failed before and not tried again.
        full: whether the disk is; others may say so, too.

    Raises:
        InputError: the plan cannot be used.
    """

    def __init__(
        self, plan: Path, out: Path, shard: Shard, settings: str, config: DetectConfig, *,
        retry_failed: bool, keep_free: int,
    ) -> None:  # fmt: skip
        self._plan, self._out, self._shard = plan, out, shard
        self._settings, self._config, self._keep_free = settings, config, keep_free
        self.units = self.before = self.given_up = 0
        self.full = False
        self._wanted = bytearray()  # a byte a unit
        self._old: dict[str, list[str]] = {}
        self._look(retry_failed)

    def __len__(self) -> int:
        return sum(self._wanted)

    def __iter__(self) -> Iterator[Job]:
        for wanted, job in zip(self._wanted, self._jobs(), strict=True):
            if not wanted:
                continue
            self.full = self.full or shutil.disk_usage(self._out).free < self._keep_free
            if self.full:
                return
            yield job

    def remove_old(self, job: Job) -> None:
        """Remove the files that a unit, now done, had under other settings."""
        for name in self._old.pop(job.name, []):
            (self._out / UNITS / name).unlink(missing_ok=True)

    def _jobs(self) -> Iterator[Job]:
        for unit in read_units(self._plan, self._shard):
            mark = fingerprint(unit, self._settings)
            yield Job(unit, mark, str(self._out), self._config)

    def _look(self, retry_failed: bool) -> None:
        states = read_journals(self._out)
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self._out / UNITS)}
        files: dict[str, list[str]] = {}
        for name in sizes:
            files.setdefault(name.rsplit(".", 2)[0], []).append(name)
        for job in self._jobs():
            self.units += 1
            state = states.get((job.name, job.fingerprint), {})
            outputs = state.get("outputs", {})
            whole = all(sizes.get(name) == size for name, size in outputs.items())
            done = state.get("status") in ("done", "empty") and whole
            given_up = state.get("status") == "failed" and not retry_failed
            self.before += done
            self.given_up += given_up
            self._wanted.append(not (done or given_up))
            old = [n for n in files.get(job.name, ()) if not n.startswith(f"{job.stem}.")]
            if old and self._wanted[-1]:
                self._old[job.name] = old
