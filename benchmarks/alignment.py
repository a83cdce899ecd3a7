"""Co-registration against a known truth, beside its peers.

    python benchmarks/alignment.py --data ../shared/data --seeds 0 1 2
    python benchmarks/alignment.py --arosics /path/to/venv/bin/python

Tables:

- accuracy: pairs of 2000 x 2000 px (``alignment_scenes.py``), mosaics of ``maps/images`` and
  procedural texture, as GeoTIFF files. ``dense`` is the root mean square distance from the
  truth over the whole image (every tenth pixel each way), not a residual at tie points; it is
  in before's pixels, also where after's are wider. OpenCV's methods get after enlarged to them.
  ``seconds`` are wall-clock seconds with reading, ``CPU s`` those of the processor, which other
  programs on the machine hardly change; ``ratio`` is that of a method's CPU seconds to those of
  geocd on the same pair. AROSICS runs as a command, with its own Python and two processes.
- refusal: pairs of different places, where every motion is wrong.
- harm: ``pairs/``, registered before; ``moved`` is the largest displacement, in pixels, that
  would be applied at a corner.

All inputs are drawn from the seeds; the conditions stand above the tables.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alignment_peers as peers
import cv2
import numpy as np
import rasterio
from alignment_scenes import (
    CASES,
    SIDE,
    Case,
    Painter,
    Pair,
    make_pair,
    mosaics,
    read_gray,
    textures,
)
from rasterio.transform import Affine

import geocd
from geocd.align import Alignment, estimate, estimate_arrays, gray_reader, open_for_alignment
from geocd.align.reader import transform_points
from geocd.config import AlignConfig

_STEP = 10
"""Pixels between the points at which motions are compared with the truth."""


@dataclass(frozen=True)
class Row:
    """One method on one pair."""

    scene: str
    case: str
    method: str
    dense: float
    unregistered: float
    seconds: float
    cpu: float


def write_pair(pair: Pair, folder: Path) -> tuple[Path, Path]:
    """The pair as GeoTIFFs with one upper left corner; nodata of after is 0."""
    after = np.where(pair.valid_after, np.maximum(pair.after, 1), 0).astype(pair.after.dtype)
    paths = folder / "before.tif", folder / "after.tif"
    for path, image, nodata, size in zip(
        paths, (pair.before, after), (None, 0), (1, pair.coarser), strict=True
    ):
        height, width = image.shape
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=1, dtype=image.dtype,
            crs="EPSG:32615", transform=_placed(size), nodata=nodata,
        ) as target:  # fmt: skip
            target.write(image, 1)
    return paths


def _placed(size: float) -> Affine:
    """The transform of pixels of so many metres."""
    return Affine.translation(*peers.CORNER) @ Affine.scale(size, -size)


def run_geocd(before: Path, after: Path, mode: str = "auto") -> tuple[Alignment, Affine]:
    """The estimate on files, as ``geocd align`` makes it, and from before's pixels to its own."""
    pair = open_for_alignment(before, after)
    found = estimate(gray_reader(pair), pair.grid.shape, config=AlignConfig(mode=mode))
    return found, ~pair.grid.transform @ _placed(1)


def displaced(found: Alignment, reading: Affine, points: np.ndarray) -> np.ndarray:
    """Where before's points (x, y) of pixels' centres lie on after by an alignment, (n, 2)."""
    here = transform_points(reading, points + 0.5)
    return transform_points(~reading, found.motion(here)) - 0.5


def measure(
    scene: str, case: Case, pair: Pair, folder: Path, arosics: Path | None
) -> tuple[list[Row], Alignment]:
    """Every method on one pair."""
    before, after = write_pair(pair, folder)
    half = _STEP // 2
    truth = pair.truth[half::_STEP, half::_STEP].reshape(-1, 2)
    spots = np.arange(SIDE)[half::_STEP]
    points = np.stack(np.meshgrid(spots, spots), axis=-1).reshape(-1, 2).astype(np.float64)
    unregistered = float(np.sqrt((truth**2).sum(axis=1).mean()))
    rows = []

    def note(method: str, moved: np.ndarray | None, spent: tuple[float, float]) -> None:
        dense = np.nan if moved is None else float(np.sqrt(((moved - truth) ** 2).sum(1).mean()))
        rows.append(Row(scene, case.name, method, dense, unregistered, *spent))

    (found, reading), spent = _timed(lambda: run_geocd(before, after))
    note("geocd", displaced(found, reading, points) - points, spent)
    images = peers.as_bytes(pair.before), cv2.resize(pair.after, (SIDE, SIDE))
    valid = cv2.resize(pair.valid_after.astype(np.uint8), (SIDE, SIDE)) > 0
    for name, method in (
        ("phase correlation", peers.phase), ("ECC affine", peers.ecc), ("SIFT+MAGSAC", peers.sift)
    ):  # fmt: skip
        moved, spent = _timed(lambda m=method: m(*images, valid, points))
        note(name, moved, spent)
    for mode in ("global", "local") if arosics else ():
        (moved, _), spent = _timed(
            lambda m=mode: peers.arosics(arosics, m, before, after, points, pair.coarser)
        )
        note(f"AROSICS {mode}", moved, spent)
    return rows, found


