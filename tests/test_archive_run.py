"""A run can be killed at any moment, does nothing twice, and one bad unit stops no other."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import geopandas
import pandas as pd
import pytest
from archive_runs import STUB, UNITS, outputs_of, paint_plan
from archive_stub import CHEAP
from click.testing import CliRunner

from geocd.archive import jobs, run, unit
from geocd.archive.journal import read_journals
from geocd.archive.plan import read_plan
from geocd.archive.run import run_plan
from geocd.archive.unit import Outcome, do_unit
from geocd.config import DetectConfig
from geocd.errors import ConfigError, InputError, OutputError
from geocd_cli.main import main


@pytest.fixture
def stubbed(monkeypatch):
    monkeypatch.setitem(sys.modules, "geocd.pipeline", CHEAP)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return paint_plan(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="module")
def calm(plan, tmp_path_factory):
    """Outputs of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("calm") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "geocd.pipeline", CHEAP)
        run_plan(plan, out)
    return outputs_of(out)


@pytest.mark.usefixtures("stubbed")
def test_a_second_run_does_nothing_and_new_settings_do_all_again(plan, tmp_path):
    first = run_plan(plan, tmp_path / "out")
    assert first.done == first.units == 9
    again = run_plan(plan, tmp_path / "out")
    assert (again.done, again.before) == (0, 9)
    made = outputs_of(tmp_path / "out")
    assert len(made) == 18
    other = run_plan(plan, tmp_path / "out", config=DetectConfig(threshold=0.3))
    assert (other.done, other.before) == (9, 0)
    assert len(outputs_of(tmp_path / "out")) == 18
    assert run_plan(plan, tmp_path / "out").done == 9
    assert outputs_of(tmp_path / "out") == made


@pytest.mark.usefixtures("stubbed")
def test_what_is_missing_or_cut_short_is_done_again(plan, tmp_path):
    run_plan(plan, tmp_path / "out")
    made = outputs_of(tmp_path / "out")
    rasters = sorted(tmp_path.glob("out/units/*.tif"))
    rasters[0].unlink()
    rasters[1].write_bytes(rasters[1].read_bytes()[:-1])
    assert run_plan(plan, tmp_path / "out").done == 2
    assert outputs_of(tmp_path / "out") == made


@pytest.mark.usefixtures("stubbed")
def test_altered_and_vanished_tiles_fail_their_units_alone(tmp_path):
    planned = paint_plan(tmp_path / "p", islands=(20, 40))
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
    assert outputs_of(tmp_path / "out") == outputs_of(tmp_path / "whole")
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
    monkeypatch.setattr(jobs.shutil, "disk_usage", lambda path: SimpleNamespace(free=next(free)))
    taken = []

    def work(job):
        taken.append(job.name)
        return Outcome("done")

    with pytest.raises(OutputError, match=r"4 units done and kept, 5 left; make room"):
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

    with pytest.raises(OutputError, match="0 units done"):
        run_plan(plan, tmp_path / "out", work=work)
    assert read_journals(tmp_path / "out") == {}


def test_a_used_up_quota_is_a_full_disk_and_no_failure_of_units(plan, tmp_path):
    def work(job):
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError as error:
            raise OutputError("scores.tif was not written") from error

    with pytest.raises(
        OutputError, match=r"0 units done and kept, 9 left; make room.*same command"
    ):
        run_plan(plan, tmp_path / "out", work=work, keep_free=0)
    assert read_journals(tmp_path / "out") == {}


_SMALL_DISK = """
mount -t tmpfs -o size=4m disk "$1" || exit 77
STUB_FILL=4 "$2" "$3" "$4" "$1/out" --keep-free 400000; echo "rc $?"
ls "$1/out/work" 2>/dev/null; wc -l < "$1/out/journal.jsonl"
rm "$1/ballast"
"$2" "$3" "$4" "$1/out" --keep-free 400000; echo "rc $?"
wc -l < "$1/out/journal.jsonl"; cp -r "$1/out" "$5"
"""


