"""``geocd compare``."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click

from geocd.config import AlignConfig, AlignMode, DetectConfig, PredictConfig
from geocd_cli import options
from geocd_cli.evaluate import parse_values
from geocd_cli.reporting import StageProgress, translate_errors
from geocd_cli.running import running
from geocd_cli.sections import SectionedCommand


@click.command(cls=SectionedCommand, sections={"Data": ("data", "split", "kind", "values")})
@click.argument("first")
@click.argument("second")
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="Labelled pairs; FIRST and SECOND are then weights, which are run over them.",
)  # fmt: skip
@click.option("--split", metavar="NAME", help="Only this split, such as test. [all pairs]")
@options.pixel_size
@options.kind
@click.option(
    "--class", "values", multiple=True, metavar="NAME=VALUE",
    help="Value of a class in the labels; repeatable. [any value but 0 is of that kind]",
)  # fmt: skip
@options.align
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
@running
def compare(
    first: str, second: str, data: Path | None, split: str | None, pixel_size: float | None,
    kind: str, values: tuple[str, ...], align: AlignMode, quiet: bool, as_json: bool,
    predict: PredictConfig,
) -> None:  # fmt: skip
    """Tell whether SECOND is better than FIRST, or whether that may be chance.

    Both are outputs of geocd evaluate (the folder of -o, evaluation.json in it, or what --json
    printed), or, with --data, weights.

    \b
    geocd compare before/ after/
    geocd compare geocd-snunet geocd-vhr --data pairs/levir --pixel-size 0.5
    """
    from geocd.assess.compare import compare as run
    from geocd.assess.compare import evaluate_run, read_run
    from geocd.training.datasets import LabelCoding

    if data is None:
        runs = [read_run(Path(path)) for path in (first, second)]
    else:
        classes = parse_values(values)
        coding = LabelCoding(classes=tuple(classes) or (kind,), values=classes)
        progress = StageProgress(quiet=quiet)
        runs = []
        for name in (first, second):
            config = DetectConfig(
                weights=name, pixel_size=pixel_size, align=AlignConfig(mode=align), predict=predict
            )
            evaluated = evaluate_run(
                data, config=config, kind=kind, split=split, coding=coding,
                progress=functools.partial(progress, name),
            )  # fmt: skip
            runs.append(evaluated)
    result = run(*runs)
    click.echo(json.dumps(result.to_dict(), indent=1) if as_json else result.report())
