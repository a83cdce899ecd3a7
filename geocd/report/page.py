"""The page itself: a template, styles, programs, and what they show."""

from __future__ import annotations

import base64
import gzip
import html
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from string import Template
from typing import Any

from geocd.rasters.grid import Grid
from geocd.rasters.pair import RasterPair
from geocd.report import facts
from geocd.report.images import IMAGE_TYPE, EncodedPair, Overview
from geocd.report.layer import ChangeLayer
from geocd.report.observed import Observed
from geocd.report.shapes import QUANTUM
from geocd.webpage import data_uri, script_hash

_SCRIPTS = (
    "data.js",
    "review.js",
    "beside.js",
    "outlines.js",
    "swipe.js",
    "pictures.js",
    "list.js",
    "page.js",
)
"""Programs of the page, in the order in which they build on each other."""
_SWITCHES = {
    "centrelines": "road centrelines", "not_observed": "not observed", "footprint": "footprint",
}  # fmt: skip
"""What the layers beside the changes are called."""


@dataclass(frozen=True, slots=True)
class ReportImages:
    """Pictures of a page."""

    overview: Overview
    encoded: EncodedPair
    sharp: list[EncodedPair | None]
    """Pictures of the first changes; None where the overview does."""


def packed(table: dict[str, Any]) -> str:
    """A JSON-ready value as text that any page may hold: compressed, in base 64."""
    raw = json.dumps(table, separators=(",", ":"), allow_nan=False).encode()
    # No time in the header: the same input gives the same page.
    return base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode()


class Page:
    """Everything but the pictures; ``render`` adds them."""

    def __init__(
        self, layer: ChangeLayer, pair: RasterPair, observed: Observed, table: dict[str, Any],
        beside: dict[str, list[list[int]]],
    ) -> None:  # fmt: skip
        self.layer, self.pair, self.observed, self._beside = layer, pair, observed, beside
        self._table = packed(table)
        self._shown = table["count"]
        self._script = _program()

    def render(self, images: ReportImages) -> bytes:
        """The page as UTF-8."""
        names = [self._name(role) for role in ("before", "after")]
        record = self.layer.provenance
        values = {
            "policy": f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
            f"script-src {script_hash(self._script)}",
            "style": _leaflet_style() + _asset("report.css"),
            "licence": _asset("leaflet/LICENSE"),
            "script": self._script,
            "title": html.escape(f"Changes, {names[0]} to {names[1]}"),
            "heading": f"{html.escape(names[0])} <span>to</span> {html.escape(names[1])}",
            "lead": self._lead(),
            "totals": facts.totals(self.layer, self.observed),
            "kind_filters": self._kind_filters(),
            "layer_switches": self._layer_switches(),
            "histogram": facts.score_histogram(self.layer.frame),
            "directions": facts.direction_lines(self.layer.frame),
            "alignment": facts.alignment_list(record.get("alignment")),
            "made": facts.made_list(self.layer),
            "facts": packed(self._facts(images)),
            "table": self._table,
            "images": base64.b64encode(_joined(images)).decode(),
        }
        return Template(_asset("report.html")).substitute(values).encode()

    def _name(self, role: str) -> str:
        scene = self.pair.before if role == "before" else self.pair.after
        return self.layer.date(role) or scene.date or PurePath(scene.name).name

    def _lead(self) -> str:
        grid = self.pair.grid
        size = (
            f"{grid.width:,} x {grid.height:,} pixels without a CRS"
            if grid.crs is None
            else _ground(grid)
        )
        count = len(self.layer.frame)
        text = f"No change was found on {size}." if not count else f"{size}."
        if self._shown < count:
            text += f" The map and the list show the {self._shown:,} largest of {count:,} changes."
        return html.escape(text[0].upper() + text[1:])

    def _kind_filters(self) -> str:
        return "\n".join(
            f'<label class="chip"><input type="checkbox" name="kind" value="{i}" checked>'
            f"{facts.swatch(kind)}{html.escape(kind)}</label>"
            for i, kind in enumerate(facts.kinds_of(self.layer.frame))
        )

    def _layer_switches(self) -> str:
        there = [name for name in _SWITCHES if name in self._beside]
        if "not_observed" not in there and self.observed.unseen.any():
            there.insert(0, "not_observed")
        if not there:
            return ""
        switches = "\n".join(
            f'<label class="chip"><input type="checkbox" name="layer" value="{name}" checked>'
            f"{facts.line_sample(name)}{_SWITCHES[name]}</label>"
            for name in there
        )
        return f'<fieldset class="chips"><legend>Show</legend>\n{switches}\n</fieldset>'

    def _facts(self, images: ReportImages) -> dict[str, Any]:
        grid, gsd = self.pair.grid, self.pair.grid.gsd()
        veil = self.observed.veil()
        height, width = images.overview.extent
        return {
            "run": self.layer.run,
            "name": self.layer.name,
            "before": self._name("before"),
            "after": self._name("after"),
            "width": grid.width,
            "height": grid.height,
            "metre": None if gsd is None else 1 / gsd[1],
            "transform": list(grid.transform[:6]),
            "degrees": grid.crs is not None and grid.crs.is_geographic,
            "type": IMAGE_TYPE,
            "overview": {"width": width, "height": height, "columns": images.encoded.width,
                         "bytes": [len(images.encoded.before), len(images.encoded.after)]},
            "sharp": [[0, 0] if p is None else [len(p.before), len(p.after)]
                      for p in images.sharp],
            "beside": self._beside,
            "quantum": QUANTUM,
            "veil": None if veil is None else {"address": data_uri(veil, "png"),
                                               "corners": _corners(self.observed.grid, grid)},
        }  # fmt: skip


def _joined(images: ReportImages) -> bytes:
    sharp = [part for p in images.sharp if p is not None for part in (p.before, p.after)]
    return b"".join([images.encoded.before, images.encoded.after, *sharp])


def _corners(inner: Grid, outer: Grid) -> list[float]:
    """Left, top, right and bottom of a grid, in the pixels of another."""
    to_outer = ~outer.transform @ inner.transform
    return [*(to_outer @ (0, 0)), *(to_outer @ (inner.width, inner.height))]


def _ground(grid: Grid) -> str:
    """Extent, pixel size and CRS in words."""
    gsd = grid.gsd()
    assert gsd is not None
    assert grid.crs is not None
    sides = (
        f"{n * metres / 1000:,.2f}" for n, metres in ((grid.width, gsd[1]), (grid.height, gsd[0]))
    )
    authority = grid.crs.to_authority()
    name = ":".join(authority) if authority else "a custom CRS"
    return f"{' x '.join(sides)} km in pixels of {gsd[1]:.2g} m, {name}"


def _asset(name: str) -> str:
    return files("geocd.report").joinpath("assets", name).read_text(encoding="utf-8")


def _leaflet_style() -> str:
    # Pictures of controls that the page does not use; the page must ask for no file.
    style = _asset("leaflet/leaflet.css")
    for picture in ("layers.png", "layers-2x.png", "marker-icon.png"):
        style = style.replace(f"url(images/{picture})", "none")
    return style.replace("behavior: url(#default#VML);", "")


def _program() -> str:
    leaflet = _asset("leaflet/leaflet.js").partition("//# sourceMappingURL")[0]
    own = "\n".join(_asset(name) for name in _SCRIPTS)
    return f'{leaflet}\n(() => {{\n"use strict";\n{own}\n}})();\n'
