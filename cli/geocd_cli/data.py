"""``geocd data``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors


def parse_classes(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, int]:
    """Label values by class from 'building=1'."""
    try:
        return {name: int(value) for name, value in (text.split("=") for text in values)}
    except ValueError:
        raise click.BadParameter(f"wanted NAME=VALUE, got {' '.join(values)}") from None


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="FOLDER|MANIFEST")
@click.option(
    "--class", "classes", multiple=True, callback=parse_classes, metavar="NAME=VALUE",
    help="Label value of a class; repeat it for more. [any value but 0 is change]",
)  # fmt: skip
@click.option(
    "--ignore", type=int, metavar="VALUE", help="Label value of pixels of which nothing is known."
)
@click.option(
    "--against", type=click.Path(path_type=Path), multiple=True, metavar="FOLDER|MANIFEST",
    help="Another set that must not share an image with this one; repeat it for more.",
)  # fmt: skip
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
def data(
    source: Path, classes: dict[str, int], ignore: int | None, against: tuple[Path, ...],
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Look through labelled pairs or tiles: sizes, classes, damage, duplicates and leaks.

    Exits with 1 if a file is damaged or does not fit, or an image is in two splits or sets.

    \b
    geocd data LEVIR-CD
    geocd data pairs.toml --class building=1 --class road=2 --against LEVIR-CD
    """
    from geocd.training.datasets import LabelCoding, inspect_pairs

    coding = None
    if classes or ignore is not None:
        coding = LabelCoding(classes=tuple(classes) or ("change",), values=classes, ignore=ignore)
    progress = StageProgress(quiet=quiet)
    report = inspect_pairs(source, coding=coding, against=against,
                           progress=lambda done, total: progress("read", done, total))  # fmt: skip
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else report.text())
    if not report.ok:
        sys.exit(1)
