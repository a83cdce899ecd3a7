"""Options that say what runs the network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_args

import click

from geocd.config import BackendName, DeviceName, PrecisionName, PredictConfig, parse_bytes

_DEFAULTS = PredictConfig()
_FIRST_LOOK = click.option(
    "--first-look/--no-first-look", default=_DEFAULTS.first_look, show_default=True,
    help="Look at half the resolution first, and run the network only where that shows a "
    "hint of change.",
)  # fmt: skip
_OPTIONS = (
    click.option(
        "--device", type=click.Choice(get_args(DeviceName)), default=_DEFAULTS.device,
        show_default=True, help="Where the network runs; auto takes a GPU where there is one.",
    ),
    click.option(
        "--backend", type=click.Choice(get_args(BackendName)), default=_DEFAULTS.backend,
        show_default=True, help="What runs it; auto takes OpenVINO on processors.",
    ),
    click.option(
        "--precision", type=click.Choice(get_args(PrecisionName)), default=_DEFAULTS.precision,
        show_default=True, help="What it computes in; auto takes the fastest with negligible loss.",
    ),
    _FIRST_LOOK,
    click.option(
        "--memory", metavar="SIZE", help="Memory that the run may take, like 2GB. [no bound]"
    ),
)  # fmt: skip


def running(command: Callable[..., None]) -> Callable[..., None]:
    """The options, given to the command as one ``predict``."""
    return _running(command, _OPTIONS)


def running_in_full(command: Callable[..., None]) -> Callable[..., None]:
    """The same for commands that run every window in full."""
    return _running(command, tuple(o for o in _OPTIONS if o is not _FIRST_LOOK))


def _running(command: Callable[..., None], options: tuple[Any, ...]) -> Callable[..., None]:
    @functools.wraps(command)
    def _wrapped(
        *, device: DeviceName, backend: BackendName, precision: PrecisionName,
        memory: str | None, first_look: bool = False, **others: Any,
    ) -> None:  # fmt: skip
        config = PredictConfig(
            device=device, backend=backend, precision=precision, first_look=first_look,
            memory=None if memory is None else parse_bytes(memory),
        )  # fmt: skip
        command(predict=config, **others)

    for option in reversed(options):
        _wrapped = option(_wrapped)
    return _wrapped
