"""Co-registration of files: many images to one reference, with reports of what was measured."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.align import (
    Alignment,
    apply,
    estimate_pair,
    gray_reader,
    open_for_alignment,
    refuse_input,
)
from geocd.align.measurement import alignment_record, grid_record
from geocd.config import AlignConfig
from geocd.errors import ConfigError, GeocdError, OutputError
from geocd.maps.residuals import residual_picture
from geocd.maps.ties import TieSet, check_tie_output, write_ties
from geocd.outputs import check_writable, replacing
from geocd.provenance import describe_input, library_versions
from geocd.rasters.grid import Grid
from geocd.rasters.pair import RasterPair
from geocd.rasters.write import bounded_cache
from geocd.words import counted

Progress = Callable[[str, int, int], None]
"""Called with the file and what is done with it, the steps done and the steps in all."""
Outcome = Literal["written", "not aligned", "failed"]

_OVERVIEW = 1200
"""Longest side of the gray image below the residuals, in pixels."""
_COVER_CELL = 1 / 64
"""Side of a cell when coverage is counted, as a share of the longer side."""


@dataclass(frozen=True, slots=True)
class Coregistered:
    """What became of one image.

    Attributes:
        after: the image that was to be aligned.
        outcome: written; not aligned: measured and refused, nothing was written; failed: an
            error, told by ``error``.
        output: the file that was written.
        alignment: what was measured; None after an error.
        grid: the grid in whose pixels ``alignment`` speaks; None after an error.
        written: the grid of ``output``.
        covered: share of the ground that both show on which the alignment could be judged.
        error: what went wrong.
    """

    after: str
    outcome: Outcome
    output: Path | None = None
    alignment: Alignment | None = None
    grid: Grid | None = None
    written: Grid | None = None
    covered: float | None = None
    error: str | None = None

    def __str__(self) -> str:
        if self.outcome == "failed":
            return f"{self.after}: failed: {self.error}"
        arrow = f" -> {self.output}" if self.output is not None else ", nothing written"
        return f"{self.after}: {self.alignment}{arrow}"

    def to_dict(self, *, ties: bool = False) -> dict[str, Any]:
        """Everything, ready for JSON.

        Args:
            ties: the tie points, too, so that `read_measurement` reads the record.
        """
        told = alignment_record if ties else Alignment.to_dict
        return {
            "after": self.after,
            "outcome": self.outcome,
            "output": None if self.output is None else str(self.output),
            "error": self.error,
            "alignment": None if self.alignment is None else told(self.alignment),
            "reading_grid": None if self.grid is None else grid_record(self.grid),
            "output_grid": None if self.written is None else grid_record(self.written),
            "covered": None if self.covered is None else round(self.covered, 4),
        }


@dataclass(frozen=True, slots=True)
class CoregisterResult:
    """What became of every image, in the order in which they were given."""

    before: str
    """The reference."""
    files: tuple[Coregistered, ...]

    @property
    def counts(self) -> Counter[str]:
        """How many images had which outcome."""
        return Counter(file.outcome for file in self.files)

    def totals(self) -> str:
        """How many images had which outcome, for people."""
        told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(self.counts.items()))
        return f"{counted(len(self.files), 'image')} to {self.before}: {told}"

    def report(self) -> str:
        """The summary, for people."""
        lines = [str(file) for file in self.files]
        return "\n".join(lines if len(lines) == 1 else [*lines, self.totals()])

    def to_dict(self, config: AlignConfig) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "before": self.before,
            "files": [file.to_dict(ties=True) for file in self.files],
            "counts": dict(self.counts),
            "config": asdict(config),
            "versions": library_versions(),
        }


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where everything goes; checked before any work is done."""

    targets: tuple[Path, ...]
    report: Path | None
    ties: Path | None
    pictures: tuple[Path | None, ...]


