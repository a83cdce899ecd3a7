"""Whether the windows that a raster is cut into can be seen in its scores.

A pair is scored twice, the second time without its first rows and columns, so that windows begin
elsewhere. Where scores of the two runs differ more beside the borders of windows than far from
them, seams show.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from geocd.assess.metrics import finite, ratio
from geocd.assess.sample import LabelledClass
from geocd.config import NOT_OBSERVED, SCORE_SCALE, AlignConfig, DetectConfig, TilingConfig
from geocd.errors import GeocdWarning
from geocd.models.card import WeightsCard
from geocd.pipeline import detect
from geocd.rasters.pair import LARGE, RasterPair, open_pair
from geocd.tiling.windows import starts
from geocd.training.datasets import GeoreferencedPair, LabelledPair, read_pixels
from geocd.words import counted

Scores = NDArray[np.uint8]

_NEAR = 8
"""Pixels of the reading grid beside a border that count as the border."""
_FAR = 32
"""Pixels from any border beyond which the interior begins."""
_MOST_PAIRS = 10
_MOST_SIDE = 2048
"""Pixels each way that are compared of a large pair, whose windows do not move with its corner."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How two runs differ on the same pixels."""

    pixels: int = 0
    apart: float = 0.0
    """Sum of the differences of scores, each 0..1."""
    flipped: int = 0
    """Pixels on two sides of the threshold."""

    def __add__(self, other: Disagreement) -> Disagreement:
        return Disagreement(self.pixels + other.pixels, self.apart + other.apart,
                            self.flipped + other.flipped)  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "pixels": self.pixels,
            "mean_difference": finite(ratio(self.apart, self.pixels)),
            "flipped": finite(ratio(self.flipped, self.pixels)),
        }


@dataclass(frozen=True, slots=True)
class SeamAudit:
    """Disagreement beside the borders of windows and far from them."""

    border: Disagreement = Disagreement()
    interior: Disagreement = Disagreement()
    pairs: int = 0

    def __add__(self, other: SeamAudit) -> SeamAudit:
        return SeamAudit(self.border + other.border, self.interior + other.interior,
                         self.pairs + other.pairs)  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "pairs": self.pairs,
            "border": self.border.to_dict(),
            "interior": self.interior.to_dict(),
        }

    def report(self) -> str:
        """One line."""
        if not self.pairs:
            return "seams: no pair is larger than one window, so there are none"
        border, interior = self.border.to_dict(), self.interior.to_dict()

        def _words(value: float | None, form: str) -> str:
            return "an unknown share" if value is None else format(value, form)

        apart, sides = (
            " and ".join(_words(side[name], form) for side in (border, interior))
            for name, form in (("mean_difference", ".4f"), ("flipped", ".3%"))
        )
        return (
            f"seams, {counted(self.pairs, 'pair')} with windows moved: beside borders of windows "
            f"and far from them, scores differ by {apart}, and {sides} of the pixels change sides"
        )


def audit_seams(
    pairs: Sequence[LabelledPair],
    labelled: LabelledClass,
    card: WeightsCard,
    config: DetectConfig,
    *,
    scratch: Path,
    progress: Callable[[int, int], None] | None = None,
) -> SeamAudit:
    """Audit up to ten pairs that are larger than one window, evenly spread over a set.

    Alignment is off in both runs, so that they see the same pixels.

    Args:
        pairs: of a set; those whose dates are no single files are left out.
        labelled: the class whose scores are compared, with its threshold.
        card: of the weights.
        config: as for ``detect``.
        scratch: folder for temporary files.
        progress: called with pairs done and pairs in all.
    """
    config = replace(config, align=AlignConfig(mode="off"))
    files = [p for p in pairs if p.before.is_file() and p.after.is_file()]
    step = max(1, math.ceil(len(files) / _MOST_PAIRS))
    chosen = files[::step]
    audit = SeamAudit()
    for done, pair in enumerate(chosen, 1):
        audit += _audit_pair(pair, labelled, card, config, scratch)
        if progress:
            progress(done, len(chosen))
    return audit


