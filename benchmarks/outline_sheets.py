"""The pictures of docs/outlines.md and docs/vectors.md: painted objects, before and after.

python benchmarks/outline_sheets.py docs/images
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio.features
import shapely
import shapely.affinity
from affine import Affine
from outlines import SHAPES, disturbed, plan, traced
from PIL import Image, ImageDraw, ImageFont

from geocd.config import VectorizeConfig
from geocd.testing import write_raster
from geocd.vectorize import trace_changes
from geocd.vectorize.centrelines import centrelines
from geocd.vectorize.neighbours import with_shared_walls
from geocd.vectorize.outline import as_multipolygons, smooth
from geocd.vectorize.regularize import regularize
from geocd.vectorize.rough import with_rough_ones

_SIDE, _ZOOM = 96, 3
_MASK, _PAPER, _INK = (214, 219, 224), (255, 255, 255), (30, 30, 34)
_WORN = 1.0
"""In place of a share of noise: the mask of a network."""
_TRUTH, _LINE, _STAYED = (120, 120, 128), (213, 94, 0), (0, 114, 178)


def panel(mask: Any, zoom: int = _ZOOM) -> Any:
    """The pixels of a mask, enlarged."""
    image = np.where((mask > 0)[..., None], _MASK, _PAPER).astype(np.uint8)
    return np.repeat(np.repeat(image, zoom, axis=0), zoom, axis=1)


def draw(image: Any, shape: Any, colour: Any, zoom: int = _ZOOM, thickness: int = 2) -> None:
    """Outlines, or lines, on an enlarged mask."""
    for part in shapely.get_parts(shape):
        lines = shapely.get_parts(shapely.boundary(part)) if part.area else [part]
        for line in lines:
            points = np.rint(shapely.get_coordinates(line) * zoom * 8).astype(np.int32)
            cv2.polylines(image, [points], False, colour, thickness, cv2.LINE_AA, 3)


def sheet(rows: list[list[Any]], titles: list[str], path: Path) -> None:
    """Write rows of panels below their titles."""
    gap = 6
    height, width = rows[0][0].shape[:2]
    size = (len(titles) * (width + gap) + gap, len(rows) * (height + gap) + 30)
    page = Image.new("RGB", size, (240, 240, 238))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for k, title in enumerate(titles):
        pen.text((gap + k * (width + gap) + 2, 7), title, _INK, font=font)
        for i, row in enumerate(rows):
            place = (gap + k * (width + gap), 30 + i * (height + gap))
            page.paste(Image.fromarray(row[k]), place)
    page.quantize(48).save(path, optimize=True)


def building_row(truth: Any, mask: Any) -> list[Any]:
    """Truth, simplified and regularized outline of one building on its mask."""
    outlines = as_multipolygons(np.array([traced(mask)], object))
    simplified = smooth(outlines, 0.6)
    result = with_rough_ones(outlines, simplified, regularize(outlines, simplified))
    panels = [panel(mask) for _ in range(3)]
    draw(panels[0], truth, _TRUTH)
    draw(panels[1], simplified[0], _STAYED)
    draw(panels[2], result.polygons[0], _LINE if result.regularized[0] else _STAYED)
    return panels


def buildings(path: Path) -> None:
    """Shapes with right angles, with noise, and without right angles."""
    rng = np.random.default_rng(4)
    rows = []
    tank = shapely.Point(0, 0).buffer(17)
    blobs = [("rectangle", _WORN), ("L", _WORN)]
    for name, noise in [*((s, 0.0) for s in SHAPES), ("L", 0.05), ("tank", 0.0), *blobs]:
        shape = tank if name == "tank" else plan(name, rng)
        turned = shapely.affinity.rotate(shape, rng.uniform(10, 80), origin=(0, 0))
        truth = shapely.affinity.translate(turned, _SIDE / 2 + 0.3, _SIDE / 2 + 0.1)
        mask = rasterio.features.rasterize([truth], (_SIDE, _SIDE), dtype="uint8")
        if noise == _WORN:
            mask = worn(mask, rng)
        elif noise:
            mask = disturbed(mask, noise, rng)
        rows.append(building_row(truth, mask))
    rows.insert(-2, row_houses())
    half = [a + b for a, b in zip(rows[::2], rows[1::2], strict=True)]
    sheet(half, ["truth on its pixels", "simplified", "regularized"] * 2, path)


def worn(mask: Any, rng: Any) -> Any:
    """The mask as a network draws it: corners worn off, walls bulging."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, mask.shape).astype(np.float32), (0, 0), 4)
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 5.0)
    return (blurred + noise > 0.5).astype(np.uint8)


