"""A picture for people: what lay apart before alignment, and what still does after it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geocd.align import Residuals
from geocd.maps.ties import TieSet, When, arrow_scale, residual_vectors
from geocd.outputs import replacing

Pixels = NDArray[np.uint8]
Rgb = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PANEL = 900
"""Longest side of a panel, in pixels."""
_SMALLEST = 360
"""Shortest width of a panel, in pixels: its words need room."""
_CELL = 26
"""Side of the squares of a panel, in pixels, of which each shows one tie point at most."""
_KEY = 60
"""Largest length of the arrow of the key, in pixels of the picture."""
_GAP, _LETTERS = 14, 19
# Vermilion and blue differ for every common colour vision (Okabe and Ito, 2008).
_COLOURS: dict[When, Rgb] = {"before": (213, 94, 0), "after": (0, 114, 178)}
_OUTLIER: Rgb = (120, 120, 128)
_PAPER, _INK = (250, 250, 248), (30, 30, 34)


@dataclass(frozen=True, slots=True)
class _Panel:
    """One time: the picture and what stands around it."""

    image: Pixels
    title: str
    arrow_px: float
    """Residual that the arrow of the key stands for, in pixels of the grid."""
    arrow_length: float
    """Its length in the picture, in pixels."""
    colour: Rgb
    note: str


def residual_picture(ties: TieSet, overview: Pixels, path: Path) -> None:
    """Write a PNG of the residual vectors before and after alignment, over a gray image. Atomic.

    Each panel has a scale of its own for its arrows, told by the arrow of its key. Where no
    motion was applied there is one panel, and the reason below it.

    Args:
        ties: tie points and their grid.
        overview: gray image of the whole grid at any scale, shape (height, width).
        path: the file to write; an existing one is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    base = _faded(overview)
    times: tuple[When, ...] = ("before", "after")
    applied = ties.alignment.status == "applied"
    panels = [_panel(ties, base, when) for when in times[: 2 if applied else 1]]
    sheet = _sheet(panels, ties, base.shape[1] / ties.grid.width)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _faded(overview: Pixels) -> Pixels:
    """The overview at the size of a panel, light enough for arrows; red, green, blue."""
    scale = max(_PANEL / max(overview.shape), _SMALLEST / overview.shape[1])
    size = (max(1, round(overview.shape[1] * scale)), max(1, round(overview.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    gray = np.asarray(cv2.resize(overview, size, interpolation=method), np.float32)
    low, high = np.percentile(gray, [1, 99])
    stretched = ((gray - low) / max(float(high - low), 1.0)).clip(0, 1)
    light = (110 + 130 * stretched).astype(np.uint8)
    return np.repeat(light[..., None], 3, axis=2)


def _panel(ties: TieSet, base: Pixels, when: When) -> _Panel:
    alignment, scale = ties.alignment, base.shape[1] / ties.grid.width
    vectors = residual_vectors(alignment, when)
    believed = alignment.ties.believed
    longer = arrow_scale(vectors[believed], ties.grid.shape) * scale
    image = base.copy()
    kept = _thinned(alignment.ties.position * scale, believed)
    for index in kept:
        start = alignment.ties.position[index] * scale
        if believed[index]:
            _draw_arrow(image, start, vectors[index] * longer, _COLOURS[when])
        else:
            _draw_cross(image, start)
    key = _round_below(_KEY / longer)
    summary = alignment.before if when == "before" else alignment.after
    note = f"{len(kept)} of {len(alignment.ties)} tie points shown"
    return _Panel(image, _title(when, summary), key, key * longer, _COLOURS[when], note)


def _title(when: When, summary: Residuals | None) -> str:
    words = f"{when} alignment"
    if summary is None:
        return f"{words}: no tie point to judge by"
    return f"{words}: median {summary.median:.2f} px, 90 % below {summary.p90:.2f} px"


def _thinned(places: NDArray[np.float64], believed: NDArray[np.bool_]) -> list[int]:
    """At most one tie point a cell, believed ones first."""
    order = np.argsort(~believed, kind="stable")
    cells = np.floor(places[order] / _CELL).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    return [int(i) for i in order[first]]


def _draw_arrow(
    image: Pixels, start: NDArray[np.float64], vector: NDArray[np.float64], colour: Rgb
) -> None:
    length = math.hypot(*vector)
    begin, end = _fixed(start), _fixed(start + vector)
    # A light rim keeps the line readable on a dark roof.
    for width, rgb in ((4, (255, 255, 255)), (2, colour)):
        cv2.circle(image, begin, 32 + 8 * width, rgb, -1, cv2.LINE_AA, 4)
        if length > 2:
            tip = min(0.4, 7 / length)
            cv2.arrowedLine(image, begin, end, rgb, width, cv2.LINE_AA, 4, tip)


def _draw_cross(image: Pixels, place: NDArray[np.float64]) -> None:
    for step in ((4, 4), (4, -4)):
        ends = _fixed(place - np.array(step)), _fixed(place + np.array(step))
        cv2.line(image, *ends, _OUTLIER, 2, cv2.LINE_AA, 4)


def _fixed(place: NDArray[np.float64]) -> tuple[int, int]:
    """A place in sixteenths of a pixel, as OpenCV wants it."""
    x, y = np.round(place * 16 - 8).astype(int)
    return int(x), int(y)


def _round_below(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is no larger than a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9))


def _sheet(panels: list[_Panel], ties: TieSet, scale: float) -> Image.Image:
    height, width = panels[0].image.shape[:2]
    font = ImageFont.load_default(size=_LETTERS)
    line = 2 * _LETTERS
    words = _wrapped(f"{ties.name}: {ties.alignment}", font, len(panels) * (width + _GAP) - _GAP)
    top = line * len(words) + line
    total = (len(panels) * (width + _GAP) + _GAP, top + height + 3 * line)
    sheet = Image.new("RGB", total, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, text in enumerate(words):
        draw.text((_GAP, row * line + _LETTERS // 2), text, fill=_INK, font=font)
    for index, panel in enumerate(panels):
        left = _GAP + index * (width + _GAP)
        draw.text((left, top - line + _LETTERS // 2), panel.title, fill=panel.colour, font=font)
        sheet.paste(Image.fromarray(panel.image), (left, top))
        _draw_key(draw, panel, (left, top + height + line // 2), font)
    _draw_legend(draw, ties, (_GAP, top + height + line + line // 2), scale, font)
    return sheet


def _draw_key(
    draw: ImageDraw.ImageDraw, panel: _Panel, corner: tuple[int, int], font: Font
) -> None:
    """An arrow of known length, and how many tie points there are."""
    x, y = corner
    middle, end = y + _LETTERS // 2 + 2, x + panel.arrow_length
    draw.line((x, middle, end, middle), fill=panel.colour, width=3)
    draw.polygon(
        [(end + 2, middle), (end - 8, middle - 6), (end - 8, middle + 6)], fill=panel.colour
    )
    words = f"residual of {panel.arrow_px:g} px; {panel.note}"
    draw.text((end + _LETTERS, y), words, fill=_INK, font=font)


def _draw_legend(
    draw: ImageDraw.ImageDraw, ties: TieSet, corner: tuple[int, int], scale: float, font: Font
) -> None:
    """A bar of known length on the ground, and what a cross is."""
    x, y = corner
    gsd = ties.grid.gsd()
    size, unit = (1.0, "px") if gsd is None else (gsd[1], "m")
    length = _round_below(ties.grid.width / 5 * size)
    end = x + length / size * scale
    draw.rectangle((x, y + 6, end, y + 12), fill=_INK)
    shown = f"{length / 1000:g} km" if unit == "m" and length >= 1000 else f"{length:g} {unit}"
    draw.text((end + _LETTERS, y), shown, fill=_INK, font=font)
    x = int(end + 2 * _LETTERS + font.getlength(shown)) + _LETTERS
    for slope in (1, -1):
        draw.line((x, y + 9 - 6 * slope, x + 12, y + 9 + 6 * slope), fill=_OUTLIER, width=3)
    draw.text((x + _LETTERS, y), "outlier: change, or a false match", fill=_INK, font=font)


def _wrapped(text: str, font: Font, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
