"""From scores to defects: what belongs together, how large it is, and in which zone it lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.config import SCORE_SCALE
from geocd.inspect.verdict import Defect, reject_reason
from geocd.inspect.zones import Zone, ZoneMap

Levels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

MOST = 200
"""Defects that are described one by one; the largest."""
_FINE = 4
"""Outlines are drawn on pixels cut into so many parts each way."""


def threshold_levels(
    thresholds: Sequence[float], zones: ZoneMap
) -> NDArray[np.int16]:  # fmt: skip
    """Least level of a defect at every pixel, for each class, shape (classes, height, width).

    Args:
        thresholds: one a class, 0..1, where no zone says otherwise.
        zones: of the golden.
    """
    out = []
    for usual in thresholds:
        table = [zone.threshold for zone in zones.zones]
        levels = [_level(usual), *(_level(usual if t is None else t) for t in table)]
        out.append(np.array(levels, np.int16)[zones.number])
    return np.stack(out)


def _level(threshold: float) -> int:
    return max(1, int(np.ceil(threshold * SCORE_SCALE - 1e-9)))


def find_defects(
    levels: Levels, limits: NDArray[np.int16], looked_at: Mask, *, classes: Sequence[str],
    zones: ZoneMap, min_area: float,
) -> tuple[list[Defect], list[str], Mask]:  # fmt: skip
    """Defects, why they reject the sample, and their pixels.

    A defect that reaches into several zones is judged by each of them, and counts if it counts in
    one.

    Args:
        levels: shape (classes, height, width), 0..254.
        limits: from ``threshold_levels``.
        looked_at: pixels that were seen and are not excluded, shape (height, width).
        classes: names of the planes.
        zones: of the golden.
        min_area: smallest defect that counts, in pixels, where no zone says otherwise.
    """
    margin = levels.astype(np.int16) - limits
    found = (margin >= 0).any(axis=0) & looked_at
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8))
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable") + 1
    defects: list[Defect] = []
    in_zone: Counter[int] = Counter()
    for index in order[:count]:
        left, top, width, height, area = (int(v) for v in stats[index])
        part = (slice(top, top + height), slice(left, left + width))
        inside = labels[part] == index
        numbers = np.bincount(zones.number[part][inside])
        touched = np.flatnonzero(numbers)
        counting = [n for n in touched.tolist() if area >= _least(zones.zones, n, min_area)]
        in_zone.update(counting)
        if len(defects) < MOST:
            kind = int(np.where(inside, margin[:, *part], -999).max(axis=(1, 2)).argmax())
            defects.append(Defect(
                classes[kind], float(levels[kind][part][inside].max()) / SCORE_SCALE, area,
                (left, top, left + width, top + height), _outline(inside, left, top),
                _name(zones.zones, int(numbers.argmax())), bool(counting),
            ))  # fmt: skip
    reasons = [
        reject_reason(in_zone[number], _name(zones.zones, number), allowed)
        for number in sorted(in_zone)
        if in_zone[number] > (allowed := zones.zones[number - 1].max_defects if number else 0)
    ]
    return defects, reasons, found


def _least(zones: Sequence[Zone], number: int, usual: float) -> float:
    own = zones[number - 1].min_area_px if number else None
    return usual if own is None else own


def _name(zones: Sequence[Zone], number: int) -> str:
    return zones[number - 1].name if number else ""


def _outline(inside: Mask, left: int, top: int) -> tuple[tuple[float, float], ...]:
    """Corners (x, y) of the outer outline, in pixels of the golden, to a pixel."""
    fine = np.pad(inside.astype(np.uint8).repeat(_FINE, 0).repeat(_FINE, 1), 1)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(contours, key=len)
    corners = cv2.approxPolyDP(longest, 0.75 * _FINE, True).reshape(-1, 2)
    # Contours run through the centres of the fine pixels; one was added at each side.
    places = (corners - 0.5) / _FINE + np.array([left, top])
    return tuple((round(float(x), 2), round(float(y), 2)) for x, y in places)
