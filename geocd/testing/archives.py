"""A painted survey archive with known history: tiles, gaps, and everything that goes wrong."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import Resampling, calculate_default_transform, reproject

from geocd.rasters.grid import Grid
from geocd.testing.files import write_raster
from geocd.testing.textures import paint_scene

DATES = ("2015-05-20", "2018-06-11", "2021-05-30")
"""The dates of the painted surveys."""
_UTM, _EQUAL_AREA = CRS.from_epsg(32633), CRS.from_epsg(3035)
_TILE = 96
_SIDE = 4 * _TILE
_GRID = Grid(_UTM, Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), _SIDE, _SIDE)
# Missing tiles, by row and column, of the three dates.
_GAPS = (
    {(0, 3), (3, 0)},
    {(0, 0), (0, 3), (1, 0), (3, 3)},
    {(0, 0), (0, 3), (2, 0), (3, 0), (3, 3)},
)
# Rows, columns and the dates on which a bright block stands there; each crosses tile borders.
_BLOCKS = (
    (slice(80, 120), slice(110, 150), (False, True, True)),
    (slice(170, 215), slice(175, 210), (False, True, False)),
    (slice(270, 300), slice(150, 240), (False, False, True)),
)


@dataclass(frozen=True, slots=True)
class PaintedHistory:
    """A block that stands on some of the dates.

    Attributes:
        polygon: its outline in EPSG:32633.
        stands: for each of `DATES`, whether it is there.
    """

    polygon: shapely.Polygon
    stands: tuple[bool, bool, bool]


@dataclass(frozen=True, slots=True)
class PaintedArchive:
    """What `paint_archive` has written.

    Attributes:
        folder: the archive, a folder for each date.
        tiles: sound tiles that have a date, without the copy.
        damaged: a tile that was cut short.
        undated: a tile without a date.
        copy: a tile that is there under another name, too.
        blocks: what changed.
        grid: of the whole place, EPSG:32633.
    """

    folder: Path
    tiles: tuple[Path, ...]
    damaged: Path
    undated: Path
    copy: Path
    blocks: tuple[PaintedHistory, ...]
    grid: Grid


def paint_archive(folder: Path, *, seed: int = 3) -> PaintedArchive:
    """Paint 40 files: three dates of one place in two CRSs, with gaps.

    Tiles of 96 x 96 pixels of half a metre, 14, 12 and 11 a date; the last date is in EPSG:3035,
    the others in EPSG:32633. One more file is damaged, one has no date, one is a copy.

    Args:
        folder: where the files go; made if it is not there.
        seed: of the ground.
    """
    ground = paint_scene((_SIDE, _SIDE), seed=seed) // 2 + 64
    tiles: list[Path] = []
    for number, (date, gaps) in enumerate(zip(DATES, _GAPS, strict=True)):
        image = ground.copy()
        for rows, cols, stands in _BLOCKS:
            if stands[number]:
                image[:, rows, cols] = 250
        grid = _GRID
        if number == 2:
            image, grid = _reprojected(image)
        tiles += _write_tiles(folder / f"survey_{date[:4]}", image, grid, date, gaps)
    odd = folder / "odd"
    odd.mkdir(parents=True, exist_ok=True)
    damaged, undated = odd / "cut_short.tif", odd / "undated.tif"
    damaged.write_bytes(tiles[0].read_bytes()[:-2000])
    write_raster(undated, ground[:, :_TILE, :_TILE], grid=_GRID.crop(slice(0, _TILE),
                                                                    slice(0, _TILE)))  # fmt: skip
    copy = Path(shutil.copyfile(tiles[1], odd / "copy_of_a_tile.tif"))
    return PaintedArchive(folder, tuple(tiles), damaged, undated, copy, _histories(), _GRID)


def _histories() -> tuple[PaintedHistory, ...]:
    left, top = _GRID.transform @ (0, 0)
    return tuple(
        PaintedHistory(
            shapely.box(left + cols.start / 2, top - rows.stop / 2, left + cols.stop / 2,
                        top - rows.start / 2),
            stands,
        )
        for rows, cols, stands in _BLOCKS
    )  # fmt: skip


def _reprojected(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Grid]:
    """The image in EPSG:3035, with 0 around it."""
    left, top = _GRID.transform @ (0, 0)
    right, bottom = _GRID.transform @ (_SIDE, _SIDE)
    transform, width, height = calculate_default_transform(
        _UTM, _EQUAL_AREA, _SIDE, _SIDE, left, bottom, right, top, resolution=0.5
    )
    turned = np.zeros((3, height, width), np.uint8)
    reproject(image, turned, src_transform=_GRID.transform, src_crs=_UTM,
              dst_transform=transform, dst_crs=_EQUAL_AREA, src_nodata=0, dst_nodata=0,
              resampling=Resampling.cubic)  # fmt: skip
    return turned, Grid(_EQUAL_AREA, transform, height, width)


def _write_tiles(
    folder: Path, image: NDArray[np.uint8], grid: Grid, date: str, gaps: set[tuple[int, int]]
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    edges = [np.linspace(0, n, 5).astype(int) for n in grid.shape]
    for row in range(4):
        for col in range(4):
            if (row, col) in gaps:
                continue
            rows, cols = (
                slice(int(edge[i]), int(edge[i + 1]))
                for edge, i in zip(edges, (row, col), strict=True)
            )
            path = folder / f"tile_{row}_{col}.tif"
            tags = {"TIFFTAG_DATETIME": f"{date.replace('-', ':')} 10:00:00"}
            nodata = 0 if grid.crs == _EQUAL_AREA else None
            write_raster(path, image[:, rows, cols], grid=grid.crop(rows, cols), nodata=nodata,
                         tags=tags)  # fmt: skip
            written.append(path)
    return written
