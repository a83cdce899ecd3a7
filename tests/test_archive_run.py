"""A run can be killed at any moment, does nothing twice, and one bad unit stops no other."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from affine import Affine
from archive_stub import CHEAP
from click.testing import CliRunner

from geocd.archive import lock, run, workers
from geocd.archive.index import index_archive
from geocd.archive.journal import Journal, read_journals
from geocd.archive.lock import Holder, locked
from geocd.archive.plan import plan_archive, read_plan
from geocd.archive.rules import PlanRules
from geocd.archive.run import run_plan
from geocd.archive.unit import Outcome, do_unit
from geocd.config import DetectConfig
from geocd.errors import BackendError, ConfigError, OutputError
from geocd.testing import paint_scene, write_raster
from geocd_cli.main import main

STUB = Path(__file__).parent / "archive_stub.py"


@pytest.fixture
def stubbed(monkeypatch):
    monkeypatch.setitem(sys.modules, "geocd.pipeline", CHEAP)


def _plan(folder, *, islands=()):
    """Two dates of 3 x 3 tiles, a bright block in the middle; more tiles far to the east."""
    (folder / "tiles").mkdir(parents=True)
    size = 128
    before = paint_scene((3 * size,) * 2, seed=1) // 2 + 40
    after = before.copy()
    after[:, 150:250, 150:250] = 250
    places = [(row, col, col) for row in range(3) for col in range(3)]
    for date, image in (("2015-06-01", before), ("2018-06-01", after)):
        for row, col, east in [*places, *((0, 0, east) for east in islands)]:
            place = Affine(0.5, 0, 500_000 + 64 * east, 0, -0.5, 5_000_000 - 64 * row)
            part = image[:, row * size : (row + 1) * size, col * size : (col + 1) * size]
            write_raster(folder / "tiles" / f"{date}_{row}{east}.tif", part, crs="EPSG:32633",
                         transform=place)  # fmt: skip
    index_archive([folder / "tiles"], folder / "a.parquet", date_pattern="YYYY-MM-DD")
    rules = PlanRules(unit_size=192)
    return plan_archive(folder / "a.parquet", folder / "p.parquet", rules=rules).output


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return _plan(tmp_path_factory.mktemp("planned"))


def _outputs(folder):
    """What a run has made, by name; nothing else may lie in it."""
    assert not list(folder.glob("work/*"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("units/*")}


@pytest.mark.usefixtures("stubbed")
def test_a_second_run_does_nothing_and_new_settings_do_all_again(plan, tmp_path):
    first = run_plan(plan, tmp_path / "out")
    assert first.done == first.units == 9
    again = run_plan(plan, tmp_path / "out")
    assert (again.done, again.before) == (0, 9)
    made = _outputs(tmp_path / "out")
    assert len(made) == 18
    other = run_plan(plan, tmp_path / "out", config=DetectConfig(threshold=0.3))
    assert (other.done, other.before) == (9, 0)
    assert len(_outputs(tmp_path / "out")) == 18
    assert run_plan(plan, tmp_path / "out").done == 9
    assert _outputs(tmp_path / "out") == made


@pytest.mark.usefixtures("stubbed")
def test_what_is_missing_or_cut_short_is_done_again(plan, tmp_path):
    run_plan(plan, tmp_path / "out")
    made = _outputs(tmp_path / "out")
    rasters = sorted(tmp_path.glob("out/units/*.tif"))
    rasters[0].unlink()
    rasters[1].write_bytes(rasters[1].read_bytes()[:-1])
    assert run_plan(plan, tmp_path / "out").done == 2
    assert _outputs(tmp_path / "out") == made


@pytest.mark.usefixtures("stubbed")
def test_altered_and_vanished_tiles_fail_their_units_alone(tmp_path):
    planned = _plan(tmp_path / "p", islands=(20, 40))
    tile, other = (tmp_path / f"p/tiles/2018-06-01_{place}.tif" for place in ("00", "020"))
    content = tile.read_bytes()
    tile.write_bytes(content[:-1] + b"?")
    other.rename(other.with_suffix(".away"))
    first = run_plan(planned, tmp_path / "out")
    assert first.done > 0
    reasons = " ".join(first.failed.values())
    assert "altered since the plan" in reasons
    assert "is not now" in reasons
    second = run_plan(planned, tmp_path / "out")
    assert (second.done, second.given_up) == (0, len(first.failed))
    assert "--retry-failed" in second.report()
    tile.write_bytes(content)
    other.with_suffix(".away").rename(other)
    third = run_plan(planned, tmp_path / "out", retry_failed=True)
    assert (third.done, third.failed) == (len(first.failed), {})


def test_an_error_of_any_kind_is_recorded_and_stops_nothing(plan, tmp_path):
    def work(job):
        if job.name.endswith("0"):
            raise ZeroDivisionError("nothing left")
        return Outcome("done")

    result = run_plan(plan, tmp_path / "out", work=work)
    assert result.failed
    assert set(result.failed.values()) == {"ZeroDivisionError: nothing left"}
    assert result.done + len(result.failed) == result.units
    lines = [json.loads(line) for line in (tmp_path / "out/journal.jsonl").read_text().splitlines()]
    assert [line["error"] for line in lines if line["status"] == "failed"] == list(
        result.failed.values()
    )


@pytest.mark.usefixtures("stubbed")
def test_shards_together_do_what_one_run_does(plan, tmp_path):
    run_plan(plan, tmp_path / "whole")
    results = [run_plan(plan, tmp_path / "out", shard=f"{i}/3") for i in (1, 2, 3)]
    assert sum(r.done for r in results) == 9
    assert _outputs(tmp_path / "out") == _outputs(tmp_path / "whole")
    assert run_plan(plan, tmp_path / "out").before == 9


@pytest.mark.usefixtures("stubbed")
def test_a_shard_removes_what_its_own_killed_workers_left_and_nothing_else(plan, tmp_path):
    names = read_plan(plan)["unit"]
    left = [tmp_path / "out/work" / name / "1234-abcd" / "scores.tif" for name in names[:2]]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    run_plan(plan, tmp_path / "out", shard="1/2")
    assert [path.exists() for path in left] == [False, True]
    run_plan(plan, tmp_path / "out", shard="2/2")
    assert not (tmp_path / "out/work").exists()


def test_a_full_disk_stops_the_taking_of_units_and_keeps_what_is_done(plan, tmp_path, monkeypatch):
    free = iter([10**9] * 4 + [0] * 99)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: SimpleNamespace(free=next(free)))
    taken = []

    def work(job):
        taken.append(job.name)
        return Outcome("done")

    with pytest.raises(OutputError, match=r"4 units are done and kept, 5 are left; make room"):
        run_plan(plan, tmp_path / "out", work=work)
    assert len(taken) == 4
    monkeypatch.undo()
    assert run_plan(plan, tmp_path / "out", work=lambda job: Outcome("done")).done == 5


def test_a_unit_that_the_full_disk_stopped_has_not_failed(plan, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: usage)

    def work(job):
        usage.free = 0
        raise OSError("short write")

    with pytest.raises(OutputError, match="0 units are done"):
        run_plan(plan, tmp_path / "out", work=work)
    assert read_journals(tmp_path / "out") == {}


def _start(plan, folder, count=1, seconds=0.15):
    return subprocess.Popen(
        [sys.executable, str(STUB), str(plan), str(folder), str(count)],
        env=os.environ | {"STUB_SECONDS": str(seconds)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def _begun(folder):
    """Units that were begun, and the processes they were begun in."""
    log = folder.parent / f"{folder.name}.log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def _wait_for_units(process, folder, count):
    while len(_begun(folder)) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.usefixtures("stubbed")
def test_killed_three_times_it_ends_as_if_nothing_had_happened(plan, tmp_path):
    out = tmp_path / "out"
    rng = np.random.default_rng(11)
    for kill in range(3):
        process = _start(plan, out)
        _wait_for_units(process, out, 2 * kill + 1)
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        process.wait()
    last = run_plan(plan, out)
    run_plan(plan, tmp_path / "calm")
    assert _outputs(out) == _outputs(tmp_path / "calm")
    # Alone, one unit is in flight: each kill costs at most the one.
    units = len(_begun(out)) + last.done
    assert last.units <= units <= last.units + 3
    assert last.before > 0


@pytest.mark.usefixtures("stubbed")
def test_a_worker_that_is_killed_takes_nothing_along(plan, tmp_path):
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    process = _start(plan, out, count=2, seconds=0.3)
    _wait_for_units(process, out, 2)
    os.kill(int(_begun(out)[-1][1]), signal.SIGKILL)
    assert process.wait(60) == 0, process.stderr.read()
    assert len({pid for _, pid in _begun(out)}) >= 2
    states = {state["status"] for state in read_journals(out).values()}
    assert states == {"done"}
    run_plan(plan, tmp_path / "calm")
    assert _outputs(out) == _outputs(tmp_path / "calm")


def test_a_scheduler_that_is_not_there_or_goes_away_is_told_of(plan, tmp_path, monkeypatch):
    core = pytest.importorskip("distributed.comm.core")
    monkeypatch.setattr(workers, "_PATIENCE", 0.2)
    with pytest.raises(BackendError, match="dask scheduler"):
        run_plan(plan, tmp_path / "out", scheduler="tcp://127.0.0.1:9")

    def gone():
        raise core.CommClosedError("reset")

    monkeypatch.setattr("distributed.as_completed", lambda **options: iter([]))
    cluster = workers.Cluster(1, "tcp://somewhere:8786")
    cluster._client = SimpleNamespace(nthreads=gone)
    with pytest.raises(BackendError, match="run the same command again"):
        next(cluster.run(do_unit, iter([])))


def test_several_workers_without_dask_say_how_to_get_it(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"geocd\[archive\]"):
        run_plan(plan, tmp_path / "out", workers=2)


def test_two_runs_in_one_folder_are_refused_and_a_crashed_one_is_not(plan, tmp_path):
    out = tmp_path / "out"
    process = _start(plan, out, seconds=5)
    _wait_for_units(process, out, 1)
    with pytest.raises(OutputError, match=f"process {process.pid}"):
        run_plan(plan, out, work=lambda job: Outcome("done"))
    with pytest.raises(OutputError, match="another run"):
        run_plan(plan, out, shard="1/2", work=lambda job: Outcome("done"))
    process.kill()
    process.wait()
    assert run_plan(plan, out, work=lambda job: Outcome("done")).done == 9


def test_locks_of_the_dead_are_taken_over(tmp_path, monkeypatch):
    me = Holder.me("1/1")
    for changed in ({"boot": "another start"}, {"started": me.started + 1}, {"pid": 2**22 + 1}):
        dead = {f: getattr(me, f) for f in Holder.__dataclass_fields__} | changed
        (tmp_path / lock.NAME).write_text(json.dumps([dead]))
        with locked(tmp_path):
            pass
    (tmp_path / lock.NAME).write_text('[{"host": "x", "bo')
    with locked(tmp_path):
        pass
    elsewhere = {f: getattr(me, f) for f in Holder.__dataclass_fields__} | {"host": "elsewhere"}
    (tmp_path / lock.NAME).write_text(json.dumps([elsewhere]))
    with pytest.raises(OutputError, match="elsewhere"), locked(tmp_path):
        pass
    with pytest.raises(OutputError, match="another run"), locked(tmp_path, "1/2"):
        pass


def test_shards_of_one_count_share_a_folder(tmp_path):
    with locked(tmp_path, "1/2"), locked(tmp_path, "2/2"):
        for shard in ("1/2", "1/1", "2/3"):
            with pytest.raises(OutputError), locked(tmp_path, shard):
                pass
    with locked(tmp_path, "2/3"):
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


def test_tiles_that_move_to_another_folder_need_no_new_run(tmp_path, plan):
    first = run_plan(plan, tmp_path / "out", work=lambda job: Outcome("done"))
    units = read_plan(plan)
    for side in ("before", "after"):
        units[side] = units[side].str.replace("/tiles/", "/elsewhere/")
    units.to_parquet(tmp_path / "moved.parquet")
    moved = run_plan(tmp_path / "moved.parquet", tmp_path / "out", work=do_unit)
    assert (moved.done, moved.before) == (0, first.done)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b"])
def test_impossible_shards_and_workers_are_refused(plan, tmp_path, shard):
    with pytest.raises(ConfigError):
        run_plan(plan, tmp_path / "out", shard=shard)
    with pytest.raises(ConfigError):
        run_plan(plan, tmp_path / "out", workers=0)


@pytest.mark.usefixtures("stubbed")
def test_the_command_tells_what_was_done_and_fails_if_a_unit_did(plan, tmp_path):
    command = ["archive", "run", str(plan), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "9 units done" in done.stdout
    assert "9/9 units done, 0 failed" in done.stderr
    gone = read_plan(plan)
    gone["after"] = gone["after"].str.replace("/tiles/", "/gone/")
    gone.to_parquet(tmp_path / "gone.parquet")
    command = ["archive", "run", str(tmp_path / "gone.parquet"), "-o", str(tmp_path / "other")]
    failed = CliRunner().invoke(main, command)
    assert failed.exit_code == 1
    assert "is not now" in failed.stdout
