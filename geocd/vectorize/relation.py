"""How changed buildings relate to footprints that are known already."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from geocd.errors import CrsMismatchError, InputError

RELATIONS = ("new", "removed", "altered", "confirmed")
_MEETS = 0.1
"""Least share of a change polygon, or of a footprint, that makes them meet."""
_SAME = 0.5
"""Least intersection over union of a change and the footprints it meets that are one building."""


def read_footprints(path: Path, changes: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The polygons of a vector file, in the CRS of the changes.

    Raises:
        InputError: the file cannot be read or holds no polygon.
        CrsMismatchError: it has a CRS and the changes have none, or the other way round.
    """
    try:
        known = geopandas.read_file(path)
    except Exception as error:  # pyogrio raises several unrelated types
        raise InputError(f"cannot read the footprints {path}: {error}") from None
    areal = known.geometry.notna() & known.geometry.geom_type.isin(("Polygon", "MultiPolygon"))
    known = known[areal]
    if known.empty:
        raise InputError(f"{path} holds no polygon; give a layer of building footprints")
    if (known.crs is None) != (changes.crs is None):
        bare, other = ("the footprints", "the images") if known.crs is None else (
            "the images", "the footprints")  # fmt: skip
        raise CrsMismatchError(f"{bare} have no CRS, {other} have one; assign it to {path} first")
    return known if known.crs is None else known.to_crs(changes.crs)


def relate(
    changes: geopandas.GeoDataFrame, known: geopandas.GeoDataFrame
) -> npt.NDArray[np.object_]:
    """What each changed building means for a layer of known footprints; None for roads.

    A change meets the footprints that cover a tenth of it, or of which it covers a tenth:

    * ``new``: it meets none, and it did not disappear: the layer lacks it.
    * ``removed``: it meets some, and it disappeared: the layer has what is gone.
    * ``confirmed``: the layer is right already: it appeared and is where footprints are
      (intersection over union of at least one half), or it disappeared and meets none.
    * ``altered``: it meets some, in any other way.

    Args:
        changes: with ``kind`` and ``direction``, shape (n,).
        known: polygons in the same CRS.

    Returns:
        Shape (n,), of `RELATIONS` or None.
    """
    polygons = np.asarray(changes.geometry, dtype=object)
    footprints = shapely.make_valid(np.asarray(known.geometry, dtype=object))
    first, second = shapely.STRtree(footprints).query(polygons, predicate="intersects")
    shared = shapely.area(shapely.intersection(polygons[first], footprints[second]))
    own, other = shapely.area(polygons), shapely.area(footprints)
    meets = (shared >= _MEETS * own[first]) | (shared >= _MEETS * other[second])
    first, second, shared = first[meets], second[meets], shared[meets]
    n = len(polygons)
    covered = np.bincount(first, weights=shared, minlength=n)
    reached = np.bincount(first, weights=other[second], minlength=n)
    met = np.isin(np.arange(n), first)
    same = covered >= _SAME * (own + reached - covered)
    appeared, gone = ((changes["direction"] == d).to_numpy() for d in ("appeared", "disappeared"))
    relation = np.where(met, "altered", "new").astype(object)
    relation[met & gone] = "removed"
    relation[(met & same & appeared) | (~met & gone)] = "confirmed"
    relation[(changes["kind"] != "building").to_numpy()] = None
    return relation


def with_relation(changes: geopandas.GeoDataFrame, path: Path) -> geopandas.GeoDataFrame:
    """The changes with a column ``relation``, as `relate` gives it.

    Args:
        changes: as ``trace_changes`` gives them.
        path: vector file of known footprints.
    """
    relation = relate(changes, read_footprints(path, changes))
    result: geopandas.GeoDataFrame = changes.assign(relation=pd.array(relation, dtype="string"))
    return result
