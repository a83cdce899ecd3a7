"""One self-contained page: the figures, the curve, and the worst images."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import fields

from PIL import Image

from geocd.assess.chart import DARK, LIGHT, precision_recall_chart
from geocd.assess.evaluation import Assessment
from geocd.assess.panels import FALSE_ALARM, HIT, MISS, UNSEEN, Panels, Picture
from geocd.assess.tables import (
    figure,
    object_table,
    pixel_table,
    score_lines,
    skipped_lines,
    summary,
)

_QUALITY = 88
_LEGEND = (
    (HIT, "change, and found"),
    (FALSE_ALARM, "false alarm"),
    (MISS, "missed"),
    (UNSEEN, "not observed"),
)
_ORDER = (
    "The images with the most wrong pixels (false alarms and misses together) come first, with "
    "and without change alike. Every wrong pixel costs the F1 of the whole set the same, so these "
    "images cost it the most. F1 itself would not do: in an image without change it is 0 after a "
    "single false pixel."
)
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222226; --faint: #66666e;
  --line: #d8d8de; }
@media (prefers-color-scheme: dark) { :root { --paper: #18191c; --ink: #e4e4e8;
  --faint: #a0a0a8; --line: #3e4046; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 2rem 0 .25rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .4rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-weight: normal; }
th[scope=row] { text-align: left; } thead th { color: var(--faint); }
tbody tr:first-child { font-weight: bold; } tbody tr:first-child th { font-weight: bold; }
.panels { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; }
@media (max-width: 45rem) { .panels { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; } figcaption, .faint { color: var(--faint); }
img { width: 100%; height: auto; display: block; } .chart { max-width: 620px; }
.legend span { display: inline-flex; align-items: center; margin-right: 1.2rem; }
.legend i { width: 1em; height: 1em; margin-right: .4em; border: 1px solid var(--line); }
"""


def render_page(assessment: Assessment) -> str:
    """The page as HTML. It needs no network; every text that comes from outside is escaped."""
    weights = assessment.evaluations[0]
    tables = "\n".join(
        f'<div class="scroll">{table.to_html()}</div>'
        for table in (pixel_table(assessment), object_table(assessment))
    )
    skipped = "".join(f"<p>{html.escape(line)}</p>" for line in skipped_lines(assessment))
    scores = "".join(f"<p>{html.escape(line)}.</p>" for line in score_lines(assessment))
    images = "\n".join(
        _image(rank, name, panels, assessment)
        for rank, (name, panels) in enumerate(assessment.panels.items(), 1)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(weights.method)}: worst images</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(weights.method)}, evaluated</h1>
<p>{html.escape(summary(assessment))}</p>
{skipped}
{tables}
<h2>Precision and recall</h2>
{scores}
{_chart(assessment)}
<h2>Worst images</h2>
<p>{_ORDER if images else "No image has a wrong pixel."}</p>
{_legend() if images else ""}
{images}
</body>
</html>
"""


def _chart(assessment: Assessment) -> str:
    light, dark = (
        _data_uri(precision_recall_chart(assessment, ink), "png") for ink in (LIGHT, DARK)
    )
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class="chart" src="{light}" alt="Precision against recall over all thresholds, '
        'with the baselines as points"></picture>'
    )


def _legend() -> str:
    entries = "".join(
        f'<span><i style="background: rgb{colour}"></i>{text}</span>' for colour, text in _LEGEND
    )
    return f'<p class="legend">{entries}</p>'


def _image(rank: int, name: str, panels: Panels, assessment: Assessment) -> str:
    pixels = assessment.evaluations[0].images[name]
    objects = assessment.evaluations[0].objects[name]
    share = pixels.wrong / pixels.size
    figures = (
        f"{pixels.wrong:,} wrong pixels ({share:.1%}): {pixels.false_positive:,} false alarms, "
        f"{pixels.false_negative:,} missed. F1 {figure(pixels.f1)}, P {figure(pixels.precision)}, "
        f"R {figure(pixels.recall)}, IoU {figure(pixels.iou)}. Objects: {sum(objects.found)} "
        f"found, {sum(objects.missed)} missed, {objects.false} false."
    )
    if panels.shrink > 1:
        figures += f" Shown {panels.shrink:.1f} times smaller."
    pictures = "\n".join(
        _figure(getattr(panels, f.name), f.name) for f in fields(panels) if f.name != "shrink"
    )
    return (
        f"<h3>{rank}. {html.escape(name)}</h3>\n<p>{figures}</p>\n"
        f'<div class="panels">\n{pictures}\n</div>'
    )


def _figure(picture: Picture, caption: str) -> str:
    encoded = io.BytesIO()
    # Colour at full resolution: the edges of the error map are thin.
    Image.fromarray(picture).save(encoded, "JPEG", quality=_QUALITY, subsampling=0)
    uri = _data_uri(encoded.getvalue(), "jpeg")
    return f'<figure><img src="{uri}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
