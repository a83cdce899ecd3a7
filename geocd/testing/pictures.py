"""A picture for people: before, after, and what was found beside what is true."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geocd.config import CLASS_CODES, NOT_OBSERVED
from geocd.errors import ShapeError

Pixels = NDArray[np.uint8]
Rgb = tuple[int, int, int]
Legend = list[tuple[Rgb, str]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PANEL = 900
"""Longest side of a panel, in pixels."""
_GAP = 12
# Told apart with every common kind of colour vision: orange, sky blue, yellow, white.
_COLOURS: dict[str, Rgb] = {
    "building": (255, 106, 0), "road": (64, 180, 255), "change": (255, 106, 0)
}  # fmt: skip
_WORDS = {
    "building": "building change found",
    "road": "road change found",
    "change": "change found",
}
_TRUTH: Rgb = (255, 255, 255)
_UNSEEN: Rgb = (120, 120, 128)
_PAPER, _INK = (250, 250, 248), (30, 30, 34)


def comparison_picture(
    before: Pixels,
    after: Pixels,
    change_map: Pixels,
    truth_mask: Pixels | None,
    path: Path,
    *,
    titles: tuple[str, str, str] = ("before", "after", "after, with what was found"),
) -> Path:
    """Write a PNG with three panels side by side, titles above and a legend in words below.

    The third panel shows the after image with the changes of the map outlined by kind, the
    truth outlined in white below them, and what was not observed veiled in grey.

    Args:
        before: shape (height, width, 3), red, green, blue.
        after: the same ground, the same shape.
        change_map: shape (height, width), values of `CLASS_CODES`, 0 or `NOT_OBSERVED`.
        truth_mask: the same, or None where the truth is not known.
        path: the file to write; replaced if it is there.
        titles: one for each panel.

    Returns:
        The path.

    Raises:
        ShapeError: the arrays do not show the same grid.
    """
    shape = before.shape[:2]
    masks = [change_map] if truth_mask is None else [change_map, truth_mask]
    if after.shape[:2] != shape or any(mask.shape != shape for mask in masks):
        raise ShapeError(
            "before, after and the masks must have one shape, got "
            f"{[a.shape[:2] for a in (before, after, *masks)]}; put them on one grid"
        )
    scale = min(1.0, _PANEL / max(shape))
    size = (max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale)))
    shrunk = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (before, after)]
    marked = _marked(np.asarray(shrunk[1], np.uint8), change_map, truth_mask, scale)
    panels = [np.asarray(image, np.uint8) for image in (*shrunk, marked)]
    _sheet(panels, titles, _legend(change_map, truth_mask)).save(path)
    return path


def _marked(image: Pixels, change_map: Pixels, truth: Pixels | None, scale: float) -> Pixels:
    """The image with outlines over it."""
    marked = image.copy()
    size = (image.shape[1], image.shape[0])
    unseen = (change_map == NOT_OBSERVED).astype(np.uint8)
    veil = np.asarray(cv2.resize(unseen, size, interpolation=cv2.INTER_NEAREST)) > 0
    marked[veil] = (marked[veil] * 0.35 + np.array(_UNSEEN) * 0.65).astype(np.uint8)
    codes = np.array(list(CLASS_CODES.values()))
    if truth is not None:
        _outline(marked, np.isin(truth, codes), _TRUTH, scale, thickness=3)
    for kind, code in CLASS_CODES.items():
        _outline(marked, change_map == code, _COLOURS[kind], scale, thickness=2)
    return marked


def _outline(
    image: Pixels, mask: NDArray[np.bool_], colour: Rgb, scale: float, *, thickness: int
) -> None:
    # Traced at full size and scaled after: a house of a few pixels would not survive shrinking.
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )  # fmt: skip
    lines = [np.round((c + 0.5) * scale * 16 - 8).astype(np.int32) for c in contours]
    # A dark rim keeps a light line readable on a white roof.
    for width, rgb in ((thickness + 2, (20, 20, 24)), (thickness, colour)):
        cv2.polylines(image, lines, True, rgb, width, cv2.LINE_AA, 4)


def _legend(change_map: Pixels, truth: Pixels | None) -> Legend:
    """A colour and words for everything that the third panel shows."""
    entries = []
    for kind, code in CLASS_CODES.items():
        count = cv2.connectedComponents((change_map == code).astype(np.uint8))[0] - 1
        if count or kind != "change":
            entries.append((_COLOURS[kind], f"{_WORDS[kind]} ({count})"))
    if truth is not None:
        entries.append((_TRUTH, "what really changed"))
    if (change_map == NOT_OBSERVED).any():
        entries.append((_UNSEEN, "not observed on both dates"))
    return entries


def _sheet(panels: list[Pixels], titles: tuple[str, str, str], legend: Legend) -> Image.Image:
    height, width = panels[0].shape[:2]
    letters = max(15, width // 32)
    font = ImageFont.load_default(size=letters)
    top, line_height = 2 * letters, 2 * letters
    total = 3 * width + 4 * _GAP
    lines = _wrapped(legend, font, letters, total)
    sheet = Image.new("RGB", (total, top + height + line_height * len(lines) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = _GAP + index * (width + _GAP)
        draw.text((left, letters // 2), title, fill=_INK, font=font)
        sheet.paste(Image.fromarray(panel), (left, top))
    for row, entries in enumerate(lines):
        x, y = float(_GAP), top + height + _GAP + row * line_height
        for colour, words in entries:
            swatch = (x, y, x + 1.5 * letters, y + 1.2 * letters)
            draw.rectangle(swatch, fill=colour, outline=_INK, width=2)
            draw.text((x + 2 * letters, y), words, fill=_INK, font=font)
            x += _need(words, font, letters)
    return sheet


def _need(words: str, font: Font, letters: int) -> float:
    return 3.5 * letters + font.getlength(words)


def _wrapped(legend: Legend, font: Font, letters: int, total: int) -> list[Legend]:
    """The legend in as many lines as it needs: small panels leave little room below them."""
    lines: list[Legend] = [[]]
    used = float(_GAP)
    for entry in legend:
        need = _need(entry[1], font, letters)
        if lines[-1] and used + need > total:
            lines.append([])
            used = float(_GAP)
        lines[-1].append(entry)
        used += need
    return lines
