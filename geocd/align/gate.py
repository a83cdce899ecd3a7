"""The gate: a motion is applied only if tie points that did not make it speak for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.align.alignment import (
    FIT,
    HELD_OUT,
    OUTLIER,
    Alignment,
    Method,
    Model,
    Residuals,
    Status,
    TiePoints,
)
from geocd.align.field import Motion, PointArray
from geocd.align.local import Refined
from geocd.align.motion import implausible, residuals, shift_length
from geocd.align.reader import FloatArray, MaskArray
from geocd.align.ties import Ties
from geocd.config import AlignConfig

MIN_JURY: Final = 12
"""Least number of held-out tie points on which a verdict rests."""
GOOD_ENOUGH: Final = 0.25
"""Median residual, in pixels, below which resampling would cost more than it gives."""
_VOTE_MARGIN = 1.5
"""Standard deviations (of a coin thrown by every member of the jury, times two) by which the
share of the jury that a motion brings closer must exceed a half."""
_LOCAL_MISS = 1.5
"""Distance, in pixels, within which a refined motion explains a block."""
_LOCAL_CHANCE = 0.05
"""A quarter of the share of blocks that must be explained: up to 0.14 of those of images of
different places are, because a block finds something like itself within a few pixels."""
_LOCAL_REACH = 2.5
"""Distance for which a block speaks, in blocks."""
_CELLS = 4
"""The image is cut into this many cells each way to see whether the jury covers it."""
_MIN_CELLS = 0.3
"""Least share of the observed cells that hold a member of the jury."""
_MIN_SPAN = 0.5
"""Least extent of the jury, each way, as a share of the observed part."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A candidate motion and the ties for and against it."""

    method: Method
    model: Model
    motion: Motion
    ties: TiePoints
    tolerance: float
    """Distance in grid pixels within which a motion explains a tie."""
    chance: float
    """Probability that a false tie seems explained."""
    reach: float
    """Distance in grid pixels for which a tie speaks."""

    @property
    def jury(self) -> MaskArray:
        """True for ties that were held out, whatever they say, shape (n,)."""
        return np.asarray(self.ties.role != FIT, dtype=np.bool_)


