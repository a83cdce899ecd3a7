"""Zones of a golden: limits of their own, and masks that exclude.

A GeoJSON file of polygons in pixels of the golden: x to the right, y down, the upper left corner
of the picture is (0, 0).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from geocd.errors import ConfigError, InputError

_LIMITS = {"threshold", "min_area_px", "min_area_mm2", "max_defects"}
_IGNORED = {"fid", "id", "comment"}
"""Properties that programs and people add and that limit nothing."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of the golden.

    Attributes:
        name: what verdicts call it.
        outline: polygon, in pixels of the golden.
        exclude: nothing in it is looked at.
        threshold: least score of a defect, 0..1; None: as elsewhere.
        min_area_px: smallest defect that counts, in pixels; None: as elsewhere.
        max_defects: defects that are allowed.
    """

    name: str
    outline: BaseGeometry
    exclude: bool = False
    threshold: float | None = None
    min_area_px: float | None = None
    max_defects: int = 0


@dataclass(frozen=True, slots=True)
class ZoneMap:
    """Zones as pixels.

    Attributes:
        zones: those with limits.
        number: zone of every pixel, counted from 1, 0 outside all, shape (height, width), uint8.
        excluded: pixels that are not looked at, same shape.
    """

    zones: tuple[Zone, ...]
    number: NDArray[np.uint8]
    excluded: NDArray[np.bool_]


def read_zones(path: str | Path, *, mm_per_pixel: float | None) -> tuple[Zone, ...]:
    """Zones from a GeoJSON file.

    A misspelt limit would silently be none, so what is not known is refused.

    Args:
        path: the file, a FeatureCollection of Polygons and MultiPolygons.
        mm_per_pixel: for limits in square millimetres.

    Raises:
        InputError: no such file, or something in it is not understood.
        ConfigError: a limit in millimetres, and the size of a pixel is not known.
    """
    try:
        content = json.loads(Path(path).read_text())
        features = content["features"]
        if content["type"] != "FeatureCollection" or not isinstance(features, list):
            raise ValueError("it is no FeatureCollection")
        return tuple(_zone(feature, mm_per_pixel) for feature in features)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, shapely.GEOSException) as e:
        text = f"{e.args[0]!r} is missing" if isinstance(e, KeyError) else str(e)
        raise InputError(f"{path} holds no zones that are understood: {text}") from None


def _zone(feature: Any, mm_per_pixel: float | None) -> Zone:
    properties = feature["properties"] or {}
    name = str(properties.get("name", "")).strip()
    if not name:
        raise ValueError("a zone has no name")
    outline = shapely.from_geojson(json.dumps(feature["geometry"]))
    if outline.geom_type not in ("Polygon", "MultiPolygon") or not outline.is_valid:
        raise ValueError(f"zone {name} is no valid polygon")
    exclude = properties.get("exclude", False)
    if not isinstance(exclude, bool):
        raise ValueError(f"zone {name}: exclude must be true or false, got {exclude!r}")
    unknown = set(properties) - _LIMITS - _IGNORED - {"name", "exclude"}
    if unknown:
        raise ValueError(
            f"zone {name}: unknown {', '.join(sorted(unknown))}; known are name, exclude, "
            f"{', '.join(sorted(_LIMITS))} and comment"
        )
    limits = {key: properties[key] for key in _LIMITS if properties.get(key) is not None}
    if exclude and limits:
        raise ValueError(f"zone {name} is excluded, and limits mean nothing in it")
    return Zone(
        name, outline, exclude, _threshold(name, limits), _min_area(name, limits, mm_per_pixel),
        _max_defects(name, limits),
    )  # fmt: skip


def _number(name: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"zone {name}: {key} must be a number, got {value!r}")
    return float(value)


def _threshold(name: str, limits: dict[str, Any]) -> float | None:
    if "threshold" not in limits:
        return None
    value = _number(name, "threshold", limits["threshold"])
    if not 0 < value < 1:
        raise ValueError(f"zone {name}: threshold must lie between 0 and 1, got {value:g}")
    return value


def _min_area(name: str, limits: dict[str, Any], mm_per_pixel: float | None) -> float | None:
    given = [key for key in ("min_area_px", "min_area_mm2") if key in limits]
    if not given:
        return None
    if len(given) == 2:
        raise ValueError(f"zone {name}: give min_area_px or min_area_mm2, not both")
    value = _number(name, given[0], limits[given[0]])
    if value < 0:
        raise ValueError(f"zone {name}: {given[0]} must not be negative, got {value:g}")
    if given[0] == "min_area_px":
        return value
    if mm_per_pixel is None:
        raise ConfigError(
            f"zone {name} has a limit in square millimetres; say what a pixel covers with "
            "--mm-per-pixel"
        )
    return value / mm_per_pixel**2


def _max_defects(name: str, limits: dict[str, Any]) -> int:
    value = _number(name, "max_defects", limits.get("max_defects", 0))
    if value < 0 or not value.is_integer():
        raise ValueError(f"zone {name}: max_defects must be a whole number, got {value:g}")
    return int(value)


def map_zones(zones: tuple[Zone, ...], shape: tuple[int, int]) -> ZoneMap:
    """Zones on the pixels of a golden; where they overlap, the one that is listed last holds.

    A pixel belongs to the zone in which its centre lies. What is excluded is so in every zone.

    Raises:
        InputError: more than 255 zones, or one without a pixel of the golden.
    """
    limited = tuple(zone for zone in zones if not zone.exclude)
    if len(limited) > 255:
        raise InputError(f"there are {len(limited)} zones, and 255 are possible")
    number, excluded = np.zeros(shape, np.uint8), np.zeros(shape, np.bool_)
    for zone in zones:
        inside = rasterize([zone.outline], out_shape=shape).astype(np.bool_)
        if not inside.any():
            raise InputError(
                f"zone {zone.name} has no pixel of the golden, which is {shape[1]} x {shape[0]}; "
                "zones are in pixels, x to the right and y down"
            )
        if zone.exclude:
            excluded |= inside
        else:
            number[inside] = limited.index(zone) + 1
    return ZoneMap(limited, number, excluded)
