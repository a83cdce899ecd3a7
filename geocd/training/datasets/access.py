"""Labelled pairs behind one way of reading, picture files and georeferenced scenes alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geocd.training.datasets.coding import LabelCoding
from geocd.training.datasets.files import (
    check_image,
    check_sizes,
    read_header,
    read_label,
    read_observed,
)
from geocd.training.datasets.layouts import LabelledPair
from geocd.training.datasets.manifest import GeoreferencedPair
from geocd.training.datasets.scenes import SceneAccess
from geocd.training.tiles import IGNORE

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]

BLOCK = 64
"""Side, in pixels, of the blocks in which change is looked up."""
_STRIP = 16 * BLOCK


class PairAccess(Protocol):
    """An opened pair."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        ...

    def read(self, rows: slice, cols: slice) -> tuple[Image, Image, Labels]:
        """Before and after (h, w, 3) and change (classes, h, w) of a window inside the pair."""
        ...

    def read_change(self, rows: slice, cols: slice) -> Labels:
        """Only the change of a window."""
        ...

    def close(self) -> None:
        """Give files back."""
        ...


@dataclass(frozen=True, slots=True)
class DecodedPair:
    """A pair of picture files in memory."""

    before: Image
    after: Image
    change: Labels

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.change.shape[1], self.change.shape[2]

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        return self.before.nbytes + self.after.nbytes + self.change.nbytes

    def read(self, rows: slice, cols: slice) -> tuple[Image, Image, Labels]:
        """See ``PairAccess``."""
        # Copies: what is kept must not change with what the caller does to a sample.
        return (
            self.before[rows, cols].copy(),
            self.after[rows, cols].copy(),
            self.change[:, rows, cols].copy(),
        )

    def read_change(self, rows: slice, cols: slice) -> Labels:
        """See ``PairAccess``."""
        return self.change[:, rows, cols]

    def close(self) -> None:
        """Nothing is open."""


def open_access(pair: LabelledPair, coding: LabelCoding) -> PairAccess:
    """Open a pair: picture files are decoded, scenes are read by windows.

    Raises:
        DamagedSampleError: a file is missing or damaged.
        DatasetError: the files do not fit each other or the coding.
    """
    if isinstance(pair, GeoreferencedPair):
        return SceneAccess(pair, coding)
    before, valid_before = read_observed(pair.before)
    after, valid_after = read_observed(pair.after)
    change = read_label(pair.label, coding)
    check_sizes(pair, [valid_before.shape, valid_after.shape, change.shape[1:]])
    change[:, ~(valid_before & valid_after)] = IGNORE
    return DecodedPair(before, after, change)


def strips(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of windows without overlap that cover a pair, small enough for memory."""
    for row in range(0, shape[0], _STRIP):
        for col in range(0, shape[1], _STRIP):
            yield (
                slice(row, min(row + _STRIP, shape[0])),
                slice(col, min(col + _STRIP, shape[1])),
            )


@dataclass(frozen=True, slots=True)
class ChangeIndex:
    """Where a pair has change, without its pixels.

    Attributes:
        shape: (height, width) of the pair.
        blocks: of each class, (row, col) of the blocks of 64 pixels that have change, shape
            (n, 2).
    """

    shape: tuple[int, int]
    blocks: tuple[NDArray[np.int32], ...]


def index_change(pair: LabelledPair, coding: LabelCoding) -> ChangeIndex:
    """Look through the label of a pair once, and check that its images fit by their headers.

    Raises:
        DamagedSampleError: a file is missing or damaged.
        DatasetError: the files do not fit each other or the coding.
    """
    if isinstance(pair, GeoreferencedPair):
        scene = SceneAccess(pair, coding)
        try:
            found = [
                _blocks(plane) + np.array([rows.start // BLOCK, cols.start // BLOCK], np.int32)
                for rows, cols in strips(scene.shape)
                for plane in scene.read_change(rows, cols)
            ]
        finally:
            scene.close()
        classes = len(coding.classes)
        return ChangeIndex(
            scene.shape, tuple(np.concatenate(found[k::classes]) for k in range(classes))
        )
    headers = [read_header(path) for path in (pair.before, pair.after)]
    for path, header in zip((pair.before, pair.after), headers, strict=True):
        check_image(path, header)
    change = read_label(pair.label, coding)
    check_sizes(pair, [*(header.shape for header in headers), change.shape[1:]])
    return ChangeIndex(headers[0].shape, tuple(_blocks(plane) for plane in change))


def _blocks(plane: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(row, col) of the blocks of a label plane that have change, shape (n, 2)."""
    padded = np.pad(plane == 1, [(0, -side % BLOCK) for side in plane.shape])
    height, width = padded.shape
    blocks = padded.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).any(axis=(1, 3))
    return np.argwhere(blocks).astype(np.int32)
