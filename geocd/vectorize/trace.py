"""Change polygons from a change map and its scores."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import rasterio
import rasterio.features
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from geocd.config import CLASS_CODES, NOT_OBSERVED, VectorizeConfig
from geocd.errors import BandError, InputError, RasterOpenError
from geocd.rasters.grid import Grid, apply_transform
from geocd.rasters.write import bounded_cache
from geocd.vectorize.attributes import Ruler, measure_pixels, to_ground
from geocd.vectorize.kinds import looks_like_road
from geocd.vectorize.outline import Geometries, Ints, as_multipolygons, smooth

COLUMNS = (
    "id",
    "kind",
    "kind_source",
    "score_mean",
    "score_max",
    "area_m2",
    "perimeter_m",
    "area_px",
    "observed",
    "before_date",
    "after_date",
)
"""Attributes of a change polygon, in the order in which they are written."""
_BATCH = 500
"""Objects whose outlines are worked on together."""
Progress = Callable[[int, int], None]


def trace_changes(
    change_map: Path,
    scores: Path,
    *,
    classes: Sequence[str],
    config: VectorizeConfig,
    dates: tuple[str | None, str | None] = (None, None),
    progress: Progress | None = None,
) -> geopandas.GeoDataFrame:
    """One polygon for each changed object, with what is known about it.

    Pixels that touch by side or corner and are of one class are one object. Parts that touch
    only at a corner become the parts of a MultiPolygon, and every geometry is a valid
    MultiPolygon. The map is read line by line and the scores object by object, so that
    memory grows with the number of objects and not with the size of the raster.

    Columns: ``id`` (1..n; largest first, then from the top left), ``kind`` (building or
    road), ``kind_source`` (network, or shape where the weights know only 'change'),
    ``score_mean`` and ``score_max`` (0..1, over the object's pixels), ``area_m2`` and
    ``perimeter_m`` (of the polygon on the ground; null without a CRS), ``area_px`` (pixels
    of the map), ``observed`` (share of the pixels in and within 3 pixels of the object that
    were observed, 0..1), ``before_date`` and ``after_date`` (ISO 8601 or null).

    Args:
        change_map: raster of one band, uint8: 0, the values of `CLASS_CODES`, 255.
        scores: raster on the same grid, uint8, one band per class: score * 254, 255.
        classes: names of the bands of ``scores``, in their order.
        config: minimum mapping unit, smoothing, and what a road looks like.
        dates: ISO dates of the images before and after.
        progress: told (rows done, rows); the first call comes when the lines are read.

    Returns:
        In the CRS of the map. Without a CRS and a transform, x is the column and y is minus
        the row, which is where a GIS shows an image without georeferencing.

    Raises:
        RasterOpenError: one of the files cannot be read.
        BandError: the bands are not those of one change map and of ``classes``.
        InputError: the two rasters differ in grid, or the map has a value or a class that
            ``classes`` does not explain.
    """
    with bounded_cache(), _opened(change_map) as codes, _opened(scores) as bands:
        _check(codes, bands, classes)
        grid = _grid(codes)
        ruler = Ruler(grid)
        tables = [_describe(np.empty(0, object), np.empty(0, int), codes, bands, (), config, ruler)]
        reached = 0
        for outlines, values in _traced(codes):
            tables.append(_describe(outlines, values, codes, bands, classes, config, ruler))
            reached = max(reached, int(shapely.total_bounds(outlines)[3]))
            if progress is not None and reached < grid.height:
                progress(reached, grid.height)
    if progress is not None:
        progress(grid.height, grid.height)
    return _layer(pd.concat(tables, ignore_index=True), grid, dates)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with warnings.catch_warnings():
            # Images without georeferencing are a supported case, not an oversight.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except RasterioIOError as error:
        raise RasterOpenError(f"{path} cannot be read as a raster: {error}") from error
    with dataset:
        yield dataset


def _check(codes: Any, bands: Any, classes: Sequence[str]) -> None:
    """Refuse a map and scores that do not belong together."""
    unknown = [name for name in classes if name not in CLASS_CODES]
    if unknown:
        raise InputError(f"unknown class {unknown[0]!r}; known classes: {', '.join(CLASS_CODES)}")
    for dataset in (codes, bands):
        if set(dataset.dtypes) != {"uint8"}:
            raise InputError(f"{dataset.name} must be uint8, found {dataset.dtypes[0]}")
    if codes.count != 1:
        raise BandError(f"a change map has one band, {codes.name} has {codes.count}")
    if bands.count != len(classes):
        raise BandError(
            f"{bands.name} has {bands.count} bands for {len(classes)} classes "
            f"({', '.join(classes)}); give the classes of the weights that made it"
        )
    same = codes.shape == bands.shape and codes.crs == bands.crs
    if not (same and codes.transform.almost_equals(bands.transform, 1e-9)):
        raise InputError(
            f"the change map and the scores differ in grid: {codes.name} is "
            f"{_grid(codes).describe()}, {bands.name} is {_grid(bands).describe()}; "
            "use the two files of one run"
        )


def _grid(dataset: Any) -> Grid:
    transform = dataset.transform
    if dataset.crs is None and transform == Affine.identity():
        # A GIS hangs an image without georeferencing below the x axis.
        transform = Affine(1, 0, 0, 0, -1, 0)
    return Grid(dataset.crs, transform, dataset.height, dataset.width)


def _traced(codes: Any) -> Iterator[tuple[Geometries, Ints]]:
    """Pixel outlines, in pixels, and their values in the change map, batch by batch."""
    band = rasterio.band(codes, 1)
    # The map is its own mask: 'no change' is by far the largest polygon, and nobody wants it.
    shapes = rasterio.features.shapes(band, mask=band, connectivity=8)
    changes = ((shape["coordinates"], int(v)) for shape, v in shapes if v != NOT_OBSERVED)
    while batch := list(itertools.islice(changes, _BATCH)):
        values = np.array([value for _, value in batch])
        rings = [ring for polygon, _ in batch for ring in polygon]
        points = _to_pixels(np.array(list(itertools.chain.from_iterable(rings))), codes.transform)
        ring = np.repeat(np.arange(len(rings)), [len(r) for r in rings])
        owner = np.repeat(np.arange(len(batch)), [len(polygon) for polygon, _ in batch])
        lines: Any = shapely.linearrings(points, indices=ring)
        polygons: Any = shapely.polygons(lines, indices=owner)
        yield as_multipolygons(polygons), values


def _to_pixels(points: npt.NDArray[np.float64], transform: Affine) -> npt.NDArray[np.float64]:
    """Corners of pixels as (column, row), from where they are on the ground."""
    # GDAL has put the georeferencing on already. A corner has whole numbers in pixels, so
    # rounding takes off exactly what the way there and back has left.
    return np.rint(np.column_stack(apply_transform(~transform, points[:, 0], points[:, 1])))


def _describe(
    outlines: Geometries,
    values: Ints,
    codes: Any,
    bands: Any,
    classes: Sequence[str],
    config: VectorizeConfig,
    ruler: Ruler,
) -> pd.DataFrame:
    """The objects of a batch that are large enough, with their attributes; still in pixels."""
    large = ~(ruler.area(outlines) < config.min_area * (1 - 1e-9))
    outlines, values = outlines[large], values[large]
    polygons = smooth(outlines, config.simplify)
    # The minimum mapping unit is a promise about the polygons too: an object that is large
    # enough only by its pixels keeps them.
    polygons = np.where(ruler.area(polygons) < config.min_area, outlines, polygons)
    area, perimeter = ruler.area(polygons), ruler.perimeter(polygons)
    pixels = measure_pixels(
        outlines, _bands_of(values, classes, codes.name), change_map=codes, scores=bands
    )
    bounds = shapely.bounds(outlines)
    return pd.DataFrame(
        {
            "geometry": polygons,
            "kind": _kinds(values, area, perimeter, config, in_metres=codes.crs is not None),
            "kind_source": np.where(values == CLASS_CODES["change"], "shape", "network"),
            "score_mean": pixels.score_mean,
            "score_max": pixels.score_max,
            "area": area,
            "perimeter": perimeter,
            "area_px": np.rint(shapely.area(outlines)).astype(np.int64),
            "observed": pixels.observed,
            "row": bounds[:, 1],
            "col": bounds[:, 0],
        }
    )


def _bands_of(values: Ints, classes: Sequence[str], name: str) -> list[int]:
    """The band of the scores, counted from 1, that each value of the map belongs to."""
    band = {CLASS_CODES[c]: i for i, c in enumerate(classes, start=1)}
    strange = set(values.tolist()) - set(band)
    if strange:
        known = ", ".join(f"{code} ({c})" for c, code in CLASS_CODES.items() if code in band)
        raise InputError(
            f"{name} has the value {min(strange)}, the classes of its scores are {known}; "
            "use the two files of one run"
        )
    return [band[value] for value in values.tolist()]


def _kinds(
    values: Ints, area: Any, perimeter: Any, config: VectorizeConfig, *, in_metres: bool
) -> Any:
    """Building or road for each object: as the network says, else by shape."""
    road = looks_like_road(
        area,
        perimeter,
        elongation=config.road_elongation,
        width=config.road_width if in_metres else None,
    )
    unknown = values == CLASS_CODES["change"]
    road = np.where(unknown, road, values == CLASS_CODES["road"])
    return np.where(road, "road", "building")


def _layer(
    objects: pd.DataFrame, grid: Grid, dates: tuple[str | None, str | None]
) -> geopandas.GeoDataFrame:
    """The objects in order, on the ground, with the columns of the schema."""
    # Rounded, so that the last digit of a projection does not decide the order of twins.
    objects = objects.assign(rank=-objects["area"].round(3))
    objects = objects.sort_values(["rank", "row", "col", "kind"], kind="stable", ignore_index=True)
    n = len(objects)
    measured = grid.crs is not None
    unknown = np.full(n, np.nan)
    objects = objects.assign(
        id=np.arange(1, n + 1, dtype=np.int64),
        area_m2=objects["area"] if measured else unknown,
        perimeter_m=objects["perimeter"] if measured else unknown,
        before_date=pd.array([dates[0]] * n, dtype="string"),
        after_date=pd.array([dates[1]] * n, dtype="string"),
    )
    ground = to_ground(objects["geometry"].to_numpy(), grid)
    # Far from the origin the rounding of coordinates can make a needle cross itself.
    if not shapely.is_valid(ground).all():
        ground = as_multipolygons(ground)
    return geopandas.GeoDataFrame(
        objects[list(COLUMNS)], geometry=ground, crs=_pyproj_crs(grid.crs)
    )


def _pyproj_crs(crs: CRS | None) -> pyproj.CRS | None:
    """The CRS for geopandas; by its code where it has one, because codes survive every format."""
    if crs is None:
        return None
    authority = crs.to_authority()
    return pyproj.CRS.from_user_input(":".join(authority) if authority else crs.to_wkt())