def coregister(
    before: str | Path,
    afters: Sequence[str | Path],
    output: str | Path,
    *,
    report: str | Path | None = None,
    tie_points: str | Path | None = None,
    picture: str | Path | None = None,
    like_before: bool = False,
    config: AlignConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CoregisterResult:
    """Align images to a reference and write them on its pixels.

    An image whose alignment is refused is not written; one that fails does not stop the rest.

    Args:
        before: the reference, which stays: a file, a URL, a VRT or a folder of tiles.
        afters: the images that are moved; likewise.
        output: of one image, the GeoTIFF to write; of several, an existing folder, in which
            each keeps its name.
        report: JSON with everything that was measured.
        tie_points: GeoPackage of tie points and residual arrows, styled for QGIS.
        picture: PNG of the residuals; of several images, an existing folder.
        like_before: write before's very grid, instead of all of after at its own resolution.
        config: mode of the alignment, largest shift believed.
        overwrite: replace existing outputs.
        progress: called with the file and stage, the steps done and the steps in all.

    Raises:
        ConfigError: two outputs are one file, or an output is an input.
        OutputError: an output could not be written, seen before any work was done; or the
            report, the tie points or a picture could not be.
    """
    settings = config or AlignConfig()
    names = [str(after) for after in afters]
    outputs = _planned(str(before), names, output, report, tie_points, picture, overwrite)
    tell: Progress = progress or (lambda stage, done, total: None)
    files = []
    for name, target, image in zip(names, outputs.targets, outputs.pictures, strict=True):
        done = _one(str(before), name, target, image, like_before, settings, overwrite, tell)
        files.append(done)
    result = CoregisterResult(str(before), tuple(files))
    if outputs.ties is not None:
        _write_ties(result, outputs.ties, settings, overwrite)
    if outputs.report is not None:
        with replacing(outputs.report) as temporary:
            temporary.write_text(_json_text(result.to_dict(settings)))
    return result


def _one(
    before: str, after: str, target: Path, picture: Path | None, like_before: bool,
    config: AlignConfig, overwrite: bool, tell: Progress,
) -> Coregistered:  # fmt: skip
    """One image from beginning to end; errors become an outcome."""
    stage = Path(after).name
    try:
        pair = open_for_alignment(before, after)
        refuse_input(target, pair)
        tell(f"{stage}: estimate", 0, 1)
        alignment = estimate_pair(pair, config=config)
        tell(f"{stage}: estimate", 1, 1)
        done = Coregistered(
            after, "not aligned", alignment=alignment, grid=pair.grid,
            covered=_covered(alignment, pair.grid),
        )  # fmt: skip
        if alignment.status != "refused":
            grid = apply(
                pair, alignment, target, like_before=like_before, overwrite=overwrite,
                progress=lambda rows, total: tell(f"{stage}: write", rows, total),
            )  # fmt: skip
            done = replace(done, outcome="written", output=target, written=grid)
        if picture is not None:
            residual_picture(TieSet(stage, alignment, pair.grid), _overview(pair), picture)
    except GeocdError as error:
        return Coregistered(after, "failed", error=str(error))
    return done


def _covered(alignment: Alignment, grid: Grid) -> float | None:
    if not len(alignment.ties):
        return None
    return float(alignment.covered(grid.shape, max(grid.shape) * _COVER_CELL).mean())


def _overview(pair: RasterPair) -> NDArray[np.uint8]:
    """Before in gray, over the whole reading grid."""
    step = max(1.0, max(pair.grid.shape) / _OVERVIEW)
    rows, cols = (slice(0, side) for side in pair.grid.shape)
    with bounded_cache():
        seen = gray_reader(pair)(rows, cols, step=step, motion=Affine.identity())
    return seen.reference


def _write_ties(result: CoregisterResult, path: Path, config: AlignConfig, overwrite: bool) -> None:
    sets = [
        TieSet(Path(file.after).name, file.alignment, file.grid)
        for file in result.files
        if file.alignment is not None and file.grid is not None
    ]
    record = {
        "geocd": library_versions()["geocd"],
        "before": describe_input(result.before, (result.before,)),
        "files": [file.to_dict() for file in result.files],
        "config": asdict(config),
    }
    if sets:
        write_ties(sets, path, provenance=record, overwrite=overwrite)


def _planned(
    before: str, afters: list[str], output: str | Path, report: str | Path | None,
    ties: str | Path | None, picture: str | Path | None, overwrite: bool,
) -> _Outputs:  # fmt: skip
    """Where everything goes.

    Raises:
        ConfigError: as for ``coregister``.
        OutputError: likewise.
    """
    if not afters:
        raise ConfigError("there is no image to align; name one or more after the reference")
    targets = _targets(afters, Path(output), ".tif")
    pictures: list[Path | None] = [None] * len(afters)
    if picture is not None:
        pictures = [*_targets(afters, Path(picture), ".png")]
    plan = _Outputs(
        tuple(targets), None if report is None else Path(report),
        None if ties is None else Path(ties), tuple(pictures),
    )  # fmt: skip
    every = [p for p in (*plan.targets, plan.report, plan.ties, *plan.pictures) if p is not None]
    for path in every:
        check_writable(path, overwrite=overwrite)
    if plan.ties is not None:
        check_tie_output(plan.ties, overwrite=overwrite)
    _refuse_shared([before, *afters], every)
    return plan


def _targets(afters: list[str], output: Path, suffix: str) -> list[Path]:
    """The files to write: the output itself, or in a folder one by the name of each image."""
    if len(afters) == 1 and not output.is_dir():
        return [output]
    if not output.is_dir():
        raise OutputError(
            f"{output} is no folder; several images are written to one: create it first"
        )
    return [output / f"{Path(after).stem}{suffix}" for after in afters]


def _refuse_shared(inputs: list[str], outputs: list[Path]) -> None:
    read = {Path(name).resolve(): name for name in inputs}
    taken: set[Path] = set()
    for path in outputs:
        if path.resolve() in read:
            raise ConfigError(
                f"{path} is an input; inputs are never changed, write to another name or folder"
            )
        if path.resolve() in taken:
            raise ConfigError(
                f"two outputs would be written to {path}; images in one call need different names"
            )
        taken.add(path.resolve())


def _json_text(record: dict[str, Any]) -> str:
    """JSON for people: one line a field, but numbers of a list in one line."""
    text = json.dumps(record, indent=1)
    return (
        re.sub(
            r'\[(?:[-+.\deE,\s]|null|"[a-z-]*")*\]', lambda found: "".join(found[0].split()), text
        )
        + "\n"
    )
