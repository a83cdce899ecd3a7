"""Writing change polygons: GeoPackage, GeoJSON, FlatGeobuf, GeoParquet."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

from geocd.errors import ConfigError, OutputError
from geocd.maps.lonlat import to_lonlat
from geocd.maps.qml import add_layer_style
from geocd.outputs import check_writable, replacing
from geocd.vectorize.outline import as_multipolygons

LAYER = "changes"
"""Name of the layer of change polygons, in the formats that name layers."""
STYLED_LAYERS = {
    "centrelines": "centrelines of road changes",
    "not_observed": "ground that one date does not show",
    "footprint": "extent that was compared",
}
"""Layers beside the changes that have a style of their name, and what it shows."""

Provenance = Mapping[str, object]
Layers = Mapping[str, geopandas.GeoDataFrame]
_WRITE_ERRORS = (DataSourceError, DataLayerError, FeatureError, GeometryError, sqlite3.Error)
_LONLAT_STEP = 1e-7
"""Resolution of GeoJSON in degrees: a centimetre."""


def provenance_rows(provenance: Provenance) -> pd.DataFrame:
    """The record as a table of keys and values, JSON where they are no text."""
    rows = {
        "key": list(provenance),
        "value": [
            v if isinstance(v, str) else json.dumps(v, default=str) for v in provenance.values()
        ],
    }
    return pd.DataFrame(rows, dtype=str)


def _write_geopackage(changes: geopandas.GeoDataFrame, path: Path, provenance: Provenance) -> None:
    _write_ogr(changes, path, "GPKG")
    pyogrio.write_dataframe(provenance_rows(provenance), path, driver="GPKG",
                            layer="provenance", append=True)  # fmt: skip
    add_layer_style(path, LAYER, style="changes", description="change by kind")


def _append_layers(layers: Layers, path: Path) -> None:
    for name, layer in layers.items():
        kind = "LineString" if name == "centrelines" else "MultiPolygon"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*crs.*was not provided.*")
            pyogrio.write_dataframe(layer, path, driver="GPKG", layer=name, append=True,
                                    geometry_type=kind)  # fmt: skip
        if name in STYLED_LAYERS:
            add_layer_style(path, name, style=name, description=STYLED_LAYERS[name])


def _write_geojson(changes: geopandas.GeoDataFrame, path: Path, provenance: Provenance) -> None:
    if changes.crs is None:
        _write_ogr(changes, path, "GeoJSON")
        return
    # RFC 7946 knows one CRS.
    rounded = _rounded(to_lonlat(changes))
    _write_ogr(rounded, path, "GeoJSON", RFC7946="YES", COORDINATE_PRECISION=7)


def _rounded(changes: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The polygons with the digits that are written, valid with them."""
    exact = np.asarray(changes.geometry, dtype=object)
    # The driver rounds too, and leaves narrow necks crossed.
    rounded = as_multipolygons(shapely.set_precision(exact, _LONLAT_STEP))
    # What spans the antimeridian is for the driver to cut first; what vanishes stays unrounded.
    west, _, east, _ = shapely.bounds(exact).T
    around_a_pole = east - west == 360
    kept = ((east - west > 180) & ~around_a_pole) | shapely.is_empty(rounded)
    return changes.set_geometry(np.where(kept, exact, rounded), crs=changes.crs)


def _write_flatgeobuf(changes: geopandas.GeoDataFrame, path: Path, provenance: Provenance) -> None:
    _write_ogr(changes, path, "FlatGeobuf")


def _write_parquet(changes: geopandas.GeoDataFrame, path: Path, provenance: Provenance) -> None:
    changes.to_parquet(path, schema_version="1.1.0", write_covering_bbox=True, index=False)


_WRITERS: dict[str, Callable[[geopandas.GeoDataFrame, Path, Provenance], None]] = {
    ".gpkg": _write_geopackage,
    ".geojson": _write_geojson,
    ".fgb": _write_flatgeobuf,
    ".parquet": _write_parquet,
}


def _write_ogr(changes: geopandas.GeoDataFrame, path: Path, driver: str, **options: Any) -> None:
    with warnings.catch_warnings():
        # Layers without a CRS are a supported case: they are in pixel units.
        warnings.filterwarnings("ignore", message=".*crs.*was not provided.*")
        pyogrio.write_dataframe(changes, path, driver=driver, layer=LAYER,
                                geometry_type="MultiPolygon", **options)  # fmt: skip
    # Drivers that write their last bytes on closing do not tell that the disk was full by then.
    features, _ = pyogrio.read_bounds(path, layer=LAYER)
    if len(features) != len(changes):
        raise DataSourceError(f"{len(features)} of {len(changes)} polygons arrived in {path}")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output of change polygons that could not be written.

    Raises:
        ConfigError: the extension is that of no format that is written.
        OutputError: see ``outputs.check_writable``; or another program is writing to the file.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        advice = "; a Shapefile cuts names and loses nulls, use .gpkg" if suffix == ".shp" else ""
        raise ConfigError(
            f"cannot write {path.name!r}: change polygons are written as "
            f"{', '.join(_WRITERS)}{advice}"
        )
    check_writable(path, overwrite=overwrite)
    # SQLite would play these into the new file, which would then show the old polygons.
    for left in (path.with_name(f"{path.name}{end}") for end in ("-wal", "-journal")):
        if suffix == ".gpkg" and left.exists() and left.stat().st_size > 0:
            raise OutputError(
                f"{path} has unfinished changes of another program in {left.name}; "
                "close it there, or write elsewhere"
            )


def write_changes(
    changes: geopandas.GeoDataFrame,
    path: Path,
    *,
    provenance: Provenance,
    layers: Layers | None = None,
    overwrite: bool = False,
) -> None:
    """Write change polygons; the extension chooses the format. Atomic.

    Args:
        changes: as ``trace_changes`` gives them; may be empty.
        path: ends in ``.gpkg`` (layer "changes", styled for QGIS, and a table "provenance"),
            ``.geojson`` (RFC 7946: WGS 84; pixel units without a CRS), ``.fgb`` or ``.parquet``.
        provenance: what made the polygons; kept in a GeoPackage only.
        layers: more layers by name, such as "footprint"; kept in a GeoPackage only, because
            the other formats hold one layer.
        overwrite: replace an existing file.

    Raises:
        ConfigError: another extension.
        OutputError: the file cannot be written; the target is as it was.
    """
    check_output(path, overwrite=overwrite)
    with replacing(path) as temporary:
        try:
            _WRITERS[path.suffix.lower()](changes, temporary, provenance)
            if layers and path.suffix.lower() == ".gpkg":
                _append_layers(layers, temporary)
        except _WRITE_ERRORS as error:
            reason = str(error).replace(str(temporary), str(path))
            raise OutputError(f"{path} was not written: {reason}; is the disk full?") from None
