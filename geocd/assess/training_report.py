"""The report of a training run: its curves, and the pairs of the validation that went worst."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocd.assess.markup import document, figure_html, legend
from geocd.assess.panels import error_map
from geocd.outputs import replacing
from geocd.training.fit import Trainer
from geocd.training.tiles import IGNORE
from geocd.training.watch import Case

_WORST = 10
_WIDTH, _HEIGHT, _MARGIN = 620, 240, 44
_SMOOTH = 60
"""Points to which a long curve is averaged."""
_DOTS = 20
"""Points from which on a curve is drawn without dots."""
_INK = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")
"""Colours that every common colour vision tells apart (Okabe and Ito, 2008)."""


def write_training_report(trainer: Trainer) -> Path:
    """Write ``report.html`` into the run's folder; it needs no network.

    Args:
        trainer: after its run; its validation is judged once more for the pictures.
    """
    recipe = trainer.recipe
    hours, device = trainer.state.seconds / 3600, str(trainer.accelerator.device)
    parts = [
        f"<h1>{html.escape(recipe.name)}, trained</h1>",
        f"<p>Step {trainer.step} of {recipe.steps}, {hours:.2f} hours on {device}.</p>",
    ]
    if trainer.gain is not None:
        parts.append(f"<p>{html.escape(str(trainer.gain))}.</p>")
    parts.append("<h2>Losses</h2>")
    parts += _curves(trainer.losses.rows(), skip=("step", "seconds"), smooth=True)
    rows = trainer.validations.rows()
    if rows:
        parts.append("<h2>Validation: F1 at a threshold of 0.5, by class</h2>")
        parts += _curves(rows, skip=("step",), smooth=False)
    judged = trainer.judge(worst=_WORST)
    if judged is not None:
        parts += _worst(judged[1], recipe.planes)
    path = trainer.output / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(document(f"{recipe.name}: training", "\n".join(parts)))
    return path


def _curves(rows: list[dict[str, str]], *, skip: Sequence[str], smooth: bool) -> list[str]:
    """A chart for each column."""
    charts = []
    names = [name for name in (rows[0] if rows else {}) if name not in skip]
    for index, name in enumerate(names):
        points = np.array([[float(row["step"]), float(row[name])] for row in rows])
        points = points[np.isfinite(points).all(axis=1)]
        if smooth and len(points) > _SMOOTH:
            points = np.stack([part.mean(axis=0) for part in np.array_split(points, _SMOOTH)])
        if len(points):
            charts.append(_chart(name, points, _INK[index % len(_INK)]))
    return charts


def _chart(name: str, points: NDArray[np.float64], ink: str) -> str:
    """A line of (step, value) as SVG, from 0 to above the largest value."""
    last, top = max(points[-1, 0], 1.0), max(float(points[:, 1].max()) * 1.05, 1e-6)
    x = _MARGIN + (_WIDTH - _MARGIN - 8) * points[:, 0] / last
    y = _HEIGHT - 24 - (_HEIGHT - 40) * points[:, 1] / top
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    floor = _HEIGHT - 24
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in zip(x, y, strict=True))
    text = f"{html.escape(name)}: {points[0, 1]:.3f} at first, {points[-1, 1]:.3f} at last"
    return (
        f'<figure><svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{text}" fill="currentColor" font-size="12">'
        f'<path d="M{_MARGIN} 12V{floor}H{_WIDTH - 8}" fill="none" stroke="currentColor"/>'
        f'<text x="{_MARGIN - 6}" y="20" text-anchor="end">{top:.2f}</text>'
        f'<text x="{_MARGIN - 6}" y="{floor}" text-anchor="end">0</text>'
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">step {last:.0f}</text>'
        f'<polyline points="{line}" fill="none" stroke="{ink}" stroke-width="2"/>'
        f'<g fill="{ink}">{dots if len(points) <= _DOTS else ""}</g></svg>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _worst(cases: list[Case], classes: tuple[str, ...]) -> list[str]:
    """The pairs with the most wrong pixels, with the errors of the first class they label."""
    parts = ["<h2>Worst pairs of the validation</h2>", legend()]
    for rank, case in enumerate(cases, 1):
        pair = case.pair
        plane = next((k for k, p in enumerate(pair.change) if (p != IGNORE).any()), 0)
        truth, known = pair.change[plane] == 1, pair.change[plane] != IGNORE
        errors = error_map(pair.after, (case.scores[plane] >= 0.5) & known, truth, known)
        pictures = "".join(
            figure_html(picture, caption)
            for picture, caption in (
                (pair.before, "before"),
                (pair.after, "after"),
                (errors, f"errors: {classes[plane]}"),
            )
        )
        parts.append(
            f"<h3>{rank}. {html.escape(case.name)}</h3><p>{case.wrong:,} of {truth.size:,} pixels "
            f'wrong.</p><div class="panels">{pictures}</div>'
        )
    return parts
