"""The motion of a run, out of its record, for whoever draws the pair again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from affine import Affine

from geocd.align import Motion
from geocd.rasters.pair import RasterPair


def aligned(pair: RasterPair, alignment: Any) -> RasterPair:
    """The pair with the motion that the run found, brought from its reading grid to the pair's."""
    if not isinstance(alignment, dict):
        return pair
    motion, placed = motion_of(alignment.get("motion")), _affine(alignment.get("grid_transform"))
    if motion is None or placed is None:
        return pair
    return pair.with_motion(motion.seen_from(~placed @ pair.grid.transform))


def motion_of(record: Any) -> Motion | None:
    """A motion as ``Motion.to_dict`` wrote it; None if it is none."""
    affine = _affine(record.get("affine")) if isinstance(record, dict) else None
    if affine is None:
        return None
    try:
        field = record.get("field")
        if field is None:
            return Motion(affine)
        knots = _affine(field["knots"])
        displacement = np.asarray(field["displacement"], np.float32)
        return None if knots is None else Motion(affine, displacement, knots)
    except (KeyError, TypeError, ValueError):
        return None


def _affine(numbers: Any) -> Affine | None:
    if not isinstance(numbers, list) or len(numbers) != 6:
        return None
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return None
    transform = Affine(*numbers)
    return None if transform.determinant == 0 else transform
