"""``geocd train``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geocd.errors import ConfigError
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors


@click.command()
@click.option(
    "--config",
    "recipe_name",
    required=True,
    metavar="NAME|FILE",
    help="Recipe: a bundled name (geocd-vhr) or a TOML file.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Root of the folders that the recipe names.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of checkpoint, log and weights; a run in it is resumed.",
)
@click.option("--steps", type=int, help="Stop after so many more steps. [to the end]")
@click.option("--threads", type=int, help="Threads of torch. [its own choice]")
@click.option(
    "--workers", type=int, default=1, show_default=True, help="Processes that make training pairs."
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where to train.",
)
@click.option(
    "--validation",
    multiple=True,
    metavar="NAME=FILE",
    help="Output of 'geocd evaluate --json' for the card.",
)
@options.quiet
@translate_errors
def train(
    recipe_name: str, data: Path, output: Path, steps: int | None, threads: int | None,
    workers: int, device: str, validation: tuple[str, ...], quiet: bool,
) -> None:  # fmt: skip
    """Train weights from single-date labelled tiles.

    Stopped runs go on where they were; the checkpoint is saved every two minutes.
    At the end, and at every stop, the weights lie in the output folder with their card.
    """
    import torch

    from geocd.training.fit import Trainer
    from geocd.training.recipe import find_recipe, load_recipe

    if threads is not None:
        torch.set_num_threads(threads)
    figures = {}
    for entry in validation:
        name, _, path = entry.partition("=")
        if not Path(path).is_file():
            raise ConfigError(f"--validation wants NAME=FILE with an existing file, got {entry!r}")
        figures[name] = json.loads(Path(path).read_text())
    trainer = Trainer(load_recipe(find_recipe(recipe_name)), data, output, device=device,
                      workers=workers)  # fmt: skip
    if trainer.resume():
        click.echo(f"resumed at step {trainer.step} of {trainer.recipe.steps}", err=True)
    progress = StageProgress(quiet=quiet)
    try:
        trainer.run(stop_after=steps, progress=lambda step, total, losses: progress(
            "train", step, total))  # fmt: skip
    finally:
        weights = trainer.export(validation=figures)
    click.echo(f"step {trainer.step} of {trainer.recipe.steps} -> {weights}")
