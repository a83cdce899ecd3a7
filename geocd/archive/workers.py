"""Who does the units: this process, or workers of Dask; never more in flight than can be held."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from geocd.archive.unit import Job, Outcome
from geocd.errors import BackendError, ConfigError

Work = Callable[[Job], Outcome]
_PER_WORKER = 2
"""Units in flight for each thread of a worker: the one it does and the one it does next."""
_PATIENCE = 60
"""Seconds to wait for a scheduler and its first worker."""

_GONE = "the scheduler went away; what is done is kept: start one and run the same command again"


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
        self.dashboard: str | None = None

    def __enter__(self) -> Cluster:
        from distributed import Client, LocalCluster

        # Without bokeh there is no page to show.
        shown = importlib.util.find_spec("bokeh") is not None
        try:
            address: Any = self._scheduler
            if address is None:
                address = self._stack.enter_context(
                    LocalCluster(  # type: ignore[no-untyped-call]
                        n_workers=self._workers, threads_per_worker=1, processes=True,
                        dashboard_address=":0" if shown else None,
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
        self.dashboard = self._client.dashboard_link if shown or self._scheduler else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.close()

    def run(self, work: Work, jobs: Iterator[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Take jobs as there is room, and give outcomes as they come.

        A unit whose worker dies is done again by another; one that kills three is given up.

        Raises:
            BackendError: the scheduler went away.
        """
        from distributed import as_completed
        from distributed.comm.core import CommClosedError

        flying: dict[str, Job] = {}
        finished = as_completed(raise_errors=False)  # type: ignore[no-untyped-call]
        while True:
            try:
                self._fill(finished, flying, work, jobs)
                if not flying:
                    return
                future = next(finished)
                job = flying.pop(future.key)
                outcome = self._outcome(future)
            except (CommClosedError, TimeoutError):
                raise BackendError(_GONE) from None
            future.release()
            yield job, outcome

    def _fill(
        self, finished: Any, flying: dict[str, Job], work: Work, jobs: Iterator[Job]
    ) -> None:  # fmt: skip
        # Asked for every time: workers come and go.
        room = _PER_WORKER * max(1, sum(self._client.nthreads().values()))
        while len(flying) < room:
            job = next(jobs, None)
            if job is None:
                return
            future = self._client.submit(work, job, key=f"{job.stem}-{id(job)}", pure=False)
            flying[future.key] = job
            finished.add(future)

    def _outcome(self, future: Any) -> Outcome:
        from distributed import KilledWorker

        if future.status == "finished":
            outcome = future.result()
            assert isinstance(outcome, Outcome)
            return outcome
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            return Outcome("failed", "it killed its workers; has the machine enough memory?")
        if error is not None:
            return Outcome("failed", f"{type(error).__name__}: {error}")
        raise BackendError(_GONE)
