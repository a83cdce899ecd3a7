"""The parts of a page that are plain facts: totals, scores, alignment, and how it was made."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import geopandas
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geocd.config import CHANGE_MAP_COLOURS, CLASS_CODES
from geocd.report.layer import ChangeLayer, areas
from geocd.report.observed import Observed

_BINS = 20
_SQUARE_METRES = ((1e6, 1e6, "km²"), (1e4, 1e4, "ha"))
_ALIGNMENT_WORDS = {
    "status": "Status",
    "method": "Method",
    "shift_px": "Shift, pixels",
    "model": "Model",
    "residual_before_px": "Residual before, pixels",
    "residual_after_px": "Residual after, pixels",
    "tie_points": "Tie points",
    "held_out": "Tie points held out to judge",
    "reason": "Reason",
}
_UNTOLD = ("motion", "grid_transform")
"""What the alignment record holds for programs."""


def colour(kind: str) -> str:
    """The colour of a kind, as in change maps."""
    red, green, blue, _ = CHANGE_MAP_COLOURS[CLASS_CODES.get(kind, CLASS_CODES["change"])]
    return f"#{red:02x}{green:02x}{blue:02x}"


def area_text(value: float, unit: str) -> str:
    """An area as a person would say it."""
    if unit == "px":
        return f"{value:,.0f} px"
    for least, scale, name in _SQUARE_METRES:
        if value >= least:
            return f"{value / scale:,.2f} {name}"
    return f"{value:,.0f} m²"


def swatch(kind: str) -> str:
    """The colour of a kind as a small square."""
    return (
        f'<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">'
        f'<rect width="10" height="10" fill="{colour(kind)}"/></svg>'
    )


def line_sample(layer: str) -> str:
    """A piece of a line as the map draws a layer beside the changes."""
    return (
        f'<svg class="sample {layer}" viewBox="0 0 22 10" aria-hidden="true">'
        '<path class="casing" d="M1 5h20"/><path d="M1 5h20"/></svg>'
    )


def kinds_of(frame: geopandas.GeoDataFrame) -> list[str]:
    """The kinds that occur, the one with most changes first."""
    return [str(kind) for kind in frame["kind"].fillna("change").value_counts().index]


def totals(layer: ChangeLayer, observed: Observed) -> str:
    """The figures at the top, as the items of a description list."""
    frame = layer.frame
    size, unit = areas(frame)
    items = [("Changes", f"{len(frame):,}", area_text(float(size.sum()), unit))]
    kinds = frame["kind"].fillna("change")
    for kind in kinds_of(frame):
        rows = kinds == kind
        name = f"{swatch(kind)}{html.escape(kind.capitalize())}"
        items.append((name, f"{int(rows.sum()):,}", area_text(float(size[rows].sum()), unit)))
    ground = "px" if observed.grid.crs is None else "m2"
    items.append((
        "Observed on both dates", area_text(observed.area, ground),
        f"{observed.share:.1%} of {observed.whole}",
    ))  # fmt: skip
    items += _alignment_item(layer.provenance.get("alignment"))
    return "\n".join(
        f'<div><dt>{name}</dt><dd class="number">{figure}</dd><dd>{more}</dd></div>'
        for name, figure, more in items
    )


def _alignment_item(alignment: Any) -> list[tuple[str, str, str]]:
    if not isinstance(alignment, dict) or "status" not in alignment:
        return []
    residual, before = (_median(alignment.get(f"residual_{w}_px")) for w in ("after", "before"))
    if alignment["status"] == "applied" and residual is not None:
        more = "" if before is None else f"was {before:.1f} px, on held-out tie points"
        return [("Alignment residual", f"{residual:.1f} px", more)]
    return [
        (
            "Alignment",
            html.escape(str(alignment["status"]).capitalize()),
            "after is where its georeferencing puts it",
        )
    ]


def _median(residuals: Any) -> float | None:
    value = residuals.get("median") if isinstance(residuals, dict) else residuals
    return float(value) if isinstance(value, int | float) else None


def direction_lines(frame: geopandas.GeoDataFrame) -> str:
    """How many changes appeared, disappeared and so on, where the polygons say so."""
    column = frame.get("direction")
    if column is None or not column.notna().any():
        return ""
    table = pd.crosstab(frame["kind"].fillna("change"), column.fillna("unknown"))
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(str(kind))}</th>'
        + "".join(f"<td>{count:,}</td>" for count in counts)
        + "</tr>"
        for kind, counts in zip(table.index, table.to_numpy().tolist(), strict=True)
    )
    return (
        '<div class="scroll"><table><caption>Changes by direction</caption>'
        '<thead><tr><th scope="col">kind</th>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def score_histogram(frame: geopandas.GeoDataFrame) -> str:
    """Mean scores of the changes, stacked by kind, as SVG."""
    kinds = kinds_of(frame)
    column = frame["kind"].fillna("change")
    counts = np.array([_binned(frame["score_mean"][column == kind]) for kind in kinds])
    if not counts.sum():
        return "<p>No change, so no scores.</p>"
    tallest = int(counts.sum(axis=0).max())
    bars = "".join(_bars(kind, counts[i], counts[:i].sum(axis=0), tallest)
                   for i, kind in enumerate(kinds))  # fmt: skip
    ticks = "".join(
        f'<text x="{40 + 560 * v:.0f}" y="196" text-anchor="middle">{v:.1f}</text>'
        for v in np.linspace(0, 1, 6)
    )
    return f"""<svg class="histogram" viewBox="0 0 620 222" role="img"
 aria-label="Histogram of the mean scores of {int(counts.sum()):,} changes, stacked by kind">
