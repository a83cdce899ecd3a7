"""Taking apart what a mask joins, where the scores dip between."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from geocd.errors import ShapeError

_BLUR = 1.0
"""Standard deviation, in pixels, of the smoothing of scores before their peaks are counted."""

Labels = npt.NDArray[np.int32]


def split_by_scores(
    mask: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.uint8],
    *,
    dip: float = 0.2,
    least_area: int = 80,
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


def _peaks(
    mask: npt.NDArray[np.bool_], relief: npt.NDArray[np.float32], height: float
) -> tuple[int, Labels]:
    """The number of peaks that rise by a height above the valleys around them, and where."""
    lowered = np.where(mask, relief - np.float32(height), 0).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    while True:  # reconstruction by dilation: fills each peak up to its cut-off top
        raised = np.minimum(cv2.dilate(lowered, kernel), relief)
        raised = np.where(mask, np.maximum(raised, lowered), 0).astype(np.float32)
        if np.array_equal(raised, lowered):
            break
        lowered = raised
    # Tops of the reconstruction: plateaus that nothing around them overtops.
    count, plateaus = _plateaus(lowered, mask)
    highest_around = cv2.dilate(lowered, kernel)
    overtopped = np.zeros(count + 1, bool)
    overtopped[plateaus[(highest_around > lowered + 1e-3) & mask]] = True
    keep = ~overtopped
    keep[0] = False
    number = np.cumsum(keep) * keep
    return int(keep.sum()), number[plateaus].astype(np.int32)


def _plateaus(relief: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> tuple[int, Labels]:
    """Connected pixels of the mask that are not below any neighbour, as labels."""
    level = (cv2.dilate(relief, np.ones((3, 3), np.uint8)) <= relief + 1e-3) & mask
    count, labels = cv2.connectedComponents(level.astype(np.uint8), connectivity=8)
    return count - 1, np.asarray(labels, np.int32)


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
