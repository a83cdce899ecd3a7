"""Which files of a folder belong together: the layouts of published sets of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geocd.errors import DatasetError

SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"}
"""File names that end like this are images."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two images and the change between them, as files."""

    name: str
    before: Path
    after: Path
    label: Path


def find_pairs(folder: Path) -> list[LabelledPair]:
    """The pairs of a folder with ``A/`` (before), ``B/`` (after) and ``label/`` of equal names.

    Raises:
        DatasetError: a folder is missing or empty, or a date or a label is missing.
    """
    pairs = []
    for sub in ("A", "B", "label"):
        if not (folder / sub).is_dir():
            raise DatasetError(f"{folder} has no folder {sub}/; wanted are A/, B/ and label/")
    for before in sorted(p for p in (folder / "A").iterdir() if p.suffix.lower() in SUFFIXES):
        found = {}
        for sub in ("B", "label"):
            matches = [p for p in (folder / sub).glob(f"{before.stem}.*")
                       if p.suffix.lower() in SUFFIXES]  # fmt: skip
            if not matches:
                raise DatasetError(f"{before} has no partner in {folder / sub}")
            found[sub] = matches[0]
        pairs.append(LabelledPair(before.stem, before, found["B"], found["label"]))
    if not pairs:
        raise DatasetError(f"no images in {folder / 'A'}")
    return pairs
