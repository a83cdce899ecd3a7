"""One date: a file, a URL, a VRT or a folder of tiles, read as one raster on any grid."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from geocd.errors import BandError, CrsMismatchError, InputError, RasterOpenError
from geocd.rasters.direct import read_pixels, whole_pixel_shift
from geocd.rasters.grid import Grid, apply_transform, reproject_geometry
from geocd.rasters.warp import FieldWarp, Place, kernel_scale, transform_array

log = logging.getLogger(__name__)

RASTER_SUFFIXES = {".tif", ".tiff", ".vrt", ".png", ".jpg", ".jpeg", ".jp2", ".webp", ".img"}
"""Extensions of the files that a folder of tiles is made of."""
# Rasters without a CRS are warped between two transforms of one and the same plane; which
# CRS is named does not matter, as long as it is the same on both sides.
_PLANE = CRS.from_epsg(3857)
_MAX_OPEN = 48
_ASTRAY_PROBES = 65
_STRETCH_SIZE = 512
_STRETCH_PERCENTILES = (0.5, 99.5)
_DATE_TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATE", "DATETIME", "TIFFTAG_DATETIME")
_DATE_FORMATS = ("%Y:%m:%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")


@dataclass(frozen=True, slots=True)
class SceneTile:
    """One file of a scene, as its header describes it."""

    path: str
    grid: Grid
    bands: tuple[int, ...]
    dtype: str
    nodata: float | None
    alpha: int | None
    date: str | None


def _parse_date(text: str) -> str | None:
    for form in _DATE_FORMATS:
        try:
            return datetime.strptime(text.strip().removesuffix("Z")[:19], form).date().isoformat()
        except ValueError:
            continue
    return None


def _read_date(dataset: Any) -> str | None:
    tags = {k.upper(): v for k, v in dataset.tags().items()}
    tags |= {k.upper(): v for k, v in dataset.tags(ns="IMAGERY").items()}
    dates = [_parse_date(tags[tag]) for tag in _DATE_TAGS if tag in tags]
    return next((date for date in dates if date), None)


def _describe_tile(path: str) -> SceneTile:
    try:
        with rasterio.open(path) as dataset:
            return describe_tile(path, dataset)
    except (RasterioError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        hint = "" if "://" in path or Path(path).exists() else "; there is no such file"
        raise RasterOpenError(f"cannot open {path} as a raster{hint or f' ({error})'}") from None


def describe_tile(path: str, dataset: Any) -> SceneTile:
    """What the header of an open dataset says of a file.

    Raises:
        InputError: it is placed by control points, or its transform is degenerate.
        BandError: it has no band of real numbers, or a colour table.
    """
    transform = dataset.transform
    if transform == Affine.identity():
        if dataset.gcps[0] or dataset.rpcs:
            raise InputError(
                f"{path} is placed by ground control points or RPCs, not by a transform; "
                "rectify it first, for example with: gdalwarp -t_srs EPSG:... IN OUT"
            )
        # y falls as rows rise, as QGIS shows images without georeferencing.
        transform = Affine(1, 0, 0, 0, -1, 0)
    if transform.determinant == 0:
        raise InputError(f"{path}: its transform is degenerate: {tuple(transform)[:6]}")
    colours = dataset.colorinterp
    if ColorInterp.palette in colours:
        raise BandError(
            f"{path} has a colour table; expand it first: gdal_translate -expand rgb IN OUT"
        )
    alphas = [i for i, colour in zip(dataset.indexes, colours, strict=True)
              if colour == ColorInterp.alpha]  # fmt: skip
    bands = tuple(i for i in dataset.indexes if i not in alphas)
    dtype = str(dataset.dtypes[0])
    if not bands or np.dtype(dtype).kind not in "uif":
        raise BandError(f"{path} has no band of real numbers (found {', '.join(dataset.dtypes)})")
    nodata = dataset.nodata
    if nodata is None and np.dtype(dtype).kind == "f":
        nodata = float("nan")
    return SceneTile(
        path,
        Grid(dataset.crs, transform, dataset.height, dataset.width),
        bands,
        dtype,
        nodata,
        alphas[0] if alphas else None,
        _read_date(dataset),
    )


def _union_grid(tiles: Sequence[SceneTile]) -> Grid:
    """The first tile's grid, extended by whole pixels to cover all tiles."""
    first = tiles[0].grid
    if len(tiles) == 1:
        return first
    corners = []
    for tile in tiles:
        footprint: BaseGeometry = tile.grid.footprint
        if first.crs is not None and tile.grid.crs is not None:
            footprint = reproject_geometry(footprint, tile.grid.crs, first.crs)
        xy = shapely.get_coordinates(footprint)
        corners.append(
            np.stack(apply_transform(~first.transform, xy[:, 0], xy[:, 1]))
        )  # (2, n): cols, rows
    everything = np.concatenate(corners, axis=1)
    # A thousandth of a pixel is rounding of the header, not ground.
    col0, row0 = np.floor(everything.min(axis=1) + 1e-3).astype(int)
    col1, row1 = np.ceil(everything.max(axis=1) - 1e-3).astype(int)
    transform = first.transform @ Affine.translation(int(col0), int(row0))
    return Grid(first.crs, transform, int(row1 - row0), int(col1 - col0))


