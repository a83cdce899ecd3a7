"""Objects of one class, put together row band by row band. Arrays only.

band 1   ┌──┐   ┌────┐      a closed object leaves; an open one is held as corners and sums
─────────┴──┴───│ .. │───
band 2   ┌──────┘    │      parts that meet here are one part from now on
─────────┴───────────┴───
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from geocd.vectorize.outline import Geometries
from geocd.vectorize.rings import Corners, find_corners, polygons_of

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sums:
    """What is added up over the pixels of n objects; each of shape (n,)."""

    pixels: Counts
    score: Counts
    """Sum of the stored scores, 0..254 each."""
    peak: Counts
    """Largest stored score; -1 where there is no pixel."""
    doubtful: Flags
    """Whether a pixel lies near ground that was not observed."""

    @classmethod
    def of(cls, label: Labels, score: Bytes, doubtful: Flags, count: int) -> Sums:
        """Sums by label, 0..count - 1, of pixels given as arrays of one length."""
        if not len(label):
            none = np.zeros(count, np.int64)
            return cls(none, none, none - 1, none.astype(bool))
        # Pixels of a label follow each other: runs of them are summed first.
        begin = np.flatnonzero(np.r_[True, label[1:] != label[:-1]])
        run = label[begin]
        peak = np.full(count, -1, np.int64)
        np.maximum.at(peak, run, np.maximum.reduceat(score, begin).astype(np.int64))
        flags = np.zeros(count, bool)
        flags[label[doubtful]] = True
        pixels, total = (
            np.bincount(run, weights=values, minlength=count).astype(np.int64)
            for values in (np.diff(begin, append=len(label)),
                           np.add.reduceat(score, begin, dtype=np.int64))
        )  # fmt: skip
        return cls(pixels, total, peak, flags)

    @classmethod
    def joined(cls, *several: Sums) -> Sums:
        """The objects of all of them."""
        return cls(
            np.concatenate([sums.pixels for sums in several]),
            np.concatenate([sums.score for sums in several]),
            np.concatenate([sums.peak for sums in several]),
            np.concatenate([sums.doubtful for sums in several]),
        )

    def merged(self, root: Labels) -> Sums:
        """Sums in which each object has gone to its root."""
        count = len(root)
        pixels, score = (
            np.bincount(root, weights=values, minlength=count).astype(np.int64)
            for values in (self.pixels, self.score)
        )
        peak, doubtful = np.full(count, -1, np.int64), np.zeros(count, bool)
        np.maximum.at(peak, root, self.peak)
        doubtful[root[self.doubtful]] = True
        return Sums(pixels, score, peak, doubtful)

    def chosen(self, which: Any) -> Sums:
        """Those of the objects that an index, a mask or a slice selects."""
        return Sums(self.pixels[which], self.score[which], self.peak[which], self.doubtful[which])


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of which no more pixels will come."""

    outlines: Geometries
    """Valid MultiPolygons along pixel edges, in pixels, shape (n,); None without outlines."""
    sums: Sums


