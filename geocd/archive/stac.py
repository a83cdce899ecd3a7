"""STAC: rasters that catalogues name, the items of an index, the collection of what was found."""

from __future__ import annotations

import calendar
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request, urlopen

import geopandas
import numpy as np
import pandas as pd
import shapely

from geocd.archive.header import Source, stamp_of
from geocd.errors import ConfigError, InputError
from geocd.maps.stac import asset_of, moment_of, place_of
from geocd.outputs import replacing
from geocd.rasters.scene import RASTER_SUFFIXES

if TYPE_CHECKING:
    import pystac

_FOLLOWED = ("child", "item", "items")
_KNOWN = ("Feature", "FeatureCollection", "Catalog", "Collection")
_PATIENCE_S = 60
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


def is_stac(source: str) -> bool:
    """Whether a path or URL is to be read as STAC: JSON files, and URLs that name no raster."""
    suffix = Path(urlsplit(source).path if "://" in source else source).suffix.lower()
    if "://" in source:
        return suffix not in RASTER_SUFFIXES
    return suffix in (".json", ".geojson") and Path(source).is_file()


def stac_sources(source: str) -> Iterator[Source]:
    """The raster of every item that a catalogue holds or links to.

    Of an item's assets, the one called "visual" is taken, else the first with the role "data"
    that is a raster. Pages of an item collection are followed.

    Args:
        source: path or URL of an item, an item collection, a catalog or a collection.

    Raises:
        InputError: the file, or one it links to, cannot be had or is no STAC.
        ConfigError: pystac is missing.
    """
    try:
        import pystac  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError(
            "reading STAC needs pystac; install it with: pip install 'geocd[archive]'"
        ) from None
    first = source if "://" in source else str(Path(source).resolve())
    waiting, seen = [first], set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        content = _read(place)
        try:
            items, links = _opened(content, place)
            for item, base in items:
                yield from _item_source(item, base)
        except InputError:
            raise
        except Exception as error:  # pystac raises many unrelated types
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"{place} is no STAC that can be read ({what})") from None
        waiting += reversed(links)


def _read(place: str) -> dict[str, Any]:
    try:
        if "://" in place and not place.startswith("file://"):
            request = Request(place, headers={"User-Agent": "geocd", "Accept": "application/json"})
            with urlopen(request, timeout=_PATIENCE_S) as answer:
                text = answer.read()
        else:
            text = (_local(place) or Path(place)).read_bytes()
        content = json.loads(text)
    except (OSError, HTTPException) as error:  # URLError is an OSError that has a reason
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the STAC file {place}: {reason}") from None
    except ValueError as error:
        raise InputError(f"{place} is no JSON: {error}") from None
    if not isinstance(content, dict) or content.get("type") not in _KNOWN:
        raise InputError(f"{place} is no STAC item, item collection, catalog or collection")
    return content


def _opened(content: dict[str, Any], place: str) -> tuple[list[tuple[pystac.Item, str]], list[str]]:
    """The items of a STAC file, each with the place that its links start from; and more places."""
    import pystac

    if content["type"] == "FeatureCollection":
        items = pystac.ItemCollection.from_dict(content).items
        pages = [link for link in content.get("links", []) if link.get("rel") == "next"]
        if any(str(link.get("method", "GET")).upper() != "GET" for link in pages):
            raise InputError(
                f"{place} goes on with a request that takes a body; save the whole answer as one "
                "item collection, and index that"
            )
        homes = [str(item.get_self_href() or "") for item in items]
        bases = [home if "://" in home else place for home in homes]
        return [*zip(items, bases, strict=True)], [_absolute(x["href"], place) for x in pages]
    found = pystac.StacIO.default().stac_object_from_dict(content, href=place)
    if isinstance(found, pystac.Item):
        return [(found, place)], []
    links = [link for link in content.get("links", []) if link.get("rel") in _FOLLOWED]
    return [], [_absolute(link["href"], place) for link in links]


def _absolute(href: str, place: str) -> str:
    """Where a link leads, from the place of the file that holds it."""
    if "://" in href or href.startswith("/vsi"):
        return href
    if "://" in place:
        return urljoin(place, href)
    file = Path(place).parent / href
    if not file.exists() and (Path(place).parent / unquote(href)).exists():
        file = Path(place).parent / unquote(href)
    return os.path.normpath(file)


