"""``geocd archive``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, get_args

import click

from geocd.archive.rules import Duplicates, Mosaic, PlanRules, SceneBy
from geocd.config import (
    AlignConfig,
    AlignMode,
    DetectConfig,
    PerClass,
    PredictConfig,
    RadiometryMode,
    UnalignedMode,
    VectorizeConfig,
)
from geocd_cli import options
from geocd_cli.reporting import StageProgress, translate_errors
from geocd_cli.running import running
from geocd_cli.sections import SectionedCommand

_LINE_EVERY_S = 2.0


@click.group()
def archive() -> None:
    """Find changes over a whole archive of surveys.

    \b
    geocd archive index surveys/ -o archive.parquet
    geocd archive plan archive.parquet -o plan.parquet
    geocd archive run plan.parquet -o out/
    geocd archive merge out/ -o changes.gpkg
    """


@archive.command("index")
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="The index, .parquet; one that is there is brought up to date.",
)  # fmt: skip
@click.option(
    "--date-pattern", metavar="REGEX",
    help="Where the date stands in a path, with YYYY, MM and DD, such as ortho_YYYYMMDD; goes "
    "before STAC and tags.",
)  # fmt: skip
@click.option(
    "--stac", type=click.Path(path_type=Path), metavar="ITEMS.JSON",
    help="Also write the files that have a date as a STAC item collection.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="That read files. [4 for each processor]")
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@translate_errors
def index(
    sources: tuple[str, ...], output: Path, date_pattern: str | None, stac: Path | None,
    threads: int | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Describe every raster of SOURCES: folders, STAC files and URLs, single rasters.

    Files that the index knows and that have not changed are not read again. Damaged files, and
    change maps and scores of geocd, are listed with their reason.

    \b
    geocd archive index surveys/ -o archive.parquet --date-pattern 'survey_YYYY'
    """
    from geocd.archive.index import index_archive

    result = index_archive(
        sources, output, date_pattern=date_pattern, stac=stac, threads=threads,
        progress=StageProgress(quiet=quiet),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif not quiet:
        click.echo(result.report())


@archive.command("plan")
@click.argument("index", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The plan, .parquet."
)
@click.option(
    "--pairs", default=PlanRules().pairs, show_default=True, metavar="RULE",
    help="consecutive, first-last, all, or baseline=2015: what is compared with every later date.",
)  # fmt: skip
@click.option(
    "--min-overlap", type=float, default=PlanRules().min_overlap, show_default=True,
    metavar="0..1", help="Least share of a unit's ground that a pair has in common.",
)  # fmt: skip
@click.option("--season", metavar="MM-DD..MM-DD", help="Leave out dates of other seasons.")
@click.option("--max-gap", type=int, metavar="DAYS", help="Most days between dates of a pair.")
@click.option(
    "--resolution", type=(float, float), metavar="MIN MAX",
    help="Leave out files of other ground sample distances, in metres.",
)  # fmt: skip
@click.option(
    "--scene-by", type=click.Choice(get_args(SceneBy)), default=PlanRules().scene_by,
    show_default=True, help="Files of one day, month or year are one date.",
)  # fmt: skip
@click.option(
    "--unit-size", type=int, default=PlanRules().unit_size, show_default=True,
    metavar="PIXELS", help="Side of a work unit.",
)  # fmt: skip
@click.option(
    "--halo", type=int, default=PlanRules().halo, show_default=True, metavar="PIXELS",
    help="How far a unit looks beyond its borders.",
)  # fmt: skip
@click.option(
    "--seconds-per-megapixel", type=float, default=PlanRules().seconds_per_megapixel,
    show_default=True, help="What the estimated time rests on.",
)  # fmt: skip
@options.weights
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the plan, .png.")
@options.overwrite
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@translate_errors
def plan(
    index: Path, output: Path, picture: Path | None, resolution: tuple[float, float] | None,
    overwrite: bool, quiet: bool, as_json: bool, **rules: Any,
) -> None:  # fmt: skip
    """Pair the dates of INDEX where they show the same ground, and cut the pairs into units.

    \b
    geocd archive plan archive.parquet -o plan.parquet --pairs consecutive --picture plan.png
    """
    from geocd.archive.plan import plan_archive

    result = plan_archive(
        index, output, rules=PlanRules(gsd=resolution, **rules), picture=picture,
        overwrite=overwrite, progress=StageProgress(quiet=quiet),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif not quiet:
        click.echo(result.report())


class _UnitProgress:
    """Units done and failed, how fast, and what is left; on stderr, once in a while."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._begun, self._said = quiet, time.monotonic(), 0.0

    def __call__(self, done: int, failed: int, total: int) -> None:
        """Show how far the run is."""
        now = time.monotonic()
        ended = done + failed
        if self._quiet or (now - self._said < _LINE_EVERY_S and ended < total):
            return
        self._said = now
        rate = ended / max(now - self._begun, 1e-9)
        click.echo(
            f"{done}/{total} units done, {failed} failed, {60 * rate:.1f} a minute, "
            f"{_spoken((total - ended) / rate)} left", err=True,
        )  # fmt: skip


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@archive.command(
    "run",
    cls=SectionedCommand,
    sections={"Run": ("output", "workers", "scheduler", "shard", "retry_failed")},
)
@click.argument("plan", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="Folder of the run; one that is there is gone on with.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True,
    help="Processes on this machine; more than one takes Dask.",
)  # fmt: skip
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="A Dask scheduler to work with.")
@click.option(
    "--shard", default="1/1", metavar="I/N",
    help="Do every N-th unit from the I-th on, for arrays of jobs.",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try units again that failed before.")
@options.weights
@options.threshold
@options.align
@options.radiometry
@options.unaligned
@options.gsd
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@translate_errors
@options.drawing
@running
def run(
    plan: Path, output: Path, workers: int, scheduler: str | None, shard: str,
    retry_failed: bool, weights: str, threshold: PerClass | None, align: AlignMode,
    radiometry: RadiometryMode, unaligned: UnalignedMode, gsd: float | None, quiet: bool,
    as_json: bool, drawing: VectorizeConfig, predict: PredictConfig,
) -> None:  # fmt: skip
    """Do the units of PLAN that are missing or whose inputs, weights or settings differ.

    It may be killed at any time: the same command goes on. Exit code 1 if a unit failed.

    \b
    geocd archive run plan.parquet -o out/ --workers 4
    """
    config = DetectConfig(
        weights=weights, threshold=threshold, gsd=gsd, radiometry=radiometry,
        unaligned=unaligned, align=AlignConfig(mode=align), predict=predict, vectorize=drawing,
    )  # fmt: skip
    from geocd.archive.run import run_plan

    result = run_plan(
        plan, output, config=config, workers=workers, scheduler=scheduler, shard=shard,
        retry_failed=retry_failed, progress=_UnitProgress(quiet=quiet),
        announce=lambda text: click.echo(text, err=True),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif not quiet:
        click.echo(result.report())
    if result.failed:
        sys.exit(1)


@archive.command("merge")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True,
    help="Change polygons of the whole archive, .gpkg or .parquet.",
)  # fmt: skip
@click.option(
    "--duplicates", type=click.Choice(["newest", "all"]), default="newest", show_default=True,
    help="Of a change that several pairs of dates show: keep that of the newest, or all.",
)  # fmt: skip
@click.option(
    "--mosaic", type=click.Choice(["vrt", "cog"]),
    help="Also write the scores of each pair as one raster beside the output.",
)  # fmt: skip
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="PAGE.HTML",
    help="Also write a page over the whole archive: totals, a map, pairs of dates, failures.",
)  # fmt: skip
@click.option(
    "--stac", type=click.Path(path_type=Path), metavar="COLLECTION.JSON",
    help="Also write a STAC collection that describes the outputs.",
)  # fmt: skip
@options.overwrite
@options.quiet
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@translate_errors
def merge(
    folder: Path, output: Path, duplicates: Duplicates, mosaic: Mosaic | None,
    report: Path | None, stac: Path | None, overwrite: bool, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make one layer of changes of the run in FOLDER, and the history of each place.

    \b
    geocd archive merge out/ -o changes.gpkg --mosaic vrt
    """
    from geocd.archive.merge import merge_run

    result = merge_run(
        folder, output, duplicates=duplicates, mosaic=mosaic, report=report, stac=stac,
        overwrite=overwrite, progress=StageProgress(quiet=quiet),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    elif not quiet:
        click.echo(result.report())
