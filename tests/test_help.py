"""Help of long commands: every option once, under a heading that says what it is about."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from geocd_cli.main import main
from geocd_cli.sections import SectionedCommand

LONG = (
    "detect", "vectorize", "calibrate", "evaluate", "compare", "archive run", "tile", "inspect",
)  # fmt: skip


def _command(name: str) -> click.Command:
    command: click.Command = main
    for part in name.split():
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), part)
        assert found is not None
        command = found
    return command


def _headings(name: str) -> list[str]:
    text = CliRunner().invoke(main, [*name.split(), "-h"]).stdout
    return re.findall(r"^([A-Z]\w+):$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", LONG)
def test_every_option_of_a_long_command_stands_once_under_a_heading(name):
    headings = _headings(name)
    assert "Options" not in headings
    assert headings == list(dict.fromkeys(headings))
    text = CliRunner().invoke(main, [*name.split(), "-h"]).stdout
    for param in _command(name).params:
        if isinstance(param, click.Option):
            shown = rf"^  (-\w, )?{max(param.opts, key=len)}(?![-\w])"
            assert len(re.findall(shown, text, flags=re.MULTILINE)) == 1, param.name


def test_options_of_detect_are_in_the_order_of_the_work():
    assert _headings("detect") == [
        "Outputs", "Network", "Alignment", "Map", "Outlines", "Attributes", "Running",
    ]  # fmt: skip


def test_an_option_that_no_heading_names_is_still_shown():
    @click.command(cls=SectionedCommand, sections={"Mine": ("first",)})
    @click.argument("thing")
    @click.option("--other")
    @click.option("--first")
    def command(thing: str, other: str, first: str) -> None: ...

    text = CliRunner().invoke(command, ["--help"]).stdout
    assert re.search(r"Mine:\n  --first TEXT.*Running:\n  --help .*Options:\n  --other", text, re.S)
