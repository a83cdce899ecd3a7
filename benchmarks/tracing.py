"""Time and peak memory of making a map's polygons, beside the obvious way.

    python benchmarks/tracing.py --side 20000 --objects 100000 [--specks 1000000]

Paints a score raster with buildings, turned and L-shaped, and roads, then runs two ways, each in
a process of its own:

* geocd: trace by row bands, smooth, regularise, measure, write the GeoPackage with its styles;
* plain: read the whole raster, `rasterio.features.shapes`, geopandas, `to_file`.

The plain way neither measures nor smooths, and keeps every speck. Specks are single pixels that
are below the minimum mapping unit. Prints seconds, peak resident memory and the ratio, with the
conditions above the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from affine import Affine
from rasterio.crs import CRS

_CLASSES = ("building", "road")
_THRESHOLD = 0.5
_ROWS = 512


def paint(path: Path, side: int, objects: int, specks: int, *, seed: int = 0) -> None:
    """A score raster of ``side`` x ``side`` pixels of 0.5 m with about so many objects."""
    from geocd.rasters.grid import Grid
    from geocd.rasters.write import RowWriter

    rng = np.random.default_rng(seed)
    across = max(1, round(objects**0.5))
    cell = side / across
    grid = Grid(CRS.from_epsg(32633), Affine(0.5, 0, 5e5, 0, -0.5, 5e6), side, side)
    rows_of_cells = [_shapes(rng, row, across, cell) for row in range(across)]
    with RowWriter(path, grid, bands=_CLASSES) as writer:
        record = {"geocd": "benchmark", "thresholds": dict.fromkeys(_CLASSES, _THRESHOLD)}
        writer.tag(record)
        for top in range(0, side, _ROWS):
            height = min(_ROWS, side - top)
            band = np.full((2, height, side), 8, np.uint8)
            first, last = int((top - cell) // cell), int((top + height) // cell) + 1
            for row in range(max(0, first), min(across, last + 1)):
                for plane, corners in rows_of_cells[row]:
                    cv2.fillPoly(band[plane], [np.rint(corners - (0, top)).astype(np.int32)], 220)
            alone = rng.integers(0, height * side, round(specks * height / side))
            band[0].reshape(-1)[alone] = 200
            writer.write(band)


def _shapes(rng: np.random.Generator, row: int, across: int, cell: float):  # type: ignore[no-untyped-def]
    """(class, corners) of the objects in a row of cells; every tenth is a road."""
    found = []
    for col in range(across):
        centre = np.array([col + 0.5, row + 0.5]) * cell
        long, wide = cell * rng.uniform(0.25, 0.36), cell * rng.uniform(0.15, 0.22)
        corners = np.array([(-long, -wide), (long, -wide), (long, wide), (-long, wide)])
        if col % 10 == 9:
            corners = corners * (1.2, 0.25)
        elif col % 3 == 0:
            corners = np.array([(-long, -wide), (long, -wide), (long, 0), (0, 0), (0, wide),
                                (-long, wide)])  # fmt: skip
        turn = rng.uniform(0, np.pi / 2)
        spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        found.append((int(col % 10 == 9), corners @ spin + centre))
    return found


def run_geocd(scores: Path, output: Path) -> int:
    """Our way; returns the number of polygons."""
    from geocd.config import VectorizeConfig
    from geocd.maps import write_changes
    from geocd.vectorize import trace_changes

    changes = trace_changes(scores, classes=_CLASSES, thresholds=(_THRESHOLD,) * 2,
                            config=VectorizeConfig())  # fmt: skip
    write_changes(changes, output, provenance={"geocd": "benchmark"})
    return len(changes)


def run_plain(scores: Path, output: Path) -> int:
    """The obvious way; returns the number of polygons."""
    import geopandas
    import rasterio
    import rasterio.features
    import shapely

    with rasterio.open(scores) as dataset:
        building, road = dataset.read()
        transform, crs = dataset.transform, dataset.crs
    limit = _THRESHOLD * 254
    codes = np.where(building >= limit, np.uint8(1), np.where(road >= limit, np.uint8(2), 0))
    codes = codes.astype(np.uint8)
    shapes = rasterio.features.shapes(codes, mask=codes > 0, connectivity=8, transform=transform)
    found = [(shapely.geometry.shape(shape), value) for shape, value in shapes]
    layer = geopandas.GeoDataFrame({"value": [value for _, value in found]},
                                   geometry=[shape for shape, _ in found], crs=crs)  # fmt: skip
    layer.to_file(output, driver="GPKG")
    return len(layer)


def measure(way: str, scores: Path, output: Path) -> tuple[float, float, float]:
    """Seconds, seconds of the CPU and peak MiB of a way, in a process of its own."""
    output.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--way", way, str(scores), str(output)]
    begun = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{way} ended with status {os.waitstatus_to_exitcode(status)}")
    seconds = time.perf_counter() - begun
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=4000, help="pixels")
    parser.add_argument("--objects", type=int, default=4000)
    parser.add_argument("--specks", type=int, default=0)
    parser.add_argument("--only", choices=["geocd", "plain"])
    parser.add_argument("--way", nargs=3, metavar=("WAY", "SCORES", "OUTPUT"))
    wanted = parser.parse_args()
    if wanted.way:
        way, scores, output = wanted.way
        run = {"geocd": run_geocd, "plain": run_plain}[way]
        print(f"  {run(Path(scores), Path(output))} polygons", flush=True)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load "
          f"{os.getloadavg()[0]:.1f}; {wanted.side} x {wanted.side} pixels, "
          f"{wanted.objects} objects, {wanted.specks} specks")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        scores = Path(folder) / "scores.tif"
        paint(scores, wanted.side, wanted.objects, wanted.specks)
        figures = {}
        for way in [wanted.only] if wanted.only else ["plain", "geocd"]:
            figures[way] = measure(way, scores, Path(folder) / "out.gpkg")
            seconds, cpu, peak = figures[way]
            print(f"{way:>6}: {seconds:7.1f} s, {cpu:6.1f} s of the CPU, {peak:6.0f} MiB",
                  flush=True)  # fmt: skip
    if len(figures) == 2:
        plain, ours = figures["plain"], figures["geocd"]
        ratios = [mine / other for mine, other in zip(ours, plain, strict=True)]
        print("geocd / plain: {:.2f} x the time, {:.2f} x the CPU, {:.2f} x the memory".format(
            *ratios))  # fmt: skip


if __name__ == "__main__":
    main()
