"""The pair that a run compared, opened again by its record."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from geocd.align.measurement import affine_of, motion_of
from geocd.errors import InputError
from geocd.rasters.grid import Grid
from geocd.rasters.pair import RasterPair, open_pair
from geocd.vectorize.scorefile import ScoreHeader

_SLACK = 1e-3
"""Largest distance of two corners of one grid, in pixels."""


def aligned(pair: RasterPair, alignment: Any) -> RasterPair:
    """The pair with the motion that the run found, brought from its reading grid to the pair's."""
    if not isinstance(alignment, dict):
        return pair
    motion, placed = motion_of(alignment.get("motion")), affine_of(alignment.get("grid_transform"))
    if motion is None or placed is None:
        return pair
    return pair.with_motion(motion.seen_from(~placed @ pair.grid.transform))


def compared_pair(before: str | Path, after: str | Path, header: ScoreHeader) -> RasterPair:
    """The two dates as the run read them that wrote the scores: bands, pixels and alignment.

    Args:
        before: raster of the earlier date: a file, a URL, a VRT or a folder of tiles.
        after: of the later date.
        header: of the scores.

    Raises:
        InputError: the scores do not lie on before's grid; and its kinds.
    """
    config = header.record.get("config") or {}
    bands = config.get("bands")
    pair = open_pair(before, after, channels=len(bands) if bands else None, bands=bands)
    if not _same(pair.output_grid, header.grid):
        raise InputError(
            f"the scores are {header.grid.describe()}, before ({pair.before.name}) is "
            f"{pair.output_grid.describe()}; give the images that the scores come from"
        )
    alignment = header.record.get("alignment")
    placed = affine_of(alignment.get("grid_transform")) if isinstance(alignment, dict) else None
    return aligned(pair if placed is None else _read_at(pair, placed), alignment)


def _same(a: Grid, b: Grid) -> bool:
    if a.shape != b.shape or (a.crs is None) != (b.crs is None):
        return False
    placed = ~a.transform @ b.transform
    corners = ((0, 0), (0, a.height), (a.width, 0), (a.width, a.height))
    return all(math.dist(placed @ corner, corner) <= _SLACK for corner in corners)


def _read_at(pair: RasterPair, transform: Any) -> RasterPair:
    """The pair at the pixel size of another grid, as the run read it."""
    whole = pair.output_grid
    scale = ~whole.transform @ transform
    dy, dx = math.hypot(scale.b, scale.e), math.hypot(scale.a, scale.d)
    if abs(dy - 1) < _SLACK and abs(dx - 1) < _SLACK:
        return pair
    grid = whole.scaled(dy, dx)
    span = grid.slices_over(pair.grid.footprint)
    return pair if span is None else replace(pair, grid=grid.crop(*span))
