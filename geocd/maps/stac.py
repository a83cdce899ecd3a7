"""A STAC item beside the outputs, for catalogues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import shapely

from geocd.errors import ConfigError
from geocd.maps.lonlat import cut_at_antimeridian, to_lonlat
from geocd.outputs import replacing

_MEDIA_TYPES = {
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": "application/geo+json",
    ".fgb": "application/vnd.flatgeobuf",
    ".parquet": "application/vnd.apache.parquet",
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".html": "text/html",
    ".vrt": "application/xml",
}
_DECIMALS = 7
"""Of degrees: a centimetre."""
_STEP = 10.0**-_DECIMALS


def stac_item(
    path: Path, footprint: geopandas.GeoDataFrame, *, assets: Mapping[str, Path],
    record: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """A STAC 1.1.0 item of a run, JSON-ready.

    Args:
        path: where the item will lie; links to assets are relative to it.
        footprint: as ``trace_extent`` gives it; without a CRS the item has no geometry.
        assets: outputs by role, such as "changes" and "scores".
        record: what made them.
    """
    place = None if footprint.crs is None else place_of(footprint)
    created = str(record.get("created", datetime.now(UTC).isoformat(timespec="seconds")))
    dates = [footprint[f"{role}_date"].iloc[0] for role in ("before", "after")]
    known = [moment_of(str(date)) for date in dates if isinstance(date, str)]
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": _name(path, record),
        "geometry": None,
        "properties": {
            "datetime": None if len(known) == 2 else (known or [moment_of(created)])[-1],
            "created": moment_of(created),
            "title": "Change between two images",
            "geocd:observed": round(float(footprint["observed"].iloc[0]), 6),
            "geocd:weights": dict(record.get("weights", {})),
        },
        "links": [],
        "assets": {role: asset_of(file, path.parent, role) for role, file in assets.items()},
    }
    if place is not None:
        item |= place
    if len(known) == 2:
        item["properties"] |= {"start_datetime": min(known), "end_datetime": max(known)}
    return item


def _name(path: Path, record: Mapping[str, Any]) -> str:
    """The stem of the file, and eight digits of what it tells of: names alone come twice."""
    told = json.dumps([path.name, record], sort_keys=True, default=str)
    return f"{path.stem}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def place_of(footprint: geopandas.GeoDataFrame) -> dict[str, Any]:
    """Geometry and box of the first row of a layer, as RFC 7946 has them."""
    shape, box = cut_at_antimeridian(to_lonlat(footprint).geometry.iloc[0])
    shape = shapely.orient_polygons(shapely.set_precision(shape, _STEP))
    if len(shapely.get_parts(shape)) == 1:
        shape = shapely.get_parts(shape)[0]
    return {
        "geometry": shapely.geometry.mapping(shape),
        "bbox": [round(value, _DECIMALS) for value in box],
    }


def asset_of(file: Path, folder: Path, role: str) -> dict[str, Any]:
    """A file as an asset, its link relative to the folder of the item where it lies below."""
    try:
        href = f"./{file.resolve().relative_to(folder.resolve()).as_posix()}"
    except ValueError:  # on another branch of the tree
        href = file.resolve().as_uri()
    asset = {"href": href, "title": role, "roles": ["data"]}
    media = _MEDIA_TYPES.get(file.suffix.lower())
    return asset if media is None else asset | {"type": media}


def moment_of(date: str) -> str:
    """A moment in UTC as RFC 3339 writes it; a year, a month or a day is told by its beginning."""
    if len(date) < 10:
        date += "-01-01"[len(date) - 4 :]
    moment = datetime.fromisoformat(date)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def check_stac_output(path: Path) -> None:
    """Refuse a name that no catalogue would take for an item.

    Raises:
        ConfigError: it does not end in .json.
    """
    if path.suffix.lower() != ".json":
        raise ConfigError(f"a STAC item is written as .json, got {path.name!r}")


def write_stac(
    path: Path, footprint: geopandas.GeoDataFrame, *, assets: Mapping[str, Path],
    record: Mapping[str, Any], place: Path | None = None,
) -> None:  # fmt: skip
    """Write a STAC item; see `stac_item`. Atomic.

    Args:
        path: file to write.
        footprint: as for `stac_item`.
        assets: as for `stac_item`.
        record: as for `stac_item`.
        place: where the file will lie in the end, if not at ``path``.

    Raises:
        OutputError: the file cannot be written.
    """
    item = stac_item(place or path, footprint, assets=assets, record=record)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(item, indent=1))
