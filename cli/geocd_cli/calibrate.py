"""``geocd calibrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from geocd.config import (
    AlignConfig,
    AlignMode,
    CalibrateConfig,
    DetectConfig,
    MissUnit,
    PredictConfig,
    RadiometryMode,
    TilingConfig,
    UnalignedMode,
)
from geocd_cli import options
from geocd_cli.evaluate import parse_values
from geocd_cli.reporting import StageProgress, translate_errors
from geocd_cli.running import running_in_full
from geocd_cli.sections import SectionedCommand

_DEFAULTS = CalibrateConfig()
_SECTIONS = {
    "Data": ("data", "split", "kind", "values", "ignore", "against"),
    "Promise": (
        "max_miss", "confidence", "on_average", "unit", "cover", "min_area", "site",
    ),
}  # fmt: skip


@click.command(cls=SectionedCommand, sections=_SECTIONS)
@click.option(
    "--data", type=click.Path(path_type=Path), required=True,
    help="Labelled pairs that the weights were not trained on; as for geocd evaluate.",
)  # fmt: skip
@click.option("--split", metavar="NAME", help="Only this split, such as val. [all pairs]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="Operating point to write, JSON, for geocd detect --operating-point.",
)  # fmt: skip
@options.overwrite
@options.weights
@options.pixel_size
@options.kind
@click.option(
    "--class", "values", multiple=True, metavar="NAME=VALUE",
    help="Value of a class in the labels; repeatable. [any value but 0 is of that kind]",
)  # fmt: skip
@click.option("--ignore", type=int, help="Value of label pixels that count nowhere. [none]")
@options.gsd
@options.align
@options.radiometry
@options.unaligned
@options.tile_size
@options.overlap
@click.option(
    "--max-miss", type=float, default=_DEFAULTS.max_miss, show_default=True,
    help="Largest mean share that is missed.",
)  # fmt: skip
@click.option(
    "--confidence", type=float, default=_DEFAULTS.confidence, show_default=True,
    help="How sure the promise is over the draw of the calibration set.",
)  # fmt: skip
@click.option("--on-average", is_flag=True, help="Promise on average only, without a confidence.")
@click.option(
    "--unit", type=click.Choice(get_args(MissUnit)), default=_DEFAULTS.unit, show_default=True,
    help="What is missed: changed objects, changed pixels, or images of which nothing is found.",
)  # fmt: skip
@click.option(
    "--cover", type=float, default=_DEFAULTS.cover, show_default=True,
    help="Least share of an object that must be found.",
)  # fmt: skip
@click.option(
    "--min-area", type=float, default=_DEFAULTS.min_area, show_default=True,
    help="Smallest object that counts, in square metres (pixels where their size is unknown).",
)  # fmt: skip
@click.option(
    "--site", metavar="REGEX",
    help="Finds the site in an image's name; images of one site are one unit. [each is its own]",
)  # fmt: skip
@click.option(
    "--against", type=click.Path(path_type=Path), multiple=True, metavar="FOLDER|MANIFEST",
    help="A set that the weights were trained on; an image in both is refused. Repeatable.",
)  # fmt: skip
@click.option(
    "--diagram", type=click.Path(path_type=Path),
    help="Also draw the scores as probabilities against what is so, a PNG.",
)  # fmt: skip
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
@running_in_full
def calibrate(
    data: Path, split: str | None, output: Path, overwrite: bool, weights: str,
    pixel_size: float | None, kind: str, values: tuple[str, ...], ignore: int | None,
    gsd: float | None, align: AlignMode, radiometry: RadiometryMode, unaligned: UnalignedMode,
    tile_size: int, overlap: int, max_miss: float, confidence: float, on_average: bool,
    unit: MissUnit, cover: float, min_area: float, site: str | None, against: tuple[Path, ...],
    diagram: Path | None, quiet: bool, as_json: bool, predict: PredictConfig,
) -> None:  # fmt: skip
    """Find the highest threshold that keeps a promise about misses, and what it costs.

    It refuses where there are too few labelled images to prove the promise, and says how many
    are needed.

    \b
    geocd calibrate --data pairs/val --max-miss 0.05 --confidence 0.95 -o operating-point.json
    geocd detect before.tif after.tif -o changes.gpkg --operating-point operating-point.json
    """
    config = DetectConfig(
        weights=weights, gsd=gsd, pixel_size=pixel_size, radiometry=radiometry,
        unaligned=unaligned, align=AlignConfig(mode=align),
        tiling=TilingConfig(tile_size=tile_size, overlap=overlap), predict=predict,
    )  # fmt: skip
    promise = CalibrateConfig(
        unit=unit, max_miss=max_miss, confidence=None if on_average else confidence, cover=cover,
        min_area=min_area, site=site,
    )  # fmt: skip
    from geocd.assess.calibrate import calibrate as run
    from geocd.assess.calibrate import check_outputs, write_calibration
    from geocd.training.datasets import LabelCoding

    classes = parse_values(values)
    coding = LabelCoding(classes=tuple(classes) or (kind,), values=classes, ignore=ignore)
    check_outputs(output, diagram, overwrite=overwrite)
    progress = StageProgress(quiet=quiet)
    result = run(
        data, config=config, promise=promise, kind=kind, split=split, coding=coding,
        against=against, progress=lambda done, total: progress("calibrate", done, total),
    )  # fmt: skip
    write_calibration(result, output, diagram=diagram, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif not quiet:
        click.echo(f"{result.report()}\noperating point -> {output}")
