"""One run to a folder: a lock that survives crashes, and one that crashes do not leave behind."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from geocd.errors import OutputError

NAME = "run.lock"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that runs in a folder. A number alone would be given to another process later.

    Attributes:
        host: name of the machine.
        boot: changes when the machine is started.
        pid: of the process.
        started: clock ticks from the start of the machine to that of the process.
        shard: "2/4", or "1/1" for the whole plan.
    """

    host: str
    boot: str
    pid: int
    started: int
    shard: str

    @classmethod
    def me(cls, shard: str) -> Holder:
        """This process."""
        return cls(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()) or 0, shard)

    @property
    def alive(self) -> bool:
        """Whether it may still be running; of other machines that cannot be told."""
        if self.host != socket.gethostname():
            return True
        return self.boot == _boot() and _started(self.pid) == self.started

    def excludes(self, other: Holder) -> bool:
        """Whether both would do the same units."""
        return self.shard == other.shard or _parts(self.shard) != _parts(other.shard)


def _parts(shard: str) -> str:
    return shard.split("/")[1]


def _boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.exists() else ""


def _started(pid: int) -> int | None:
    """When a process was started; None if there is none (a zombie is none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name of the process, in brackets, may hold spaces and brackets.
    values = text.rpartition(")")[2].split()
    return None if values[0] == "Z" else int(values[19])


@contextmanager
def locked(folder: Path, shard: str = "1/1") -> Iterator[None]:
    """Hold the folder of a run, or a shard of it.

    Locks of processes that are no more are taken over.

    Raises:
        OutputError: another run does the same units.
    """
    me = Holder.me(shard)
    with _holders(folder) as (file, holders):
        for other in holders:
            if other.excludes(me) and other.alive:
                raise OutputError(
                    f"another run is working in {folder}: process {other.pid} on {other.host}, "
                    f"shard {other.shard}; wait for it or write elsewhere; if that machine is "
                    f"gone, remove {folder / NAME}"
                )
        _write(file, [h for h in holders if h.alive and not h.excludes(me)] + [me])
    try:
        yield
    finally:
        with _holders(folder) as (file, holders):
            _write(file, [h for h in holders if h != me])


@contextmanager
def _holders(folder: Path) -> Iterator[tuple[IO[Any], list[Holder]]]:
    """The holders, while nobody else can change them."""
    with (folder / NAME).open("a+") as file:
        # The kernel takes this back when a process dies, so it guards the few lines here; the
        # record is what counts, because not every network file system passes such locks on.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            holders = [Holder(**entry) for entry in json.loads(file.read() or "[]")]
        except (ValueError, TypeError):
            holders = []  # torn: whoever wrote it died while it wrote
        yield file, holders


def _write(file: IO[Any], holders: list[Holder]) -> None:
    file.truncate(0)
    file.write(json.dumps([asdict(holder) for holder in holders]))
    file.flush()
    os.fsync(file.fileno())
