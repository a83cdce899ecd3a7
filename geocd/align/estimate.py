"""How the after image lies on the before image: estimated coarsely, then finely, then judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine

from geocd.align.alignment import Alignment, unaligned
from geocd.align.field import IDENTITY, Motion
from geocd.align.gate import Evidence, judge, refined_evidence, split_evidence
from geocd.align.local import refine
from geocd.align.motion import candidates, implausible, simplest
from geocd.align.patches import block_side
from geocd.align.phase import correlate, middle_shift, window_ties
from geocd.align.reader import (
    ArrayReader,
    GrayArray,
    GrayPair,
    MaskArray,
    PairReader,
    to_grid,
)
from geocd.align.ties import Ties, joined, match_pair
from geocd.config import AlignConfig
from geocd.errors import ShapeError

_TOLERANCE = 3.0
"""Distance, in pixels, within which a motion explains a tie point: relief and local warp."""
_BUDGET = 4000
"""Features sought on each image of the overview."""
_WINDOW = 512
"""Side, in pixels, of the windows of the search in full resolution."""
_WINDOWS = 4
"""Windows of the search in full resolution each way, at most."""
_WINDOW_BUDGET = 250
"""Features sought on each image of a window of the search in full resolution."""
_MIN_SIDE = 32
"""Shorter side, in pixels, below which an image holds too little to be aligned."""
_DEFAULTS = AlignConfig()


def estimate(
    read: PairReader, shape: tuple[int, int], *, config: AlignConfig, seed: int = 0
) -> Alignment:
    """The motion between two images on one grid, and whether to apply it.

    Features of the whole image, decimated, give a first motion; where that fails, features or
    the phase of some windows in full resolution do. Blocks of full resolution all over the
    image then say whether a shift, an affine map or a local field explains them best. Tie
    points kept apart are the judges, at either stage. Images that cannot be aligned are
    refused with a reason, never by an exception.

    Args:
        read: gives gray windows of the pair; never asked for more than 1100 or
            ``config.overview_size`` pixels a side. What is kept of them has a bound, 150 MB.
        shape: (height, width) of the reading grid.
        config: mode, largest shift, size of the overview, least gain.
        seed: of the hold-out and of the sampling; the same seed gives the same result.

    Source:
        SIFT: Lowe (2004), doi:10.1023/B:VISI.0000029664.99615.94.
        MAGSAC: Barath et al. (2019), doi:10.1109/CVPR.2019.01044.
        Phase correlation: Foroosh et al. (2002), doi:10.1109/83.988953.
        Blocks: Lucas and Kanade (1981), see ``geocd.align.patches``.
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
    coarse = task.coarse()
    return coarse if coarse.status == "refused" else task.refined(coarse)


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

    def coarse(self) -> Alignment:
        """The verdict on the first motion that can be shown."""
        by_features = self.by_features()
        if by_features.status != "refused":
            return by_features
        by_phase = self.by_phase()
        return by_features if by_phase is None or by_phase.status == "refused" else by_phase

    def by_features(self) -> Alignment:
        """The verdict on the motion that local features show."""
        limit = self.config.max_shift + _TOLERANCE * self.step
        coarse = self._judged(self._overview_ties(), limit=limit, scale=self.step)
        if self.step == 1 or coarse.status != "refused":
            return coarse
        # Decimation may have taken all texture away: search the whole range again.
        limit = self.config.max_shift + _TOLERANCE
        fine = self._judged(self._window_ties(limit), limit=limit, scale=1.0)
        return coarse if fine.status == "refused" else fine

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
        return self._judge(
            split_evidence(
                "phase", "shift", Motion(motion), ties.even, ties.odd, tolerance=tolerance,
                chance=(tolerance / limit) ** 2, reach=max(self.shape) / 4,
            )
        )  # fmt: skip

    def refined(self, coarse: Alignment) -> Alignment:
        """The verdict on the simplest motion that blocks of full resolution speak for.

        The coarse one stands where the image is too small or too smooth for blocks.
        """
        found = refine(self.read, self.shape, start=coarse.motion.affine, mode=self.config.mode)
        if found is None:
            return coarse
        spacing = block_side(self.shape)
        return self._judge(refined_evidence(coarse.method, found, spacing=spacing))

    def _judge(self, evidence: Evidence) -> Alignment:
        return judge(evidence, self.observed, self.shape, config=self.config)

    def _judged(self, ties: Ties, *, limit: float, scale: float) -> Alignment:
        """The verdict on ties sought within ``limit`` px and exact to ``scale`` px."""
        tolerance = min(_TOLERANCE * scale, limit / 4)
        fit, held = ties.split(self.seed)
        turning = self.config.mode != "shift"
        motions = candidates(fit, tolerance=tolerance, seed=self.seed, turning=turning)
        if not motions:
            return unaligned("refused", f"too few tie points: {len(ties)} were found")
        motion = simplest(self._plausible(motions), held, tolerance=tolerance)
        return self._judge(
            split_evidence(
                "features", "shift" if motion == motions[0] else "affine", Motion(motion), fit,
                held, tolerance=tolerance, chance=(tolerance / limit) ** 2,
                reach=max(self.shape) / 4,
            )
        )  # fmt: skip

    def _plausible(self, motions: list[Affine]) -> list[Affine]:
        """The shift, and the affine map unless two images on one grid cannot differ so."""
        limit = self.config.max_shift
        return motions[:1] + [
            m for m in motions[1:] if implausible(Motion(m), self.shape, max_shift=limit) is None
        ]

    def _overview_ties(self) -> Ties:
        limit = self.config.max_shift / self.step + _TOLERANCE
        found = match_pair(self.overview, limit=limit, budget=_BUDGET)
        rows, cols = slice(0, self.shape[0]), slice(0, self.shape[1])
        return Ties(*(to_grid(p, rows=rows, cols=cols, step=self.step) for p in found))

    def _window_ties(self, limit: float) -> Ties:
        """Ties of windows in full resolution, spread over the image."""
        parts = []
        for top in _spread(self.shape[0]):
            for left in _spread(self.shape[1]):
                rows = slice(top, min(top + _WINDOW, self.shape[0]))
                cols = slice(left, min(left + _WINDOW, self.shape[1]))
                pair = self.read(rows, cols, step=1.0, motion=IDENTITY)
                found = match_pair(pair, limit=limit, budget=_WINDOW_BUDGET)
                parts.append(Ties(*(to_grid(p, rows=rows, cols=cols, step=1.0) for p in found)))
        return joined(parts)


def _spread(length: int) -> list[int]:
    """Where the windows of the search in full resolution begin along one axis."""
    count = min(_WINDOWS, -(-length // _WINDOW))
    return [int(v) for v in np.linspace(0, max(length - _WINDOW, 0), count).round()]
