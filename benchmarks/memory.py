"""Peak memory of ``geocd detect`` against the size of the raster.

    python benchmarks/memory.py --sides 5000 10000 20000 40000

Both dates are observed in the first 256 columns only, so that large rasters take minutes and not
hours: the network runs on those, every other stage on the whole raster. Prints one line a size:
seconds and the peak resident memory of the whole process, with the conditions above the table.
Options of detect after ``--`` are handed on.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

import geocd
from geocd.testing import paint_scene

_BLOCK = 256


def paint(path: Path, height: int, width: int, *, seed: int) -> None:
    """A tiled GeoTIFF, empty but for its first columns."""
    scene = np.clip(paint_scene((1024, _BLOCK), seed=seed), 1, 255)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", nodata=0,
        crs="EPSG:32633", transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6), tiled=True,
        blockxsize=_BLOCK, blockysize=_BLOCK, SPARSE_OK=True, compress="deflate",
    ) as dataset:  # fmt: skip
        for top in range(0, height, 1024):
            rows = min(1024, height - top)
            dataset.write(scene[:, :rows], window=Window(0, top, _BLOCK, rows))


def measure(folder: Path, side: int, options: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of one run."""
    for seed, name in enumerate(("before.tif", "after.tif")):
        paint(folder / name, side, side, seed=seed)
    command = [sys.executable, "-m", "geocd_cli", "detect", str(folder / "before.tif"),
               str(folder / "after.tif"), "-o", str(folder / "c.gpkg"), "--mask",
               str(folder / "m.tif"), "--quiet", "--align", "off", *options]  # fmt: skip
    begun = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"geocd ended with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10000, 20000, 40000])
    arguments, options = parser.parse_known_args()
    options = [option for option in options if option != "--"]
    print(f"geocd {geocd.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'side':>8} {'seconds':>8} {'peak MiB':>9}")
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak = measure(Path(folder), side, options)
        print(f"{side:>8} {seconds:>8.1f} {peak:>9.0f}", flush=True)


main()
