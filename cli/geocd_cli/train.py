"""``geocd train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from geocd.errors import ConfigError
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors


@click.command()
@click.option(
    "--config", "recipe_name", required=True, metavar="NAME|FILE",
    help="Recipe: a bundled name (geocd train --list) or a TOML file.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path), default=Path(), show_default="here",
    help="Root of the folders that the recipe names.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="Folder of checkpoint, logs, weights and report; a run in it is resumed.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(min=1), help="Stop after so many more steps. [to the end]"
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch. [its own choice]")
@click.option(
    "--workers", type=click.IntRange(min=0), default=1, show_default=True,
    help="Processes that make training pairs.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True,
    help="auto: a GPU where there is one.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Refuse damaged images instead of skipping them.")
@click.option(
    "--figures", multiple=True, metavar="NAME=FILE",
    help="Output of 'geocd evaluate --json', whose figures go on the weights card.",
)  # fmt: skip
@click.option(
    "--preview", is_flag=True,
    help="Write pictures of the recipe's tiles and synthesised pairs into the output folder, "
    "and exit.",
)  # fmt: skip
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False,
    callback=lambda ctx, param, value: _list_recipes(ctx, wanted=value),
    help="Show the bundled recipes and exit.",
)  # fmt: skip
@options.quiet
@translate_errors
def train(
    recipe_name: str, data: Path, output: Path, steps: int | None, threads: int | None,
    workers: int, device: Literal["auto", "cpu"], strict: bool, figures: tuple[str, ...],
    preview: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train weights by a recipe.

    A stopped run goes on where it was; the checkpoint is saved every two minutes and on Ctrl-C.
    At the end, and after --steps, the weights lie in the output folder with their card, and
    report.html shows the curves and the worst pairs of the validation.

    \b
    geocd train --config fine-tune --data my-pairs -o runs/mine
    torchrun --nproc-per-node 2 -m geocd_cli train --config geocd-vhr --data TILES -o runs/vhr
    """
    import torch

    try:
        from geocd.assess.training_report import write_training_report
        from geocd.training.fit import Trainer
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"training needs {error.name}; install it with: pip install 'geocd[train]'"
        ) from None
    from geocd.training.preview import write_preview
    from geocd.training.recipe import find_recipe, load_recipe

    recipe = load_recipe(find_recipe(recipe_name))
    if preview:
        write_preview(recipe, data, output, overwrite=True)
        click.echo(f"pictures of what is trained on -> {output}")
        return
    if threads is not None:
        torch.set_num_threads(threads)
    trainer = Trainer(recipe, data, output, device=device, workers=workers, strict=strict)
    known = _read_figures(figures)
    if trainer.resume():
        _say(trainer.is_main, f"resumed at step {trainer.step} of {trainer.recipe.steps}")
    progress = StageProgress(quiet=quiet or not trainer.is_main)

    def report(done: int, total: int, losses: Mapping[str, float]) -> None:
        progress("train", done, total)

    try:
        trainer.run(stop_after=steps, progress=report)
    except KeyboardInterrupt:
        # Alone, the run can still be saved; several processes would wait for each other.
        if trainer.accelerator.num_processes == 1:
            trainer.save()
        raise
    weights = trainer.export(figures=known)
    if trainer.is_main:
        page = write_training_report(trainer)
        click.echo(f"step {trainer.step} of {trainer.recipe.steps} -> {weights}")
        click.echo(f"report -> {page}")
        if trainer.gain is not None:
            click.echo(str(trainer.gain))
        if trainer.damaged:
            click.echo(f"damaged and skipped: {', '.join(sorted(trainer.damaged))}", err=True)


def _say(is_main: bool, text: str) -> None:
    if is_main:
        click.echo(text, err=True)


def _list_recipes(ctx: click.Context, *, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from geocd.training.recipe import bundled_recipes, find_recipe

    for name in bundled_recipes():
        first = find_recipe(name).read_text().splitlines()[0]
        click.echo(f"{name:<16} {first.removeprefix('# ')}")
    ctx.exit()


def _read_figures(entries: tuple[str, ...]) -> dict[str, object]:
    from geocd.assess.report import card_figures

    split = (entry.partition("=") for entry in entries)
    return {name: card_figures(Path(path)) for name, _, path in split}
