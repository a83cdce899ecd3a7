"""Precision against recall as a picture."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geocd.assess.evaluation import Assessment
from geocd.assess.tables import figure

Rgb = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ink:
    """Colours of a chart."""

    paper: Rgb
    text: Rgb
    grid: Rgb
    curve: Rgb
    mark: Rgb


LIGHT = Ink((255, 255, 255), (34, 34, 38), (222, 222, 226), (0, 114, 178), (213, 94, 0))
DARK = Ink((24, 25, 28), (228, 228, 232), (62, 64, 70), (86, 180, 233), (230, 159, 0))
_SIZE = (1240, 960)
"""Width and height, in pixels; twice what a page shows, for sharp screens."""
_FRAME = (110, 50, 1200, 870)
"""Left, top, right and bottom of the axes."""
_F1_LINES = (0.2, 0.4, 0.6, 0.8)
_MARK = 10


@dataclass(frozen=True, slots=True)
class Mark:
    """A named point (recall, precision)."""

    name: str
    point: Point
    filled: bool = False


class _Chart:
    """Draws in shares of recall (x) and precision (y)."""

    def __init__(self, ink: Ink) -> None:
        self.ink = ink
        self.image = Image.new("RGB", _SIZE, ink.paper)
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(24)
        self._taken: list[tuple[float, float, float, float]] = []

    def at(self, recall: float, precision: float) -> Point:
        """Pixel (x, y) of a point."""
        left, top, right, bottom = _FRAME
        return left + recall * (right - left), bottom - precision * (bottom - top)

    def axes(self) -> None:
        """Grid, ticks and names."""
        for tick in np.linspace(0, 1, 6):
            for ends in (((tick, 0), (tick, 1)), ((0, tick), (1, tick))):
                self.draw.line([self.at(*end) for end in ends], self.ink.grid, 2)
            x, y = self.at(tick, 0)
            self.draw.text((x, y + 12), f"{tick:.1f}", self.ink.text, self.font, anchor="mt")
            x, y = self.at(0, tick)
            self.draw.text((x - 14, y), f"{tick:.1f}", self.ink.text, self.font, anchor="rm")
        self.draw.text((sum(_FRAME[::2]) / 2, 910), "recall", self.ink.text, self.font, anchor="mt")
        self.draw.text((16, 12), "precision", self.ink.text, self.font, anchor="lt")
        for f1 in _F1_LINES:
            # Of 2PR / (P + R) = f1.
            recall = np.linspace(f1 / (2 - f1), 1, 60)
            precision = f1 * recall / (2 * recall - f1)
            self.line(list(zip(recall.tolist(), precision.tolist(), strict=True)), self.ink.grid, 3)
            x, y = self.at(f1 / (2 - f1), 1)
            self.draw.text((x, y - 8), f"F1 {f1}", self.ink.text, self.font, anchor="mb")

    def line(self, points: list[Point], colour: Rgb, width: int) -> None:
        """A line through (recall, precision) points."""
        if len(points) > 1:
            self.draw.line([self.at(*p) for p in points], colour, width, joint="curve")

    def marks(self, marks: list[Mark]) -> None:
        """Named points, without those that are undefined; names keep clear of all of them."""
        places = [(m, *self.at(*m.point)) for m in marks if not any(map(math.isnan, m.point))]
        for mark, x, y in places:
            box = (x - _MARK, y - _MARK, x + _MARK, y + _MARK)
            fill = self.ink.mark if mark.filled else self.ink.paper
            self.draw.ellipse(box, fill, self.ink.mark, 4)
            self._taken.append(box)
        for mark, x, y in places:
            self._label(x, y, mark.name)

    def _label(self, x: float, y: float, text: str) -> None:
        """The name beside the point, on the side with room, above what stands there already."""
        anchor, offset = ("lm", 18) if x < sum(_FRAME[::2]) / 2 else ("rm", -18)
        place = (x + offset, y - 14)
        while True:
            box = self.draw.textbbox(place, text, self.font, anchor=anchor)
            if not any(_overlap(box, other) for other in self._taken):
                break
            place = (place[0], place[1] - 28)
        self._taken.append(box)
        self.draw.text(place, text, self.ink.text, self.font, anchor=anchor,
                       stroke_width=4, stroke_fill=self.ink.paper)  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def precision_recall_chart(assessment: Assessment, ink: Ink = LIGHT) -> bytes:
    """The weights' curve, the threshold used and the best one, and the baselines, as a PNG."""
    chart = _Chart(ink)
    chart.axes()
    weights, *baselines = assessment.evaluations
    marks = [Mark(b.method, (b.total.recall, b.total.precision)) for b in baselines]
    curve = weights.curve
    if curve is not None:
        known = ~np.isnan(curve.precision) & ~np.isnan(curve.recall)
        points = zip(curve.recall[known].tolist(), curve.precision[known].tolist(), strict=True)
        chart.line(list(points), ink.curve, 6)
        name = f"threshold {curve.threshold:g}: F1 {figure(curve.f1_at_threshold)}"
        marks.append(Mark(name, curve.point, filled=True))
    chart.marks(marks)
    encoded = io.BytesIO()
    chart.image.save(encoded, "PNG")
    return encoded.getvalue()
