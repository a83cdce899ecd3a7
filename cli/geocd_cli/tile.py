"""``geocd tile``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd.archive.rules import ChipFormat, ChipRules
from geocd.config import AlignConfig, AlignMode
from geocd_cli import options
from geocd_cli.data import parse_classes
from geocd_cli.reporting import StageProgress, translate_errors
from geocd_cli.sections import SectionedCommand


def _parse_shares(
    ctx: click.Context, param: click.Parameter, value: str
) -> tuple[float, float, float]:
    """Shares from '0.8/0.1/0.1'."""
    try:
        train, val, test = (float(part) for part in value.split("/"))
    except ValueError:
        raise click.BadParameter(f"wanted three shares like 0.8/0.1/0.1, got {value!r}") from None
    return train, val, test


def _text(shares: tuple[float, ...]) -> str:
    return "/".join(f"{share:g}" for share in shares)


@click.command(
    cls=SectionedCommand,
    sections={
        "Labels": ("labels", "classes", "ignore", "attribute"),
        "Chips": (
            "plan", "size", "overlap", "form", "shares", "block", "seed", "skip_empty", "aoi",
            "bands", "skip_failed",
        ),
    },
)  # fmt: skip
@click.argument("before", required=False)
@click.argument("after", required=False)
@click.option(
    "--plan", type=click.Path(path_type=Path), metavar="PLAN.PARQUET",
    help="Cut the units of geocd archive plan instead of one pair.",
)  # fmt: skip
@click.option(
    "--labels", type=click.Path(path_type=Path), metavar="POLYGONS|RASTER",
    help="Where change is: polygons, or a raster in which any value but 0 is change; in any CRS. "
    "With a plan, polygons with before_date and after_date count for these dates.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="Folder to make; one that a killed run left is gone on with.",
)  # fmt: skip
@click.option(
    "--size", type=int, default=ChipRules().size, show_default=True, metavar="PIXELS",
    help="Side of a chip, a multiple of 16.",
)  # fmt: skip
@click.option(
    "--overlap", type=int, default=ChipRules().overlap, show_default=True, metavar="PIXELS",
    help="What neighbours share at least.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["tif", "png"]), default=ChipRules().format,
    show_default=True, help="GeoTIFF, or PNG with a world file.",
)  # fmt: skip
@click.option(
    "--split", "shares", callback=_parse_shares, default=_text(ChipRules().shares),
    show_default=True, metavar="TRAIN/VAL/TEST", help="Shares of the chips; their sum is 1.",
)  # fmt: skip
@click.option(
    "--block", type=int, metavar="PIXELS",
    help="Side of the blocks of ground that splits are made of. [eight chips, fewer if need be]",
)  # fmt: skip
@click.option("--seed", type=int, default=ChipRules().seed, show_default=True,
              help="Draws the splits.")  # fmt: skip
@click.option("--skip-empty", is_flag=True, help="Leave out chips without labelled change.")
@click.option(
    "--class", "classes", multiple=True, callback=parse_classes, metavar="NAME=VALUE",
    help="Label value of a class; repeat it for more. In the chips, classes count from 1. [any "
    "value but 0 is change]",
)  # fmt: skip
@click.option(
    "--ignore", type=int, metavar="VALUE", help="Label value of pixels of which nothing is known."
)
@click.option("--attribute", metavar="COLUMN", help="Column of the polygons that holds the class.")
@click.option(
    "--aoi", type=click.Path(path_type=Path), metavar="POLYGONS",
    help="Where the labels are complete; outside, pixels are labelled 255.",
)  # fmt: skip
@click.option(
    "--bands", callback=options.parse_bands, metavar="R,G,B",
    help="Bands to write, counted from 1. [the first three]",
)  # fmt: skip
@options.align
@click.option("--picture", type=click.Path(path_type=Path),
              help="Draw the splits and some chips, .png.")  # fmt: skip
@click.option("--skip-failed", is_flag=True, help="Finish without units of the plan that fail.")
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@translate_errors
def tile(
    before: str | None, after: str | None, plan: Path | None, labels: Path | None, output: Path,
    size: int, overlap: int, form: ChipFormat, shares: tuple[float, float, float],
    block: int | None, seed: int, skip_empty: bool, classes: dict[str, int], ignore: int | None,
    attribute: str | None, aoi: Path | None, bands: tuple[int, ...] | None, align: AlignMode,
    picture: Path | None, skip_failed: bool, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Cut BEFORE and AFTER, or the units of a plan, into training chips.

    The folder holds A/, B/, label/ (0 none, 1 change, 255 not known), list/train.txt, val.txt and
    test.txt, and chips.parquet, which says where each chip lies. Chips of different splits share
    no ground.

    \b
    geocd tile 2015.tif 2021.tif --labels changes.gpkg -o chips/
    geocd tile --plan plan.parquet --labels changes.gpkg -o chips/ --skip-empty
    geocd data chips/ --class change=1 --ignore 255
    """
    if (plan is None) == (before is None) or (before is None) != (after is None):
        raise click.UsageError("give BEFORE and AFTER, or --plan")
    if labels is None and (classes or attribute or ignore is not None):
        raise click.UsageError("--class, --ignore and --attribute tell of labels; give --labels")
    rules = ChipRules(size=size, overlap=overlap, format=form, shares=shares, block=block,
                      skip_empty=skip_empty, seed=seed)  # fmt: skip
    from geocd.archive.chiplabels import ChipLabels
    from geocd.archive.chips import tile_pair, tile_plan

    label = None if labels is None else ChipLabels(labels, classes, ignore, attribute)
    progress, config = StageProgress(quiet=quiet), AlignConfig(mode=align)
    if plan is not None:
        result = tile_plan(plan, output, labels=label, rules=rules, align=config, bands=bands,
                           aoi=aoi, picture=picture, skip_failed=skip_failed,
                           progress=progress)  # fmt: skip
    else:
        result = tile_pair(str(before), str(after), output, labels=label, rules=rules,
                           align=config, bands=bands, aoi=aoi, picture=picture,
                           progress=progress)  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif not quiet:
        click.echo(result.report())
