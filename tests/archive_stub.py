"""A cheap stand-in for `detect`, and a run with it that can be started as a process and killed.

python tests/archive_stub.py PLAN FOLDER [--workers N] [--shard I/N] [--keep-free BYTES]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import rasterio

from geocd.archive import unit
from geocd.archive.run import run_plan
from geocd.errors import GeocdError
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
        wait_while_held("STUB_HOLD")  # the file is not whole yet
    return SimpleNamespace(changes=geopandas.GeoDataFrame(
        {"direction": []}, geometry=[], crs=grid.crs.to_wkt()))  # fmt: skip


def measure_nothing(before, after, output, *, config, made_by):
    """Stands in for the measuring of a pair."""
    Path(output).write_text("{}")


CHEAP = SimpleNamespace(detect=cheap_detect, measure=measure_nothing)


def slow_publish(publish, drafts, folder, **options):
    """Half of the outputs of a unit, and the other half when it may."""
    for draft in drafts:
        publish([draft], folder, **options)
        if folder.name == unit.UNITS:
            wait_while_held("STUB_HOLD_PUBLISH")


def wait_while_held(name):
    """Wait as long as the file is there that an environment variable names."""
    while name in os.environ and Path(os.environ[name]).exists():
        time.sleep(0.01)


def work(job):
    """`do_unit` with the stand-in; notes that it began, and in which process."""
    sys.modules["geocd.pipeline"] = CHEAP
    if "STUB_HOLD_PUBLISH" in os.environ and not isinstance(unit.publish, partial):
        unit.publish = partial(slow_publish, unit.publish)
    with (Path(job.folder).parent / f"{Path(job.folder).name}.log").open("a+") as log:
        log.write(f"{job.name} {os.getpid()}\n")
        log.seek(0)
        begun = len(log.readlines())
    if begun == int(os.environ.get("STUB_FILL", "0")):
        fill(Path(job.folder).parent / "ballast")
    return unit.do_unit(job)


def fill(path):
    """Another program takes all that is left of the disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("plan")
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shard", default="1/1")
    parser.add_argument("--keep-free", type=int, default=0)
    options = vars(parser.parse_args())
    try:
        result = run_plan(options.pop("plan"), options.pop("folder"), work=work, **options)
    except GeocdError as error:
        sys.exit(f"Error: {error}")
    print(result.report())


if __name__ == "__main__":
    main()
