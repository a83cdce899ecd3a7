"""What commands share: errors as one line, progress on stderr."""

from __future__ import annotations

import functools
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import ParamSpec, TextIO, TypeVar

import click

from geocd.errors import ConfigError, GeocdError, GeocdWarning, NotAlignedError

P = ParamSpec("P")
T = TypeVar("T")

NOT_ALIGNED = 3
"""Exit code of a run that wanted an alignment and could not show that one helps."""
_BAR = 30
_LINE_EVERY_S = 10.0
_EVERY = "GEOCD_PROGRESS_EVERY"
"""Environment variable: seconds between lines of progress, for programs that read them."""


def translate_errors(command: Callable[P, T]) -> Callable[P, T]:
    """One line on stderr and exit code 1 for our own errors, 3 for 'not aligned'; 130 after Ctrl-C.

    Warnings of geocd become lines on stderr too. Anything else keeps its traceback: it is a bug.
    """

    @functools.wraps(command)
    def _wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("always", GeocdWarning)
                warnings.showwarning = _show_warning
                return command(*args, **kwargs)
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
        except GeocdError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(NOT_ALIGNED if isinstance(error, NotAlignedError) else 1)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(130)

    return _wrapped


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    click.echo(f"Warning: {message}", err=True)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return _LINE_EVERY_S


class StageProgress:
    """A bar on a terminal, plain lines elsewhere, nothing when quiet; always on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._interval = 0.1 if self._terminal else _seconds(os.environ.get(_EVERY, ""))
        self._stage = ""
        self._begun = self._said = 0.0
        self._finished = False

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that a stage has done so many of its steps."""
        if self.quiet:
            return
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._begun, self._said, self._finished = stage, now, now, False
        finished = done >= total
        if self._finished or (not finished and now - self._said < self._interval):
            return
        self._said, self._finished = now, finished
        if self._terminal:
            self._draw(done, total, now - self._begun, finished)
        else:
            click.echo(f"{stage}: {done}/{total} ({now - self._begun:.0f} s)", err=True)

    def _draw(self, done: int, total: int, elapsed: float, finished: bool) -> None:
        filled = round(_BAR * done / max(total, 1))
        bar = "#" * filled + "-" * (_BAR - filled)
        left = "" if finished or not done else f", {elapsed / done * (total - done):.0f} s left"
        text = f"\r{self._stage:>15} [{bar}] {done}/{total} {elapsed:.0f} s{left}"
        click.echo(f"{text}\033[K", err=True, nl=finished)
