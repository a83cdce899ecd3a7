"""How a run is watched: its log, and its validation on pairs that it is not trained on."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocd.errors import OutputError
from geocd.outputs import replacing
from geocd.training.defects import DefectPairs
from geocd.training.real import WholePairs
from geocd.training.recipe import Recipe
from geocd.training.stream import Mixture, PairSampler
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
        if not kept:
            self.path.unlink(missing_ok=True)
        elif len(kept) < len(rows):
            with replacing(self.path) as temporary:
                self._write(temporary, kept, mode="w")

    def add(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append rows of the same columns.

        Raises:
            OutputError: the system refused the write.
        """
        if rows:
            try:
                self._write(self.path, rows, mode="a" if self.path.exists() else "w")
            except OSError as error:
                raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def _write(self, path: Path, rows: Sequence[Mapping[str, object]], *, mode: str) -> None:
        with path.open(mode, newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if mode == "w":
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


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of the validation with its scores.

    Attributes:
        name: of the pair.
        pair: images and labels.
        scores: shape (planes, height, width), 0..1.
        wrong: false alarms and misses of all classes, pixels.
    """

    name: str
    pair: Pair
    scores: Scores
    wrong: int


class Validation:
    """The pairs that a run is validated on; real ones are read anew each time.

    Args:
        recipe: names them.
        root: the data root.
        strict: refuse damaged files instead of skipping them.

    Raises:
        DatasetError: a set cannot be used.
    """

    def __init__(self, recipe: Recipe, root: Path, *, strict: bool) -> None:
        config, self.classes = recipe.validation, recipe.planes
        self.real = [
            WholePairs(source, root, classes=self.classes, strict=strict) for source in config.pairs
        ]
        self.synthesised: dict[str, Pair] = {}
        self._damaged_tiles: set[str] = set()
        if config.sources:
            tiles = load_tiles(root, config.sources, classes=len(self.classes), strict=strict)
            self._damaged_tiles.update(tiles.damaged)
            make: PairSampler = PairSynthesizer(tiles, config.sources, recipe.synthesis)
        elif config.synthesised:
            made = [DefectPairs(source, root, strict=strict) for source in recipe.defects]
            make = Mixture(made, [source.weight for source in recipe.defects])
        for index in range(config.synthesised):
            rng = np.random.default_rng([recipe.seed + _SEED, index])
            pair = make.sample(rng, config.crop)
            self.synthesised[f"{pair.kind} {index}"] = pair

    @property
    def damaged(self) -> set[str]:
        """Names of the pairs and tiles that were skipped because they are damaged."""
        return self._damaged_tiles.union(*(real.pairs.damaged for real in self.real))

    def __iter__(self) -> Iterator[tuple[str, Pair]]:
        """Names and pairs."""
        yield from chain(self.synthesised.items(), *self.real)

    def judge(self, score: Score, *, worst: int = 0) -> tuple[Verdict, list[Case]]:
        """The verdict on all pairs, and those with the most wrong pixels, worst first."""
        total, cases = Verdict.of_nothing(self.classes).counts, []
        for name, pair in self:
            scores = score(pair.before, pair.after)
            counts = agreement(scores, pair.change)
            total = total + counts
            cases.append(Case(name, pair, scores, int(counts[:, 1:].sum())))
            cases = sorted(cases, key=lambda case: -case.wrong)[:worst]
        return Verdict(self.classes, total), cases
