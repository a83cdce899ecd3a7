"""Peak memory of ``geocd detect`` against the size of the raster.

    python benchmarks/memory.py --sides 5000 10000 20000 40000

Both dates are observed in the first 256 columns only, so that large rasters take minutes and not
hours: the network runs on those, every other stage on the whole raster. Prints one line a size:
seconds and the peak resident memory of the whole process, with the conditions above the table.
Options of detect after ``--`` are handed on.

With ``--stages`` the peak of every stage by itself (Linux: the kernel's mark is set back when a
stage begins), from a run in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
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


class _Peaks:
    """Peak resident memory of this process in MiB, stage by stage."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self._stage = "open"
        self._begin()

    def _begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def __call__(self, stage: str, done: int, total: int) -> None:
        """As a run tells its progress."""
        if stage != self._stage:
            self.end()
            self._stage = stage

    def end(self) -> None:
        """The stage is over."""
        status = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in status if line.startswith("VmHWM"))
        peak = int(line.split()[1]) / 1024
        self.found[self._stage] = max(self.found.get(self._stage, 0.0), peak)
        self._begin()


def stages(folder: Path) -> None:
    """Run a painted pair in this process and print the peak of every stage."""
    peaks = _Peaks()
    geocd.detect(
        folder / "before.tif", folder / "after.tif", folder / "c.gpkg", mask=folder / "m.tif",
        config=geocd.DetectConfig(align=geocd.AlignConfig(mode="off")), progress=peaks,
    )  # fmt: skip
    peaks.end()
    told = ", ".join(f"{stage} {peak:.0f}" for stage, peak in peaks.found.items())
    print(f"{'':>8} MiB by stage: {told}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10000, 20000, 40000])
    parser.add_argument("--stages", action="store_true", help="the peak of every stage, too")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments, options = parser.parse_known_args()
    if arguments.run:
        stages(arguments.run)
        return
    options = [option for option in options if option != "--"]
    print(f"geocd {geocd.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'side':>8} {'seconds':>8} {'peak MiB':>9}")
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak = measure(Path(folder), side, options)
            print(f"{side:>8} {seconds:>8.1f} {peak:>9.0f}", flush=True)
            if arguments.stages:
                again = Path(folder) / "stages"
                again.mkdir()
                for name in ("before.tif", "after.tif"):
                    (Path(folder) / name).rename(again / name)
                subprocess.run([sys.executable, __file__, "--run", str(again)], check=True)


main()