class ObjectStream:
    """Takes the rows of a class from top to bottom and gives its objects as they close.

    Pixels that touch by side or corner are one object. Memory is that of a band and of the
    corners of open objects. What comes out does not depend on the height of the bands.

    Args:
        width: of the rows.
        outlines: without outlines there are only sums, which is faster.
    """

    def __init__(self, width: int, *, outlines: bool = True) -> None:
        self._outlines = outlines
        self._row = 0
        self._last = np.zeros((1, width), np.int32)
        # Held for each open part, which are counted from 1; 0 stands for no part.
        self._group = np.zeros(1, np.int32)
        self._sums = Sums.of(np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros(0, bool), 1)
        self._corners = Corners.none()

    def add(
        self, mask: Bytes, scores: Bytes, doubtful: Flags, *, last: bool, least_pixels: float = 0,
        least_peak: int = 0,
    ) -> Objects:  # fmt: skip
        """Take a band of rows.

        Args:
            mask: 1 where the class is, else 0, shape (rows, width).
            scores: of the class, 0..254, same shape.
            doubtful: True near ground that was not observed, same shape.
            last: whether these are the last rows.
            least_pixels: objects of fewer pixels are left out.
            least_peak: objects whose largest stored score is below this are left out.

        Returns:
            The objects that end in or above this band, in no particular order.
        """
        known = len(self._group)
        count, found = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
        labels: Any = found  # numbers go on from those that are held
        labels += mask * np.int32(known - 1)
        where = np.flatnonzero(mask.view(bool))
        fresh = Sums.of(
            labels.ravel()[where], scores.ravel()[where], doubtful.ravel()[where],
            known + count - 1,
        )  # fmt: skip
        sums = Sums.joined(self._sums, fresh.chosen(slice(known, None)))
        parts = np.concatenate([self._last, labels, *([self._last * 0] if last else [])])
        corners, diagonal = find_corners(parts, top=self._row)
        corners = Corners.joined(self._corners, corners)

        beside = np.column_stack([parts[0], parts[1]])[(parts[0] > 0) & (parts[1] > 0)]
        held = np.column_stack([np.arange(known, dtype=np.int32), self._group])
        part = _roots(len(sums.pixels), beside)  # the part that each number stands for now
        group = _roots(len(part), np.concatenate([beside, diagonal, held]))
        sums = sums.merged(group)
        corners = Corners(part[corners.part], corners.row, corners.col, corners.kind)

        alive = np.zeros(len(part), bool)
        alive[group[parts[-1]]] = True
        alive[0] = False
        wanted = (sums.pixels >= max(least_pixels, 1)) & (sums.peak >= least_peak) & ~alive
        of = group[corners.part]
        closed = self._closed(corners.chosen(wanted[of]), group, sums, wanted)
        self._hold(parts[-1], part, group, alive, sums, corners.chosen(alive[of]))
        self._row += len(mask)
        return closed

    def _closed(self, corners: Corners, group: Labels, sums: Sums, wanted: Flags) -> Objects:
        names = np.flatnonzero(wanted)
        if not self._outlines or len(names) == 0:
            return Objects(np.empty(len(names), object), sums.chosen(names))
        polygons, corner = polygons_of(corners)
        owner = group[corner.part]
        order = np.lexsort((corner.col, corner.row, owner))
        _, index = np.unique(owner[order], return_inverse=True)
        outlines: Any = shapely.multipolygons(polygons[order], indices=index)
        return Objects(outlines, sums.chosen(names))

    def _hold(
        self, last: Labels, part: Labels, group: Labels, alive: Flags, sums: Sums,
        corners: Corners,
    ) -> None:  # fmt: skip
        """Keep what is open, with its parts counted anew."""
        kept = alive[group] & (part == np.arange(len(part)))
        number = np.cumsum(kept, dtype=np.int32)
        number[~kept] = 0
        held = np.r_[0, np.flatnonzero(kept)]
        self._last = number[part[last]][None]
        self._group = number[group[held]]
        self._sums = sums.chosen(held)
        self._corners = Corners(number[corners.part], corners.row, corners.col, corners.kind)


def _roots(count: int, pairs: Labels) -> Labels:
    """The smallest of the numbers 0..count - 1 that each is joined with.

    Args:
        count: how many numbers there are.
        pairs: numbers that are joined, shape (n, 2).
    """
    root = np.arange(count, dtype=np.int32)
    first, second = np.unique(pairs, axis=0).T if len(pairs) > 10_000 else pairs.T
    while True:
        low = np.minimum(root[first], root[second])
        high = np.maximum(root[first], root[second])
        apart = low != high
        if not apart.any():
            return root
        first, second = first[apart], second[apart]
        # Hang the larger root under the smaller one, then let everyone look up to the top.
        np.minimum.at(root, high[apart], low[apart])
        while not np.array_equal(above := root[root], root):
            root = above
