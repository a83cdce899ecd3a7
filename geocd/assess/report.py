"""Writing an assessment to a folder, and telling it in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geocd import outputs
from geocd.assess.chart import precision_recall_chart
from geocd.assess.evaluation import Assessment
from geocd.assess.page import render_page
from geocd.assess.tables import (
    image_table,
    object_table,
    pixel_table,
    score_lines,
    seam_lines,
    skipped_lines,
    summary,
)
from geocd.errors import ConfigError, OutputError

_MOST_LINES = 20
"""Images that the terminal lists; evaluation.json has them all."""

EVALUATION = "evaluation.json"
"""The file of a report's folder that holds every figure."""

_FILES: dict[str, Callable[[Assessment], bytes]] = {
    EVALUATION: lambda a: json.dumps(a.to_dict(), indent=1).encode(),
    "table.md": lambda a: to_markdown(a).encode(),
    "pr.png": precision_recall_chart,
    "worst.html": lambda a: render_page(a).encode(),
}


def to_text(assessment: Assessment) -> str:
    """The tables, for a terminal."""
    return "\n\n".join([
        pixel_table(assessment).to_text(),
        object_table(assessment).to_text(),
        "\n".join([*score_lines(assessment), *seam_lines(assessment)]),
        image_table(assessment, _MOST_LINES).to_text(),
        "\n".join([summary(assessment), *skipped_lines(assessment)]),
    ])  # fmt: skip


def to_markdown(assessment: Assessment) -> str:
    """The tables, for a document."""
    return "\n\n".join([
        f"{summary(assessment)}.",
        *(f"- {line}" for line in skipped_lines(assessment)),
        pixel_table(assessment).to_markdown(),
        object_table(assessment).to_markdown(),
        "\n".join(f"- {line}" for line in [*score_lines(assessment), *seam_lines(assessment)]),
        image_table(assessment).to_markdown(),
    ]) + "\n"  # fmt: skip


def check_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Create the folder, and refuse it before the work if it cannot hold the report.

    Raises:
        OutputError: it cannot be created or written to.
        OutputExistsError: a file of a report is there already and ``overwrite`` is False.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {folder}: {error.strerror}") from None
    for name in _FILES:
        outputs.check_writable(folder / name, overwrite=overwrite)


def write_report(assessment: Assessment, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write evaluation.json, table.md, pr.png and worst.html.

    Args:
        assessment: what ``assess`` gave.
        folder: created if need be.
        overwrite: replace the files of an earlier report.

    Raises:
        OutputError: and its kinds; see ``check_folder``. No file is left half-written.
    """
    folder = Path(folder)
    check_folder(folder, overwrite=overwrite)
    for name, render in _FILES.items():
        content = render(assessment)
        with outputs.replacing(folder / name) as draft:
            draft.write_bytes(content)


def card_figures(path: Path) -> dict[str, Any]:
    """What a weights card keeps of the JSON that ``geocd evaluate`` printed.

    Raises:
        ConfigError: the file is missing, or holds something else.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text())
        weights, *baselines = report.pop("methods")
        kept = ("total", "intervals_95", "median_f1")
        return report | {
            "figures": {name: weights[name] for name in kept},
            "f1_of_baselines": {b["method"]: b["total"]["f1"] for b in baselines},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} does not hold the output of geocd evaluate --json ({error})"
        ) from None
