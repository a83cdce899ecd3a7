"""Labelled tiles that are painted: no imagery, and so no terms but those of this program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry

from geocd.testing.camera import Light
from geocd.testing.plan import Suburb
from geocd.testing.render import render
from geocd.testing.towns import TOWN_KINDS, TownKind, plan_town

SIZE = 512
"""Side of a painted tile, pixels."""
_ODDS = {
    "suburb": 0.22, "blocks": 0.16, "slabs": 0.14, "industry": 0.20, "village": 0.12, "open": 0.16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PaintedTile:
    """A painted place on one date.

    Attributes:
        image: RGB, shape (height, width, 3), uint8.
        labels: buildings and roads, shape (2, height, width), uint8: 0 or 1, known everywhere.
        kind: what sort of place it is.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    kind: TownKind


def paint_tile(
    seed: Sequence[int], *, gsd: float, size: int = SIZE, kind: TownKind | None = None
) -> PaintedTile:
    """A place as a labelled aerial photograph; equal arguments give equal pixels.

    Towns of several kinds, and land without any building: car parks, ploughed fields, quarries,
    water with glint, building sites. A roof is a building, a carriageway is a road; drives, car
    parks, containers and lorries are neither.

    Args:
        seed: decides everything that the other arguments leave open.
        gsd: metres per pixel.
        size: side of the tile, pixels.
        kind: what sort of place; None: the seed decides.
    """
    rng = np.random.default_rng(list(seed))
    drawn: TownKind = TOWN_KINDS[int(rng.choice(len(TOWN_KINDS), p=list(_ODDS.values())))]
    kind = kind or drawn
    town_seed = int(rng.integers(1 << 31))
    town = plan_town(size * gsd, size * gsd, seed=town_seed, kind=kind)
    shape = (size, size)
    image = render(town, "before", _light(rng), shape=shape, gsd=gsd, seed=town_seed)
    return PaintedTile(
        np.ascontiguousarray(image.transpose(1, 2, 0)), _labels(town, shape, gsd), kind
    )


def _light(rng: Generator) -> Light:
    """Any season, hour and camera."""
    red, green, blue = 1 + rng.normal(0, 0.04, 3)
    return Light(
        azimuth=float(rng.uniform(80, 280)),
        elevation=float(rng.uniform(26, 64)),
        lushness=float(rng.uniform(0.05, 0.95)),
        sky=float(rng.uniform(0.10, 0.24)),
        gains=(float(red), float(green), float(blue)),
        haze=float(rng.uniform(0.0, 0.10)),
        exposure=float(np.exp(rng.normal(0, 0.14))),
        blur=float(rng.uniform(0.35, 0.8)),
        sharpening=float(rng.uniform(0.2, 1.0)),
        noise=float(rng.uniform(0.6, 2.6)),
        quality=int(rng.integers(78, 97)),
    )


def _labels(town: Suburb, shape: tuple[int, int], gsd: float) -> NDArray[np.uint8]:
    """Buildings and roads, shape (2, height, width); where both would be, the roof is seen."""
    to_metres = Affine.scale(gsd)

    def _burnt(things: list[BaseGeometry]) -> NDArray[np.uint8]:
        if not things:
            return np.zeros(shape, np.uint8)
        burnt = rasterize(
            [(thing, 1) for thing in things], out_shape=shape, transform=to_metres, dtype="uint8"
        )
        return np.asarray(burnt, np.uint8)

    buildings = _burnt([building.polygon for building in town.buildings])
    roads = _burnt([street.polygon for street in town.streets])
    return np.stack([buildings, roads & ~buildings & 1])
