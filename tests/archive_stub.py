"""A cheap stand-in for `detect`, and a run with it that can be started as a process and killed.

python tests/archive_stub.py PLAN FOLDER WORKERS
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import rasterio

from geocd.archive.run import run_plan
from geocd.archive.unit import do_unit
from geocd.rasters.grid import Grid
from geocd.rasters.write import RowWriter


def cheap_detect(before, after, output, *, scores, dates, alignment, config):
    """Scores of 254 where after is brighter by 60; for dates on one lattice."""
    with rasterio.open(before) as first, rasterio.open(after) as second:
        window = second.window(*first.bounds)
        old, new = first.read(1).astype(int), second.read(1, window=window).astype(int)
        seen = (first.dataset_mask() > 0) & (second.dataset_mask(window=window) > 0)
        grid = Grid(first.crs, first.transform, first.height, first.width)
    with RowWriter(scores, grid, bands=("building", "road")) as writer:
        writer.tag({"thresholds": {"building": 0.5, "road": 0.5}, "weights": {"name": "stub"}})
        found = np.where(seen, np.where(new - old > 60, 254, 0), 255).astype(np.uint8)
        writer.write(np.stack([found, np.where(seen, 0, 255).astype(np.uint8)]))
    time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
    return SimpleNamespace(changes=geopandas.GeoDataFrame(
        {"direction": []}, geometry=[], crs=grid.crs.to_wkt()))  # fmt: skip


def measure_nothing(before, after, output, *, config, made_by):
    """Stands in for the measuring of a pair."""
    Path(output).write_text("{}")


CHEAP = SimpleNamespace(detect=cheap_detect, measure=measure_nothing)


def work(job):
    """`do_unit` with the stand-in; notes that it began, and in which process."""
    sys.modules["geocd.pipeline"] = CHEAP
    with (Path(job.folder).parent / f"{Path(job.folder).name}.log").open("a") as log:
        log.write(f"{job.name} {os.getpid()}\n")
    return do_unit(job)


if __name__ == "__main__":
    print(run_plan(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), work=work).report())
