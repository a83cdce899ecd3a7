"""Co-registration: estimate a motion, judge it on held-out tie points, apply it once."""

from geocd.align.estimate import estimate, estimate_arrays
from geocd.align.gate import Alignment, Status
from geocd.align.reader import GrayPair, PairReader

__all__ = ["Alignment", "GrayPair", "PairReader", "Status", "estimate", "estimate_arrays"]
