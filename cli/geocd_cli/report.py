"""``geocd report``."""

from __future__ import annotations

from pathlib import Path

import click

from geocd.config import ReportConfig
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors


@click.command()
@click.argument("changes", type=click.Path(path_type=Path))
@click.option(
    "--before", required=True, metavar="RASTER", help="Image of the earlier date: file or folder."
)
@click.option("--after", required=True, metavar="RASTER", help="Image of the later date.")
@click.option(
    "--mask", type=click.Path(path_type=Path),
    help="Change map of the same run: tells exactly what was observed. [from the images]",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="The page; ends in .html.",
)  # fmt: skip
@click.option(
    "--max-mb", type=float, default=ReportConfig().max_mb, show_default=True,
    help="Largest size of the page, in megabytes.",
)  # fmt: skip
@options.overwrite
@options.quiet
@translate_errors
def report(
    changes: Path, before: str, after: str, mask: Path | None, output: Path, max_mb: float,
    overwrite: bool, quiet: bool,
) -> None:  # fmt: skip
    """Make a page of CHANGES that anyone can open, and review, in a browser.

    One file that needs no network: a swipe map, a list of changes with pictures, figures, and
    how it was made.

    \b
    geocd report changes.gpkg --before before.tif --after after.tif -o report.html
    """
    config = ReportConfig(max_mb=max_mb)
    from geocd.report import write_report

    result = write_report(
        changes, before=before, after=after, mask=mask, output=output, config=config,
        overwrite=overwrite, progress=StageProgress(quiet=quiet),
    )  # fmt: skip
    if not quiet:
        click.echo(result.report())