def _local(href: str) -> Path | None:
    """The path of a file on this machine; None for others."""
    if href.startswith("file://"):
        return Path(unquote(urlsplit(href).path))
    return None if "://" in href or href.startswith("/vsi") else Path(href)


def _item_source(item: pystac.Item, place: str) -> Iterator[Source]:
    asset = _raster_asset(item.assets)
    if asset is None:
        return
    when = item.properties.get("datetime") or item.properties.get("start_datetime")
    date = None if when is None else str(when)[:10]
    href = _absolute(asset.href, place)
    path = _local(href)
    if path is None:
        stamp = stamp_of([item.properties, asset.to_dict()])
        yield Source(path=href, stac_date=date, stamp=stamp)
        return
    path = path.resolve()
    # A file that has gone is listed with its reason, like one that is damaged.
    status = path.stat() if path.is_file() else None
    yield Source(
        path=str(path), stac_date=date, size=0 if status is None else status.st_size,
        modified_ns=0 if status is None else status.st_mtime_ns,
    )  # fmt: skip


def _raster_asset(assets: Mapping[str, pystac.Asset]) -> pystac.Asset | None:
    rasters = [
        asset for asset in assets.values()
        if (asset.media_type or "image/tiff").startswith("image/tiff")
        and "data" in (asset.roles or ["data"])
    ]  # fmt: skip
    return assets.get("visual") or next(iter(rasters), None)


def write_items(path: Path, index: geopandas.GeoDataFrame) -> int:
    """Write the usable files of an index that have a date as a STAC item collection. Atomic.

    An item must have a date, so files without one are left out.

    Args:
        path: file to write, .json; links to files below its folder are relative.
        index: as `index_archive` makes it.

    Returns:
        How many items were written.

    Raises:
        OutputError: the file cannot be written.
    """
    chosen = index[(index["status"] == "ok") & index["date"].notna()]
    folder = path.resolve().parent
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        # One after the other: an archive may have a million.
        for number, row in enumerate(chosen.itertuples(index=False)):
            item = json.dumps(_item_of(row, folder), allow_nan=False)
            file.write(f"{',' if number else ''}\n{item}")
        file.write("\n]}\n")
    return len(chosen)


def _item_of(row: Any, folder: Path) -> dict[str, Any]:
    """A row of an index as a STAC item."""
    outline = row.geometry
    known = outline is not None and not outline.is_empty
    mark = hashlib.sha256(row.path.encode()).hexdigest()[:8]
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_PROJECTION],
        "id": f"{Path(row.path).stem}-{mark}",
        "geometry": shapely.geometry.mapping(outline) if known else None,
        "properties": _when(row.date) | _projection(row),
        "links": [],
        "assets": {"data": _data_asset(row, folder)},
    }
    return item | ({"bbox": list(outline.bounds)} if known else {})


def _when(date: str) -> dict[str, Any]:
    """The day of an item, or the month or year in which it lies."""
    first = moment_of(date)
    if len(date) == 10:
        return {"datetime": first}
    year, month = int(date[:4]), int(date[5:7] or 12)
    last = f"{year}-{month:02d}-{calendar.monthrange(year, month)[1]}T23:59:59Z"
    return {"datetime": None, "start_datetime": first, "end_datetime": last}


def _projection(row: Any) -> dict[str, Any]:
    coded = row.crs.count(":") == 1 and "[" not in row.crs
    known = {} if pd.isna(row.gsd) else {"gsd": round(float(row.gsd), 6)}
    return known | {
        "proj:code": row.crs if coded else None,
        **({} if coded else {"proj:wkt2": row.crs}),
        "proj:shape": [int(row.height), int(row.width)],
        "proj:transform": [float(value) for value in row.transform],
    }


def _data_asset(row: Any, folder: Path) -> dict[str, Any]:
    local = _local(row.path)
    asset = {"href": row.path, "roles": ["data"]}
    if local is not None:
        asset["href"] = asset_of(local, folder, "data")["href"]
    if Path(row.path).suffix.lower() in (".tif", ".tiff"):
        asset["type"] = "image/tiff; application=geotiff"
    about: dict[str, Any] = {"data_type": row.dtype}
    if not pd.isna(row.nodata):
        about["nodata"] = float(row.nodata)
    return asset | about | {"bands": [{"name": str(k + 1)} for k in range(int(row.bands))]}


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
