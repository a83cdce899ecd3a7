"""From a change map to a sample, and from its labels to accuracy and area, told in words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geocd
from geocd.assess.area import Estimate
from geocd.assess.labelling import read_labels, write_labelling_page
from geocd.assess.samplefile import (
    SampleAssessment,
    assess_sample,
    check_sample_output,
    units_of,
    write_sample,
)
from geocd.assess.sampling import PixelSample, draw_sample
from geocd.assess.tables import Table, figure
from geocd.config import SampleConfig
from geocd.errors import ConfigError
from geocd.outputs import check_page, check_writable, replacing
from geocd.provenance import describe_input
from geocd.rasters.write import read_provenance

_HECTARE = 10_000.0
_FEW = 5
"""Units of a class below which its figures are hardly worth telling."""


@dataclasses.dataclass(frozen=True, slots=True)
class DrawnSample:
    """What was drawn, for people and programs."""

    sample: PixelSample
    page: Path | None = None
    """The page to label on, if one was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        sample = self.sample
        return {
            "units": len(sample.row),
            "area_unit": sample.unit,
            "strata": {
                s.name: {
                    "map_class": s.map_class,
                    "pixels": s.pixels,
                    "area": s.pixels * sample.pixel_area,
                    "drawn": s.drawn,
                }
                for s in sample.strata
            },
        }

    def report(self, output: Path) -> str:
        """The strata as a table, and what to do next."""
        sample = self.sample
        total = sum(s.pixels for s in sample.strata)
        rows = [
            [s.name, s.map_class, _area(s.pixels * sample.pixel_area, sample.unit),
             f"{s.pixels / total:.2%}", str(s.drawn)]
            for s in sample.strata
        ]  # fmt: skip
        heads = ["stratum", "map says", _unit(sample.unit), "share", "units"]
        drawn = f"{Table('Strata', heads, rows).to_text()}\n\n{len(sample.row)} units -> {output}\n"
        in_qgis = (
            "Open it in QGIS over both images, fill in the column reference of every unit, and "
            f"run: geocd assess {output}"
        )
        if self.page is None:
            return drawn + in_qgis
        return (
            f"{drawn}page to label on -> {self.page}\nLabel every unit on it, export, and run: "
            f"geocd assess {output} --labels {output.stem}-labels.csv"
        )


