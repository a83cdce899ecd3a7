"""``geocd inspect``."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args

import click

from geocd.config import GoldenRule, InspectConfig, PerClass, PredictConfig, TilingConfig
from geocd.errors import ConfigError, GeocdError
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors
from geocd_cli.running import running_in_full
from geocd_cli.sections import SectionedCommand

P = ParamSpec("P")
T = TypeVar("T")

NOT_JUDGED = 3
"""Exit code of a run of which something, or everything, was not judged."""
_DEFAULTS = InspectConfig()


def _errors_judge_nothing(command: Callable[P, T]) -> Callable[P, T]:
    """An error that ends the run leaves samples unjudged: its exit code is not that of a reject."""

    @functools.wraps(command)
    def _wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except ConfigError:
            raise
        except GeocdError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(NOT_JUDGED)

    return _wrapped


@click.command(
    cls=SectionedCommand,
    sections={
        "Golden": ("goldens", "golden_rule", "zones", "mm_per_pixel", "white"),
        "Verdict": (
            "threshold", "operating_point", "min_area", "max_shift", "border", "min_sharpness",
        ),
    },
)  # fmt: skip
@click.argument("samples", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--golden", "goldens", multiple=True, required=True, metavar="PICTURE",
    help="Picture of a good part; repeatable, of one size. Results are in pixels of the first.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="Folder for verdicts.jsonl, index.html and pictures.",
)  # fmt: skip
@click.option(
    "--weights", default="pcb", show_default=True, metavar="NAME|FILE",
    help="Bundled weights by name (geocd models list), or a weights file.",
)  # fmt: skip
@options.threshold
@options.operating_point
@options.tile_size
@options.overlap
@click.option(
    "--zones", type=click.Path(path_type=Path), metavar="GEOJSON",
    help="Polygons in pixels of the golden, with limits of their own, or that exclude.",
)  # fmt: skip
@click.option(
    "--mm-per-pixel", type=float, metavar="MM", help="What a pixel covers, for sizes in mm."
)
@click.option(
    "--golden-rule", type=click.Choice(get_args(GoldenRule)), default=_DEFAULTS.golden_rule,
    show_default=True, help="nearest: held against the golden that it is most like. union: a "
    "defect must differ from every golden.",
)  # fmt: skip
@click.option(
    "--min-area", type=float, default=_DEFAULTS.min_area, show_default=True, metavar="PIXELS",
    help="Smallest defect that counts.",
)  # fmt: skip
@click.option(
    "--max-shift", type=float, default=_DEFAULTS.max_shift, show_default=True, metavar="PIXELS",
    help="Largest displacement of a sample.",
)  # fmt: skip
@click.option(
    "--border", type=float, default=_DEFAULTS.border, show_default=True, metavar="PIXELS",
    help="Strip at the golden's edge that a sample may leave unseen.",
)  # fmt: skip
@click.option(
    "--min-sharpness", type=float, default=_DEFAULTS.min_sharpness, show_default=True,
    metavar="0..1", help="Least steepness of edges, as a share of the golden's.",
)  # fmt: skip
@click.option(
    "--white", type=int, default=_DEFAULTS.white, show_default=True,
    help="Value of 16-bit files that is white; 4095 for cameras of 12 bits.",
)  # fmt: skip
@click.option(
    "--watch", is_flag=True, help="Judge what appears in the folder SAMPLES, until Ctrl-C."
)
@options.overwrite
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line a sample on stdout.")
@translate_errors
@_errors_judge_nothing
@running_in_full
def inspect(
    samples: tuple[Path, ...], goldens: tuple[str, ...], output: Path, weights: str,
    threshold: PerClass | None, operating_point: Path | None, tile_size: int, overlap: int,
    zones: Path | None,
    mm_per_pixel: float | None, golden_rule: GoldenRule, min_area: float, max_shift: float,
    border: float, min_sharpness: float, white: int, watch: bool, overwrite: bool, quiet: bool,
    as_json: bool, predict: PredictConfig,
) -> None:  # fmt: skip
    """Hold SAMPLES, pictures or folders of them, against a golden one: pass, reject, cannot judge.

    What is not aligned, blurred, unlike the golden or unreadable is never a pass. Exit codes: 0
    all pass, 1 all were judged and some rejected, 3 something could not be judged.

    \b
    geocd inspect --golden golden.png samples/ -o out/ --mm-per-pixel 0.05
    geocd inspect --golden golden.png line/ -o out/ --watch --json
    """
    if watch and len(samples) != 1:
        raise click.UsageError("--watch takes one folder")
    config = InspectConfig(
        threshold=threshold, golden_rule=golden_rule, min_area=min_area,
        mm_per_pixel=mm_per_pixel, white=white, border=border, max_shift=max_shift,
        min_sharpness=min_sharpness, predict=predict,
        tiling=TilingConfig(tile_size=tile_size, overlap=overlap),
    )  # fmt: skip
    from geocd.inspect import Inspector, Verdict, read_zones
    from geocd.inspect.promise import with_operating_point
    from geocd.inspect.run import inspect_files, watch_folder

    areas = () if zones is None else read_zones(zones, mm_per_pixel=mm_per_pixel)
    if operating_point is not None:
        config = with_operating_point(config, operating_point, weights=weights, zones=areas)
    inspector = Inspector(goldens, weights, config=config, zones=areas)

    def _tell(verdict: Verdict, entry: dict[str, Any]) -> None:
        if as_json:
            click.echo(json.dumps(entry))
            sys.stdout.flush()
        elif not quiet:
            click.echo(str(verdict))

    if watch:
        result = watch_folder(
            inspector, samples[0], output, goldens=goldens, overwrite=overwrite, told=_tell
        )
    else:
        bar = StageProgress(quiet=quiet or as_json)
        result = inspect_files(
            inspector, samples, output, goldens=goldens, overwrite=overwrite, told=_tell,
            progress=lambda done, total: bar("inspect", done, total),
        )  # fmt: skip
    if not quiet:
        click.echo(result.report(), err=as_json)
    sys.exit(result.exit_code)
