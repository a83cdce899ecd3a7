"""``geocd evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd.config import (
    AlignConfig,
    AlignMode,
    DetectConfig,
    ObjectConfig,
    PerClass,
    PredictConfig,
    RadiometryMode,
)
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors
from geocd_cli.running import running
from geocd_cli.sections import SectionedCommand

_SECTIONS = {
    "Data": ("data", "split", "kind", "values", "ignore", "strict"),
    "Measures": ("threshold", "min_area", "iou", "audit"),
}


@click.command(cls=SectionedCommand, sections=_SECTIONS)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Set of pairs: a folder with A/ (before), B/ (after) and label/ (0 no change), or a "
    "TOML manifest of georeferenced pairs.",
)
@click.option("--split", metavar="NAME", help="Only this split, such as test. [all pairs]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for evaluation.json, table.md, pr.png and worst.html.",
)
@options.overwrite
@options.weights
@options.pixel_size
@options.kind
@click.option(
    "--class",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a class in the labels; repeatable. [any value but 0 is of that kind]",
)
@click.option("--ignore", type=int, help="Value of label pixels that count nowhere. [none]")
@options.threshold
@options.gsd
@options.align
@options.radiometry
@click.option(
    "--min-area",
    type=float,
    default=ObjectConfig().min_area,
    show_default=True,
    help="Smallest object that counts, in square metres (pixels where their size is unknown).",
)
@click.option(
    "--iou",
    type=float,
    default=ObjectConfig().iou,
    show_default=True,
    help="Least intersection over union of an object that is found.",
)
@click.option(
    "--audit",
    is_flag=True,
    help="Also score some pairs again with windows that begin elsewhere, and tell of seams.",
)
@click.option("--strict", is_flag=True, help="Stop at an image that cannot be used. [skip it]")
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
@running
def evaluate(
    data: Path, split: str | None, output: Path | None, overwrite: bool, weights: str,
    pixel_size: float | None, kind: str, values: tuple[str, ...], ignore: int | None,
    threshold: PerClass | None, gsd: float | None, align: AlignMode, radiometry: RadiometryMode,
    min_area: float, iou: float, audit: bool, strict: bool, quiet: bool, as_json: bool,
    predict: PredictConfig,
) -> None:  # fmt: skip
    """Measure weights on labelled pairs, beside baselines.

    \b
    geocd evaluate --data pairs/levir --split test --pixel-size 0.5 -o report
    """
    config = DetectConfig(
        weights=weights, threshold=threshold, gsd=gsd, pixel_size=pixel_size,
        radiometry=radiometry, align=AlignConfig(mode=align), predict=predict,
    )  # fmt: skip
    objects = ObjectConfig(min_area=min_area, iou=iou)
    from geocd.assess.evaluation import assess
    from geocd.assess.report import check_folder, to_text, write_report
    from geocd.training.datasets import LabelCoding

    classes = parse_values(values)
    coding = LabelCoding(classes=tuple(classes) or (kind,), values=classes, ignore=ignore)
    if output is not None:
        check_folder(output, overwrite=overwrite)
    progress = StageProgress(quiet=quiet)
    assessment = assess(
        data, config=config, kind=kind, split=split, coding=coding, strict=strict, objects=objects,
        audit=audit, progress=lambda done, total: progress("evaluate", done, total),
    )  # fmt: skip
    if output is not None:
        write_report(assessment, output, overwrite=overwrite)
    click.echo(json.dumps(assessment.to_dict(), indent=1) if as_json else to_text(assessment))


def parse_values(entries: tuple[str, ...]) -> dict[str, int]:
    """Label values by class, from NAME=VALUE."""
    values = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if not name or not value.isdigit():
            raise click.BadParameter(f"wanted NAME=VALUE like building=1, got {entry!r}")
        values[name] = int(value)
    return values
