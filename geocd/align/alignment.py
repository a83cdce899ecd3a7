"""What is known about the geometry of a pair: the motion, the tie points, the verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.align.field import Motion, PointArray

Status = Literal["applied", "not needed", "refused", "off"]
Method = Literal["none", "features", "phase"]
Model = Literal["none", "shift", "affine", "local"]

FIT: Final = "fit"
HELD_OUT: Final = "held-out"
OUTLIER: Final = "outlier"

_NEAREST = 5
"""Tie points that tell the misregistration at a point, at most."""
_CHUNK = 4096
"""Points whose distances to all tie points are held at a time."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Distances, in pixels of the reading grid, between a motion and tie points that judge it."""

    median: float
    rmse: float
    p90: float
    """The distance that nine in ten do not exceed."""

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> Residuals | None:
        """The summary of distances in pixels, shape (n,); None of none."""
        if not len(distances):
            return None
        rmse = np.sqrt(np.mean(np.square(distances)))
        return cls(float(np.median(distances)), float(rmse), float(np.percentile(distances, 90)))

    def scaled(self, factor: float) -> Residuals:
        """The same distances in other pixels."""
        return Residuals(self.median * factor, self.rmse * factor, self.p90 * factor)

    def to_dict(self) -> dict[str, float]:
        """The three numbers, ready for JSON."""
        return {"median": self.median, "rmse": self.rmse, "p90": self.p90}


@dataclass(frozen=True, slots=True, eq=False)
class TiePoints:
    """Spots that were found in both images, and how well they were met; n rows.

    Attributes:
        position: (col, row) of the reading grid, shape (n, 2).
        displacement: (x, y) in pixels from there to where the after image, as georeferenced,
            shows the spot, shape (n, 2).
        residual_before: length of ``displacement``, shape (n,).
        residual_after: distance in pixels to where the candidate motion puts the spot, shape
            (n,); for those held out, a motion that they did not make.
        role: "fit", "held-out" or "outlier", shape (n,). Outliers lie on ground that changed,
            or are false.
        score: correlation of the two images about the spot, -1..1, NaN where there is none,
            shape (n,).
    """

    position: PointArray
    displacement: PointArray
    residual_before: NDArray[np.float64]
    residual_after: NDArray[np.float64]
    role: NDArray[np.str_]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.position)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TiePoints):
            return NotImplemented
        return all(
            np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f")
            for mine, theirs in zip(self.columns().values(), other.columns().values(), strict=True)
        )

    def __hash__(self) -> int:
        return hash(self.position.tobytes())

    @classmethod
    def none(cls) -> TiePoints:
        """No tie points."""
        nothing = np.empty(0)
        places = np.empty((0, 2))
        return cls(places, places, nothing, nothing, np.empty(0, dtype="<U8"), nothing)

    @property
    def believed(self) -> NDArray[np.bool_]:
        """True where a tie point is no outlier, shape (n,)."""
        return np.asarray(self.role != OUTLIER, dtype=np.bool_)

    def seen_from(self, place: Affine) -> TiePoints:
        """The same ties in pixels of another grid; see ``Alignment.seen_from``."""
        scale = np.array([place.a, place.e])
        factor = _shrinking(place)
        return replace(
            self,
            position=(self.position - np.array([place.c, place.f])) / scale,
            displacement=self.displacement / scale,
            residual_before=self.residual_before * factor,
            residual_after=self.residual_after * factor,
        )

    def columns(self) -> dict[str, NDArray[Any]]:
        """A table: col, row, dx, dy, residual_before, residual_after, role, score."""
        return {
            "col": self.position[:, 0],
            "row": self.position[:, 1],
            "dx": self.displacement[:, 0],
            "dy": self.displacement[:, 1],
            "residual_before": self.residual_before,
            "residual_after": self.residual_after,
            "role": self.role,
            "score": self.score,
        }


