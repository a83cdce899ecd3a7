"""False alarms on pairs where nothing changed, one image displaced.

    python benchmarks/false_alarms.py --data ../shared/data

Two sets of scenes: suburbs that are painted, seen twice under independent suns and seasons; and
mosaics of ``maps/images``, seen twice with independent gamma, haze and noise. After is displaced
by so many pixels in a direction drawn for each scene, resampled at fractions of a pixel. What
`detect` reports is false; its area is compared with that of the undisplaced pair. The target is
a ratio of at most 1.2 after alignment. Good weights report next to nothing there, which makes a
poor denominator, so pixels with a score of at least 0.1 are compared too. The second half of the
table is for contrast: the georeferencing trusted. Prints Markdown; all inputs are drawn from the
seed.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

import geocd
from geocd.config import NOT_OBSERVED, SCORE_SCALE, AlignConfig, AlignMode, DetectConfig
from geocd.testing import Light, plan_suburb, render, write_raster

Image = NDArray[np.uint8]
"""Shape (3, height, width)."""
DISPLACEMENTS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)
TARGET = 1.2
"""Largest area over that of the undisplaced pair."""
LOW_SCORE = 0.1
"""Scores from here on count as doubtful."""
MARGIN = 16
"""Pixels around the scenes, from which a displaced image is filled."""
GSD = {"painted": 0.5, "maps": 0.9}
"""Metres a pixel."""


def seen_twice(ground: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """One ground with independent gamma, haze and noise."""
    images = []
    for gamma, gain, haze in ((1.0, 1.0, 0.0), (rng.uniform(0.7, 1.4), 0.85, 20.0)):
        toned = 255 * (ground / 255.0) ** gamma * gain + haze
        images.append(np.clip(toned + rng.normal(0, 4, ground.shape), 0, 255).astype(np.uint8))
    return images[0], images[1]


def painted(count: int, side: int, seed: int) -> Iterator[tuple[Image, Image]]:
    """Suburbs on two days on which nothing was built."""
    wide = side + 2 * MARGIN
    extent = wide * GSD["painted"]
    for index in range(count):
        rng = np.random.default_rng([seed, 0, index])
        suburb = plan_suburb(
            extent, extent, seed=seed + index, buildings_appeared=0, buildings_disappeared=0,
            roads_appeared=0, observed=shapely.box(0, 0, extent, extent),
        )  # fmt: skip
        days = []
        for number in range(2):
            light = Light(
                azimuth=float(rng.uniform(100, 260)), elevation=float(rng.uniform(35, 60)),
                lushness=float(rng.uniform(0.2, 0.8)), haze=float(rng.uniform(0, 0.08)),
            )  # fmt: skip
            days.append(render(suburb, "before", light, shape=(wide, wide), gsd=GSD["painted"],
                               seed=seed + 100 * number + index))  # fmt: skip
        yield days[0], days[1]


def mosaics(folder: Path, count: int, side: int, seed: int) -> Iterator[tuple[Image, Image]]:
    """Tiles of aerial imagery side by side, seen twice."""
    files = sorted(folder.glob("val_*.webp"))
    if not files:
        raise SystemExit(f"no tiles in {folder}")
    wide = side + 2 * MARGIN
    for index in range(count):
        rng = np.random.default_rng([seed, 1, index])
        first = cv2.imread(str(files[0]))
        across = -(-wide // first.shape[0])
        chosen = rng.choice(len(files), across**2, replace=False)
        tiles = [cv2.imread(str(files[i]))[..., ::-1] for i in chosen]
        rows = [np.hstack(tiles[i * across : (i + 1) * across]) for i in range(across)]
        yield seen_twice(np.moveaxis(np.vstack(rows)[:wide, :wide], -1, 0), rng)


def displaced(image: Image, distance: float, direction: float) -> Image:
    """The inner part of an image that lies so many pixels from where it should."""
    shift = distance * np.cos(direction), distance * np.sin(direction)
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    planes = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    moved = cv2.warpAffine(planes, matrix, image.shape[:0:-1], flags=cv2.INTER_CUBIC)
    return np.moveaxis(moved[MARGIN:-MARGIN, MARGIN:-MARGIN], -1, 0)


def run(
    before: Image, after: Image, mode: AlignMode, gsd: float, weights: str
) -> tuple[geocd.DetectResult, int]:
    """``detect`` on two arrays without georeferencing, and the number of doubtful pixels."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_raster(Path(folder) / f"{name}.tif", image)
            for name, image in (("before", before), ("after", after))
        ]
        config = DetectConfig(weights=weights, pixel_size=gsd, align=AlignConfig(mode=mode))
        scores = Path(folder) / "scores.tif"
        result = geocd.detect(*paths, Path(folder) / "c.gpkg", scores=scores, config=config)
        with rasterio.open(scores) as dataset:
            levels = dataset.read()
    doubtful = (levels >= LOW_SCORE * SCORE_SCALE) & (levels != NOT_OBSERVED)
    return result, int(doubtful.any(axis=0).sum())


