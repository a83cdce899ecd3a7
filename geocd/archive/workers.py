"""Who does the units: this process, or workers of Dask; never more in flight than are worked on."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Protocol

from geocd.archive.unit import Job, Outcome
from geocd.errors import BackendError, ConfigError
from geocd.predict.threads import limit_threads

Work = Callable[[Job], Outcome]
_Key = tuple[str, str, str]
_PATIENCE = 60
"""Seconds to wait for a scheduler and its first worker."""
_LOOK = 1.0
"""Seconds after which it is asked again which workers there are."""

_GONE = "the scheduler went away; what is done is kept: start one and run the same command again"
_STRANGE = (
    "the scheduler does not understand what it is sent; it and its workers need the same versions "
    "of Python, geocd and Dask as are here"
)
_turn = threading.Lock()


class Workers(Protocol):
    """Does units; a context manager."""

    dashboard: str | None
    """Address of a page that shows the work."""

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Take jobs as there is room, and give outcomes as they come."""
        ...

    def __enter__(self) -> Workers: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...  # fmt: skip


@dataclass(slots=True)
class Alone:
    """This process, one unit after another."""

    dashboard: str | None = None

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Take jobs as there is room, and give outcomes as they come."""
        for job in jobs:
            yield job, work(job)

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Cluster:
    """Workers of Dask: processes here, or whatever hangs on a scheduler.

    A worker does one unit at a time, with as many threads as Dask counts for it. Here that is
    OMP_NUM_THREADS, or an equal share of the processors.

    Args:
        workers: processes to start here.
        scheduler: address of a scheduler; None: one is started here.

    Raises:
        ConfigError: Dask is not installed.
        BackendError: the scheduler cannot be reached, or has no worker.
    """

    def __init__(self, workers: int, scheduler: str | None) -> None:
        if importlib.util.find_spec("distributed") is None:
            raise ConfigError(
                "several workers need Dask, which is not installed: pip install 'geocd[archive]'; "
                "or run with --workers 1, or with --shard in several processes"
            )
        self._workers, self._scheduler = workers, scheduler
        self._stack = ExitStack()
        self._there: tuple[str, ...] = ()
        self._looked = -_LOOK
        self.dashboard: str | None = None

    def __enter__(self) -> Cluster:
        import dask
        from distributed import Client, LocalCluster

        try:
            address: Any = self._scheduler
            if address is None:
                self._stack.enter_context(dask.config.set(_own_settings()))
                address = self._stack.enter_context(
                    LocalCluster(  # type: ignore[no-untyped-call]
                        n_workers=self._workers, threads_per_worker=_threads_each(self._workers),
                        processes=True, dashboard_address="localhost:0",
                        silence_logs=logging.CRITICAL,
                    )
                )  # fmt: skip
            client = Client(address, timeout=_PATIENCE)  # type: ignore[no-untyped-call]
            self._client = self._stack.enter_context(client)
            self._client.wait_for_workers(1, timeout=_PATIENCE)
        except (OSError, TimeoutError) as error:
            self._stack.close()
            raise BackendError(
                f"no workers at {self._scheduler or 'this machine'}: {error}; start a scheduler "
                "with 'dask scheduler', and workers with 'dask worker ADDRESS'"
            ) from None
        self.dashboard = _page(self._client.dashboard_link)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.close()

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Take a job for each worker that has none, and give outcomes as they come.

        A unit whose worker dies is done again by another; one that kills four is given up.
        Workers may come and go; while there is none, this waits.

        Raises:
            BackendError: the scheduler went away, or has no geocd, or another one.
        """
        flying: dict[_Key, tuple[Job, str]] = {}  # by key: what is done, and where
        ended: SimpleQueue[Any] = SimpleQueue()
        more = True
        while True:
            for address in self._idle(flying) if more else ():
                job = next(jobs, None)
                if job is None:
                    more = False
                    break
                future = self._submit(work, job, address)
                flying[future.key] = job, address
                future.add_done_callback(ended.put)
            if not (more or flying):
                return
            with suppress(Empty):
                future = ended.get(timeout=_LOOK)
                job, _ = flying.pop(future.key)
                outcome = self._outcome(future)
                future.release()
                yield job, outcome

    def _idle(self, flying: dict[_Key, tuple[Job, str]]) -> list[str]:
        """Addresses of the workers that have nothing to do."""
        if time.monotonic() - self._looked >= _LOOK:
            with self._connected():
                self._there = tuple(self._client.nthreads())
            self._looked = time.monotonic()
        busy = {address for _, address in flying.values()}
        return [address for address in self._there if address not in busy]

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            if self._client.status != "running":
                raise BackendError(_GONE)
            yield
        except (OSError, TimeoutError, CancelledError):
            raise BackendError(_GONE) from None

    def _submit(self, work: Work, job: Job, address: str) -> Any:
        # Where to is said here, because Dask would fill a worker of several threads with as many
        # units. If the worker dies, any other may take its unit. The first part of the key is one
        # for all units: the scheduler never forgets what it counts by it.
        with self._connected():
            return self._client.submit(
                partial(_in_turn, work), job, key=("unit", job.stem, secrets.token_hex(4)),
                pure=False, workers=[address], allow_other_workers=True,
            )  # fmt: skip

    def _outcome(self, future: Any) -> Outcome:
        from distributed import KilledWorker

        with self._connected():
            if future.status == "finished":
                outcome = future.result()
                assert isinstance(outcome, Outcome)
                return outcome
            error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            return Outcome("failed", "it killed its workers; has the machine enough memory?")
        if error is not None and "deserialization" in str(error):
            raise BackendError(_STRANGE)  # it would be the same with every other unit
        if error is not None:
            return Outcome("failed", f"{type(error).__name__}: {error}")
        raise BackendError(_GONE)


def _in_turn(work: Work, job: Job) -> Outcome:
    """Do a unit in a worker, when no other one is being done there, with the worker's threads."""
    from distributed import get_worker

    with _turn:
        limit_threads(get_worker().state.nthreads)
        return work(job)


def _own_settings() -> dict[str, Any]:
    """Settings of Dask under which workers of this machine lose less time.

    By itself Dask looks at what they do a hundred times a second, which nobody sees, and has them
    hand back every freed 64 kB, which the next window asks for again: a tenth of their time.
    """
    import dask

    environ = dask.config.get("distributed.nanny.pre-spawn-environ")
    environ = {k: v for k, v in environ.items() if k != "MALLOC_TRIM_THRESHOLD_"}
    return {
        "distributed.worker.profile.enabled": False,
        "distributed.nanny.pre-spawn-environ": environ,
    }


def _threads_each(workers: int) -> int:
    """Threads of each of several workers of this machine."""
    from dask.system import CPU_COUNT

    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return max(1, int(CPU_COUNT) // workers)


def _page(link: str) -> str:
    """A page of the scheduler that it has: without bokeh, tables only."""
    if importlib.util.find_spec("bokeh") is not None:
        return link
    return f"{link.removesuffix('/status')}/info/main/workers.html"