def _timed(call: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What a call gives, and its (wall-clock, processor) seconds, child processes included."""

    def _spent() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    begun, used = time.perf_counter(), _spent()
    found = call()
    return found, (time.perf_counter() - begun, _spent() - used)


def accuracy(
    painters: dict[str, Painter], cases: list[Case], seeds: list[int], arosics: Path | None
) -> None:
    """Table of every pair, then the mean and the worst of every case."""
    print(f"\n{'scene':<9}{'case':>5}{'seed':>5}  {'method':<19}{'dense':>8}{'share':>8}"
          f"{'seconds':>9}{'CPU s':>8}{'ratio':>7}")  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for scene, paint in painters.items():
            for case in cases:
                for seed in seeds:
                    pair = make_pair(paint, case, np.random.default_rng(seed))
                    new, found = measure(scene, case, pair, Path(folder), arosics)
                    rows += new
                    print(f"{scene:<9}{case.name:>5}{seed:>5}  unregistered       "
                          f"{new[0].unregistered:>8.3f}")  # fmt: skip
                    for row in new:
                        note = f"  {found.status}, {found.model}" if row.method == "geocd" else ""
                        print(f"{'':<21}{row.method:<19}{row.dense:>8.3f}"
                              f"{row.dense / row.unregistered:>8.3f}{row.seconds:>9.2f}"
                              f"{row.cpu:>8.2f}{row.cpu / new[0].cpu:>7.1f}{note}",
                              flush=True)  # fmt: skip
    summary(rows)


def summary(rows: list[Row]) -> None:
    """Mean (worst) dense error of each method in each case."""
    methods = list(dict.fromkeys(r.method for r in rows))
    for scene in dict.fromkeys(r.scene for r in rows):
        print(f"\n{scene}: mean (worst) dense error, px, over the seeds")
        print(f"{'':<6}{'unregistered':>14}" + "".join(f"{m:>19}" for m in methods))
        for case in dict.fromkeys(r.case for r in rows):
            mine = [r for r in rows if (r.scene, r.case) == (scene, case)]
            cells = []
            for method in methods:
                dense = [r.dense for r in mine if r.method == method]
                cells.append(f"{np.mean(dense):.3f} ({np.max(dense):.3f})")
            start = np.mean([r.unregistered for r in mine])
            print(f"{case:<6}{start:>14.3f}" + "".join(f"{c:>19}" for c in cells))
    for name, unit in (("seconds", "seconds"), ("cpu", "CPU seconds")):
        mean = {m: np.median([getattr(r, name) for r in rows if r.method == m]) for m in methods}
        print(f"\nmedian {unit}: " + ", ".join(f"{m} {s:.2f}" for m, s in mean.items()))
    worst = max(r.dense / r.unregistered for r in rows if r.method == "geocd")
    print(f"geocd: largest dense error over the unregistered one, any seed: {worst:.3f}")


def refusals(tiles: list[Path], count: int, seed: int) -> None:
    """How often a motion between different places is believed."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(tiles), (count, 2), replace=False)
    found = [estimate_arrays(*(read_gray(tiles[i]) for i in pair)) for pair in drawn]
    painter = mosaics(tiles)
    large = [np.clip(painter(SIDE, np.random.default_rng(seed + k)), 0, 255).astype(np.uint8)
             for k in range(4)]  # fmt: skip
    found += [estimate_arrays(large[i], large[i + 1]) for i in (0, 2)]
    tally = Counter(f.status for f in found)
    print(f"\nrefusal: {count} pairs of tiles and 2 of mosaics, all of different places: "
          + ", ".join(f"{n} {status}" for status, n in tally.most_common()))  # fmt: skip


def harm(folder: Path) -> None:
    """What happens to pairs that others registered."""
    print(f"\n{'harm':<34}{'moved':>7}  verdict")
    for path in sorted(
        p for name in ("levir256", "whu512") for p in (folder / name / "A").iterdir()
    ):
        before, after = read_gray(path), read_gray(path.parents[1] / "B" / path.name)
        found = estimate_arrays(before, after)
        height, width = before.shape
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
        moved = np.hypot(*(found.motion(corners) - corners).T).max()
        print(f"{path.stem:<34}{moved:>7.2f}  {found.status}, {found.reason}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--unrelated", type=int, default=40, help="pairs in the table of refusals")
    parser.add_argument("--arosics", type=Path, help="a Python that has AROSICS")
    parser.add_argument("--scenes", nargs="+", choices=["maps", "texture"],
                        default=["maps", "texture"])  # fmt: skip
    parser.add_argument("--cases", nargs="+", choices=[c.name for c in CASES],
                        default=[c.name for c in CASES])  # fmt: skip
    arguments = parser.parse_args()
    tiles = sorted((arguments.data / "maps" / "images").glob("*.webp"))
    if not tiles:
        parser.error(f"no tiles in {arguments.data / 'maps' / 'images'}")
    print(f"geocd {geocd.__version__}, OpenCV {cv2.__version__}, NumPy {np.__version__}, "
          f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, "
          f"{cv2.getNumThreads()} threads of OpenCV, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{SIDE} x {SIDE} px, {len(tiles)} tiles to draw from, seeds {arguments.seeds}")
    for case in CASES:
        print(f"  {case.name}: {case.what}")
    painters = {"maps": mosaics(tiles), "texture": textures}
    cases = [case for case in CASES if case.name in arguments.cases]
    chosen = {scene: painters[scene] for scene in arguments.scenes}
    accuracy(chosen, cases, arguments.seeds, arguments.arosics)
    refusals(tiles, arguments.unrelated, arguments.seeds[0])
    harm(arguments.data / "pairs")


if __name__ == "__main__":
    main()
