"""Shift, affine map or local field: the simplest that blocks of full resolution speak for.

Every block is held out once: its residual is measured under a motion made without it and
without its neighbours. The final motion is made by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.align.alignment import Model
from geocd.align.field import Motion, PointArray
from geocd.align.patches import Blocks, Patch, block_side, measure, read_patches
from geocd.align.reader import FloatArray, PairReader
from geocd.align.spline import Design, Lattice, Normal, trust_of
from geocd.config import AlignMode

MODELS: Final[tuple[Model, ...]] = ("shift", "affine", "local")
"""From the simplest to the richest."""

_ALLOWED: Final[dict[AlignMode, tuple[Model, ...]]] = {"shift": MODELS[:1], "affine": MODELS[:2]}

MIN_BLOCKS: Final = 12
"""Least number of blocks from which anything can be concluded."""
_LEVELS = ((4, 1.0), (1, 1.0), (1, 1.0))
"""(side of a compared pixel in grid pixels, smoothing in compared pixels), from coarse to fine.

The last two are alike: what the last level takes its blocks through was chosen by fine ones."""
_LOOKS = 6
"""Times, at most, that an affine motion is sought with coarse pixels before anything finer is."""
_HASTE = 1.5
"""How much further than the blocks say such a motion is taken: what only one date shows, leaves,
shadows or damage, holds blocks back, and they say a third to a half of the way."""
_SETTLED = 0.1
"""Mean change of the motion, in pixels, that ends the search with coarse pixels."""
_CLEAR = 1.5
"""Standard errors that such a change must reach: coarse pixels may show noise alone."""
_REACH = 3.0
"""Displacement, in compared pixels, beyond which a block is lost."""
_MIN_SCORE = 0.3
"""Least correlation of a block that is believed."""
_MAX_DEVIATION = 0.5
"""Standard deviation, in pixels, of what a block says beyond which it lacks texture."""
_FLOOR = 0.03
"""Standard deviation, in pixels, that is added to what a block claims."""
_HEAVIEST = 4.0
"""Largest weight of a block, over the mean."""
_STIFFNESS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Stiffnesses that the held-out blocks choose from."""
_FIRST_STIFFNESS = 0.03
_ROUNDS = 5
"""Times that trust is made from residuals."""
_SPACING = 1.4
"""Distance of the control points of a field, in blocks."""
_FOLDS = 5
_SIMPLER = 0.9
"""Largest mean squared residual of a richer model, over that of a simpler one, that prefers it."""
_SURE = 4.0
"""Standard errors by which the held-out squares must prefer a richer model. Where none is right
up to 3 are seen, since the stiffness is the one that they like best."""
_MISS = 1.5
"""Distance, in compared pixels, beyond which all misses are alike."""
_UNIT = 1000.0
"""Pixels in one unit of the coordinates in which affine maps are solved."""

Displacement = Callable[[slice, slice, float], PointArray]


@dataclass(frozen=True, slots=True)
class LocalTies:
    """Blocks with texture, where they are on both dates, and what a motion leaves of it.

    Attributes:
        position: (col, row) of the grid, shape (n, 2).
        displacement: to where the after image shows it, (x, y) in pixels, shape (n, 2).
        weight: shape (n,), 0 for blocks that do not correlate.
        score: correlation, 0..1, shape (n,).
    """

    position: PointArray
    displacement: PointArray
    weight: NDArray[np.float64]
    score: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Refined:
    """A motion, its model, and the ties behind it."""

    motion: Motion
    model: Model
    ties: LocalTies
    held_out: FloatArray
    """Distance in pixels of each tie from a motion made without it, shape (n,)."""


def refine(
    read: PairReader, shape: tuple[int, int], *, start: Affine, mode: AlignMode, exact: bool = False
) -> Refined | None:
    """The simplest motion that explains the blocks; None where too few have texture.

    Where too few of those correlate, ``start`` comes back, met by none.

    Args:
        read: the pair; asked for bounded windows, each of them once.
        shape: (height, width) of the reading grid.
        start: a motion right to within some ten pixels everywhere.
        mode: may limit the richest model.
        exact: ``start`` is right to within a pixel, so coarse pixels could only mislead.
    """
    patches = read_patches(read, shape, start)
    allowed = _ALLOWED.get(mode, MODELS)
    lattice = Lattice.over(shape, spacing=_SPACING * block_side(shape))
    motion = Motion(start) if exact else _settled(patches, shape, start, allowed, lattice)
    found = None
    for factor, blur in _LEVELS:
        # Blocks echo the motion they are seen through. Seen through a field that follows noise
        # they would speak for that noise, so a model must prove itself before it is used.
        blocks = measure(patches, _seen_through(motion, start), factor=factor, blur=blur)
        ties = _ties(blocks, motion, start, factor=factor)
        if len(ties.weight) < MIN_BLOCKS:
            return None
        if (ties.weight > 0).sum() < MIN_BLOCKS:
            return Refined(Motion(start), "affine", ties, np.full(len(ties.weight), np.inf))
        fits = _Fits.of(ties, lattice, spacing=block_side(shape))
        found = _simplest(fits, allowed, miss=_MISS * factor)
        motion = found.motion
    return found


