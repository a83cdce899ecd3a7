"""Rasters that STAC names: items, item collections, static catalogs, read as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely

from geocd.archive.header import Source, stamp_of
from geocd.errors import InputError
from geocd.maps.stac import asset_of, moment_of, place_of
from geocd.outputs import replacing

_FOLLOWED = ("child", "item", "items")


def is_stac(path: Path) -> bool:
    """Whether a path is to be read as STAC."""
    return path.suffix.lower() in (".json", ".geojson") and path.is_file()


def stac_sources(path: Path) -> Iterator[Source]:
    """The raster of every item that a STAC file holds or links to.

    Of an item's assets, the one called "visual" is taken, else the first with the role "data"
    that is a raster. Links are followed on this machine only.

    Args:
        path: an item, an item collection, a catalog or a collection.

    Raises:
        InputError: the file, or one it links to, is missing or no STAC.
    """
    waiting, seen = [path.resolve()], set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        content = _read(place)
        if content.get("type") in ("Feature", "FeatureCollection"):
            for item in content.get("features", [content]):
                yield from _item_source(item, place)
            continue
        links = [link for link in content.get("links", []) if link.get("rel") in _FOLLOWED]
        waiting += [
            (place.parent / link["href"]).resolve() for link in reversed(links)
            if "://" not in link.get("href", "://")
        ]  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read the STAC file {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from None
    known = ("Feature", "FeatureCollection", "Catalog", "Collection")
    if not isinstance(content, dict) or content.get("type") not in known:
        raise InputError(f"{path} is no STAC item, item collection, catalog or collection")
    return content


def _item_source(item: dict[str, Any], place: Path) -> Iterator[Source]:
    asset = _raster_asset(item.get("assets") or {})
    if asset is None:
        return
    properties = item.get("properties") or {}
    when = properties.get("datetime") or properties.get("start_datetime")
    href = str(asset["href"])
    date = None if when is None else str(when)[:10]
    if "://" in href or href.startswith("/vsi"):
        yield Source(path=href, stac_date=date, stamp=stamp_of([properties, asset]))
        return
    path = (place.parent / href).resolve()
    # A file that has gone is listed with its reason, like one that is damaged.
    status = path.stat() if path.is_file() else None
    yield Source(
        path=str(path), stac_date=date, size=0 if status is None else status.st_size,
        modified_ns=0 if status is None else status.st_mtime_ns,
    )  # fmt: skip


def _raster_asset(assets: dict[str, Any]) -> dict[str, Any] | None:
    rasters = {
        name: asset for name, asset in assets.items()
        if "href" in asset and str(asset.get("type", "image/tiff")).startswith("image/tiff")
        and "data" in asset.get("roles", ["data"])
    }  # fmt: skip
    if "visual" in assets and "href" in assets["visual"]:
        found: dict[str, Any] = assets["visual"]
        return found
    return next(iter(rasters.values()), None)


def collection_of(
    path: Path, footprint: geopandas.GeoDataFrame, *, assets: Mapping[str, Path],
    record: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """A STAC 1.1.0 collection of the merged results of an archive, JSON-ready.

    Its extents tell of the whole first, then of each pair of dates, as the standard has it.

    Args:
        path: where the collection will lie; links to assets are relative to it.
        footprint: what was compared: polygons in any CRS, with ``before_date`` and
            ``after_date`` (ISO date, month or year); as many rows for a pair as it has.
        assets: outputs by role, such as "changes", "history" and "scores-PAIR".
        record: what made them; its ``weights`` are told.
    """
    dates = footprint[["before_date", "after_date"]].astype("string")
    keys = [dates[name].fillna("") for name in dates]
    parts = [footprint, *(rows for _, rows in footprint.groupby(keys, sort=True))]
    if len(parts) == 2:
        parts = parts[:1]
    weights = dict(record.get("weights", {}))
    collection: dict[str, Any] = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": path.stem,
        "title": "Change over an archive",
        "description": "What changed between the dates of an archive of surveys, found by geocd.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [_box_of(part) for part in parts]},
            "temporal": {"interval": [_interval_of(part) for part in parts]},
        },
        "links": [],
        "assets": {role: asset_of(file, path.parent, role) for role, file in assets.items()},
    }
    if weights:
        collection["summaries"] = {"geocd:weights": [weights]}
    return collection


def write_collection(
    path: Path, footprint: geopandas.GeoDataFrame, *, assets: Mapping[str, Path],
    record: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a STAC collection; see `collection_of`. Atomic.

    Raises:
        OutputError: the file cannot be written.
    """
    collection = collection_of(path, footprint, assets=assets, record=record)
    with replacing(path) as draft:
        draft.write_text(json.dumps(collection, indent=1))


def _box_of(footprint: geopandas.GeoDataFrame) -> list[float]:
    """West, south, east and north of all rows, in degrees."""
    parts = shapely.get_parts(shapely.union_all(np.asarray(footprint.geometry, dtype=object)))
    polygons = [part for part in parts if part.geom_type == "Polygon"]
    whole = geopandas.GeoDataFrame(geometry=[shapely.MultiPolygon(polygons)], crs=footprint.crs)
    box: list[float] = place_of(whole)["bbox"]
    return box


def _interval_of(footprint: geopandas.GeoDataFrame) -> list[str | None]:
    first, last = (footprint[f"{role}_date"].dropna().astype(str) for role in ("before", "after"))
    return [moment_of(first.min()) if len(first) else None,
            moment_of(last.max()) if len(last) else None]  # fmt: skip
