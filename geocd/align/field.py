"""A motion: an affine map and, where that does not do, a smooth field of displacements.

Source:
    Cubic B-splines as fields of displacement: Rueckert et al. (1999), doi:10.1109/42.796284.
    Folding seen from differences of the control points: Choi and Lee (2000),
    doi:10.1006/gmod.2000.0531.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.errors import ShapeError

IDENTITY: Final = Affine.identity()

FieldArray = NDArray[np.float32]
PointArray = NDArray[np.float64]

_SUPPORT = 4
"""Control points that a cubic B-spline looks at, along one axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """From (col, row) of the reading grid to where the after image shows the same ground.

    Integers are the corners of pixels, on both sides. A point moves by the affine map plus the
    field at the point, which is a uniform cubic B-spline: smooth, between the least and the
    largest of its control points, and constant outward beyond the ground that they describe.

    Attributes:
        affine: the affine part.
        field: control points, displacement (x, y) in pixels, shape (rows, cols, 2), at least
            4 x 4; None: the motion is affine. The outermost ones lie one spacing outside the
            ground that is described.
        knots: from (col, row) of the grid to (j, i) of ``field``; it moves and scales, no more.
    """

    affine: Affine = IDENTITY
    field: FieldArray | None = None
    knots: Affine = IDENTITY

    def __post_init__(self) -> None:
        if self.field is None:
            return
        shape = self.field.shape
        if len(shape) != 3 or min(shape[:2]) < _SUPPORT or shape[2] != 2:
            raise ShapeError(
                f"a field has shape (rows, cols, 2) with at least 4 rows and columns, got {shape}"
            )
        if self.knots.b or self.knots.d or min(self.knots.a, self.knots.e) <= 0:
            raise ShapeError(f"knots must neither turn nor mirror, got {tuple(self.knots)[:6]}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Motion):
            return NotImplemented
        same = self.affine == other.affine and self.is_affine == other.is_affine
        if not same or self.field is None or other.field is None:
            return same
        return self.knots == other.knots and np.array_equal(self.field, other.field)

    def __hash__(self) -> int:
        return hash((self.affine, self.knots, self.is_affine))

    @property
    def is_affine(self) -> bool:
        """Whether the motion is an affine map alone."""
        return self.field is None

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return self.is_affine and self.affine == IDENTITY

    @property
    def spacing(self) -> float:
        """Pixels from one control point to the next, along a row."""
        return float(1 / self.knots.a)

    def __call__(self, points: PointArray) -> PointArray:
        """Where the after image shows the points; (col, row), shape (n, 2) on both sides."""
        linear = np.array([[self.affine.a, self.affine.b], [self.affine.d, self.affine.e]])
        out = points @ linear.T + np.array([self.affine.c, self.affine.f])
        if self.field is not None:
            out = out + self.displacement(points)
        return np.asarray(out, dtype=np.float64)

    def displacement(self, points: PointArray) -> PointArray:
        """What the field adds to the affine map at points (col, row); (x, y), shape (n, 2)."""
        if self.field is None:
            return np.zeros(points.shape)
        first_j, weight_j = basis(self.knots.a * points[:, 0] + self.knots.c, self.field.shape[1])
        first_i, weight_i = basis(self.knots.e * points[:, 1] + self.knots.f, self.field.shape[0])
        out = np.zeros(points.shape)
        for i in range(_SUPPORT):
            for j in range(_SUPPORT):
                weight = weight_i[:, i] * weight_j[:, j]
                out += weight[:, None] * self.field[first_i + i, first_j + j]
        return out

    def positions(self, rows: slice, cols: slice, *, step: float = 1.0) -> PointArray:
        """Where the after image shows the centre of each pixel of a window.

        Args:
            rows: rows of the grid, with a start and a stop.
            cols: columns of the grid, with a start and a stop.
            step: side of a pixel of the window, in pixels of the grid.

        Returns:
            Absolute (col, row), shape (height, width, 2), where height and width are those of
            the window over ``step``, rounded up.
        """
        x = _centres(cols, step)
        y = _centres(rows, step)[:, None]
        out = np.empty((len(y), len(x), 2))
        out[..., 0] = self.affine.a * x + self.affine.b * y + self.affine.c
        out[..., 1] = self.affine.d * x + self.affine.e * y + self.affine.f
        if self.field is not None:
            across = basis_matrix(self.knots.a * x + self.knots.c, self.field.shape[1])
            down = basis_matrix(self.knots.e * y[:, 0] + self.knots.f, self.field.shape[0])
            for axis in range(2):
                out[..., axis] += down @ self.field[..., axis].astype(np.float64) @ across.T
        return out

    def seen_from(self, place: Affine) -> Motion:
        """The same motion between pixels of another grid over the same ground.

        Args:
            place: from (col, row) of the other grid to those of this one; it moves and scales.
                For a grid cropped at a corner: ``Affine.translation(col, row)``.
        """
        moved = ~place @ self.affine @ place
        if self.field is None:
            return Motion(moved)
        scale = np.array([place.a, place.e], dtype=np.float32)
        return Motion(moved, self.field / scale, self.knots @ place)

    def folds(self) -> bool:
        """Whether two spots of the grid may be sent to one spot of the after image.

        Differences of neighbouring control points bound the derivatives of the spline, so a
        motion that passes here is one to one; one that fails may still be, but is wild.
        """
        a, b, d, e = self.affine.a, self.affine.b, self.affine.d, self.affine.e
        if a * e - b * d <= 0:
            return True
        if self.field is None:
            return False
        across = float(np.abs(np.diff(self.field, axis=1)).max()) * self.knots.a
        down = float(np.abs(np.diff(self.field, axis=0)).max()) * self.knots.e
        # One to one if the derivative differs from the identity by less than 1 in some norm.
        return max(abs(a - 1) + abs(b), abs(d) + abs(e - 1)) + across + down >= 1

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: six numbers a map, and the control points in rows."""
        found: dict[str, Any] = {"affine": [float(v) for v in self.affine[:6]], "field": None}
        if self.field is not None:
            found["field"] = {
                "knots": [float(v) for v in self.knots[:6]],
                # Nine digits tell every number of 32 bits from its neighbours.
                "displacement": [
                    [[float(f"{v:.9g}") for v in point] for point in row] for row in self.field
                ],
            }
        return found


def _centres(span: slice, step: float) -> PointArray:
    count = int(np.ceil((span.stop - span.start) / step))
    return np.asarray(span.start + (np.arange(count) + 0.5) * step, dtype=np.float64)


def basis(place: PointArray, count: int) -> tuple[NDArray[np.intp], PointArray]:
    """(index of the first of four control points, their weights (n, 4)) at places in knot units.

    Places beyond the second and the last but one control point are brought there.
    """
    inside = np.clip(place, 1, count - 2)
    first = np.minimum(np.floor(inside), count - 3).astype(np.intp)
    t = inside - first
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    return first - 1, weights / 6


def basis_matrix(place: PointArray, count: int) -> PointArray:
    """Weights of all control points along one axis, shape (places, count)."""
    first, weights = basis(place, count)
    out = np.zeros((len(place), count))
    np.put_along_axis(out, first[:, None] + np.arange(_SUPPORT), weights, axis=1)
    return out
