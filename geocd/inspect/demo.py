"""Inspection without data: paint boards, judge them, compare with what was painted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geocd.errors import OutputError
from geocd.inspect.inspector import Inspector
from geocd.inspect.run import InspectResult, inspect_files
from geocd.testing.boards import paint_inspection


@dataclass(frozen=True, slots=True)
class InspectionDemo:
    """What the demo said, against what was painted."""

    result: InspectResult
    deserved: Mapping[str, str]
    """Verdict that each sample deserves, by file name."""

    @property
    def right(self) -> int:
        """Samples with the verdict that they deserve."""
        return sum(e["verdict"] == self.deserved[e["name"]] for e in self.result.entries)

    def report(self) -> str:
        """The comparison, for people."""
        lines = [f"{'sample':<20} {'deserves':<13} {'verdict':<13} reasons"]
        for entry in self.result.entries:
            lines.append(
                f"{entry['name']:<20} {self.deserved[entry['name']]:<13} {entry['verdict']:<13} "
                f"{'; '.join(entry['reasons'])[:100]}".rstrip()
            )
        return "\n".join([*lines, "", self.result.report()])


def run_inspection_demo(
    folder: Path, *, seed: int = 7, overwrite: bool = False, inspector: Inspector | None = None
) -> InspectionDemo:
    """Paint a golden board and samples of it, good and bad, and inspect them.

    Args:
        folder: gets ``golden.png``, ``samples/`` and ``out/``; created if need be.
        seed: another seed, another board.
        overwrite: replace an earlier demo.
        inspector: in place of one with the bundled weights.

    Raises:
        GeocdError: and its kinds; see ``geocd.errors``.
    """
    try:
        deserved = paint_inspection(folder, seed=seed)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from None
    golden = folder / "golden.png"
    result = inspect_files(
        inspector or Inspector([golden]), [folder / "samples"], folder / "out",
        goldens=[golden.name], overwrite=overwrite,
    )  # fmt: skip
    return InspectionDemo(result, deserved)
