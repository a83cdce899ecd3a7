"""Land without buildings, much of which looks as if there were some."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from geocd.testing.lots import SOIL, vary
from geocd.testing.plan import Box, Building, Colour, Field, Line, Patch, Points

if TYPE_CHECKING:
    from geocd.testing.suburb import Planner

LANDS = ("plough", "car_park", "quarry", "water", "pitches", "site", "containers", "meadow")
"""Ploughed fields, car parks, quarries, water with glint, sports pitches, building sites, yards
of containers, mown strips."""

_CROPS: tuple[Colour, ...] = (
    (104, 111, 79), (142, 128, 92), (128, 106, 84), (112, 116, 78), (164, 148, 116),
    (98, 82, 66), (184, 172, 128), (86, 104, 60),
)  # fmt: skip
_COURTS: tuple[Colour, ...] = ((92, 124, 74), (168, 92, 66), (74, 104, 140), (84, 118, 92))
_BOXES: tuple[Colour, ...] = (
    (150, 60, 46), (58, 84, 124), (196, 192, 184), (176, 120, 60), (70, 104, 78), (120, 122, 126),
)  # fmt: skip
_WHITE: Colour = (208, 208, 204)
Cell = tuple[float, float, float, float]


class LandBuilder:
    """Fills cells of a planner's frame with land, and takes the ground.

    Args:
        planner: owns the frame, the plan and the generator.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner, self.rng, self.town = planner, planner.rng, planner.suburb

    def fill(self, use: str, cell: Cell) -> None:
        """Fill a cell (u0, u1, v0, v1) with one of `LANDS`."""
        getattr(self, f"_{use}")(cell)
        if use != "plough":
            self.planner.ground.take(self.planner.rectangle(*cell))

    def _direction(self, cell: Cell) -> tuple[float, float]:
        u0, u1, v0, v1 = cell
        middle = (u0 + u1) / 2, (v0 + v1) / 2
        turned = bool(self.rng.random() < 0.5)
        here = self.planner.at(*middle)[0]
        there = self.planner.at(middle[0] + (not turned), middle[1] + turned)[0]
        return float(there[0] - here[0]), float(there[1] - here[1])

    def _plough(self, cell: Cell) -> None:
        """One to four strips, each with furrows of its own."""
        u0, u1, v0, v1 = cell
        strips = int(self.rng.integers(1, 5))
        edges = np.linspace(u0 - 3, u1 + 3, strips + 1)
        for low, high in itertools.pairwise(edges):
            crop = vary(self.rng, _CROPS[int(self.rng.integers(len(_CROPS)))], 8)
            self.town.fields.append(
                Field(
                    self.planner.rectangle(low, high, v0 - 3, v1 + 3), self._direction(cell),
                    float(self.rng.uniform(1.6, 7.0)), crop, crop,
                    int(self.rng.integers(1 << 31)),
                )
            )  # fmt: skip

    def _meadow(self, cell: Cell) -> None:
        self._plough(cell)
        self.planner.parks.append(self.planner.rectangle(*cell))

    def _car_park(self, cell: Cell) -> None:
        """Asphalt from edge to edge, with rows of stalls."""
        u0, u1, v0, v1 = cell
        grey = float(self.rng.uniform(95, 165))
        colour = vary(self.rng, (grey, grey - 1, grey - 5), 4)
        self.town.patches.append(Patch(self.planner.rectangle(*cell), "asphalt", colour))
        filled = float(self.rng.uniform(0.05, 0.9))
        for v in np.arange(v0 + 10, v1 - 8, 17.5):
            here, ahead = self.planner.at((u0 + u1) / 2, v)[0], self.planner.at(u1, v)[0]
            along = (ahead - here) / np.hypot(*(ahead - here))
            box = Box((float(here[0]), float(here[1])), (float(along[0]), float(along[1])),
                      0.92 * (u1 - u0), 15)  # fmt: skip
            self.park(box, filled=filled)

    def park(self, box: Box, *, filled: float | None = None) -> None:
        """Two rows of stalls face to face in a box, some of them taken."""
        if filled is None:
            grey = float(self.rng.uniform(105, 150))
            colour = vary(self.rng, (grey, grey, grey - 4), 4)
            self.town.patches.append(Patch(box.corners(), "asphalt", colour))
            self.planner.ground.take(box.corners())
            filled = float(self.rng.uniform(0.1, 0.9))
        for v in (-box.depth / 2 + 2.6, box.depth / 2 - 2.6):
            for u in np.arange(-box.length / 2 + 1, box.length / 2 - 2, 2.6):
                stall = np.array([box.point(u, v - 2.5), box.point(u, v + 2.5)])
                self.town.lines.append(Line(stall, 0.15, _WHITE))
                if self.rng.random() < filled:
                    spot = box.point(u + 1.3, v + float(self.rng.normal(0, 0.2)))
                    self.town.cars.append(self.planner.builder.car(spot, box.across, "both"))

    def _containers(self, cell: Cell) -> None:
        """Stacks in rows on gravel or concrete."""
        u0, u1, v0, v1 = cell
        colour = vary(self.rng, (158, 150, 138), 12)
        self.town.patches.append(Patch(self.planner.rectangle(*cell), "concrete", colour))
        for v in np.arange(v0 + 12, v1 - 10, 22.0):
            here, ahead = self.planner.at((u0 + u1) / 2, v)[0], self.planner.at(u1, v)[0]
            along = (ahead - here) / np.hypot(*(ahead - here))
            self.stack(Box((float(here[0]), float(here[1])),
                           (float(along[0]), float(along[1])), 0.9 * (u1 - u0), 14))  # fmt: skip

    def stack(self, box: Box) -> None:
        """Containers or lorries side by side in a box."""
        length = float(self.rng.choice([6.1, 12.2, 15.0]))
        for v in np.arange(-box.depth / 2 + length / 2, box.depth / 2 - length / 3, length + 0.8):
            for u in np.arange(-box.length / 2 + 2, box.length / 2 - 2, 3.2):
                if self.rng.random() < 0.35:
                    continue
                unit = Box(box.point(u, v), box.across, length, 2.5)
                paint = vary(self.rng, _BOXES[int(self.rng.integers(len(_BOXES)))], 8)
                height = 2.6 * float(self.rng.integers(1, 3))
                self.town.clutter.append(
                    Building((unit,), "flat", "paint", paint, height, 0.0,
                             int(self.rng.integers(1 << 31)))
                )  # fmt: skip

    def _blob(self, cell: Cell, share: float, *, wobble: float = 0.18) -> Points:
        """A closed smooth outline inside a cell, shape (64, 2)."""
        u0, u1, v0, v1 = cell
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        radius = np.full(64, share)
        for wave in range(2, 6):
            phase = self.rng.uniform(0, 2 * np.pi)
            radius *= 1 + wobble / wave * 2 * np.cos(wave * angle + phase)
        u = (u0 + u1) / 2 + radius * np.cos(angle) * (u1 - u0) / 2
        v = (v0 + v1) / 2 + radius * np.sin(angle) * (v1 - v0) / 2
        return self.planner.at(u, v)

    def _quarry(self, cell: Cell) -> None:
        """Terraces of bright rock, each with a wall that casts a shadow, and a pool."""
        base = np.array([(196, 182, 156), (172, 160, 144), (178, 142, 108)][self.rng.integers(3)])
        for level in range(5):
            outline = self._blob(cell, 0.98 - 0.19 * level, wobble=0.12)
            tone = vary(self.rng, tuple(base * (1 - 0.05 * level)), 8)
            self.town.patches.append(Patch(outline, "soil", tone, ragged=level == 0))
            closed = np.concatenate([outline, outline[:1]])
            self.town.lines.append(Line(closed, 0.8, tone, float(self.rng.uniform(1.5, 5))))
        if self.rng.random() < 0.4:
            pool = self._blob(cell, 0.18)
            self.town.patches.append(Patch(pool, "water", (70, 108, 104), glint=0.2))

    def _water(self, cell: Cell) -> None:
        """A lake with a sandy shore, dark or turbid, calm or full of glint."""
        shore = vary(self.rng, (168, 156, 128), 10)
        outline = self._blob(cell, 0.95)
        self.town.patches.append(Patch(outline, "soil", shore, ragged=True))
        middle = outline.mean(axis=0)
        tones: tuple[Colour, ...] = ((52, 66, 70), (66, 88, 82), (96, 104, 88), (44, 56, 50))
        colour = vary(self.rng, tones[int(self.rng.integers(4))], 6)
        glint = float(self.rng.choice([0.0, 0.15, 0.5, 0.9]))
        inside = middle + 0.95 * (outline - middle)
        self.town.patches.append(Patch(inside, "water", colour, glint=glint))

    def _pitches(self, cell: Cell) -> None:
        """Sports grounds in strong colours, with lines."""
        u0, u1, v0, v1 = cell
        self.planner.parks.append(self.planner.rectangle(*cell))
        courts = self.rng.random() < 0.5
        long, deep = (36.0, 18.0) if courts else (min(100.0, 0.9 * (u1 - u0)), 62.0)
        colour = _COURTS[int(self.rng.integers(len(_COURTS)))] if courts else _COURTS[0]
        for v in np.arange(v0 + deep / 2 + 2, v1 - deep / 2, deep + 4):
            for u in np.arange(u0 + long / 2 + 2, u1 - long / 2, long + 4):
                here, ahead = self.planner.at(u, v)[0], self.planner.at(u + 1, v)[0]
                along = (ahead - here) / np.hypot(*(ahead - here))
                spot = (float(here[0]), float(here[1]))
                pitch = Box(spot, (float(along[0]), float(along[1])), long, deep)
                self.town.patches.append(Patch(pitch.corners(), "paint", vary(self.rng, colour, 5)))
                for grow in (-1.5, -0.3 * deep):
                    ring = pitch.corners(grow)
                    self.town.lines.append(Line(np.concatenate([ring, ring[:1]]), 0.2, _WHITE))

    def _site(self, cell: Cell) -> None:
        """Bare soil with heaps, foundations, tracks and a few containers."""
        rng = self.rng
        tone = vary(rng, SOIL, 14)
        self.town.patches.append(Patch(self._blob(cell, 0.98, wobble=0.06), "soil", tone,
                                       ragged=True))  # fmt: skip
        u0, u1, v0, v1 = cell
        for _ in range(int(rng.integers(3, 9))):
            u, v = rng.uniform(u0 + 12, u1 - 12), rng.uniform(v0 + 12, v1 - 12)
            here = self.planner.at(u, v)[0]
            turn = float(rng.uniform(0, np.pi))
            spot, along = (
                (float(here[0]), float(here[1])),
                (float(np.cos(turn)), float(np.sin(turn))),
            )
            what = rng.random()
            if what < 0.45:
                heap = Box(spot, along, float(rng.uniform(6, 20)), float(rng.uniform(5, 14)))
                shade = vary(rng, tone, 18)
                self.town.patches.append(Patch(heap.corners(), "soil", shade, ragged=True))
            elif what < 0.75:
                slab = Box(spot, along, float(rng.uniform(10, 30)), float(rng.uniform(8, 18)))
                self.town.patches.append(Patch(slab.corners(), "concrete",
                                               vary(rng, (186, 182, 172), 10)))  # fmt: skip
            else:
                self.stack(Box(spot, along, float(rng.uniform(6, 14)), 7))