@dataclass(frozen=True)
class Scene:
    """One date, as one raster.

    Attributes:
        name: what the user called it.
        tiles: its files; where they overlap, the later one (by name) lies on top.
        grid: the grid of the first tile, extended over all.
    """

    name: str
    tiles: tuple[SceneTile, ...]
    grid: Grid

    @classmethod
    def open(cls, source: str | Path) -> Scene:
        """Describe a scene from its headers: a raster GDAL can open, or a folder of them.

        Raises:
            RasterOpenError: missing, damaged or no raster.
            CrsMismatchError: some tiles of a folder have a CRS and others have none.
            BandError: tiles of a folder differ in their bands, or a colour table.
        """
        name = str(source)
        folder = Path(name)
        if "://" not in name and folder.is_dir():
            paths = sorted(
                str(p) for p in folder.iterdir()
                if p.suffix.lower() in RASTER_SUFFIXES and not p.name.startswith(".")
            )  # fmt: skip
            if not paths:
                raise RasterOpenError(
                    f"no rasters in the folder {name}; "
                    f"looked for {', '.join(sorted(RASTER_SUFFIXES))}"
                )
        else:
            paths = [name]
        tiles = tuple(_describe_tile(path) for path in paths)
        for tile in tiles[1:]:
            _check_same_kind(tiles[0], tile)
        return cls(name, tiles, _union_grid(tiles))

    @property
    def crs(self) -> CRS | None:
        """Coordinate reference system; None: pixel units."""
        return self.grid.crs

    @property
    def bands(self) -> tuple[int, ...]:
        """Bands counted from 1, without alpha."""
        return self.tiles[0].bands

    @property
    def dtype(self) -> str:
        """Type of the values."""
        return self.tiles[0].dtype

    @property
    def date(self) -> str | None:
        """Acquisition date (ISO), where all tiles that have one agree."""
        dates = {tile.date for tile in self.tiles if tile.date}
        return dates.pop() if len(dates) == 1 else None

    def footprint(self, crs: CRS | None) -> BaseGeometry:
        """Outline of the tiles in a CRS."""
        outlines = []
        for tile in self.tiles:
            outline: BaseGeometry = tile.grid.footprint
            if crs is not None and tile.grid.crs is not None:
                outline = reproject_geometry(outline, tile.grid.crs, crs)
            outlines.append(outline)
        return shapely.union_all(outlines)

    def choose_bands(self, channels: int, bands: Sequence[int] | None) -> tuple[int, ...]:
        """The bands to read for a network of so many channels.

        One band is repeated for every channel; of more bands the first ones are taken.

        Raises:
            BandError: a band is not there, or their number does not fit.
        """
        if bands is None:
            bands = self.bands[:1] if len(self.bands) == 1 else self.bands[:channels]
        missing = [band for band in bands if band not in self.bands]
        if missing and missing[0] == self.tiles[0].alpha:
            raise BandError(
                f"band {missing[0]} of {self.name} is marked as alpha; if it holds values, mark it "
                f"so: gdal_edit.py -colorinterp_{missing[0]} undefined FILE"
            )
        if missing:
            raise BandError(
                f"{self.name} has no band {missing[0]}; it has {', '.join(map(str, self.bands))}"
            )
        if len(bands) == 1:
            bands = tuple(bands) * channels
        if len(bands) != channels:
            raise BandError(
                f"the weights want {channels} bands, {self.name} gives {len(bands)}; "
                f"name {channels} with --bands, or one to be repeated"
            )
        return tuple(bands)

    def stretch(self, bands: Sequence[int]) -> tuple[float, float]:
        """The values that become 0 and 255: the type's range for bytes, else percentiles.

        All bands share one stretch, so that colours keep their balance. It is estimated on a
        decimated reading of the scene.
        """
        if self.dtype == "uint8":
            return 0.0, 255.0
        values = [self._sample_values(tile, sorted(set(bands))) for tile in self.tiles]
        pool = np.concatenate(values)
        if pool.size == 0:
            return 0.0, 1.0
        low, high = np.percentile(pool, _STRETCH_PERCENTILES)
        return float(low), float(high if high > low else low + 1)

    def _sample_values(self, tile: SceneTile, bands: list[int]) -> NDArray[np.float64]:
        step = max(1.0, max(tile.grid.shape) * len(self.tiles) ** 0.5 / _STRETCH_SIZE)
        shape = tuple(max(1, round(side / step)) for side in tile.grid.shape)
        with _reading(tile.path), rasterio.open(tile.path) as dataset:
            values = dataset.read(bands, out_shape=(len(bands), *shape)).astype(np.float64)
            valid = dataset.dataset_mask(out_shape=shape) > 0
        values = values[:, valid].ravel()
        return np.asarray(values[np.isfinite(values)])


