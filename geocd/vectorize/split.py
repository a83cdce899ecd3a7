"""Taking apart what a mask joins, where the scores dip between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from rasterio.windows import Window

from geocd.errors import ShapeError
from geocd.vectorize.attributes import fill
from geocd.vectorize.components import Objects, ObjectStream, Sums
from geocd.vectorize.outline import Geometries, Ints, vertical_sides

_BLUR = 1.0
"""Standard deviation, in pixels, of the smoothing of scores before their peaks are counted."""

_DIP = 0.2
"""Least depth of a valley below the lower of its two peaks, as a score."""
_LEAST_AREA = 80
"""Smallest part, in pixels."""
_VALLEY = 4
"""A valley between two parts has so many pixels at least."""
_FLAT = 1e-3
"""Stored scores that differ by less are equal."""
_WINDOW_PIXELS = 1 << 22
"""Objects in larger windows stay whole, so that memory stays small."""

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Divided:
    """Objects, some of which were parts of one."""

    outlines: Geometries
    """Valid MultiPolygons along pixel edges, in pixels, shape (n,)."""
    sums: Sums
    origin: Ints
    """The object that each comes from, (n,)."""


def divided(
    outlines: Geometries, sums: Sums, which: npt.NDArray[np.bool_], dataset: Any, *, band: int,
    least_area: float, least_peak: int,
) -> Divided:  # fmt: skip
    """Objects taken apart where their scores dip; the others as they are, and before the parts.

    Objects are looked at one by one, each in its window.

    Args:
        outlines: valid MultiPolygons along pixel edges, in pixels, shape (n,).
        sums: of their pixels.
        which: the objects that may be taken apart, shape (n,).
        dataset: open raster of scores.
        band: of their class, counted from 1.
        least_area: smallest part, in pixels; never less than 80.
        least_peak: stored score that each part must reach somewhere.
    """
    least_area = max(_LEAST_AREA, math.ceil(least_area))
    which = which & (sums.pixels >= 2 * least_area)
    # Even scores hide no valley; that is told without a look at them.
    which &= sums.peak * sums.pixels - sums.score >= _VALLEY * _DIP * 254
    kept, parts = ~which, []
    for i in np.flatnonzero(which):
        found = _parts_of(outlines[i], dataset, band, least_area, doubtful=bool(sums.doubtful[i]))
        if found is None or found.sums.peak.min() < least_peak:
            kept[i] = True
        else:
            parts.append((i, found))
    whole = np.flatnonzero(kept)
    return Divided(
        np.concatenate([outlines[whole], *(found.outlines for _, found in parts)]),
        Sums.joined(sums.chosen(whole), *(found.sums for _, found in parts)),
        np.concatenate([whole, *(np.full(len(found.outlines), i) for i, found in parts)]),
    )


def _parts_of(
    outline: shapely.MultiPolygon, dataset: Any, band: int, least_area: int, *, doubtful: bool
) -> Objects | None:
    """The parts of an object; None where it stays whole."""
    left, first, right, last = (int(b) for b in outline.bounds)
    height, width = last - first, right - left
    if height * width > _WINDOW_PIXELS:
        return None
    scores = dataset.read(band, window=Window(left, first, width, height))
    _, *sides = vertical_sides(np.array([outline], dtype=object))
    mask = fill((sides[0], sides[1], sides[2]), first, left, height, width).view(bool)
    labels = split_by_scores(mask, scores, least_area=least_area)
    count = int(labels.max())
    if count < 2:
        return None
    doubts = np.full(labels.shape, doubtful)
    parts = [
        ObjectStream(width).add((labels == k).view(np.uint8), scores, doubts, last=True)
        for k in range(1, count + 1)
    ]
    outlines: Geometries = np.concatenate([part.outlines for part in parts])
    corner = np.array([left, first])
    moved: Geometries = shapely.transform(outlines, lambda points: points + corner)
    return Objects(moved, Sums.joined(*(part.sums for part in parts)))


def split_by_scores(
    mask: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.uint8],
    *,
    dip: float = _DIP,
    least_area: int = _LEAST_AREA,
) -> Labels:
    """The parts of an object, divided along valleys of the scores.

    Peaks count as parts if the scores dip between them by at least ``dip`` below the lower
    one, and the parts are what drains to each peak. If one of the parts is smaller than
    ``least_area``, the object stays whole.

    Args:
        mask: pixels of one object, shape (height, width).
        scores: stored scores (score * 254) on the same grid; what lies outside the mask is
            not looked at.
        dip: least depth of a valley below the lower of its two peaks, as a score, 0..1.
        least_area: smallest part, in pixels.

    Returns:
        1, 2, ... in the parts and 0 outside the mask, shape (height, width).

    Raises:
        ShapeError: mask and scores differ in shape.

    Source:
        Soille (2004), doi:10.1007/978-3-662-05088-0 (extended maxima, watershed).
    """
    if mask.shape != scores.shape:
        raise ShapeError(f"the mask is {mask.shape}, the scores are {scores.shape}")
    whole = mask.astype(np.int32)
    relief = _smoothed(mask, scores)
    if not mask.any() or not _has_valley(relief, dip * 254, low=float(relief[mask].min())):
        return whole
    count, markers = _peaks(mask, relief, dip * 254)
    if count < 2:
        return whole
    labels = _drained(mask, relief, markers)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return labels if areas.min() >= least_area else whole


def _smoothed(
    mask: npt.NDArray[np.bool_], scores: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Scores averaged over neighbours within the mask; 0 outside."""
    inside = mask.astype(np.float32)
    total = cv2.GaussianBlur(scores * inside, (0, 0), _BLUR)
    weight = cv2.GaussianBlur(inside, (0, 0), _BLUR)
    return np.where(mask, total / np.maximum(weight, 1e-6), 0).astype(np.float32)


