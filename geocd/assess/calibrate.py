"""From labelled pairs to an operating point: a threshold and what it promises about misses."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import geocd
from geocd.assess.conformal import Promise, choose_level, threshold_of
from geocd.assess.curves import ScoreHistogram
from geocd.assess.metrics import finite, ratio
from geocd.assess.misses import FalseAlarms, Misses, count_misses, false_alarms
from geocd.assess.operating_point import OperatingPoint, in_full, settings_of, write_operating_point
from geocd.assess.reliability import (
    Reliability,
    held_out_reliability,
    reliability,
    reliability_diagram,
)
from geocd.assess.sample import LabelledClass, Sample, choose_class, run_pair
from geocd.config import SCORE_SCALE, CalibrateConfig, DetectConfig
from geocd.errors import DatasetError, InputError, OperatingPointError
from geocd.models.card import WeightsCard
from geocd.models.files import find_weights, read_card
from geocd.outputs import check_writable, replacing
from geocd.training.datasets import (
    GeoreferencedPair,
    LabelCoding,
    LabelledPair,
    inspect_pairs,
    load_pairs,
    read_pixels,
)
from geocd.training.tiles import content_hash

_HASHES = "content_sha256"
"""Entry of a card's training record with the hashes of the images that were trained on."""
_KM2 = 1e6
_SEED = 0
"""Of the order in which units are bet on."""
_WORDS = {
    "object": "changed objects missed",
    "pixel": "changed pixels missed",
    "image": "images with change of which nothing is found",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a threshold missed and invented on the calibration set."""

    threshold: float
    miss: float
    """Mean loss of the units."""
    alarms: FalseAlarms

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        alarms = self.alarms
        return {
            "threshold": self.threshold,
            "miss": finite(self.miss),
            "false_objects": alarms.objects,
            "false_objects_per_image": finite(ratio(alarms.objects, alarms.images)),
            "false_objects_per_km2": finite(ratio(alarms.objects, alarms.area_m2 / _KM2)),
            "false_alarm_share": finite(ratio(alarms.pixels, alarms.unchanged)),
        }


@dataclass(frozen=True, slots=True)
class Calibration:
    """An operating point, what it costs, and how far scores are from probabilities."""

    point: OperatingPoint
    promised: Cost
    as_on_the_card: Cost
    raw: Reliability
    scaled: Reliability | None
    """On units that the scaling was not fitted to; None where there are too few."""

    def report(self) -> str:
        """For people."""
        lines = [self.point.promise["words"], ""]
        for name, cost in (("promised", self.promised), ("the card's", self.as_on_the_card)):
            c = cost.to_dict()
            ground = c["false_objects_per_km2"]
            lines.append(
                f"{name} threshold {cost.threshold:.4f}: {cost.miss:.2%} missed, "
                f"{c['false_objects_per_image']:.2f} false objects an image"
                + ("" if ground is None else f" ({ground:,.1f} a square kilometre)")
                + f", {c['false_alarm_share'] or 0:.3%} of the unchanged pixels"
            )
        lines.append(f"scores as probabilities: expected error {self.raw.expected_error:.4f}")
        if self.scaled is not None:
            scale, bias = self.scaled.scaling.scale, self.scaled.scaling.bias
            lines[-1] += (
                f", {self.scaled.expected_error:.4f} with p = 1 / (1 + exp(-({scale:.2f} * "
                f"logit(score) {bias:+.2f}))), on images that it was not fitted to"
            )
        return "\n".join([*lines, *self.point.calibration["checked"]])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self.point) | {
            "sha256": self.point.sha256,
            "reliability": {
                "raw": self.raw.to_dict(),
                "scaled": None if self.scaled is None else self.scaled.to_dict(),
            },
        }


@dataclass(slots=True)
class _Tally:
    """What was counted so far, by unit."""

    folder: Path
    misses: dict[str, Misses] = field(default_factory=dict)
    histograms: dict[str, ScoreHistogram] = field(default_factory=dict)
    kept: list[tuple[Path, float | None]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def add(self, unit: str, sample: Sample, config: CalibrateConfig) -> None:
        counted = count_misses(
            sample.scores, sample.truth, config=config, pixel_area=sample.pixel_area
        )
        if counted.total:
            before = self.misses.get(unit)
            self.misses[unit] = counted if before is None else before + counted
        histogram = self.histograms.setdefault(unit, ScoreHistogram())
        histogram.add(sample.scores, sample.truth, valid=sample.valid)
        # Alarms are counted once the threshold is known; planes of many images fit no memory.
        path = self.folder / f"{len(self.kept)}.npz"
        np.savez_compressed(path, scores=sample.scores, truth=sample.truth, valid=sample.valid)
        self.kept.append((path, sample.pixel_area))

    @property
    def losses(self) -> NDArray[np.float64]:
        """Share missed by unit and level, shape (units, levels)."""
        return np.array([m.losses for m in self.misses.values()])

    def reliability(self) -> tuple[Reliability, Reliability | None]:
        """Of the scores as they are, and scaled, on units that the scaling was not fitted to."""
        counts = np.array([h.counts for h in self.histograms.values()])
        order = np.random.default_rng(_SEED).permutation(len(counts))
        return reliability(counts.sum(axis=0)), held_out_reliability(counts[order])

    def cost(self, level: int, threshold: float, config: CalibrateConfig) -> Cost:
        """What the set costs at a level."""
        alarms = []
        for path, pixel_area in self.kept:
            with np.load(path) as planes:
                alarms.append(
                    false_alarms(
                        planes["scores"], planes["truth"], planes["valid"], level=level,
                        config=config, pixel_area=pixel_area,
                    )
                )  # fmt: skip
        first, *others = alarms
        return Cost(threshold, float(self.losses[:, level - 1].mean()), sum(others, first))


def calibrate(
    data: str | Path,
    *,
    config: DetectConfig,
    promise: CalibrateConfig | None = None,
    kind: str = "building",
    split: str | None = None,
    coding: LabelCoding | None = None,
    against: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """The highest threshold whose misses stay below a limit, proven on labelled pairs.

    What is promised: of images drawn like those of the set, the mean share of what changed that
    scores below the threshold stays within ``promise.max_miss``; with ``promise.confidence``
    over the draw of the set. Images without change say nothing of misses; they count for the
    false alarms.

    Args:
        data: labelled pairs that the weights were not trained on; as for ``assess``.
        config: as for ``detect``; its threshold is not used.
        promise: what to promise, and what counts as missed.
        kind: the class of the change map that the labels show.
        split: only the pairs of this split; None: all.
        coding: what the values of the labels mean; as for ``assess``.
        against: sets that the weights were trained on; an image in both is refused.
        progress: called with pairs done and pairs in all.

    Raises:
        OperatingPointError: too few units, a promise that no threshold keeps, or images that
            were trained on.
        DatasetError: a pair cannot be used. None is left out, because those that fail may be
            those that are hard.
        GeocdError: and its other kinds; see ``assess``.
    """
    source, promise = Path(data), promise or CalibrateConfig()
    config = in_full(replace(config, shift_check=False))  # which tells nothing of scores
    pairs = load_pairs(source, split=split)
    card = read_card(find_weights(config.weights))
    labelled = choose_class(card, kind, coding or LabelCoding(classes=(kind,)), config)
    _check_number(len(_sites(pairs, promise)), promise, "images")
    checked = _check_overlap(source, pairs, card, against)
    with tempfile.TemporaryDirectory() as scratch:
        tally = _Tally(Path(scratch))
        for done, pair in enumerate(pairs, 1):
            try:
                sample = run_pair(pair, labelled, card, config, tally.folder)
            except (InputError, DatasetError) as error:
                raise DatasetError(f"{pair.name} cannot be used: {error}") from error
            tally.add(_site(pair.name, promise), sample, promise)
            tally.digests.append(_files_digest(pair))
            if progress:
                progress(done, len(pairs))
        return _conclude(tally, source, split, card, labelled, config, promise, checked)


def check_outputs(path: Path, diagram: Path | None, *, overwrite: bool) -> None:
    """Refuse outputs that could not be written, before the work.

    Raises:
        OutputError: see ``outputs.check_writable``.
    """
    for target in (path, diagram):
        if target is not None:
            check_writable(target, overwrite=overwrite)


def write_calibration(
    calibration: Calibration, path: Path, *, diagram: Path | None = None, overwrite: bool = False
) -> None:
    """Write the operating point and, where it is wanted, the reliability diagram.

    Raises:
        OutputError: see ``check_outputs``.
    """
    check_outputs(path, diagram, overwrite=overwrite)
    if diagram is not None:
        with replacing(diagram) as draft:
            draft.write_bytes(reliability_diagram(calibration.raw, calibration.scaled))
    write_operating_point(calibration.point, path, overwrite=overwrite)


def _conclude(
    tally: _Tally, source: Path, split: str | None, card: WeightsCard, labelled: LabelledClass,
    config: DetectConfig, promise: CalibrateConfig, checked: list[str],
) -> Calibration:  # fmt: skip
    units = len(tally.misses)
    _check_number(units, promise, "units with change")
    losses = tally.losses
    # Names are sorted by place and time; the order of the bets is not.
    order = np.random.default_rng(_SEED).permutation(units)
    level = choose_level(losses[order], _proof(promise))
    if not level:
        raise OperatingPointError(
            f"no threshold keeps the promise: even the lowest misses {losses[:, 0].mean():.2%} on "
            f"{units} units, which does not prove at most {promise.max_miss:g}; promise less "
            "(--max-miss), label more units, or find what the weights do not see"
        )
    raw, scaled = tally.reliability()
    cards = max(1, math.ceil(labelled.threshold * SCORE_SCALE))
    promised = tally.cost(level, threshold_of(level), promise)
    usual = tally.cost(cards, labelled.threshold, promise)
    point = OperatingPoint(
        kind=card.change_classes[labelled.band],
        threshold=threshold_of(level),
        weights={"name": card.name, "architecture": card.architecture,
                 "sha256": card.tensors_sha256},
        settings=settings_of(config),
        promise=asdict(promise) | {"words": _words(promise, units)},
        calibration={
            "data": str(source), "split": split, "images": len(tally.kept), "units": units,
            "things": sum(m.total for m in tally.misses.values()),
            "labels": asdict(labelled.coding), "kind": labelled.kind,
            "sha256": hashlib.sha256("".join(sorted(tally.digests)).encode()).hexdigest(),
            "checked": checked, "promised": promised.to_dict(), "as_on_the_card": usual.to_dict(),
            "expected_calibration_error": finite(raw.expected_error),
            "scaling": None if scaled is None else asdict(scaled.scaling) | {
                "expected_calibration_error": finite(scaled.expected_error)
            },
        },
        made={"geocd": geocd.__version__,
              "created": datetime.now(UTC).isoformat(timespec="seconds")},
    )  # fmt: skip
    return Calibration(point, promised, usual, raw, scaled)


def _words(promise: CalibrateConfig, units: int) -> str:
    what = _WORDS[promise.unit]
    mean = f"the mean share of {what} stays within {promise.max_miss:.2%}"
    sure = (
        "on average over calibration sets"
        if promise.confidence is None
        else f"with a confidence of {promise.confidence:.1%}"
    )
    found = (
        "" if promise.unit == "pixel" else f"; an object is found if {promise.cover:.0%} of it is"
    )
    return (
        f"Of {'sites' if promise.site else 'images'} like the {units} calibrated on, {mean}, "
        f"{sure}{found}"
    )


def _check_number(units: int, promise: CalibrateConfig, words: str) -> None:
    wanted = _proof(promise)
    needed = wanted.needed_units
    if units >= needed:
        return
    nothing_missed = np.zeros((max(units, 1), 1))
    possible = [
        share / 1000
        for share in range(1, 1000)
        if replace(wanted, max_miss=share / 1000).proves(nothing_missed)[0]
    ]
    name = "sites" if promise.site else "images"
    raise OperatingPointError(
        f"{needed} {name} with change are needed to promise at most {promise.max_miss:g} missed"
        + ("" if promise.confidence is None else f" with a confidence of {promise.confidence:g}")
        + f", even if nothing is missed in them; there are {units} {words}. Label more"
        + (f", or promise no less than --max-miss {possible[0]:g}" if units and possible else "")
    )


def _proof(promise: CalibrateConfig) -> Promise:
    """What is to be proven of the losses."""
    all_or_none = promise.unit == "image" and promise.site is None
    return Promise(promise.max_miss, promise.confidence, all_or_none)


def _sites(pairs: Sequence[LabelledPair], promise: CalibrateConfig) -> set[str]:
    return {_site(pair.name, promise) for pair in pairs}


def _site(name: str, promise: CalibrateConfig) -> str:
    """The unit that an image belongs to."""
    if promise.site is None:
        return name
    found = re.search(promise.site, name)
    if found is None:
        raise DatasetError(f"the site expression {promise.site!r} finds nothing in {name!r}")
    return found[1] if found.re.groups else found[0]


def _files_digest(pair: LabelledPair) -> str:
    """SHA-256 over the files of a pair; of names where they are folders or URLs."""
    digest = hashlib.sha256()
    for path in (pair.before, pair.after, pair.label):
        digest.update(path.read_bytes() if path.is_file() else str(path).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _check_overlap(
    source: Path, pairs: Sequence[LabelledPair], card: WeightsCard, against: Sequence[Path]
) -> list[str]:
    """What was compared with the training images; refuses what is among them."""
    checked = []
    if against:
        leaks = inspect_pairs(source, against=against).leaks
        trained = {str(folder) for folder in against}
        for leak in leaks:
            if trained & set(leak.places):
                raise _trained_on(leak.files[0], "in a training set")
        checked.append(f"no image is in {', '.join(map(str, against))}")
    hashes = set(card.training.get(_HASHES, ()))
    if not hashes:
        unknown = (
            "the card carries no hashes of its training images: whether the weights were trained "
            "on these is not known from it"
        )
        return [*checked, unknown]
    files = [
        path for pair in pairs if not isinstance(pair, GeoreferencedPair)
        for path in (pair.before, pair.after)
    ]  # fmt: skip
    for path in files:
        if content_hash(read_pixels(path)) in hashes:
            raise _trained_on(str(path), "by the hash on the card")
    rasters = 2 * len(pairs) - len(files)
    return [
        *checked,
        f"{len(files)} images were compared with the {len(hashes)} that the card names as trained "
        "on, and none is among them; crops and lossy copies would not be found"
        + (f"; {rasters} georeferenced rasters were not compared" if rasters else ""),
    ]


def _trained_on(path: str, how: str) -> OperatingPointError:
    return OperatingPointError(
        f"the weights were trained on {path} ({how}), where they miss less than elsewhere; "
        "calibrate on images that they never saw"
    )