def row_houses() -> list[Any]:
    """Three houses that share walls."""
    houses = [shapely.box(14 * k, jump, 14 * k + 14, jump + 22) for k, jump in enumerate((0, 5, 0))]
    houses = [shapely.affinity.rotate(shapely.affinity.translate(h, 27, 35), 24, origin=(48, 48))
              for h in houses]  # fmt: skip
    labels = rasterio.features.rasterize(
        [(h, k) for k, h in enumerate(houses, start=1)], (_SIDE, _SIDE), dtype="uint8"
    )
    each = [traced((labels == k).astype(np.uint8)) for k in (1, 2, 3)]
    outlines = as_multipolygons(np.array(each, object))
    simplified = smooth(outlines, 0.6)
    done = with_shared_walls(outlines, simplified, regularize(outlines, simplified))
    panels = [panel(labels) for _ in range(3)]
    for shapes, image, colour in zip(
        (houses, simplified, done.polygons), panels, (_TRUTH, _STAYED, _LINE), strict=True
    ):
        for shape in shapes:
            draw(image, shape, colour)
    return panels


def roads(path: Path) -> None:
    """Roads and their centrelines, with a spur that is left out and a gap that is bridged."""
    size, zoom = 230, 2
    bend = [(x, 60 + 22 * np.sin(x / 34)) for x in range(12, 220, 4)]
    ring = shapely.Point(120, 140).buffer(52, quad_segs=24).exterior
    plans = [
        [(bend, 12)],
        [([(10, 120), (220, 90)], 14), ([(115, 105), (140, 215)], 9), ([(60, 15), (70, 220)], 9)],
        [(list(ring.coords), 11), ([(120, 10), (120, 88)], 11)],
        [([(15, 30), (100, 110)], 10), ([(109, 118.5), (210, 214)], 10),
         ([(160, 166), (168, 158)], 10)],
    ]  # fmt: skip
    masks, lines = [], []
    for parts in plans:
        road = shapely.union_all(
            [shapely.LineString(line).buffer(w / 2, cap_style="flat") for line, w in parts]
        )
        mask = rasterio.features.rasterize([road], (size, size), dtype="uint8")
        shapes = rasterio.features.shapes(mask, mask=mask, connectivity=8)
        outlines = np.array([shapely.geometry.shape(s) for s, _ in shapes], object)
        polygons = smooth(as_multipolygons(outlines), 0.6)
        image = panel(mask, zoom)
        masks.append(image.copy())
        for line in centrelines(polygons, bridge=16).lines:
            draw(image, line, _LINE, zoom)
            for end in shapely.get_coordinates(line)[[0, -1]]:
                cv2.circle(image, np.rint(end * zoom).astype(int).tolist(), 4, _STAYED, -1)
        lines.append(image)
    sheet([lines], ["bend", "crossings", "ring", "gap and spur"], path)


def painted_scores() -> Any:
    """Scores of a row of houses, of a building with a hole and a weak wing, and of a speck."""
    grey = np.full((_SIDE, _SIDE), 0.05, np.float32)
    cv2.rectangle(grey, (8, 10), (63, 31), 0.9, -1)
    grey[10:32, 25:28] = grey[10:32, 44:47] = 0.55  # between the houses
    cv2.rectangle(grey, (10, 50), (48, 84), 0.9, -1)
    cv2.rectangle(grey, (26, 62), (30, 67), 0.1, -1)
    cv2.rectangle(grey, (49, 62), (70, 84), 0.42, -1)
    cv2.rectangle(grey, (42, 32), (44, 49), 0.7, -1)
    cv2.rectangle(grey, (80, 20), (82, 22), 0.8, -1)
    return (cv2.GaussianBlur(grey, (0, 0), 0.8) * 254).astype(np.uint8)


def cleaning(path: Path) -> None:
    """What each option does to painted scores; a pixel is one unit of length."""
    scores = painted_scores()
    shades = np.repeat(np.repeat(255 - scores // 2, _ZOOM, axis=0), _ZOOM, axis=1)
    tries: dict[str, dict[str, Any]] = {
        "scores": {},
        "defaults": {},
        "--no-split": {"split": False},
        "--grow 0.3": {"grow": 0.3},
        "--fill-holes 40": {"fill_holes": 40.0},
        "--opening 2": {"opening": 2.0},
        "--min-area 5": {"min_area": 5.0},
        "--simplify 0": {"simplify": 0.0},
    }
    panels = []
    with tempfile.TemporaryDirectory() as folder:
        file = write_raster(Path(folder) / "s.tif", scores[None], crs=None,
                            transform=Affine.identity())  # fmt: skip
        for name, options in tries.items():
            image = np.dstack([shades] * 3)
            config = VectorizeConfig(**options)
            layer = trace_changes(file, classes=("building",), thresholds=(0.5,), config=config)
            for row in layer.itertuples() if name != "scores" else ():
                shape = shapely.affinity.scale(row.geometry, 1, -1, origin=(0, 0))
                draw(image, shape, _LINE if row.regularized else _STAYED)
            panels.append(image)
    names = list(tries)
    sheet([panels[:4]], names[:4], path)
    top = Image.open(path).convert("RGB")
    sheet([panels[4:]], names[4:], path)
    page = Image.new("RGB", (top.width, 2 * top.height))
    page.paste(top, (0, 0))
    page.paste(Image.open(path).convert("RGB"), (0, top.height))
    page.quantize(48).save(path, optimize=True)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    buildings(folder / "outlines-buildings.png")
    roads(folder / "outlines-roads.png")
    cleaning(folder / "cleaning.png")


main()
