"""``geocd detect``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd.config import (
    AlignConfig,
    AlignMode,
    DetectConfig,
    PerClass,
    PredictConfig,
    RadiometryMode,
    TilingConfig,
    UnalignedMode,
    VectorizeConfig,
)
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors
from geocd_cli.running import running
from geocd_cli.sections import SectionedCommand


@click.command(cls=SectionedCommand)
@click.argument("before")
@click.argument("after")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Change polygons; the extension chooses .gpkg, .geojson, .fgb or .parquet.",
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Also write the change map, a GeoTIFF (COG) on before's grid.",
)
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    help="Also write the scores, a GeoTIFF (COG) with one band a class.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Also write a page that anyone can open and review, .html.",
)
@options.weights
@click.option(
    "--bands",
    callback=options.parse_bands,
    metavar="R,G,B",
    help="Bands to read, counted from 1, in the order of the weights. [first ones]",
)
@options.threshold
@options.operating_point
@options.tile_size
@options.overlap
@options.align
@options.radiometry
@options.unaligned
@options.shift_check
@options.shift_budget
@options.gsd
@options.pixel_size
@click.option(
    "--aoi",
    type=click.Path(path_type=Path),
    metavar="POLYGON",
    help="Vector file; ground outside its polygons counts as not observed.",
)
@options.dates
@options.footprints
@options.stac
@options.alignment
@options.qgis_project
@options.overwrite
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@click.option("--profile", is_flag=True, help="Print where the time went, stage by stage.")
@translate_errors
@options.drawing
@running
def detect(
    before: str,
    after: str,
    output: Path,
    mask: Path | None,
    scores: Path | None,
    report: Path | None,
    weights: str,
    bands: tuple[int, ...] | None,
    threshold: PerClass | None,
    operating_point: Path | None,
    tile_size: int,
    overlap: int,
    align: AlignMode,
    radiometry: RadiometryMode,
    unaligned: UnalignedMode,
    shift_check: bool,
    shift_budget: float,
    gsd: float | None,
    pixel_size: float | None,
    aoi: Path | None,
    before_date: str | None,
    after_date: str | None,
    footprints: Path | None,
    stac: Path | None,
    alignment: Path | None,
    qgis_project: Path | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    profile: bool,
    drawing: VectorizeConfig,
    predict: PredictConfig,
) -> None:
    """Find what changed between BEFORE and AFTER.

    Each is a raster that GDAL can open (a file, a URL, a VRT) or a folder of tiles. They may
    differ in CRS, resolution and extent.

    \b
    geocd detect before.tif after.tif -o changes.gpkg
    geocd detect 2011/ 2023/ -o changes.gpkg --mask mask.tif --aoi district.geojson
    """
    config = DetectConfig(
        weights=weights,
        bands=bands,
        threshold=threshold,
        gsd=gsd,
        pixel_size=pixel_size,
        radiometry=radiometry,
        unaligned=unaligned,
        shift_check=shift_check,
        shift_budget=shift_budget,
        align=AlignConfig(mode=align),
        tiling=TilingConfig(tile_size=tile_size, overlap=overlap),
        predict=predict,
        vectorize=drawing,
    )
    if operating_point is not None:
        from geocd.assess.operating_point import read_operating_point

        config = read_operating_point(operating_point).apply(config)
    from geocd.pipeline import detect as run

    result = run(
        before,
        after,
        output,
        mask=mask,
        scores=scores,
        aoi=aoi,
        report=report,
        config=config,
        dates=(before_date, after_date),
        footprints=footprints,
        stac=stac,
        alignment=alignment,
        qgis_project=qgis_project,
        overwrite=overwrite,
        progress=StageProgress(quiet=quiet),
    )
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif not quiet:
        click.echo(result.report())
    if profile:
        click.echo(result.profile(), err=as_json)
