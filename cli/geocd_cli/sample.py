"""``geocd sample``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd.config import PerClass, SampleConfig
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors


@click.command()
@click.argument("change_map", type=click.Path(path_type=Path), metavar="MAP")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="GeoPackage to write, styled for labelling in QGIS.",
)  # fmt: skip
@click.option(
    "--per-stratum", callback=options.parse_per_class, metavar="N|STRATUM=N,..",
    default=str(SampleConfig().per_stratum), show_default=True,
    help="Pixels to draw from each stratum (none, near, building, road, change), or by name.",
)  # fmt: skip
@click.option(
    "--buffer", type=float, default=SampleConfig().buffer, show_default=True, metavar="METRES",
    help="Unchanged ground this close to change is the stratum near (pixels without a CRS); "
    "0: no such stratum.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=SampleConfig().seed, show_default=True,
    help="The same seed draws the same pixels.",
)  # fmt: skip
@click.option(
    "--page", type=click.Path(path_type=Path),
    help="Also write a page to label on in a browser, .html: both images around each unit.",
)  # fmt: skip
@click.option(
    "--images", type=(str, str), metavar="BEFORE AFTER",
    help="Images for the page. [those that MAP was made of]",
)  # fmt: skip
@options.overwrite
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
def sample(
    change_map: Path, output: Path, per_stratum: PerClass, buffer: float, seed: int,
    page: Path | None, images: tuple[str, str] | None, overwrite: bool, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draw pixels of MAP at random, stratum by stratum, for people to label.

    MAP is a change map as geocd detect --mask writes it. Fill in the column "reference" of every
    unit in QGIS, or label on the page, then run geocd assess.

    \b
    geocd sample mask.tif -o sample.gpkg --per-stratum none=100,near=75,building=75,road=50
    geocd assess sample.gpkg
    geocd sample mask.tif -o sample.gpkg --page labels.html
    geocd assess sample.gpkg --labels sample-labels.csv
    """
    config = SampleConfig(per_stratum=per_stratum, buffer=buffer, seed=seed)
    from geocd.assess.sampled import make_sample

    progress = StageProgress(quiet=quiet)
    drawn = make_sample(
        change_map, output, config=config, page=page, images=images, overwrite=overwrite,
        progress=lambda done, total: progress("sample", done, total),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(drawn.to_dict(), indent=1))
    elif not quiet:
        click.echo(drawn.report(output))
