"""One run to a folder: a lock that survives crashes, and one that crashes do not leave behind."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from geocd.errors import OutputError

NAME = "run.lock"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SPACE = Path("/proc/self/ns/pid")
_BEAT = 20.0
"""Seconds after which a run shows that it is alive, for those who cannot see its process."""
_SILENCE = 90.0
"""Seconds after which a run that has not shown it is taken for dead."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that runs in a folder. A number alone would be given to another process later.

    Attributes:
        host: name of the machine.
        boot: changes when the machine is started.
        space: the processes that see each other: those of a container do not see others.
        pid: of the process.
        started: clock ticks from the start of the machine to that of the process.
        shard: "2/4", or "1/1" for the whole plan.
        beat: counts up while it is alive. No time of day: clocks of machines differ.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: int
    shard: str
    beat: int = field(default=0, compare=False)

    @classmethod
    def me(cls, shard: str) -> Holder:
        """This process."""
        pid, host = os.getpid(), socket.gethostname()
        return cls(host, _boot(), _space(), pid, _started(pid) or 0, shard)

    @property
    def elsewhere(self) -> bool:
        """Whether its process cannot be seen from here."""
        if self.host != socket.gethostname():
            return True
        return self.boot == _boot() and self.space != _space()

    @property
    def alive(self) -> bool:
        """Whether it may still be running; of what is elsewhere that cannot be told at once."""
        return self.elsewhere or (self.boot == _boot() and _started(self.pid) == self.started)

    def excludes(self, other: Holder) -> bool:
        """Whether both would do the same units."""
        return self.shard == other.shard or _parts(self.shard) != _parts(other.shard)


def _parts(shard: str) -> str:
    return shard.split("/")[1]


def _boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.exists() else ""


def _space() -> str:
    return str(_SPACE.readlink()) if _SPACE.is_symlink() else ""


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
def locked(
    folder: Path, shard: str = "1/1", announce: Callable[[str], None] | None = None
) -> Iterator[None]:  # fmt: skip
    """Hold the folder of a run, or a shard of it.

    Locks of processes that are no more are taken over; those of other machines once they have
    been silent for a while.

    Args:
        folder: of the run.
        shard: "i/n".
        announce: told if another machine must be waited for.

    Raises:
        OutputError: another run does the same units, or the folder cannot be written to.
    """
    me = Holder.me(shard)
    try:
        _enter(folder, me, announce)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; write elsewhere") from error
    over = threading.Event()
    heart = threading.Thread(target=_beat, args=(folder, me, over), daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()
        with _holders(folder) as (handle, holders):
            _write(handle, [h for h in holders if h != me])


def _enter(folder: Path, me: Holder, announce: Callable[[str], None] | None) -> None:
    first: dict[Holder, int] = {}  # beats of those elsewhere, when they were first seen
    begun = time.monotonic()
    while True:
        with _holders(folder) as (handle, holders):
            others = [h for h in holders if h.excludes(me) and h.alive]
            for other in others:
                if not other.elsewhere or first.setdefault(other, other.beat) != other.beat:
                    raise OutputError(
                        f"another run is working in {folder}: process {other.pid} on "
                        f"{other.host}, shard {other.shard}; wait for it or write elsewhere"
                    )
            if not others or time.monotonic() - begun >= _SILENCE:
                _write(handle, [h for h in holders if h.alive and not h.excludes(me)] + [me])
                return
        if announce:
            announce(
                f"{folder} is held by process {others[0].pid} on {others[0].host}; waiting up to "
                f"{_SILENCE:.0f} s for a sign of life"
            )
            announce = None
        time.sleep(_BEAT / 4)


def _beat(folder: Path, me: Holder, over: threading.Event) -> None:
    """Show others that this process is alive, until it is over."""
    count = 0
    while not over.wait(_BEAT):
        count += 1
        # A disk that is full or away for a moment must not end the run.
        with suppress(OSError), _holders(folder) as (handle, holders):
            _write(handle, [replace(h, beat=count) if h == me else h for h in holders])


@contextmanager
def _holders(folder: Path) -> Iterator[tuple[int, list[Holder]]]:
    """The holders, while nobody else can change them."""
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # The kernel takes this back when a process dies, so it guards the few lines here; the
        # record is what counts, because not every network file system passes such locks on.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        text = os.pread(handle, os.fstat(handle).st_size, 0).decode(errors="replace")
        try:
            # What follows is the rest of a longer record, see below.
            entries, _ = json.JSONDecoder().raw_decode(text)
            holders = [Holder(**entry) for entry in entries]
        except (ValueError, TypeError):
            holders = []  # none yet, or torn as the machine went down, and its processes with it
        yield handle, holders
    finally:
        os.close(handle)


def _write(handle: int, holders: list[Holder]) -> None:
    """Replace the record in one call, so that a process killed here tears nothing."""
    text = json.dumps([asdict(holder) for holder in holders]).encode()
    os.pwrite(handle, text, 0)
    os.ftruncate(handle, len(text))
    os.fsync(handle)
