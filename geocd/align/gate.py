"""The gate: a motion is applied only if tie points that did not make it speak for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from affine import Affine

from geocd.align.alignment import (
    FIT,
    HELD_OUT,
    OUTLIER,
    Alignment,
    Method,
    Residuals,
    Status,
    TiePoints,
)
from geocd.align.field import Motion
from geocd.align.motion import IDENTITY, implausible, residuals, shift_length
from geocd.align.reader import FloatArray, MaskArray
from geocd.align.ties import Ties
from geocd.config import AlignConfig

MIN_JURY: Final = 12
"""Least number of held-out tie points on which a verdict rests."""
GOOD_ENOUGH: Final = 0.3
"""Median residual, in pixels, below which resampling would cost more than it gives."""
_MIN_VOTES = 0.6
"""Least share of the jury that a motion brings closer."""
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
    motion: Affine
    fit: Ties
    held: Ties
    tolerance: float
    """Distance in grid pixels within which a motion explains a tie."""
    chance: float
    """Probability that a false tie seems explained: tolerance over search radius, squared."""


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
    before, after = residuals(IDENTITY, evidence.held), residuals(evidence.motion, evidence.held)
    sworn = np.minimum(before, after) < evidence.tolerance
    status, reason = _verdict(evidence, before, after, observed, shape, config)
    applied = status == "applied"
    shift_only = evidence.motion[:2] + evidence.motion[3:5] == (1.0, 0.0, 0.0, 1.0)
    return Alignment(
        status=status,
        method=evidence.method,
        model="none" if not applied else "shift" if shift_only else "affine",
        motion=Motion(evidence.motion if applied else IDENTITY),
        before=Residuals.of(before[sworn]),
        after=Residuals.of(after[sworn]),
        shift_px=shift_length(evidence.motion, shape),
        tie_points=int((residuals(evidence.motion, evidence.fit) < evidence.tolerance).sum()),
        held_out=int(sworn.sum()),
        reason=reason,
        ties=_table(evidence),
        reach=max(shape) / _CELLS,
    )


def _table(evidence: Evidence) -> TiePoints:
    """All ties of the evidence with their residuals and roles."""
    parts = []
    for ties, name in ((evidence.fit, FIT), (evidence.held, HELD_OUT)):
        before, after = residuals(IDENTITY, ties), residuals(evidence.motion, ties)
        believed = np.minimum(before, after) < evidence.tolerance
        role = np.where(believed, name, OUTLIER)
        away = ties.moving - ties.reference
        parts.append((ties.reference, away, before, after, role, np.full(len(ties), np.nan)))
    return TiePoints(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _verdict(
    evidence: Evidence,
    before: FloatArray,
    after: FloatArray,
    observed: MaskArray,
    shape: tuple[int, int],
    config: AlignConfig,
) -> tuple[Status, str]:
    """(status, reason) from the residuals of all held-out ties under identity and candidate."""
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
    if not weak_identity and (weak_motion or residual_before - residual_after < config.min_gain):
        gain = residual_before - residual_after
        return "not needed", (
            f"no motion does better than the georeferencing "
            f"(residual {residual_before:.2f} px, gain {gain:.2f} px)"
        )
    if weak_motion:
        return "refused", weak_motion
    gain = residual_before - residual_after
    votes = float((after < before)[sworn].mean())
    if gain < config.min_gain or votes < _MIN_VOTES:
        return "refused", (
            f"the best motion brings only {votes:.0%} of the held-out tie points closer "
            f"(gain {gain:.2f} px)"
        )
    return "applied", (
        f"it brings {votes:.0%} of the held-out tie points closer (gain {gain:.2f} px)"
    )


def _weakness(
    evidence: Evidence, away: FloatArray, observed: MaskArray, shape: tuple[int, int]
) -> str | None:
    """Why ties with these residuals do not support a hypothesis; None if they do."""
    explained = away < evidence.tolerance
    count, expected = int(explained.sum()), evidence.chance * len(away)
    if count < MIN_JURY:
        return f"too few tie points: {count} of {len(away)} held out agree on a motion"
    if count < 4 * expected:
        return f"{count} of {len(away)} held-out tie points agree, as many would by chance"
    if not covers(evidence.held.reference[explained], observed, shape):
        return f"{count} held-out tie points agree, but they cover too little of the image"
    return None


def covers(points: FloatArray, observed: MaskArray, shape: tuple[int, int]) -> bool:
    """Whether points (col, row), shape (n, 2), are spread over the observed part of an image."""
    scale = np.array([shape[1], shape[0]], dtype=np.float64)
    share = np.asarray(
        cv2.resize(observed.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    )
    cell = np.clip((points / scale * _CELLS).astype(int), 0, _CELLS - 1)
    held = len(np.unique(cell, axis=0))
    if held < max(2, _MIN_CELLS * int((share > 0.1).sum())):
        return False
    seen = np.argwhere(observed)[:, ::-1] / (observed.shape[1], observed.shape[0])
    wanted = np.ptp(np.percentile(seen, [5, 95], axis=0), axis=0) * _MIN_SPAN
    span = np.ptp(np.percentile(points / scale, [5, 95], axis=0), axis=0)
    return bool((span >= wanted).all())