def test_on_a_disk_that_fills_up_what_is_whole_stays_and_room_lets_it_go_on(plan, calm, tmp_path):
    (tmp_path / "disk").mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _SMALL_DISK, "sh",
               tmp_path / "disk", sys.executable, STUB, plan, tmp_path / "out"]  # fmt: skip
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if ended.returncode == 77 or "unshare failed" in ended.stderr:
        pytest.skip("no disk can be mounted here")
    first, before, last, after = re.findall(r"^(?:rc )?\d+$", ended.stdout, re.MULTILINE)
    assert (first, last) == ("rc 1", "rc 0"), ended.stderr
    assert (int(before), int(after)) == (3, UNITS)
    assert "is full: 3 units done and kept, 6 left; make room, then run the same" in ended.stderr
    assert outputs_of(tmp_path / "out") == calm


def test_a_tile_that_cannot_be_read_fails_its_units_and_no_other(tmp_path, monkeypatch):
    planned = paint_plan(tmp_path / "p", islands=(20,))
    real = unit.hash_samples

    def hash_samples(path):
        if path.name == "2018-06-01_00.tif":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(unit, "hash_samples", hash_samples)
    monkeypatch.setitem(sys.modules, "geocd.pipeline", CHEAP)
    result = run_plan(planned, tmp_path / "out")
    assert result.done
    assert len(result.failed) == UNITS
    assert all("Permission denied" in why for why in result.failed.values())


def test_memory_does_not_grow_with_the_plan(plan, tmp_path, monkeypatch):
    """Of a plan no more units are held at once than are read at once."""
    monkeypatch.setattr(jobs, "_BATCH", 16)
    units = read_plan(plan)
    many = pd.concat([units] * 60, ignore_index=True)
    many["unit"] = [f"unit_{number}" for number in range(len(many))]
    many["before"] = many["before"].str.replace("}", f', "x": "{"x" * 4000}"}}', n=1)
    geopandas.GeoDataFrame(many, crs=units.crs).to_parquet(tmp_path / "many.parquet")
    tracemalloc.start()
    todo = jobs.ToDo(tmp_path / "many.parquet", _empty(tmp_path), jobs.Shard(1, 1), "s",
                     DetectConfig(), retry_failed=False, keep_free=0)  # fmt: skip
    handed_out = sum(1 for _ in todo)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert handed_out == len(todo) == todo.units == len(many)
    assert peak < 1e6 < 4000 * len(many) / 2


def _empty(folder):
    (folder / "run" / "units").mkdir(parents=True)
    return folder / "run"


def test_a_plan_that_is_replaced_or_gone_meanwhile_does_not_matter(plan, tmp_path):
    own = tmp_path / "p.parquet"
    own.write_bytes(plan.read_bytes())

    def work(job):
        own.write_bytes(b"something else")
        return Outcome("done")

    assert run_plan(own, tmp_path / "out", work=work).done == UNITS


def test_other_files_are_refused_before_anything_is_written(plan, tmp_path):
    old = read_plan(plan).assign(version=0)
    old.to_parquet(tmp_path / "old.parquet")
    read_plan(plan).drop(columns="unit").to_parquet(tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_bytes(plan.read_bytes()[:-100])
    for name, why in (("old", "version 0"), ("other", "something else"), ("torn", "cannot read"),
                      ("none", "cannot read")):  # fmt: skip
        with pytest.raises(InputError, match=why):
            run_plan(tmp_path / f"{name}.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"9/9 units done, 0 failed, \d+\.\d a minute, 0 s left", last)
    gone = read_plan(plan)
    gone["after"] = gone["after"].str.replace("/tiles/", "/gone/")
    gone.to_parquet(tmp_path / "gone.parquet")
    command = ["archive", "run", str(tmp_path / "gone.parquet"), "-o", str(tmp_path / "other")]
    failed = CliRunner().invoke(main, command)
    assert failed.exit_code == 1
    assert "is not now" in failed.stdout
