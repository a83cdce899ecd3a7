"""Where an image lies once the motion that a run found is taken into account."""

from __future__ import annotations

from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from geocd.align.measurement import affine_of, motion_of
from geocd.rasters.grid import Grid, apply_transform, transformer_between

_LARGEST_MISFIT = 0.25
"""How far, in pixels, a georeferencing may be off what the motion says, in another CRS."""


def moved_georeferencing(grid: Grid, crs: CRS | None, alignment: Any) -> Affine | None:
    """The transform under which after lies on before; None where no transform can say that.

    The affine part of the motion goes into the transform; a local field does not.

    Args:
        grid: after's, as its own georeferencing says.
        crs: before's, in which the motion was found.
        alignment: as a run records it.
    """
    if not isinstance(alignment, dict) or alignment.get("status") != "applied":
        return None
    motion, placed = motion_of(alignment.get("motion")), affine_of(alignment.get("grid_transform"))
    if motion is None or placed is None or (crs is None) != (grid.crs is None):
        return None
    # After shows at motion(pixel) what lies at the pixel.
    back: Affine = placed @ ~motion.affine @ ~placed
    if crs is None or grid.crs is None or crs == grid.crs:
        return Affine(*(back @ grid.transform)[:6])
    return _fitted(grid, crs, back)


def _fitted(grid: Grid, crs: CRS, back: Affine) -> Affine | None:
    """The transform that comes closest at the corners, the middles of the sides, and between."""
    assert grid.crs is not None
    cols, rows = (
        a.ravel() for a in np.meshgrid([0, grid.width / 2, grid.width],
                                       [0, grid.height / 2, grid.height])
    )  # fmt: skip
    x, y = apply_transform(grid.transform, cols, rows)
    x, y = transformer_between(grid.crs, crs).transform(x, y)
    x, y = apply_transform(back, np.asarray(x), np.asarray(y))
    x, y = transformer_between(crs, grid.crs).transform(x, y)
    known = np.column_stack([cols, rows, np.ones(len(cols))])
    wanted = np.column_stack([x, y])
    if not np.isfinite(wanted).all():
        return None
    middle = wanted.mean(axis=0)  # degrees and metres far from 0 keep their digits
    found, *_ = np.linalg.lstsq(known, wanted - middle, rcond=None)
    misfit = np.abs(known @ found + middle - wanted).max(axis=0)
    dy, dx = grid.pixel_size
    if (misfit > _LARGEST_MISFIT * np.array([dx, dy])).any():
        return None
    (a, d), (b, e), (c, f) = found
    return Affine(a, b, c + middle[0], d, e, f + middle[1])
