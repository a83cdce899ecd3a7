"""'Better' is not noise: differences of runs on the same images."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from geocd.assess.compare import Run, compare, read_run
from geocd.assess.metrics import Confusion
from geocd.errors import ConfigError
from geocd_cli.main import main


def _run(name, recalls, precisions, changed=1000, size=10_000):
    """Images with known recall and precision."""
    images = {}
    for index, (recall, precision) in enumerate(zip(recalls, precisions, strict=True)):
        hits = round(recall * changed)
        alarms = round(hits * (1 - precision) / precision)
        images[f"{index:03}"] = Confusion(hits, alarms, changed - hits,
                                          size - changed - alarms)  # fmt: skip
    return Run(name, images)


def _pair(gain, noise, n=60, seed=0):
    """Two runs whose images are hard for both alike; the second finds more by ``gain``."""
    rng = np.random.default_rng(seed)
    ease = rng.uniform(0.4, 0.7, n)
    second = np.clip(ease + gain + rng.normal(0, noise, n), 0.05, 0.95)
    return _run("a", ease, np.full(n, 0.8)), _run("b", second, np.full(n, 0.8))


def test_a_gain_that_all_images_share_is_seen_though_images_differ_more():
    first, second = _pair(0.02, 0.02)
    recall = compare(first, second).differences["recall"]
    assert recall.value == pytest.approx(0.02, abs=0.006)
    assert recall.sure
    low, high = recall.interval
    assert 0 < low < recall.value < high < 0.04
    assert recall.better == pytest.approx(1, abs=0.01)


def test_the_same_run_twice_differs_in_nothing():
    first, _ = _pair(0, 0)
    for d in compare(first, first).differences.values():
        assert (d.value, d.interval, d.better, d.sure) == (0, (0, 0), 0.5, False)


def test_runs_swapped_give_the_difference_with_the_other_sign():
    first, second = _pair(0.05, 0.05)
    there, back = compare(first, second), compare(second, first)
    for name, d in there.differences.items():
        assert back.differences[name].value == -d.value
        np.testing.assert_allclose(back.differences[name].interval, [-b for b in d.interval[::-1]])


def test_chance_is_called_better_as_seldom_as_it_says():
    wrong = sum(
        compare(*_pair(0, 0.1, seed=seed), resamples=300).differences["recall"].sure
        for seed in range(200)
    )
    assert wrong / 200 < 0.1  # stated: 0.05


def test_images_of_one_run_only_are_left_out_and_named():
    first, second = _pair(0.02, 0.02, n=10)
    fewer = Run("b", {k: v for k, v in second.images.items() if k != "003"})
    result = compare(first, fewer)
    assert (result.images, result.only_one) == (9, ("003",))
    assert "left out" in result.report()
    with pytest.raises(ConfigError, match="share no image"):
        compare(first, Run("c", {"x": Confusion(1, 1, 1, 1)}))


def test_other_labels_or_other_ground_are_refused():
    first = Run("a", {"x": Confusion(5, 5, 5, 85)})
    for other in (Confusion(5, 5, 5, 70), Confusion(12, 5, 5, 78)):
        with pytest.raises(ConfigError, match="counted 100 pixels with 10 changed"):
            compare(first, Run("b", {"x": other}))
    a_little_less = Run("b", {"x": Confusion(5, 5, 4, 83)})
    assert compare(first, a_little_less).images == 1


def test_one_image_says_nothing_of_others():
    result = compare(
        Run("a", {"x": Confusion(5, 5, 5, 85)}), Run("b", {"x": Confusion(9, 5, 1, 85)})
    )
    assert math.isnan(result.differences["f1"].interval[0])
    assert not result.differences["f1"].sure
    assert "one image" in result.report()
    assert result.to_dict()["differences"]["f1"]["interval_95"] == [None, None]


def _evaluation(path, run):
    images = {k: v.to_dict() for k, v in run.images.items()}
    path.write_text(json.dumps({"methods": [{"method": run.name, "images": images}],
                                "skipped": {}}))  # fmt: skip
    return path


def test_the_command_reads_evaluations_and_says_what_is_sure(tmp_path):
    first, second = _pair(0.05, 0.02)
    paths = [str(_evaluation(tmp_path / f"{r.name}.json", r)) for r in (first, second)]
    assert read_run(tmp_path / "a.json").images == first.images
    done = CliRunner().invoke(main, ["compare", *paths])
    assert done.exit_code == 0, done.output
    assert "the second has the better F1" in done.stdout
    for path in paths:
        folder = Path(path.removesuffix(".json"))
        folder.mkdir()
        (folder / "evaluation.json").write_bytes(Path(path).read_bytes())
    folders = [path.removesuffix(".json") for path in paths]
    assert "the second has the better F1" in CliRunner().invoke(main, ["compare", *folders]).stdout
    done = CliRunner().invoke(main, ["compare", *paths[::-1], "--json"])
    assert json.loads(done.stdout)["differences"]["f1"]["sure"]
    assert "may be chance" in compare(*_pair(0, 0.1)).report()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"methods": []}', '{"methods": [{"images": {"x": 1}}]}']
)
def test_other_files_are_no_evaluation(tmp_path, text):
    (tmp_path / "e.json").write_text(text)
    for path in (tmp_path / "e.json", tmp_path / "nothing.json"):
        with pytest.raises(ConfigError, match="output of geocd evaluate"):
            read_run(path)
