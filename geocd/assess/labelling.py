"""A page on which people label a sample, and the labels that come back from it."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePath
from string import Template
from typing import Any

import pandas as pd

from geocd import outputs
from geocd.assess.sampling import PixelSample
from geocd.errors import InputError
from geocd.outputs import check_page
from geocd.rasters.pair import RasterPair, open_pair
from geocd.rasters.write import bounded_cache
from geocd.report.images import IMAGE_TYPE, EncodedPair, Window, thumbnails
from geocd.report.page import packed
from geocd.report.write import shown_bands
from geocd.vectorize.compared import aligned
from geocd.webpage import script_hash

_SIDE = 128
"""Side of what is shown around a unit, in pixels of the map."""
_WORDS = {
    "none": "No change",
    "building": "Building change",
    "road": "Road change",
    "change": "Change of unknown kind",
    "unclear": "Cannot tell",
}
_COLUMNS = ("sample", "unit", "reference", "note")


def sample_name(units: pd.DataFrame) -> str:
    """A hash of where the units lie and of which strata they are: labels belong to one sample.

    Args:
        units: with the columns unit, stratum, row and col.
    """
    rows = units[["unit", "stratum", "row", "col"]].sort_values("unit").to_numpy().tolist()
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Labels:
    """What a page exported."""

    sample: str
    """Name of the sample; see ``sample_name``."""
    reference: dict[int, str]
    """Label of each unit."""


def write_labelling_page(
    sample: PixelSample, units: pd.DataFrame, path: Path, *, file: Path, before: str | Path,
    after: str | Path, record: Mapping[str, Any], overwrite: bool = False,
) -> None:  # fmt: skip
    """Write one file that shows both dates around each unit and takes its label by a key. Atomic.

    The page needs no network, and tells nothing of what the map says. It exports a CSV for
    ``read_labels``.

    Args:
        sample: the pixels.
        units: see ``sample_name``.
        path: the page, ends in .html.
        file: the GeoPackage of the sample, for the command that the page tells.
        before: raster of the earlier date, on whose grid the map lies.
        after: of the later date.
        record: of the run that made the map: its bands and its alignment; may be empty.
        overwrite: replace an existing page.

    Raises:
        InputError: an image cannot be read, or the map does not lie on before's grid.
        GeocdError: and its other kinds; see ``check_page``.
    """
    check_page(path, overwrite=overwrite)
    with bounded_cache():
        pair = open_pair(before, after, channels=3, bands=shown_bands(before, after, dict(record)))
        windows = _windows(sample, pair)
        pair = aligned(pair, record.get("alignment"))
        with closing(thumbnails(pair, windows, pixel=math.inf)) as made:
            chips = [chip for chip in made if chip is not None]
    page = _render(pair, chips, sample_name(units), file, dict(record))
    with outputs.replacing(path) as draft:
        draft.write_bytes(page)


def _windows(sample: PixelSample, pair: RasterPair) -> list[Window]:
    """Around each unit, in pixels of the pair's grid."""
    whole, grid = pair.output_grid, sample.grid
    same = whole.shape == grid.shape and (whole.crs is None) == (grid.crs is None)
    if not same or (grid.crs and not whole.transform.almost_equals(grid.transform, 1e-6)):
        raise InputError(
            f"the map is {grid.describe()}, before ({pair.before.name}) is {whole.describe()}; "
            "give the images that the map was made of"
        )
    shared = whole.slices_over(pair.grid.footprint)
    assert shared is not None  # the pair lies on before's grid
    top, left = (part.start for part in shared)
    return [
        (int(col) - left - _SIDE // 2, int(row) - top - _SIDE // 2, _SIDE)
        for row, col in zip(sample.row, sample.col, strict=True)
    ]


def _render(
    pair: RasterPair, chips: list[EncodedPair], name: str, file: Path, record: dict[str, Any]
) -> bytes:
    labels = f"{file.stem}-labels.csv"
    facts = {
        "sample": name, "file": labels, "units": len(chips), "side": _SIDE, "type": IMAGE_TYPE,
        "labels": list(_WORDS.items()),
        "bytes": [size for chip in chips for size in (len(chip.before), len(chip.after))],
    }  # fmt: skip
    program = f'(() => {{\n"use strict";\n{_report("data.js")}\n{_asset("labelling.js")}\n}})();\n'
    names = {
        role: _title(scene.date or _date(record, role), PurePath(scene.name).name)
        for role, scene in (("before", pair.before), ("after", pair.after))
    }
    values = {
        "policy": f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src {script_hash(program)}",
        "style": _report("report.css") + _asset("labelling.css"),
        "script": program,
        "title": html.escape(f"Label {file.name}"),
        "heading": html.escape(file.name),
        "before": html.escape(f"Before: {names['before']}"),
        "after": html.escape(f"After: {names['after']}"),
        "sample": html.escape(file.name),
        "labels": html.escape(labels),
        "facts": packed(facts),
        "images": base64.b64encode(b"".join(c.before + c.after for c in chips)).decode(),
    }
    return Template(_asset("labelling.html")).substitute(values).encode()


def _date(record: dict[str, Any], role: str) -> str | None:
    date = record.get("inputs", {}).get(role, {}).get("date")
    return date if isinstance(date, str) else None


def _title(date: str | None, name: str) -> str:
    return name if date is None else f"{date} ({name})"


def _asset(name: str) -> str:
    return files("geocd.assess").joinpath("assets", name).read_text(encoding="utf-8")


def _report(name: str) -> str:
    return files("geocd.report").joinpath("assets", name).read_text(encoding="utf-8")


def read_labels(path: str | Path) -> Labels:
    """Read what a page exported.

    Raises:
        InputError: the file is missing or something else, a unit is labelled twice, or its rows
            are of several samples.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
        found = {(row["sample"], int(row["unit"])): row["reference"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path} holds no labels ({error!r}); wanted the columns {', '.join(_COLUMNS)}, as the "
            "page of geocd sample exports them"
        ) from None
    samples = {sample for sample, _ in found}
    if len(samples) != 1 or len(found) != len(rows):
        raise InputError(
            f"{path} holds labels of {len(samples)} samples, or two of one unit; give the labels "
            "of one sample, each unit once"
        )
    return Labels(samples.pop(), {unit: label for (_, unit), label in found.items()})
