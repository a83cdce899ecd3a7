"""Two dates on one grid: windowed reads with a mask of what was observed on both."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geocd.errors import ConfigError, CrsMismatchError, GeocdWarning, InputError, NoOverlapError
from geocd.rasters.fill import fill_unobserved
from geocd.rasters.grid import Grid
from geocd.rasters.scene import Sampler, Scene
from geocd.rasters.warp import PixelMotion, place_through

_SQUARE_ENOUGH = 1.2
"""Pixels whose sides differ by less than this ratio are read as they are."""

_DISTORTION = 0.02
"""Share by which the pixels of one ground sample distance may differ within a pair."""

_ROUNDING = 1e-4
"""Pixels that are rounding of transforms."""

LARGE = 4096**2
"""Pixels of a pair beyond which its windows lie on a lattice of their own.

They then lie where those of work units do. The price is paid at the rim, where windows see less:
a tenth more of them at this size, a twentieth at four times that.
"""

_LARGEST_ENLARGEMENT = 2.0
"""How many times finer than its pixels an image is read, unless a distance is asked for."""


Stretches = tuple[tuple[float, float], tuple[float, float]]
"""Values that become 0 and 255, before and after."""


@dataclass(frozen=True, slots=True)
class PairWindow:
    """A window of both dates.

    Attributes:
        before, after: shape (bands, height, width), uint8, 0..255.
        seen: shape (height, width), True where both dates were observed.
        valid: True where they were, and in the area of interest.
    """

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lattice:
    """The pixels and windows of a pair, on which a part of it is read like all of it.

    Attributes:
        grid: reading grid of the whole pair, where its windows begin.
        tile: side of a window, in pixels.
        step: pixels from one window to the next.
    """

    grid: Grid
    tile: int
    step: int

    def fits(self, part: Grid) -> bool:
        """Whether a part would be read in pixels as large, but for what a projection distorts."""
        sizes = zip(part.pixel_size, self.grid.pixel_size, strict=True)
        return part.crs == self.grid.crs and all(
            abs(mine / theirs - 1) < _DISTORTION for mine, theirs in sizes
        )

    def over(self, part: Grid) -> Grid:
        """The pixels that cover a part, in its CRS."""
        t = ~self.grid.transform @ part.transform
        rows, cols = (t.f, t.e * part.height + t.f), (t.c, t.a * part.width + t.c)
        span = (
            slice(math.floor(low + _ROUNDING), math.ceil(high - _ROUNDING))
            for low, high in (rows, cols)
        )
        return self.grid.crop(*span)

    def whole_windows(self, part: Grid) -> Grid:
        """A part, extended so that its windows are some of those of the pair."""
        t = ~self.grid.transform @ part.transform
        row, col = round(t.f), round(t.c)
        if (row, col, *part.shape) == (0, 0, *self.grid.shape):
            return part
        above, left = row % self.step, col % self.step
        height, width = (
            max(0, math.ceil((side - self.tile) / self.step)) * self.step + self.tile
            for side in (part.height + above, part.width + left)
        )
        if (above, left, height, width) == (0, 0, *part.shape):
            return part
        return part.crop(slice(-above, height - above), slice(-left, width - left))


def with_fixed_windows(pair: RasterPair, whole: Grid, *, tile: int, step: int) -> RasterPair:
    """A pair, or a part of one, whose windows do not depend on where it begins.

    The reading grid of a large pair is extended by all windows that touch it, of those that are
    whole steps from the origin of the CRS. Where images are not read in before's pixels they are
    whole steps from the corner of the whole pair. Small pairs, those without a CRS and those that
    are not north-up stay as they are: cut from their corners, they need fewer windows.

    Args:
        pair: not yet moved: motion acts on the pixels of its grid.
        whole: reading grid of all of the pair.
        tile: side of a window, in pixels.
        step: pixels from one window to the next.
    """
    grid = pair.grid
    first = grid.place_from_origin
    if whole.height * whole.width <= LARGE or first is None:
        return pair
    place = ~whole.transform @ grid.transform
    corner = round(place.f), round(place.c)
    if grid.pixel_size != pair.output_grid.pixel_size:
        first = corner
    axes = list(zip(first, grid.shape, strict=True))
    is_part = (*corner, *grid.shape) != (0, 0, *whole.shape)
    if is_part and all(begin % step == (side - tile) % step == 0 for begin, side in axes):
        return pair  # a unit: it begins and ends where windows do
    span = (
        slice(
            (math.floor((begin - tile) / step) + 1) * step - begin,
            (math.ceil((begin + side) / step) - 1) * step + tile - begin,
        )
        for begin, side in axes
    )
    return replace(pair, grid=grid.crop(*span))


@dataclass(frozen=True)
class RasterPair:
    """Two scenes, the grid they are compared on, and the grid of the result.

    Attributes:
        before, after: the scenes.
        output_grid: before's grid.
        grid: the grid for reading: before's at the ground sample distance of the weights, over
            the ground that both scenes (and the area of interest) share.
        bands_before, bands_after: bands to read, counted from 1.
        stretches: values that become 0 and 255, for each date.
        area: area of interest in before's CRS; None: everything.
        motion: from (col, row) of ``grid`` to where after shows the same ground; None: there.
        tables: what each value of after becomes, shape (bands, 256); None: as they are.
    """

    before: Scene
    after: Scene
    output_grid: Grid
    grid: Grid
    bands_before: tuple[int, ...]
    bands_after: tuple[int, ...]
    stretches: Stretches
    area: BaseGeometry | None = None
    motion: PixelMotion | None = None
    tables: NDArray[np.uint8] | None = None

    def with_motion(self, motion: PixelMotion | None) -> RasterPair:
        """The same pair with after read through another motion."""
        return replace(self, motion=motion)

    def without(self, ground: BaseGeometry) -> RasterPair:
        """The same pair with more ground outside the area of interest.

        Args:
            ground: in (col, row) of ``grid``.
        """
        if ground.is_empty:
            return self
        t = self.grid.transform
        left_out = affine_transform(ground, [t.a, t.b, t.d, t.e, t.c, t.f])
        area = self.grid.footprint if self.area is None else self.area
        return replace(self, area=shapely.difference(area, left_out))

    def in_befores_light(self, after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image of after, shape (bands, height, width), with its values looked up."""
        if self.tables is None:
            return after
        return np.stack([table[band] for table, band in zip(self.tables, after, strict=True)])

    def after_on(self, grid: Grid) -> Sampler:
        """After on any grid in before's CRS, seen through the motion in one resampling."""
        motion = self.motion
        if motion is None or (motion.is_affine and motion.affine == Affine.identity()):
            return Sampler(self.after, grid, stretch=self.stretches[1])
        # Motion acts on the pixels of the pair's grid.
        inner = ~self.grid.transform @ grid.transform
        moved = replace(grid, transform=self.grid.transform @ motion.affine @ inner)
        # An affine motion is but another georeferencing; GDAL reads through those.
        place = None if motion.is_affine else place_through(self.grid, motion, inner)
        return Sampler(self.after, moved, stretch=self.stretches[1], place=place)

    def reader(self, *, step: float = 1.0, window: tuple[slice, slice] | None = None) -> PairReader:
        """A reader of windows; use it as a context manager, in one thread.

        Args:
            step: side of a pixel of the reading, in pixels of ``grid``.
            window: rows and columns of ``grid`` that are read; None: all of it.
        """
        return PairReader(self, step, window)


