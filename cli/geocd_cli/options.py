"""Options that several commands share, each defined once."""

from __future__ import annotations

import click

from geocd.config import DEFAULT_WEIGHTS, AlignConfig, DetectConfig, PredictConfig

weights = click.option(
    "--weights", default=DEFAULT_WEIGHTS, show_default=True, metavar="NAME|FILE",
    help="Bundled weights by name (geocd models list), or a weights file.",
)  # fmt: skip
pixel_size = click.option(
    "--pixel-size", type=float, metavar="METRES",
    help="What a pixel of images without a CRS covers. [unknown: read as they are]",
)  # fmt: skip
threshold = click.option(
    "--threshold", type=float, metavar="0..1",
    help="Least score of a change. [from the weights card]",
)  # fmt: skip
gsd = click.option(
    "--gsd", type=float, metavar="METRES",
    help="Ground sample distance to read at. [what the weights are good for]",
)  # fmt: skip
align = click.option(
    "--align", type=click.Choice(["auto", "off"]), default=AlignConfig().mode, show_default=True,
    help="auto: measure the misregistration, and correct it if that helps. "
    "off: trust the georeferencing.",
)  # fmt: skip
radiometry = click.option(
    "--radiometry", type=click.Choice(["none", "linear"]), default=DetectConfig().radiometry,
    show_default=True, help="linear: bring after to before's light, band by band, by a line "
    "fitted to ground that did not change.",
)  # fmt: skip
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace existing outputs.")


def parse_bands(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Band numbers from '3,2,1'."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"wanted numbers like 3,2,1, got {value!r}") from None
