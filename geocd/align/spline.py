"""A smooth field through tie points: a cubic B-spline that bends no more than they ask for.

The energy of bending is that of a thin-plate spline, so that what is far from every tie point
follows an affine map; the number of control points is bounded, so that time and memory do not
grow with the number of ties as those of a thin-plate spline would.

Source:
    Penalised splines: Eilers and Marx (1996), doi:10.1214/ss/1038425655.
    Iterated weights: Holland and Welsch (1977), doi:10.1080/03610927708827533.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.align.field import PointArray, basis

_MAX_CONTROL = 32
"""Control points each way, at most."""
_LEASH = 1e-3
"""What a control point pays to differ from zero, over what it pays to bend."""
_CAUCHY = 2.4
"""Residual, in standard deviations of the good ones, that weighs a half, about."""
_LEAST_SCALE = 0.02
"""Standard deviation, in pixels, below which residuals tell nothing."""


@dataclass(frozen=True)
class Lattice:
    """Where the control points of a field lie."""

    knots: Affine
    rows: int
    cols: int

    @classmethod
    def over(cls, shape: tuple[int, int], *, spacing: float) -> Lattice:
        """Control points evenly over an image of shape (height, width), and one ring outside.

        They are at least ``spacing`` pixels apart, and there are at most 32 each way.
        """
        spacing = max(spacing, max(shape) / (_MAX_CONTROL - 3))
        rows, cols = (max(4, int(np.ceil(length / spacing)) + 3) for length in shape)
        return cls(Affine.translation(1, 1) @ Affine.scale(1 / spacing), rows, cols)

    def design(self, points: PointArray) -> Design:
        """What control points weigh at points (col, row), shape (n, 2)."""
        first_j, across = basis(self.knots.a * points[:, 0] + self.knots.c, self.cols)
        first_i, down = basis(self.knots.e * points[:, 1] + self.knots.f, self.rows)
        near = np.arange(across.shape[1])
        row, col = first_i[:, None] + near, first_j[:, None] + near
        control = row[:, :, None] * self.cols + col[:, None, :]
        weight = down[:, :, None] * across[:, None, :]
        count = len(points)
        return Design(control.reshape(count, -1), weight.reshape(count, -1), self.rows, self.cols)

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """What it costs a field to bend, and a little to differ from zero; (controls, controls).

        The latter brings it back to the affine map where no tie point is near.
        """
        first = [np.diff(np.eye(n), axis=0) for n in (self.rows, self.cols)]
        second = [np.diff(np.eye(n), 2, axis=0) for n in (self.rows, self.cols)]
        parts = (
            np.kron(second[0].T @ second[0], np.eye(self.cols)),
            2 * np.kron(first[0].T @ first[0], first[1].T @ first[1]),
            np.kron(np.eye(self.rows), second[1].T @ second[1]),
        )
        return np.asarray(sum(parts) + _LEASH * np.eye(self.rows * self.cols))


@dataclass(frozen=True, slots=True)
class Design:
    """Which control points have a say at points, and how much; all others have none.

    Attributes:
        control: indices among rows * cols control points, shape (n, 16).
        weight: of each, shape (n, 16).
        rows, cols: control points of the lattice.
    """

    control: NDArray[np.intp]
    weight: NDArray[np.float64]
    rows: int
    cols: int

    def __matmul__(self, control: NDArray[np.float64]) -> PointArray:
        """The field of control points, shape (rows * cols, 2), at the points, shape (n, 2)."""
        return np.asarray(np.einsum("nk,nkd->nd", self.weight, control[self.control]))


@dataclass(frozen=True, slots=True)
class Normal:
    """Sums over ties from which control points follow."""

    matrix: NDArray[np.float64]
    right: NDArray[np.float64]
    weight: float
    block: int
    """Control points that are solved for at once: those of three rows, for a tie pulls at four
    rows, so beyond the next three there is nothing to solve."""

    @classmethod
    def of(cls, design: Design, displacement: PointArray, weight: NDArray[np.float64]) -> Normal:
        """Of ties with a design, displacements (n, 2) in pixels and weights (n,)."""
        count = design.rows * design.cols
        pull = design.weight * weight[:, None]  # (n, 16)
        pairs = design.control[:, :, None] * count + design.control[:, None, :]
        sums = np.bincount(
            pairs.ravel(), (pull[:, :, None] * design.weight[:, None, :]).ravel(), count * count
        )
        right = [
            np.bincount(design.control.ravel(), (pull * away[:, None]).ravel(), count)
            for away in displacement.T
        ]
        matrix = sums.astype(np.float64, copy=False).reshape(count, count)
        return cls(matrix, np.stack(right, axis=1), float(weight.sum()), 3 * design.cols)

    def solve(self, energy: NDArray[np.float64], stiffness: float) -> NDArray[np.float64]:
        """Control points, shape (controls, 2).

        Args:
            energy: as ``Lattice.energy``.
            stiffness: what bending costs, over what one tie a control point pulls.
        """
        # A control point carries as many ties as there are on average, however many in all.
        pull = max(self.weight, 1e-9) / len(self.matrix)
        parts = [slice(i, i + self.block) for i in range(0, len(self.matrix), self.block)]

        def system(rows: slice, cols: slice) -> NDArray[np.float64]:
            return np.asarray(self.matrix[rows, cols] + stiffness * pull * energy[rows, cols])

        # Block elimination: the matrix is a band, and most of it empty.
        left, right = system(parts[0], parts[0]), self.right[parts[0]]
        passed = []
        for here, there in itertools.pairwise(parts):
            beside = system(here, there)
            solved = np.linalg.solve(left, np.hstack([beside, right]))
            forward, known = solved[:, :-2], solved[:, -2:]
            passed.append((forward, known))
            left = system(there, there) - beside.T @ forward
            right = self.right[there] - beside.T @ known
        found = [np.linalg.solve(left, right)]
        for forward, known in reversed(passed):
            found.append(known - forward @ found[-1])
        return np.concatenate(found[::-1])


def trust_of(away: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights 0..1 that residuals leave to ties; the least residual scale is 0.02 pixels.

    Args:
        away: lengths of the residuals in pixels, shape (n,).
        weight: of each tie beforehand; those of 0 have no say in what is usual, shape (n,).
    """
    scale = robust_scale(away, weight)
    return np.asarray(1 / np.square(1 + np.square(away / (_CAUCHY * scale))))


def robust_scale(away: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Standard deviation, each way, of lengths of which the larger half may be anything."""
    used = away[weight > 0]
    # The median length of a two-dimensional normal deviate is 1.1774 standard deviations.
    return max(_LEAST_SCALE, float(np.median(used)) / 1.1774) if len(used) else _LEAST_SCALE
