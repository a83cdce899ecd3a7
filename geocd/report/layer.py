"""Change polygons as they are found in a file, with what made them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pyogrio
import shapely

from geocd.errors import InputError
from geocd.maps import LAYER

VERDICTS = ("accepted", "rejected", "unsure")
"""What a person can say of a change."""
BESIDE = ("footprint", "centrelines", "not_observed")
"""Layers of a run that a page shows beside its changes."""
_REQUIRED = ("id", "kind", "score_mean")
_RUN_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ChangeLayer:
    """The change polygons of a run.

    Attributes:
        name: file name.
        frame: the polygons, in the file's CRS.
        provenance: what made them, values parsed where they are JSON; empty if unknown.
        run: names the run; verdicts carry it, so that they find their polygons again.
        beside: the layers beside the changes that the file has, of those in `BESIDE`.
    """

    name: str
    frame: geopandas.GeoDataFrame
    provenance: dict[str, Any]
    run: str
    beside: dict[str, geopandas.GeoDataFrame] = field(default_factory=dict)

    def date(self, role: str) -> str | None:
        """The date before or after, if the polygons or the inputs of the run tell it."""
        column = self.frame.get(f"{role}_date")
        if column is not None and column.notna().any():
            return str(column.dropna().iloc[0])
        inputs = self.provenance.get("inputs")
        known = inputs.get(role) if isinstance(inputs, dict) else None
        return known.get("date") if isinstance(known, dict) else None


def read_changes(path: Path) -> ChangeLayer:
    """The change polygons of a GeoPackage, GeoJSON, FlatGeobuf or GeoParquet file.

    Raises:
        InputError: the file is missing, cannot be read, or holds no changes of geocd.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the output of geocd detect")
    try:
        if path.suffix.lower() == ".parquet":
            return _layer(path, geopandas.read_parquet(path), {})
        layers = dict(pyogrio.list_layers(path))
        names = (LAYER,) if LAYER in layers else ()
        frame = geopandas.read_file(path, layer=names[0] if names else None)
        record = _provenance(path) if "provenance" in layers else {}
        beside = {name: _shapes(path, name) for name in BESIDE if name in layers}
    except InputError:
        raise
    except Exception as error:  # pyogrio and pyarrow raise several unrelated types
        raise InputError(f"cannot read {path} as change polygons: {error}") from None
    return replace(_layer(path, frame, record), beside=beside)


def _shapes(path: Path, name: str) -> geopandas.GeoDataFrame:
    """The geometries of a layer that are there."""
    frame = geopandas.read_file(path, layer=name)
    kept: geopandas.GeoDataFrame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
    return kept[[frame.geometry.name]].reset_index(drop=True)


def _provenance(path: Path) -> dict[str, Any]:
    table = pyogrio.read_dataframe(path, layer="provenance")
    if not {"key", "value"} <= set(table.columns):
        return {}
    return {str(key): _parsed(value) for key, value in zip(table.key, table.value, strict=True)}


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _layer(path: Path, frame: Any, record: dict[str, Any]) -> ChangeLayer:
    missing = [column for column in _REQUIRED if column not in frame.columns]
    if missing or not isinstance(frame, geopandas.GeoDataFrame):
        raise InputError(
            f"{path} has no {' and no '.join(missing) or 'geometry'}: it holds no changes of "
            "geocd; give the output of geocd detect"
        )
    if frame["id"].isna().any() or frame["id"].duplicated().any():
        raise InputError(f"{path}: some ids are missing or there twice, so changes have no name")
    kept = frame[frame.geometry.notna() & ~frame.geometry.is_empty].reset_index(drop=True)
    return ChangeLayer(path.name, kept, record, _run(kept, record))


def _run(frame: geopandas.GeoDataFrame, record: dict[str, Any]) -> str:
    """The name of a run: of its record, which outlives edits in a GIS, else of its polygons."""
    digest = hashlib.sha256()
    if "created" in record:
        digest.update(json.dumps(record, sort_keys=True).encode())
    else:
        order = frame["id"].astype(str).sort_values().index
        for name, geometry in zip(frame["id"][order], frame.geometry[order], strict=True):
            digest.update(f"{name}:".encode() + shapely.to_wkb(geometry))
    return digest.hexdigest()[:_RUN_DIGITS]


def areas(frame: geopandas.GeoDataFrame) -> tuple[pd.Series[float], str]:
    """The area of every change, and its unit: "m2", or "px" where the ground is unknown."""
    if "area_m2" in frame and frame["area_m2"].notna().all() and len(frame):
        return frame["area_m2"].astype(float), "m2"
    if frame.crs is not None and not len(frame):
        return pd.Series(dtype=float), "m2"
    if "area_px" in frame:
        return frame["area_px"].astype(float), "px"
    return frame.geometry.area, "px"
