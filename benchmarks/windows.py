"""How large a window and how small an overlap may be before the result differs.

    python benchmarks/windows.py --pairs ../shared/data/pairs --weights geocd-vhr geocd-snunet

The labelled pairs are smaller than a window, so those of a set are laid side by side into one
picture, read at the ground sample distance at which detect reads them. The yardstick is a window
of 256 pixels that shares half with its neighbour. Printed for every setting: F1 of buildings at
the card's threshold; pixels whose class differs from the yardstick's ("flipped"); how much more
the scores step where windows meet than elsewhere ("seam", 1 = not to be seen); and megapixels of
result a second of the network, which is what the setting costs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import geocd
from geocd.clock import Clock
from geocd.config import PredictConfig, TilingConfig
from geocd.models.files import find_weights, read_card
from geocd.predict.backends import open_predictor
from geocd.predict.flow import score_pieces
from geocd.tiling.windows import starts
from geocd.training.datasets import load_pairs

GSD = {"levir256": 0.5, "whu512": 0.2}
LEAST_SIDE = 1000
"""Pairs are repeated up to a picture of so many pixels, so that windows fall on them anyhow."""
YARDSTICK = TilingConfig(tile_size=256, overlap=128)
SETTINGS = [
    TilingConfig(tile_size=tile, overlap=overlap)
    for tile, overlaps in ((256, (0, 16, 32, 64)), (384, (32, 64)), (512, (0, 32, 64, 128)))
    for overlap in overlaps
]


@dataclass
class Part:
    """A window of the picture, as the flow reads it."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    seen: NDArray[np.bool_]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """The same: there is no area of interest."""
        return self.seen


@dataclass
class Picture:
    """All pairs of a set side by side: images (3, height, width), truth (height, width)."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    truth: NDArray[np.bool_]

    def fitted(self, tiling: TilingConfig) -> Picture:
        """The upper left part on which windows share their nominal overlap and no more."""
        step = tiling.tile_size - tiling.overlap
        side = len(self.truth) - (len(self.truth) - tiling.tile_size) % step
        part = (..., slice(0, side), slice(0, side))
        return Picture(self.before[part], self.after[part], self.truth[part])

    def read(self, rows: slice, cols: slice) -> Part:
        """A part of it."""
        images = (image[:, rows, cols] for image in (self.before, self.after))
        return Part(*images, np.ones(self.truth[rows, cols].shape, bool))


def _scaled(image: NDArray[np.uint8], factor: float, method: int) -> NDArray[np.uint8]:
    side = round(image.shape[0] * factor)
    return np.asarray(cv2.resize(image, (side, side), interpolation=method), np.uint8)


def _read(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return np.asarray(image[..., ::-1], np.uint8)


def picture(folder: Path, gsd: float) -> Picture:
    """The pairs of a set, at a ground sample distance in metres."""
    factor = GSD[folder.name] / gsd
    tiles = []
    for pair in load_pairs(folder):
        dates = [_scaled(_read(Path(p)), factor, cv2.INTER_AREA) for p in (pair.before, pair.after)]
        label = _scaled(_read(Path(pair.label))[..., 0], factor, cv2.INTER_NEAREST)
        tiles.append((*dates, label > 0))
    side = math.ceil(LEAST_SIDE / tiles[0][2].shape[0])
    tiles = list(itertools.islice(itertools.cycle(tiles), side * side))
    layers = [
        np.concatenate(
            [np.concatenate([t[k] for t in tiles[r : r + side]], 1)
             for r in range(0, side * side, side)]
        )
        for k in range(3)
    ]  # fmt: skip
    return Picture(*(np.moveaxis(image, -1, 0) for image in layers[:2]), layers[2])


def run(
    name: str, config: PredictConfig, scene: Picture, tiling: TilingConfig
) -> tuple[NDArray[np.uint8], float]:
    """Levels (classes, height, width), and megapixels a second of the network."""
    clock = Clock()
    predictor = open_predictor(name, window=(tiling.tile_size,) * 2, config=config)
    rows = score_pieces(
        predictor, scene.read, scene.truth.shape, tiling=tiling, batch_size=config.batch_size,
        clock=clock,
    )  # fmt: skip
    levels = np.concatenate([piece.levels for piece in rows], axis=1)
    return levels, scene.truth.size / 1e6 / clock.wall["network"]


def seam(levels: NDArray[np.uint8], tiling: TilingConfig) -> float:
    """Mean step of the scores between two rows where windows meet, over that of all rows."""
    height = levels.shape[1]
    begins = starts(height, tiling.tile_size, tiling.overlap)
    steps = np.abs(np.diff(levels.astype(np.int16), axis=1)).mean(axis=(0, 2))
    middles = [(b + a + tiling.tile_size) // 2 for a, b in itertools.pairwise(begins)]
    if not middles:
        return math.nan
    return float(np.mean([steps[m - 1] for m in middles]) / steps.mean())


def f1(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def _row(
    name: str, config: PredictConfig, scene: Picture, tiling: TilingConfig,
    yardstick: NDArray[np.uint8], least: NDArray[np.float64],
) -> str:  # fmt: skip
    part = scene.fitted(tiling)
    levels, speed = run(name, config, part, tiling)
    side = len(part.truth)
    right = yardstick[:, :side, :side] >= least
    found = levels >= least
    return (
        f"| {tiling.tile_size} | {tiling.overlap} | {f1(found[0], part.truth):.3f} "
        f"({f1(right[0], part.truth):.3f}) | {(found != right).any(axis=0).mean():.2%} | "
        f"{seam(levels, tiling):.2f} | {speed:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["geocd-vhr", "geocd-snunet"])
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    config = PredictConfig(backend=options.backend, precision=options.precision, batch_size=4)
    print(f"geocd {geocd.__version__}, {platform.machine()}, {os.cpu_count()} cores, "
          f"{options.backend} {options.precision}")  # fmt: skip
    for name in options.weights:
        card = read_card(find_weights(name))
        least = np.array(card.thresholds)[:, None, None] * 254
        low = card.gsd[0] if card.gsd else 0.0
        for folder in sorted(p for p in options.pairs.iterdir() if p.name in GSD):
            scene = picture(folder, max(GSD[folder.name], low))
            print(f"\n{name}, {folder.name}, {scene.truth.shape[0]} px a side\n")
            print("| window | overlap | F1 (yardstick) | flipped | seam | Mpix/s |")
            print("|---|---|---|---|---|---|")
            yardstick, _ = run(name, config, scene, YARDSTICK)
            for tiling in SETTINGS:
                print(_row(name, config, scene, tiling, yardstick, least), flush=True)


if __name__ == "__main__":
    main()
