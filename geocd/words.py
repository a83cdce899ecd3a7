"""What summaries for people share."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """A number and what it counts, in the plural where it is not one: '1 file', '2,000 files'."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
