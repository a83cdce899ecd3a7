"""``geocd models list | show | import``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from geocd_cli import options
from geocd_cli.reporting import translate_errors


@click.group()
def models() -> None:
    """List, show and import weights."""


@models.command("list")
@translate_errors
def list_models() -> None:
    """Bundled weights, then architectures with their options, defaults first."""
    from geocd.models.files import bundled_weights, find_weights, read_card
    from geocd.models.registry import known_models, known_options

    click.echo("weights (for --weights):")
    for name in bundled_weights():
        card = read_card(find_weights(name))
        click.echo(f"  {name:<20} {card.architecture}, {', '.join(card.change_classes)}: "
                   f"{card.summary}")  # fmt: skip
    click.echo("architectures (for recipes and imported checkpoints):")
    for name in known_models():
        options = [f"{key}: {' or '.join(values)}" for key, values in known_options(name).items()]
        click.echo(f"  {name:<20} {', '.join(options)}".rstrip())


@models.command()
@click.argument("weights")
@translate_errors
def show(weights: str) -> None:
    """Print the card of WEIGHTS, a bundled name or a file, as JSON.

    The hashes of the images that they were trained on are counted; the file holds them.
    """
    from geocd.models.files import find_weights, read_card

    card = read_card(find_weights(weights))
    hashes = card.training.get("content_sha256")
    if hashes:
        training = dict(card.training) | {"content_sha256": f"{len(hashes)} images"}
        card = replace(card, training=training)
    click.echo(card.to_json())


def _numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"wanted numbers like 0.4,1.0, got {value!r}") from None


@models.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Weights file to write, ending in .safetensors.",
)
@click.option("--name", help="Name for the card. [the output's]")
@click.option("--classes", help="Names of the outputs, as in none,building,road.")
@click.option("--mean", callback=_numbers, help="Mean a band, on 0..255. [0]")
@click.option("--std", callback=_numbers, help="Deviation a band, on 0..255. [1]")
@click.option(
    "--gsd",
    callback=_numbers,
    metavar="MIN,MAX",
    help="Ground sample distances that the weights are good for, metres. [any]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Least score of a change.",
)
@options.overwrite
@translate_errors
def import_model(
    checkpoint: Path, output: Path, name: str | None, classes: str | None,
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None,
    gsd: tuple[float, ...] | None, threshold: float, overwrite: bool,
) -> None:  # fmt: skip
    """Convert a published CHECKPOINT of SNUNet-CD or Siam-NestedUNet to a weights file.

    The tensors tell width, bands, outputs and the kind of upsampling. Only plain state
    dictionaries are read; nothing in the file is ever executed.
    """
    from geocd.models.checkpoint import import_checkpoint

    if gsd is not None and len(gsd) != 2:
        raise click.BadParameter("--gsd wants two numbers, as in 0.4,1.0")
    card = import_checkpoint(
        checkpoint, output, name=name, classes=classes.split(",") if classes else None,
        mean=mean, std=std, gsd=None if gsd is None else (gsd[0], gsd[1]), threshold=threshold,
        overwrite=overwrite,
    )  # fmt: skip
    built = ", ".join([card.architecture, f"width {card.width}", *card.options.values()])
    click.echo(f"{output}: {built}, {len(card.bands)} bands, "
               f"classes {', '.join(card.classes)}")  # fmt: skip
