"""One self-contained page: the figures, the curve, and the worst images."""

from __future__ import annotations

import html
from dataclasses import fields

from geocd.assess.chart import DARK, LIGHT, precision_recall_chart
from geocd.assess.evaluation import Assessment
from geocd.assess.markup import document, figure_html, legend
from geocd.assess.panels import Panels
from geocd.assess.tables import (
    figure,
    object_table,
    pixel_table,
    score_lines,
    skipped_lines,
    summary,
)
from geocd.webpage import data_uri

_ORDER = (
    "The images with the most wrong pixels (false alarms and misses together) come first, with "
    "and without change alike. Every wrong pixel costs the F1 of the whole set the same, so these "
    "images cost it the most. F1 itself would not do: in an image without change it is 0 after a "
    "single false pixel."
)


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
    body = f"""<h1>{html.escape(weights.method)}, evaluated</h1>
<p>{html.escape(summary(assessment))}</p>
{skipped}
{tables}
<h2>Precision and recall</h2>
{scores}
{_chart(assessment)}
<h2>Worst images</h2>
<p>{_ORDER if images else "No image has a wrong pixel."}</p>
{legend() if images else ""}
{images}"""
    return document(f"{weights.method}: worst images", body)


def _chart(assessment: Assessment) -> str:
    light, dark = (
        data_uri(precision_recall_chart(assessment, ink), "png") for ink in (LIGHT, DARK)
    )
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class="chart" src="{light}" alt="Precision against recall over all thresholds, '
        'with the baselines as points"></picture>'
    )


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
        figure_html(getattr(panels, f.name), f.name) for f in fields(panels) if f.name != "shrink"
    )
    return (
        f"<h3>{rank}. {html.escape(name)}</h3>\n<p>{figures}</p>\n"
        f'<div class="panels">\n{pictures}\n</div>'
    )