def _check_same_kind(first: SceneTile, tile: SceneTile) -> None:
    if (first.grid.crs is None) != (tile.grid.crs is None):
        raise CrsMismatchError(
            f"{first.path} and {tile.path} are tiles of one scene, but only one of them has a "
            "CRS; assign it with: gdal_edit.py -a_srs EPSG:... FILE"
        )
    if tile.grid.crs is None and first.grid.transform == tile.grid.transform:
        raise InputError(
            f"{first.path} and {tile.path} have no georeferencing and would lie on top of each "
            "other; name single files instead of the folder"
        )
    if first.bands != tile.bands or first.dtype != tile.dtype:
        raise BandError(
            f"tiles of one scene differ: {first.path} has bands {first.bands} of {first.dtype}, "
            f"{tile.path} has {tile.bands} of {tile.dtype}"
        )


class Sampler:
    """Reads a scene on a grid, by windows; reprojection happens on the way, in one resampling.

    Use it in one thread, as a context manager. Memory is that of the window.

    Args:
        scene: what to read.
        grid: the grid to read on, in any CRS that the scene's can be transformed to.
        stretch: values that become 0 and 255.
        resampling: the kernel; it widens by itself where the grid is coarser than the scene.
        place: the ground that pixels of the grid show, where that is not ``grid.transform``:
            a motion with a field. The kernel is cubic then. ``grid`` stays near that ground.
    """

    def __init__(
        self,
        scene: Scene,
        grid: Grid,
        *,
        stretch: tuple[float, float] = (0.0, 255.0),
        resampling: Resampling = Resampling.cubic,
        place: Place | None = None,
    ) -> None:
        self.scene, self.grid, self.stretch = scene, grid, stretch
        self.resampling, self._place = resampling, place
        self._open: OrderedDict[int, tuple[Any, WarpedVRT]] = OrderedDict()
        self._fields: dict[int, FieldWarp] = {}

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close_oldest()

    def _close_oldest(self) -> None:
        _, (dataset, vrt) = self._open.popitem(last=False)
        vrt.close()
        dataset.close()

    @cached_property
    def _astray(self) -> float:
        """How far ``place`` may lead from ``grid``, in CRS units."""
        if self._place is None:
            return 0.0
        mesh = np.meshgrid(*(np.linspace(0, n, _ASTRAY_PROBES) for n in self.grid.shape[::-1]))
        points = np.stack(mesh, axis=-1).reshape(-1, 2)
        away = self._place(points) - transform_array(self.grid.transform, points)
        # A quarter more, for what lies between the points that are asked.
        return 1.25 * float(np.hypot(away[:, 0], away[:, 1]).max())

    @cached_property
    def _reach(self) -> list[tuple[slice, slice] | None]:
        """Rows and columns of the grid that each tile may touch."""
        margin = Grid(
            self.grid.crs, self.grid.transform @ Affine.translation(-2, -2),
            self.grid.height + 4, self.grid.width + 4,
        )  # fmt: skip
        reach = []
        for tile in self.scene.tiles:
            outline: BaseGeometry = tile.grid.footprint
            if tile.grid.crs is not None and self.grid.crs is not None:
                outline = reproject_geometry(outline, tile.grid.crs, self.grid.crs)
            # A footprint's curved edges may bulge between its vertices.
            span = outline.buffer(4 * max(self.grid.pixel_size) + self._astray)
            found = margin.slices_over(span)
            reach.append(found)
        return reach

    def _vrt(self, index: int) -> WarpedVRT:
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index][1]
        if len(self._open) >= _MAX_OPEN:
            self._close_oldest()
        tile = self.scene.tiles[index]
        dataset = rasterio.open(tile.path)
        options: dict[str, Any] = {
            "src_crs": tile.grid.crs or _PLANE,
            "crs": self.grid.crs or _PLANE,
            "src_transform": tile.grid.transform,
            "transform": self.grid.transform,
            "height": self.grid.height,
            "width": self.grid.width,
            "resampling": self.resampling,
            **kernel_scale(tile.grid, self.grid),
        }
        if tile.alpha is not None:
            options["src_alpha"] = tile.alpha
        else:
            options["add_alpha"] = True
            options["src_nodata"] = tile.nodata
        vrt = WarpedVRT(dataset, **options)
        self._open[index] = dataset, vrt
        return vrt

    def read_raw(
        self, rows: slice, cols: slice, bands: Sequence[int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values in their own type.

        Args:
            rows: of the grid, inside it, with start and stop.
            cols: likewise.
            bands: counted from 1.

        Returns:
            Values (bands, height, width) and valid (height, width), True = usable.

        Raises:
            RasterOpenError: a tile is damaged.
        """
        shape = rows.stop - rows.start, cols.stop - cols.start
        values = np.zeros((len(bands), *shape), self.scene.dtype)
        valid = np.zeros(shape, bool)
        for index, reach in enumerate(self._reach):
            if reach is None or not _touch(reach, rows, cols):
                continue
            part, usable = self._read_tile(index, rows, cols, bands)
            values[:, usable] = part[:, usable]
            valid |= usable
        return values, valid

    def _read_tile(
        self, index: int, rows: slice, cols: slice, bands: Sequence[int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        window = Window.from_slices(rows, cols)
        tile = self.scene.tiles[index]
        with _reading(tile.path):
            vrt = self._vrt(index)
            if self._place is not None:
                return self._read_field(index, rows, cols, bands)
            # A band that is wanted several times is read once.
            unique = sorted(set(bands))
            if self._shifts[index] is not None:
                data, usable = self._read_unwarped(index, rows, cols, unique)
            else:
                data = vrt.read([*unique, tile.alpha or vrt.count], window=window)
                full = np.iinfo(data.dtype).max if data.dtype.kind in "ui" else 255
                usable = data[-1] >= full * 0.5
        values = data[[unique.index(band) for band in bands]]
        if values.dtype.kind == "f":
            usable &= np.isfinite(values).all(axis=0)
        return values, usable

    @cached_property
    def _shifts(self) -> list[tuple[int, int] | None]:
        """Row and column in each tile of the grid's first pixel, where their pixels coincide."""
        return [whole_pixel_shift(tile.grid, self.grid) for tile in self.scene.tiles]

    def _read_unwarped(
        self, index: int, rows: slice, cols: slice, bands: Sequence[int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        tile = self.scene.tiles[index]
        row, col = self._shifts[index] or (0, 0)
        return read_pixels(
            self._open[index][0], slice(rows.start + row, rows.stop + row),
            slice(cols.start + col, cols.stop + col), bands, nodata=tile.nodata, alpha=tile.alpha,
        )  # fmt: skip

    def _read_field(
        self, index: int, rows: slice, cols: slice, bands: Sequence[int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        assert self._place is not None
        tile = self.scene.tiles[index]
        if index not in self._fields:
            self._fields[index] = FieldWarp(self._place, self.grid, tile.grid)
        unique = sorted(set(bands))
        warp, dataset = self._fields[index], self._open[index][0]
        values, usable = warp.read(dataset, rows, cols, unique, self.scene.dtype)
        return values[[unique.index(band) for band in bands]], usable

    def read(
        self, rows: slice, cols: slice, bands: Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Like ``read_raw``, with values stretched to 0..255, uint8."""
        values, valid = self.read_raw(rows, cols, bands)
        if values.dtype == np.uint8 and self.stretch == (0.0, 255.0):
            return values, valid
        low, high = self.stretch
        scaled = (np.where(valid, values, low).astype(np.float32) - low) * (255 / (high - low))
        return np.rint(scaled.clip(0, 255)).astype(np.uint8), valid


def _touch(reach: tuple[slice, slice], rows: slice, cols: slice) -> bool:
    # The reach is counted from two pixels above and left of the grid.
    return bool(
        reach[0].start - 2 < rows.stop
        and reach[0].stop - 2 > rows.start
        and reach[1].start - 2 < cols.stop
        and reach[1].stop - 2 > cols.start
    )


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        raise RasterOpenError(
            f"cannot read {path}: it is damaged or cut short ({error}); copy it again"
        ) from None
