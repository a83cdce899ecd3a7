"""``geocd vectorize``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd.config import PerClass, VectorizeConfig
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors
from geocd_cli.sections import SectionedCommand

_TABLE = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@click.command(
    cls=SectionedCommand,
    sections={"Map": ("threshold", "table"), "Attributes": ("before", "after")},
)
@click.argument("scores", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="Change polygons; the extension chooses .gpkg, .geojson, .fgb or .parquet. "
    "[none: only the table]",
)  # fmt: skip
@click.option(
    "--before", metavar="RASTER",
    help="Image of the earlier date that the scores come from: with both, the direction of each "
    "change is judged. [every direction is unknown]",
)  # fmt: skip
@click.option("--after", metavar="RASTER", help="Image of the later date.")
@options.threshold
@click.option(
    "--table", callback=options.parse_numbers, metavar="T,T,..",
    default=",".join(map(str, _TABLE)), show_default=True,
    help="Thresholds at which objects and areas are counted; an empty text for none.",
)  # fmt: skip
@options.dates
@options.footprints
@options.stac
@options.qgis_project
@options.overwrite
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@translate_errors
@options.drawing
def vectorize(
    scores: Path, output: Path | None, before: str | None, after: str | None,
    threshold: PerClass | None, table: tuple[float, ...],
    before_date: str | None, after_date: str | None, footprints: Path | None, stac: Path | None,
    qgis_project: Path | None, overwrite: bool, quiet: bool, as_json: bool,
    drawing: VectorizeConfig,
) -> None:  # fmt: skip
    """Make change polygons from SCORES, at any threshold, without the network.

    SCORES is the raster that 'geocd detect --scores' has written.

    \b
    geocd vectorize scores.tif
    geocd vectorize scores.tif -o changes.gpkg --threshold building=0.6,road=0.4
    geocd vectorize scores.tif -o changes.gpkg --before before.tif --after after.tif
    """
    from geocd.products import vectorize as run

    result = run(
        scores, output, before=before, after=after, threshold=threshold, config=drawing,
        dates=(before_date, after_date),
        footprints=footprints, stac=stac, qgis_project=qgis_project, table=table,
        overwrite=overwrite, progress=StageProgress(quiet=quiet),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif output is None or not quiet:  # without an output, the table is all that was asked for
        click.echo(result.report())
