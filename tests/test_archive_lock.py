"""One run to a folder, a journal that crashes do not spoil, and clocks that do not matter."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from archive_runs import UNITS, begun, kill, paint_plan, start, wait_for

from geocd.archive import lock
from geocd.archive.journal import Journal, read_journals
from geocd.archive.lock import Holder, locked
from geocd.archive.run import run_plan
from geocd.archive.unit import Outcome
from geocd.errors import OutputError


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return paint_plan(tmp_path_factory.mktemp("planned"))


def _done(job):
    return Outcome("done")


def _record(folder, *holders):
    (folder / lock.NAME).write_text(json.dumps([asdict(holder) for holder in holders]))


def test_two_runs_in_one_folder_are_refused_and_a_crashed_one_is_not(plan, tmp_path):
    out = tmp_path / "out"
    process = start(plan, out, STUB_SECONDS=5)
    wait_for(lambda: begun(out), process)
    with pytest.raises(OutputError, match=f"process {process.pid}"):
        run_plan(plan, out, work=_done)
    with pytest.raises(OutputError, match="another run"):
        run_plan(plan, out, shard="1/2", work=_done)
    kill(process)
    assert json.loads((out / lock.NAME).read_text()), "a crash leaves its record"
    assert run_plan(plan, out, work=_done).done == UNITS


def test_locks_of_the_dead_are_taken_over(tmp_path):
    me = Holder.me("1/1")
    for changed in (
        {"boot": "another start"}, {"pid": 2**22 + 1},
        # Another process has got the number since; or times are as odd as clocks can make them.
        {"started": me.started + 1}, {"started": me.started - 1}, {"started": -1},
        {"started": 2**63},
    ):  # fmt: skip
        _record(tmp_path, replace(me, **changed))
        with locked(tmp_path):
            pass


@pytest.mark.parametrize(
    "text", ["", "[", '[{"host": "x", "bo', '{"a": 1}', '[{"a": 1}]', "\x00\xff"]
)
def test_a_record_that_the_power_tore_holds_nobody(tmp_path, text):
    (tmp_path / lock.NAME).write_text(text)
    with locked(tmp_path), pytest.raises(OutputError, match="another run"), locked(tmp_path):
        pass


def test_a_process_killed_while_it_writes_the_record_tears_nothing(tmp_path, monkeypatch):
    def killed(handle, length):
        raise KeyboardInterrupt

    with locked(tmp_path, "1/3"), locked(tmp_path, "2/3"):
        with monkeypatch.context() as patch:
            patch.setattr(lock.os, "ftruncate", killed)
            with pytest.raises(KeyboardInterrupt), lock._holders(tmp_path) as (handle, holders):
                lock._write(handle, holders[:1])
        with pytest.raises(OutputError, match="shard 1/3"), locked(tmp_path, "1/3"):
            pass


@pytest.mark.parametrize("where", [{"host": "elsewhere"}, {"space": "pid:[1]"}])
def test_a_run_elsewhere_is_dead_when_it_is_silent(tmp_path, monkeypatch, where):
    """Another machine, or another container of this one: its process cannot be seen."""
    monkeypatch.setattr(lock, "_BEAT", 0.05)
    monkeypatch.setattr(lock, "_SILENCE", 0.4)
    other = replace(Holder.me("1/1"), **where)
    _record(tmp_path, other)
    said = []
    with locked(tmp_path, announce=said.append):
        pass
    assert "waiting up to" in said[0]

    _record(tmp_path, other)
    over = threading.Event()
    heart = threading.Thread(target=lock._beat, args=(tmp_path, other, over))
    heart.start()
    try:
        with pytest.raises(OutputError, match="another run"), locked(tmp_path):
            pass
    finally:
        over.set()
        heart.join()


def test_a_run_shows_that_it_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT", 0.02)
    with locked(tmp_path, "1/2"), locked(tmp_path, "2/2"):
        beats = [h["beat"] for h in json.loads((tmp_path / lock.NAME).read_text())]
        time.sleep(0.2)
        later = [h["beat"] for h in json.loads((tmp_path / lock.NAME).read_text())]
    assert all(after > before for before, after in zip(beats, later, strict=True))
    assert json.loads((tmp_path / lock.NAME).read_text()) == []


def test_shards_of_one_count_share_a_folder(tmp_path):
    with locked(tmp_path, "1/2"), locked(tmp_path, "2/2"):
        for shard in ("1/2", "1/1", "2/3"):
            with pytest.raises(OutputError), locked(tmp_path, shard):
                pass
    with locked(tmp_path, "2/3"):
        pass


def test_a_folder_that_cannot_be_written_to_is_told_of(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", refused)
    with pytest.raises(OutputError, match="No space left"), locked(tmp_path):
        pass


def test_a_torn_line_of_the_journal_is_passed_over_and_closed(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.write({"unit": "a", "fingerprint": "1", "status": "done"})
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"unit": "b", "finger')
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.write({"unit": "c", "fingerprint": "1", "status": "failed"})
    assert sorted(unit for unit, _ in read_journals(tmp_path)) == ["a", "c"]


def test_a_journal_that_cannot_be_written_says_so():
    with Journal(Path("/dev/full")) as journal, pytest.raises(OutputError, match="make room"):
        journal.write({"unit": "a"})


@pytest.mark.parametrize("now", [4e9, 0.0, -1e9])
def test_a_journal_from_the_future_or_the_past_is_as_good_as_any(plan, tmp_path, monkeypatch, now):
    with monkeypatch.context() as patch:
        patch.setattr("geocd.archive.run.time.time", lambda: now)
        run_plan(plan, tmp_path / "out", work=_done)
    lines = (tmp_path / "out/journal.jsonl").read_text().splitlines()
    assert {json.loads(line)["time"] for line in lines} == {now}
    again = run_plan(plan, tmp_path / "out", work=_done)
    assert (again.done, again.before) == (0, UNITS)


def test_what_one_machine_did_is_done_whatever_the_clock_of_another_says(tmp_path):
    done = {"unit": "a", "fingerprint": "1", "status": "done", "time": 1.0}
    failed = {"unit": "a", "fingerprint": "1", "status": "failed", "error": "no", "time": 4e9}
    for first, second in ((done, failed), (failed, done)):
        for name, entry in (("journal-1-of-2", first), ("journal-2-of-2", second)):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(entry) + "\n")
        assert read_journals(tmp_path)["a", "1"]["status"] == "done"


def test_in_one_journal_the_last_line_of_a_unit_counts_whatever_its_time(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.write({"unit": "a", "fingerprint": "1", "status": "failed", "time": 4e9})
        journal.write({"unit": "a", "fingerprint": "1", "status": "done", "time": -1.0})
    assert read_journals(tmp_path)["a", "1"]["status"] == "done"
