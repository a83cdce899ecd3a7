"""What an archive knows of a file: its header, its valid outline, its date."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.features import shapes
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from geocd.errors import ConfigError, InputError
from geocd.rasters.grid import Grid, apply_transform, reproject_geometry
from geocd.rasters.scene import SceneTile, describe_tile
from geocd.rasters.write import PROVENANCE_TAG

WGS84 = CRS.from_epsg(4326)
_SAMPLE = 1 << 14
"""Bytes that are hashed at the beginning, in the middle and at the end of a file."""
_OUTLINE_SIZE = 128
"""Longest side, in pixels, of the decimated mask that the valid outline is drawn from."""
_TOKENS = {
    "YYYY": r"(?P<year>(?:19|20)\d\d)",
    "MM": r"(?P<month>0[1-9]|1[0-2])",
    "DD": r"(?P<day>0[1-9]|[12]\d|3[01])",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file to be looked at.

    Attributes:
        path: absolute path, or a URL.
        size: bytes; None for what is not a local file.
        modified_ns: time of the last change.
        stac_date: ISO date that a STAC item gives it.
        stamp: what a STAC item says of it, as text; stands for the bytes of remote files.
    """

    path: str
    size: int | None = None
    modified_ns: int | None = None
    stac_date: str | None = None
    stamp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of an index. What is not known is None.

    Attributes:
        path, size, modified_ns: see `Source`.
        status: "ok"; "damaged" (cannot be read), "unplaced" (nothing says where it lies) or
            "output" (a change map or a score raster that geocd made).
        reason: why it is not "ok".
        tag_date: ISO date in the file's tags.
        crs: code of an authority, or WKT.
        transform: the six numbers from (col, row) to (x, y).
        height, width: pixels.
        res_y, res_x: sides of a pixel in CRS units.
        gsd: ground sample distance in metres, geometric mean of both sides.
        bands: number of bands without alpha.
        dtype, nodata, alpha: type of the values, value and band that say where there are none.
        masked: whether the file has a mask of its own.
        stamp: hash of what a STAC item says of it; files that are not on this machine.
        hash: SHA-256 over the size and the samples of the bytes.
        outline: where pixels are valid, WGS 84.
    """

    path: str
    size: int | None
    modified_ns: int | None
    status: str = "ok"
    reason: str | None = None
    tag_date: str | None = None
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    height: int | None = None
    width: int | None = None
    res_y: float | None = None
    res_x: float | None = None
    gsd: float | None = None
    bands: int | None = None
    dtype: str | None = None
    nodata: float | None = None
    alpha: int | None = None
    masked: bool | None = None
    stamp: str | None = None
    hash: str | None = None
    outline: BaseGeometry | None = None

    def row(self) -> dict[str, Any]:
        """The values by name; the outline as WKB."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"outline": None if self.outline is None else self.outline.wkb}


def read_entry(source: Source) -> Entry:
    """Describe a file; what is wrong with it becomes its status and reason, never an error."""
    known: dict[str, Any] = {
        "path": source.path, "size": source.size, "modified_ns": source.modified_ns,
        "stamp": hash_of_text(source.stamp) if source.stamp else None,
    }  # fmt: skip
    try:
        if source.size is not None:
            known["hash"] = hash_samples(Path(source.path))
        # One opening for all: most of the time goes into it.
        with rasterio.open(source.path) as dataset:
            if _is_output(dataset):
                reason = "it is a change map or a score raster that geocd made"
                return Entry(**known | {"status": "output", "reason": reason})
            tile = describe_tile(source.path, dataset)
            known |= _described(tile) | _probed(dataset, tile)
        known.setdefault("hash", hash_of_text(f"{source.path} {source.stamp} {tile}"))
    except (InputError, RasterioError, OSError, ValueError) as error:
        return Entry(**known | {"status": "damaged", "reason": _plain(error, source.path)})
    wrong = _why_unplaced(tile.grid)
    if wrong:
        return Entry(**known | {"status": "unplaced", "reason": wrong, "outline": None})
    return Entry(**known)


def _is_output(dataset: Any) -> bool:
    """Whether weights made the raster; images that ``geocd align`` moved are surveys still."""
    try:
        record = json.loads(dataset.tags().get(PROVENANCE_TAG, "{}"))
    except ValueError:  # no record of ours
        return False
    return isinstance(record, dict) and bool(record.get("weights"))


def _described(tile: SceneTile) -> dict[str, Any]:
    grid, gsd = tile.grid, tile.grid.gsd()
    return {
        "tag_date": tile.date, "crs": crs_text(grid.crs), "transform": tuple(grid.transform[:6]),
        "height": grid.height, "width": grid.width,
        "res_y": grid.pixel_size[0], "res_x": grid.pixel_size[1],
        "gsd": None if gsd is None else math.sqrt(gsd[0] * gsd[1]),
        "bands": len(tile.bands), "dtype": tile.dtype, "nodata": tile.nodata, "alpha": tile.alpha,
    }  # fmt: skip