def measure(
    name: str, scenes: list[tuple[Image, Image]], mode: AlignMode, options: argparse.Namespace
) -> list[float]:
    """One row of the table for each displacement; returns the ratios, without those of nothing."""
    rng = np.random.default_rng([options.seed, 2])
    directions = rng.uniform(0, 2 * np.pi, len(scenes))
    first: tuple[float, int] | None = None
    ratios = []
    for distance in options.displacements:
        area, count, pixels, left, verdicts = 0.0, 0, 0, [], []
        for (before, after), direction in zip(scenes, directions, strict=True):
            inner = before[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
            result, doubtful = run(inner, displaced(after, distance, direction), mode, GSD[name],
                         options.weights)  # fmt: skip
            area += float(result.changes["area_px"].sum())
            count += result.count
            pixels += doubtful
            found = result.alignment
            verdicts.append(found.model if found.status == "applied" else found.status)
            residual = found.after if found.status == "applied" else found.before
            left += [residual.median] if residual else []
        first = first or (area, pixels)
        cells = [name, mode, f"{distance:g}", f"{count}", f"{area:,.0f}", _ratio(area, first[0]),
                 f"{pixels:,}", _ratio(pixels, first[1]),
                 f"{np.median(left):.2f}" if left else "-", ", ".join(verdicts)]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)
        ratios += [
            new / old if old else np.inf
            for new, old in zip((area, pixels), first, strict=True)
            if new
        ]
    return ratios


def _ratio(new: float, old: float) -> str:
    return f"{new / old:.2f}" if old else "inf" if new else "0 of 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", default="geocd-vhr")
    parser.add_argument("--scenes", type=int, default=4, help="of each set")
    parser.add_argument("--side", type=int, default=640, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--displacements", type=float, nargs="+", default=DISPLACEMENTS)
    options = parser.parse_args()
    print(f"geocd {geocd.__version__}, OpenCV {cv2.__version__}, Python "
          f"{platform.python_version()}, {os.cpu_count()} cores; {options.weights}; "
          f"{options.scenes} scenes of {options.side} x {options.side} px each, "
          f"seed {options.seed}\n")  # fmt: skip
    print("| scenes | align | displaced, px | polygons | area, px | ratio | doubtful px | ratio "
          f"| residual, px | verdicts |\n{'|---' * 10}|")  # fmt: skip
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    folder = options.data / "maps" / "images"
    sets = {
        "painted": list(painted(options.scenes, options.side, options.seed)),
        "maps": list(mosaics(folder, options.scenes, options.side, options.seed)),
    }
    ratios = [r for name, scenes in sets.items() for r in measure(name, scenes, "auto", options)]
    for name, scenes in sets.items():
        measure(name, scenes, "off", options)
    worst = max(ratios, default=0.0)
    verdict = "reached" if worst <= TARGET else "missed"
    print(f"\nworst ratio after alignment: {worst:.2f}; target {TARGET}: {verdict}")


if __name__ == "__main__":
    main()
