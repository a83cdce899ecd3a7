"""The gate: a motion is applied only if tie points that did not make it speak for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from affine import Affine

from geocd.align.motion import IDENTITY, implausible, residuals, shift_length
from geocd.align.reader import FloatArray, MaskArray
from geocd.align.ties import Ties
from geocd.config import AlignConfig

Status = Literal["applied", "not needed", "refused", "off"]
Method = Literal["none", "sift-affine", "phase-shift"]

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
class Alignment:
    """What is known about the geometry of a pair, and what is to be done about it.

    Attributes:
        status: applied: use ``motion``; not needed: identity is as good; refused: nothing
            could be shown to help; off: nothing was asked for.
        method: what found the candidate motion.
        motion: from (col, row) of the reading grid, where before is, to the (col, row) at
            which the after image, as georeferenced, shows the same ground. Integers are the
            corners of pixels. Identity unless ``status`` is "applied".
        residual_before_px: median residual of held-out tie points under identity, in pixels.
        residual_after_px: the same under the candidate motion, even when it was refused.
        shift_px: length of the candidate motion at the centre of the image, in pixels.
        tie_points: ties that made the candidate and that it explains.
        held_out: ties kept apart that judged it.
        reason: one clause, why.
    """

    status: Status
    method: Method
    motion: Affine
    residual_before_px: float | None
    residual_after_px: float | None
    shift_px: float | None
    tie_points: int
    held_out: int
    reason: str

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON; the motion as its six numbers a, b, c, d, e, f."""
        return {
            "status": self.status,
            "method": self.method,
            "motion": [float(v) for v in self.motion[:6]],
            "residual_before_px": self.residual_before_px,
            "residual_after_px": self.residual_after_px,
            "shift_px": self.shift_px,
            "tie_points": self.tie_points,
            "held_out": self.held_out,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        if self.status != "applied":
            return f"not aligned: {self.reason}"
        return (
            f"aligned by {self.method}: {self.shift_px:.1f} px shift, residual "
            f"{self.residual_before_px:.1f} -> {self.residual_after_px:.1f} px "
            f"on {self.held_out} held-out tie points"
        )


def unaligned(status: Status, reason: str) -> Alignment:
    """An alignment that was never measured."""
    return Alignment(status, "none", IDENTITY, None, None, None, 0, 0, reason)


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
    return Alignment(
        status=status,
        method=evidence.method,
        motion=evidence.motion if status == "applied" else IDENTITY,
        residual_before_px=float(np.median(before[sworn])) if sworn.any() else None,
        residual_after_px=float(np.median(after[sworn])) if sworn.any() else None,
        shift_px=shift_length(evidence.motion, shape),
        tie_points=int((residuals(evidence.motion, evidence.fit) < evidence.tolerance).sum()),
        held_out=int(sworn.sum()),
        reason=reason,
    )


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
