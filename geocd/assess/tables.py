"""The figures of an assessment as tables of words, written as text, Markdown or HTML."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

from geocd.assess.evaluation import Assessment, Evaluation
from geocd.assess.metrics import Confusion, Interval, worst_first
from geocd.assess.objects import SIZE_BOUNDS, SIZE_CLASSES, ObjectAgreement
from geocd.words import counted

_UNDEFINED = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, a row of heads and rows of cells; the first column names the row."""

    caption: str
    heads: list[str]
    rows: list[list[str]]

    def to_text(self) -> str:
        """Columns set apart by spaces."""
        lines = [self.heads, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.heads))]
        text = [
            "  ".join([line[0].ljust(widths[0])]
                      + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)])
            for line in lines
        ]  # fmt: skip
        return "\n".join([self.caption, *text])

    def to_markdown(self) -> str:
        """A pipe table below its caption."""
        rule = ["---", *["---:"] * (len(self.heads) - 1)]
        lines = [[_escape(cell) for cell in line] for line in (self.heads, *self.rows)]
        lines.insert(1, rule)
        return "\n".join([_escape(self.caption), "", *(f"| {' | '.join(row)} |" for row in lines)])

    def to_html(self) -> str:
        """A table element; every text in it is escaped."""
        heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in self.heads)
        rows = "\n".join(
            f'<tr><th scope="row">{html.escape(name)}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in self.rows
        )
        return (
            f"<table><caption>{html.escape(self.caption)}</caption>\n"
            f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
        )


def _escape(cell: str) -> str:
    # A backslash before each, so that names of files stay names and never become markup.
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]" else letter for letter in cell)


def figure(value: float, digits: int = 3) -> str:
    """A figure; a dash where it is undefined."""
    return _UNDEFINED if math.isnan(value) else f"{value:.{digits}f}"


def _with_interval(value: float, interval: Interval) -> str:
    if math.isnan(interval[0]):
        return figure(value)
    return f"{figure(value)} ({interval[0]:.2f}-{interval[1]:.2f})"


def pixel_table(assessment: Assessment) -> Table:
    """Pixel measures of every method."""
    heads = ["", "P", "R", "F1", "IoU", "accuracy", "kappa", "median F1"]
    rows = [_pixel_row(evaluation) for evaluation in assessment.evaluations]
    return Table(
        "Pixels of all images together (95 % interval, images resampled); accuracy counts "
        "unchanged ground too; median F1 is that of the images",
        heads, rows,
    )  # fmt: skip


def _pixel_row(evaluation: Evaluation) -> list[str]:
    total, bounds = evaluation.total, evaluation.intervals()
    ratios = [_with_interval(getattr(total, name), bounds[name]) for name in bounds]
    rest = [figure(v) for v in (total.accuracy, total.kappa, evaluation.median_f1)]
    return [evaluation.method, *ratios, *rest]


def object_table(assessment: Assessment) -> Table:
    """Object measures of every method."""
    bounds = " or ".join(
        f"{medium:g} and {large:g} {_unit(unit)}"
        for unit, (medium, large) in SIZE_BOUNDS.items()
        if unit in assessment.unit.split(" or ")
    )
    objects = assessment.conditions["objects"]
    size_heads = [f"R {name} ({count})" for name, count in _sizes(assessment).items()]
    heads = ["", "P", "R", "F1", *size_heads, "false/image", "false/km2", "boundary F"]
    rows = [_object_row(e) for e in assessment.evaluations]
    return Table(
        f"Objects of at least {objects['min_area']:g} {_unit(assessment.unit)}, found at IoU >= "
        f"{objects['iou']:g}; medium and large from {bounds}; in brackets: objects of the truth; "
        f"boundary F: outlines within {objects['boundary']:g} pixels",
        heads, rows,
    )  # fmt: skip


def _sizes(assessment: Assessment) -> dict[str, int]:
    total = assessment.evaluations[0].total_objects
    counts = zip(SIZE_CLASSES, total.found, total.missed, strict=True)
    return {name: found + missed for name, found, missed in counts}


def _object_row(evaluation: Evaluation) -> list[str]:
    objects = evaluation.total_objects
    ratios = (objects.precision, objects.recall, objects.f1, *objects.recall_by_size().values())
    return [
        evaluation.method, *(figure(r) for r in ratios), figure(objects.false_per_image, 1),
        figure(objects.false_per_km2, 0), figure(evaluation.total_boundaries.f1),
    ]  # fmt: skip


def _unit(unit: str) -> str:
    return unit.replace("px", "pixels")


def image_table(assessment: Assessment, most: int | None = None) -> Table:
    """Measures of the weights by image, worst first; at most so many images."""
    weights = assessment.evaluations[0]
    names = worst_first(weights.images)
    shown = names[:most]
    part = "" if len(shown) == len(names) else f", {len(shown)} of {len(names)}"
    heads = ["", "wrong pixels", "P", "R", "F1", "IoU", "objects found", "missed", "false"]
    rows = [_image_row(name, weights.images[name], weights.objects[name]) for name in shown]
    return Table(f"{weights.method} by image, most wrong pixels first{part}", heads, rows)


def _image_row(name: str, pixels: Confusion, objects: ObjectAgreement) -> list[str]:
    ratios = (pixels.precision, pixels.recall, pixels.f1, pixels.iou)
    counts = (sum(objects.found), sum(objects.missed), objects.false)
    return [name, str(pixels.wrong), *(figure(r) for r in ratios), *(str(c) for c in counts)]


def summary(assessment: Assessment) -> str:
    """One line: what was evaluated, and what was left out."""
    conditions = assessment.conditions
    split = f", split {conditions['split']}" if conditions["split"] else ""
    skipped = len(assessment.skipped)
    return (
        f"{conditions['kind']} change in {conditions['data']}{split}: "
        f"{counted(len(assessment.evaluations[0].images), 'image')}, {skipped} skipped"
    )


def skipped_lines(assessment: Assessment) -> list[str]:
    """The images that were left out, and why."""
    return [f"skipped {name}: {reason}" for name, reason in assessment.skipped.items()]


def seam_lines(assessment: Assessment) -> list[str]:
    """What the seam audit says, if there was one."""
    return [] if assessment.seams is None else [assessment.seams.report()]


def score_lines(assessment: Assessment) -> list[str]:
    """What the curve of the weights says."""
    weights = assessment.evaluations[0]
    curve = weights.curve
    if curve is None or math.isnan(curve.average_precision):
        return ["no image shows change: there is no precision-recall curve"]
    best, best_f1 = curve.best
    used = (
        f"{weights.method}: average precision {figure(curve.average_precision)}; F1 of the "
        f"{assessment.conditions['kind']} score alone {figure(curve.f1_at_threshold)} at the "
        f"threshold used, {curve.threshold:g}"
    )
    chosen = (
        f"best F1 {figure(best_f1)} at threshold {best:.3f}, which was chosen on these very images "
        "and is therefore optimistic"
    )
    return [used, chosen]
