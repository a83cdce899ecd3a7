"""``geocd assess``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd_cli import options
from geocd_cli.reporting import translate_errors


@click.command()
@click.argument("sample", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Also write everything as JSON."
)
@click.option(
    "--labels", type=click.Path(path_type=Path), multiple=True, metavar="CSV",
    help="What the page of geocd sample exported; repeat it if several people labelled.",
)  # fmt: skip
@options.overwrite
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
def assess(
    sample: Path, output: Path | None, labels: tuple[Path, ...], overwrite: bool, as_json: bool
) -> None:
    """Accuracy of a map and area of change, from a labelled SAMPLE, with 95 % intervals.

    SAMPLE is a GeoPackage of geocd sample, with a label for every unit.

    \b
    geocd assess sample.gpkg -o assessment.json
    """
    from geocd.assess.sampled import judge_sample

    result = judge_sample(sample, labels=labels, output=output, overwrite=overwrite)
    click.echo(json.dumps(result.to_dict(), indent=1) if as_json else result.report())
