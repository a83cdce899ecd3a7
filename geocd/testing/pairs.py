"""Painted pairs as arrays, for what must look like photographs and needs no truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

from geocd.testing.camera import Light
from geocd.testing.render import render
from geocd.testing.suburb import plan_suburb

_BLOCK = 512
"""Side of a painted place, pixels; windows are cut from it."""


def paint_pairs(
    number: int, *, gsd: float, bands: int = 3, size: int = 256
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Windows of suburbs on two dates, each (bands, size, size); equal arguments, equal pixels.

    Args:
        number: how many.
        gsd: metres per pixel.
        bands: red, green and blue, and over again.
        size: side of a window, a divisor of 512 pixels.
    """
    rng = np.random.default_rng(number)
    per_side = _BLOCK // size
    order = [index % 3 for index in range(bands)]
    for index in range(number):
        place, cell = divmod(index, per_side**2)
        if cell == 0:
            before, after = (image[order] for image in _paint_place(place, gsd, rng))
        row, col = (size * start for start in divmod(cell, per_side))
        window = (slice(None), slice(row, row + size), slice(col, col + size))
        yield before[window], after[window]


def _paint_place(seed: int, gsd: float, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """A place before and after, (3, 512, 512) each, in any light."""
    side = _BLOCK * gsd
    suburb = plan_suburb(
        side, side, seed=seed, buildings_appeared=4, buildings_disappeared=2, roads_appeared=0,
        observed=shapely.box(0, 0, side, side),
    )  # fmt: skip
    images = []
    for stage in ("before", "after"):
        light = Light(
            azimuth=float(rng.uniform(90, 270)), elevation=float(rng.uniform(28, 60)),
            lushness=float(rng.uniform(0.1, 0.9)), haze=float(rng.uniform(0, 0.1)),
            exposure=float(rng.uniform(0.8, 1.2)),
        )  # fmt: skip
        images.append(render(suburb, stage, light, shape=(_BLOCK, _BLOCK), gsd=gsd, seed=seed))
    return images
