"""The tiles of one date as one scene, and where their pixels lie."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geocd.archive.header import WGS84
from geocd.archive.rules import PlanRules
from geocd.rasters.grid import Grid, reproject_geometry

_LENGTHS = {"day": 10, "month": 7, "year": 4}
_PHASES = 20
"""Tiles whose pixels are displaced by more than a twentieth of a pixel are no one scene."""


@dataclass(frozen=True)
class DatedScene:
    """Files of one date, CRS, resolution and kind of values.

    Attributes:
        date: ISO date, month or year.
        key: what tells it from every other scene of the date.
        tiles: its rows of the index, by path; where tiles overlap, the later lies on top.
        crs: of all of them.
    """

    date: str
    key: str
    tiles: geopandas.GeoDataFrame
    crs: CRS

    @cached_property
    def lattice(self) -> Affine:
        """From (col, row), counted from the origin of the CRS, to (x, y)."""
        place = Affine(*self.tiles["transform"].iloc[0])
        row, col = Grid(self.crs, place, 1, 1).place_from_origin or (0, 0)
        return place @ Affine.translation(-col, -row)

    @property
    def gsd(self) -> float:
        """Ground sample distance in metres, of the tile in the middle."""
        return float(self.tiles["gsd"].astype(float).median())

    def outlines(self, crs: CRS) -> NDArray[Any]:
        """Valid outlines of the tiles in a CRS."""
        shapes = self.tiles.geometry.to_numpy()
        moved = [reproject_geometry(shape, WGS84, crs) for shape in shapes]
        return np.array([shapely.make_valid(shape) for shape in moved], dtype=object)

    def side(self, chosen: NDArray[np.intp]) -> dict[str, Any]:
        """Some of the tiles, with all that is needed to read them, JSON-ready."""
        tiles = self.tiles.iloc[np.sort(chosen)]
        first = tiles.iloc[0]
        return {
            "date": self.date, "crs": first["crs"], "dtype": first["dtype"],
            "bands": int(first["bands"]), "nodata": _number(first["nodata"]),
            "alpha": _number(first["alpha"]), "masked": bool(first["masked"]),
            "lattice": list(self.lattice[:6]),
            "tiles": [
                [row.path, row.hash, _number(row.size), list(row.transform), int(row.height),
                 int(row.width)]
                for row in tiles[["path", "hash", "size", "transform", "height",
                                  "width"]].itertuples(index=False, name="Tile")
            ],
        }  # fmt: skip


def _number(value: Any) -> Any:
    if pd.isna(value):
        return None
    return int(value) if float(value).is_integer() else float(value)


def usable_tiles(
    index: geopandas.GeoDataFrame, rules: PlanRules
) -> tuple[geopandas.GeoDataFrame, dict[str, int]]:
    """The rows of an index that can be paired, and how many were left out, by reason."""
    reasons = pd.Series(pd.NA, index=index.index, dtype="string")
    gsd = rules.gsd or (0.0, np.inf)
    dates = index["date"].fillna("")
    for reason, out in (
        ("damaged", index["status"] == "damaged"),
        ("not placed on the ground", index["status"] == "unplaced"),
        ("made by geocd", index["status"] == "output"),
        ("empty", index.geometry.isna() | index.geometry.is_empty),
        ("copies of others", index["duplicate_of"].notna()),
        ("without a date", dates == ""),
        ("out of season", ~dates.map(rules.in_season).astype(bool)),
        ("of another resolution", ~index["gsd"].astype(float).between(*gsd)),
    ):
        reasons = reasons.where(reasons.notna() | ~out.fillna(True).to_numpy(bool), reason)
    counts = {str(reason): int(count) for reason, count in reasons.value_counts().items()}
    return index[reasons.isna()], counts


def scenes_of(tiles: geopandas.GeoDataFrame, rules: PlanRules) -> list[DatedScene]:
    """The scenes that tiles belong to, by date."""
    if tiles.empty:
        return []
    transforms = np.array(tiles["transform"].tolist())
    x, y = (transforms[:, i] / transforms[:, j] % 1 for i, j in ((2, 0), (5, 4)))
    kind = tiles.assign(
        date=tiles["date"].str[: _LENGTHS[rules.scene_by]],
        phase=[f"{round(a * _PHASES) % _PHASES} {round(b * _PHASES) % _PHASES}"
               for a, b in zip(x, y, strict=True)],
        res=[f"{a:.6g} {b:.6g}" for a, b in transforms[:, [0, 4]]],
    )  # fmt: skip
    names = ["date", "crs", "res", "phase", "bands", "dtype", "nodata", "alpha", "masked"]
    scenes = []
    for key, chosen in kind.groupby(names, dropna=False, sort=True):
        text = hashlib.sha256(repr([str(part) for part in key]).encode()).hexdigest()[:8]
        crs = CRS.from_user_input(chosen["crs"].iloc[0])
        scenes.append(DatedScene(str(key[0]), text, chosen.sort_values("path"), crs))
    return scenes


def covered(outlines: NDArray[Any], cell: BaseGeometry) -> BaseGeometry:
    """The ground of a cell that outlines cover."""
    return shapely.union_all(shapely.intersection(outlines, cell))
