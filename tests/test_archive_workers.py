"""Workers of Dask: one unit each, with their share of the processors, never more in flight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
from archive_runs import UNITS, paint_plan
from click.testing import CliRunner

from geocd.archive import workers
from geocd.archive.run import run_plan
from geocd.archive.unit import Outcome
from geocd.errors import BackendError, ConfigError
from geocd_cli.main import main

THREADS = 3


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return paint_plan(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="module")
def crew():
    """Two workers of a machine with six processors."""
    pytest.importorskip("distributed")
    import dask

    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
    ):
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setattr("dask.system.CPU_COUNT", 2 * THREADS)
        with workers.Cluster(2, None) as cluster:
            yield cluster


class _Job(SimpleNamespace):
    """As much of a job as workers see."""

    @property
    def stem(self):
        return f"unit_{self.number}"


def _told(**facts):
    return Outcome("done", json.dumps(facts))


def _threads(job):
    import cv2
    import torch

    from geocd.models.files import find_weights
    from geocd.predict import openvino

    return _told(
        openvino=openvino.OpenVINOPredictor(find_weights("geocd-vhr"))._threads,
        torch=torch.get_num_threads(), opencv=cv2.getNumThreads(),
        gdal=int(os.environ["GDAL_NUM_THREADS"]),
    )  # fmt: skip


def _when(job):
    begun = time.time()
    time.sleep(0.05)
    return _told(pid=os.getpid(), begun=begun, ended=time.time())


def test_each_worker_takes_its_share_of_the_processors(crew):
    address = next(iter(crew._client.nthreads()))
    loading, loaded = [
        json.loads(crew._submit(_threads, _Job(number=number), address).result().error)
        for number in range(2)
    ]
    assert set(loaded.values()) == {THREADS}, loaded
    # As it is loaded, torch takes no more than there really are.
    assert loading == loaded | {"torch": min(THREADS, len(os.sched_getaffinity(0)))}


def _environment(job):
    return _told(**os.environ)


def test_workers_keep_the_memory_that_the_next_window_needs(crew):
    # Dask has them hand it back: every page of it is then asked for again.
    address = next(iter(crew._client.nthreads()))
    environment = json.loads(crew._submit(_environment, _Job(number=0), address).result().error)
    assert "OPENBLAS_NUM_THREADS" in environment
    assert "MALLOC_TRIM_THRESHOLD_" not in environment


def test_the_share_is_that_of_the_machine_or_what_was_asked_for(monkeypatch):
    pytest.importorskip("dask")
    monkeypatch.setattr("dask.system.CPU_COUNT", 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [workers._threads_each(count) for count in (1, 3, 4, 32)] == [16, 5, 4, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert workers._threads_each(3) == 2


def test_a_worker_does_one_unit_at_a_time_however_many_threads_it_has(crew):
    address = next(iter(crew._client.nthreads()))
    futures = [crew._submit(_when, _Job(number=number), address) for number in range(4)]
    spans = [json.loads(future.result().error) for future in futures]
    assert len({span["pid"] for span in spans}) == 1
    spans.sort(key=lambda span: span["begun"])
    assert all(a["ended"] <= b["begun"] for a, b in pairwise(spans))


def test_the_scheduler_keeps_nothing_of_a_unit_that_is_done(crew):
    jobs = [_Job(number=number) for number in range(30)]
    assert len(list(crew.run(_when, iter(jobs)))) == len(jobs)
    scheduler = crew._client.cluster.scheduler

    def told():
        held = scheduler.tasks, scheduler.task_groups, scheduler.task_prefixes
        return [name for names in held for name in map(str, names) if "unit_" in name]

    deadline = time.time() + 10  # it hears of what is released a moment later
    while told() and time.time() < deadline:
        time.sleep(0.05)
    assert not told()


def test_no_more_units_are_in_flight_than_there_are_workers(crew):
    taken, most, pids = 0, 0, set()

    def jobs():
        nonlocal taken
        for number in range(40):
            taken += 1
            yield _Job(number=number)

    for ended, (_, outcome) in enumerate(crew.run(_when, jobs())):
        most = max(most, taken - ended)
        pids.add(json.loads(outcome.error)["pid"])
    assert (taken, ended) == (40, 39)
    assert most == 2
    assert len(pids) == 2


def test_the_page_that_shows_the_work_is_there(crew, plan, tmp_path, monkeypatch):
    with urlopen(crew.dashboard) as page:
        assert page.status == 200
        assert b"Workers" in page.read()
    monkeypatch.setattr("geocd.archive.run.Cluster", lambda *_: _Borrowed(crew))
    command = ["archive", "run", str(plan), "-o", str(tmp_path / "out"), "--workers", "2"]
    ended = CliRunner().invoke(main, command)
    assert ended.exit_code == 0, ended.output
    assert f"dashboard: {crew.dashboard}" in ended.stderr


class _Borrowed:
    """A cluster that stays when the run ends, and whose units do nothing."""

    def __init__(self, crew):
        self._crew, self.dashboard = crew, crew.dashboard

    def run(self, work, jobs):
        return self._crew.run(_when, jobs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_an_error_that_only_the_worker_knows_is_that_of_its_unit(crew):
    def odd(job):
        raise ArithmeticError(f"unit {job.number}")

    outcomes = [outcome for _, outcome in crew.run(odd, map(_numbered, range(2)))]
    assert sorted(o.error for o in outcomes) == [
        "ArithmeticError: unit 0", "ArithmeticError: unit 1",
    ]  # fmt: skip


def _numbered(number):
    return _Job(number=number)


def test_a_unit_that_kills_its_workers_is_given_up_and_the_others_are_done(crew):
    def deadly(job):
        if job.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome("done")

    found = {job.number: outcome for job, outcome in crew.run(deadly, map(_numbered, range(6)))}
    failed = {number: o.error for number, o in found.items() if o.status == "failed"}
    # A unit may have been in the hands of the same worker.
    assert "it killed its workers" in failed[1]
    assert sorted(found) == list(range(6))
    assert len(failed) <= 2


@pytest.fixture
def scheduler():
    """A scheduler of its own, its address, and a way to start a worker."""
    pytest.importorskip("distributed")
    code = (
        "import asyncio, sys\n"
        "from distributed import Scheduler, Worker\n"
        "async def main():\n"
        "    here = dict(host='127.0.0.1', port=0)\n"
        "    role = Worker(sys.argv[1], nthreads=1) if sys.argv[1:] else Scheduler(**here)\n"
        "    async with role:\n"
        "        print(role.address, flush=True)\n"
        "        await role.finished()\n"
        "asyncio.run(main())\n"
    )
    processes = []

    def begin(*arguments):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], text=True,
                                   env=environment, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        processes.append(process)
        return process, process.stdout.readline().strip()

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def test_a_scheduler_that_goes_away_is_told_of_and_what_is_done_stays(plan, tmp_path, scheduler):
    boss, address = scheduler()
    # The worker comes late, and is waited for.
    threading.Timer(0.5, scheduler, [address]).start()
    out = tmp_path / "out"

    def progress(done, failed, total):
        if done == 2:
            boss.kill()

    with pytest.raises(BackendError, match="scheduler went away; what is done is kept"):
        run_plan(plan, out, scheduler=address, work=_nap, progress=progress)
    again = run_plan(plan, out, work=lambda job: Outcome("done"))
    assert again.before == 2
    assert again.done == UNITS - 2


def test_a_scheduler_that_does_not_know_the_work_stops_the_run_and_fails_no_unit():
    pytest.importorskip("distributed")
    cluster = workers.Cluster(1, "tcp://somewhere:8786")
    cluster._client = SimpleNamespace(status="running")
    error = RuntimeError("Error during deserialization of the task graph. This frequently occurs")
    with pytest.raises(BackendError, match="same versions of Python, geocd and Dask"):
        cluster._outcome(SimpleNamespace(status="error", exception=lambda: error))


def _nap(job):
    time.sleep(0.2)
    return Outcome("done")


def test_a_scheduler_that_is_not_there_is_told_of(plan, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "_PATIENCE", 0.2)
    with pytest.raises(BackendError, match="dask scheduler"):
        run_plan(plan, tmp_path / "out", scheduler="tcp://127.0.0.1:9")


def test_several_workers_without_dask_say_how_to_get_it(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"geocd\[archive\]"):
        run_plan(plan, tmp_path / "out", workers=2)
