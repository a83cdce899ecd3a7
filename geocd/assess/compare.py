"""Whether one run is better than another, or whether the images merely fell that way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocd.assess.evaluation import assess
from geocd.assess.metrics import BOOTSTRAPPED, Confusion, Interval, finite, total
from geocd.assess.report import EVALUATION
from geocd.assess.tables import Table, figure
from geocd.config import DetectConfig
from geocd.errors import ConfigError
from geocd.training.datasets import LabelCoding

Floats = NDArray[np.float64]

_SLACK = 0.05
"""Share of an image's pixels by which two runs may differ in what they observed of it."""
_COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")


@dataclass(frozen=True, slots=True)
class Run:
    """A method on a set of images."""

    name: str
    images: Mapping[str, Confusion]
    """Agreement by image."""
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """How much larger a ratio of the second run is than that of the first."""

    first: float
    second: float
    interval: Interval
    """95 % interval of the difference; NaN with less than two images."""
    better: float
    """Share of the resamples in which the second run is better, ties counting half."""

    @property
    def value(self) -> float:
        """Second minus first."""
        return self.second - self.first

    @property
    def sure(self) -> bool:
        """Whether the interval leaves 0 out."""
        low, high = self.interval
        return low > 0 or high < 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "first": finite(self.first),
            "second": finite(self.second),
            "difference": finite(self.value),
            "interval_95": [finite(bound) for bound in self.interval],
            "second_better": finite(self.better),
            "sure": self.sure,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same images."""

    first: str
    second: str
    images: int
    only_one: tuple[str, ...]
    """Images that only one of the runs has; they count for neither."""
    differences: Mapping[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "first": self.first,
            "second": self.second,
            "images": self.images,
            "only_one": list(self.only_one),
            "differences": {name: d.to_dict() for name, d in self.differences.items()},
        }

    def report(self) -> str:
        """A table, and what it says in words."""
        rows = [
            [name, figure(d.first), figure(d.second), f"{d.value:+.3f}",
             f"{d.interval[0]:+.3f} to {d.interval[1]:+.3f}", figure(d.better, 2)]
            for name, d in self.differences.items()
        ]  # fmt: skip
        heads = ["", "first", "second", "difference", "95 %", "second better"]
        table = Table(
            f"First: {self.first}; second: {self.second}; {self.images} images, resampled in pairs",
            heads, rows,
        ).to_text()  # fmt: skip
        return "\n\n".join([table, *self._words()])

    def _words(self) -> list[str]:
        f1 = self.differences["f1"]
        if math.isnan(f1.interval[0]):
            words = ["one image tells nothing of others: no difference can be called sure"]
        elif f1.sure:
            words = [f"the {'second' if f1.value > 0 else 'first'} has the better F1"]
        else:
            words = ["the difference of F1 may be chance: its interval holds 0"]
        if self.only_one:
            words.append(f"left out, because one run lacks them: {', '.join(self.only_one)}")
        return words


def compare(first: Run, second: Run, *, resamples: int = 5000, seed: int = 0) -> Comparison:
    """Differences of precision, recall, F1 and IoU, with intervals from a paired bootstrap.

    Each resample draws images with replacement and takes both runs on the same ones, so what is
    hard for both leaves the difference alone.

    Args:
        first: one run.
        second: another, on the same images.
        resamples: sets that are drawn.
        seed: the same seed gives the same intervals.

    Raises:
        ConfigError: the runs share no image, or were told different labels of one that they share.

    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, ISBN 0-412-04231-2.
    """
    names = [name for name in first.images if name in second.images]
    if not names:
        raise ConfigError(f"{first.name} and {second.name} share no image; compare runs on one set")
    for name in names:
        _check_same_labels(name, first, second)
    pair = [[run.images[name] for name in names] for run in (first, second)]
    wholes = [total(images) for images in pair]
    spread = _resampled(pair, resamples, seed)
    differences = {
        ratio: Difference(
            getattr(wholes[0], ratio), getattr(wholes[1], ratio), *_summary(spread[ratio])
        )
        for ratio in BOOTSTRAPPED
    }
    return Comparison(first.name, second.name, len(names),
                      tuple(sorted(first.images.keys() ^ second.images.keys())),
                      differences)  # fmt: skip


def _check_same_labels(name: str, first: Run, second: Run) -> None:
    """Weights may align a pair differently and so observe a little more or less of it."""
    one, other = first.images[name], second.images[name]
    slack = _SLACK * max(one.size, other.size)
    if abs(one.size - other.size) > slack or abs(_changed(one) - _changed(other)) > slack:
        raise ConfigError(
            f"of {name}, {first.name} counted {one.size} pixels with {_changed(one)} changed and "
            f"{second.name} {other.size} with {_changed(other)}; runs compare on the same labels "
            "only: evaluate both on one set, with one pixel size"
        )


def _changed(c: Confusion) -> int:
    return c.true_positive + c.false_negative


def _resampled(pair: list[list[Confusion]], resamples: int, seed: int) -> dict[str, Floats]:
    """Second minus first by ratio, shape (resamples,); NaN where a ratio is undefined."""
    n = len(pair[0])
    if n < 2:
        return dict.fromkeys(BOOTSTRAPPED, np.full(1, np.nan))
    counts = [np.array([astuple(c) for c in images], np.float64) for images in pair]  # (n, 4)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    first, second = (_ratios(draws @ table) for table in counts)
    return {name: second[name] - first[name] for name in BOOTSTRAPPED}


def _ratios(counts: Floats) -> dict[str, Floats]:
    hits, alarms, misses, _ = counts.T
    with np.errstate(invalid="ignore"):
        return {
            "precision": hits / (hits + alarms),
            "recall": hits / (hits + misses),
            "f1": 2 * hits / (2 * hits + alarms + misses),
            "iou": hits / (hits + alarms + misses),
        }


def _summary(differences: Floats) -> tuple[Interval, float]:
    defined = differences[~np.isnan(differences)]
    if not defined.size:
        return (math.nan, math.nan), math.nan
    low, high = np.quantile(defined, [0.025, 0.975])
    better = (defined > 0).mean() + (defined == 0).mean() / 2
    return (float(low), float(high)), float(better)


def read_run(path: Path) -> Run:
    """The weights' run in the JSON that ``geocd evaluate`` wrote, or in the folder of it.

    Raises:
        ConfigError: the file is missing, or holds something else.
    """
    if path.is_dir():
        path = path / EVALUATION
    try:
        content = json.loads(path.read_text())
        weights = content["methods"][0]
        images = {
            name: Confusion(*(int(entry[count]) for count in _COUNTS))
            for name, entry in weights["images"].items()
        }
        return Run(f"{weights['method']} ({path})", images, len(content["skipped"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"{path} does not hold the output of geocd evaluate ({error}); give the folder that "
            f"its option -o named, {EVALUATION} in it, or what --json printed"
        ) from None


def evaluate_run(
    data: Path,
    *,
    config: DetectConfig,
    kind: str = "building",
    split: str | None = None,
    coding: LabelCoding | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Run weights over labelled pairs; see ``assess``."""
    weights = assess(
        data, config=config, kind=kind, split=split, coding=coding, progress=progress
    ).evaluations[0]
    return Run(weights.method, weights.images, len(weights.skipped))
