"""Writing the after image where the before image says it belongs: moved and resampled once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geocd.align.alignment import Alignment
from geocd.align.estimate import estimate
from geocd.align.field import Motion, PointArray
from geocd.align.gray import gray_reader
from geocd.config import AlignConfig
from geocd.errors import ConfigError, NotAlignedError
from geocd.outputs import check_writable, replacing, scratch_folder
from geocd.provenance import describe_input, provenance
from geocd.rasters.grid import Grid, reproject_geometry
from geocd.rasters.pair import RasterPair, open_pair
from geocd.rasters.scene import Sampler, Scene
from geocd.rasters.warp import transform_array
from geocd.rasters.write import RowWriter, bounded_cache, write_cog

_ROWS = 256
"""Rows that are made at a time: one row of blocks."""
_CLEARLY_COARSER = 1.5
"""Ratio of pixel sizes from which a pair is compared on the coarser ones."""
_SLACK = 0.3
"""Share of a pixel that a whole number of before's pixels may fall short of after's."""
_INVERSIONS = 12
"""Steps of the inversion of a motion; each shrinks the error by the slope of the field."""


def open_for_alignment(before: str | Path, after: str | Path) -> RasterPair:
    """Two scenes on a grid on which their geometry can be compared.

    The grid is before's, over the ground that both show; where after is clearly coarser, its
    pixels are as large as after's.

    Args:
        before: file, URL, VRT or folder of tiles of the date that stays.
        after: of the date that is moved.

    Raises:
        InputError: and its kinds; see ``geocd.errors``.
    """
    pair = open_pair(before, after, channels=None)
    ratio = _pixel_ratio(pair)
    if ratio < _CLEARLY_COARSER:
        return pair
    return replace(pair, grid=pair.grid.scaled(ratio, ratio))


def estimate_pair(
    pair: RasterPair, *, config: AlignConfig | None = None, seed: int = 0
) -> Alignment:
    """``estimate`` for two rasters, as ``open_for_alignment`` gives them."""
    with bounded_cache():
        return estimate(
            gray_reader(pair), pair.grid.shape, config=config or AlignConfig(), seed=seed
        )


def apply(
    pair: RasterPair,
    alignment: Alignment,
    output: str | Path,
    *,
    like_before: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Grid:
    """Write after as a cloud-optimised GeoTIFF on before's pixels, moved and resampled once.

    Bands, type, nodata value or alpha band, names, colours and tags are those of after. Where
    after has neither nodata nor alpha, an internal mask tells what was not observed. Memory
    does not grow with the raster.

    Args:
        pair: what ``alignment`` was estimated on.
        alignment: its motion is applied; without one (not needed, off) after is brought to
            before's pixels by its georeferencing.
        output: the file to write.
        like_before: write before's very grid; otherwise all of after is written, at its own
            resolution; see ``aligned_grid``.
        overwrite: replace an existing file.
        progress: told (rows done, rows).

    Returns:
        The grid that was written.

    Raises:
        NotAlignedError: the alignment was refused; nothing is written.
        ConfigError: the output is one of the inputs.
        OutputError: the file cannot be written; it is as it was.
    """
    path = Path(output)
    if alignment.status == "refused":
        raise NotAlignedError(
            f"{pair.after.name} was not aligned to {pair.before.name}: {alignment.reason}; "
            "nothing was written. To write it as it is georeferenced, switch alignment off"
        )
    check_writable(path, overwrite=overwrite)
    refuse_input(path, pair)
    grid = pair.output_grid if like_before else aligned_grid(pair, alignment.motion)
    moved = replace(pair, tables=None).with_motion(alignment.motion)
    with bounded_cache(), replacing(path) as draft, scratch_folder(path) as folder:
        _write(moved, grid, folder / "aligned.tif", _record(pair, alignment), progress)
        write_cog(folder / "aligned.tif", draft, overviews="average", predictor=True)
    return grid


def refuse_input(output: Path, pair: RasterPair) -> None:
    """Refuse to write over a file that is read, or among the tiles of a folder that is.

    Raises:
        ConfigError: so it would be.
    """
    target = output.resolve()
    for scene in (pair.before, pair.after):
        for file in (scene.name, *(tile.path for tile in scene.tiles)):
            source = Path(file).resolve()
            if source == target:
                raise ConfigError(
                    f"{output} is an input; inputs are never changed, write to another name"
                )
            if source == target.parent and source.is_dir():
                raise ConfigError(
                    f"{output} lies in a folder that is read as tiles of an input; "
                    "write it elsewhere"
                )


def aligned_grid(pair: RasterPair, motion: Motion) -> Grid:
    """The grid on which all of after fits, with pixels that nest in before's.

    In before's CRS; a pixel is a whole number of before's pixels, or a whole fraction of one,
    whichever comes near to after's own. Edges of pixels meet before's, so that the two files
    overlay without resampling.

    Args:
        pair: the scenes.
        motion: where after is to be moved, on ``pair.grid``.
    """
    before = pair.before.grid
    ratio = _pixel_ratio(pair)
    side = math.floor(ratio + _SLACK) if ratio >= 1 else 1 / math.ceil(1 / ratio - _SLACK)
    lattice = before.transform @ Affine.scale(side)
    outline = np.concatenate([_moved_outline(pair, tile.grid, motion) for tile in pair.after.tiles])
    places = transform_array(~lattice, outline)
    # A thousandth of a pixel is rounding of the header, not ground.
    left, top = (math.floor(v) for v in places.min(axis=0) + 1e-3)
    right, bottom = (math.ceil(v) for v in places.max(axis=0) - 1e-3)
    corner = lattice @ Affine.translation(left, top)
    return Grid(before.crs, corner, max(1, bottom - top), max(1, right - left))


def _pixel_ratio(pair: RasterPair) -> float:
    """Side of a pixel of after over that of one of before, on the ground."""
    sizes = []
    for scene in (pair.before, pair.after):
        dy, dx = scene.grid.gsd() or scene.grid.pixel_size
        sizes.append(math.sqrt(dy * dx))
    return sizes[1] / sizes[0]


def _moved_outline(pair: RasterPair, tile: Grid, motion: Motion) -> PointArray:
    """Outline of a tile of after, (x, y) in before's CRS, where the motion puts it."""
    outline: Any = tile.footprint
    if tile.crs is not None and pair.grid.crs is not None:
        outline = reproject_geometry(outline, tile.crs, pair.grid.crs)
    there = transform_array(~pair.grid.transform, shapely.get_coordinates(outline))
    return transform_array(pair.grid.transform, _back(motion, there))


