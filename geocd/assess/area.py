"""Accuracy and area from a stratified random sample, with what is not known about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocd.assess.metrics import finite
from geocd.errors import InputError, ShapeError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_Z = NormalDist().inv_cdf(0.975)
"""Standard errors from the estimate to the ends of an interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of the ground, or a ratio of shares, from a sample."""

    value: float
    """0..1; NaN where nothing in the sample tells."""
    standard_error: float
    """In the same unit."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval, cut to 0..1."""
        half = _Z * self.standard_error
        if math.isnan(half):
            return math.nan, math.nan
        return max(0.0, self.value - half), min(1.0, self.value + half)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "value": finite(self.value),
            "standard_error": finite(self.standard_error),
            "interval_95": [finite(bound) for bound in self.interval],
        }


@dataclass(frozen=True, slots=True)
class SampledAccuracy:
    """What a labelled sample says of a map and of the ground. Classes are in one order."""

    classes: tuple[str, ...]
    counts: Ints
    """Units of the sample, shape (classes of the map, classes of the reference)."""
    matrix: Floats
    """The same as shares of the whole ground; they sum to 1."""
    overall: Estimate
    """Share of the ground where the map is right."""
    user: tuple[Estimate, ...]
    """Of the ground that the map gives to a class, the share that is of it (precision)."""
    producer: tuple[Estimate, ...]
    """Of the ground that is of a class, the share that the map gives to it (recall)."""
    share: tuple[Estimate, ...]
    """Share of the ground that is of a class, whatever the map says."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "units": int(self.counts.sum()),
            "counts": {name: dict(zip(self.classes, row, strict=True))
                       for name, row in zip(self.classes, self.counts.tolist(), strict=True)},
            "matrix": {name: dict(zip(self.classes, row, strict=True))
                       for name, row in zip(self.classes, self.matrix.tolist(), strict=True)},
            "overall": self.overall.to_dict(),
            "classes": {
                name: {
                    "user": self.user[k].to_dict(),
                    "producer": self.producer[k].to_dict(),
                    "share": self.share[k].to_dict(),
                }
                for k, name in enumerate(self.classes)
            },
        }  # fmt: skip


def estimate_accuracy(
    stratum: Ints, mapped: Ints, reference: Ints, *, sizes: Ints, classes: Sequence[str]
) -> SampledAccuracy:
    """Accuracy and area from a stratified random sample; strata need not be the map's classes.

    Everything is a ratio of two totals over the strata, and the variance is that of a combined
    ratio with the finite population correction. Where the strata are the map's classes and much
    larger than the sample, these are the estimators of Olofsson et al.

    Args:
        stratum: index of the stratum of each unit of the sample, shape (n,).
        mapped: index of its class in the map, shape (n,).
        reference: index of its true class, shape (n,).
        sizes: units (pixels) that each stratum has in all, shape (strata,).
        classes: names of the classes.

    Raises:
        ShapeError: the three arrays differ in length.
        InputError: a stratum has no unit in the sample, or a single one of many.

    Source:
        Stehman (2014), doi 10.1080/01431161.2014.930207; Olofsson et al. (2013), doi
        10.1016/j.rse.2012.10.031; Olofsson et al. (2014), doi 10.1016/j.rse.2014.02.015.
    """
    if not len(stratum) == len(mapped) == len(reference):
        raise ShapeError(
            f"{len(stratum)} strata, {len(mapped)} map classes and {len(reference)} references "
            "were given; a unit of a sample has one of each"
        )
    drawn = np.bincount(stratum, minlength=len(sizes))
    _check_strata(drawn, sizes)
    totals = _Totals(stratum, drawn, np.asarray(sizes, np.float64))
    names = range(len(classes))
    in_map = [np.asarray(mapped == k, np.float64) for k in names]
    in_truth = [np.asarray(reference == k, np.float64) for k in names]
    everything = np.ones(len(stratum))
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (mapped, reference), 1)
    matrix = [[totals.ratio(m * r, everything).value for r in in_truth] for m in in_map]
    return SampledAccuracy(
        classes=tuple(classes),
        counts=counts,
        matrix=np.array(matrix),
        overall=totals.ratio(np.asarray(mapped == reference, np.float64), everything),
        user=tuple(totals.ratio(in_map[k] * in_truth[k], in_map[k]) for k in names),
        producer=tuple(totals.ratio(in_map[k] * in_truth[k], in_truth[k]) for k in names),
        share=tuple(totals.ratio(in_truth[k], everything) for k in names),
    )


def _check_strata(drawn: Ints, sizes: Ints) -> None:
    if len(drawn) > len(sizes):
        raise ShapeError(f"the sample has {len(drawn)} strata, sizes are given for {len(sizes)}")
    for index, (units, size) in enumerate(zip(drawn.tolist(), sizes.tolist(), strict=True)):
        if units > size:
            raise InputError(
                f"stratum {index} has {size} units, and {units} of them are in the sample; the "
                "sample belongs to another map"
            )
        if size and units < min(2, size):
            raise InputError(
                f"stratum {index} has {size} units, and {units} of them in the sample; two at "
                "least are needed to know how sure an estimate is: label more of them"
            )


class _Totals:
    """Totals over strata, from the means of their samples."""

    def __init__(self, stratum: Ints, drawn: Ints, sizes: Floats) -> None:
        self._stratum, self._sizes = stratum, sizes
        self._drawn = np.maximum(drawn, 1)  # empty strata have no units and weigh nothing
        # One unit tells nothing of a variance, and need not where it is all there is.
        left = np.where(sizes > 0, 1 - drawn / np.maximum(sizes, 1), 0)
        self._factor = sizes**2 * left / self._drawn / np.maximum(drawn - 1, 1)

    def ratio(self, part: Floats, whole: Floats) -> Estimate:
        """Ratio of two totals, from the values of the units, shape (n,) each."""
        below = self._total(whole)
        if not below:
            return Estimate(math.nan, math.nan)
        value = self._total(part) / below
        apart = part - value * whole
        squares = np.bincount(
            self._stratum, (apart - self._means(apart)[self._stratum]) ** 2, len(self._sizes)
        )
        variance = float(self._factor @ squares)
        return Estimate(float(value), math.sqrt(max(variance, 0.0)) / below)

    def _means(self, values: Floats) -> Floats:
        return np.bincount(self._stratum, values, len(self._sizes)) / self._drawn

    def _total(self, values: Floats) -> float:
        return float(self._sizes @ self._means(values))
