"""Whether scores are probabilities, and the temperature that makes them more so."""

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
_STEPS = 80
_LARGEST = 20.0
"""Temperatures lie between one over this and this."""
_SIZE, _FRAME = 900, (110, 40, 870, 800)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Scores against what is so, in bins of equal width."""

    temperature: float
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
            "temperature": finite(self.temperature),
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


def probabilities(temperature: float) -> Floats:
    """What scores of 0, 1, ... 254 of 254 become at a temperature, shape (255,), 0..1."""
    return np.asarray(1 / (1 + np.exp(-_logits() / temperature)))


def fit_temperature(counts: NDArray[np.int64]) -> float:
    """The temperature of least negative log-likelihood; NaN without both kinds of pixels.

    Args:
        counts: pixels at each score, of unchanged and of changed ground, shape (2, 255).

    Source:
        Guo et al. (2017), on calibration of modern neural networks, arXiv 1706.04599.
    """
    if not counts.sum(axis=1).all():
        return math.nan

    def _loss(inverse: float) -> float:
        z = _logits() * inverse
        # log(1 + exp(z)) without overflow: minus the logarithm of the chance of no change.
        return float(counts[1] @ np.logaddexp(0, -z) + counts[0] @ np.logaddexp(0, z))

    # The likelihood is concave in the inverse of the temperature: a third goes at every step.
    low, high = 1 / _LARGEST, _LARGEST
    for _ in range(_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if _loss(left) < _loss(right) else (left, high)
    return 2 / (low + high)


def reliability(counts: NDArray[np.int64], *, temperature: float = 1.0) -> Reliability:
    """Scores, at a temperature, against the shares that changed.

    Args:
        counts: as for ``fit_temperature``.
        temperature: 1 leaves the scores as they are.
    """
    p = probabilities(temperature)
    place = np.minimum((p * _BINS).astype(np.int64), _BINS - 1)
    pixels, total = counts.sum(axis=0), max(int(counts.sum()), 1)
    inside = np.bincount(place, pixels, _BINS)
    with np.errstate(invalid="ignore"):
        score = np.bincount(place, pixels * p, _BINS) / inside
        changed = np.bincount(place, counts[1], _BINS) / inside
    return Reliability(temperature, score, changed, inside / total)


def reliability_diagram(raw: Reliability, scaled: Reliability, ink: Ink = LIGHT) -> bytes:
    """Share changed against score, before and after scaling, as a PNG."""
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
    for row, (what, colour) in enumerate(((raw, ink.curve), (scaled, ink.mark))):
        points = [_at(x, y) for x, y in zip(what.score, what.changed, strict=True)
                  if not math.isnan(x)]  # fmt: skip
        if len(points) > 1:
            draw.line(points, colour, 4, joint="curve")
        for x, y in points:
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), colour)
        words = f"temperature {what.temperature:.2f}: expected error {what.expected_error:.4f}"
        draw.text((left + 20, top + 16 + 32 * row), words, colour, font)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
