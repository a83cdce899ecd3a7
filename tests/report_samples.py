"""A painted pair with changes at known places, as the tests of the report want it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from geocd.maps import write_changes
from geocd.testing import paint_scene, write_raster

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
NASTY = "<script>window.hacked=1</script>\"'&"
SHAPE = (240, 320)
BOXES = ((40, 40, 100, 90, "building"), (120, 20, 132, 200, "road"),
         (200, 150, 230, 175, "building"), (250, 40, 262, 52, NASTY))  # fmt: skip
"""Left, top, right, bottom in pixels, and kind; the areas are 3000, 2160, 750 and 144 pixels."""
SCORES = (0.9, 0.55, 0.8, 0.7)


@dataclass(frozen=True)
class Sample:
    """Files of a run."""

    before: Path
    after: Path
    mask: Path
    changes: Path

    @property
    def images(self) -> dict[str, Path]:
        return {"before": self.before, "after": self.after}


def change_frame(boxes=BOXES, scores=SCORES, *, crs=UTM, transform=NORTH_UP):
    """Change polygons, one a box."""
    corners = [(*(transform @ box[:2]), *(transform @ box[2:4])) for box in boxes]
    pixels = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
    side = None if crs is None else abs(transform.a)
    return geopandas.GeoDataFrame(
        {
            "id": [f"c{i}" for i in range(len(boxes))],
            "kind": [kind for *_, kind in boxes],
            "score_mean": list(scores),
            "area_m2": [np.nan if side is None else n * side * side for n in pixels],
            "area_px": pixels,
            "observed": [1.0] * len(boxes),
            "direction": ["appeared"] * len(boxes),
        },
        geometry=[
            shapely.MultiPolygon([shapely.box(left, bottom, right, top)])
            for left, top, right, bottom in corners
        ],
        crs=None if crs is None else crs.to_wkt(),
    )


def record(**more):
    """What made the changes."""
    return {
        "geocd": "0.1.0",
        "created": "2024-09-03T10:00:00+00:00",
        "inputs": {
            "before": {"name": f"/data/{NASTY}/b.tif", "files": [], "date": "2019-06-14"},
            "after": {"name": "/data/a.tif", "files": [], "date": "2024-09-02"},
        },
        "weights": {"name": f"w{NASTY}", "architecture": "snunet", "sha256": "0" * 64},
        "config": {"bands": None, "note": NASTY},
        "alignment": {
            "status": "applied", "method": "features", "reason": NASTY, "shift_px": 4.0,
            "residual_before_px": {"median": 4.0}, "residual_after_px": {"median": 0.25},
            "motion": {"affine": [1, 0, 4, 0, 1, 0], "field": None},
            "grid_transform": list(NORTH_UP[:6]),
        },
    } | more  # fmt: skip


def layers_of_the_run(transform=NORTH_UP, crs=UTM):
    """A road's middle, ground that was not observed, and what was compared, by name."""
    shapes = {
        "centrelines": shapely.LineString([transform @ (20, 112), transform @ (180, 112)]),
        "not_observed": shapely.box(*(transform @ (300, SHAPE[0])), *(transform @ (SHAPE[1], 0))),
        "footprint": shapely.box(*(transform @ (0, SHAPE[0])), *(transform @ (SHAPE[1], 0))),
    }
    return {
        name: geopandas.GeoDataFrame({"area_m2": [1.0]}, geometry=[shape], crs=crs and crs.to_wkt())
        for name, shape in shapes.items()
    }


def paint_run(
    folder: Path, *, georeferenced=True, frame=None, provenance=None, layers=None
) -> Sample:
    """Images, change map and changes; after lies 4 pixels to the right of where it should."""
    crs = UTM if georeferenced else None
    transform = NORTH_UP if georeferenced else Affine.identity()
    before = paint_scene(SHAPE, seed=3) // 2 + 64
    after = before.copy()
    codes = np.zeros(SHAPE, np.uint8)
    for left, top, right, bottom, kind in BOXES:
        after[:, top:bottom, left:right] = 250
        codes[top:bottom, left:right] = 2 if kind == "road" else 1
    codes[:, 300:] = 255
    after = np.roll(after, 4, axis=2)
    paths = [write_raster(folder / name, image, crs=crs, transform=transform)
             for name, image in (("before.tif", before), ("after.tif", after),
                                 ("mask.tif", codes))]  # fmt: skip
    if frame is None:
        shown = transform if georeferenced else Affine.scale(1, -1)
        frame = change_frame(crs=crs, transform=shown)
    changes = folder / "changes.gpkg"
    write_changes(frame, changes, provenance=record() if provenance is None else provenance,
                  layers=layers)  # fmt: skip
    return Sample(*paths, changes)
