"""One page over what an archive showed: totals, a map, pairs of dates, and what is missing."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geocd.align.measurement import Measurement
from geocd.report.facts import area_text, colour, kinds_of, swatch
from geocd.webpage import data_uri
from geocd.words import counted

_EQUAL_AREA = "EPSG:6933"
_MAP_SIDE = 1100
"""Longest side of the map, in pixels."""
_DOT = 3
"""Side, in pixels, below which a change is drawn as a dot."""
_RIM = 4
"""Width, in pixels, of what shows of a change on which a later one lies."""
_GROUND, _GAP, _EDGE = (226, 229, 233), (250, 214, 165), (150, 154, 162)
# Told apart with every common kind of colour vision; the earliest span first.
_SPANS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0),
          (86, 180, 233), (120, 94, 240), (60, 60, 60))  # fmt: skip
_LISTED = 200
"""Failed units that the page lists, at most."""
_STYLE = """
.map { max-width: 100%; height: auto; border: 1px solid var(--line); background: #fff; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; padding: 0; list-style: none; }
.legend span { display: inline-block; width: .9em; height: .9em; border-radius: 2px;
  margin-right: .4em; vertical-align: -1px; border: 1px solid var(--faint); }
section { margin: 2.2rem 0; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
"""


@dataclass(frozen=True, slots=True)
class ArchiveFacts:
    """What the page tells of.

    Attributes:
        changes: change polygons, with the columns kind, before_date, after_date and pair.
        history: places with their dates.
        footprint: one row a pair: its ground, ``area_m2``, ``observed`` (0..1) and ``pair``.
        units: rows of the plan with ``status`` and ``error``, and their ground in WGS 84.
        measured: what was measured of each pair, by name, where it was.
        duplicates: polygons left out, because another pair tells of the same change.
        record: what made the scores.
    """

    changes: geopandas.GeoDataFrame
    history: geopandas.GeoDataFrame
    footprint: geopandas.GeoDataFrame
    units: geopandas.GeoDataFrame
    measured: Mapping[str, Measurement]
    duplicates: int
    record: Mapping[str, Any]

    @property
    def unfinished(self) -> geopandas.GeoDataFrame:
        """Units that are not done."""
        return self.units[~self.units["status"].isin(["done", "empty"])]


def summary_page(facts: ArchiveFacts) -> str:
    """A self-contained page, HTML: no script, nothing that is fetched."""
    style = files("geocd.report").joinpath("assets", "report.css").read_text(encoding="utf-8")
    first, last = (facts.units[f"{role}_date"] for role in ("before", "after"))
    span = f"{first.min()} <span>to</span> {last.max()}"
    sections = [
        _section("Map", _map(facts)), _section("When", _by_year(facts.changes)),
        _section("Pairs of dates", _pairs(facts)), _section("Not done", _missing(facts)),
        _section("How it was made", _made(facts.record)),
    ]  # fmt: skip
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Changes over an archive, {first.min()} to {last.max()}</title>
<style>{style}{_STYLE}</style></head><body>
<header class="top"><p class="eyebrow">Changes over an archive</p><h1>{span}</h1>
<p class="lead">{_lead(facts)}</p><dl class="totals">{_totals(facts)}</dl></header>
<main>{"".join(sections)}</main></body></html>
"""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _lead(facts: ArchiveFacts) -> str:
    pairs = facts.units["pair"].nunique()
    text = f"{counted(pairs, 'pair')} of surveys, {counted(len(facts.units), 'unit')}."
    left = len(facts.unfinished)
    if left:
        text += f" {counted(left, 'unit')} not done: that ground counts as not observed."
    return text


def _totals(facts: ArchiveFacts) -> str:
    changes = facts.changes
    items = [("Changes", f"{len(changes):,}", _area(changes["area_m2"]))]
    kinds = changes["kind"].fillna("change")
    for kind in kinds_of(changes):
        name = f"{swatch(kind)}{html.escape(kind.capitalize())}"
        rows = changes[kinds == kind]
        items.append((name, f"{len(rows):,}", _area(rows["area_m2"])))
    done = facts.units[facts.units["status"] == "done"]
    ground = shapely.union_all(done.to_crs(_EQUAL_AREA).geometry.to_numpy())
    items.append(("Ground compared", area_text(float(ground.area), "m2"), "between any two dates"))
    several = int((facts.history["times"] > 1).sum())
    more = f"{several:,} changed more than once"
    items.append(("Places that changed", f"{len(facts.history):,}", more))
    return "".join(
        f'<div><dt>{name}</dt><dd class="number">{figure}</dd><dd>{more}</dd></div>'
        for name, figure, more in items
    )


def _area(square_metres: pd.Series[float]) -> str:
    return area_text(float(square_metres.sum()), "m2")


def _spans(changes: pd.DataFrame) -> list[str]:
    return sorted({f"{a} to {b}" for a, b in zip(changes.before_date, changes.after_date,
                                                 strict=True)})  # fmt: skip


def _map(facts: ArchiveFacts) -> str:
    spans = _spans(facts.footprint)
    shades = {span: _SPANS[i % len(_SPANS)] for i, span in enumerate(spans)}
    legend = [(shades[span], span) for span in spans] + [(_GROUND, "compared")]
    if len(facts.unfinished):
        legend.append((_GAP, "not done"))
    items = "".join(
        f'<li><span style="background:rgb{shade}"></span>{html.escape(text)}</li>'
        for shade, text in legend
    )
    picture = data_uri(_drawn(facts, shades), "png")
    words = f"Map of {counted(len(facts.changes), 'change')} on the ground that was compared"
    return (
        f'<ul class="legend">{items}</ul><figure><img class="map" src="{picture}" alt="{words}">'
        "<figcaption>Changes in the colour of the dates between which they happened; small ones "
        "are drawn larger than they are. North is up.</figcaption></figure>"
    )


def _drawn(facts: ArchiveFacts, shades: Mapping[str, tuple[int, int, int]]) -> bytes:
    """The map as PNG."""
    crs = facts.changes.crs
    done = facts.units[facts.units["status"] == "done"].to_crs(crs)
    place = _Place(facts.units.to_crs(crs).total_bounds, degrees=bool(crs.is_geographic))
    image = Image.new("RGB", place.size, (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for table, fill in ((facts.unfinished.to_crs(crs), _GAP), (done, _GROUND)):
        for shape in place(table.geometry.to_numpy()):
            for ring in _rings(shape):
                draw.polygon(ring, fill=fill, outline=_EDGE)
    order = facts.changes.assign(
        span=facts.changes["before_date"] + " to " + facts.changes["after_date"]
    )
    order = order.sort_values(["span", "area_px"], ascending=[True, False], kind="stable")
    shapes = _nested(place(order.geometry.to_numpy()), order["span"].to_numpy(str))
    for shape, span in zip(shapes, order["span"], strict=True):
        left, top, right, bottom = shape.bounds
        if max(right - left, bottom - top) < _DOT:
            x, y = (left + right) / 2, (top + bottom) / 2
            draw.ellipse((x - _DOT / 2, y - _DOT / 2, x + _DOT / 2, y + _DOT / 2), shades[span])
            continue
        for ring in _rings(shape):
            draw.polygon(ring, fill=shades[span])
    encoded = io.BytesIO()
    image.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def _nested(shapes: NDArray[Any], spans: NDArray[np.str_]) -> NDArray[Any]:
    """The shapes, those within that lie on shapes of earlier spans, so that all of them show."""
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    over = (second < first) & (spans[first] != spans[second])
    depth = np.bincount(first[over], minlength=len(shapes))
    inner = shapely.buffer(shapes, -_RIM * np.minimum(depth, 3))
    return np.where(shapely.is_empty(inner), shapes, inner)


def _rings(shape: shapely.Geometry) -> Iterator[list[tuple[float, float]]]:
    for part in shapely.get_parts(shape):
        if part.geom_type == "Polygon" and not part.is_empty:
            yield [(x, y) for x, y in shapely.get_coordinates(part.exterior).tolist()]


class _Place:
    """From coordinates to pixels of the map, at true proportions in its middle."""

    def __init__(self, bounds: NDArray[np.float64], *, degrees: bool) -> None:
        left, bottom, right, top = map(float, bounds)
        shrink = math.cos(math.radians((bottom + top) / 2)) if degrees else 1.0
        span = max((right - left) * shrink, top - bottom, 1e-9)
        self._scale = (_MAP_SIDE - 20) / span
        self._left, self._top, self._shrink = left, top, shrink
        width, height = (right - left) * shrink * self._scale, (top - bottom) * self._scale
        self.size = math.ceil(width) + 20, math.ceil(height) + 20

    def __call__(self, shapes: NDArray[Any]) -> NDArray[Any]:
        def _move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            x = (xy[:, 0] - self._left) * self._shrink * self._scale + 10
            return np.column_stack([x, (self._top - xy[:, 1]) * self._scale + 10])

        moved: NDArray[Any] = shapely.transform(shapes, _move)
        return moved


def _by_year(changes: geopandas.GeoDataFrame) -> str:
    """Bars: changed area by the year of the image that shows it first, stacked by kind."""
    if changes.empty:
        return "<p>No change was found.</p>"
    table = pd.crosstab(
        changes["after_date"].str[:4], changes["kind"].fillna("change"),
        values=changes["area_m2"], aggfunc="sum",
    ).fillna(0)  # fmt: skip
    count = changes.groupby(changes["after_date"].str[:4]).size()
    most = float(table.sum(axis=1).max()) or 1.0
    rows = []
    for number, (year, areas) in enumerate(table.iterrows()):
        x, y, bars = 60.0, 6 + 26 * number, ""
        for kind in kinds_of(changes):
            width = 380 * float(areas[kind]) / most
            bars += (f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" '
                     f'fill="{colour(kind)}"><title>{html.escape(kind)}: '
                     f'{area_text(float(areas[kind]), "m2")}</title></rect>')  # fmt: skip
            x += width
        told = f"{area_text(float(areas.sum()), 'm2')}, {counted(int(count[year]), 'change')}"
        rows.append(f'<text x="52" y="{y + 14}" text-anchor="end">{year}</text>{bars}'
                    f'<text x="{x + 8:.1f}" y="{y + 14}">{told}</text>')  # fmt: skip
    height = 12 + 26 * len(rows)
    return (
        f'<svg class="histogram" viewBox="0 0 680 {height}" role="img" aria-label="Changed area '
        f'by the year in which it was first seen">{"".join(rows)}</svg>'
        '<p class="faint">Changed area by the year of the image that shows it first.</p>'
    )


def _pairs(facts: ArchiveFacts) -> str:
    ground = facts.footprint.set_index("pair")
    rows = []
    order = facts.units.drop_duplicates("pair").sort_values(["before_date", "after_date", "pair"])
    for unit in order.itertuples():
        mine = facts.units[facts.units["pair"] == unit.pair]
        changes = facts.changes[facts.changes["pair"] == unit.pair]
        done = int(mine["status"].isin(["done", "empty"]).sum())
        seen = "nothing"
        if unit.pair in ground.index:
            area, share = (float(ground.loc[unit.pair, n]) for n in ("area_m2", "observed"))
            seen = area_text(area * share, "m2")
        found = facts.measured.get(str(unit.pair))
        cells = (
            f"{done} of {len(mine)}", seen, f"{len(changes):,}", _area(changes["area_m2"])
        )  # fmt: skip
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        told = "not measured" if found is None else html.escape(_aligned(found))
        rows.append(f"<tr><td>{unit.before_date} to {unit.after_date}</td>{numbers}"
                    f"<td>{told}</td></tr>")  # fmt: skip
    names = "".join(
        f'<th class="n" scope="col">{name}</th>'
        for name in ("units done", "observed", "changes", "changed area")
    )
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">dates</th>{names}'
        '<th scope="col">alignment</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _aligned(found: Measurement) -> str:
    text = str(found.alignment)
    if found.radiometry is not None and found.radiometry.status != "off":
        text += f"; {found.radiometry}"
    return text


def _missing(facts: ArchiveFacts) -> str:
    """Units that failed with their reasons, and how many were never done."""
    left = facts.unfinished
    failed = left[left["status"] == "failed"]
    waiting = len(left) - len(failed)
    parts = []
    if waiting:
        parts.append(f"<p>{counted(waiting, 'unit')} not begun, or done under other settings: "
                     "geocd archive run goes on with them.</p>")  # fmt: skip
    if len(failed):
        rows = "".join(
            f"<tr><td>{html.escape(str(unit.unit))}</td><td>{html.escape(str(unit.error))}</td>"
            "</tr>"
            for unit in failed.head(_LISTED).itertuples()
        )
        parts.append(
            f"<p>{counted(len(failed), 'unit')} failed; geocd archive run --retry-failed tries "
            f'again.</p><div class="scroll"><table><thead><tr><th scope="col">unit</th>'
            f'<th scope="col">reason</th></tr></thead><tbody>{rows}</tbody></table></div>'
        )
        if len(failed) > _LISTED:
            parts.append(f"<p>The first {_LISTED} are listed.</p>")
    return "".join(parts)


def _made(record: Mapping[str, Any]) -> str:
    weights = record.get("weights", {})
    lines = [("Software", f"geocd {record.get('geocd', 'unknown')}"),
             ("Weights", ", ".join(str(weights[key]) for key in ("name", "architecture", "sha256")
                                   if key in weights))]  # fmt: skip
    thresholds = record.get("thresholds", {})
    if thresholds:
        told = ", ".join(f"{name} {value:g}" for name, value in thresholds.items())
        lines.append(("Thresholds", told))
    items = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in lines
    )
    return f'<dl class="lines">{items}</dl>'
