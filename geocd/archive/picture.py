"""Pictures of a plan (what is compared with what) and of chips (some of them, and the splits)."""

from __future__ import annotations

import glob
import math
from pathlib import Path

import geopandas
import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont

from geocd.outputs import replacing
from geocd.words import counted

_WIDTH, _MAP, _ROW = 1200, 800, 30
_PAPER, _INK, _TILE, _UNIT = (250, 250, 248), (30, 30, 34), (205, 208, 214), (130, 134, 142)
# Told apart with every common kind of colour vision.
_COLOURS = ((255, 106, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0),
            (86, 180, 233))  # fmt: skip


def draw_plan(
    units: geopandas.GeoDataFrame, tiles: geopandas.GeoDataFrame, path: Path
) -> None:  # fmt: skip
    """Write a PNG: outlines of all tiles in grey, ground to compare in a colour for each pair.

    Args:
        units: of a plan.
        tiles: rows of the index that take part.
        path: the file to write; replaced if it is there.
    """
    image, draw = _sheet(len(units.groupby(["before_date", "after_date"])))
    place = _Placing(np.asarray(tiles.total_bounds), image.height)
    for outline in tiles.geometry:
        place.polygon(draw, outline, _TILE, None)
    font = ImageFont.load_default(18)
    dates = units.groupby(["before_date", "after_date"], sort=True)
    for number, ((before, after), chosen) in enumerate(dates):
        colour = _COLOURS[number % len(_COLOURS)]
        # Drawn a little inside one another, so that pairs on the same ground all show.
        for outline in chosen.geometry:
            place.polygon(draw, outline, None, colour, inside=3 * number)
        size = f"{counted(len(chosen), 'unit')}, {chosen['megapixels'].sum():,.1f} MP"
        text = f"{before} to {after}: {size}"
        top = 12 + _ROW * number
        draw.rectangle((_MAP + 24, top, _MAP + 44, top + 20), fill=colour)
        draw.text((_MAP + 54, top), text, _INK, font)
    with replacing(path) as draft:
        image.save(draft, format="PNG")


def _sheet(pairs: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (_WIDTH, max(_MAP, 24 + _ROW * pairs)), _PAPER)
    return image, ImageDraw.Draw(image)


class _Placing:
    """From longitude and latitude to the picture, at true proportions in its middle."""

    def __init__(self, bounds: np.ndarray, height: int, *, degrees: bool = True) -> None:
        left, bottom, right, top = bounds
        shrink = math.cos(math.radians((bottom + top) / 2)) if degrees else 1.0
        span = max((right - left) * shrink, top - bottom, 1e-9)
        self._scale = (min(_MAP, height) - 40) / span
        self._left, self._top, self._shrink = left, top, shrink

    def polygon(
        self, draw: ImageDraw.ImageDraw, shape: shapely.Geometry,
        fill: tuple[int, int, int] | None, line: tuple[int, int, int] | None, *, inside: int = 0,
    ) -> None:  # fmt: skip
        """Draw the outer rings of a geometry, ``inside`` pixels within its outline."""

        def _move(xy: np.ndarray) -> np.ndarray:
            x = (xy[:, 0] - self._left) * self._shrink * self._scale + 20
            return np.column_stack([x, (self._top - xy[:, 1]) * self._scale + 20])

        moved = shapely.buffer(shapely.transform(shape, _move), -inside)
        for part in shapely.get_parts(moved):
            if part.geom_type == "Polygon" and not part.is_empty:
                ring = [tuple(xy) for xy in shapely.get_coordinates(part.exterior)]
                draw.polygon(ring, fill=fill, outline=line or _UNIT, width=2 if line else 1)


_CELL, _GAP, _SHOWN = 190, 6, 8
_SPLITS = ("train", "val", "test")
_LABELS = np.array([(0, 0, 0), *_COLOURS], np.uint8)
_UNKNOWN = (120, 120, 120)


def draw_chips(folder: Path, index: geopandas.GeoDataFrame, path: Path) -> None:
    """Write a PNG: where the chips of each split lie, and before, after and label of some.

    Args:
        folder: of the chips.
        index: of the chips.
        path: the file to write; replaced if it is there.
    """
    chosen = _some(index)
    height = max(_MAP + 4 * _ROW, 50 + len(chosen) * (_CELL + _GAP))
    image = Image.new("RGB", (_MAP + 20 + 3 * (_CELL + _GAP), height), _PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    place = _Placing(np.asarray(index.total_bounds), _MAP, degrees=index.crs is not None)
    for number, split in enumerate(name for name in _SPLITS if name in set(index["split"])):
        rows = index[index["split"] == split]
        for outline in rows.geometry:
            place.polygon(draw, outline, None, _COLOURS[number], inside=1)
        top = _MAP + _ROW * number
        draw.rectangle((24, top, 44, top + 20), fill=_COLOURS[number])
        draw.text((54, top), f"{split}: {counted(len(rows), 'chip')}", _INK, font)
    for col, title in enumerate(("before", "after", "label")):
        draw.text((_MAP + 20 + col * (_CELL + _GAP), 14), title, _INK, font)
    for number, name in enumerate(chosen):
        for col, part in enumerate(_triplet(folder, name)):
            at = _MAP + 20 + col * (_CELL + _GAP), 44 + number * (_CELL + _GAP)
            image.paste(part.resize((_CELL, _CELL), Image.Resampling.NEAREST), at)
    with replacing(path) as draft:
        image.save(draft, format="PNG")


def _some(index: geopandas.GeoDataFrame) -> list[str]:
    """Names of a few chips, from those with the most change to those with the least."""
    shares = [name for name in index if str(name).startswith("share_")]
    change = index[shares].sum(axis=1)
    rows = index[change > 0] if (change > 0).any() else index
    order = rows.assign(_change=change).sort_values(["_change", "name"], ascending=False)
    steps = np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).round().astype(int)
    return [str(name) for name in order["name"].iloc[steps]]


def _triplet(folder: Path, name: str) -> list[Image.Image]:
    """Before, after and the label in colours."""
    files = [next((folder / part).glob(f"{glob.escape(name)}.[tp][in][fg]"), None)
             for part in ("A", "B", "label")]  # fmt: skip
    images = [Image.open(file).convert("RGB") for file in files[:2] if file is not None]
    if files[2] is not None:
        values = np.asarray(Image.open(files[2]))
        colours = _LABELS[np.minimum(values, len(_LABELS) - 1)]
        colours[values == 255] = _UNKNOWN
        images.append(Image.fromarray(colours))
    return images
