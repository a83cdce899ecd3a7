"""Rasters that STAC names: items, item collections, static catalogs, read as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geocd.archive.header import Source, stamp_of
from geocd.errors import InputError

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
