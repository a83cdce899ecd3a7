"""The ``geocd`` command. Commands are imported when they run, so that help is instant."""

from __future__ import annotations

import importlib
import signal
import sys
from types import FrameType

import click

import geocd

_COMMANDS = {
    "align": ("geocd_cli.align", "Move images to where they lie on a reference, and prove it."),
    "archive": ("geocd_cli.archive", "Find changes over an archive: index, plan, run, merge."),
    "assess": ("geocd_cli.assess", "Accuracy and area of change, from a labelled sample."),
    "calibrate": ("geocd_cli.calibrate", "Find the threshold that keeps a promise about misses."),
    "compare": ("geocd_cli.compare", "Tell whether a run is better than another, or chance."),
    "data": ("geocd_cli.data", "Look through labelled pairs or tiles: classes, damage, leaks."),
    "demo": ("geocd_cli.demo", "Paint a survey pair, find what changed, compare with the truth."),
    "detect": ("geocd_cli.detect", "Find what changed between two images of the same place."),
    "evaluate": ("geocd_cli.evaluate", "Measure weights on labelled pairs, beside baselines."),
    "info": ("geocd_cli.info", "Show versions, devices and GDAL."),
    "inspect": ("geocd_cli.inspect", "Hold samples of a part against a golden one: pass, reject."),
    "models": ("geocd_cli.models", "List, show and import weights."),
    "report": ("geocd_cli.report", "Make a page of changes that anyone can open and review."),
    "review": ("geocd_cli.review", "Take back what was marked in a report."),
    "sample": ("geocd_cli.sample", "Draw pixels of a change map, for people to label."),
    "tile": ("geocd_cli.tile", "Cut pairs, or a whole plan, into training chips."),
    "train": ("geocd_cli.train", "Train weights by a recipe, on real or synthesised pairs."),
    "vectorize": ("geocd_cli.vectorize", "Make change polygons from scores, at any threshold."),
}


class _LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The default asks every command for its help, which would import them all.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])


def _terminate(number: int, frame: FrameType | None) -> None:
    # Unwinds the stack, so that temporary files go; 128 + 15 is what shells report.
    sys.exit(128 + number)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(geocd.__version__, prog_name="geocd")
def main() -> None:
    """Find what changed between two images of the same place.

    geocd detect before.tif after.tif -o changes.gpkg
    """
    signal.signal(signal.SIGTERM, _terminate)