def _has_valley(relief: npt.NDArray[np.float32], height: float, *, low: float) -> bool:
    """Whether there may be two peaks with a valley of a height between them, above ``low``.

    Of levels in steps of half the height, two lie in any such valley: above the lower one there
    are two islands, and both reach the upper one. Far sooner told than where the peaks are.
    """
    step = height / 2
    for level in np.arange(low + step, float(relief.max()) - step + _FLAT, step):
        _, islands = cv2.connectedComponents((relief >= level).view(np.uint8), connectivity=8)
        high = islands[relief >= level + step]
        if len(high) and high.min() != high.max():
            return True
    return False


def _peaks(
    mask: npt.NDArray[np.bool_], relief: npt.NDArray[np.float32], height: float
) -> tuple[int, Labels]:
    """The number of peaks that rise by a height above the valleys around them, and where."""
    cut_off = _reconstructed(relief - np.float32(height), relief, mask)
    # Lesser peaks are no tops any more: what is left of them lies on the slope of a higher one.
    tops = cut_off - _reconstructed(cut_off - 1, cut_off, mask) > _FLAT
    count, labels = cv2.connectedComponents((tops & mask).view(np.uint8), connectivity=8)
    return count - 1, np.asarray(labels, np.int32)


def _reconstructed(
    seed: npt.NDArray[np.float32], relief: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """The seed grown as high as the relief lets it, within the mask (reconstruction)."""
    seed = np.where(mask, seed, np.float32(-1e4)).astype(np.float32)  # below all relief
    kernel = np.ones((3, 3), np.uint8)
    while True:
        grown = np.where(mask, np.minimum(cv2.dilate(seed, kernel), relief), seed)
        if np.array_equal(grown, seed):
            return seed
        seed = grown


def _drained(
    mask: npt.NDArray[np.bool_], relief: npt.NDArray[np.float32], markers: Labels
) -> Labels:
    """The mask divided among the peaks, level by level downwards."""
    labels = markers.copy()
    kernel = np.ones((3, 3), np.uint8)
    for level in np.unique(np.floor(relief[mask]))[::-1]:
        flooded = mask & (relief >= level)
        while True:
            grown = cv2.dilate(labels.astype(np.float32), kernel).astype(np.int32)
            fresh = flooded & (labels == 0) & (grown > 0)
            if not fresh.any():
                break
            labels[fresh] = grown[fresh]
    return labels
