"""A page that anyone can open: what changed, on a map, with evidence, to be reviewed.

``write_report`` makes the page, ``apply_verdicts`` takes back what was marked in it.
"""

from geocd.report.review import ReviewResult, apply_verdicts
from geocd.report.write import WrittenReport, write_report

__all__ = ["ReviewResult", "WrittenReport", "apply_verdicts", "write_report"]
