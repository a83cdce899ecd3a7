"""How a run is watched: its log, and its validation on pairs that it is not trained on."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocd.outputs import replacing
from geocd.training.real import whole_pairs
from geocd.training.recipe import Recipe
from geocd.training.synthesis import Pair, PairSynthesizer
from geocd.training.tiles import IGNORE, load_tiles

Scores = NDArray[np.float32]
Score = Callable[[NDArray[np.uint8], NDArray[np.uint8]], Scores]
"""From two images (height, width, 3) to scores (planes, height, width), 0..1."""

_SEED = 20_000_003
"""Added to the recipe's seed, so that validation draws other pairs than training."""


class RunLog:
    """A table that grows by a row a step, and forgets the rows of steps that were lost.

    Args:
        path: the CSV file; its first column is the step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, str]]:
        """All rows, by column."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def forget_after(self, step: int) -> None:
        """Drop what was logged after the step from which the run goes on."""
        rows = self.rows()
        kept = [r for r in rows if r["step"].isdigit() and int(r["step"]) <= step]
        if len(kept) < len(rows):
            with replacing(self.path) as temporary:
                self._write(temporary, kept)

    def add(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append rows of the same columns."""
        if not rows:
            return
        if not self.path.exists():
            self._write(self.path, rows)
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, list(rows[0])).writerows(rows)

    def _write(self, path: Path, rows: Sequence[Mapping[str, object]]) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["step"])
            writer.writeheader()
            writer.writerows(rows)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Agreement of the scores with the labels at a threshold of 0.5, by class."""

    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    """Hits, false alarms and misses of each class, in pixels, shape (planes, 3)."""

    @classmethod
    def of_nothing(cls, classes: tuple[str, ...]) -> Verdict:
        """A verdict without any pixel."""
        return cls(classes, np.zeros((len(classes), 3), np.int64))

    @property
    def f1(self) -> dict[str, float]:
        """F1 of each class that is labelled or found anywhere; NaN of the others."""
        hits, alarms, misses = self.counts.T
        total = 2 * hits + alarms + misses
        return {
            name: float(2 * h / t) if t else math.nan
            for name, h, t in zip(self.classes, hits, total, strict=True)
        }

    @property
    def mean_f1(self) -> float:
        """Mean of the classes' F1 where it is defined, else 0."""
        defined = [v for v in self.f1.values() if not math.isnan(v)]
        return float(np.mean(defined)) if defined else 0.0


def agreement(scores: Scores, change: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Hits, false alarms and misses at 0.5, where the label is known; shape (planes, 3)."""
    found, known, truth = scores >= 0.5, change != IGNORE, change == 1
    counts = [found & truth, found & known & ~truth, ~found & truth]
    return np.stack([c.sum(axis=(1, 2)) for c in counts], axis=1)


class Validation:
    """The pairs that a run is validated on.

    Args:
        recipe: names them.
        root: the data root.
        strict: refuse damaged files instead of skipping them.

    Raises:
        DatasetError: a set cannot be used.
    """

    def __init__(self, recipe: Recipe, root: Path, *, strict: bool) -> None:
        config, self.classes = recipe.validation, recipe.planes
        self.pairs: dict[str, Pair] = {}
        for source in config.pairs:
            whole = whole_pairs(source, root, classes=self.classes, strict=strict)
            place = "" if source.folder == "." else f"{source.folder}/"
            self.pairs |= {f"{place}{name}": pair for name, pair in whole}
        if config.sources:
            tiles = load_tiles(root, config.sources, classes=len(self.classes), strict=strict)
            make = PairSynthesizer(tiles, config.sources, recipe.synthesis)
            for index in range(config.synthesised):
                rng = np.random.default_rng([recipe.seed + _SEED, index])
                pair = make.sample(rng, config.crop)
                self.pairs[f"{pair.kind} {index}"] = pair

    def judge(self, score: Score) -> tuple[Verdict, dict[str, Scores]]:
        """The verdict on all pairs, and the scores of each by name."""
        scores = {name: score(p.before, p.after) for name, p in self.pairs.items()}
        counts = [agreement(scores[name], pair.change) for name, pair in self.pairs.items()]
        return Verdict(self.classes, np.sum(counts, axis=0)), scores