def _back(motion: Motion, points: PointArray) -> PointArray:
    """The points that a motion sends to ``points``."""
    found = points
    for _ in range(_INVERSIONS):
        found = found + points - motion(found)
    return np.asarray(found)


def _record(pair: RasterPair, alignment: Alignment) -> dict[str, Any]:
    """What made the file; the field is left to the report, where there is room for it."""
    summary = alignment.to_dict()
    summary["motion"] = [float(v) for v in alignment.motion.affine[:6]]
    inputs = {
        role: describe_input(scene.name, tuple(tile.path for tile in scene.tiles))
        for role, scene in (("before", pair.before), ("after", pair.after))
    }
    return provenance(inputs=inputs, weights={}, config=AlignConfig(), alignment=summary)


def _write(
    pair: RasterPair,
    grid: Grid,
    path: Path,
    record: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    """After on a grid, into a tiled GeoTIFF."""
    tile = pair.after.tiles[0]
    count = len(tile.bands) + (tile.alpha is not None)
    masked = tile.nodata is None and tile.alpha is None
    with (
        pair.after_on(grid) as sampler,
        RowWriter(
            path, grid, bands=("",) * count, dtype=pair.after.dtype, nodata=tile.nodata
        ) as writer,
    ):
        _describe(writer.dataset, pair.after)
        writer.tag(record)
        for top, values, valid in _rows(sampler, grid, pair.after):
            writer.write(values)
            if masked:
                writer.write_mask(top, valid)
            if progress is not None:
                progress(min(top + _ROWS, grid.height), grid.height)


def _rows(
    sampler: Sampler, grid: Grid, scene: Scene
) -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_]]]:
    """(first row, values of all bands, valid) from top to bottom."""
    tile = scene.tiles[0]
    for top in range(0, grid.height, _ROWS):
        rows = slice(top, min(top + _ROWS, grid.height))
        values, valid = sampler.read_raw(rows, slice(0, grid.width), tile.bands)
        if tile.nodata is not None:
            values = _with_nodata(values, valid, tile.nodata)
        else:
            values[:, ~valid] = 0
        if tile.alpha is not None:
            full = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 255
            opaque = (valid * np.array(full)).astype(values.dtype)
            values = np.insert(values, tile.alpha - 1, opaque, axis=0)
        yield top, values, valid


def _with_nodata(values: NDArray[Any], valid: NDArray[np.bool_], nodata: float) -> NDArray[Any]:
    if not math.isnan(nodata):
        # Interpolation may give the very value that says 'nothing here'.
        limit = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else np.inf
        beside = nodata - 1 if nodata >= limit else nodata + 1
        values[values == nodata] = beside
    values[:, ~valid] = nodata
    return values


def _describe(dataset: Any, scene: Scene) -> None:
    """Say of the new file what the old one says of itself."""
    tile = scene.tiles[0]
    with rasterio.open(tile.path) as source:
        dataset.descriptions = source.descriptions
        dataset.units = source.units
        dataset.scales, dataset.offsets = source.scales, source.offsets
        if tile.alpha is not None or ColorInterp.undefined not in source.colorinterp:
            dataset.colorinterp = source.colorinterp
        tags = {k: v for k, v in source.tags().items() if k not in _OWN_TAGS}
        dataset.update_tags(**tags)
        for band in source.indexes:
            kept = {k: v for k, v in source.tags(band).items() if not k.startswith("STATISTICS_")}
            dataset.update_tags(band, **kept)


_OWN_TAGS = frozenset({"AREA_OR_POINT", "GEOCD_PROVENANCE", "TIFFTAG_SOFTWARE"})
"""Tags of a file that are not true of the next."""
