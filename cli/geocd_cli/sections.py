"""Help of long commands: options under headings, in place of one list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

_SHARED = {
    "Outputs": (
        "output", "mask", "scores", "report", "stac", "qgis_project", "diagram", "page",
        "picture", "overwrite",
    ),
    "Network": ("weights", "bands", "gsd", "pixel_size", "tile_size", "overlap"),
    "Alignment": ("align", "alignment", "unaligned", "radiometry"),
    "Map": ("threshold", "operating_point", "aoi"),
    "Outlines": (
        "min_area", "grow", "opening", "fill_holes", "simplify", "regularize", "split",
    ),
    "Attributes": (
        "before_date", "after_date", "footprints", "shift_check", "shift_budget",
    ),
    "Running": (
        "device", "backend", "precision", "first_look", "memory", "workers", "threads",
        "watch", "profile", "quiet", "as_json", "help",
    ),
}  # fmt: skip
"""Options by heading, by the names of their parameters."""


class SectionedCommand(click.Command):
    """A command whose help puts options under headings; what no heading names is under Options.

    Args:
        sections: options of this command by heading; these come first, and take the options
            away from the headings that commands share.
        settings: as for ``click.Command``.
    """

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Sequence[str]] | None = None, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self._sections = dict(sections or {})

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading."""
        records = {
            "help" if param is self.get_help_option(ctx) else param.name: record
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
            and (record := param.get_help_record(ctx)) is not None
        }
        for heading in self._sections | _SHARED:
            names = (*self._sections.get(heading, ()), *_SHARED.get(heading, ()))
            rows = [records.pop(name) for name in names if name in records]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
        if records:
            with formatter.section("Options"):
                formatter.write_dl(list(records.values()))
