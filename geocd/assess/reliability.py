"""Whether scores are probabilities, and the scaling that makes them more so."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geocd.assess.chart import LIGHT, Ink
from geocd.assess.metrics import finite
from geocd.config import SCORE_SCALE

Floats = NDArray[np.float64]

_BINS = 15
_FOLDS = 5
_STEPS = 100
_SMALL = 1e-9
_RIDGE = 1e-9
_SIZE, _FRAME = 900, (110, 40, 870, 800)


@dataclass(frozen=True, slots=True)
class Scaling:
    """From scores to probabilities: 1 / (1 + exp(-(scale * logit(score) + bias)))."""

    scale: float
    bias: float


AS_THEY_ARE = Scaling(1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Scores against what is so, in bins of equal width."""

    scaling: Scaling
    score: Floats
    """Mean score of each bin, shape (bins,); NaN for empty bins."""
    changed: Floats
    """Share of its pixels that changed."""
    weight: Floats
    """Share of all pixels that it holds."""

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean distance of score and share over all pixels.

        Source:
            Naeini et al. (2015), doi 10.1609/aaai.v29i1.9602.
        """
        apart = np.abs(self.score - self.changed)
        return float((self.weight * np.where(self.weight > 0, apart, 0)).sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "scale": self.scaling.scale,
            "bias": self.scaling.bias,
            "expected_calibration_error": finite(self.expected_error),
            "score": [finite(v) for v in self.score],
            "changed": [finite(v) for v in self.changed],
            "weight": [finite(v) for v in self.weight],
        }


def _logits() -> Floats:
    """Of scores of 0, 1, ... 254 of 254, shape (255,)."""
    # Half a level from the ends, because a stored 0 is anything below half a level.
    score = np.clip(np.arange(SCORE_SCALE + 1) / SCORE_SCALE, 0.5 / SCORE_SCALE,
                    1 - 0.5 / SCORE_SCALE)  # fmt: skip
    return np.asarray(np.log(score) - np.log1p(-score))


def probabilities(scaling: Scaling) -> Floats:
    """What scores of 0, 1, ... 254 of 254 become, shape (255,), 0..1."""
    return np.asarray(1 / (1 + np.exp(-(scaling.scale * _logits() + scaling.bias))))


def fit_scaling(counts: NDArray[np.int64]) -> Scaling | None:
    """The scaling of least negative log-likelihood; None without both kinds of pixels.

    Args:
        counts: pixels at each score, of unchanged and of changed ground, shape (2, 255).

    Source:
        Platt (1999), probabilistic outputs for support vector machines, with its targets a
        little off 0 and 1, so that scores which separate both kinds have a finite scaling too.
    """
    same, changed = counts.sum(axis=1).tolist()
    if not (same and changed):
        return None
    pixels = counts.sum(axis=0).astype(np.float64)
    wanted = counts[1] * (changed + 1) / (changed + 2) + counts[0] / (same + 2)
    terms = np.stack([_logits(), np.ones(SCORE_SCALE + 1)])  # (2, 255)

    def _loss(numbers: Floats) -> float:
        z = numbers @ terms
        return float((pixels * np.logaddexp(0, z) - wanted * z).sum())

    numbers = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(numbers @ terms)))
        slope = terms @ (pixels * p - wanted)
        curvature = (terms * (pixels * p * (1 - p))) @ terms.T
        step = np.linalg.solve(curvature + _RIDGE * np.eye(2), slope)
        while _loss(numbers - step) > _loss(numbers) and np.abs(step).max() > _SMALL:
            step /= 2  # Newton's step is too long where the curve is flat
        numbers = numbers - step
        if np.abs(step).max() <= _SMALL:
            break
    return Scaling(float(numbers[0]), float(numbers[1]))


def reliability(counts: NDArray[np.int64], scaling: Scaling = AS_THEY_ARE) -> Reliability:
    """Scores, once scaled, against the shares that changed.

    Args:
        counts: as for ``fit_scaling``.
        scaling: what is done to the scores first.
    """
    return _from_sums(_sums(counts, scaling), scaling)


def held_out_reliability(units: NDArray[np.int64]) -> Reliability | None:
    """What a scaling does to images that it was not fitted to: by cross-validation over units.

    Args:
        units: as for ``fit_scaling``, of each unit, shape (units, 2, 255), in an order that does
            not follow from them.

    Returns:
        None where some fold has no scaling. ``scaling`` is that of all units.
    """
    whole = fit_scaling(units.sum(axis=0))
    fold = np.arange(len(units)) % _FOLDS
    sums = np.zeros((3, _BINS))
    for number in range(min(_FOLDS, len(units))):
        scaling = fit_scaling(units[fold != number].sum(axis=0))
        if scaling is None:
            return None
        sums += _sums(units[fold == number].sum(axis=0), scaling)
    return None if whole is None else _from_sums(sums, whole)


def _sums(counts: NDArray[np.int64], scaling: Scaling) -> Floats:
    """Pixels, the sum of their scores, and those that changed, by bin, shape (3, bins)."""
    p = probabilities(scaling)
    place = np.minimum((p * _BINS).astype(np.int64), _BINS - 1)
    pixels = counts.sum(axis=0)
    return np.stack([np.bincount(place, w, _BINS) for w in (pixels, pixels * p, counts[1])])


def _from_sums(sums: Floats, scaling: Scaling) -> Reliability:
    pixels, scores, changed = sums
    with np.errstate(invalid="ignore"):
        return Reliability(
            scaling, scores / pixels, changed / pixels, pixels / max(pixels.sum(), 1)
        )


def reliability_diagram(raw: Reliability, scaled: Reliability | None, ink: Ink = LIGHT) -> bytes:
    """Share changed against score, before scaling and, on images held out, after, as a PNG."""
    image = Image.new("RGB", (_SIZE, _SIZE), ink.paper)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(22)
    left, top, right, bottom = _FRAME

    def _at(x: float, y: float) -> tuple[float, float]:
        return left + x * (right - left), bottom - y * (bottom - top)

    for tick in np.linspace(0, 1, 6).tolist():
        draw.line([_at(tick, 0), _at(tick, 1)], ink.grid, 2)
        draw.line([_at(0, tick), _at(1, tick)], ink.grid, 2)
        draw.text((_at(tick, 0)[0], bottom + 10), f"{tick:.1f}", ink.text, font, anchor="mt")
        draw.text((left - 12, _at(0, tick)[1]), f"{tick:.1f}", ink.text, font, anchor="rm")
    draw.line([_at(0, 0), _at(1, 1)], ink.text, 2)
    draw.text(((left + right) / 2, bottom + 44), "score", ink.text, font, anchor="mt")
    draw.text((16, 8), "share that changed", ink.text, font, anchor="lt")
    shown = [(raw, ink.curve, "as they are"), (scaled, ink.mark, "scaled, on images held out")]
    for row, (what, colour, name) in enumerate(shown):
        if what is None:
            continue
        points = [_at(x, y) for x, y in zip(what.score, what.changed, strict=True)
                  if not math.isnan(x)]  # fmt: skip
        if len(points) > 1:
            draw.line(points, colour, 4, joint="curve")
        for x, y in points:
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), colour)
        words = f"{name}: expected error {what.expected_error:.4f}"
        draw.text((left + 20, top + 16 + 32 * row), words, colour, font)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
