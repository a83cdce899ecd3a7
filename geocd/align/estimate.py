"""How the after image lies on the before image: estimated coarsely, then finely, then judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from affine import Affine

from geocd.align.alignment import Alignment, unaligned
from geocd.align.field import IDENTITY, Motion
from geocd.align.gate import Evidence, judge, refined_evidence, split_evidence, supported
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
_FINER = 2.0
"""How many times finer the next overview is."""
_QUICK_STEP = 6.0
"""Pixels to one of the first look at most: blocks must be met within some pixels afterwards."""
_MIN_SIDE = 32
"""Shorter side, in pixels, below which an image holds too little to be aligned."""
_DEFAULTS = AlignConfig()


def estimate(
    read: PairReader, shape: tuple[int, int], *, config: AlignConfig, seed: int = 0
) -> Alignment:
    """The motion between two images on one grid, and whether to apply it.

    Features of the whole image, decimated, give a first motion; where that fails, those of finer
    overviews, or the features or the phase of some windows in full resolution do. Blocks of full
    resolution all over the image then say whether a shift, an affine map or a local field
    explains them best. Tie points kept apart are the judges, at either stage. Images that cannot
    be aligned are refused with a reason, never by an exception.

    Args:
        read: gives gray windows of the pair; never asked for more than 1100 pixels or twice
            ``config.overview_size`` a side. What is kept of them has a bound, 150 MB.
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
    task = _Task(read, shape, _overview(read, shape, _first_size(shape, config)), config, seed)
    for name, valid in zip(("before", "after"), task.seen, strict=True):
        if not valid.any():
            return unaligned("refused", f"the {name} image holds no valid pixel")
    if not task.observed.any():
        return unaligned("refused", "no pixel is valid on both dates")
    coarse, start = task.coarse()
    return coarse if start is None else task.refined(coarse, start)


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
class _Overview:
    """The whole image, decimated."""

    pair: GrayPair
    step: float


def _first_size(shape: tuple[int, int], config: AlignConfig) -> int:
    """Longest side of the first overview: half of the configured one does for most images."""
    quick = round(config.overview_size / _FINER)
    return quick if max(shape) <= _QUICK_STEP * quick else config.overview_size


def _overview(read: PairReader, shape: tuple[int, int], size: int) -> _Overview:
    step = max(1.0, max(shape) / size)
    rows, cols = slice(0, shape[0]), slice(0, shape[1])
    return _Overview(read(rows, cols, step=step, motion=IDENTITY), step)


@dataclass(frozen=True, slots=True)
class _Task:
    """One pair under estimation: what every step needs to know."""

    read: PairReader
    shape: tuple[int, int]
    overview: _Overview
    config: AlignConfig
    seed: int

    @property
    def seen(self) -> tuple[MaskArray, MaskArray]:
        """Where each date was observed, decimated."""
        return self.overview.pair.valid_reference, self.overview.pair.valid_moving

    @property
    def observed(self) -> MaskArray:
        """Where both dates were observed, decimated."""
        return self.seen[0] & self.seen[1]

    def coarse(self) -> tuple[Alignment, Motion | None]:
        """The verdict on the first motion that ties support, and that motion.

        The cheapest source of ties comes first. Where none supports a motion, the verdict is
        that of the first.
        """
        first = None
        for source in self._sources():
            if source is None:
                continue
            verdict = self._judge(source)
            start = supported(source, self.observed, self.shape, config=self.config)
            if start is not None:
                return verdict, start
            first = first or verdict
        return first or unaligned("refused", "too few tie points were found"), None

    def _sources(self) -> Iterator[Evidence | None]:
        """Candidates with their ties, from the cheapest to the dearest; None: nothing found."""
        size = self.config.overview_size
        overview = self.overview
        yield self._by_features(overview)
        if overview.step > max(1.0, max(self.shape) / size):
            overview = _overview(self.read, self.shape, size)
            yield self._by_features(overview)
        if overview.step > 1:
            if overview.step >= _FINER:
                finer = round(max(self.shape) * _FINER / overview.step)
                yield self._by_features(_overview(self.read, self.shape, finer))
            yield self._by_windows()
        yield self._by_phase(overview)

    def _by_features(self, overview: _Overview) -> Evidence | None:
        """The motion that features of the whole image show."""
        limit = self.config.max_shift + _TOLERANCE * overview.step
        found = match_pair(overview.pair, limit=limit / overview.step, budget=_BUDGET)
        rows, cols = slice(0, self.shape[0]), slice(0, self.shape[1])
        ties = Ties(*(to_grid(p, rows=rows, cols=cols, step=overview.step) for p in found))
        return self._from_ties(ties, limit=limit, scale=overview.step)

    def _by_windows(self) -> Evidence | None:
        """The motion that features of windows show: decimation may take all texture away."""
        limit = self.config.max_shift + _TOLERANCE
        return self._from_ties(self._window_ties(limit), limit=limit, scale=1.0)

    def _by_phase(self, overview: _Overview) -> Evidence | None:
        """The shift that phase correlation shows."""
        step = overview.step
        found = correlate(overview.pair, limit=self.config.max_shift / step)
        if found is None:
            return None
        start = Affine.translation(found[0] * step, found[1] * step)
        limit = 8 + 2 * step
        ties = window_ties(self.read, self.shape, motion=start, limit=limit)
        motion = middle_shift(ties.even, _TOLERANCE)
        if motion is None:
            return None
        tolerance = min(_TOLERANCE, limit / 4)
        return split_evidence(
            "phase", "shift", Motion(motion), ties.even, ties.odd, tolerance=tolerance,
            chance=(tolerance / limit) ** 2, reach=max(self.shape) / 4,
        )  # fmt: skip

    def _from_ties(self, ties: Ties, *, limit: float, scale: float) -> Evidence | None:
        """The candidate of ties sought within ``limit`` px and exact to ``scale`` px."""
        tolerance = min(_TOLERANCE * scale, limit / 4)
        fit, held = ties.split(self.seed)
        turning = self.config.mode != "shift"
        motions = candidates(fit, tolerance=tolerance, seed=self.seed, turning=turning)
        if not motions:
            return None
        motion = simplest(self._plausible(motions), held, tolerance=tolerance)
        return split_evidence(
            "features", "shift" if motion == motions[0] else "affine", Motion(motion), fit,
            held, tolerance=tolerance, chance=(tolerance / limit) ** 2,
            reach=max(self.shape) / 4,
        )  # fmt: skip

    def refined(self, coarse: Alignment, start: Motion) -> Alignment:
        """The verdict on the simplest motion that blocks of full resolution speak for.

        The coarse one stands where the image is too small or too smooth for blocks.
        """
        found = refine(
            self.read, self.shape, start=start.affine, mode=self.config.mode,
            exact=coarse.method == "phase",
        )  # fmt: skip
        if found is None:
            return coarse
        spacing = block_side(self.shape)
        return self._judge(refined_evidence(coarse.method, found, spacing=spacing))

    def _judge(self, evidence: Evidence) -> Alignment:
        return judge(evidence, self.observed, self.shape, config=self.config)

    def _plausible(self, motions: list[Affine]) -> list[Affine]:
        """The shift, and the affine map unless two images on one grid cannot differ so."""
        limit = self.config.max_shift
        return motions[:1] + [
            m for m in motions[1:] if implausible(Motion(m), self.shape, max_shift=limit) is None
        ]

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
