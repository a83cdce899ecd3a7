"""Co-registration: estimate a motion, judge it on held-out tie points, apply it once."""

from geocd.align.alignment import Alignment, Residuals, Status, TiePoints
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
    "estimate",
    "estimate_arrays",
    "gray_reader",
]