def _audit_pair(
    pair: LabelledPair, labelled: LabelledClass, card: WeightsCard, config: DetectConfig,
    scratch: Path,
) -> SeamAudit:  # fmt: skip
    if isinstance(pair, GeoreferencedPair):
        config = replace(config, bands=pair.bands or config.bands, gsd=pair.gsd or config.gsd)
    opened = _opened(pair.before, pair.after, card, config)
    first = pair.before
    if opened.grid.height * opened.grid.width > LARGE and opened.grid.crs is not None:
        first = _cut(first, _middle(opened), scratch / "middle.tif")
        opened = _opened(first, pair.after, card, config)
    reading, shape = opened.grid.shape, opened.output_grid.shape
    moved = tuple(
        round(_half_step(length, config.tiling) * out / length)
        for length, out in zip(reading, shape, strict=True)
    )
    if not any(moved):
        return SeamAudit()
    place = slice(moved[0], None), slice(moved[1], None)
    before = _cut(first, place, scratch / "before.tif")
    after = pair.after
    if opened.output_grid.crs is None:
        # Without georeferencing the dates lie on one another pixel by pixel.
        after = _cut(after, place, scratch / "after.tif")
    whole = _scores(first, pair.after, config, scratch)[..., labelled.band]
    again = _scores(before, after, config, scratch)[..., labelled.band]
    apart = _border_distance(opened, config.tiling)
    # Both runs have borders, and each may be wrong beside its own; a cut is one of them.
    theirs = _border_distance(_opened(before, after, card, config), config.tiling, cut=True)
    return _compare(whole[place], again, np.minimum(apart[place], theirs), labelled.threshold)


def _opened(before: Path, after: Path, card: WeightsCard, config: DetectConfig) -> RasterPair:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeocdWarning)  # detect warns of what matters
        return open_pair(
            before, after, channels=len(card.bands), gsd_range=card.gsd,
            bands=config.bands, gsd=config.gsd, pixel_size=config.pixel_size,
        )  # fmt: skip


def _half_step(length: int, tiling: TilingConfig) -> int:
    """Half of the way from one window to the next; 0 where there is one only."""
    first = starts(length, tiling.tile_size, tiling.overlap)
    return (first[1] - first[0]) // 2 if len(first) > 1 else 0


def _middle(pair: RasterPair) -> tuple[slice, slice]:
    """Rows and columns of before's grid amid the ground of a pair."""
    found = pair.output_grid.slices_over(pair.grid.footprint)
    rows, cols = found or (slice(0, length) for length in pair.output_grid.shape)
    return _amid(rows), _amid(cols)


def _amid(span: slice) -> slice:
    length = min(span.stop - span.start, _MOST_SIDE)
    first = (span.start + span.stop - length) // 2
    return slice(first, first + length)


def _cut(path: Path, place: tuple[slice, slice], target: Path) -> Path:
    """A copy of some rows and columns of a raster."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            window = Window.from_slices(*place, height=source.height, width=source.width)
            height, width = round(window.height), round(window.width)
            profile = {
                "driver": "GTiff", "height": height, "width": width, "count": source.count,
                "dtype": source.dtypes[0], "nodata": source.nodata, "crs": source.crs,
            }  # fmt: skip
            if source.crs is not None:
                profile["transform"] = source.window_transform(window)
            with rasterio.open(target, "w", **profile) as copy:
                copy.write(source.read(window=window))
                copy.colorinterp = source.colorinterp
    return target


def _scores(before: Path, after: Path, config: DetectConfig, scratch: Path) -> Scores:
    path = scratch / "seams.tif"
    detect(before, after, scratch / "seams.gpkg", scores=path, config=config, overwrite=True)
    return read_pixels(path)


def _border_distance(
    pair: RasterPair, tiling: TilingConfig, *, cut: bool = False
) -> NDArray[np.float64]:
    """Pixels of the reading grid to the nearest border of a window within it, on before's grid."""
    sides = zip(pair.grid.shape, pair.output_grid.shape, strict=True)
    rows, cols = (_along(length, out, tiling, cut=cut) for length, out in sides)
    return np.minimum(rows[:, None], cols[None])


def _along(
    length: int, out: int, tiling: TilingConfig, *, cut: bool = False
) -> NDArray[np.float64]:
    first = starts(length, tiling.tile_size, tiling.overlap)
    edges = np.array(
        [*first[0 if cut else 1 :], *(s + tiling.tile_size for s in first[:-1])], float
    )
    centres = (np.arange(out) + 0.5) * length / out
    if not len(edges):
        return np.full(out, np.inf)
    return np.asarray(np.abs(centres[:, None] - edges).min(axis=1))


def _compare(
    first: Scores, second: Scores, apart: NDArray[np.float64], threshold: float
) -> SeamAudit:
    known = (first != NOT_OBSERVED) & (second != NOT_OBSERVED)
    difference = np.abs(first.astype(np.float32) - second) / SCORE_SCALE
    limit = np.float32(threshold) * SCORE_SCALE
    flipped = (first >= limit) != (second >= limit)

    def _of(pixels: NDArray[np.bool_]) -> Disagreement:
        return Disagreement(int(pixels.sum()), float(difference[pixels].sum()),
                            int(flipped[pixels].sum()))  # fmt: skip

    return SeamAudit(_of(known & (apart <= _NEAR)), _of(known & (apart > _FAR)), 1)
