"""A painted bitemporal survey: two GeoTIFFs, and the truth about what changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import Resampling, calculate_default_transform, reproject
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geocd.config import CLASS_CODES
from geocd.errors import ConfigError
from geocd.rasters.grid import Grid, transformer_between
from geocd.testing.camera import Light
from geocd.testing.files import write_raster
from geocd.testing.plan import Stage, Suburb
from geocd.testing.render import render
from geocd.testing.suburb import plan_suburb
from geocd.testing.textures import Image

Direction = Literal["appeared", "disappeared"]

_MARGIN = 40
"""Pixels painted around the before image, so that the after image can reach beyond it."""
_CORNER = 0.3
"""Legs of the triangle that the after survey did not fly, as a share of the shorter side."""
_FINER = 0.9
"""Pixel size of the after image over that of the before image."""
JUNE_MORNING = Light(azimuth=118, elevation=46, lushness=0.62, gains=(1.0, 1.0, 0.98), haze=0.03)
SEPTEMBER_NOON = Light(
    azimuth=210, elevation=42, lushness=0.3, gains=(1.04, 1.0, 0.94), haze=0.05, exposure=0.95
)
_BEFORE_DATE, _AFTER_DATE = "2019:06:14 10:12:00", "2024:09:02 14:35:00"


@dataclass(frozen=True, slots=True)
class PaintedChange:
    """One thing that was built or pulled down between the dates.

    Attributes:
        kind: a key of `geocd.config.CLASS_CODES`.
        direction: whether it came or went.
        polygon: its outline seen from above, in the CRS of the before image.
        pixels: its pixels in the truth mask.
    """

    kind: Literal["building", "road"]
    direction: Direction
    polygon: shapely.Polygon
    pixels: int


@dataclass(frozen=True, slots=True)
class PaintedSurvey:
    """Two images of one place, and what really changed.

    Attributes:
        before: GeoTIFF, 3 bands of uint8, valid everywhere.
        after: GeoTIFF in another CRS, at another resolution, with nodata 0 around it.
        changes: what changed, one thing each.
        truth: the same as a table with the columns kind, direction and geometry.
        truth_mask: shape of the grid, uint8: 0 or the value of `CLASS_CODES`.
        grid: where the pixels of the before image sit.
        offset_px: (row, col), in pixels of the before image: what sits at (r, c) before is
            found at (r, c) + offset_px when after is put on the grid by its georeferencing.
    """

    before: Path
    after: Path
    changes: tuple[PaintedChange, ...]
    truth: geopandas.GeoDataFrame
    truth_mask: NDArray[np.uint8]
    grid: Grid
    offset_px: tuple[float, float]


def paint_survey(
    folder: Path,
    *,
    size: tuple[int, int] = (1024, 1024),
    gsd: float = 0.5,
    seed: int = 7,
    buildings_appeared: int = 10,
    buildings_disappeared: int = 4,
    roads_appeared: int = 1,
    misregistration_px: tuple[float, float] = (5.0, -3.5),
    before_crs: str = "EPSG:32633",
    after_crs: str = "EPSG:3035",
    lonlat: tuple[float, float] = (13.4, 52.5),
    lights: tuple[Light, Light] = (JUNE_MORNING, SEPTEMBER_NOON),
) -> PaintedSurvey:
    """Paint ``before.tif`` and ``after.tif`` of a suburb in which some things change.

    No imagery is used. Beside the changes asked for, the dates differ as real ones do: sun,
    season, haze, crops, parked cars, some trees. The after image misses one corner of the
    before image, as where a survey ends.

    Args:
        folder: where the files go; made if it is not there, files are replaced.
        size: (height, width) of the before image, in pixels.
        gsd: metres per pixel of the before image.
        seed: equal arguments give equal pixels.
        buildings_appeared: buildings there after, not before.
        buildings_disappeared: buildings there before, not after.
        roads_appeared: streets there after, not before.
        misregistration_px: error put into after's georeferencing; see `PaintedSurvey.offset_px`.
        before_crs: a projected CRS in metres.
        after_crs: any CRS.
        lonlat: where the place pretends to be, degrees.
        lights: sun, season and camera of the two dates.

    Raises:
        ConfigError: before's CRS is not in metres, or the place is too small for the changes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    grid = _before_grid(size, gsd, CRS.from_user_input(before_crs), lonlat)
    margin = _MARGIN + math.ceil(max(map(abs, misregistration_px)))
    canvas = grid.crop(slice(-margin, size[0] + margin), slice(-margin, size[1] + margin))
    suburb = plan_suburb(
        canvas.width * gsd,
        canvas.height * gsd,
        seed=seed,
        buildings_appeared=buildings_appeared,
        buildings_disappeared=buildings_disappeared,
        roads_appeared=roads_appeared,
        observed=_seen_twice(size, gsd, margin, misregistration_px),
    )
    first = render(suburb, "before", lights[0], shape=canvas.shape, gsd=gsd, seed=seed)
    inside = (slice(margin, margin + size[0]), slice(margin, margin + size[1]))
    before = write_raster(
        folder / "before.tif",
        first[:, *inside],
        grid=grid,
        tags={"TIFFTAG_DATETIME": _BEFORE_DATE},
    )
    second = render(suburb, "after", lights[1], shape=canvas.shape, gsd=gsd, seed=seed)
    wrong = Affine.translation(misregistration_px[1], misregistration_px[0])
    after = _write_after(
        folder / "after.tif",
        second,
        Grid(canvas.crs, canvas.transform @ wrong, *canvas.shape),
        flown=_flown(canvas.shape, size, margin),
        crs=CRS.from_user_input(after_crs),
    )
    changes, mask = _truth(suburb, canvas, grid)
    table = geopandas.GeoDataFrame(
        {"kind": [c.kind for c in changes], "direction": [c.direction for c in changes]},
        geometry=[c.polygon for c in changes],
        crs=grid.crs,
    )
    return PaintedSurvey(before, after, changes, table, mask, grid, misregistration_px)


