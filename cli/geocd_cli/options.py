"""Options that several commands share, each defined once."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from geocd.config import (
    DEFAULT_WEIGHTS,
    AlignConfig,
    AlignMode,
    DetectConfig,
    PerClass,
    TilingConfig,
    VectorizeConfig,
)

C = TypeVar("C", bound=Callable[..., Any])


def parse_numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...]:
    """Numbers from '0.2,0.5'; none from an empty text."""
    try:
        return tuple(float(part) for part in (value or "").split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"wanted numbers like 0.2,0.5, got {value!r}") from None


def parse_per_class(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> PerClass | None:
    """A number, or numbers by name, from '0.5' or 'building=0.6,road=0.4'."""
    if value is None:
        return None
    try:
        if "=" not in value:
            return float(value)
        pairs = [part.split("=") for part in value.split(",")]
        numbers = {name.strip(): float(number) for name, number in pairs}
    except ValueError:
        numbers = {}
    if not numbers or len(numbers) != value.count("=") or "" in numbers:
        raise click.BadParameter(
            f"wanted a number, or numbers by name like building=0.6,road=0.4, got {value!r}"
        )
    return numbers


weights = click.option(
    "--weights", default=DEFAULT_WEIGHTS, show_default=True, metavar="NAME|FILE",
    help="Bundled weights by name (geocd models list), or a weights file.",
)  # fmt: skip
kind = click.option(
    "--kind", default="building", show_default=True, metavar="CLASS",
    help="Class of the weights that the labels show, such as building, road or defect; plain "
    "change shows every kind.",
)  # fmt: skip
pixel_size = click.option(
    "--pixel-size", type=float, metavar="METRES",
    help="What a pixel of images without a CRS covers. [unknown: read as they are]",
)  # fmt: skip
threshold = click.option(
    "--threshold", callback=parse_per_class, metavar="0..1|CLASS=0..1,..",
    help="Least score of a change, for every class or by class. [from the weights card]",
)  # fmt: skip
tile_size = click.option(
    "--tile-size", type=int, default=TilingConfig().tile_size, show_default=True,
    help="Side of a window, in pixels; a multiple of 16.",
)  # fmt: skip
overlap = click.option(
    "--overlap", type=int, default=TilingConfig().overlap, show_default=True,
    help="Pixels that windows share with their neighbours.",
)  # fmt: skip
operating_point = click.option(
    "--operating-point", type=click.Path(path_type=Path), metavar="FILE",
    help="Threshold of geocd calibrate; refused if it was proven for other weights or settings.",
)  # fmt: skip
gsd = click.option(
    "--gsd", type=float, metavar="METRES",
    help="Ground sample distance to read at. [what the weights are good for]",
)  # fmt: skip
align = click.option(
    "--align", type=click.Choice(get_args(AlignMode)), default=AlignConfig().mode,
    show_default=True,
    help="auto: measure the misregistration, and correct it if that helps. "
    "shift, affine, local: with no more freedom than that. require: fail (exit code 3) where "
    "no alignment can be proven. off: trust the georeferencing.",
)  # fmt: skip
radiometry = click.option(
    "--radiometry", type=click.Choice(["none", "linear"]), default=DetectConfig().radiometry,
    show_default=True, help="linear: bring after to before's light, band by band, by a line "
    "fitted to ground that did not change.",
)  # fmt: skip
unaligned = click.option(
    "--unaligned", type=click.Choice(["mask", "keep"]), default=DetectConfig().unaligned,
    show_default=True, help="mask: ground where tie points contradict the alignment counts as "
    "not observed.",
)  # fmt: skip
shift_check = click.option(
    "--shift-check/--no-shift-check", default=DetectConfig().shift_check, show_default=True,
    help="Tell of changes if they survive moving one date by one pixel, or may come from the "
    "registration alone.",
)  # fmt: skip
shift_budget = click.option(
    "--shift-budget", type=float, default=DetectConfig().shift_budget, show_default=True,
    metavar="SHARE", help="Most network work for the shift check, as a share of that of the "
    "scoring. Changes that it does not reach are left unchecked; 4 checks every change.",
)  # fmt: skip
footprints = click.option(
    "--footprints", type=click.Path(path_type=Path), metavar="POLYGONS",
    help="Vector file of known buildings; each changed building is then new, removed, altered or "
    "confirmed.",
)  # fmt: skip
stac = click.option(
    "--stac", type=click.Path(path_type=Path), metavar="ITEM.JSON",
    help="Also write a STAC item that describes the outputs.",
)  # fmt: skip
alignment = click.option(
    "--alignment", type=click.Path(path_type=Path), metavar="ALIGN.JSON",
    help="What geocd align --report wrote for this pair, or for one that it is a part of: it is "
    "applied, and nothing is measured.",
)  # fmt: skip
qgis_project = click.option(
    "--qgis-project", type=click.Path(path_type=Path), metavar="PROJECT.QGZ",
    help="Also write a QGIS project: both images, the rasters, the polygons, and bookmarks of the "
    "largest changes.",
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


def dates(command: C) -> C:
    """Options for the dates of the images."""
    for role in ("after", "before"):
        command = click.option(
            f"--{role}-date", metavar="DATE", callback=_parse_date,
            help=f"Date of the image {role}, as 2019-06-14 or 2019. [from its tags]",
        )(command)  # fmt: skip
    return command


def _parse_date(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?",
                                              value):  # fmt: skip
        raise click.BadParameter(f"wanted a date like 2019-06-14, 2019-06 or 2019, got {value!r}")
    return value


_DRAWING = (
    click.option(
        "--min-area", callback=parse_per_class, metavar="M2|KIND=M2,..",
        default=str(VectorizeConfig().min_area), show_default=True,
        help="Smallest polygon kept, for both kinds or by kind, in square metres (pixels without "
        "a CRS).",
    ),
    click.option(
        "--grow", callback=parse_per_class, metavar="0..1|CLASS=0..1,..",
        help="Score down to which objects grow around what reaches the threshold. [not at all]",
    ),
    click.option(
        "--opening", type=float, default=VectorizeConfig().opening, show_default=True,
        metavar="METRES", help="Radius of the disc that must fit into an object; thinner goes.",
    ),
    click.option(
        "--fill-holes", type=float, default=VectorizeConfig().fill_holes, show_default=True,
        metavar="M2", help="Close holes up to this size in which no other object lies.",
    ),
    click.option(
        "--simplify", type=float, default=VectorizeConfig().simplify, show_default=True,
        metavar="PIXELS", help="Tolerance of outlines; 0 keeps the outlines of the pixels.",
    ),
    click.option(
        "--regularize/--no-regularize", default=VectorizeConfig().regularize, show_default=True,
        help="Draw buildings with right angles where their pixels agree.",
    ),
    click.option(
        "--split/--no-split", default=VectorizeConfig().split, show_default=True,
        help="Take buildings apart where the scores dip between them.",
    ),
)  # fmt: skip


def drawing(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say how polygons are drawn, given to the command as one ``drawing``."""

    @functools.wraps(command)
    def _wrapped(
        *, min_area: PerClass, grow: PerClass | None, opening: float, fill_holes: float,
        simplify: float, regularize: bool, split: bool, **others: Any,
    ) -> None:  # fmt: skip
        config = VectorizeConfig(
            min_area=min_area, grow=grow, opening=opening, fill_holes=fill_holes,
            simplify=simplify, regularize=regularize, split=split,
        )  # fmt: skip
        command(drawing=config, **others)

    for option in reversed(_DRAWING):
        _wrapped = option(_wrapped)
    return _wrapped
