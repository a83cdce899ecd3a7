"""``geocd review apply``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd_cli.reporting import translate_errors


@click.group()
def review() -> None:
    """Take back what was marked in a report."""


@review.command("apply")
@click.argument("verdicts", type=click.Path(path_type=Path))
@click.argument("changes", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
def apply(verdicts: Path, changes: Path, as_json: bool) -> None:
    """Write VERDICTS, as a report exports them, into the GeoPackage CHANGES.

    They become the columns verdict and verdict_note. Prints the precision over all verdicts
    that the file then holds, with its interval at 95 %.

    \b
    geocd review apply verdicts.geojson changes.gpkg
    """
    from geocd.report import apply_verdicts

    result = apply_verdicts(verdicts, changes)
    click.echo(json.dumps(result.to_dict(), indent=1) if as_json else result.report())
