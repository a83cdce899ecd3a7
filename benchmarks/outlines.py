"""How well outlines of painted buildings are drawn, and how fast.

    python benchmarks/outlines.py --buildings 400
    python benchmarks/outlines.py --buildings 400 --noise 0.05

Buildings (rectangles, L, T and U shapes, courtyards, of 9 to 30 m) are turned by any angle,
placed to any fraction of a pixel and painted at 0.5 m: a pixel is building where its centre is.
``--noise 0.05`` flips 5 % of all pixels and a fifth of those at the boundary. Prints one line a
method: the share of the buildings whose corners all lie within one pixel, intersection over
union with the truth (5th percentile, median), the largest departure from right angles, vertices
over those of the truth, the share regularized, and objects a second.

``--candidate PYTHON`` adds buildingregulariser, run by an interpreter that has it.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

import geocd
from geocd.vectorize.outline import as_multipolygons, smooth
from geocd.vectorize.regularize import regularize
from geocd.vectorize.rough import with_rough_ones

Geometries = NDArray[np.object_]
SHAPES = ("rectangle", "L", "T", "U", "courtyard")
_CANDIDATE = """
import sys, geopandas
from buildingregulariser import regularize_geodataframe
layer = geopandas.read_file(sys.argv[1])
done = regularize_geodataframe(layer, parallel_threshold=2.0, simplify_tolerance=1.0)
done.to_file(sys.argv[2])
"""


def plan(shape: str, rng: np.random.Generator) -> shapely.Polygon:
    """A building about the origin, in pixels of 0.5 m."""
    a, b = rng.uniform(20, 60), rng.uniform(18, 40)
    w = rng.uniform(6, min(a, b) / 2.4)
    boxes = {
        "rectangle": [(0, 0, a, b)],
        "L": [(0, 0, a, w), (0, 0, w, b)],
        "T": [(0, 0, a, w), (a / 2 - w / 2, 0, a / 2 + w / 2, b)],
        "U": [(0, 0, a, w), (0, 0, w, b), (a - w, 0, a, b * rng.choice([1, 0.75]))],
        "courtyard": [(0, 0, a, b)],
    }[shape]
    # Simplified by nothing: where boxes met, corners lie on straight walls.
    whole = shapely.simplify(shapely.union_all([shapely.box(*box) for box in boxes]), 1e-9)
    if shape == "courtyard":
        side = min(a, b) / 3.2
        whole = whole.difference(shapely.box(side, side, a - side, b - side))
    middle = shapely.centroid(whole)
    return shapely.transform(whole, lambda xy: xy - (middle.x, middle.y))


def paint(count: int, noise: float, seed: int) -> tuple[Geometries, Geometries]:
    """Truths, and pixel outlines of what a mask shows of them, far apart from one another."""
    rng = np.random.default_rng(seed)
    truths, outlines = [], []
    for index in range(count):
        angle, place = rng.uniform(0, np.pi), rng.uniform(0, 1, 2) + 56
        c, s = np.cos(angle), np.sin(angle)
        truth = shapely.transform(
            plan(SHAPES[index % len(SHAPES)], rng),
            lambda xy, c=c, s=s, p=place: xy @ np.array([[c, s], [-s, c]]) + p,
        )
        mask = rasterio.features.rasterize([truth], (112, 112), dtype="uint8")
        if noise:
            mask = disturbed(mask, noise, rng)
        corner = np.array([index % 100, index // 100]) * 128.0
        truths.append(shapely.transform(truth, lambda xy, o=corner: xy + o))
        outline = traced(mask)
        outlines.append(shapely.transform(outline, lambda xy, o=corner: xy + o))
    return np.array(truths, object), as_multipolygons(np.array(outlines, object))


def disturbed(mask: NDArray[np.uint8], share: float, rng: np.random.Generator) -> Any:
    """The mask with a share of all pixels flipped, and a fifth of those at the boundary."""
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    flipped = (rng.random(mask.shape) < share) | (edge & (rng.random(mask.shape) < 0.2))
    return mask ^ flipped.astype(np.uint8)


def traced(mask: NDArray[np.uint8]) -> shapely.Geometry:
    """Outline of the largest object of a mask, corners touching."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    mine = (labels == largest).astype(np.uint8)
    (shape, _), *_ = rasterio.features.shapes(mine, mask=mine, connectivity=8)
    return shapely.geometry.shape(shape)


