"""``geocd archive``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors


@click.group()
def archive() -> None:
    """Find changes over a whole archive of surveys.

    \b
    geocd archive index surveys/ -o archive.parquet
    geocd archive plan archive.parquet -o plan.parquet
    geocd archive run plan.parquet -o out/
    geocd archive merge out/ -o changes.gpkg
    """


@archive.command("index")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="The index, .parquet; one that is there is brought up to date.",
)  # fmt: skip
@click.option(
    "--date-pattern", metavar="REGEX",
    help="Where the date stands in a path, with YYYY, MM and DD, such as ortho_YYYYMMDD; goes "
    "before STAC and tags.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="That read files. [4 for each processor]")
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@translate_errors
def index(
    sources: tuple[Path, ...], output: Path, date_pattern: str | None, threads: int | None,
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Describe every raster of SOURCES: folders, STAC files, single rasters.

    Files that the index knows and that have not changed are not read again. Damaged files are
    listed with their reason.

    \b
    geocd archive index surveys/ -o archive.parquet --date-pattern 'survey_YYYY'
    """
    from geocd.archive import index_archive

    result = index_archive(
        sources, output, date_pattern=date_pattern, threads=threads,
        progress=StageProgress(quiet=quiet),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif not quiet:
        click.echo(result.report())