class PairReader:
    """Reads windows of a pair; after goes through reprojection and motion in one resampling."""

    def __init__(
        self, pair: RasterPair, step: float, window: tuple[slice, slice] | None = None
    ) -> None:
        self.pair = pair
        rows, cols = window or (slice(0, pair.grid.height), slice(0, pair.grid.width))
        self.grid = pair.grid.crop(rows, cols).scaled(step, step)
        self._before = Sampler(pair.before, self.grid, stretch=pair.stretches[0])
        self._after = pair.after_on(self.grid)
        self._stack = ExitStack()

    def __enter__(self) -> PairReader:
        self._stack.enter_context(self._before)
        self._stack.enter_context(self._after)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read_dates(
        self, rows: slice, cols: slice
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8], NDArray[np.bool_]]:
        """(before, valid before, after, valid after) as they are, without the area of interest."""
        before, valid_before = self._before.read(rows, cols, self.pair.bands_before)
        after, valid_after = self._after.read(rows, cols, self.pair.bands_after)
        return before, valid_before, self.pair.in_befores_light(after), valid_after

    def read(self, rows: slice, cols: slice) -> PairWindow:
        """Like ``read_part``, with what was not seen filled from its surroundings."""
        part = self.read_part(rows, cols)
        before, after = (fill_unobserved(image, part.seen) for image in (part.before, part.after))
        return replace(part, before=before, after=after)

    def read_part(self, rows: slice, cols: slice) -> PairWindow:
        """The window of ``grid`` that the slices select; both need a start and a stop."""
        before, valid_before, after, valid_after = self.read_dates(rows, cols)
        seen = valid_before & valid_after
        valid = seen
        if self.pair.area is not None and seen.any():
            part = self.grid.crop(rows, cols)
            valid = seen & geometry_mask(
                [self.pair.area], part.shape, part.transform, invert=True, all_touched=False
            )
        return PairWindow(before, after, seen, valid)