def _probed(dataset: Any, tile: SceneTile) -> dict[str, Any]:
    """What takes reading pixels: whether the file is whole, and the outline of what is valid."""
    # The last block is what a copy that broke off does not have.
    dataset.read(1, window=Window(dataset.width - 1, dataset.height - 1, 1, 1))
    flags = dataset.mask_flag_enums[0]
    masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    outline: BaseGeometry = tile.grid.footprint
    if MaskFlags.all_valid not in flags or tile.alpha is not None:
        outline = _valid_outline(dataset, tile.grid)
    if tile.grid.crs is not None:
        outline = reproject_geometry(outline, tile.grid.crs, WGS84)
    # A vertex that moves the edge by less than a pixel is none.
    left, bottom, right, top = outline.bounds if not outline.is_empty else (0, 0, 0, 0)
    step = max((right - left) / tile.grid.width, (top - bottom) / tile.grid.height)
    return {"masked": masked, "outline": shapely.make_valid(outline.simplify(step))}


def _valid_outline(dataset: Any, grid: Grid) -> BaseGeometry:
    """Outline of the valid pixels, to the nearest cell of a decimated mask, in the grid's CRS."""
    step = max(1.0, max(grid.shape) / _OUTLINE_SIZE)
    shape = tuple(max(1, round(side / step)) for side in grid.shape)
    valid = dataset.dataset_mask(out_shape=shape) > 0
    if valid.all():
        return grid.footprint
    parts = [
        shapely.geometry.shape(outline)
        for outline, value in shapes(valid.view(np.uint8), mask=valid)
        if value
    ]
    scale = np.array([grid.width / shape[1], grid.height / shape[0]])

    def _placed(cells: Any) -> Any:
        return np.column_stack(apply_transform(grid.transform, *(cells * scale).T))

    return shapely.transform(shapely.union_all(parts).simplify(1.0), _placed)


def _why_unplaced(grid: Grid) -> str | None:
    if grid.crs is None:
        return "it has no CRS; assign it with: gdal_edit.py -a_srs EPSG:... FILE"
    t = grid.transform
    if t.b != 0 or t.d != 0 or t.e > 0 or t.a < 0:
        return "it is rotated or south-up; bring it north-up with: gdalwarp IN OUT"
    return None


def crs_text(crs: CRS | None) -> str | None:
    """The CRS by its code where it has one, else as WKT."""
    if crs is None:
        return None
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_wkt())


def hash_samples(path: Path) -> str:
    """SHA-256, shortened to 128 bits, of the size and of 16 KiB at three places of a file.

    Files of up to 48 KiB are hashed whole. The header of a GeoTIFF lies at its beginning or its
    end; the sample in the middle tells pixels that were changed in place, if not always.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        for start in sorted({0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}):
            file.seek(start)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:32]


def hash_of_text(text: str) -> str:
    """SHA-256 of a text, shortened to 128 bits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(error: Exception, path: str) -> str:
    """What went wrong, without the path, which stands before it wherever it is shown."""
    if "\ufffd" in path and not Path(path).exists():
        return "its name is not in UTF-8, so it cannot be told of; rename it"
    text = str(error).replace(f"{path}: ", "").replace(f"'{path}'", "it").replace(path, "it")
    return " ".join(text.split()) or type(error).__name__


class DatePattern:
    """Finds a date in a path.

    Args:
        pattern: regular expression in which YYYY, MM and DD stand for year, month and day.

    Raises:
        ConfigError: it is no regular expression, or names no year.
    """

    def __init__(self, pattern: str) -> None:
        if pattern.count("YYYY") != 1 or pattern.count("MM") > 1 or pattern.count("DD") > 1:
            raise ConfigError(
                f"a date pattern names YYYY once, and MM and DD at most once, got {pattern!r}; "
                "for example ortho_YYYYMMDD"
            )
        for token, digits in _TOKENS.items():
            pattern = pattern.replace(token, digits)
        try:
            # Looked for ahead, so that /2015/2018/ has two of /YYYY/, which share a slash.
            self._expression = re.compile(f"(?={pattern})")
        except re.error as error:
            raise ConfigError(f"the date pattern is no regular expression: {error}") from None

    def find(self, path: str) -> str | None:
        """ISO date, month or year of the last match in a path; None without one."""
        for match in reversed(list(self._expression.finditer(path.replace(os.sep, "/")))):
            parts = [match.groupdict().get(name) for name in ("year", "month", "day")]
            return "-".join(part for part in parts if part)
        return None


def stamp_of(properties: object) -> str:
    """What a STAC item says of a file, as one text."""
    return json.dumps(properties, sort_keys=True, default=str)