def candidate(python: str, simplified: Geometries) -> Geometries:
    """What buildingregulariser makes of simplified outlines."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.gpkg"), Path(folder, "out.gpkg")
        layer = geopandas.GeoDataFrame({"n": range(len(simplified))}, geometry=simplified, crs=3857)
        layer.explode().to_file(source)
        command = [python, "-c", _CANDIDATE, str(source), str(target)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        done = geopandas.read_file(target).dissolve("n").geometry.reindex(range(len(simplified)))
    return np.array(done.fillna(shapely.Polygon()), object)


def corners_near(truth: shapely.Polygon, drawn: shapely.Geometry) -> bool:
    """Whether every corner of the truth has a vertex within one pixel."""
    corners = shapely.get_coordinates(truth)
    found = shapely.get_coordinates(drawn)
    apart = np.hypot(*(corners[:, None] - found[None]).transpose(2, 0, 1))
    return len(found) > 0 and bool((apart.min(axis=1) <= 1).all())


def skew(drawn: Geometries) -> float:
    """Largest departure of an angle from a multiple of a right one, in radians."""
    rings = shapely.get_rings(shapely.get_parts(drawn))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    way = np.diff(points, axis=0)[ring[1:] == ring[:-1]]
    ring = ring[1:][ring[1:] == ring[:-1]]
    turn = np.diff(np.arctan2(way[:, 1], way[:, 0]))[ring[1:] == ring[:-1]]
    return float(np.abs((turn + np.pi / 4) % (np.pi / 2) - np.pi / 4).max(initial=0))


def line(name: str, truths: Geometries, drawn: Geometries, rate: float, flags: Any) -> dict:
    """The figures of one method."""
    valid = shapely.make_valid(drawn)
    iou = shapely.area(shapely.intersection(truths, valid)) / shapely.area(
        shapely.union(truths, valid)
    )
    near = np.mean([corners_near(t, d) for t, d in zip(truths, drawn, strict=True)])
    count = shapely.get_num_coordinates(drawn).sum() / shapely.get_num_coordinates(truths).sum()
    right = np.ones(len(drawn), bool) if flags is None else flags
    return {
        "method": name, "corners within 1 px": f"{near:.1%}",
        "IoU 5th pct": f"{np.quantile(iou, 0.05):.3f}", "IoU median": f"{np.median(iou):.3f}",
        "skew (rad)": f"{skew(drawn[right]):.1e}", "vertices": f"{count:.2f}",
        "regularized": "" if flags is None else f"{flags.mean():.1%}",
        "objects/s": f"{rate:,.0f}",
    }  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--buildings", type=int, default=400)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--candidate", metavar="PYTHON")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    truths, outlines = paint(arguments.buildings, arguments.noise, arguments.seed)
    begun = time.perf_counter()
    simplified = smooth(outlines, 0.6)
    middle = time.perf_counter()
    result = with_rough_ones(outlines, simplified, regularize(outlines, simplified))
    ended = time.perf_counter()
    boxes = shapely.minimum_rotated_rectangle(outlines)
    n, last = len(truths), time.perf_counter()
    table = [
        line("simplified", truths, simplified, n / (middle - begun), None),
        line("rotated rectangle", truths, boxes, n / (last - ended), None),
        line("regularized", truths, result.polygons, n / (ended - middle), result.regularized),
    ]
    if arguments.candidate:
        begun = time.perf_counter()
        drawn = candidate(arguments.candidate, simplified)
        rate = n / (time.perf_counter() - begun)
        table.append(line("buildingregulariser", truths, drawn, rate, None))
    if arguments.json:
        print(json.dumps(table))
        return
    print(f"geocd {geocd.__version__}, {platform.machine()}, {n} buildings, "
          f"noise {arguments.noise:g}, seed {arguments.seed}")  # fmt: skip
    print("| " + " | ".join(table[0]) + " |")
    print("|" + "---|" * len(table[0]))
    for row in table:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
