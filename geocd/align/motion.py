"""Motions fitted to tie points: a shift, or an affine map where a shift does not do.

Source:
    MAGSAC: Barath et al. (2019), doi:10.1109/CVPR.2019.01044.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from affine import Affine

from geocd.align.field import Motion
from geocd.align.reader import FloatArray
from geocd.align.ties import Ties

_MAX_SCALE = 0.05
"""Largest difference of a scale from 1 that two images on one grid may show."""
_MAX_ANGLE = math.radians(5)
"""Largest rotation, and largest skew, in radians."""
_AFFINE_GAIN = 0.9
"""Largest squared residual of an affine map, over that of a shift, that prefers the map."""


def residuals(motion: Motion | Affine, ties: Ties) -> FloatArray:
    """Distance in grid pixels, shape (n,), between where a motion puts each tie and where it is."""
    there = motion if isinstance(motion, Motion) else Motion(motion)
    away = there(ties.reference) - ties.moving
    return np.asarray(np.hypot(away[:, 0], away[:, 1]), dtype=np.float64)


def shift_length(motion: Motion, shape: tuple[int, int]) -> float:
    """Length in pixels of the motion at the centre of an image of shape (height, width)."""
    centre = np.array([[shape[1] / 2, shape[0] / 2]])
    return float(np.hypot(*(motion(centre) - centre)[0]))


def implausible(motion: Motion, shape: tuple[int, int], *, max_shift: float) -> str | None:
    """Why two images on one grid can hardly differ by this motion; None if they can.

    Args:
        motion: from reference to moving, in grid pixels.
        shape: (height, width) of the image.
        max_shift: largest displacement that is believed, in pixels.
    """
    a, b, d, e = (getattr(motion.affine, name) for name in "abde")
    if a * e - b * d <= 0:
        return "the best motion mirrors the image"
    scale_x, scale_y = math.hypot(a, d), math.hypot(b, e)
    if max(abs(scale_x - 1), abs(scale_y - 1)) > _MAX_SCALE:
        return f"the best motion scales by {scale_x:.3f} x {scale_y:.3f}"
    turn_x, turn_y = math.atan2(d, a), math.atan2(-b, e)
    if max(abs(turn_x), abs(turn_y), abs(turn_x - turn_y)) > _MAX_ANGLE:
        return f"the best motion turns by {math.degrees(turn_x):.1f} degrees"
    if motion.folds():
        return "the best motion folds the image"
    shift = shift_length(motion, shape)
    if shift > max_shift:
        return f"the best motion is a shift of {shift:.1f} px, more than {max_shift:g} are believed"
    return None


def candidates(fit: Ties, *, tolerance: float, seed: int, turning: bool = True) -> list[Affine]:
    """The shift and the affine map that most ties follow; fewer if there are too few ties.

    Args:
        fit: ties, some of them false.
        tolerance: distance in grid pixels within which a motion explains a tie.
        seed: of the sampling.
        turning: whether to look for more than a shift.
    """
    if len(fit) < 6:
        return []
    out = [_refined(_commonest_shift(fit, tolerance, seed), fit, tolerance, affine=False)]
    sampled = _sampled_affine(fit, tolerance, seed) if turning else None
    if sampled is not None:
        out.append(_refined(sampled, fit, tolerance, affine=True))
    return out


def simplest(motions: list[Affine], held: Ties, *, tolerance: float) -> Affine:
    """The shift, unless the affine map explains held-out ties notably better.

    Args:
        motions: one or two, a shift first.
        held: ties that made neither.
        tolerance: distance in grid pixels beyond which all misses are alike.
    """
    if len(motions) == 1 or not len(held):
        return motions[0]
    away: FloatArray = np.minimum(np.stack([residuals(m, held) for m in motions]), tolerance)
    # Ties that no motion explains are false or lie on change: they cannot tell the two apart.
    told = np.asarray(away.min(axis=0) < tolerance)
    shift, affine = (away[:, told] ** 2).sum(axis=1)
    return motions[1] if affine < _AFFINE_GAIN * shift else motions[0]


def _commonest_shift(ties: Ties, tolerance: float, seed: int) -> Affine:
    """The displacement with most others within the tolerance: it needs no majority."""
    away = ties.moving - ties.reference
    if len(away) > 1500:
        away = away[np.random.default_rng(seed).choice(len(away), 1500, replace=False)]
    apart = np.abs(away[:, None, :] - away[None, :, :]).max(axis=2)
    near = np.asarray(apart < tolerance)
    centre = away[near[near.sum(axis=1).argmax()]].mean(axis=0)
    return Affine.translation(float(centre[0]), float(centre[1]))


def _sampled_affine(ties: Ties, tolerance: float, seed: int) -> Affine | None:
    """Affine map with most support among random samples of the ties (MAGSAC)."""
    cv2.setRNGSeed(seed)
    # Numbers near 0 keep the 32-bit arithmetic inside exact on large rasters.
    origin = ties.reference.mean(axis=0)
    matrix, _ = cv2.estimateAffine2D(
        ties.reference - origin,
        ties.moving - origin,
        method=cv2.USAC_MAGSAC,
        ransacReprojThreshold=tolerance,
        maxIters=5000,
        confidence=0.999,
    )
    if matrix is None or not np.isfinite(matrix).all():
        return None
    local = Affine(*(float(v) for v in np.asarray(matrix).ravel()))
    return Affine.translation(*origin) @ local @ Affine.translation(*-origin)


def _refined(motion: Affine, ties: Ties, tolerance: float, *, affine: bool) -> Affine:
    """Least squares over the ties that the motion explains, with Cauchy weights, to rest."""
    for _ in range(20):
        away = residuals(motion, ties)
        inside = away < tolerance
        if inside.sum() < 4:
            return motion
        near = away[inside]
        scale = max(1.4826 * float(np.median(near)), 0.02)
        weights = 1 / (1 + (near / (2.0 * scale)) ** 2)
        chosen = ties.take(inside)
        new = _least_squares(chosen, weights) if affine else _mean_shift(chosen, weights)
        moved = float(np.abs(np.array(new[:6]) - np.array(motion[:6])).max())
        motion = new
        if moved < 1e-5:
            break
    return motion


def _mean_shift(ties: Ties, weights: FloatArray) -> Affine:
    shift = np.average(ties.moving - ties.reference, axis=0, weights=weights)
    return Affine.translation(float(shift[0]), float(shift[1]))


def _least_squares(ties: Ties, weights: FloatArray) -> Affine:
    """Affine map with the least weighted squares; solved about the centre for precision."""
    centre = ties.reference.mean(axis=0)
    spread = max(float(ties.reference.std()), 1.0)
    root = np.sqrt(weights)[:, None]
    local = (ties.reference - centre) / spread
    design = np.column_stack([local, np.ones(len(ties))])
    away = ties.moving - ties.reference
    solution, *_ = np.linalg.lstsq(design * root, away * root, rcond=None)  # (3, 2)
    (da, dd), (db, de), (dc, df) = solution.tolist()
    delta = np.array([[da, db], [dd, de]]) / spread
    offset = np.array([dc, df]) - delta @ centre
    return Affine(
        1 + float(delta[0, 0]), float(delta[0, 1]), float(offset[0]),
        float(delta[1, 0]), 1 + float(delta[1, 1]), float(offset[1]),
    )  # fmt: skip