def _settled(
    patches: list[Patch], shape: tuple[int, int], start: Affine, allowed: tuple[Model, ...],
    lattice: Lattice,
) -> Motion:  # fmt: skip
    """The affine motion at which coarse pixels come to rest; ``start`` where they do not meet."""
    factor, blur = _LEVELS[0]
    motion = start
    for _ in range(_LOOKS):
        blocks = measure(patches, _seen_through(Motion(motion), start), factor=factor, blur=blur)
        ties = _ties(blocks, Motion(motion), start, factor=factor)
        if (ties.weight > 0).sum() < MIN_BLOCKS:
            return Motion(start)
        fits = _Fits.of(ties, lattice, spacing=block_side(shape))
        found = _simplest(fits, allowed[:2], miss=_MISS * factor)
        if _moved(Motion(motion), found) < max(_SETTLED, _CLEAR * _standard_error(found, factor)):
            break
        motion = Affine(*(
            a + _HASTE * (b - a) for a, b in zip(motion[:6], found.motion.affine[:6], strict=True)
        ))  # fmt: skip
    return Motion(motion)


def _moved(motion: Motion, found: Refined) -> float:
    """Root mean square distance, in pixels, between two motions at the ties of one."""
    here = found.ties.position
    return float(np.sqrt(np.mean(np.square(_length(found.motion(here) - motion(here))))))


def _standard_error(found: Refined, factor: int) -> float:
    """Of an affine motion at its ties, in pixels, from what the held-out ones say."""
    away = np.minimum(found.held_out[found.ties.weight > 0], _MISS * factor)
    terms = 1 if found.model == "shift" else 3
    return float(np.sqrt(np.mean(np.square(away)) * terms / len(away)))


def _seen_through(motion: Motion, start: Affine) -> Displacement | None:
    """What a motion adds to the first one, between pixels of patches read through the first."""
    if motion == Motion(start):
        return None
    back = ~start

    def displacement(rows: slice, cols: slice, step: float) -> PointArray:
        there = motion.positions(rows, cols, step=step)
        here = Motion().positions(rows, cols, step=step)
        x, y = there[..., 0], there[..., 1]
        seen = np.stack([back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f], -1)
        return np.asarray(seen - here)

    return displacement


def _ties(blocks: Blocks, motion: Motion, start: Affine, *, factor: int) -> LocalTies:
    """Blocks with texture as tie points of the grid."""
    textured = blocks.variance < (_MAX_DEVIATION * factor) ** 2
    here, step = blocks.position[textured], blocks.step[textured]
    linear = np.array([[start.a, start.b], [start.d, start.e]])
    displacement = motion(here) + step @ linear.T - here
    score = blocks.score[textured]
    met = (score > _MIN_SCORE) & (np.abs(step).max(axis=1, initial=0) < _REACH * factor)
    weight = np.where(met, 1 / (blocks.variance[textured] + _FLOOR**2), 0.0)
    if met.any():
        weight = np.minimum(weight / weight[met].mean(), _HEAVIEST)
    return LocalTies(here, displacement, weight, score)