def load_area(path: Path, grid: Grid) -> BaseGeometry:
    """The union of the polygons of a vector file, in the grid's CRS.

    Raises:
        InputError: the file cannot be read, or holds no polygon.
        CrsMismatchError: it has a CRS and the grid has none, or the other way round.
    """
    try:
        layer = geopandas.read_file(path)
    except Exception as error:  # pyogrio raises several unrelated types
        raise InputError(f"cannot read the area of interest {path}: {error}") from None
    layer = layer[
        layer.geometry.notna() & layer.geometry.geom_type.isin(("Polygon", "MultiPolygon"))
    ]
    if layer.empty:
        raise InputError(f"the area of interest {path} holds no polygon")
    # GeoJSON always claims WGS 84; beside images without a CRS its numbers are pixel units.
    if (
        grid.crs is None
        and layer.crs is not None
        and path.suffix.lower() not in (".geojson", ".json")
    ):
        raise CrsMismatchError(f"{path} has a CRS, the images have none; give it in pixel units")
    if grid.crs is not None:
        if layer.crs is None:
            raise CrsMismatchError(f"{path} has no CRS, the images have one; assign it first")
        layer = layer.to_crs(grid.crs.to_wkt())
    return shapely.make_valid(shapely.union_all(layer.geometry.to_numpy()))


def reading_grid(
    grid: Grid,
    *,
    gsd_range: tuple[float, float] | None,
    gsd: float | None = None,
    pixel_size: float | None = None,
) -> Grid:
    """The grid at which a network should see ground that ``grid`` covers.

    Pixels that are nearly square and within the range stay as they are; others are brought to
    the nearest end of the range, or to ``gsd``. Coarse images are enlarged twice at most.

    Args:
        grid: before's grid.
        gsd_range: ground sample distances that the weights are good for, metres; None: any.
        gsd: ground sample distance asked for, metres.
        pixel_size: metres a pixel of a grid without a CRS.

    Raises:
        ConfigError: ``gsd`` is given, but how large the pixels are is not known.
    """
    native = grid.gsd() or (None if pixel_size is None else (pixel_size, pixel_size))
    if native is None:
        if gsd is not None:
            raise ConfigError(
                "gsd needs to know how large the pixels are, and the images have no CRS; "
                "give pixel_size (--pixel-size) too"
            )
        return grid
    mean = math.sqrt(native[0] * native[1])
    target = gsd
    if target is None:
        low, high = gsd_range or (mean, mean)
        # Enlarging invents no detail, and costs its square.
        target = max(min(max(mean, low), high), mean / _LARGEST_ENLARGEMENT)
        square = max(native) / min(native) < _SQUARE_ENOUGH
        if square and abs(target / mean - 1) < 0.02:
            return grid
    return grid.scaled(target / native[0], target / native[1])


