"""Running weights over labelled pairs, the way a user would run them."""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geocd
from geocd.assess.baselines import BASELINES
from geocd.assess.boundary import BoundaryAgreement, match_boundaries
from geocd.assess.curves import Curve, ScoreHistogram
from geocd.assess.metrics import (
    Confusion,
    Interval,
    bootstrap,
    confusion,
    finite,
    total,
    worst_first,
)
from geocd.assess.objects import ObjectAgreement, match_objects
from geocd.assess.panels import Panels, draw_panels
from geocd.assess.sample import LabelledClass, Sample, choose_class, run_pair
from geocd.assess.seams import SeamAudit, audit_seams
from geocd.config import DetectConfig, ObjectConfig
from geocd.errors import DatasetError, GeocdWarning, InputError
from geocd.models.card import WeightsCard
from geocd.models.files import find_weights, read_card
from geocd.training.datasets import LabelCoding, load_pairs

_SHOWN = 10
"""Worst images of which pictures are kept."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Agreement of a method with the labels of a set of pairs."""

    method: str
    images: dict[str, Confusion]
    """Agreement by image."""
    objects: dict[str, ObjectAgreement]
    """Agreement of objects by image."""
    boundaries: dict[str, BoundaryAgreement]
    """Agreement of outlines by image."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Images that could not be evaluated, and why."""
    curve: Curve | None = None
    """Precision against recall; None for methods without scores."""

    @property
    def total(self) -> Confusion:
        """One confusion of all pixels of all images."""
        return total(self.images.values())

    @property
    def total_objects(self) -> ObjectAgreement:
        """All objects of all images."""
        first, *others = self.objects.values()
        return sum(others, first)

    @property
    def total_boundaries(self) -> BoundaryAgreement:
        """All outlines of all images."""
        first, *others = self.boundaries.values()
        return sum(others, first)

    @property
    def median_f1(self) -> float:
        """Median of the images' F1, of those where it is defined."""
        defined = [c.f1 for c in self.images.values() if not math.isnan(c.f1)]
        return statistics.median(defined) if defined else math.nan

    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of precision, recall, F1 and IoU; see ``bootstrap``."""
        return bootstrap(list(self.images.values()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "method": self.method,
            "total": self.total.to_dict(),
            "intervals_95": {
                name: [finite(bound) for bound in bounds]
                for name, bounds in self.intervals().items()
            },
            "median_f1": finite(self.median_f1),
            "objects": self.total_objects.to_dict(),
            "boundaries": self.total_boundaries.to_dict(),
            "curve": None if self.curve is None else self.curve.to_dict(),
            "skipped": len(self.skipped),
            "images": {
                name: c.to_dict() | {"objects": self.objects[name].to_dict()}
                for name, c in self.images.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """Weights and baselines on one set of pairs, and under which conditions."""

    evaluations: list[Evaluation]
    """The weights', then the baselines'."""
    conditions: dict[str, Any]
    """Data, weights and settings, JSON-ready."""
    unit: str
    """Unit of the objects' areas: m2, px, or both where only some images tell their scale."""
    panels: dict[str, Panels] = field(repr=False)
    """Pictures of the worst images of the weights, worst first."""
    seams: SeamAudit | None = None
    """Whether windows show in the scores, if that was asked for."""

    @property
    def skipped(self) -> Mapping[str, str]:
        """Images that could not be evaluated, and why."""
        return self.evaluations[0].skipped

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; without the pictures."""
        return {
            **self.conditions,
            "images": len(self.evaluations[0].images),
            "skipped": dict(self.skipped),
            "object_area_unit": self.unit,
            "seams": None if self.seams is None else self.seams.to_dict(),
            "methods": [evaluation.to_dict() for evaluation in self.evaluations],
        }


class _Tally:
    """What was counted so far, and the pictures of the worst images so far."""

    def __init__(self, method: str, threshold: float, objects: ObjectConfig) -> None:
        self.method, self.threshold, self.config = method, threshold, objects
        self.images: dict[str, dict[str, Confusion]] = {m: {} for m in (method, *BASELINES)}
        self.objects: dict[str, dict[str, ObjectAgreement]] = {m: {} for m in self.images}
        self.scores = ScoreHistogram()
        self.boundaries: dict[str, dict[str, BoundaryAgreement]] = {m: {} for m in self.images}
        self.units: set[str] = set()
        self.panels: dict[str, Panels] = {}

    def add(self, name: str, sample: Sample) -> None:
        """Count a pair, for the weights and for every baseline."""
        self.units.add("px" if sample.pixel_area is None else "m2")
        self.scores.add(sample.scores, sample.truth, valid=sample.valid)
        maps = {self.method: sample.found}
        maps |= {
            method: baseline(sample.before, sample.after) & sample.valid
            for method, baseline in BASELINES.items()
        }
        for method, mask in maps.items():
            self.images[method][name] = confusion(mask, sample.truth, valid=sample.valid)
            self.objects[method][name] = match_objects(
                mask, sample.truth, config=self.config, pixel_area=sample.pixel_area,
                observed=int(sample.valid.sum()),
            )  # fmt: skip
            self.boundaries[method][name] = match_boundaries(
                mask, sample.truth, valid=sample.valid, tolerance=self.config.boundary
            )
        self._keep_panels(name, sample)

    def _keep_panels(self, name: str, sample: Sample) -> None:
        # Pictures of more images than will be shown are never in memory.
        images = self.images[self.method]
        worst = [n for n in worst_first(images) if images[n].wrong][:_SHOWN]
        if name in worst:
            self.panels[name] = draw_panels(sample)
        self.panels = {n: self.panels[n] for n in worst}

    def evaluations(self, skipped: Mapping[str, str]) -> list[Evaluation]:
        """The weights' evaluation, then the baselines'."""
        curves = {self.method: self.scores.curve(self.threshold)}
        return [
            Evaluation(method, images, self.objects[method], self.boundaries[method], skipped,
                       curves.get(method))
            for method, images in self.images.items()
        ]  # fmt: skip


def assess(
    data: Path,
    *,
    config: DetectConfig,
    kind: str = "building",
    split: str | None = None,
    coding: LabelCoding | None = None,
    strict: bool = False,
    objects: ObjectConfig | None = None,
    audit: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Assessment:
    """Run ``detect`` on every pair of a set and compare one kind of change with the labels.

    The baselines see what the network saw: both dates on before's grid, after as it was aligned.
    Pixels that ``detect`` did not observe, or that the labels ignore, count for no method.

    Args:
        data: folder of pairs, in a layout that ``find_pairs`` knows, or a manifest of
            georeferenced pairs (see ``read_manifest``), whose bands and ground sample distances
            come before those of ``config``. One pair at a time is in memory, as a whole.
        config: as for ``detect``; ``pixel_size`` tells the ground sample distance of images
            without georeferencing.
        kind: the class of the change map that the labels show.
        split: only the pairs of this split; None: all.
        coding: what the values of the labels mean; None: 0 no change, any other value change of
            this kind.
        strict: stop at the first pair that cannot be evaluated, instead of leaving it out with
            a ``GeocdWarning``.
        objects: what counts as an object, and as found.
        audit: score some pairs again with windows that begin elsewhere; see ``audit_seams``.
        progress: called with pairs done and pairs in all.

    Raises:
        DatasetError: the folder or the split cannot be used, or none of its pairs can; with
            ``strict``, one of them cannot.
        ConfigError: the weights do not tell this kind of change, or the labels do not show it.
        GeocdError: and its other kinds: weights, device or disk, which concern every pair.
    """
    pairs = load_pairs(data, split=split)
    card = read_card(find_weights(config.weights))
    labelled = choose_class(card, kind, coding or LabelCoding(classes=(kind,)), config)
    tally = _Tally(config.weights, labelled.threshold, objects or ObjectConfig())
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for done, pair in enumerate(pairs, 1):
            try:
                sample = run_pair(pair, labelled, card, config, Path(scratch))
            except (InputError, DatasetError) as error:
                if strict:
                    raise DatasetError(f"{pair.name} cannot be evaluated: {error}") from error
                skipped[pair.name] = str(error)
                warnings.warn(f"{pair.name} is skipped: {error}", GeocdWarning, stacklevel=2)
            else:
                tally.add(pair.name, sample)
            if progress:
                progress(done, len(pairs))
        sound = [pair for pair in pairs if pair.name not in skipped]
        seams = audit_seams(sound, labelled, card, config, scratch=Path(scratch)) if audit else None
    if len(skipped) == len(pairs):
        name, reason = next(iter(skipped.items()))
        raise DatasetError(
            f"none of the {len(pairs)} pairs of {data} can be evaluated; "
            f"the first, {name}: {reason}"
        )
    conditions = _conditions(data, split, card, labelled, config, tally.config)
    return Assessment(
        tally.evaluations(skipped), conditions, " or ".join(sorted(tally.units)), tally.panels,
        seams,
    )  # fmt: skip


def _conditions(
    data: Path, split: str | None, card: WeightsCard, labelled: LabelledClass,
    config: DetectConfig, objects: ObjectConfig,
) -> dict[str, Any]:  # fmt: skip
    return {
        "geocd": geocd.__version__,
        "data": str(data),
        "split": split,
        "kind": labelled.kind,
        "labels": dataclasses.asdict(labelled.coding),
        "weights": {
            "name": card.name,
            "architecture": card.architecture,
            "sha256": card.tensors_sha256,
        },
        "threshold": labelled.threshold,
        "config": dataclasses.asdict(config),
        "objects": dataclasses.asdict(objects),
    }


def evaluate(
    data: str | Path,
    *,
    config: DetectConfig | None = None,
    kind: str = "building",
    split: str | None = None,
    coding: LabelCoding | None = None,
    strict: bool = False,
    objects: ObjectConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Evaluation]:
    """The weights' evaluation on labelled pairs, then those of the baselines; see ``assess``."""
    return assess(
        Path(data), config=config or DetectConfig(), kind=kind, split=split, coding=coding,
        strict=strict, objects=objects, progress=progress,
    ).evaluations  # fmt: skip
