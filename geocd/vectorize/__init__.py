"""From change maps to change polygons."""

from __future__ import annotations

from geocd.vectorize.trace import COLUMNS, trace_changes

__all__ = ["COLUMNS", "trace_changes"]
