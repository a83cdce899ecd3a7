"""How fast an archive is indexed, and how much of a run is scheduling.

python benchmarks/archives.py index --files 2000
python benchmarks/archives.py schedule --units 200 --seconds 0.05
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from affine import Affine

from geocd.archive.index import index_archive
from geocd.testing import write_raster


def index(files: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tiles"
        folder.mkdir()
        image = np.random.default_rng(0).integers(1, 255, (3, 32, 32)).astype(np.uint8)
        for number in range(files):
            row, col = divmod(number, 100)
            place = Affine(0.5, 0, 500_000 + 16 * col, 0, -0.5, 5_000_000 - 16 * row)
            write_raster(folder / f"{number:06}.tif", image, crs="EPSG:32633", transform=place)
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            index_archive([folder], Path(name) / "archive.parquet")
            seconds.append(time.perf_counter() - begun)
    first, second = seconds
    print(f"{files} files: first {first:.1f} s ({files / first:.0f} files/s), "
          f"second {second:.2f} s ({first / second:.0f} x faster)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("index").add_argument("--files", type=int, default=2000)
    arguments = parser.parse_args()
    index(arguments.files)


if __name__ == "__main__":
    main()
