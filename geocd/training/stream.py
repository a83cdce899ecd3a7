"""Batches of training pairs: which pair comes when depends on the recipe alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from geocd.errors import ConfigError, GeocdError
from geocd.training.real import RealPairs
from geocd.training.recipe import Recipe
from geocd.training.synthesis import Pair

Batch = tuple[Tensor, Tensor, Tensor, Tensor, tuple[str, ...]]
"""Before and after (B, 3, H, W), change (B, C, H, W) and what stands on each date (2B, C, H, W),
before first, all uint8; and the names of the pairs that were found damaged so far."""


class PairSampler(Protocol):
    """Something that makes training pairs; the same generator state gives the same pair."""

    def sample(self, rng: Generator, crop: int) -> Pair:
        """One pair of ``crop`` x ``crop`` pixels."""
        ...


class Mixture:
    """Draws each pair from one of several samplers.

    Args:
        samplers: what is drawn from.
        weights: how often, against each other.
    """

    def __init__(self, samplers: Sequence[PairSampler], weights: Sequence[float]) -> None:
        self.samplers = list(samplers)
        self.shares = np.asarray(weights, np.float64) / np.sum(weights)

    @property
    def damaged(self) -> tuple[str, ...]:
        """Names of the pairs that were skipped because they are damaged."""
        real = (s for s in self.samplers if isinstance(s, RealPairs))
        return tuple(sorted({name for s in real for name in s.pairs.damaged}))

    def sample(self, rng: Generator, crop: int) -> Pair:
        """One pair of ``crop`` x ``crop`` pixels."""
        index = int(rng.choice(len(self.samplers), p=self.shares))
        return self.samplers[index].sample(rng, crop)


def collate(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Before, after, change and dates of pairs of one size, as in ``Batch``."""

    def _stack(planes: list[NDArray[np.uint8]]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.stack(planes)))

    images = _stack([p.before for p in pairs] + [p.after for p in pairs])
    before, after = images.permute(0, 3, 1, 2).contiguous().chunk(2)  # (B, 3, H, W)
    dates = _stack([p.labels_before for p in pairs] + [p.labels_after for p in pairs])
    return before, after, _stack([p.change for p in pairs]), dates


class PairStream(IterableDataset[Batch | GeocdError]):
    """The batches of a stretch of training, in order, in parts of one pass each.

    Pair i of a step depends on the seed, the step and i alone, so that a resumed run, more
    worker processes or more training processes see the same pairs.

    Args:
        sampler: makes the pairs.
        recipe: seed, stages, parts of a batch.
        steps: the steps to make.
        process: this training process and how many there are.

    Raises:
        ConfigError: a batch cannot be shared evenly.
    """

    def __init__(
        self, sampler: Mixture, recipe: Recipe, steps: range, *, process: tuple[int, int]
    ) -> None:
        # A forked worker inherits OpenCV's pool without its threads and may wait for them for
        # ever: the pool has to be gone in the process that forks.
        cv2.setNumThreads(1)
        self.sampler, self.recipe, self.steps = sampler, recipe, steps
        self.rank, self.processes = process
        for stage in recipe.stages:
            if stage.batch % (self.processes * recipe.optimizer.accumulate):
                raise ConfigError(
                    f"a batch of {stage.batch} cannot be shared by {self.processes} processes "
                    f"in {recipe.optimizer.accumulate} parts each"
                )

    def __iter__(self) -> Iterator[Batch | GeocdError]:
        # OpenCV's own threads would fight with torch's for the cores.
        cv2.setNumThreads(1)
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        parts = self.recipe.optimizer.accumulate
        passes = ((step, part) for step in self.steps for part in range(parts))
        for index, (step, part) in enumerate(passes):
            # The loader asks its workers in turn.
            if index % workers == worker:
                try:
                    yield self.part_of(step, part)
                except GeocdError as error:
                    if info is None:
                        raise
                    # As a value: a loader would wrap it into the traceback of the worker. Alone:
                    # what caused it may be an exception that cannot be pickled.
                    error.__cause__ = error.__context__ = None
                    yield error.with_traceback(None)
                    return

    def part_of(self, step: int, part: int) -> Batch:
        """What this process sees in one pass of a step."""
        _, stage = self.recipe.stage_at(step)
        share = stage.batch // self.processes
        size = share // self.recipe.optimizer.accumulate
        first = self.rank * share + part * size
        pairs = [
            self.sampler.sample(np.random.default_rng([self.recipe.seed, step, i]), stage.crop)
            for i in range(first, first + size)
        ]
        return *collate(pairs), self.sampler.damaged
