"""Runs of an inspection: lines, exit codes, the watched folder, the contact sheet, the demo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from boards import GOLDEN, SHAPE, Difference, bad, good, inspector, save
from click.testing import CliRunner

import geocd.inspect.inspector as module
from geocd.assess.operating_point import OperatingPoint, settings_of, write_operating_point
from geocd.config import DetectConfig, InspectConfig, PredictConfig
from geocd.errors import ConfigError, InputError, OutputExistsError
from geocd.inspect.demo import run_inspection_demo
from geocd.inspect.outputs import read_lines
from geocd.inspect.run import inspect_files, watch_folder
from geocd.models.files import find_weights, read_card
from geocd.testing.boards import paint_board
from geocd_cli.main import main

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture
def line(tmp_path):
    """A golden, and a folder of one good, one bad and one strange sample."""
    save(tmp_path / "golden.png", GOLDEN)
    save(tmp_path / "in" / "a_good.png", good(shift=(2, -1)))
    save(tmp_path / "in" / "b_bad.png", bad(["spot", "hole"], shift=(1, 1)))
    save(tmp_path / "in" / "c_strange.png", paint_board(SHAPE, seed=9).image)
    return tmp_path


@pytest.fixture
def command(monkeypatch):
    """``geocd inspect`` with a stand-in for the network."""
    monkeypatch.setattr(module, "open_predictor", lambda *_, **__: Difference())

    def _run(*arguments):
        return CliRunner().invoke(main, ["inspect", *map(str, arguments)])

    return _run


def _lines(folder):
    return list(read_lines(folder / "verdicts.jsonl"))


# Folders


def test_a_run_leaves_a_line_and_pictures_of_every_sample(line):
    result = inspect_files(inspector(), [line / "in"], line / "out", goldens=["golden.png"])
    entries = _lines(line / "out")
    assert [e["verdict"] for e in entries] == ["pass", "reject", "cannot judge"]
    assert [e["name"] for e in entries] == ["a_good.png", "b_bad.png", "c_strange.png"]
    assert list(result.entries) == entries
    for entry in entries:
        assert (line / "out" / entry["picture"]).stat().st_size > 500
        for defect in entry["defects"]:
            assert (line / "out" / defect["picture"]).stat().st_size > 300
    assert len(entries[1]["defects"]) == 2
    facts = json.loads((line / "out" / "inspection.json").read_text())
    assert facts["weights"]["name"] == "pcb"
    assert facts["thresholds"] == {"defect": read_card(find_weights("pcb")).thresholds[0]}


def test_results_are_not_overwritten_unasked(line):
    inspect_files(inspector(), [line / "in"], line / "out")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        inspect_files(inspector(), [line / "in"], line / "out")
    inspect_files(inspector(), [line / "in" / "a_good.png"], line / "out", overwrite=True)
    assert len(_lines(line / "out")) == 1
    assert not (line / "out" / "pictures" / "3.jpg").exists()


def test_nothing_to_judge_is_an_error(line):
    (line / "empty").mkdir()
    for samples, message in (([line / "empty"], "no pictures"), ([line / "gone"], "there is no")):
        with pytest.raises(InputError, match=message):
            inspect_files(inspector(), samples, line / "out")


@pytest.mark.parametrize(
    ("names", "code"),
    [(["a_good"], 0), (["a_good", "b_bad"], 1), (["a_good", "c_strange"], 3),
     (["a_good", "b_bad", "c_strange"], 3)],
)  # fmt: skip
def test_exit_codes_tell_pass_reject_and_cannot_judge(line, command, names, code):
    files = [line / "in" / f"{name}.png" for name in names]
    done = command("--golden", line / "golden.png", *files, "-o", line / "out")
    assert done.exit_code == code, done.output
    assert f"{names[-1]}.png: " in done.stdout


def test_errors_are_no_rejects(line, command):
    golden = ("--golden", line / "golden.png", "-o", line / "out")
    assert command(*golden, line / "in").exit_code == 3
    assert command(*golden, line / "in").exit_code == 3  # the output exists
    (line / "none").mkdir()
    assert command(*golden, "--overwrite", line / "none").exit_code == 3
    missing = command("--golden", line / "no.png", line / "in", "-o", line / "out2")
    assert missing.exit_code == 3
    assert "no.png cannot be used" in missing.stderr
    assert command(*golden, line / "in", "--threshold", "2").exit_code == 2
    assert command(line / "in", "-o", line / "out").exit_code == 2


def test_json_lines_go_to_stdout_one_a_sample(line, command):
    done = command("--golden", line / "golden.png", line / "in", "-o", line / "out", "--json",
                   "--mm-per-pixel", "0.05")  # fmt: skip
    entries = [json.loads(text) for text in done.stdout.splitlines()]
    assert entries == _lines(line / "out")
    assert entries[1]["defects"][0]["box_mm"]


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    (tmp_path / "v.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert list(read_lines(tmp_path / "v.jsonl")) == [{"a": 1}, {"a": 2}]


# Operating points


def _point(path, **changes):
    config = DetectConfig(weights="pcb", predict=PredictConfig(first_look=False))
    card = read_card(find_weights("pcb"))
    facts = {
        "kind": "defect", "threshold": 0.25,
        "weights": {"name": "pcb", "architecture": card.architecture,
                    "sha256": card.tensors_sha256},
        "settings": settings_of(config) | changes.pop("other", {}), "promise": {},
        "calibration": {}, "made": {},
    } | changes  # fmt: skip
    write_operating_point(OperatingPoint(**facts), path)
    return path


def test_an_operating_point_brings_its_threshold(line, command):
    done = command("--golden", line / "golden.png", line / "in" / "a_good.png", "-o", line / "out",
                   "--operating-point", _point(line / "p.json"))  # fmt: skip
    assert done.exit_code == 0, done.output
    facts = json.loads((line / "out" / "inspection.json").read_text())
    assert facts["thresholds"] == {"defect": 0.25}
    point = json.loads((line / "p.json").read_text())
    assert facts["settings"]["operating_point"] == point["sha256"]


@pytest.mark.parametrize(
    ("changes", "more", "code", "message"),
    [
        ({"weights": {"name": "x", "sha256": "0" * 64}}, (), 3, "proven for x"),
        ({"settings": {}}, (), 3, "other settings"),
        ({"other": {"precision": "int4"}}, (), 3, "precision was 'int4'"),
        ({}, ("--threshold", "0.4"), 2, "brings its threshold"),
        ({}, ("--zones", "zones.geojson"), 2, "above the proven"),
    ],
)
def test_an_operating_point_that_does_not_hold_is_refused(
    line, command, monkeypatch, changes, more, code, message
):
    monkeypatch.chdir(line)
    Path("zones.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [{
        "type": "Feature", "properties": {"name": "pads", "threshold": 0.9},
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]},
    }]}))  # fmt: skip
    done = command("--golden", "golden.png", "in", "-o", "out", "--operating-point",
                   _point(line / "p.json", **changes), *more)  # fmt: skip
    assert done.exit_code == code, done.output
    assert message in done.output
    assert not (line / "out" / "verdicts.jsonl").exists()


# Watching


def _watch(line, *, until, **how):
    """Watch until so many verdicts are there, or for ten seconds."""
    told, begun = [], time.monotonic()
    result = watch_folder(
        inspector(), line / "in", line / "out", poll_s=0.05,
        told=lambda verdict, entry: told.append(entry),
        stop=lambda: len(told) >= until or time.monotonic() - begun > 10, **how,
    )  # fmt: skip
    return result, [entry["name"] for entry in told]


def test_a_watched_folder_is_judged_once_and_goes_on_after_a_restart(line):
    _, first = _watch(line, until=3)
    assert sorted(first) == ["a_good.png", "b_bad.png", "c_strange.png"]
    save(line / "in" / "d_new.png", good(noise=3))
    result, second = _watch(line, until=1)
    assert second == ["d_new.png"]
    assert len(result.entries) == 4
    assert [e["number"] for e in _lines(line / "out")] == [1, 2, 3, 4]
    save(line / "in" / "a_good.png", bad(["spot"]))  # the same name, another picture
    result, third = _watch(line, until=1)
    assert third == ["a_good.png"]
    assert result.entries[-1]["verdict"] == "reject"


def test_a_restart_with_other_settings_is_refused(line):
    _watch(line, until=3)
    strict = inspector(config=InspectConfig(min_area=1))
    with pytest.raises(ConfigError, match="other settings"):
        watch_folder(strict, line / "in", line / "out", stop=lambda: True)
    with pytest.raises(ConfigError, match="other goldens"):
        watch_folder(inspector([good(noise=2)]), line / "in", line / "out", stop=lambda: True)


def test_a_file_that_is_still_written_is_waited_for(line):
    for path in (line / "in").iterdir():
        path.unlink()
    content = save(line / "whole.png", good()).read_bytes()
    target = line / "in" / "slow.png"
    target.write_bytes(b"")

    def _write():
        with target.open("ab") as file:
            for start in range(0, len(content), len(content) // 12 + 1):
                file.write(content[start : start + len(content) // 12 + 1])
                file.flush()
                time.sleep(0.1)

    writer = threading.Thread(target=_write)
    writer.start()
    told, begun = [], time.monotonic()
    watch_folder(
        inspector(), line / "in", line / "out", poll_s=0.4, told=lambda v, _: told.append(v.word),
        stop=lambda: bool(told) or time.monotonic() - begun > 20,
    )  # fmt: skip
    writer.join()
    assert told == ["pass"]


def test_hidden_and_temporary_files_are_left_alone(line):
    save(line / "in" / ".hidden.png", good())
    (line / "in" / "x.png.part").write_bytes(b"1")
    _, names = _watch(line, until=3)
    assert len(names) == 3


def test_a_watch_ends_cleanly_on_ctrl_c(line):
    run = subprocess.Popen(
        [sys.executable, "-m", "geocd_cli", "inspect", "--golden", line / "golden.png", line / "in",
         "-o", line / "out", "--watch", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell's background jobs, and so their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    words = {json.loads(run.stdout.readline())["verdict"] for _ in range(3)}
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert words == {"pass", "reject", "cannot judge"}
    assert run.returncode == 3, errors
    assert "Traceback" not in errors
    assert "3 samples: 1 pass, 1 rejected, 1 not judged" in errors
    assert (line / "out" / "index.html").exists()


# The page


def test_the_contact_sheet_is_whole_and_escapes_names(line):
    save(line / "in" / "<script>alert(1)<&.png", good())
    result = inspect_files(inspector(), [line / "in"], line / "out", goldens=["<golden>.png"])
    text = result.page.read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;&amp;.png" in text
    assert "&lt;golden&gt;.png" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("data:image/jpeg") == 1 + 4 + 2


@pytest.mark.browser
def test_the_contact_sheet_opens_quietly_and_filters(line):
    if not Path(CHROMIUM).exists():
        pytest.skip("Debian's Chromium is not installed (make system-deps)")
    from playwright.sync_api import sync_playwright

    page = inspect_files(inspector(), [line / "in"], line / "out").page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM,
                                             args=["--no-sandbox", "--disable-gpu"])  # fmt: skip
        tab = browser.new_page()
        asked, complaints = [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready=yes]")
        assert tab.locator("article:visible").count() == 3
        tab.locator("button", has_text="Reject").click()
        assert tab.locator("article:visible h3").all_text_contents() == ["b_bad.png"]
        tab.locator("button", has_text="Reject").click()
        assert tab.locator("article:visible").count() == 3
        browser.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_the_demo_says_what_every_board_deserves(tmp_path):
    demo = run_inspection_demo(tmp_path / "demo")
    assert demo.right == len(demo.deserved) == 8, demo.report()
    assert "4_scratched.png      reject        reject" in demo.report()


@pytest.mark.data
def test_real_boards_with_defects_never_pass_and_good_ones_do(data):
    from geocd.inspect import Inspector

    for name in ("13000139", "20085266"):  # products that the weights may have seen
        files = {part: data / "pcb" / part / f"{name}.jpg" for part in ("A", "B")}
        judge = Inspector([files["A"]]).judge
        assert judge(files["B"]).word == "reject"
        assert judge(files["A"]).word == "pass"
        assert judge(np.zeros((640, 640), np.uint8)).word == "cannot judge"