def _before_grid(size: tuple[int, int], gsd: float, crs: CRS, lonlat: tuple[float, float]) -> Grid:
    if not crs.is_projected or crs.linear_units_factor[1] != 1.0:
        raise ConfigError(f"before's CRS must be in metres, got {crs}; try EPSG:32633")
    x, y = transformer_between(CRS.from_epsg(4326), crs).transform(*lonlat)
    return Grid(crs, Affine(gsd, 0, round(x), 0, -gsd, round(y)), *size)


def _corner(size: tuple[int, int]) -> NDArray[np.float64]:
    """The triangle (x, y) of the before image, in pixels, that after does not show."""
    height, width = size
    leg = _CORNER * min(size)
    return np.array([[width, height], [width, height - leg], [width - 1.4 * leg, height]])


def _seen_twice(
    size: tuple[int, int], gsd: float, margin: int, offset: tuple[float, float]
) -> shapely.Polygon:
    """Ground in metres of the canvas that both dates show, whatever the offset is taken for."""
    slack = 8 + max(map(abs, offset))
    height, width = size
    frame = shapely.box(0, 0, width, height).buffer(-slack, join_style="mitre")
    seen = frame.difference(shapely.Polygon(_corner(size)).buffer(slack))
    moved = shapely.transform(seen, lambda xy: (xy + margin) * gsd)
    if not isinstance(moved, shapely.Polygon) or moved.is_empty:
        raise ConfigError(f"{size} pixels leave no ground that both dates show; paint a larger one")
    return moved


def _flown(shape: tuple[int, int], size: tuple[int, int], margin: int) -> NDArray[np.uint8]:
    """255 where the after survey has a picture, 0 beyond the missing corner."""
    flown = np.full(shape, 255, np.uint8)
    corner = _corner(size)
    # The edge of the survey runs on through the painted margin.
    along = (corner[2] - corner[1]) * 10
    far = np.array([corner[1] - along, corner[2] + along])
    beyond = far + np.array([10 * size[1], 10 * size[0]])
    outside = np.concatenate([far, beyond[::-1]])
    cv2.fillPoly(flown, [np.round(outside + margin).astype(np.int32)], (0,))
    return flown


def _write_after(
    path: Path, image: Image, georeferencing: Grid, *, flown: NDArray[np.uint8], crs: CRS
) -> Path:
    """Warp an image to another CRS and a finer grid of its own, and write it."""
    source = {"src_transform": georeferencing.transform, "src_crs": georeferencing.crs}
    bounds = georeferencing.footprint.bounds
    ends = (georeferencing.crs, crs, georeferencing.width, georeferencing.height, *bounds)
    coarse, _, _ = calculate_default_transform(*ends)
    resolution = (coarse.a * _FINER, -coarse.e * _FINER)
    transform, width, height = calculate_default_transform(*ends, resolution=resolution)
    target = {"dst_transform": transform, "dst_crs": crs}
    warped, there = np.zeros((3, height, width), np.uint8), np.zeros((height, width), np.uint8)
    reproject(image, warped, **source, **target, resampling=Resampling.cubic)
    reproject(flown, there, **source, **target, resampling=Resampling.nearest)
    # Cubic weights undershoot beside bright roofs: a valid pixel must not become nodata.
    pixels = np.where(there > 0, np.maximum(warped, 1), 0).astype(np.uint8)
    return write_raster(
        path,
        pixels,
        crs=crs,
        transform=transform,
        nodata=0,
        tags={"TIFFTAG_DATETIME": _AFTER_DATE},
    )


def _truth(
    suburb: Suburb, canvas: Grid, grid: Grid
) -> tuple[tuple[PaintedChange, ...], NDArray[np.uint8]]:
    """What changed, in the CRS of a grid, and the same as a mask on it."""
    metres_to_crs = (canvas.transform @ Affine.scale(1 / canvas.transform.a)).to_shapely()
    old = shapely.union_all([s.polygon for s in suburb.streets if s.stage == "both"])
    mask = np.zeros(grid.shape, np.uint8)
    changes = []

    def _add(kind: Literal["building", "road"], stage: Stage, shape: BaseGeometry) -> None:
        if stage == "both":
            return
        # The junction with an older street was asphalt already; what it cuts off is a sliver.
        largest = max(shapely.get_parts(shape), key=lambda part: part.area)
        polygon = affine_transform(largest, metres_to_crs)
        burnt = rasterize([(polygon, 1)], out_shape=grid.shape, transform=grid.transform) > 0
        mask[burnt] = CLASS_CODES[kind]
        direction: Direction = "appeared" if stage == "after" else "disappeared"
        changes.append(PaintedChange(kind, direction, polygon, int(burnt.sum())))

    for street in suburb.streets:
        _add("road", street.stage, street.polygon.difference(old))
    for building in suburb.buildings:
        _add("building", building.stage, building.polygon)
    return tuple(changes), mask
