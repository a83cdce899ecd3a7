"""The motion of a run, out of its record, for whoever draws the pair again."""

from __future__ import annotations

from typing import Any

from geocd.align.measurement import affine_of, motion_of
from geocd.rasters.pair import RasterPair


def aligned(pair: RasterPair, alignment: Any) -> RasterPair:
    """The pair with the motion that the run found, brought from its reading grid to the pair's."""
    if not isinstance(alignment, dict):
        return pair
    motion, placed = motion_of(alignment.get("motion")), affine_of(alignment.get("grid_transform"))
    if motion is None or placed is None:
        return pair
    return pair.with_motion(motion.seen_from(~placed @ pair.grid.transform))