@dataclass(frozen=True, slots=True)
class Alignment:
    """What is known about the geometry of a pair, and what is to be done about it.

    Attributes:
        status: applied: use ``motion``; not needed: identity is as good; refused: nothing
            could be shown to help; off: nothing was asked for.
        method: what found the candidate motion.
        model: the simplest model that explains the tie points; none: identity.
        motion: from (col, row) of the reading grid, where before is, to the (col, row) at
            which the after image, as georeferenced, shows the same ground. Integers are the
            corners of pixels. Identity unless ``status`` is "applied".
        before: residuals of held-out tie points under identity, in pixels.
        after: the same under the candidate motion, even when it was refused. They measure
            agreement at tie points; the true error between them is about twice as large.
        shift_px: length of the candidate motion at the centre of the image, in pixels.
        tie_points: ties that the candidate explains.
        held_out: ties that judged it. Each judged what was made without it, so that the same
            ties may count in both.
        reason: one clause, why.
        ties: every tie point.
        reach: distance, in pixels, for which a tie point speaks.
    """

    status: Status
    method: Method
    model: Model
    motion: Motion
    before: Residuals | None
    after: Residuals | None
    shift_px: float | None
    tie_points: int
    held_out: int
    reason: str
    ties: TiePoints
    reach: float = 0.0

    @property
    def residual_before_px(self) -> float | None:
        """Median residual under identity, in pixels."""
        return None if self.before is None else self.before.median

    @property
    def residual_after_px(self) -> float | None:
        """Median residual under the candidate motion, in pixels."""
        return None if self.after is None else self.after.median

    def seen_from(self, place: Affine) -> Alignment:
        """The same alignment in pixels of another grid over the same ground.

        Args:
            place: from (col, row) of the other grid to those of this one; it moves and scales.
        """
        factor = _shrinking(place)
        return replace(
            self,
            motion=self.motion if self.motion.is_identity else self.motion.seen_from(place),
            before=None if self.before is None else self.before.scaled(factor),
            after=None if self.after is None else self.after.scaled(factor),
            shift_px=None if self.shift_px is None else self.shift_px * factor,
            ties=self.ties.seen_from(place),
            reach=self.reach * factor,
        )

    def misregistration(self, points: PointArray) -> NDArray[np.float64]:
        """Residual near points once the verdict is carried out, in pixels, shape (n,).

        The median of the nearest believed tie points within ``reach``; NaN where there is none.

        Args:
            points: (col, row) of the reading grid, shape (n, 2).
        """
        out = np.full(len(points), np.nan)
        believed = self.ties.believed
        if not believed.any():
            return out
        applied = self.status == "applied"
        residual = (self.ties.residual_after if applied else self.ties.residual_before)[believed]
        for begin in range(0, len(points), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            apart = _distances(points[part], self.ties.position[believed])
            nearest = np.argsort(apart, axis=1)[:, :_NEAREST]
            near = np.take_along_axis(apart, nearest, axis=1) <= self.reach
            values = np.where(near, residual[nearest], np.nan)
            some = near.any(axis=1)
            out[part][some] = np.nanmedian(values[some], axis=1)
        return out

    def covered(self, shape: tuple[int, int], spacing: float) -> NDArray[np.bool_]:
        """Where alignment could be judged: a believed tie point lies within reach.

        Args:
            shape: (height, width) of the reading grid.
            spacing: side of a cell of the map, in pixels.

        Returns:
            One value a cell, shape (height, width) over ``spacing``, rounded up.
        """
        rows, cols = (int(np.ceil(length / spacing)) for length in shape)
        i, j = np.divmod(np.arange(rows * cols), cols)
        # Cells at the far edges reach beyond the image; their middle is that of what is inside.
        centres = np.column_stack([
            (j * spacing + np.minimum((j + 1) * spacing, shape[1])) / 2,
            (i * spacing + np.minimum((i + 1) * spacing, shape[0])) / 2,
        ])  # fmt: skip
        return np.asarray(np.isfinite(self.misregistration(centres)).reshape(rows, cols))

    def to_dict(self) -> dict[str, object]:
        """The verdict, ready for JSON; ``motion`` as in ``Motion.to_dict``, without ties."""
        return {
            "status": self.status,
            "method": self.method,
            "model": self.model,
            "motion": self.motion.to_dict(),
            "residual_before_px": None if self.before is None else self.before.to_dict(),
            "residual_after_px": None if self.after is None else self.after.to_dict(),
            "shift_px": self.shift_px,
            "tie_points": self.tie_points,
            "held_out": self.held_out,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        if self.status == "not needed":
            return f"alignment not needed: {self.reason}"
        if self.status != "applied":
            return f"not aligned: {self.reason}"
        return (
            f"aligned by a {_MODEL_WORDS[self.model]} from {self.method}: {self.shift_px:.1f} px "
            f"shift, residual {self.residual_before_px:.2f} -> {self.residual_after_px:.2f} px "
            f"on {self.held_out} held-out tie points"
        )


_MODEL_WORDS = {
    "none": "identity",
    "shift": "shift",
    "affine": "affine map",
    "local": "local field",
}


def _shrinking(place: Affine) -> float:
    """Pixels of the grid that ``place`` starts from, to one of the grid that it leads to."""
    return float(1 / np.sqrt(place.a * place.e))


def _distances(a: PointArray, b: PointArray) -> NDArray[np.float64]:
    """Between all points of (n, 2) and (m, 2), shape (n, m)."""
    return np.asarray(np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]))


def unaligned(status: Status, reason: str) -> Alignment:
    """An alignment that was never measured."""
    return Alignment(
        status, "none", "none", Motion(), None, None, None, 0, 0, reason, TiePoints.none()
    )
