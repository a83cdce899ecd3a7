"""Object measures: which objects of the truth a map finds, and how many it invents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.assess.metrics import finite, ratio
from geocd.config import ObjectConfig
from geocd.errors import ShapeError

Mask = NDArray[np.bool_]
Sizes = tuple[int, int, int]

SIZE_CLASSES = ("small", "medium", "large")
"""Names of the size classes of the truth's objects."""
SIZE_BOUNDS = {"m2": (100.0, 500.0), "px": (400.0, 2000.0)}
"""Least area of medium and of large objects. In square metres: sheds, houses, blocks and halls;
in pixels: the same at 0.5 m."""


@dataclass(frozen=True, slots=True)
class ObjectAgreement:
    """How the objects of maps and truths pair up. Ratios are NaN where they are undefined."""

    found: Sizes
    """Objects of the truth with a partner in the map: small, medium, large."""
    missed: Sizes
    """Objects of the truth without one."""
    false: int
    """Objects of the map without a partner in the truth."""
    area_m2: float = math.nan
    """Ground observed; NaN if the size of a pixel is unknown."""
    images: int = 1
    """Images counted."""

    def __add__(self, other: ObjectAgreement) -> ObjectAgreement:
        return ObjectAgreement(
            _sum(self.found, other.found),
            _sum(self.missed, other.missed),
            self.false + other.false,
            self.area_m2 + other.area_m2,
            self.images + other.images,
        )

    @property
    def precision(self) -> float:
        """Share of the map's objects that have a partner in the truth."""
        return ratio(sum(self.found), sum(self.found) + self.false)

    @property
    def recall(self) -> float:
        """Share of the truth's objects that have a partner in the map."""
        return ratio(sum(self.found), sum(self.found) + sum(self.missed))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        wrong = sum(self.missed) + self.false
        return ratio(2 * sum(self.found), 2 * sum(self.found) + wrong)

    @property
    def false_per_image(self) -> float:
        """Objects of the map without a partner, an image."""
        return ratio(self.false, self.images)

    @property
    def false_per_km2(self) -> float:
        """Objects of the map without a partner, a square kilometre of observed ground."""
        return ratio(self.false, self.area_m2 / 1e6)

    def recall_by_size(self) -> dict[str, float]:
        """Recall of small, medium and large objects of the truth."""
        counts = zip(SIZE_CLASSES, self.found, self.missed, strict=True)
        return {name: ratio(found, found + missed) for name, found, missed in counts}

    def to_dict(self) -> dict[str, Any]:
        """Counts and ratios, JSON-ready (undefined ratios are None)."""
        return {
            "found": sum(self.found),
            "missed": sum(self.missed),
            "false": self.false,
            "precision": finite(self.precision),
            "recall": finite(self.recall),
            "f1": finite(self.f1),
            "false_per_image": finite(self.false_per_image),
            "false_per_km2": finite(self.false_per_km2),
            "found_by_size": dict(zip(SIZE_CLASSES, self.found, strict=True)),
            "missed_by_size": dict(zip(SIZE_CLASSES, self.missed, strict=True)),
            "recall_by_size": {name: finite(r) for name, r in self.recall_by_size().items()},
        }


def _sum(first: Sizes, second: Sizes) -> Sizes:
    small, medium, large = (a + b for a, b in zip(first, second, strict=True))
    return small, medium, large


def match_objects(
    found: Mask, truth: Mask, *, config: ObjectConfig, pixel_area: float | None = None,
    observed: int | None = None,
) -> ObjectAgreement:  # fmt: skip
    """Pair the objects of a map with those of the truth, one to one.

    An object is a group of pixels that touch, corners included. Pairs are made from the largest
    intersection over union downwards, as long as it reaches ``config.iou``; above 0.5 an object
    has one possible partner at most. Objects of the truth below the minimum area count nowhere,
    and neither do objects of the map that pair with them or that are small and without a partner.

    Args:
        found: the map, shape (height, width).
        truth: the same shape.
        config: least overlap and area.
        pixel_area: square metres a pixel; None: unknown, areas are in pixels.
        observed: pixels that were observed; None: all of them.

    Raises:
        ShapeError: the masks differ in shape.
    """
    if found.shape != truth.shape:
        raise ShapeError(f"the map is {found.shape}, the truth is {truth.shape}")
    in_map, in_truth = _label(found), _label(truth)
    partner = _partners(in_map, in_truth, config.iou)  # (objects of the truth + 1,)
    scale, bounds = (1.0, SIZE_BOUNDS["px"])
    if pixel_area is not None:
        scale, bounds = pixel_area, SIZE_BOUNDS["m2"]
    truth_areas, map_areas = _areas(in_truth) * scale, _areas(in_map) * scale
    size = np.digitize(truth_areas, bounds)
    counted = truth_areas >= config.min_area
    counted[0] = False  # the background
    alone = np.ones(len(map_areas), bool)
    alone[partner] = False
    alone[0] = False
    return ObjectAgreement(
        _by_size(size[counted & (partner > 0)]),
        _by_size(size[counted & (partner == 0)]),
        int((alone & (map_areas >= config.min_area)).sum()),
        math.nan if pixel_area is None
        else pixel_area * (found.size if observed is None else observed),
    )  # fmt: skip


def _label(mask: Mask) -> NDArray[np.int32]:
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels, np.int32)


def _areas(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Pixels of every label, the background (0) included."""
    return np.bincount(labels.ravel(), minlength=1)


def _by_size(classes: NDArray[np.int64]) -> Sizes:
    small, medium, large = np.bincount(classes, minlength=3).tolist()
    return small, medium, large


def _partners(
    in_map: NDArray[np.int32], in_truth: NDArray[np.int32], least: float
) -> NDArray[np.int64]:
    """Label in the map of the partner of every label of the truth; 0: none."""
    map_areas, truth_areas = _areas(in_map), _areas(in_truth)
    both = (in_map > 0) & (in_truth > 0)
    keys = in_truth[both].astype(np.int64) * len(map_areas) + in_map[both]
    pairs, shared = np.unique(keys, return_counts=True)
    truth, mapped = np.divmod(pairs, len(map_areas))
    overlap = shared / (truth_areas[truth] + map_areas[mapped] - shared)
    partner = np.zeros(len(truth_areas), np.int64)
    taken = np.zeros(len(map_areas), bool)
    order = np.argsort(-overlap, kind="stable")
    for index in order[overlap[order] >= least]:
        if not partner[truth[index]] and not taken[mapped[index]]:
            partner[truth[index]], taken[mapped[index]] = mapped[index], True
    return partner
