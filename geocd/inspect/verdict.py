"""What is said of one sample, and of each of its defects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geocd.inspect.register import Registration
from geocd.words import counted

Word = Literal["pass", "reject", "cannot judge"]
PASS: Word = "pass"
REJECT: Word = "reject"
CANNOT_JUDGE: Word = "cannot judge"


@dataclass(frozen=True, slots=True)
class Defect:
    """One place where a sample differs from the golden.

    Attributes:
        kind: class of the weights.
        score: the highest in it, 0..1.
        area_px: pixels of the golden.
        box: (left, top, right, bottom), in pixels of the golden; integers are edges of pixels.
        outline: (x, y) of its corners, likewise.
        zone: the zone in which most of it lies; "" outside all.
        counts: whether it is large enough to count.
    """

    kind: str
    score: float
    area_px: int
    box: tuple[int, int, int, int]
    outline: tuple[tuple[float, float], ...]
    zone: str
    counts: bool

    def to_dict(self, mm_per_pixel: float | None) -> dict[str, Any]:
        """JSON-ready; lengths in millimetres only where a pixel's size is known."""
        entry: dict[str, Any] = {
            "kind": self.kind,
            "score": round(self.score, 4),
            "counts": self.counts,
            "zone": self.zone,
            "area_px": self.area_px,
            "box_px": list(self.box),
            "outline_px": [list(point) for point in self.outline],
        }
        if mm_per_pixel is not None:
            entry |= {
                "area_mm2": round(self.area_px * mm_per_pixel**2, 6),
                "box_mm": [round(v * mm_per_pixel, 4) for v in self.box],
                "outline_mm": [[round(v * mm_per_pixel, 4) for v in p] for p in self.outline],
            }
        return entry


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one sample.

    Attributes:
        name: of the sample.
        word: "pass", "reject" or "cannot judge".
        reasons: why not "pass", in words; empty for a pass.
        defects: where it differs, the largest first; also what is too small to count.
        golden: number of the golden it was held against, from 0; None: of none, or of all.
        registration: how it lies on the golden; None if that was not asked.
        measures: sharpness, contrast, brightness, noise, share that plainly differs, share unseen.
        mm_per_pixel: millimetres a pixel; None: unknown.
        aligned: the sample on the golden's grid, (1 or 3, height, width), uint8; None if it was
            not aligned.
        scores: 0..254, 255 where not observed, shape (height, width), uint8; None if the network
            did not run.
    """

    name: str
    word: Word
    reasons: tuple[str, ...] = ()
    defects: tuple[Defect, ...] = ()
    golden: int | None = None
    registration: Registration | None = None
    measures: dict[str, float] = field(default_factory=dict)
    mm_per_pixel: float | None = None
    aligned: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    scores: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether it is a pass."""
        return self.word == PASS

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without pictures; numbers that are none are None."""
        return {
            "name": self.name,
            "verdict": self.word,
            "reasons": list(self.reasons),
            "defects": [defect.to_dict(self.mm_per_pixel) for defect in self.defects],
            "golden": self.golden,
            "registration": None if self.registration is None else self.registration.to_dict(),
            "measures": {name: _finite(value) for name, value in self.measures.items()},
        }

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: pass"
        return f"{self.name}: {self.word}: {'; '.join(self.reasons)}"


def _finite(value: float) -> float | None:
    """A number that JSON has, or none."""
    return round(value, 4) if math.isfinite(value) else None


def cannot_judge(name: str, *reasons: str, registration: Registration | None = None) -> Verdict:
    """The verdict on a sample that never reached the network."""
    return Verdict(name, CANNOT_JUDGE, reasons, registration=registration)


def reject_reason(count: int, zone: str, allowed: int) -> str:
    """Why a number of defects in a zone rejects a sample."""
    where = f" in zone {zone}" if zone else ""
    limit = f", and {allowed} are allowed" if allowed else ""
    return f"{counted(count, 'defect')}{where}{limit}"
