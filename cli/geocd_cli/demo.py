"""``geocd demo``."""

from __future__ import annotations

from pathlib import Path

import click

from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for the painted images, the results and a picture.",
)
@click.option(
    "--seed", type=int, default=7, show_default=True, help="Another seed, another suburb."
)
@options.overwrite
@options.quiet
@translate_errors
def demo(output: Path, seed: int, overwrite: bool, quiet: bool) -> None:
    """Paint a survey of a suburb at two dates, find what changed, compare with the truth."""
    from geocd.demo import run_demo

    result = run_demo(output, seed=seed, overwrite=overwrite, progress=StageProgress(quiet=quiet))
    if not quiet:
        click.echo(result.report())
