"""Co-registration against a known truth, on mosaics of real aerial tiles.

    python benchmarks/alignment.py --data ../shared/data --seeds 0 1 2

Three tables:

- accuracy: square mosaics of ``maps/images``, the after image displaced by a known field and
  given gamma, haze and noise. ``dense`` is the root mean square distance from the truth over
  the whole image, not a residual at tie points. Cases: a shift; 0.2 degrees of rotation with a
  shift and a smooth local warp of 0.8 px (root mean square, which no affine map can follow);
  the same with 22 % of the area replaced by another place.
- refusal: pairs of tiles of different places, where every motion is wrong.
- harm: ``pairs/levir256``, registered before; ``moved`` is the largest displacement, in pixels,
  that would be applied at a corner.

All inputs are drawn from the seeds; the conditions stand above the tables.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from affine import Affine

import geocd
from geocd.align import estimate_arrays
from geocd.testing import fractal_noise

_SIDE = 2000
_MARGIN = 60
_CELL = 200
_CASES = {"shift": (False, 0.0), "rotation + warp": (True, 0.0), "... + change": (True, 0.22)}


def read_gray(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise SystemExit(f"{path} cannot be read as an image")
    return image


def mosaic(tiles: list[Path], side: int, rng: np.random.Generator) -> np.ndarray:
    """Different tiles side by side, cut to a square."""
    count = -(-side // read_gray(tiles[0]).shape[0])
    chosen = [tiles[i] for i in rng.choice(len(tiles), count * count, replace=False)]
    rows = [np.hstack([read_gray(p) for p in chosen[i::count]]) for i in range(count)]
    return np.vstack(rows)[:side, :side]


def truth_field(side: int, rng: np.random.Generator, *, warped: bool) -> np.ndarray:
    """Displacement (x, y) of each pixel from before to after, shape (side, side, 2)."""
    field = np.empty((side, side, 2), np.float32)
    field[:] = rng.uniform(-8, 8, 2)
    if warped:
        ys, xs = np.mgrid[0:side, 0:side].astype(np.float32) - side / 2
        turn = np.deg2rad(0.2)
        field += np.dstack([-turn * ys, turn * xs]).astype(np.float32)
        for axis in range(2):
            noise = fractal_noise((side, side), rng, coarsest=side / 3, finest=side / 6)
            field[..., axis] += noise * np.float32(0.8 / np.sqrt(2))
    return field


def seen_after(ground: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Ground, displaced by a field: inverted by iteration, since it is small and smooth."""
    ys, xs = np.mgrid[0 : field.shape[0], 0 : field.shape[1]].astype(np.float32)
    x, y = xs, ys
    for _ in range(6):
        here = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x, y = xs - here[..., 0], ys - here[..., 1]
    return cv2.remap(ground, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def make_pair(
    tiles: list[Path], rng: np.random.Generator, *, warped: bool, changed: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(before, after, displacement) of one place; a share of after shows another one."""
    wide = _SIDE + 2 * _MARGIN
    inside = slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN)
    ground, other = mosaic(tiles, wide, rng), mosaic(tiles, _SIDE, rng)
    field = truth_field(wide, rng, warped=warped)
    after = seen_after(ground, field)[inside].astype(np.float32)
    cells = _SIDE // _CELL
    for cell in rng.choice(cells**2, round(changed * cells**2), replace=False):
        top, left = (int(v) * _CELL for v in divmod(cell, cells))
        part = slice(top, top + _CELL), slice(left, left + _CELL)
        after[part] = other[part]
    toned = 255 * (after / 255) ** rng.uniform(0.7, 1.4) * 0.8 + 25
    noisy = [i + rng.normal(0, 4, i.shape) for i in (ground[inside], toned)]
    first, second = (np.clip(i, 0, 255).astype(np.uint8) for i in noisy)
    return first, second, field[inside]


def displacement(motion: Affine, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """How far a motion carries points given in grid coordinates; the last axis is (x, y)."""
    x, y = motion.a * xs + motion.b * ys + motion.c, motion.d * xs + motion.e * ys + motion.f
    return np.stack([x - xs, y - ys], axis=-1)


def accuracy(tiles: list[Path], seeds: list[int]) -> None:
    print(f"\n{'accuracy':<18}{'seed':>5}{'dense before':>14}{'after':>8}{'seconds':>9}  status")
    ys, xs = np.mgrid[0:_SIDE, 0:_SIDE] + 0.5
    for name, (warped, changed) in _CASES.items():
        for seed in seeds:
            rng = np.random.default_rng(seed)
            before, after, truth = make_pair(tiles, rng, warped=warped, changed=changed)
            begun = time.perf_counter()
            found = estimate_arrays(before, after, seed=seed)
            seconds = time.perf_counter() - begun
            left = displacement(found.motion, xs, ys) - truth
            dense = [float(np.sqrt((d**2).sum(axis=-1).mean())) for d in (truth, left)]
            print(f"{name:<18}{seed:>5}{dense[0]:>14.2f}{dense[1]:>8.3f}{seconds:>9.2f}"
                  f"  {found.status}, {found.method}", flush=True)  # fmt: skip


def refusals(tiles: list[Path], count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(tiles), (count, 2), replace=False)
    found = [estimate_arrays(*(read_gray(tiles[i]) for i in pair)) for pair in drawn]
    tally = Counter(f.status for f in found)
    print(f"\nrefusal: {count} pairs of different places: "
          + ", ".join(f"{n} {status}" for status, n in tally.most_common()))  # fmt: skip


def harm(folder: Path) -> None:
    print(f"\n{'harm':<34}{'moved':>7}  verdict")
    for path in sorted((folder / "A").iterdir()):
        before, after = read_gray(path), read_gray(folder / "B" / path.name)
        found = estimate_arrays(before, after)
        height, width = before.shape
        corners = np.array([0, width, 0, width]), np.array([0, 0, height, height])
        moved = np.hypot(*displacement(found.motion, *corners).T).max()
        print(f"{path.stem:<34}{moved:>7.2f}  {found.status}, {found.reason}")


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--unrelated", type=int, default=40, help="pairs in the second table")
    arguments = parser.parse_args()
    tiles = sorted((arguments.data / "maps" / "images").glob("*.webp"))
    if not tiles:
        parser.error(f"no tiles in {arguments.data / 'maps' / 'images'}")
    print(f"geocd {geocd.__version__}, OpenCV {cv2.__version__}, NumPy {np.__version__}, "
          f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, "
          f"{cv2.getNumThreads()} threads of OpenCV")  # fmt: skip
    print(f"{_SIDE} x {_SIDE} px, {len(tiles)} tiles to draw from, seeds {arguments.seeds}")
    accuracy(tiles, arguments.seeds)
    refusals(tiles, arguments.unrelated, arguments.seeds[0])
    harm(arguments.data / "pairs" / "levir256")


if __name__ == "__main__":
    main()