<line x1="40" y1="180.5" x2="600" y2="180.5"/><line x1="40" y1="20.5" x2="600" y2="20.5"/>
<text x="34" y="24" text-anchor="end">{tallest:,}</text>
<text x="34" y="184" text-anchor="end">0</text>
{bars}{ticks}<text x="320" y="216" text-anchor="middle">mean score of a change</text></svg>"""


def _binned(scores: pd.Series[float]) -> NDArray[np.int64]:
    return np.histogram(scores.dropna(), bins=_BINS, range=(0, 1))[0]


def _bars(
    kind: str, counts: NDArray[np.int64], below: NDArray[np.int64], tallest: int
) -> str:  # fmt: skip
    width, scale = 560 / _BINS, 160 / tallest
    return "".join(
        f'<rect x="{40 + i * width + 1:.1f}" y="{180 - (low + count) * scale:.2f}" '
        f'width="{width - 2:.1f}" height="{count * scale:.2f}" fill="{colour(kind)}">'
        f"<title>{html.escape(kind)}: {count:,} from {i / _BINS:.2f} to {(i + 1) / _BINS:.2f}"
        "</title></rect>"
        for i, (count, low) in enumerate(zip(counts.tolist(), below.tolist(), strict=True))
        if count
    )


def alignment_list(alignment: Any) -> str:
    """What the run says of its alignment, as a description list."""
    if not isinstance(alignment, dict) or not alignment:
        return "<p>The file does not say how the images were aligned.</p>"
    known = [(words, alignment[key]) for key, words in _ALIGNMENT_WORDS.items() if key in alignment]
    others = [
        (key.replace("_", " "), value) for key, value in alignment.items()
        if key not in _ALIGNMENT_WORDS and key not in _UNTOLD
        and isinstance(value, str | int | float | dict)
    ]  # fmt: skip
    return _list([(name, _figure(value)) for name, value in known + others if value is not None])


def made_list(layer: ChangeLayer) -> str:
    """How the changes were made, in a few lines, then the whole record."""
    record = layer.provenance
    if not record:
        return "<p>The file does not say how it was made.</p>"
    lines = [("Polygons", layer.name), ("Run", layer.run)]
    if "created" in record:
        lines.append(("Detected", str(record["created"])))
    if "geocd" in record:
        lines.append(("Software", f"geocd {record['geocd']}"))
    weights = record.get("weights")
    if isinstance(weights, dict):
        names = [str(weights[key]) for key in ("name", "architecture") if key in weights]
        lines.append(("Weights", ", ".join(names)))
    inputs = record.get("inputs")
    for role in ("before", "after"):
        if isinstance(inputs, dict) and isinstance(inputs.get(role), dict):
            lines.append((role.capitalize(), _input(inputs[role])))
    whole = "".join(
        f"<dt>{html.escape(str(key))}</dt><dd>{_nested(value)}</dd>"
        for key, value in record.items()
        if key != "alignment"
    )
    return (
        f"{_list(lines)}<details><summary>The whole record</summary>"
        f'<dl class="record">{whole}</dl></details>'
    )


def _input(entry: Mapping[str, Any]) -> str:
    files = entry.get("files")
    count = len(files) if isinstance(files, list) else 0
    name = PurePath(str(entry.get("name", "?"))).name
    date = f", {entry['date']}" if entry.get("date") else ""
    return f"{name}{date}" + (f" ({count} files)" if count > 1 else "")


def _list(lines: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in lines
    )
    return f'<dl class="lines">{items}</dl>'


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_figure(part)}" for key, part in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _nested(value: Any) -> str:
    """Any JSON value as HTML."""
    if isinstance(value, dict):
        items = "".join(
            f"<dt>{html.escape(str(key))}</dt><dd>{_nested(part)}</dd>"
            for key, part in value.items()
        )
        return f"<dl>{items}</dl>"
    if isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        return "<ul>" + "".join(f"<li>{_nested(part)}</li>" for part in value) + "</ul>"
    if isinstance(value, list):
        return html.escape(", ".join(map(str, value)))
    return html.escape("none" if value is None else str(value))
