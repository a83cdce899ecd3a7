"""Lots: houses and halls with everything around them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from geocd.testing.plan import Box, Building, Colour, Line, Patch, Points, Stage, Street, Surface

_ROOFS: tuple[tuple[Surface, Colour], ...] = (
    ("shingle", (122, 117, 110)),
    ("shingle", (97, 97, 99)),
    ("shingle", (140, 127, 110)),
    ("shingle", (112, 98, 84)),
    ("tile", (146, 102, 84)),
    ("tile", (122, 90, 76)),
    ("tile", (158, 122, 100)),
    ("metal", (214, 215, 214)),
    ("metal", (158, 165, 170)),
)
_ROOF_ODDS = (0.19, 0.14, 0.15, 0.12, 0.12, 0.08, 0.08, 0.06, 0.06)
_CAR_COLOURS: tuple[Colour, ...] = (
    (222, 224, 226), (190, 192, 194), (52, 54, 58), (36, 38, 42), (120, 124, 130),
    (128, 34, 32), (44, 62, 104), (206, 200, 184),
)  # fmt: skip
_CONCRETE: Colour = (206, 200, 188)
_LAWN: Colour = (100, 108, 76)
SOIL: Colour = (166, 144, 116)
_FENCE: Colour = (112, 98, 82)


@dataclass(slots=True)
class Lot:
    """A house with everything that came with it."""

    house: Building
    patches: list[Patch] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    cars: list[tuple[Box, Colour, Stage]] = field(default_factory=list)
    outline: Points = field(default_factory=lambda: np.zeros((0, 2)))


class Ground:
    """What is taken already, on a raster of half metres."""

    def __init__(self, width: float, height: float) -> None:
        self._taken = np.zeros((math.ceil(height * 2), math.ceil(width * 2)), np.uint8)

    def _mask(self, outline: Points) -> tuple[tuple[slice, slice], np.ndarray] | None:
        points = np.round(outline * 2).astype(np.int32)
        low = np.maximum(points.min(axis=0), 0)
        high = np.minimum(points.max(axis=0) + 1, self._taken.shape[::-1])
        if (low >= high).any():
            return None
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(mask, [points - low], 1)
        return (slice(low[1], high[1]), slice(low[0], high[0])), mask

    def free(self, outline: Points) -> bool:
        """Whether nothing stands inside the outline."""
        found = self._mask(outline)
        return found is None or not bool((self._taken[found[0]] & found[1]).any())

    def take(self, outline: Points) -> None:
        """Mark the inside of the outline as taken."""
        found = self._mask(outline)
        if found is not None:
            self._taken[found[0]] |= found[1]

    def release(self, outline: Points) -> None:
        """Mark the inside of the outline as free."""
        found = self._mask(outline)
        if found is not None:
            self._taken[found[0]] &= 1 - found[1]

    def taken_at(self, x: float, y: float) -> bool:
        """Whether something stands at a place; nothing does off the canvas."""
        row, col = int(y * 2), int(x * 2)
        inside = 0 <= row < self._taken.shape[0] and 0 <= col < self._taken.shape[1]
        return inside and bool(self._taken[row, col])


class LotBuilder:
    """Builds lots on ground that is free, and takes it."""

    def __init__(self, rng: np.random.Generator, ground: Ground) -> None:
        self.rng, self.ground = rng, ground

    def style(self, count: int) -> NDArray[np.intp]:
        """The roofs of one neighbourhood: a few numbers of `_ROOFS`."""
        return self.rng.choice(len(_ROOFS), count, p=_ROOF_ODDS)

    def along(self, street: Street, style: NDArray[np.intp], *, fill: float = 0.93) -> list[Lot]:
        """Lots on both sides of a street, where the ground is free."""
        lots: list[Lot] = []
        line = shapely.LineString(street.line)
        for side in (-1, 1):
            s = float(self.rng.uniform(16, 20))
            while s < line.length - 12:
                frontage = float(self.rng.uniform(17.5, 21.5))
                if self.rng.random() < fill:
                    lot = self.lot(line, s + frontage / 2, side, frontage, street, style)
                    if lot is not None:
                        lots.append(lot)
                s += frontage
        return lots

    def lot(
        self,
        line: shapely.LineString,
        s: float,
        side: int,
        frontage: float,
        street: Street,
        style: NDArray[np.intp],
    ) -> Lot | None:
        """A house, its drive, lawn, fence and yard; None where something is in the way."""
        rng = self.rng
        here, ahead = line.interpolate(s), line.interpolate(s + 0.5)
        back = line.interpolate(s - 0.5)
        along = np.array([ahead.x - back.x, ahead.y - back.y])
        along /= np.hypot(*along)
        # Along and across are a right-handed pair; turning the first by half a turn on one
        # side of the street makes "across" point away from it on both.
        along = along * side
        depth = float(rng.uniform(10.5, 14.0))
        setback = street.width / 2 + float(rng.uniform(8.0, 10.5)) + depth / 2
        away = np.array([-along[1], along[0]])
        centre = np.array([here.x, here.y]) + away * setback
        axis = (float(along[0]), float(along[1]))
        box = Box(
            (float(centre[0]), float(centre[1])), axis,
            frontage - float(rng.uniform(2.8, 4.4)), depth,
        )  # fmt: skip
        # The circle of a dead end reaches further than the carriageway.
        if not self.ground.free(box.corners(1.0)):
            return None
        house = self.house(box, style)
        for part in house.boxes:
            self.ground.take(part.corners(0.8))
        lot = Lot(house, outline=box.corners(1.5))
        self.furnish(lot, box, setback - street.width / 2, frontage)
        return lot

    def house(self, box: Box, style: NDArray[np.intp]) -> Building:
        """A house over one, two or three boxes."""
        rng = self.rng
        end = float(rng.choice([-1.0, 1.0]))
        parts = [box]
        # The wing with the garage reaches towards the street, across the ridge of the house.
        width = float(rng.uniform(6.6, 8.0))
        u = end * (box.length - width) / 2
        wing = Box(box.point(u, -box.depth * 0.42), box.across, box.depth * 0.85, width)
        parts.append(wing)
        if rng.random() < 0.45:
            spot = box.point(-u * 0.8, box.depth * 0.4)
            parts.append(Box(spot, box.across, box.depth * 0.6, 5.6))
        surface, colour = _ROOFS[int(rng.choice(style))]
        flat = rng.random() < 0.05
        return Building(
            tuple(parts),
            "flat" if flat else ("hip" if rng.random() < 0.62 else "gable"),
            "membrane" if flat else surface,
            vary(rng, colour, 9),
            float(rng.uniform(3.2, 4.8)),
            float(rng.uniform(0.45, 0.75)),
            int(rng.integers(1 << 31)),
        )

    def furnish(self, lot: Lot, box: Box, reach: float, frontage: float) -> None:
        """Lawn, drive, fence, patio, pool, shed and a car for a lot."""
        rng = self.rng
        half, rear = frontage / 2 - 0.2, box.depth / 2 + float(rng.uniform(8, 12))
        yard = np.array([box.point(u, v) for u, v in (
            (-half, -reach + 1.2), (half, -reach + 1.2), (half, rear), (-half, rear))])  # fmt: skip
        lush = float(rng.uniform(-0.5, 1.0))
        lawn = tuple(c + lush * d for c, d in zip(_LAWN, (-10, 3, -8), strict=True))
        lot.patches.append(Patch(yard, "lawn", vary(rng, (lawn[0], lawn[1], lawn[2]), 5)))
        wing = lot.house.boxes[1]
        (wx, wy), (cx, cy) = wing.centre, box.centre
        u = (wx - cx) * box.along[0] + (wy - cy) * box.along[1]
        drive = [(u - 2.6, -box.depth / 2), (u + 2.6, -box.depth / 2),
                 (u + 3.0, -reach - 0.6), (u - 3.0, -reach - 0.6)]  # fmt: skip
        drive_outline = np.array([box.point(*p) for p in drive])
        lot.patches.append(Patch(drive_outline, "concrete", vary(rng, _CONCRETE, 9)))
        if rng.random() < 0.45:
            car = self.car(box.point(u, -reach + 3.0), box.across, "both")
            lot.cars.append(car)
        if rng.random() < 0.6:
            patio = Box(box.point(-u * 0.5, box.depth / 2 + 1.8), box.along, 5.0, 3.6)
            lot.patches.append(Patch(patio.corners(), "concrete", vary(rng, (164, 156, 142), 9)))
        if rng.random() < 0.1:
            pool = Box(box.point(u * 0.4, box.depth / 2 + 6), box.along, 7.5, 3.8)
            lot.patches.append(Patch(pool.corners(0.8), "concrete", (196, 190, 178)))
            lot.patches.append(Patch(pool.corners(), "paint", (72, 158, 178)))
        if rng.random() < 0.75:
            fence = np.array([box.point(a, b) for a, b in (
                (-half, -box.depth * 0.2), (-half, rear), (half, rear), (half, -box.depth * 0.2)
            )])  # fmt: skip
            lot.lines.append(Line(fence, 0.22, vary(rng, _FENCE, 8), 1.7))

    def hall(self, box: Box) -> Lot:
        """A hall with its car park, stalls marked and half of them taken."""
        white = self.rng.random() < 0.6
        shade = float(self.rng.uniform(212, 240) if white else self.rng.uniform(150, 185))
        parts = [box]
        if self.rng.random() < 0.5:
            wing = box.point(box.length * 0.3, -box.depth * 0.55)
            parts.append(Box(wing, box.along, box.length * 0.3, box.depth * 0.5))
        surface: Surface = "metal" if self.rng.random() < 0.35 else "membrane"
        house = Building(
            tuple(parts), "flat", surface, (shade, shade, shade * 0.97),
            float(self.rng.uniform(6, 9)), 0.0, int(self.rng.integers(1 << 31)),
        )  # fmt: skip
        apron = Box(box.point(0, 13), box.along, box.length + 14, box.depth + 34)
        lot = Lot(house, outline=apron.corners())
        lot.patches.append(Patch(apron.corners(), "asphalt", vary(self.rng, (128, 126, 122), 8)))
        for row in (box.depth / 2 + 9, box.depth / 2 + 22):
            for u in np.arange(-box.length / 2, box.length / 2, 2.7):
                stall = np.array([box.point(u, row - 2.5), box.point(u, row + 2.5)])
                lot.lines.append(Line(stall, 0.18, (196, 196, 192)))
                if self.rng.random() < 0.5:
                    lot.cars.append(self.car(box.point(u + 1.35, row), box.across, "both"))
        return lot

    def car(self, spot: tuple[float, float], along: tuple[float, float], stage: Stage) -> tuple[
        Box, Colour, Stage
    ]:  # fmt: skip
        """A car of some colour."""
        colour = _CAR_COLOURS[int(self.rng.integers(len(_CAR_COLOURS)))]
        return Box(spot, along, float(self.rng.uniform(4.2, 5.0)), 1.9), colour, stage


def vary(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """The colour, lighter or darker by about ``spread``, its hue a little."""
    red, green, blue = np.array(colour) + rng.normal(0, spread) + rng.normal(0, spread / 4, 3)
    return float(red), float(green), float(blue)
