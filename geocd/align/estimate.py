"""How the after image lies on the before image: estimated coarsely, then finely, then judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine

from geocd.align.alignment import Alignment, unaligned
from geocd.align.gate import Evidence, judge
from geocd.align.motion import IDENTITY, candidates, implausible, simplest
from geocd.align.phase import correlate, middle_shift, window_ties
from geocd.align.reader import (
    ArrayReader,
    GrayArray,
    GrayPair,
    MaskArray,
    PairReader,
    to_grid,
    transform_points,
)
from geocd.align.ties import Ties, joined, match_pair
from geocd.config import AlignConfig
from geocd.errors import ShapeError

_TOLERANCE = 3.0
"""Distance, in pixels, within which a motion explains a tie point: relief and local warp."""
_BUDGET = 4000
"""Features sought on each image of the overview."""
_WINDOW = 512
"""Side, in pixels, of the windows of the second stage."""
_WINDOWS = 5
"""Windows of the second stage each way, at most."""
_WINDOW_BUDGET = 250
"""Features sought on each image of a window of the second stage."""
_FINE_LIMIT = 24.0
"""Least search radius, in pixels, of the second stage: wide enough to tell truth from chance."""
_MIN_SIDE = 32
"""Shorter side, in pixels, below which an image holds too little to be aligned."""
_DEFAULTS = AlignConfig()


def estimate(
    read: PairReader, shape: tuple[int, int], *, config: AlignConfig, seed: int = 0
) -> Alignment:
    """The motion between two images on one grid, and whether to apply it.

    Features of the whole image, decimated, give a first motion; where that was decimated,
    features of some windows in full resolution give the final one. Where features fail,
    phase correlation of windows is tried. Tie points kept apart are the judges. Images that
    cannot be aligned are refused with a reason, never by an exception.

    Args:
        read: gives gray windows of the pair; never asked for more than 512 or
            ``config.overview_size`` pixels a side, so memory does not grow with the raster.
        shape: (height, width) of the reading grid.
        config: mode, largest shift, size of the overview, least gain.
        seed: of the hold-out and of the sampling; the same seed gives the same result.

    Source:
        SIFT: Lowe (2004), doi:10.1023/B:VISI.0000029664.99615.94.
        MAGSAC: Barath et al. (2019), doi:10.1109/CVPR.2019.01044.
        Phase correlation: Foroosh et al. (2002), doi:10.1109/83.988953.
    """
    if config.mode == "off":
        return unaligned("off", "alignment is switched off")
    if min(shape) < _MIN_SIDE:
        return unaligned("refused", f"images of {shape[1]} x {shape[0]} pixels are too small")
    step = max(1.0, max(shape) / config.overview_size)
    rows, cols = slice(0, shape[0]), slice(0, shape[1])
    overview = read(rows, cols, step=step, motion=IDENTITY)
    for name, valid in (("before", overview.valid_reference), ("after", overview.valid_moving)):
        if not valid.any():
            return unaligned("refused", f"the {name} image holds no valid pixel")
    observed = overview.valid_reference & overview.valid_moving
    if not observed.any():
        return unaligned("refused", "no pixel is valid on both dates")
    task = _Task(read, shape, overview, observed, step, config, seed)
    verdict = task.by_features()
    if verdict.status != "refused":
        return verdict
    second = task.by_phase()
    return verdict if second is None or second.status == "refused" else second


def estimate_arrays(
    reference: GrayArray,
    moving: GrayArray,
    *,
    valid_reference: MaskArray | None = None,
    valid_moving: MaskArray | None = None,
    config: AlignConfig = _DEFAULTS,
    seed: int = 0,
) -> Alignment:
    """``estimate`` for two whole images in memory.

    Args:
        reference: gray values of the before image, shape (height, width), uint8.
        moving: gray values of the after image, same shape.
        valid_reference: True where ``reference`` was observed; None: everywhere.
        valid_moving: True where ``moving`` was observed; None: everywhere.
        config: as for ``estimate``.
        seed: as for ``estimate``.

    Raises:
        ShapeError: the arrays differ in shape.
    """
    if valid_reference is None:
        valid_reference = np.ones(reference.shape, dtype=np.bool_)
    if valid_moving is None:
        valid_moving = np.ones(moving.shape, dtype=np.bool_)
    shapes = [a.shape for a in (reference, moving, valid_reference, valid_moving)]
    if len(set(shapes)) > 1 or reference.ndim != 2:
        raise ShapeError(
            f"images and masks must all have one shape (height, width), got {shapes}; "
            "put them on one grid first"
        )
    reader = ArrayReader(reference, moving, valid_reference, valid_moving)
    height, width = reference.shape
    return estimate(reader, (height, width), config=config, seed=seed)


@dataclass(frozen=True, slots=True)
class _Task:
    """One pair under estimation: what every step needs to know."""

    read: PairReader
    shape: tuple[int, int]
    overview: GrayPair
    observed: MaskArray
    step: float
    config: AlignConfig
    seed: int

    def by_features(self) -> Alignment:
        """The verdict on the motion that local features show."""
        limit = self.config.max_shift
        ties = self._overview_ties()
        coarse = self._judged(ties, limit=limit + _TOLERANCE * self.step, scale=self.step)
        if self.step == 1:
            return coarse[0]
        found = coarse[0].status != "refused"
        # A coarse motion that could not be shown is no guide: search the whole range again.
        start = coarse[1] if found else IDENTITY
        reach = min(limit, max(_FINE_LIMIT, 2 * self.step + 4)) if found else limit + _TOLERANCE
        fine = self._judged(self._window_ties(start, reach), limit=reach, scale=1.0)
        too_little = fine[0].status == "refused" and fine[0].held_out < coarse[0].held_out
        return coarse[0] if found and too_little else fine[0]

    def by_phase(self) -> Alignment | None:
        """The verdict on the shift that phase correlation shows; None if it shows none."""
        found = correlate(self.overview, limit=self.config.max_shift / self.step)
        if found is None:
            return None
        start = Affine.translation(found[0] * self.step, found[1] * self.step)
        limit = 8 + 2 * self.step
        ties = window_ties(self.read, self.shape, motion=start, limit=limit)
        motion = middle_shift(ties.even, _TOLERANCE)
        if motion is None:
            return None
        tolerance = min(_TOLERANCE, limit / 4)
        evidence = Evidence(
            "phase", motion, ties.even, ties.odd, tolerance, (tolerance / limit) ** 2
        )
        return judge(evidence, self.observed, self.shape, config=self.config)

    def _judged(self, ties: Ties, *, limit: float, scale: float) -> tuple[Alignment, Affine]:
        """(verdict, candidate) on ties sought within ``limit`` px, exact to ``scale`` px."""
        tolerance = min(_TOLERANCE * scale, limit / 4)
        fit, held = ties.split(self.seed)
        motions = candidates(fit, tolerance=tolerance, seed=self.seed)
        if not motions:
            return unaligned("refused", f"too few tie points: {len(ties)} were found"), IDENTITY
        motion = simplest(self._plausible(motions), held, tolerance=tolerance)
        evidence = Evidence("features", motion, fit, held, tolerance, (tolerance / limit) ** 2)
        return judge(evidence, self.observed, self.shape, config=self.config), motion

    def _plausible(self, motions: list[Affine]) -> list[Affine]:
        """The shift, and the affine map unless two images on one grid cannot differ so."""
        limit = self.config.max_shift
        return motions[:1] + [
            m for m in motions[1:] if implausible(m, self.shape, max_shift=limit) is None
        ]

    def _overview_ties(self) -> Ties:
        limit = self.config.max_shift / self.step + _TOLERANCE
        found = match_pair(self.overview, limit=limit, budget=_BUDGET)
        rows, cols = slice(0, self.shape[0]), slice(0, self.shape[1])
        return Ties(*(to_grid(p, rows=rows, cols=cols, step=self.step) for p in found))

    def _window_ties(self, motion: Affine, limit: float) -> Ties:
        """Ties of windows in full resolution, spread over the image and read through a motion."""
        parts = []
        for top in _spread(self.shape[0]):
            for left in _spread(self.shape[1]):
                rows = slice(top, min(top + _WINDOW, self.shape[0]))
                cols = slice(left, min(left + _WINDOW, self.shape[1]))
                pair = self.read(rows, cols, step=1.0, motion=motion)
                found = match_pair(pair, limit=limit, budget=_WINDOW_BUDGET)
                here, there = (to_grid(p, rows=rows, cols=cols, step=1.0) for p in found)
                parts.append(Ties(here, transform_points(motion, there)))
        return joined(parts)


def _spread(length: int) -> list[int]:
    """Where the windows of the second stage begin along one axis."""
    count = min(_WINDOWS, -(-length // _WINDOW))
    return [int(v) for v in np.linspace(0, max(length - _WINDOW, 0), count).round()]
