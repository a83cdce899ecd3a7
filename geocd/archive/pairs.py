"""Two scenes that are compared, as one: all the tiles that the units of a pair see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geocd.rasters.grid import Grid, reproject_geometry


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by column."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def core_grid(unit: Mapping[str, Any]) -> Grid:
    """The pixels that a unit, a row of a plan, answers for."""
    crs, transform = CRS.from_user_input(unit["crs"]), Affine(*unit["transform"])
    return Grid(crs, transform, int(unit["height"]), int(unit["width"]))


def whole_pair(units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All units of a pair as one: a row of a plan without margins, with every tile they see.

    Its ground is that of the units, as far as the tiles of both dates reach: what `detect` would
    measure on if the tiles were one file each date.

    Args:
        units: rows of a plan.
    """
    sides = {role: _all_tiles(units, role) for role in ("before", "after")}
    grid = grid_around([core_grid(unit) for unit in units])
    before, after = (_reach(side, grid.crs) for side in sides.values())
    span = grid.slices_over(shapely.intersection(shapely.box(*before.bounds), after))
    if span is not None:
        grid = grid.crop(*span)
    # Counted from a tile, not from far away, so that the transform is that of the tile to the bit.
    tile = Affine(*sides["before"]["tiles"][0][3])
    col, row = ~tile @ (grid.transform.c, grid.transform.f)
    grid = replace(grid, transform=tile @ Affine.translation(round(col), round(row)))
    return {
        "pair": units[0]["pair"], "crs": units[0]["crs"], "transform": list(grid.transform[:6]),
        "height": grid.height, "width": grid.width, "margin_before": 0, "margin_after": 0,
        **{role: json.dumps(side) for role, side in sides.items()},
    }  # fmt: skip


def _reach(side: Mapping[str, Any], crs: CRS | None) -> BaseGeometry:
    """The ground in a CRS that the tiles of a date take up."""
    own = CRS.from_user_input(side["crs"])
    outlines = [
        reproject_geometry(Grid(own, Affine(*place), height, width).footprint, own, crs or own)
        for *_, place, height, width in side["tiles"]
    ]
    return shapely.union_all(outlines)


def pair_hash(units: Sequence[Mapping[str, Any]]) -> str:
    """Hash of all that can be measured of a pair; paths of tiles do not count."""
    pair = whole_pair(units)
    sides = [json.loads(pair[role]) for role in ("before", "after")]
    for side in sides:
        side["tiles"] = [tile[1:] for tile in side["tiles"]]
    place = [pair[name] for name in ("crs", "transform", "height", "width")]
    return hashlib.sha256(json.dumps([place, sides], sort_keys=True).encode()).hexdigest()[:32]


def _all_tiles(units: Sequence[Mapping[str, Any]], role: str) -> dict[str, Any]:
    sides = [json.loads(unit[role]) for unit in units]
    tiles = {tile[0]: tile for side in sides for tile in side["tiles"]}
    # By path, as in every unit: where tiles overlap, the later lies on top.
    side: dict[str, Any] = sides[0] | {"tiles": [tiles[path] for path in sorted(tiles)]}
    return side


def grid_around(grids: Sequence[Grid]) -> Grid:
    """The grid around grids whose pixels lie on those of one another."""
    first = grids[0]
    places = [(~first.transform @ (g.transform.c, g.transform.f), g) for g in grids]
    col = min(round(place[0]) for place, _ in places)
    row = min(round(place[1]) for place, _ in places)
    right = max(round(place[0]) + g.width for place, g in places)
    below = max(round(place[1]) + g.height for place, g in places)
    transform = first.transform @ Affine.translation(col, row)
    return Grid(first.crs, transform, below - row, right - col)
