"""Co-registration: estimate a motion, judge it on held-out tie points, apply it once."""

from geocd.align.alignment import Alignment, Residuals, Status, TiePoints
from geocd.align.apply import (
    aligned_grid,
    apply,
    estimate_pair,
    open_for_alignment,
    refuse_input,
)
from geocd.align.estimate import estimate, estimate_arrays
from geocd.align.field import Motion
from geocd.align.gray import gray_reader
from geocd.align.reader import GrayPair, PairReader

__all__ = [
    "Alignment",
    "GrayPair",
    "Motion",
    "PairReader",
    "Residuals",
    "Status",
    "TiePoints",
    "aligned_grid",
    "apply",
    "estimate",
    "estimate_arrays",
    "estimate_pair",
    "gray_reader",
    "open_for_alignment",
    "refuse_input",
]
