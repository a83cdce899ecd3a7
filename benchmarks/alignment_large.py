"""Time and memory of ``geocd align`` against the size of the pair, and how right it is.

    python benchmarks/alignment_large.py --data ../shared/data --sides 5000 10000 20000

Before is a mosaic of ``maps/images``, drawn with repetition and turned; after is the same ground
shifted, turned by 0.05 degrees, toned and noisy. Each size is aligned by the command, in a process
of its own. ``dense`` is the root mean square distance from the true motion over the whole raster,
in pixels; ``as it lies`` that of no motion. Prints one line a size, with the conditions above.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from alignment_scenes import read_gray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

import geocd
from geocd.align.measurement import read_measurement
from geocd.align.reader import transform_points

_PLACED = Affine(1, 0, 5e5, 0, -1, 5e6)
_SHIFT = (6.4, -3.7)
_DEGREES = 0.05
_POINTS = 200
"""Points each way at which motions are compared."""


def true_motion(side: int) -> Affine:
    """From before's pixels to after's."""
    middle = side / 2
    return (Affine.translation(*_SHIFT) @ Affine.translation(middle, middle)
            @ Affine.rotation(_DEGREES) @ Affine.translation(-middle, -middle))  # fmt: skip


def ground(tiles: list[Path], side: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of tiles side by side, each turned, shape (rows, side)."""
    high = read_gray(tiles[0]).shape[0]
    across = -(-side // high)
    for top in range(0, side, high):
        chosen = [read_gray(tiles[k]) for k in rng.integers(len(tiles), size=across)]
        row = np.hstack([np.rot90(tile, rng.integers(4)) for tile in chosen])
        yield row[: min(high, side - top), :side]


def paint(tiles: list[Path], side: int, folder: Path) -> tuple[Path, Path]:
    """Both dates as GeoTIFFs of one grid; nodata is 0."""
    paths = folder / "before.tif", folder / "after.tif"
    rng = np.random.default_rng(side)
    form = {
        "driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8",
        "nodata": 0, "crs": "EPSG:32615", "transform": _PLACED, "tiled": True,
        "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(paths[0], "w", **form) as target:
        top = 0
        for rows in ground(tiles, side, rng):
            target.write(np.maximum(rows, 1)[None], window=Window(0, top, *rows.shape[::-1]))
            top += len(rows)
    with (
        rasterio.open(paths[0]) as source,
        WarpedVRT(source, src_transform=_PLACED @ true_motion(side), crs=source.crs,
                  transform=_PLACED, height=side, width=side, nodata=0,
                  resampling=Resampling.cubic) as moved,
        rasterio.open(paths[1], "w", **form) as target,
    ):  # fmt: skip
        for top in range(0, side, 512):
            window = Window(0, top, side, min(512, side - top))
            rows = moved.read(1, window=window)
            toned = 235 * (rows / 255) ** 0.8 + rng.normal(0, 4, rows.shape) + 10
            seen = np.where(rows > 0, np.clip(toned, 1, 255), 0).astype(np.uint8)
            target.write(seen[None], window=window)
    return paths


def measure(paths: tuple[Path, Path], folder: Path) -> tuple[float, float, float, Path]:
    """Seconds, seconds of the processor, peak MiB, and the report of one run."""
    report = folder / "align.json"
    command = [sys.executable, "-m", "geocd_cli", "align", *map(str, paths), "-o",
               str(folder / "aligned.tif"), "--report", str(report), "--quiet"]  # fmt: skip
    begun = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"geocd ended with status {os.waitstatus_to_exitcode(status)}")
    spent = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - begun, spent, usage.ru_maxrss / 1024, report


def errors(report: Path, side: int) -> tuple[float, float]:
    """Root mean square distance from the truth: of what was found, and of no motion."""
    found = read_measurement(report)
    spots = np.linspace(0.5, side - 0.5, _POINTS)
    points = np.stack(np.meshgrid(spots, spots), axis=-1).reshape(-1, 2)
    truth = transform_points(true_motion(side), points)
    reading = ~found.grid.transform @ _PLACED
    moved = found.alignment.motion(transform_points(reading, points))
    moved = transform_points(~reading, moved)
    mine, none = (((p - truth) ** 2).sum(axis=1).mean() ** 0.5 for p in (moved, points))
    return float(mine), float(none)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10000, 20000])
    wanted = parser.parse_args()
    tiles = sorted((wanted.data / "maps/images").iterdir())
    print(f"geocd {geocd.__version__}, {platform.machine()}, {os.cpu_count()} cores, load "
          f"{os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'side':>8}{'seconds':>9}{'CPU s':>8}{'s/Mpix':>8}{'peak MiB':>10}{'dense':>8}"
          f"{'as it lies':>12}")  # fmt: skip
    for side in wanted.sides:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            seconds, spent, peak, report = measure(paint(tiles, side, folder), folder)
            dense, none = errors(report, side)
            print(f"{side:>8}{seconds:>9.1f}{spent:>8.1f}{seconds / side**2 * 1e6:>8.3f}"
                  f"{peak:>10.0f}{dense:>8.3f}{none:>12.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
