"""Training samples and validation chips from real labelled pairs."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocd.errors import ConfigError, DamagedSampleError, DatasetError, GeocdWarning
from geocd.tiling.windows import starts
from geocd.training.datasets.access import (
    BLOCK,
    ChangeIndex,
    Image,
    Labels,
    PairAccess,
    index_change,
    open_access,
)
from geocd.training.datasets.coding import LabelCoding
from geocd.training.datasets.layouts import LabelledPair
from geocd.training.synthesis import Pair
from geocd.training.tiles import IGNORE

log = logging.getLogger(__name__)

_ATTEMPTS = 100
"""Damaged pairs in a row after which sampling gives up."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A part of a pair, for validation.

    Attributes:
        name: of the pair.
        rows, cols: where the chip lies in the pair.
        before, after: RGB, shape (H, W, 3), uint8; mirrored where the chip reaches over the pair.
        change: shape (classes, H, W), uint8: 0, 1 or ``IGNORE``. Where chips overlap, each pixel
            is labelled in one of them only, so that sums over chips count it once.
    """

    name: str
    rows: slice
    cols: slice
    before: Image
    after: Image
    change: Labels


class LabelledPairs:
    """A set of labelled pairs to draw from; the same generator state gives the same sample.

    Labels are read once when the set is made: pairs that do not fit are refused then, not in the
    middle of an epoch. A damaged file is skipped with a warning and counted; with ``strict`` it is
    an error. Use it in one thread; in several processes, each has its own memory and its own count.

    Args:
        pairs: from ``load_pairs``.
        coding: what the values of the labels mean.
        balanced: share of samples, 0..1, that are drawn around a change, of each class equally
            often. The others are drawn uniformly over the ground.
        cache_bytes: decoded images that are kept in memory.
        strict: refuse damaged files instead of skipping them.

    Attributes:
        pairs: those that can be read.
        damaged: how often each damaged pair was skipped, by name.

    Raises:
        DatasetError: a pair does not fit together or the coding; there is none that can be read.
    """

    def __init__(
        self,
        pairs: Sequence[LabelledPair],
        *,
        coding: LabelCoding | None = None,
        balanced: float = 0.0,
        cache_bytes: int = 1 << 30,
        strict: bool = False,
    ) -> None:
        if not 0 <= balanced <= 1:
            raise ConfigError(f"balanced must be a share from 0 to 1, got {balanced}")
        if cache_bytes < 0:
            raise ConfigError(f"cache_bytes must not be negative, got {cache_bytes}")
        self.coding = coding or LabelCoding()
        self.balanced, self.strict = balanced, strict
        self.damaged: Counter[str] = Counter()
        self.pairs: list[LabelledPair] = []
        index = []
        for pair in pairs:
            try:
                index.append(index_change(pair, self.coding))
                self.pairs.append(pair)
            except DamagedSampleError as error:
                self._skip(pair, error)
        if not self.pairs:
            raise DatasetError(f"none of {len(pairs)} pairs can be read")
        self._ground = np.cumsum([float(np.prod(entry.shape)) for entry in index])
        self._near = _by_class(index, len(self.coding.classes))
        if balanced and not self._near:
            warnings.warn(
                f"none of {len(self.pairs)} pairs shows change of a labelled class; nothing can be "
                "balanced",
                GeocdWarning,
                stacklevel=2,
            )
        self._cache = _Cache(self.pairs, self.coding, cache_bytes)
        log.info("%d pairs, %d damaged", len(self.pairs), len(self.damaged))

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, rng: Generator, crop: int) -> Pair:
        """A pair of ``crop`` x ``crop`` pixels, mirrored and turned by right angles at random.

        Pairs smaller than that are mirrored beyond their edges, where the label is ``IGNORE``.

        Raises:
            DamagedSampleError: a file is damaged, with ``strict``.
            DatasetError: too many pairs in a row are damaged.
        """
        for _ in range(_ATTEMPTS):
            # Every attempt takes the same from the generator, whether or not it succeeds.
            draw = np.random.default_rng(rng.integers(2**63, size=2))
            number, block = self._choose(draw)
            try:
                opened = self._cache.get(number)
                corner = _corner(opened, block, crop, draw)
                before, after, change = _turned(_cut(opened, *corner, crop), draw)
            except DamagedSampleError as error:
                self._skip(self.pairs[number], error)
                continue
            unknown = np.full_like(change, IGNORE)
            return Pair(before, after, change, unknown, unknown, "real")
        raise DatasetError(f"{_ATTEMPTS} pairs drawn in a row are damaged: {self._damaged()}")

    def chips(self, crop: int | None = None, *, overlap: int = 0) -> Iterator[Chip]:
        """Every pair from end to end, in order.

        Args:
            crop: side of a chip, pixels; smaller pairs are mirrored beyond their lower and right
                edges. None: whole pairs, of whatever size, in memory at once.
            overlap: pixels that a chip shares with its neighbour, less than ``crop``.

        Raises:
            DamagedSampleError: a file is damaged, with ``strict``.
        """
        if crop is not None and not 0 <= overlap < crop:
            raise ConfigError(f"overlap must be from 0 to less than {crop}, got {overlap}")
        for number, pair in enumerate(self.pairs):
            try:
                yield from _chips(pair.name, self._cache.get(number), crop, overlap)
            except DamagedSampleError as error:
                self._skip(pair, error)

    def pieces(self, longest: int, *, overlap: int) -> Iterator[Chip]:
        """Every pair whole, or from end to end in chips where a side is longer than ``longest``.

        Arguments and errors are those of ``chips``.
        """
        for number, pair in enumerate(self.pairs):
            try:
                opened = self._cache.get(number)
                crop = longest if max(opened.shape) > longest else None
                yield from _chips(pair.name, opened, crop, overlap)
            except DamagedSampleError as error:
                self._skip(pair, error)

    def _choose(self, draw: Generator) -> tuple[int, tuple[int, int] | None]:
        """A pair by its number, and a block of it that has change, or None."""
        if self._near and draw.random() < self.balanced:
            blocks = self._near[draw.integers(len(self._near))]
            number, row, col = blocks[draw.integers(len(blocks))].tolist()
            return number, (row, col)
        at = draw.random() * self._ground[-1]
        return int(np.searchsorted(self._ground, at, side="right")), None

    def _skip(self, pair: LabelledPair, error: DamagedSampleError) -> None:
        if self.strict:
            raise error
        self.damaged[pair.name] += 1
        if self.damaged[pair.name] == 1:
            warnings.warn(f"pair {pair.name} is skipped: {error}", GeocdWarning, stacklevel=3)

    def _damaged(self) -> str:
        return ", ".join(sorted(self.damaged)[:5])


class _Cache:
    """Opened pairs, the least recently used of which give way; each process has its own."""

    def __init__(self, pairs: list[LabelledPair], coding: LabelCoding, budget: int) -> None:
        self.pairs, self.coding, self.budget = pairs, coding, budget
        self._opened: OrderedDict[int, PairAccess] = OrderedDict()
        self.nbytes = 0
        self._process = os.getpid()

    def get(self, number: int) -> PairAccess:
        if self._process != os.getpid():
            # File handles of the parent must not be used, nor closed, in a forked process.
            self._inherited, self._opened = self._opened, OrderedDict()
            self.nbytes, self._process = 0, os.getpid()
        if number not in self._opened:
            opened = open_access(self.pairs[number], self.coding)
            self._opened[number] = opened
            self.nbytes += opened.nbytes
        self._opened.move_to_end(number)
        while self.nbytes > self.budget and len(self._opened) > 1:
            _, oldest = self._opened.popitem(last=False)
            self.nbytes -= oldest.nbytes
            oldest.close()
        return self._opened[number]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": OrderedDict(), "nbytes": 0}


def _by_class(index: Sequence[ChangeIndex], classes: int) -> list[NDArray[np.int64]]:
    """(pair, row, col) of the blocks with change, shape (n, 3), of each class that has any."""
    found = []
    for plane in range(classes):
        blocks = [np.insert(entry.blocks[plane], 0, number, axis=1).astype(np.int64)
                  for number, entry in enumerate(index)]  # fmt: skip
        found.append(np.concatenate(blocks))
    return [blocks for blocks in found if len(blocks)]


def _corner(
    opened: PairAccess, block: tuple[int, int] | None, crop: int, draw: Generator
) -> tuple[int, int]:
    """Upper left corner (row, col) of a crop; negative where the pair is smaller than the crop."""
    free = [side - crop for side in opened.shape]
    if block is None:
        corner = [int(draw.integers(min(f, 0), max(f, 0) + 1)) for f in free]
        return corner[0], corner[1]
    at = [number * BLOCK for number in block]
    part = [slice(a, min(a + BLOCK, side)) for a, side in zip(at, opened.shape, strict=True)]
    changed = np.argwhere((opened.read_change(*part) == 1).any(axis=0))
    pick = changed[draw.integers(len(changed))] if len(changed) else (0, 0)
    # Off the middle, or the network would learn that change is in the middle.
    corner = [int(a + p - crop / 2 + draw.uniform(-crop / 4, crop / 4))
              for a, p in zip(at, pick, strict=True)]  # fmt: skip
    corner = [
        min(max(c, 0), f) if f >= 0 else int(draw.integers(f, 1))
        for c, f in zip(corner, free, strict=True)
    ]
    return corner[0], corner[1]


def _cut(opened: PairAccess, row: int, col: int, crop: int) -> tuple[Image, Image, Labels]:
    """A square of a pair; beyond its edges images are mirrored and the label is ``IGNORE``."""
    height, width = opened.shape
    rows = slice(max(row, 0), min(row + crop, height))
    cols = slice(max(col, 0), min(col + crop, width))
    before, after, change = opened.read(rows, cols)
    beyond = [
        (rows.start - row, row + crop - rows.stop),
        (cols.start - col, col + crop - cols.stop),
    ]
    if np.any(beyond):
        before, after = (np.pad(x, [*beyond, (0, 0)], mode="reflect") for x in (before, after))
        change = np.pad(change, [(0, 0), *beyond], constant_values=IGNORE)
    return before, after, change


def _turned(parts: tuple[Image, Image, Labels], draw: Generator) -> tuple[Image, Image, Labels]:
    """Both images and the label in one of the eight orientations of a square."""
    turns, mirror = int(draw.integers(4)), bool(draw.random() < 0.5)
    before, after, change = parts
    turned = []
    for array, axes in ((before, (0, 1)), (after, (0, 1)), (change, (1, 2))):
        array = np.rot90(array, turns, axes)
        turned.append(np.ascontiguousarray(np.flip(array, axes[1]) if mirror else array))
    return turned[0], turned[1], turned[2]


def _chips(name: str, opened: PairAccess, crop: int | None, overlap: int) -> Iterator[Chip]:
    height, width = opened.shape
    if crop is None:
        everything = slice(0, height), slice(0, width)
        yield Chip(name, *everything, *opened.read(*everything))
        return
    for row, (top, bottom) in _shares(height, crop, overlap):
        for col, (left, right) in _shares(width, crop, overlap):
            before, after, change = _cut(opened, row, col, crop)
            once = np.full_like(change, IGNORE)
            own = (..., slice(top - row, bottom - row), slice(left - col, right - col))
            once[own] = change[own]
            yield Chip(name, slice(row, min(row + crop, height)),
                       slice(col, min(col + crop, width)), before, after, once)  # fmt: skip


def _shares(length: int, crop: int, overlap: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Where chips begin along an axis, and the stretch for which each of them answers.

    chip 0   |--------|              stretches meet in the middle of what chips share
    chip 1         |--------|
             |=======|======|
    """
    begins = starts(length, crop, overlap)
    meet = [(a + crop + b) // 2 for a, b in pairwise(begins)]
    yield from zip(begins, zip([0, *meet], [*meet, length], strict=True), strict=True)
