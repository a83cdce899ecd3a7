"""Tie points as layers of a GeoPackage: what was found where, and arrows of what is left."""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

from geocd.align import Alignment
from geocd.errors import ConfigError, OutputError
from geocd.maps.qml import add_layer_style
from geocd.maps.vector import Provenance, provenance_rows
from geocd.outputs import check_writable, replacing
from geocd.rasters.grid import Grid
from geocd.rasters.warp import transform_array

POINTS, ARROWS = "tie_points", "residual_arrows"
"""Names of the layers."""
When = Literal["before", "after"]
"""Before or after alignment."""

_LONGEST_ARROW = 1 / 24
"""Length of a long arrow, as a share of the longer side of the image."""
_WRITE_ERRORS = (DataSourceError, DataLayerError, FeatureError, GeometryError, sqlite3.Error)


@dataclass(frozen=True, slots=True)
class TieSet:
    """The tie points of one image that was aligned."""

    name: str
    """Of the image."""
    alignment: Alignment
    grid: Grid
    """The grid in whose pixels the alignment speaks."""


def residual_vectors(alignment: Alignment, when: When) -> NDArray[np.float64]:
    """What is left between the images at each tie point, (x, y) in pixels, shape (n, 2).

    They point from where before shows the spot to where after does. Their lengths are the
    residuals of the tie points; where no motion was applied there is nothing 'after'.
    """
    ties = alignment.ties
    if when == "before":
        return ties.displacement
    if alignment.status != "applied":
        return np.empty((0, 2))
    left = ties.position + ties.displacement - alignment.motion(ties.position)
    length = np.hypot(left[:, 0], left[:, 1])
    # The motion that judges a held-out tie was made without it: its residual is the longer one.
    return np.asarray(left * (ties.residual_after / np.maximum(length, 1e-9))[:, None])


def arrow_scale(vectors: NDArray[np.float64], shape: tuple[int, int]) -> float:
    """A round number by which to lengthen vectors so that they can be seen.

    Args:
        vectors: (x, y) in pixels, shape (n, 2).
        shape: (height, width) of the image.
    """
    if not len(vectors):
        return 1.0
    long = max(float(np.percentile(np.hypot(vectors[:, 0], vectors[:, 1]), 90)), 1e-3)
    wanted = max(shape) * _LONGEST_ARROW / long
    power = 10.0 ** math.floor(math.log10(wanted))
    return max(1.0, power * max(step for step in (1, 2, 5) if step * power <= wanted))


def check_tie_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a file of tie points that could not be written.

    Raises:
        ConfigError: the extension is not ``.gpkg``.
        OutputError: see ``outputs.check_writable``.
    """
    if path.suffix.lower() != ".gpkg":
        raise ConfigError(f"cannot write {path.name!r}: tie points are written as .gpkg")
    check_writable(path, overwrite=overwrite)


def write_ties(
    sets: Sequence[TieSet], path: Path, *, provenance: Provenance, overwrite: bool = False
) -> None:
    """Write the layers "tie_points" and "residual_arrows", styled for QGIS. Atomic.

    Args:
        sets: tie points by image, all in one CRS.
        path: a GeoPackage.
        provenance: what made them.
        overwrite: replace an existing file.

    Raises:
        ConfigError: another extension.
        OutputError: the file cannot be written; the target is as it was.
    """
    check_tie_output(path, overwrite=overwrite)
    points = pd.concat([_points(s) for s in sets])
    arrows = pd.concat([_arrows(s, when) for s in sets for when in ("before", "after")])
    with replacing(path) as temporary:
        try:
            _write_layer(points, temporary, POINTS, "Point")
            _write_layer(arrows, temporary, ARROWS, "LineString")
            pyogrio.write_dataframe(provenance_rows(provenance), temporary, driver="GPKG",
                                    layer="provenance", append=True)  # fmt: skip
            for layer, words in ((POINTS, "tie points by role"), (ARROWS, "residuals by time")):
                add_layer_style(temporary, layer, style=layer, description=words)
        except _WRITE_ERRORS as error:
            reason = str(error).replace(str(temporary), str(path))
            raise OutputError(f"{path} was not written: {reason}; is the disk full?") from None


def _points(ties: TieSet) -> geopandas.GeoDataFrame:
    found = ties.alignment.ties
    columns: dict[str, Any] = {
        "image": np.full(len(found), ties.name, dtype=object),
        "role": found.role.astype(object),
        "score": found.score.astype(np.float64),
        "dx_px": found.displacement[:, 0],
        "dy_px": found.displacement[:, 1],
        "residual_before_px": found.residual_before.astype(np.float64),
        "residual_after_px": found.residual_after.astype(np.float64),
    }
    places = shapely.points(transform_array(ties.grid.transform, found.position))
    return geopandas.GeoDataFrame(columns, geometry=places, crs=_crs(ties.grid))


def _arrows(ties: TieSet, when: When) -> geopandas.GeoDataFrame:
    """Arrows of the believed tie points; outliers say nothing about the alignment."""
    found = ties.alignment.ties
    vectors = residual_vectors(ties.alignment, when)
    shown = found.believed if len(vectors) else np.zeros(len(found), np.bool_)
    vectors = vectors[shown] if len(vectors) else vectors
    scale = arrow_scale(vectors, ties.grid.shape)
    begin = found.position[shown]
    ends = np.stack([begin, begin + vectors * scale], axis=1)  # (n, 2, 2)
    ground = transform_array(ties.grid.transform, ends.reshape(-1, 2)).reshape(-1, 2, 2)
    count = len(vectors)
    columns: dict[str, Any] = {
        "image": np.full(count, ties.name, dtype=object),
        "alignment": np.full(count, when, dtype=object),
        "role": found.role[shown].astype(object),
        "residual_px": np.hypot(vectors[:, 0], vectors[:, 1]),
        "dx_px": vectors[:, 0],
        "dy_px": vectors[:, 1],
        "scale": np.full(count, scale),
    }
    return geopandas.GeoDataFrame(
        columns, geometry=shapely.linestrings(ground), crs=_crs(ties.grid)
    )


def _crs(grid: Grid) -> str | None:
    return None if grid.crs is None else str(grid.crs.to_wkt())


def _write_layer(table: Any, path: Path, layer: str, geometry: str) -> None:
    with warnings.catch_warnings():
        # Layers without a CRS are a supported case: they are in pixel units.
        warnings.filterwarnings("ignore", message=".*crs.*was not provided.*")
        pyogrio.write_dataframe(table, path, driver="GPKG", layer=layer,
                                geometry_type=geometry, append=path.exists())  # fmt: skip
