"""Whatever is killed, and whenever: the run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter

import numpy as np
import pytest
from archive_runs import UNITS, begun, kill, outputs_of, paint_plan, running, start, wait_for
from archive_stub import CHEAP

from geocd.archive.journal import read_journals
from geocd.archive.run import run_plan


@pytest.fixture(scope="module", autouse=True)
def _stubbed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "geocd.pipeline", CHEAP)
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return paint_plan(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="module")
def calm(plan, tmp_path_factory):
    """Outputs of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("calm") / "out"
    run_plan(plan, out)
    return outputs_of(out)


def _lines(out):
    """How often the journals say of a unit that it is done."""
    entries = []
    for path in out.glob("journal*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue  # torn by a kill
    return Counter(entry["unit"] for entry in entries if entry["status"] == "done")


def test_killed_three_times_it_ends_as_if_nothing_had_happened(plan, calm, tmp_path):
    out = tmp_path / "out"
    rng = np.random.default_rng(11)
    for _ in range(3):
        process = start(plan, out, STUB_SECONDS=0.15)
        before = len(begun(out))
        wait_for(lambda least=before + 2: len(begun(out)) >= least, process)
        time.sleep(rng.uniform(0, 0.3))
        kill(process)
    last = run_plan(plan, out)
    assert outputs_of(out) == calm
    # Alone, one unit is in flight: each kill costs at most the one.
    assert UNITS <= len(begun(out)) + last.done <= UNITS + 3
    assert last.before > 0
    assert set(_lines(out).values()) == {1}


@pytest.fixture
def hold(tmp_path):
    """While this file is there, units wait."""
    path = tmp_path / "hold"
    path.touch()
    return path


def _half_written(out):
    return list(out.glob("work/*/*/scores.tif"))


def test_killed_while_a_file_is_being_written_nothing_half_written_stays(
    plan, calm, tmp_path, hold
):
    out = tmp_path / "out"
    process = start(plan, out, STUB_HOLD=hold)
    wait_for(lambda: _half_written(out), process)
    kill(process)
    assert _half_written(out), "the kill has left it"
    run_plan(plan, out)
    assert outputs_of(out) == calm


def test_killed_between_the_two_files_of_a_unit_the_unit_is_done_again(plan, calm, tmp_path, hold):
    out = tmp_path / "out"
    process = start(plan, out, STUB_HOLD_PUBLISH=hold)
    wait_for(lambda: list(out.glob("units/*")), process)
    kill(process)
    (only,) = out.glob("units/*")
    assert only.suffix == ".tif"
    assert _lines(out) == {}
    assert run_plan(plan, out).done == UNITS
    assert outputs_of(out) == calm


def test_killed_while_it_takes_down_the_plan_nothing_stays_beside_it(plan, calm, tmp_path):
    out = tmp_path / "out"
    (out / "work" / "keep-1-of-1").mkdir(parents=True)
    (out / "work" / "keep-1-of-1" / "plan.parquet").write_bytes(b"half")
    (out / "work" / "keep-2-of-3").mkdir()  # of shards of another count
    run_plan(plan, out)
    assert outputs_of(out) == calm


def test_a_worker_killed_while_it_writes_costs_its_unit_and_no_other(plan, calm, tmp_path, hold):
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    process = start(plan, out, "--workers", 2, STUB_HOLD=hold)
    wait_for(lambda: len(_half_written(out)) == 2, process)
    (name, worker), (_, other) = begun(out)
    assert len({worker, other, process.pid}) == 3, "units are done by workers"
    os.kill(worker, signal.SIGKILL)
    hold.unlink()
    assert process.wait(300) == 0, process.stderr.read()
    assert outputs_of(out) == calm
    times = Counter(unit for unit, _ in begun(out))
    assert times.pop(name) == 2
    assert set(times.values()) == {1}
    assert set(_lines(out).values()) == {1}
    assert {state["status"] for state in read_journals(out).values()} == {"done"}


def test_workers_of_a_killed_run_end_and_what_they_had_in_hand_is_done_again(
    plan, calm, tmp_path, hold
):
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    process = start(plan, out, "--workers", 2, STUB_HOLD=hold)
    wait_for(lambda: len(_half_written(out)) == 2, process)
    kill(process)
    wait_for(lambda: not any(running(pid) for _, pid in begun(out)))
    assert len(begun(out)) == 2
    assert run_plan(plan, out).done == UNITS
    assert outputs_of(out) == calm


def test_shards_with_workers_of_their_own_do_at_once_what_one_run_does(plan, calm, tmp_path):
    """Two runs, each with its own scheduler and workers, share nothing but the folder."""
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    both = [start(plan, out, "--workers", 2, "--shard", f"{part}/2") for part in (1, 2)]
    for process in both:
        assert process.wait(300) == 0, process.stderr.read()
    assert outputs_of(out) == calm
    assert len(begun(out)) == UNITS
    assert sorted(path.name for path in out.glob("journal*")) == [
        "journal-1-of-2.jsonl", "journal-2-of-2.jsonl",
    ]  # fmt: skip
    assert run_plan(plan, out).before == UNITS