@dataclass(frozen=True, slots=True)
class _Fits:
    """Motions of every model through the same ties, with and without parts of them."""

    ties: LocalTies
    lattice: Lattice
    square: NDArray[np.intp]  # (n,): the neighbours that a tie is held out with
    fold: NDArray[np.intp]  # (n,): the part in which a tie is held out
    plane: NDArray[np.float64]  # (n, 3): 1, x, y, scaled
    middle: PointArray
    design: Design

    @classmethod
    def of(cls, ties: LocalTies, lattice: Lattice, *, spacing: float) -> _Fits:
        # Squares of two blocks each way go together, so that neighbours do not tell on each other.
        square = np.floor(ties.position / (2 * spacing)).astype(np.intp)
        fold = (square[:, 0] + 2 * square[:, 1]) % _FOLDS
        label = np.unique(square, axis=0, return_inverse=True)[1].reshape(-1)
        middle = ties.position.mean(axis=0)
        plane = np.column_stack([np.ones(len(fold)), (ties.position - middle) / _UNIT])
        return cls(ties, lattice, label, fold, plane, middle, lattice.design(ties.position))

    def motion(self, model: Model, stiffness: float) -> Motion:
        """The motion of a model through all ties."""
        weight = self.ties.weight * self.trust(model)
        flat, control = self._solved(model, weight, [stiffness])[0]
        delta = flat[1:].T / _UNIT  # (2, 2), from a point to its displacement
        offset = flat[0] - delta @ self.middle
        affine = Affine(
            1 + float(delta[0, 0]), float(delta[0, 1]), float(offset[0]),
            float(delta[1, 0]), 1 + float(delta[1, 1]), float(offset[1]),
        )  # fmt: skip
        if control is None:
            return Motion(affine)
        shape = (self.lattice.rows, self.lattice.cols, 2)
        return Motion(affine, control.reshape(shape).astype(np.float32), self.lattice.knots)

    def trust(self, model: Model) -> FloatArray:
        """How far each tie follows most others under a model, 0..1, shape (n,)."""
        trust = np.ones(len(self.fold))
        for _ in range(_ROUNDS):
            weight = self.ties.weight * trust
            fitted = self._fitted(*self._solved(model, weight, [_FIRST_STIFFNESS])[0])
            trust = trust_of(_length(self.ties.displacement - fitted), self.ties.weight)
        return trust

    def held_out(self, model: Model, stiffnesses: Sequence[float]) -> list[FloatArray]:
        """Distance of each tie from the motion through the other folds, pixels, shape (n,) each."""
        weight = self.ties.weight * self.trust(model)
        out = [np.empty(len(weight)) for _ in stiffnesses]
        for part in range(_FOLDS):
            mine = self.fold == part
            solved = self._solved(model, np.where(mine, 0.0, weight), stiffnesses)
            for away, solution in zip(out, solved, strict=True):
                away[mine] = _length(self.ties.displacement - self._fitted(*solution))[mine]
        return out

    def _solved(
        self, model: Model, weight: FloatArray, stiffnesses: Sequence[float]
    ) -> list[tuple[FloatArray, FloatArray | None]]:
        """(plane (3, 2), control points or None) through weighted ties, for each stiffness."""
        terms = 1 if model == "shift" else 3
        root = np.sqrt(weight)[:, None]
        flat = np.zeros((3, 2))
        basis = self.plane[:, :terms]
        flat[:terms] = np.linalg.lstsq(basis * root, self.ties.displacement * root, rcond=None)[0]
        if model != "local":
            return [(flat, None)] * len(stiffnesses)
        normal = Normal.of(self.design, self.ties.displacement - self.plane @ flat, weight)
        return [(flat, normal.solve(self.lattice.energy, k)) for k in stiffnesses]

    def _fitted(self, flat: FloatArray, control: FloatArray | None) -> FloatArray:
        fitted = self.plane @ flat
        return fitted if control is None else fitted + self.design @ control


def _simplest(fits: _Fits, allowed: tuple[Model, ...], *, miss: float) -> Refined:
    """The simplest model that no richer one clearly beats on the same held-out ties.

    Args:
        fits: through the ties.
        allowed: models, from the simplest to the richest.
        miss: distance in pixels beyond which all misses are alike.
    """
    found = [_Candidate.of(fits, model, miss) for model in allowed]
    used = fits.ties.weight > 0
    # Ties that no model explains are false or lie on change: they cannot tell models apart.
    told = used & (np.min([c.away for c in found], axis=0) < miss)
    chosen = found[0]
    motion = fits.motion(chosen.model, chosen.stiffness)
    for richer in found[1:]:
        if richer.beats(chosen, told, fits.square):
            wanted = fits.motion(richer.model, richer.stiffness)
            if not wanted.folds():
                chosen, motion = richer, wanted
    return Refined(motion, chosen.model, fits.ties, chosen.away)


@dataclass(frozen=True, slots=True)
class _Candidate:
    model: Model
    stiffness: float
    away: FloatArray  # (n,), held-out distances
    miss: float

    @classmethod
    def of(cls, fits: _Fits, model: Model, miss: float) -> _Candidate:
        """A model with the stiffness that explains held-out ties best."""
        choices = _STIFFNESS if model == "local" else (_FIRST_STIFFNESS,)
        away = fits.held_out(model, choices)
        tried = [cls(model, k, found, miss) for k, found in zip(choices, away, strict=True)]
        used = fits.ties.weight > 0
        return min(tried, key=lambda c: c.cost(used))

    def cost(self, which: NDArray[np.bool_]) -> float:
        """Mean squared distance in pixels, misses alike; what no block can tell is not counted."""
        if not which.any():
            return 0.0
        return float(self._squared(which).mean()) + _FLOOR**2

    def beats(
        self, simpler: _Candidate, which: NDArray[np.bool_], square: NDArray[np.intp]
    ) -> bool:
        """Whether it is clearly better, and on squares of blocks all over the image."""
        if self.cost(which) >= _SIMPLER * simpler.cost(which):
            return False
        # Neighbours share what troubles them, a shadow or a changed quarter: one square, one say.
        count = np.bincount(square[which])
        total = np.bincount(square[which], simpler._squared(which) - self._squared(which))
        gain = total[count > 0] / count[count > 0]
        if len(gain) < 2:
            return False
        return bool(gain.mean() > _SURE * gain.std(ddof=1) / np.sqrt(len(gain)))

    def _squared(self, which: NDArray[np.bool_]) -> FloatArray:
        return np.asarray(np.square(np.minimum(self.away[which], self.miss)))


def _length(vectors: PointArray) -> FloatArray:
    return np.asarray(np.hypot(vectors[:, 0], vectors[:, 1]), dtype=np.float64)