def split_evidence(
    method: Method, model: Model, motion: Motion, fit: Ties, held: Ties, *, tolerance: float,
    chance: float, reach: float,
) -> Evidence:  # fmt: skip
    """A candidate made by some ties, ``fit``, and to be judged by others, ``held``."""
    parts = []
    for ties, name in ((fit, FIT), (held, HELD_OUT)):
        away = ties.moving - ties.reference
        before, after = residuals(Motion(), ties), residuals(motion, ties)
        role = np.full(len(ties), name, dtype="<U8")
        parts.append((ties.reference, away, before, after, role, np.full(len(ties), np.nan)))
    table = TiePoints(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return Evidence(method, model, motion, table, tolerance, chance, reach)


def refined_evidence(method: Method, refined: Refined, *, spacing: float) -> Evidence:
    """A refined motion, with every block judging what was made without it."""
    ties = refined.ties
    # A block that does not correlate is a witness for no motion.
    lost = np.where(ties.weight > 0, 0.0, np.inf)
    table = TiePoints(
        position=ties.position,
        displacement=ties.displacement,
        residual_before=np.hypot(ties.displacement[:, 0], ties.displacement[:, 1]) + lost,
        residual_after=refined.held_out + lost,
        role=np.full(len(lost), HELD_OUT, dtype="<U8"),
        score=ties.score,
    )
    return Evidence(
        method, refined.model, refined.motion, table, _LOCAL_MISS, _LOCAL_CHANCE,
        _LOCAL_REACH * spacing,
    )  # fmt: skip


def judge(
    evidence: Evidence, observed: MaskArray, shape: tuple[int, int], *, config: AlignConfig
) -> Alignment:
    """The verdict on a candidate motion.

    The jury are the held-out ties that identity or the candidate explains; the others are
    false matches or lie on ground that changed.

    Args:
        evidence: the candidate.
        observed: any decimation of the whole image; True where both dates were observed.
        shape: (height, width) of the reading grid.
        config: largest shift and least gain.
    """
    ties, jury = evidence.ties, evidence.jury
    before, after = ties.residual_before, ties.residual_after
    explained = np.minimum(before, after) < evidence.tolerance
    sworn = jury & explained
    status, reason = _verdict(evidence, observed, shape, config)
    applied = status == "applied"
    return Alignment(
        status=status,
        method=evidence.method,
        model=evidence.model if applied else "none",
        motion=evidence.motion if applied else Motion(),
        before=Residuals.of(before[sworn]),
        after=Residuals.of(after[sworn]),
        shift_px=shift_length(evidence.motion, shape),
        tie_points=int((after < evidence.tolerance).sum()),
        held_out=int(sworn.sum()),
        reason=reason,
        ties=_table(ties, explained),
        reach=evidence.reach,
    )


def _table(ties: TiePoints, explained: MaskArray) -> TiePoints:
    """The ties with the outliers among them called so, and their residuals finite."""
    before = np.hypot(ties.displacement[:, 0], ties.displacement[:, 1])
    return TiePoints(
        position=ties.position,
        displacement=ties.displacement,
        residual_before=before,
        residual_after=np.where(np.isfinite(ties.residual_after), ties.residual_after, np.nan),
        role=np.where(explained, ties.role, OUTLIER),
        score=ties.score,
    )


def supported(
    evidence: Evidence, observed: MaskArray, shape: tuple[int, int], *, config: AlignConfig
) -> Motion | None:
    """The candidate, or else identity, if enough ties follow it for a look at its blocks.

    Whether it does better than the other is not asked here: on ties this coarse that may not
    show. Args as for ``judge``.
    """
    jury = evidence.jury
    for motion, away in (
        (evidence.motion, evidence.ties.residual_after),
        (Motion(), evidence.ties.residual_before),
    ):
        weak = _weakness(evidence, away[jury], observed, shape)
        if not weak and not implausible(motion, shape, max_shift=config.max_shift):
            return motion
    return None


def _verdict(
    evidence: Evidence, observed: MaskArray, shape: tuple[int, int], config: AlignConfig
) -> tuple[Status, str]:
    """(status, reason) from the residuals of all held-out ties under identity and candidate."""
    jury = evidence.jury
    before, after = evidence.ties.residual_before[jury], evidence.ties.residual_after[jury]
    sworn = np.minimum(before, after) < evidence.tolerance
    # Either hypothesis must stand on its own: two weak ones do not make a jury.
    weak_identity = _weakness(evidence, before, observed, shape)
    weak_motion = _weakness(evidence, after, observed, shape) or implausible(
        evidence.motion, shape, max_shift=config.max_shift
    )
    if weak_identity and weak_motion:
        return "refused", weak_motion
    residual_before, residual_after = np.median(before[sworn]), np.median(after[sworn])
    if not weak_identity and residual_before < GOOD_ENOUGH:
        return "not needed", f"the images already agree within {residual_before:.2f} px"
    gain = residual_before - residual_after
    if not weak_identity and (weak_motion or gain < config.min_gain):
        return "not needed", (
            f"no motion does better than the georeferencing "
            f"(residual {residual_before:.2f} px, gain {gain:.2f} px)"
        )
    if weak_motion:
        return "refused", weak_motion
    votes = float((after < before)[sworn].mean())
    needed = 0.5 + _VOTE_MARGIN / math.sqrt(int(sworn.sum()))
    if gain < config.min_gain or votes < needed:
        return "refused", (
            f"the best motion brings only {votes:.0%} of {int(sworn.sum())} held-out tie points "
            f"closer, and {needed:.0%} are needed (gain {gain:.2f} px)"
        )
    return "applied", (
        f"it brings {votes:.0%} of the held-out tie points closer (gain {gain:.2f} px)"
    )


def _weakness(
    evidence: Evidence, away: FloatArray, observed: MaskArray, shape: tuple[int, int]
) -> str | None:
    """Why held-out ties with these residuals do not support a hypothesis; None if they do."""
    explained = away < evidence.tolerance
    count, expected = int(explained.sum()), evidence.chance * len(away)
    if count < MIN_JURY:
        return f"too few tie points: {count} of {len(away)} held out agree on a motion"
    if count < 4 * expected:
        return f"{count} of {len(away)} held-out tie points agree, as many would by chance"
    if not covers(evidence.ties.position[evidence.jury][explained], observed, shape):
        return f"{count} held-out tie points agree, but they cover too little of the image"
    return None


def covers(points: PointArray, observed: MaskArray, shape: tuple[int, int]) -> bool:
    """Whether points (col, row), shape (n, 2), are spread over the observed part of an image."""
    scale = np.array([shape[1], shape[0]], dtype=np.float64)
    share = np.asarray(
        cv2.resize(observed.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    )
    cell = np.clip((points / scale * _CELLS).astype(int), 0, _CELLS - 1)
    held = len(np.unique(cell, axis=0))
    if held < max(2, _MIN_CELLS * int((share > 0.1).sum())):
        return False
    wanted = np.array([_middle_span(observed.sum(axis=axis)) for axis in (0, 1)]) * _MIN_SPAN
    span = np.ptp(np.percentile(points / scale, [5, 95], axis=0), axis=0)
    return bool((span >= wanted).all())


def _middle_span(counts: NDArray[np.intp]) -> float:
    """Extent of nine tenths of what was counted along an axis, as a share of the axis."""
    total = np.cumsum(counts)
    first, last = np.searchsorted(total, np.array([0.05, 0.95]) * total[-1])
    return float(last - first) / len(counts)
