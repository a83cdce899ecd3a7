"""``geocd evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd.config import AlignConfig, AlignMode, DetectConfig, DeviceName, PredictConfig
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with A/ (before), B/ (after) and label/ (0 no change).",
)
@options.weights
@options.pixel_size
@click.option(
    "--kind",
    type=click.Choice(["building", "road"]),
    default="building",
    show_default=True,
    help="Kind of change that the labels show.",
)
@options.threshold
@options.gsd
@options.align
@options.device
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@translate_errors
def evaluate(
    data: Path, weights: str, pixel_size: float | None, kind: str, threshold: float | None,
    gsd: float | None, align: AlignMode, device: DeviceName, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure weights on labelled pairs, beside baselines.

    \b
    geocd evaluate --data pairs/levir --pixel-size 0.5
    """
    config = DetectConfig(
        weights=weights, threshold=threshold, gsd=gsd, pixel_size=pixel_size,
        align=AlignConfig(mode=align), predict=PredictConfig(device=device),
    )  # fmt: skip
    from geocd.assess.evaluation import evaluate as run

    progress = StageProgress(quiet=quiet)
    results = run(data, config=config, kind=kind,
                  progress=lambda done, total: progress("evaluate", done, total))  # fmt: skip
    if as_json:
        click.echo(json.dumps([result.to_dict() for result in results], indent=1))
        return
    click.echo(f"{'':<28} {'P':>6} {'R':>6} {'F1':>6} {'IoU':>6} {'median F1':>10}")
    for result in results:
        total = result.total
        click.echo(f"{result.method:<28} {total.precision:6.3f} {total.recall:6.3f} "
                   f"{total.f1:6.3f} {total.iou:6.3f} {result.median_f1:10.3f}")  # fmt: skip
    click.echo(f"\n{results[0].method}, by image")
    for name, c in results[0].images.items():
        click.echo(f"  {name:<26} {c.precision:6.3f} {c.recall:6.3f} {c.f1:6.3f} {c.iou:6.3f}")
