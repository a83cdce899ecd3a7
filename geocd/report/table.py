"""The table of changes that a page carries: columns of numbers and short codes."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import pandas as pd

from geocd.rasters.grid import Grid
from geocd.report.facts import colour, kinds_of
from geocd.report.images import Window
from geocd.report.layer import VERDICTS, areas
from geocd.report.shapes import (
    QUANTUM,
    encode_bounds,
    encode_rings,
    points_on_the_globe,
    polygons_in_pixels,
    windows_around,
)

_TOLD_ELSEWHERE = (
    "id", "kind", "score_mean", "area_m2", "area_px", "before_date", "after_date", "verdict",
    "verdict_note",
)  # fmt: skip
_FEW = 20_000
"""Changes up to which a page tells every attribute of each."""


def change_table(
    frame: geopandas.GeoDataFrame, grid: Grid, *, tolerance: float | None
) -> tuple[dict[str, Any], list[Window]]:
    """The changes for a page, and the window around each.

    Args:
        frame: the changes in the order of the page.
        grid: the page's pixels.
        tolerance: of the thinning of outlines, in pixels; None: without outlines.

    Raises:
        CrsMismatchError: the changes or the grid lack a CRS, and the other has one.
    """
    polygons = polygons_in_pixels(frame, grid)
    size, unit = areas(frame)
    kinds = kinds_of(frame)
    windows = windows_around(polygons)
    points = points_on_the_globe(frame)
    table: dict[str, Any] = {
        "count": len(frame),
        "id": frame["id"].tolist(),
        "kinds": [{"name": kind, "colour": colour(kind)} for kind in kinds],
        "kind": [kinds.index(str(kind)) for kind in frame["kind"].fillna("change")],
        "score": _numbers(frame["score_mean"], 3),
        "area": _numbers(size, 1),
        "unit": unit,
        "quantum": QUANTUM,
        "bounds": encode_bounds(polygons),
        "windows": [number for window in windows for number in window],
        "rings": None if tolerance is None else encode_rings(polygons, tolerance),
        # Seven decimals of a degree are a centimetre.
        "points": None if points is None else np.round(points, 7).tolist(),
        "verdicts": _verdicts(frame),
        "attributes": _attributes(frame) if len(frame) <= _FEW else [],
    }
    return table, windows


def _numbers(column: pd.Series[Any], digits: int) -> list[float | None]:
    return [None if np.isnan(v) else round(v, digits) for v in column.astype(float)]


def _verdicts(frame: geopandas.GeoDataFrame) -> list[list[Any]]:
    """[row, verdict, note] of the changes that were judged before."""
    if "verdict" not in frame:
        return []
    notes = frame.get("verdict_note", pd.Series(None, index=frame.index, dtype=object))
    return [
        [row, verdict, note if isinstance(note, str) else ""]
        for row, (verdict, note) in enumerate(zip(frame["verdict"], notes, strict=True))
        if verdict in VERDICTS
    ]


def _attributes(frame: geopandas.GeoDataFrame) -> list[dict[str, Any]]:
    """The other attributes, by name; those that are never known are left out."""
    attributes = []
    for name in frame.columns.drop(frame.geometry.name):
        column = frame[name]
        if name in _TOLD_ELSEWHERE or not column.notna().any():
            continue
        if column.dtype.kind == "f":
            values: list[Any] = _numbers(column, 3)
        else:
            values = [None if pd.isna(value) else _plain(value) for value in column]
        attributes.append({"name": str(name), "values": values})
    return attributes


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return value if isinstance(value, int | float | str) else str(value)
