"""What each backend and precision costs weights in accuracy, against torch in float32.

    python benchmarks/export.py --data ../shared/data --weights geocd-vhr geocd-snunet

Real pairs are brought to the scale of the weights and cut into windows of 256 x 256 pixels side
by side; synthesised pairs are such windows. Every backend scores the same windows. Prints F1 of
buildings at the card's threshold and its difference to float32 in points, the share of pixels on
the other side of the threshold, the largest and the mean difference of scores, and milliseconds a
window (batches of 8; indicative on a busy machine). int8 needs NNCF.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from synthesised import TOWNS, pairs

from geocd.assess.metrics import Confusion, confusion
from geocd.config import SCORE_SCALE, PredictConfig
from geocd.errors import GeocdError
from geocd.models.card import WeightsCard
from geocd.models.files import find_weights, read_card
from geocd.pipeline import calibration_pairs
from geocd.predict.backends import open_predictor
from geocd.predict.predictor import Predictor
from geocd.rasters.grid import Grid
from geocd.rasters.pair import reading_grid
from geocd.training.datasets import find_pairs, read_image, read_pixels

SETS = {"levir256": 0.5, "whu512": 0.2}
"""Folder below pairs/, and metres per pixel."""
SIDE, BATCH = 256, 8
YARDSTICK = ("torch", "float32")
CANDIDATES = (YARDSTICK, ("torch", "bf16"), ("openvino", "float32"), ("openvino", "bf16"),
              ("openvino", "int8"))  # fmt: skip


@dataclass(frozen=True)
class Windows:
    """Labelled windows: (N, 3, 256, 256) twice, and truth and what counts, (N, 256, 256)."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    known: NDArray[np.bool_]


def cut(image: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Windows of (height, width, ...), side by side; edges are repeated up to whole ones."""
    missing = [(0, -side % SIDE) for side in image.shape[:2]]
    image = np.pad(image, [*missing, *[(0, 0)] * (image.ndim - 2)], mode="edge")
    for row in range(0, image.shape[0], SIDE):
        for col in range(0, image.shape[1], SIDE):
            yield image[row : row + SIDE, col : col + SIDE]


def real(folder: Path, pixel: float, card: WeightsCard, limit: int) -> Windows:
    """A set of pairs, at the scale of the weights."""
    grid = Grid(None, Affine.identity(), 1000, 1000)
    zoom = reading_grid(grid, gsd_range=card.gsd, pixel_size=pixel).width / 1000

    def _read(path: Path, kernel: int) -> list[NDArray[np.uint8]]:
        image = read_image(path) if kernel != cv2.INTER_NEAREST else read_pixels(path)[..., 0]
        if zoom != 1:
            image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=kernel)
        return list(cut(image))

    fine = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    dates: list[list[NDArray[np.uint8]]] = [[], [], []]
    for pair in find_pairs(folder)[:limit]:
        for found, path, kernel in zip(
            dates, (pair.before, pair.after, pair.label), (fine, fine, cv2.INTER_NEAREST),
            strict=True,
        ):  # fmt: skip
            found += _read(path, kernel)
    before, after = (np.moveaxis(np.stack(images), -1, 1) for images in dates[:2])
    truth = np.stack(dates[2]) > 0
    return Windows(before, after, truth, np.ones_like(truth))


def synthesised(data: Path, gsd: tuple[float, float], number: int) -> Windows:
    """Pairs made of mapped towns: buildings and roads come and go."""
    made = pairs(data, TOWNS, number, gsd=gsd)
    before, after = (
        np.moveaxis(np.stack(images), -1, 1)
        for images in zip(*((p.before, p.after) for p in made), strict=True)
    )
    change = np.stack([p.change[0] for p in made])
    return Windows(before, after, change == 1, change <= 1)


def scores(predictor: Predictor, windows: Windows) -> tuple[NDArray[np.uint8], float]:
    """Levels of the first class, (N, 256, 256), and seconds a window."""
    first = slice(0, BATCH)
    predictor(windows.before[first], windows.after[first])
    begun, found = time.perf_counter(), []
    for start in range(0, len(windows.before), BATCH):
        batch = slice(start, start + BATCH)
        found.append(predictor(windows.before[batch], windows.after[batch])[:, 0])
    return np.concatenate(found), (time.perf_counter() - begun) / len(windows.before)


def f1(levels: NDArray[np.uint8], windows: Windows, threshold: float) -> float:
    agreed = [
        confusion(level >= threshold, truth, valid=known)
        for level, truth, known in zip(levels, windows.truth, windows.known, strict=True)
    ]
    return sum(agreed, Confusion(0, 0, 0, 0)).f1


def compare(name: str, windows: Windows, predictors: dict[tuple[str, str], Predictor]) -> None:
    """One row for each backend."""
    base, base_f1 = None, 0.0
    for (backend, precision), predictor in predictors.items():
        threshold = predictor.card.thresholds[0] * SCORE_SCALE
        levels, seconds = scores(predictor, windows)
        value = f1(levels, windows, threshold)
        if base is None:
            base, base_f1 = levels, value
        gap = np.abs(levels.astype(int) - base) / SCORE_SCALE
        flips = ((levels >= threshold) != (base >= threshold)).mean()
        print(f"| {predictor.card.name} | {name} | {backend} {precision} | {value:.4f} | "
              f"{100 * (value - base_f1):+.2f} | {flips:.4%} | {gap.max():.3f} | "
              f"{gap.mean():.5f} | {1e3 * seconds:.0f} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["geocd-vhr", "geocd-snunet"])
    parser.add_argument("--pairs", type=int, default=10**6, help="at most so many of a set")
    options = parser.parse_args()
    print("| weights | set | backend | F1 | points | other side | largest | mean | ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.weights:
        card = read_card(find_weights(name))
        predictors = {}
        for backend, precision in CANDIDATES:
            config = PredictConfig(device="cpu", backend=backend, precision=precision)
            try:
                predictors[backend, precision] = open_predictor(
                    name, window=(SIDE, SIDE), config=config, calibration=calibration_pairs
                )
            except GeocdError as error:
                print(f"{backend} {precision}: {error}", flush=True)
        for folder, pixel in SETS.items():
            compare(folder, real(options.data / "pairs" / folder, pixel, card, options.pairs),
                    predictors)  # fmt: skip
        compare(
            "synthesised",
            synthesised(options.data, card.gsd or (0.5, 0.5), min(64, options.pairs)),
            predictors,
        )


if __name__ == "__main__":
    main()