def make_sample(
    change_map: str | Path,
    output: str | Path,
    *,
    config: SampleConfig | None = None,
    page: Path | None = None,
    images: tuple[str, str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DrawnSample:
    """Draw a sample of a change map and write it for labelling; see ``draw_sample``.

    Args:
        change_map: as ``geocd detect --mask`` writes it.
        output: GeoPackage to write; see ``write_sample``.
        config: how many, and where.
        page: page to label on, .html; see ``write_labelling_page``.
        images: before and after, for the page; None: those that the map was made of.
        overwrite: replace existing files, labels included.
        progress: called with rows done and rows in all.

    Raises:
        GeocdError: see ``draw_sample`` and ``write_sample``. Nothing is left half-written.
    """
    config, output = config or SampleConfig(), Path(output)
    check_sample_output(output, overwrite=overwrite)
    if page is not None:
        check_page(page, overwrite=overwrite)
    sample = draw_sample(change_map, config=config, progress=progress)
    run = read_provenance(Path(change_map))
    record = {
        "geocd": geocd.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "map": describe_input(str(change_map), (str(change_map),)),
        "map_made_by": run,
        "config": dataclasses.asdict(config),
    }
    if page is not None:
        before, after = images or _images_of(run)
        write_labelling_page(
            sample, units_of(sample), page, file=output, before=before, after=after, record=run,
            overwrite=overwrite,
        )  # fmt: skip
    write_sample(sample, output, record=record, overwrite=overwrite)
    return DrawnSample(sample, page)


def _images_of(run: dict[str, Any]) -> tuple[str, str]:
    """Both images that a change map was made of."""
    inputs = run.get("inputs", {})
    names = [inputs.get(role, {}).get("name") for role in ("before", "after")]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "the map does not say of which images it was made; give both (--images BEFORE AFTER)"
        )
    return names[0], names[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What a labelled sample says, for people and programs."""

    assessment: SampleAssessment

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.assessment.to_dict()

    def report(self) -> str:
        """Tables, and what to keep in mind."""
        parts = [self._matrix().to_text(), self._accuracy().to_text(), self._areas().to_text()]
        return "\n\n".join(["\n\n".join(parts), *self._remarks()])

    def _matrix(self) -> Table:
        accuracy = self.assessment.accuracy
        rows = [
            [name, *(f"{share:.4f}" for share in shares), f"{shares.sum():.4f}", str(units.sum())]
            for name, shares, units in zip(
                accuracy.classes, accuracy.matrix, accuracy.counts, strict=True
            )
        ]
        columns, units = accuracy.matrix.sum(axis=0), accuracy.counts.sum()
        rows.append(["all", *(f"{share:.4f}" for share in columns), "1.0000", str(units)])
        return Table(
            "Error matrix in shares of the ground; rows: the map, columns: the reference",
            ["", *accuracy.classes, "all", "units"], rows,
        )  # fmt: skip

    def _accuracy(self) -> Table:
        accuracy = self.assessment.accuracy
        rows = [
            [name, *_three(accuracy.user[k]), *_three(accuracy.producer[k])]
            for k, name in enumerate(accuracy.classes)
        ]
        rows.append(["overall", *_three(accuracy.overall), "", "", ""])
        heads = ["", "user's", "SE", "95 %", "producer's", "SE", "95 %"]
        return Table(
            "Accuracy: user's (of what the map says, how much is so) and producer's (of what is "
            "so, how much the map says)", heads, rows,
        )  # fmt: skip

    def _areas(self) -> Table:
        result, unit = self.assessment, self.assessment.sample.unit
        whole = result.sample.area
        rows = []
        for name, share in zip(result.accuracy.classes, result.accuracy.share, strict=True):
            low, high = (bound * whole for bound in share.interval)
            rows.append([
                name, _area(result.mapped_area(name), unit), _area(share.value * whole, unit),
                _area(share.standard_error * whole, unit),
                f"{_area(low, unit)} to {_area(high, unit)}",
            ])  # fmt: skip
        heads = ["", "mapped", "estimated", "SE", "95 %"]
        return Table(f"Area, {_unit(unit)}: counted in the map, and error-adjusted", heads, rows)

    def _remarks(self) -> list[str]:
        sample, accuracy = self.assessment.sample, self.assessment.accuracy
        remarks = []
        if sample.unclear:
            remarks.append(
                f"{sample.unclear} units could not be judged and are left out; the figures hold "
                "if the others speak for them"
            )
        seen = accuracy.counts.sum(axis=0)
        few = [f"{name} ({n})" for name, n in zip(accuracy.classes, seen.tolist(), strict=True)
               if n < _FEW]  # fmt: skip
        if few:
            remarks.append(
                f"few units are truly {', '.join(few)}: their intervals are rough; label more"
            )
        return remarks


def judge_sample(
    path: str | Path, *, labels: Sequence[Path] = (), output: Path | None = None,
    overwrite: bool = False,
) -> Judgement:  # fmt: skip
    """Accuracy and area from a labelled sample, written as JSON where that is wanted.

    Raises:
        InputError: see ``assess_sample`` and ``read_labels``.
        OutputError: the JSON cannot be written.
    """
    if output is not None:
        check_writable(output, overwrite=overwrite)
    judgement = Judgement(assess_sample(path, labels=[read_labels(file) for file in labels]))
    if output is not None:
        with replacing(output) as draft:
            draft.write_text(json.dumps(judgement.to_dict(), indent=1))
    return judgement


def _three(estimate: Estimate) -> list[str]:
    low, high = estimate.interval
    return [figure(estimate.value), figure(estimate.standard_error),
            f"{figure(low)} to {figure(high)}"]  # fmt: skip


def _unit(unit: str) -> str:
    return "ha" if unit == "m2" else "pixels"


def _area(value: float, unit: str) -> str:
    """Hectares with the digits that say something, or pixels."""
    if unit == "px":
        return f"{value:,.0f}"
    hectares = value / _HECTARE
    return f"{hectares:,.{0 if hectares >= 1000 else 2 if hectares >= 1 else 4}f}"
