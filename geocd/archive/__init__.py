"""Survey archives: folders of tiles become pairs, work units, one layer of changes."""

from __future__ import annotations

from geocd.archive.index import IndexResult, index_archive

__all__ = ["IndexResult", "index_archive"]
