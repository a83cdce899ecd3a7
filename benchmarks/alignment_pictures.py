"""The pictures of docs/alignment.md, from a painted suburb.

    python benchmarks/alignment_pictures.py docs/images

A survey is painted at two dates in two CRS; the later one is displaced by some pixels and bent by
a known smooth field. Then it is aligned: ``alignment-residuals.webp`` is what ``geocd align
--picture`` draws, ``alignment-checkers.webp`` shows both dates in turn, as georeferenced and
aligned. Nothing but paint is shown.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from affine import Affine
from PIL import Image, ImageDraw, ImageFont

import geocd
from geocd.align import Motion, apply, open_for_alignment
from geocd.align.alignment import unaligned
from geocd.testing import paint_survey

_SPACING = 150
"""Pixels between the control points of the field that bends the later date."""
_BEND = 3.0
"""Standard deviation of their displacement, in pixels."""
_CROP = slice(300, 620), slice(300, 780)
_SQUARE = 40


def bent(after: Path, path: Path, seed: int) -> Path:
    """The image with its ground displaced by a smooth random field."""
    pair = open_for_alignment(after, after)
    height, width = pair.grid.shape
    count = (height // _SPACING + 4, width // _SPACING + 4, 2)
    field = np.random.default_rng(seed).normal(0, _BEND, count).astype(np.float32)
    knots = Affine.translation(1, 1) @ Affine.scale(1 / _SPACING)
    motion = Motion(Affine.identity(), field, knots)
    apply(pair, replace(unaligned("off", ""), status="applied", motion=motion), path)
    return path


def checkers(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Squares of one date and of the other in turn."""
    row, col = np.indices(before.shape[1:]) // _SQUARE
    mixed = np.where((row + col) % 2, before, after)
    return np.kron(np.moveaxis(mixed, 0, -1), np.ones((2, 2, 1), np.uint8))


def dates(before: Path, after: Path) -> tuple[np.ndarray, np.ndarray]:
    """A window of both dates on before's grid."""
    pair = open_for_alignment(before, after)
    with pair.reader() as reader:
        window = reader.read(*_CROP)
    return window.before, window.after


def sheet(panels: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Panels side by side with a title above each."""
    height, width = panels[0][1].shape[:2]
    font = ImageFont.load_default(size=22)
    page = Image.new("RGB", (len(panels) * (width + 14) + 14, height + 54), (250, 250, 248))
    for index, (title, panel) in enumerate(panels):
        left = 14 + index * (width + 14)
        ImageDraw.Draw(page).text((left, 8), title, fill=(30, 30, 34), font=font)
        page.paste(Image.fromarray(panel), (left, 40))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        survey = paint_survey(work, seed=arguments.seed)
        after = bent(survey.after, work / "bent.tif", arguments.seed)
        aligned = work / "aligned.tif"
        picture = work / "residuals.png"
        result = geocd.coregister(survey.before, [after], aligned, picture=picture)
        print(result.report())
        Image.open(picture).save(arguments.folder / "alignment-residuals.webp", quality=72)
        panels = [
            (title, checkers(*dates(survey.before, path)))
            for title, path in (("as georeferenced", after), ("aligned", aligned))
        ]
        sheet(panels).save(arguments.folder / "alignment-checkers.webp", quality=72)


if __name__ == "__main__":
    main()
