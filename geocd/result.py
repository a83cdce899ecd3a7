"""What a run of `geocd.detect` found, and how: the summary for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas

from geocd.align import Alignment
from geocd.align.radiometry import Radiometry
from geocd.clock import Clock, profile_table
from geocd.vectorize.summary import KindSummary
from geocd.words import counted


@dataclass(frozen=True, slots=True)
class DetectResult:
    """What a run found, and how."""

    output: Path
    """The file of change polygons."""
    mask: Path | None
    """The change map, if it was asked for."""
    scores: Path | None
    """The score raster, if it was asked for."""
    changes: geopandas.GeoDataFrame
    """The change polygons."""
    kinds: dict[str, KindSummary]
    """Count and area by kind."""
    thresholds: dict[str, float]
    """Least score of each class."""
    observed: float
    """Share of before's grid that was observed on both dates, 0..1."""
    alignment: Alignment
    """What was measured, and what was done about it."""
    radiometry: Radiometry
    """How after's values were brought to before's."""
    unaligned: float
    """Share of the reading grid left out because tie points contradict the alignment, 0..1."""
    weights: dict[str, str]
    """Name, architecture and hash of the weights."""
    backend: str
    """What ran the network."""
    reading_gsd: tuple[float, float] | None
    """Ground sample distance (dy, dx) at which the pair was read, metres."""
    clock: Clock
    """Seconds of the stages, which follow each other."""
    busy: Clock
    """Seconds of the stages that overlap within "predict"."""

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds a stage."""
        return self.clock.wall

    def profile(self) -> str:
        """Where the time went, for people."""
        return profile_table(self.clock, "predict", self.busy)

    @property
    def count(self) -> int:
        """Number of change polygons."""
        return len(self.changes)

    @property
    def shift_unstable(self) -> int | None:
        """Changes that registration alone may explain; None if that was not checked."""
        stable = self.changes["shift_stable"]
        return None if stable.isna().all() else int((~stable.fillna(True)).sum())

    @property
    def shift_unchecked(self) -> int | None:
        """Changes that the shift check did not reach; None if it was switched off."""
        stable = self.changes["shift_stable"]
        return None if stable.isna().all() else int(stable.isna().sum())

    def report(self) -> str:
        """The summary, for people."""
        used = ", ".join(f"{name} {value:g}" for name, value in self.thresholds.items())
        lines = [f"{counted(self.count, 'change')} -> {self.output} (thresholds: {used})"]
        for kind, s in sorted(self.kinds.items()):
            area = f"{s.area_px:,.0f} pixels" if s.area_m2 is None else f"{s.area_m2:,.0f} m2"
            lines.append(f"  {kind}: {s.count}, {area}")
        if self.shift_unstable:
            lines.append(
                f"  {self.shift_unstable} of them do not survive a shift of one pixel: "
                "registration alone may explain them"
            )
        if self.shift_unchecked:
            lines.append(
                f"  {self.shift_unchecked} of them were not moved by a pixel to see whether they "
                "stay: the shift budget went to the likeliest"
            )
        lines.append(f"observed on both dates: {self.observed:.1%} of before's grid")
        lines.append(str(self.alignment))
        if self.unaligned:
            lines.append(f"not aligned, so not observed: {self.unaligned:.1%} of the shared ground")
        if self.radiometry.status != "off":
            lines.append(str(self.radiometry))
        gsd = self.reading_gsd
        scale = "in pixel units" if gsd is None else f"at {gsd[1]:.2f} x {gsd[0]:.2f} m"
        lines.append(f"read {scale}; {self.weights['name']} on {self.backend}")
        lines += [
            f"{name} -> {p}" for name, p in (("mask", self.mask), ("scores", self.scores)) if p
        ]
        lines.append(f"{sum(self.seconds.values()):.1f} s")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The summary, JSON-ready; without the polygons."""
        return {
            "output": str(self.output),
            "mask": None if self.mask is None else str(self.mask),
            "scores": None if self.scores is None else str(self.scores),
            "count": self.count,
            "shift_unstable": self.shift_unstable,
            "shift_unchecked": self.shift_unchecked,
            "kinds": {
                kind: {"count": s.count, "area_m2": s.area_m2, "area_px": s.area_px}
                for kind, s in self.kinds.items()
            },
            "thresholds": self.thresholds,
            "observed": round(self.observed, 6),
            "alignment": self.alignment.to_dict(),
            "unaligned": round(self.unaligned, 6),
            "radiometry": self.radiometry.to_dict(),
            "weights": self.weights,
            "backend": self.backend,
            "reading_gsd_m": self.reading_gsd,
            "seconds": {stage: round(s, 3) for stage, s in self.seconds.items()},
            "seconds_within_predict": {stage: round(s, 3) for stage, s in self.busy.wall.items()},
        }
