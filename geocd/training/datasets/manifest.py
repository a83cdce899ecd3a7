"""Georeferenced pairs with labels, named in a TOML file.

    [[pairs]]
    before = "2011.tif"              # anything that detect takes: file, folder of tiles, VRT
    after = "2013.tif"               # may have another CRS and resolution
    label = "changes.gpkg"           # polygons, or a raster on any grid
    split = "train"                  # optional, like all that follows
    name = "north"                   # default: the stem of before
    attribute = "kind"               # polygons: the column that holds the class ...
    codes = { house = 1, road = 2 }  # ... and the label value of each of its entries
    area = "labelled.gpkg"           # where labels are complete; outside they are ignored
    bands = [3, 2, 1]
    gsd = 0.5                        # metres

Paths are relative to the file. A GeoPackage is read by its spatial index; GeoJSON has none and is
read from end to end for every window.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocd.errors import DatasetError
from geocd.training.datasets.layouts import LabelledPair, find_pairs

RASTER_SUFFIXES = {".tif", ".tiff", ".vrt", ".png", ".img", ".jp2", ".jpg", ".jpeg"}
"""Labels that end like this are rasters; others are read as polygons."""
_KINDS: dict[str, tuple[type, ...]] = {
    "before": (str,), "after": (str,), "label": (str,), "split": (str,), "name": (str,),
    "attribute": (str,), "codes": (dict,), "area": (str,), "bands": (list,), "gsd": (int, float),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GeoreferencedPair(LabelledPair):
    """Two scenes and their label, brought onto one grid as they are read.

    Attributes:
        attribute: column of a vector label that holds the class; None: every polygon is change.
        codes: label value of each entry of the column; None: its entries are label values.
        area: vector file of the ground where labels are complete; None: wherever both dates are.
        bands: bands to read, counted from 1; None: the first ones.
        gsd: ground sample distance to read at, metres; None: before's own.
    """

    attribute: str | None = None
    codes: Mapping[str, int] | None = None
    area: Path | None = None
    bands: tuple[int, ...] | None = None
    gsd: float | None = None

    @property
    def is_vector(self) -> bool:
        """True if the label is polygons."""
        return self.label.suffix.lower() not in RASTER_SUFFIXES


def load_pairs(source: Path, *, split: str | None = None) -> list[LabelledPair]:
    """The pairs of a folder, or of a manifest (a file).

    Raises:
        DatasetError: see ``find_pairs`` and ``read_manifest``.
    """
    if source.is_file():
        return [*read_manifest(source, split=split)]
    return find_pairs(source, split=split)


def read_manifest(path: Path, *, split: str | None = None) -> list[GeoreferencedPair]:
    """The pairs that a manifest names.

    Args:
        path: the TOML file.
        split: only this split; None: all of them.

    Raises:
        DatasetError: not TOML, a key is unknown, missing or of the wrong kind, a file is missing,
            two pairs have one name, or the split is empty.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is no manifest in TOML: {error}") from None
    entries = content.pop("pairs", None)
    if content or not isinstance(entries, list) or not entries:
        found = ", ".join(map(repr, content)) or "no pairs"
        raise DatasetError(f"{path}: a manifest is a list of [[pairs]] and no more; found {found}")
    pairs = [_entry(path, number, entry) for number, entry in enumerate(entries, 1)]
    names = [pair.name for pair in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"{path}: several pairs are called {twice[0]!r}; give each a name")
    chosen = [pair for pair in pairs if split in (None, pair.split)]
    if not chosen:
        known = ", ".join(sorted({pair.split for pair in pairs if pair.split})) or "none"
        raise DatasetError(f"{path} has no split {split!r}; it has: {known}")
    return chosen


def _entry(path: Path, number: int, entry: Mapping[str, Any]) -> GeoreferencedPair:
    where = f"{path}, pair {number}"
    unknown = sorted(entry.keys() - _KINDS.keys())
    missing = sorted({"before", "after", "label"} - entry.keys())
    if unknown or missing:
        what = f"unknown {unknown[0]!r}" if unknown else f"no {missing[0]!r}"
        raise DatasetError(f"{where}: {what}; the keys are {', '.join(_KINDS)}")
    for key, value in entry.items():
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise DatasetError(f"{where}: {key} = {value!r} should be {_KINDS[key][-1].__name__}")
    if "codes" in entry and "attribute" not in entry:
        raise DatasetError(f"{where}: codes without the attribute that they are the codes of")
    values = dict(entry)
    for key in {"before", "after", "label", "area"} & entry.keys():
        values[key] = path.parent / entry[key]
        if "://" in entry[key]:
            raise DatasetError(f"{where}: {key} must be a local file, got {entry[key]}")
        if not values[key].exists():
            raise DatasetError(f"{where}: there is no {values[key]}")
    if "bands" in entry:
        values["bands"] = tuple(entry["bands"])
    values.setdefault("name", values["before"].stem)
    return GeoreferencedPair(**values)