def open_pair(
    before: str | Path,
    after: str | Path,
    *,
    channels: int | None,
    gsd_range: tuple[float, float] | None = None,
    bands: Sequence[int] | None = None,
    gsd: float | None = None,
    pixel_size: float | None = None,
    area: Path | None = None,
    lattice: Lattice | None = None,
) -> RasterPair:
    """Two scenes on a common grid.

    Args:
        before: file, URL, VRT or folder of the earlier date.
        after: of the later date.
        channels: bands that the network takes; None: the first three, or as many as each has.
        gsd_range: ground sample distances that the weights are good for, metres.
        bands: bands to read, counted from 1.
        gsd: ground sample distance to read at, metres.
        pixel_size: metres a pixel of images without a CRS.
        area: vector file with the area of interest.
        lattice: of the pair that these scenes are a part of, heeded if they are not read in
            before's pixels but in such ones; None: they are all of it.

    Raises:
        InputError: and its kinds; see ``geocd.errors``.
    """
    first, second = Scene.open(before), Scene.open(after)
    if (first.crs is None) != (second.crs is None):
        bare, other = (first, second) if first.crs is None else (second, first)
        raise CrsMismatchError(
            f"{bare.name} has no CRS, but {other.name} is {other.grid.describe()}; assign it with: "
            f"gdal_edit.py -a_srs EPSG:... {bare.name}"
        )
    shared = shapely.intersection(first.footprint(first.crs), second.footprint(first.crs))
    polygon = load_area(area, first.grid) if area is not None else None
    everything = reading_grid(first.grid, gsd_range=gsd_range, gsd=gsd, pixel_size=pixel_size)
    if everything.pixel_size == first.grid.pixel_size or not (lattice and lattice.fits(everything)):
        lattice = None
    if lattice is not None:
        everything = lattice.over(first.grid)
    span = None if shared.area == 0 else everything.slices_over(shared)
    if span is None:
        raise NoOverlapError(
            f"the images share no ground: before covers {_bounds(first, first.crs)}, after covers "
            f"{_bounds(second, first.crs)} (both in before's CRS); check which files belong "
            "together"
        )
    if polygon is not None:
        wanted = shapely.intersection(shared, polygon)
        span = None if wanted.area == 0 else everything.slices_over(wanted)
        if span is None:
            raise NoOverlapError(f"the area of interest {area} lies outside what both images show")
    for scene in (first, second):
        _warn_if_coarse(scene, gsd_range)
    bands_before, bands_after = (
        scene.bands[:3] if channels is None else scene.choose_bands(channels, bands)
        for scene in (first, second)
    )
    grid = everything.crop(*span)
    return RasterPair(
        before=first,
        after=second,
        output_grid=first.grid,
        grid=grid if lattice is None else lattice.whole_windows(grid),
        bands_before=bands_before,
        bands_after=bands_after,
        stretches=(first.stretch(bands_before), second.stretch(bands_after)),
        area=polygon,
    )


def _bounds(scene: Scene, crs: CRS | None) -> str:
    left, bottom, right, top = scene.footprint(crs).bounds
    return f"{left:.9g} {bottom:.9g} {right:.9g} {top:.9g}"


def _warn_if_coarse(scene: Scene, gsd_range: tuple[float, float] | None) -> None:
    gsd = scene.grid.gsd()
    if gsd and gsd_range and math.sqrt(gsd[0] * gsd[1]) > 1.5 * gsd_range[1]:
        warnings.warn(
            f"{scene.name} has pixels of {math.sqrt(gsd[0] * gsd[1]):.1f} m, the weights are good "
            f"for {gsd_range[0]:g} to {gsd_range[1]:g} m; expect little of the result",
            GeocdWarning,
            stacklevel=3,
        )
