"""Styles that QGIS applies by itself: inside a GeoPackage, and beside a raster."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from pathlib import Path

from geocd.outputs import replacing

_STYLES_TABLE = """
create table if not exists layer_styles (
    id integer primary key autoincrement not null,
    f_table_catalog text(256), f_table_schema text(256), f_table_name text(256),
    f_geometry_column text(256), styleName text(30), styleQML text, styleSLD text,
    useAsDefault boolean, description text, owner text(30), ui text(30),
    update_time datetime default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""


def style_text(name: str) -> str:
    """A style that comes with geocd: the name of a file in ``styles``, without its ending."""
    return (files("geocd.maps") / "styles" / f"{name}.qml").read_text()


def add_layer_style(geopackage: Path, layer: str, *, style: str, description: str) -> None:
    """Make a style the default of a layer of a GeoPackage.

    Args:
        geopackage: an existing file, changed in place.
        layer: name of the layer.
        style: name of the style, as for ``style_text``.
        description: what it shows, in a few words.
    """
    database = sqlite3.connect(geopackage)
    try:
        with database:
            (column,) = database.execute(
                "select column_name from gpkg_geometry_columns where table_name = ?", (layer,)
            ).fetchone()
            database.execute(_STYLES_TABLE)
            # A table that gpkg_contents does not name is not seen by every reader.
            database.execute(
                "insert or ignore into gpkg_contents (table_name, data_type, identifier, srs_id) "
                "values ('layer_styles', 'attributes', 'layer_styles', 0)"
            )
            database.execute(
                "insert into layer_styles (f_table_catalog, f_table_schema, f_table_name, "
                "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, "
                "owner) values ('', '', ?, ?, ?, ?, '', 1, ?, '')",
                (layer, column, style, style_text(style), description),
            )
    finally:
        database.close()


def write_raster_style(raster: Path, *, style: str = "change_map") -> Path:
    """Put a style beside a raster, under the same base name; QGIS loads it from there.

    Args:
        raster: the file that it is for.
        style: name of the style, as for ``style_text``.

    Raises:
        OutputError: the folder cannot be written to.
    """
    path = raster.with_suffix(".qml")
    with replacing(path) as temporary:
        temporary.write_text(style_text(style))
    return path
