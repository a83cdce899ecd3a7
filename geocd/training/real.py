"""Real pairs as training samples: at the scale and under the light that the recipe wants."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocd.errors import DamagedSampleError, DatasetError
from geocd.training.augment import photometric
from geocd.training.camera import displaced, exposed
from geocd.training.datasets import (
    GeoreferencedPair,
    LabelCoding,
    LabelledPairs,
    load_pairs,
    read_pixels,
)
from geocd.training.recipe import PairsSource
from geocd.training.synthesis import Pair
from geocd.training.tiles import IGNORE, content_hash

_STRONG = 0.25
"""Share of the altered images that get another season instead of another hour."""


_PIECE = 1024
"""Side of the pieces in which large pairs are looked at, pixels."""


class RealPairs:
    """Crops of a set of real pairs, brought to a scale and altered in light.

    Args:
        source: where the pairs are and how they are read.
        root: the data root.
        classes: planes of change, in the order of the network's outputs.
        strict: refuse damaged files instead of skipping them.

    Raises:
        DatasetError: the set cannot be used.
    """

    def __init__(
        self, source: PairsSource, root: Path, *, classes: tuple[str, ...], strict: bool
    ) -> None:
        self.source = source
        self.pairs = open_pairs(source, root, classes=classes, strict=strict, held_out=False)

    def content_hashes(self) -> set[str]:
        """Hashes of the images, by which a calibration knows them again; not of rasters.

        Damaged images were never trained on, and have none.
        """
        files = [
            path for pair in self.pairs.pairs if not isinstance(pair, GeoreferencedPair)
            for path in (pair.before, pair.after)
        ]  # fmt: skip
        hashes = set()
        for path in files:
            with suppress(DamagedSampleError):
                hashes.add(content_hash(read_pixels(path)))
        return hashes

    def sample(self, rng: Generator, crop: int) -> Pair:
        """One pair of ``crop`` x ``crop`` pixels."""
        source = self.source
        side = crop
        if source.gsd and source.read_gsd:
            low, high = np.log(source.read_gsd)
            side = max(8, round(crop * float(np.exp(rng.uniform(low, high))) / source.gsd))
        pair = resized(self.pairs.sample(rng, side), crop, crop)
        before, after = pair.before, pair.after
        if source.max_shift:
            # Labels lie where the second image shows what is labelled.
            before = displaced(before, rng, largest=source.max_shift)
        before, after = self._lit(before, rng), self._lit(after, rng)
        if rng.random() < 0.5:
            before, after = after, before
        return dataclasses.replace(pair, before=before, after=after)

    def _lit(self, image: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
        """The image, or the same ground under another light."""
        if self.source.camera and rng.random() < self.source.camera:
            image = exposed(image, rng)
        if rng.random() >= self.source.photometric:
            return image
        return photometric(image, rng, strong=bool(rng.random() < _STRONG))


def open_pairs(
    source: PairsSource, root: Path, *, classes: tuple[str, ...], strict: bool, held_out: bool
) -> LabelledPairs:
    """The pairs of a source: those of its fold if ``held_out``, else the others.

    Raises:
        DatasetError: the set cannot be used, or nothing is left of it.
    """
    pairs = [
        pair for pair in load_pairs(root / source.folder, split=source.split)
        if any(fnmatch(pair.name, pattern) for pattern in source.include)
    ]  # fmt: skip
    if not pairs:
        raise DatasetError(f"no pair of {root / source.folder} matches {', '.join(source.include)}")
    if source.fold:
        pairs = [p for i, p in enumerate(pairs) if source.in_fold(i) == held_out]
        if not pairs:
            raise DatasetError(
                f"{root / source.folder} has too few pairs for the fold {source.fold}; "
                "take fewer folds"
            )
    return LabelledPairs(
        pairs,
        coding=LabelCoding(classes=classes, values=source.values, ignore=source.ignore),
        balanced=source.balanced,
        strict=strict,
    )


def resized(pair: Pair, height: int, width: int) -> Pair:
    """A pair brought to another number of pixels; labels take the nearest one's."""
    if pair.before.shape[:2] == (height, width):
        return pair
    kernel = cv2.INTER_AREA if height < pair.before.shape[0] else cv2.INTER_CUBIC

    def _planes(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (width, height)
        return np.stack([cv2.resize(p, size, interpolation=cv2.INTER_NEAREST) for p in planes])

    def _image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(image, (width, height), interpolation=kernel), np.uint8)

    return dataclasses.replace(
        pair, before=_image(pair.before), after=_image(pair.after), change=_planes(pair.change),
        labels_before=_planes(pair.labels_before), labels_after=_planes(pair.labels_after),
    )  # fmt: skip


class WholePairs:
    """The held-out pairs of a source from end to end, at the middle of its ``read_gsd``.

    Arguments and errors are those of ``RealPairs``.
    """

    def __init__(
        self, source: PairsSource, root: Path, *, classes: tuple[str, ...], strict: bool
    ) -> None:
        self.source = source
        self.pairs = open_pairs(source, root, classes=classes, strict=strict, held_out=True)

    def __iter__(self) -> Iterator[tuple[str, Pair]]:
        """Names and pairs; large pairs in pieces."""
        source = self.source
        zoom = 1.0
        if source.gsd and source.read_gsd:
            zoom = source.gsd / math.sqrt(source.read_gsd[0] * source.read_gsd[1])
        place = "" if source.folder == "." else f"{source.folder}/"
        for chip in self.pairs.pieces(_PIECE, overlap=_PIECE // 8):
            unknown = np.full_like(chip.change, IGNORE)
            pair = Pair(chip.before, chip.after, chip.change, unknown, unknown, "real")
            height, width = (max(1, round(side * zoom)) for side in chip.before.shape[:2])
            at = (
                f", from {chip.rows.start}, {chip.cols.start}"
                if chip.rows.start or chip.cols.start
                else ""
            )
            yield f"{place}{chip.name}{at}", resized(pair, height, width)
