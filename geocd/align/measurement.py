"""What is measured of a pair before it is scored, as a file that parts of the pair are read by.

Parts that measure for themselves find slightly different motions and stretches, and their results
do not meet at their borders. Measured once, on the whole pair, one file serves them all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from geocd.align.alignment import Alignment, Method, Model, Residuals, Status, TiePoints
from geocd.align.field import Motion
from geocd.align.radiometry import Radiometry
from geocd.errors import InputError
from geocd.outputs import replacing
from geocd.rasters.grid import Grid
from geocd.rasters.pair import RasterPair, Stretches

_HINT = "give what geocd align --report wrote for this pair"
_ON_A_PIXEL = 1e-4
"""Pixels that two grids of one lattice may differ by: rounding of their transforms."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is known of a pair before it is scored.

    Attributes:
        grid: the reading grid, in whose pixels ``alignment`` speaks.
        alignment: the verdict, with its tie points.
        radiometry: how after's values answer to before's; None: not measured.
        stretches: values of each date that become 0 and 255; None: not measured.
    """

    grid: Grid
    alignment: Alignment
    radiometry: Radiometry | None = None
    stretches: Stretches | None = None

    def place_of(self, grid: Grid) -> Affine:
        """From (col, row) of a grid to those of ``self.grid``, without what is rounding.

        Raises:
            InputError: the grid has another CRS, or is turned against this one.
        """
        if grid.crs != self.grid.crs:
            raise InputError(
                f"the alignment was measured in {self.grid.describe()}, the pair is read in "
                f"{grid.describe()}; {_HINT}"
            )
        place: Affine = ~self.grid.transform @ grid.transform
        if max(abs(place.b), abs(place.d)) > 1e-9 or min(place.a, place.e) <= 0:
            raise InputError(f"the alignment was measured on pixels that lie otherwise; {_HINT}")
        far = max(self.grid.height, self.grid.width, grid.height, grid.width)
        if max(abs(place.a - 1), abs(place.e - 1)) * far < _ON_A_PIXEL:
            place = Affine.translation(*(_snapped(v) for v in (place.c, place.f)))
        return place

    def alignment_on(self, grid: Grid) -> Alignment:
        """The alignment in pixels of another grid over the same ground."""
        place = self.place_of(grid)
        return self.alignment if place == Affine.identity() else self.alignment.seen_from(place)

    def applied_to(self, pair: RasterPair) -> RasterPair:
        """The pair as it is to be scored: moved, stretched, in before's light.

        Raises:
            InputError: the pair shows other ground.
        """
        shown = self.grid.footprint
        if not shown.intersects(pair.grid.footprint):
            raise InputError(f"the alignment was measured on other ground; {_HINT}")
        moved = pair.with_motion(self.alignment_on(pair.grid).motion)
        if self.stretches is not None:
            moved = replace(moved, stretches=self.stretches)
        tables = None if self.radiometry is None else self.radiometry.tables()
        return moved if tables is None else replace(moved, tables=tables)

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready; numbers come back as they were."""
        return {
            "reading_grid": grid_record(self.grid),
            "alignment": alignment_record(self.alignment),
            "radiometry": None if self.radiometry is None else self.radiometry.to_dict(),
            "stretches": self.stretches,
        }

    def write(self, path: Path, *, made_by: Mapping[str, Any]) -> None:
        """Write a file that `read_measurement` reads. Atomic.

        Args:
            path: .json.
            made_by: what else the file is to tell.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(path) as draft:
            draft.write_text(json.dumps(dict(made_by) | self.to_dict(), sort_keys=True))


def _snapped(value: float) -> float:
    return round(value) if abs(value - round(value)) < _ON_A_PIXEL else value


def read_measurement(path: Path) -> Measurement:
    """A measurement from its file, or from the report of `geocd align` on one image.

    Raises:
        InputError: it is missing, is no such file, or tells of several images or of none.
    """
    try:
        record = json.loads(path.read_text())
        if isinstance(record, dict) and "files" in record:
            record = _only_file(path, record["files"])
        return _measurement(record)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read the alignment {path}: {error.strerror}; {_HINT}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} is no alignment of geocd; {_HINT}") from None


def _only_file(path: Path, files: Any) -> Any:
    measured = [file for file in files if file["alignment"] is not None]
    if len(measured) != 1:
        raise InputError(
            f"{path} tells of {len(measured)} images that were measured; geocd align writes a "
            "report of one if it is given one"
        )
    return measured[0]


def _measurement(record: dict[str, Any]) -> Measurement:
    grid, light, stretches = (
        record.get(name) for name in ("reading_grid", "radiometry", "stretches")
    )
    alignment = _alignment(record["alignment"])
    if grid is None:
        raise KeyError("reading_grid")
    crs = None if grid["crs"] is None else CRS.from_user_input(grid["crs"])
    where = Affine(*map(_finite, grid["transform"]))
    return Measurement(
        Grid(crs, where, int(grid["height"]), int(grid["width"])), alignment,
        None if light is None else _radiometry(light),
        None if stretches is None else _stretches(stretches),
    )  # fmt: skip


def _stretches(record: Any) -> Stretches:
    (low, high), (later_low, later_high) = record
    return (_finite(low), _finite(high)), (_finite(later_low), _finite(later_high))


def _radiometry(record: dict[str, Any]) -> Radiometry:
    gain, offset = (tuple(map(_finite, record[name])) for name in ("gain", "offset"))
    if record["status"] not in ("applied", "refused", "off") or len(gain) != len(offset):
        raise ValueError(record["status"])
    return Radiometry(record["status"], gain, offset, record["unchanged"], record["sample"],
                      record["reason"])  # fmt: skip


def grid_record(grid: Grid) -> dict[str, Any]:
    """A grid, JSON-ready."""
    return {
        "crs": None if grid.crs is None else grid.crs.to_string(),
        "transform": [float(v) for v in grid.transform[:6]],
        "height": grid.height,
        "width": grid.width,
        "gsd_m": grid.gsd(),
    }


def alignment_record(alignment: Alignment) -> dict[str, Any]:
    """``Alignment.to_dict`` with the tie points and their reach."""
    ties = {
        name: [_or_none(value) for value in column.tolist()]
        for name, column in alignment.ties.columns().items()
    }
    return alignment.to_dict() | {"reach": alignment.reach, "ties": ties}


def _or_none(value: Any) -> Any:
    """JSON has no word for what is not a number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _alignment(record: dict[str, Any]) -> Alignment:
    motion = motion_of(record["motion"])
    for name, known in (("status", Status), ("method", Method), ("model", Model)):
        if record[name] not in get_args(known):
            raise ValueError(record[name])
    if motion is None:
        raise ValueError("motion")
    before, after = (
        None if record[name] is None else Residuals(*(
            _finite(record[name][part]) for part in ("median", "rmse", "p90")))
        for name in ("residual_before_px", "residual_after_px")
    )  # fmt: skip
    return Alignment(
        status=record["status"], method=record["method"], model=record["model"], motion=motion,
        before=before, after=after,
        shift_px=None if record["shift_px"] is None else _finite(record["shift_px"]),
        tie_points=int(record["tie_points"]), held_out=int(record["held_out"]),
        reason=str(record["reason"]), ties=_ties(record["ties"]), reach=_finite(record["reach"]),
    )  # fmt: skip


