"""Change polygons from a score raster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely

from geocd.config import CLASS_CODES, SCORE_SCALE, VectorizeConfig, grown_to
from geocd.rasters.grid import Grid
from geocd.rasters.write import bounded_cache
from geocd.tiling.classify import least_level
from geocd.vectorize.attributes import Ruler, observed_share, to_ground
from geocd.vectorize.components import Flags, Objects, ObjectStream, Sums
from geocd.vectorize.draw import draw, measured
from geocd.vectorize.ground import decimals_of, rounded
from geocd.vectorize.holes import without_small_holes
from geocd.vectorize.kinds import mean_length_and_width
from geocd.vectorize.outline import Geometries, Ints, as_multipolygons
from geocd.vectorize.scorefile import RowReader, check_classes, grid_of, opened, pyproj_crs
from geocd.vectorize.split import divided

COLUMNS = (
    "id",
    "kind",
    "kind_source",
    "direction",
    "direction_score",
    "score_mean",
    "score_max",
    "area_m2",
    "perimeter_m",
    "length_m",
    "width_m",
    "orientation",
    "area_px",
    "observed",
    "before_date",
    "after_date",
    "regularized",
)
"""Attributes of a change polygon, in the order in which they are written."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Found:
    """Objects before they are drawn; outlines in pixels, everything of shape (n,)."""

    outlines: Geometries
    codes: Ints
    """Values in the change map."""
    sums: Sums
    part: Flags
    """Whether it was taken from a larger object, and so has neighbours of its own class."""


def trace_changes(
    scores: Path,
    *,
    classes: Sequence[str],
    thresholds: Sequence[float],
    config: VectorizeConfig,
    dates: tuple[str | None, str | None] = (None, None),
    progress: Progress | None = None,
) -> geopandas.GeoDataFrame:
    """One polygon for each changed object, with what is known about it.

    Pixels that touch by side or corner and are of one class are one object. Parts that touch
    only at a corner become the parts of a MultiPolygon, and every geometry is a valid
    MultiPolygon. The raster is read once, in bands of rows; what is held is a band, the
    corners of the objects that are open at its lower edge, and the objects that are kept.
    The height of the bands changes nothing.

    Where ``config.grow`` is given, pixels count down to that lower score, and an object is
    kept if one of its pixels reaches the threshold. With ``config.split`` a building is taken
    apart where the scores dip by 0.2 between parts of 80 pixels and more.

    Columns: ``id`` (12 hexadecimal digits of what the object's pixels are: the same object of
    the same class has the same id in every tracing of the raster), ``kind`` (building or
    road), ``kind_source`` (network, or shape where the weights know only 'change'),
    ``direction`` and ``direction_score`` ("unknown" and null: it takes images to judge them,
    see `with_directions`), ``score_mean`` and ``score_max`` (0..1, over the object's pixels),
    ``area_m2`` and ``perimeter_m`` (of the polygon on the ground), ``length_m`` and ``width_m``
    (of the smallest rectangle around a building; of a strip with a road's area and perimeter),
    ``orientation`` (of the rectangle's length, degrees clockwise from north, 0..180),
    ``area_px`` (pixels of the map), ``observed`` (share of the pixels in and within 3 pixels
    of the object that were observed, 0..1), ``before_date`` and ``after_date`` (ISO 8601 or
    null), ``regularized`` (whether the polygon was drawn with right angles). What ends in
    ``_m`` or ``_m2`` is null without a CRS. Largest first, then from the top left.

    Args:
        scores: raster, uint8, one band per class: score * 254, 255 where not observed.
        classes: names of the bands of ``scores``, in their order.
        thresholds: least score of each class, between 0 and 1.
        config: how objects are cleaned and drawn; minimum mapping units; what a road looks like.
        dates: ISO dates of the images before and after.
        progress: told (rows done, rows).

    Returns:
        In the CRS of the raster, rounded to millimetres (see `ground.decimals_of`); areas and
        lengths are those before rounding. Without a CRS and a transform, x is the column and y
        is minus the row, which is where a GIS shows an image without georeferencing.

    Raises:
        RasterOpenError: the file cannot be read.
        BandError: the bands are not those of ``classes``.
        InputError: there is a class of another name, or the raster is not of bytes.
        ConfigError: objects would grow by a score above the threshold.
    """
    with bounded_cache(), opened(scores) as dataset:
        check_classes(dataset, classes)
        grid = grid_of(dataset)
        ruler = Ruler(grid)
        found = _objects(dataset, classes, thresholds, config, ruler, progress)
        found = _divided(found, dataset, classes, thresholds, config, ruler)
        found = _filled(found, config, ruler)
        table = _described(found, dataset, config, ruler)
    return _layer(table, grid, dates)


