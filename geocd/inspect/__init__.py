"""Inspection: samples of a part held against golden pictures; pass, reject or cannot judge."""

from geocd.inspect.inspector import Inspector
from geocd.inspect.verdict import CANNOT_JUDGE, PASS, REJECT, Defect, Verdict
from geocd.inspect.zones import Zone, read_zones

__all__ = [
    "CANNOT_JUDGE",
    "PASS",
    "REJECT",
    "Defect",
    "Inspector",
    "Verdict",
    "Zone",
    "read_zones",
]