def _ties(record: dict[str, Any]) -> TiePoints:
    columns = {
        name: np.array(record[name], dtype=np.float64)
        for name in ("col", "row", "dx", "dy", "residual_before", "residual_after", "score")
    }
    role = np.array(record["role"], dtype="<U8")
    if len({len(column) for column in (*columns.values(), role)}) > 1:
        raise ValueError("ties")
    return TiePoints(
        position=np.column_stack([columns["col"], columns["row"]]),
        displacement=np.column_stack([columns["dx"], columns["dy"]]),
        residual_before=columns["residual_before"], residual_after=columns["residual_after"],
        role=role, score=columns["score"],
    )  # fmt: skip


def motion_of(record: Any) -> Motion | None:
    """A motion as ``Motion.to_dict`` wrote it; None if it is none."""
    affine = affine_of(record.get("affine")) if isinstance(record, dict) else None
    if affine is None:
        return None
    try:
        field = record.get("field")
        if field is None:
            return Motion(affine)
        knots = affine_of(field["knots"])
        displacement = np.asarray(field["displacement"], np.float32)
        return None if knots is None else Motion(affine, displacement, knots)
    except (KeyError, TypeError, ValueError):
        return None


def affine_of(numbers: Any) -> Affine | None:
    """An affine map from its six numbers; None if they are none, or it is degenerate."""
    if not isinstance(numbers, list) or len(numbers) != 6:
        return None
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return None
    transform = Affine(*numbers)
    return None if transform.determinant == 0 else transform


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)
