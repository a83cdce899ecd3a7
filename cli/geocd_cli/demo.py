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
@click.option("--inspection", is_flag=True, help="Paint circuit boards instead, and inspect them.")
@options.overwrite
@options.quiet
@translate_errors
def demo(output: Path, seed: int, inspection: bool, overwrite: bool, quiet: bool) -> None:
    """Paint a survey of a suburb at two dates, find what changed, compare with the truth."""
    if inspection:
        from geocd.inspect.demo import run_inspection_demo

        boards = run_inspection_demo(output, seed=seed, overwrite=overwrite)
        if not quiet:
            click.echo(boards.report())
        return
    from geocd.demo import run_demo

    result = run_demo(output, seed=seed, overwrite=overwrite, progress=StageProgress(quiet=quiet))
    if not quiet:
        click.echo(result.report())
