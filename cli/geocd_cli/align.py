"""``geocd align``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from geocd.config import AlignConfig, AlignMode
from geocd_cli import options
from geocd_cli.reporting import NOT_ALIGNED, StageProgress, translate_errors


@click.command()
@click.argument("before")
@click.argument("afters", nargs=-1, required=True, metavar="AFTER...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="GeoTIFF (COG) to write; of several images, a folder that exists.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Also write everything that was measured, as JSON.",
)
@click.option(
    "--tie-points",
    type=click.Path(path_type=Path),
    help="Also write tie points and residual arrows, a GeoPackage styled for QGIS.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    help="Also draw the residuals, a PNG; of several images, a folder that exists.",
)
@options.align
@click.option(
    "--max-shift",
    type=float,
    default=AlignConfig().max_shift,
    show_default=True,
    metavar="PIXELS",
    help="Largest displacement that is believed, in pixels of before (of after, if coarser).",
)
@click.option(
    "--like-before",
    is_flag=True,
    help="Write before's very grid. [all of after, at its own resolution]",
)
@options.overwrite
@options.quiet
@translate_errors
def align(
    before: str,
    afters: tuple[str, ...],
    output: Path,
    report: Path | None,
    tie_points: Path | None,
    picture: Path | None,
    align: AlignMode,
    max_shift: float,
    like_before: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Move each AFTER to where it lies on BEFORE, and prove it.

    The aligned image keeps its bands, type, nodata and resolution; its pixels nest in before's.
    An image whose alignment cannot be proven is not written, and the exit code is 3. After an
    error it is 1; the other images are aligned all the same.

    \b
    geocd align 2011.tif 2023.tif -o 2023_aligned.tif --picture residuals.png
    geocd align 2011.tif flights/*.tif -o aligned/ --report align.json
    """
    from geocd.coregistration import coregister

    result = coregister(
        before,
        afters,
        output,
        report=report,
        tie_points=tie_points,
        picture=picture,
        like_before=like_before,
        config=AlignConfig(mode=align, max_shift=max_shift),
        overwrite=overwrite,
        progress=StageProgress(quiet=quiet),
    )
    for file in result.files:
        if file.outcome != "written":
            click.echo(f"Error: {file}", err=True)
        elif not quiet:
            click.echo(str(file))
    if not quiet and len(afters) > 1:
        click.echo(result.totals())
    if result.counts["failed"]:
        sys.exit(1)
    if result.counts["not aligned"]:
        sys.exit(NOT_ALIGNED)