def _objects(
    dataset: Any, classes: Sequence[str], thresholds: Sequence[float], config: VectorizeConfig,
    ruler: Ruler, progress: Progress | None,
) -> _Found:  # fmt: skip
    """The objects that may be large and sure enough."""
    height, width = dataset.shape
    reader = _reader(dataset, classes, thresholds, config)
    # By pixels first, so that specks cost nothing; the exact rule comes with the polygons.
    least = min(config.least_area(kind) for kind in ("building", "road"))
    pixels = _fewest_pixels(least / ruler.largest_pixel(), filled=config.fill_holes > 0)
    streams = [ObjectStream(width) for _ in classes]
    closed: list[tuple[int, Objects]] = []
    for rows in reader:
        for band, (code, stream) in enumerate(zip(reader.codes, streams, strict=True)):
            objects = stream.add(
                (rows.codes == code).view(np.uint8), rows.scores[band], rows.doubtful,
                last=rows.stop == height, least_pixels=pixels,
                least_peak=least_level(thresholds[band]),
            )  # fmt: skip
            closed.append((code, objects))
        if progress is not None:
            progress(rows.stop, height)
    return _Found(
        np.concatenate([objects.outlines for _, objects in closed]),
        np.concatenate([np.full(len(objects.outlines), code) for code, objects in closed]),
        Sums.joined(*(objects.sums for _, objects in closed)),
        np.zeros(sum(len(objects.outlines) for _, objects in closed), bool),
    )


def _reader(
    dataset: Any, classes: Sequence[str], thresholds: Sequence[float], config: VectorizeConfig
) -> RowReader:
    low = grown_to(config.grow, classes, thresholds)
    dy, dx = grid_of(dataset).gsd() or (1.0, 1.0)
    codes = tuple(CLASS_CODES[name] for name in classes)
    return RowReader(dataset, low, codes, opening=(config.opening / dy, config.opening / dx))


def _fewest_pixels(pixels: float, *, filled: bool) -> float:
    """Objects of fewer pixels cannot reach an area of so many pixels."""
    if filled:  # n pixels enclose n * n / 8 at most, in the shape of a diamond
        pixels = np.sqrt(16 + 8 * pixels) - 4
    return float(pixels) * (1 - 1e-3)


def _divided(
    found: _Found, dataset: Any, classes: Sequence[str], thresholds: Sequence[float],
    config: VectorizeConfig, ruler: Ruler,
) -> _Found:  # fmt: skip
    """The objects, with buildings taken apart where their scores dip."""
    if not config.split or "building" not in classes:
        return found
    band = list(classes).index("building")
    result = divided(
        found.outlines, found.sums, found.codes == CLASS_CODES["building"], dataset,
        band=band + 1, least_area=config.least_area("building") / ruler.smallest_pixel(),
        least_peak=least_level(thresholds[band]),
    )  # fmt: skip
    part = np.bincount(result.origin, minlength=len(found.codes))[result.origin] > 1
    return _Found(result.outlines, found.codes[result.origin], result.sums, part)


def _filled(found: _Found, config: VectorizeConfig, ruler: Ruler) -> _Found:
    if config.fill_holes == 0:
        return found
    outlines = without_small_holes(found.outlines, config.fill_holes, area=ruler.area)
    return replace(found, outlines=outlines)


def _described(found: _Found, dataset: Any, config: VectorizeConfig, ruler: Ruler) -> pd.DataFrame:
    """The objects that are large enough, drawn, with their attributes; still in pixels."""
    drawing, large = draw(found.outlines, found.codes, found.part, config=config, ruler=ruler)
    outlines, codes, sums = found.outlines[large], found.codes[large], found.sums.chosen(large)
    observed = np.ones(len(outlines))
    observed[sums.doubtful] = observed_share(outlines[sums.doubtful], dataset)
    size = measured(drawing.polygons, ruler)
    strip = mean_length_and_width(size.area, size.perimeter)
    road = drawing.kinds == "road"
    bounds = shapely.bounds(outlines)
    return pd.DataFrame(
        {
            "geometry": drawing.polygons,
            "id": _names(outlines, codes),
            "kind": drawing.kinds,
            "kind_source": np.where(codes == CLASS_CODES["change"], "shape", "network"),
            "score_mean": sums.score / sums.pixels / SCORE_SCALE,
            "score_max": sums.peak / SCORE_SCALE,
            "area": size.area,
            "perimeter": size.perimeter,
            "length": np.where(road, strip[0], size.length),
            "width": np.where(road, strip[1], size.width),
            "orientation": size.azimuth,
            "area_px": np.rint(shapely.area(outlines)).astype(np.int64),
            "observed": observed,
            "regularized": drawing.regularized,
            "row": bounds[:, 1],
            "col": bounds[:, 0],
        }
    )


def _names(outlines: Geometries, codes: Ints) -> list[str]:
    """Twelve hexadecimal digits for each object, by its outline and its class."""
    texts = zip(shapely.to_wkb(outlines), codes.tolist(), strict=True)
    return [hashlib.sha256(wkb + bytes([code])).hexdigest()[:12] for wkb, code in texts]


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
        id=objects["id"].astype("string"),
        direction=pd.array(["unknown"] * n, dtype="string"),
        direction_score=unknown,
        area_m2=objects["area"] if measured else unknown,
        perimeter_m=objects["perimeter"] if measured else unknown,
        length_m=objects["length"] if measured else unknown,
        width_m=objects["width"] if measured else unknown,
        before_date=pd.array([dates[0]] * n, dtype="string"),
        after_date=pd.array([dates[1]] * n, dtype="string"),
    )
    crs = pyproj_crs(grid.crs)
    exact = to_ground(objects["geometry"].to_numpy(), grid)
    ground = rounded(exact, decimals_of(crs, min(grid.gsd() or grid.pixel_size)))
    # Far from the origin the last digit of a number can make a needle cross itself.
    if not shapely.is_valid(ground).all():
        ground = as_multipolygons(ground)
    return geopandas.GeoDataFrame(objects[list(COLUMNS)], geometry=ground, crs=crs)
