"""Verdicts go back into the GeoPackage they are on, and say how precise it is."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pyogrio
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis.strategies import integers
from report_samples import change_frame, paint_run, record

from geocd.errors import ConfigError, InputError, OutputError
from geocd.maps import write_changes
from geocd.report import apply_verdicts
from geocd.report.layer import read_changes
from geocd.report.review import wilson_interval
from geocd_cli.main import main


@pytest.fixture
def run(tmp_path):
    return paint_run(tmp_path)


def _verdicts(path, changes, verdicts, **about):
    """A file as the report exports it: verdicts by id."""
    about = {"run": read_changes(changes).run} | about
    features = [
        {"type": "Feature", "geometry": None,
         "properties": {"id": name, "verdict": verdict, "note": f"note on {name}"}}
        for name, verdict in verdicts.items()
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "geocd": about, "features": features}))
    return path


def test_verdicts_become_columns_and_nothing_else_changes(run, tmp_path):
    given_ = {"c0": "accepted", "c1": "rejected", "c2": "unsure"}
    before = read_changes(run.changes).frame
    with sqlite3.connect(run.changes) as database:
        tables = set(
            database.execute("select name, sql from sqlite_master where name <> 'changes'")
        )
    result = apply_verdicts(_verdicts(tmp_path / "v.geojson", run.changes, given_), run.changes)
    after = read_changes(run.changes).frame
    assert result.applied == 3
    assert after["verdict"].tolist()[:3] == list(given_.values())
    assert after["verdict"].isna().tolist() == [False, False, False, True]
    assert after["verdict_note"][0] == "note on c0"
    assert after[before.columns].equals(before)
    with sqlite3.connect(run.changes) as database:
        kept = set(database.execute("select name, sql from sqlite_master where name <> 'changes'"))
    assert kept == tables
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_precision_is_told_over_all_and_by_kind(run, tmp_path):
    verdicts = {"c0": "accepted", "c1": "rejected", "c2": "accepted", "c3": "unsure"}
    result = apply_verdicts(_verdicts(tmp_path / "v.json", run.changes, verdicts), run.changes)
    assert result.total.precision == pytest.approx(2 / 3)
    assert result.kinds["building"].precision == 1
    assert result.kinds["road"].precision == 0
    assert result.total.unsure == 1
    low, high = result.total.interval
    assert (low, high) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert "66.7% (20.8% to 93.9%)" in result.report()


def test_later_verdicts_are_added_to_earlier_ones(run, tmp_path):
    apply_verdicts(_verdicts(tmp_path / "1", run.changes, {"c0": "accepted"}), run.changes)
    second = {"c0": "rejected", "c1": "accepted"}
    result = apply_verdicts(_verdicts(tmp_path / "2", run.changes, second), run.changes)
    assert (result.total.accepted, result.total.rejected) == (1, 1)


def test_verdicts_on_unknown_changes_are_reported(run, tmp_path):
    verdicts = {"c0": "accepted", "gone": "rejected"}
    result = apply_verdicts(_verdicts(tmp_path / "v", run.changes, verdicts), run.changes)
    assert result.applied == 1
    assert result.unknown == ("gone",)
    assert "1 verdict on changes that are not in the file: gone" in result.report()
    assert result.report().startswith("1 verdict -> ")


def test_integer_ids_find_their_changes(tmp_path):
    frame = change_frame()
    frame["id"] = np.arange(1, len(frame) + 1)
    run = paint_run(tmp_path, frame=frame)
    result = apply_verdicts(_verdicts(tmp_path / "v", run.changes, {2: "accepted"}), run.changes)
    assert result.applied == 1
    assert read_changes(run.changes).frame["verdict"][1] == "accepted"


def test_the_run_is_the_same_after_a_review_and_another_after_a_new_run(run, tmp_path):
    first = read_changes(run.changes).run
    apply_verdicts(_verdicts(tmp_path / "v", run.changes, {"c0": "accepted"}), run.changes)
    assert read_changes(run.changes).run == first
    other = tmp_path / "other.gpkg"
    write_changes(change_frame(), other, provenance=record(created="2025-01-01T00:00:00+00:00"))
    assert read_changes(other).run != first


def test_verdicts_of_another_run_are_refused_and_the_file_stays(run, tmp_path):
    content = run.changes.read_bytes()
    verdicts = _verdicts(tmp_path / "v", run.changes, {"c0": "accepted"}, run="0123456789abcdef")
    with pytest.raises(InputError, match="the verdicts are on run 0123456789abcdef"):
        apply_verdicts(verdicts, run.changes)
    assert run.changes.read_bytes() == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read verdicts"),
        ("[]", "holds no verdicts"),
        ('{"type": "FeatureCollection"}', "holds no verdicts: it has no list of features"),
        (
            '{"type": "FeatureCollection", "features": []}',
            r'its member "geocd": \{"run": \.\.\.\}, .* is missing; export them from the report',
        ),
        ('{"features": [{"properties": {"verdict": "accepted"}}]', "cannot read"),
    ],
)
def test_a_file_that_is_no_verdicts_is_refused(run, tmp_path, text, message):
    path = tmp_path / "v.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        apply_verdicts(path, run.changes)


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [({"c0": "maybe"}, "'maybe'; wanted one of"), ({None: "accepted"}, "does not say on which")],
)
def test_a_verdict_that_makes_no_sense_is_refused(run, tmp_path, verdicts, message):
    with pytest.raises(InputError, match=message):
        apply_verdicts(_verdicts(tmp_path / "v", run.changes, verdicts), run.changes)


def test_only_a_geopackage_takes_verdicts(run, tmp_path):
    other = tmp_path / "changes.geojson"
    write_changes(change_frame(), other, provenance=record())
    with pytest.raises(ConfigError, match=r"give the \.gpkg"):
        apply_verdicts(_verdicts(tmp_path / "v", run.changes, {"c0": "accepted"}), other)


def test_a_geopackage_in_use_is_left_alone(run, tmp_path):
    verdicts = _verdicts(tmp_path / "v", run.changes, {"c0": "accepted"})
    run.changes.with_name("changes.gpkg-wal").write_bytes(b"unfinished")
    content = run.changes.read_bytes()
    with pytest.raises(OutputError, match="unfinished"):
        apply_verdicts(verdicts, run.changes)
    assert run.changes.read_bytes() == content


def test_the_spatial_index_still_finds_the_changes(run, tmp_path):
    apply_verdicts(_verdicts(tmp_path / "v", run.changes, {"c0": "accepted"}), run.changes)
    bounds = tuple(read_changes(run.changes).frame.geometry[0].bounds)
    found = pyogrio.read_dataframe(run.changes, layer="changes", bbox=bounds)
    assert found["id"].tolist() == ["c0"]


@given(trials=integers(1, 500), share=integers(0, 100))
def test_the_interval_lies_within_0_and_1_and_holds_the_share(trials, share):
    hits = trials * share // 100
    low, high = wilson_interval(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1


def test_the_command_prints_precision_and_refuses_with_one_line(run, tmp_path):
    verdicts = _verdicts(tmp_path / "v.geojson", run.changes, {"c0": "accepted"})
    done = CliRunner().invoke(main, ["review", "apply", str(verdicts), str(run.changes)])
    assert done.exit_code == 0, done.output
    assert "100.0% (20.7% to 100.0%)" in done.stdout
    missing = CliRunner().invoke(main, ["review", "apply", str(tmp_path / "no"), str(run.changes)])
    assert missing.exit_code == 1
    assert missing.stderr.startswith("Error: cannot read verdicts")
