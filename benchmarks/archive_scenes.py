"""Painted archives for benchmarks, planned, and the commands that run them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from affine import Affine

from geocd.archive.index import index_archive
from geocd.archive.plan import plan_archive
from geocd.archive.rules import PlanRules
from geocd.testing import paint_scene, write_raster
from geocd.testing.archives import paint_archive

_STAND_IN = Path(__file__).parents[1] / "tests" / "archive_stub.py"
_BLOCK = 2304
"""Side of what is painted, and repeated beside itself."""


def planned_history(folder: Path) -> Path:
    """The plan of an archive of three dates in two CRSs, with gaps and a damaged file: 24 units."""
    paint_archive(folder / "tiles")
    index_archive([folder / "tiles"], folder / "archive.parquet")
    rules = PlanRules(unit_size=192, pairs="all")
    return plan_archive(folder / "archive.parquet", folder / "plan.parquet", rules=rules).output


def planned_square(folder: Path, side: int, unit_size: int) -> Path:
    """The plan of two dates of a square, with a new block every few hundred pixels."""
    size = min(side, _BLOCK)
    before = paint_scene((size, size), seed=5) // 2 + 40
    after = before.copy()
    for row in range(100, size - 60, 300):
        for col in range(100, size - 60, 300):
            after[:, row : row + 40, col : col + 40] = 250
    (folder / "tiles").mkdir()
    times = -(-side // size)
    for date, image in (("2015-06-01", before), ("2018-06-01", after)):
        for row, col in np.ndindex(times, times):
            place = Affine(0.5, 0, 500_000 + size / 2 * col, 0, -0.5, 5_000_000 - size / 2 * row)
            write_raster(folder / "tiles" / f"{date}_{row}_{col}.tif", image, crs="EPSG:32633",
                         transform=place)  # fmt: skip
    index_archive([folder / "tiles"], folder / "a.parquet", date_pattern="YYYY-MM-DD")
    rules = PlanRules(unit_size=unit_size)
    return plan_archive(folder / "a.parquet", folder / "p.parquet", rules=rules).output


def command(plan: Path, out: Path, *options: object, cheap: bool = False) -> list[str]:
    """`geocd archive run`, or the same run with a stand-in for the network."""
    run = (
        [_STAND_IN, plan, out] if cheap else ["-m", "geocd_cli", "archive", "run", plan, "-o", out]
    )
    return [sys.executable, *map(str, [*run, *options])]
