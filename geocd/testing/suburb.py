"""Planning a suburb: where everything stands, and what changes between the dates."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import shapely

from geocd.errors import ConfigError
from geocd.testing.lots import SOIL, Ground, Lot, LotBuilder, vary
from geocd.testing.plan import (
    Box,
    Colour,
    Field,
    Patch,
    Points,
    Stage,
    Street,
    Suburb,
    Tree,
)
from geocd.testing.textures import fractal_noise

_BLOCK_WIDTH, _BLOCK_DEPTH = 76.0, 150.0
_STREET_WIDTH, _MAIN_WIDTH = 8.0, 11.0


def plan_suburb(
    width: float,
    height: float,
    *,
    seed: int,
    buildings_appeared: int,
    buildings_disappeared: int,
    roads_appeared: int,
    observed: shapely.Polygon,
) -> Suburb:
    """A suburb with exactly the changes that were asked for.

    Args:
        width: extent from west to east, in metres.
        height: extent from north to south, in metres.
        seed: the same arguments give the same suburb.
        buildings_appeared: houses and halls that are there after, not before.
        buildings_disappeared: the other way round.
        roads_appeared: streets that are there after, not before.
        observed: the ground seen on both dates, where the changes must lie.

    Raises:
        ConfigError: there is no room for so many changes.
    """
    planner = Planner(width, height, seed, observed)
    planner.lay_out(roads_appeared)
    planner.change_buildings(buildings_appeared, buildings_disappeared)
    planner.plant()
    planner.park_cars()
    return planner.suburb


class Planner:
    """Lays blocks along a bent frame (u along the main road, v across it)."""

    def __init__(self, width: float, height: float, seed: int, observed: shapely.Polygon) -> None:
        self.rng = np.random.default_rng([seed, 1])
        self.suburb = Suburb(width, height)
        self.observed = observed
        self.ground = Ground(width, height)
        self.builder = LotBuilder(self.rng, self.ground)
        self.lots: list[Lot] = []
        self.new_lots: list[Lot] = []
        self.woods: list[Points] = []
        self.parks: list[Points] = []
        self.uses: dict[tuple[int, int], str] = {}
        self.new_blocks: dict[tuple[int, int], Street] = {}
        self.angle = math.radians(float(self.rng.uniform(8, 32)) * self.rng.choice([-1, 1]))
        self.bend = float(self.rng.uniform(7, 13)), float(self.rng.uniform(0, 6.28))
        self.offset = self.rng.uniform(-25, 25, 2)
        cells = math.ceil(height / 8) + 1, math.ceil(width / 8) + 1
        self.clumps = fractal_noise(cells, self.rng, coarsest=9, finest=1.5, roughness=0.8)

    # -- the frame ---------------------------------------------------------------------------

    def at(self, u: float | Points, v: float | Points) -> Points:
        """Places (n, 2) in metres of the canvas."""
        u, v = np.broadcast_arrays(np.atleast_1d(u), np.atleast_1d(v))
        # Two waves of different length: parallel streets that are not copies of each other.
        v = v + self.bend[0] * np.sin(u / 61 + self.bend[1] + v / 190)
        u = u + 5.0 * np.sin(v / 47 + self.bend[1] * 2 + u / 120)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x = self.suburb.width / 2 + self.offset[0] + cos * u - sin * v
        y = self.suburb.height / 2 + self.offset[1] + sin * u + cos * v
        return np.column_stack([x, y])

    def rectangle(self, u0: float, u1: float, v0: float, v1: float) -> Points:
        """Outline of a block of the frame, bent like it."""
        u, v = np.linspace(u0, u1, 12), np.linspace(v0, v1, 12)
        return np.concatenate(
            [self.at(u, v0), self.at(u1, v), self.at(u[::-1], v1), self.at(u0, v[::-1])]
        )

    def visible(self, points: Points, margin: float = 0.0) -> bool:
        """Whether some of the points lie on the canvas."""
        x, y = points[:, 0], points[:, 1]
        ok = (x > -margin) & (x < self.suburb.width + margin)
        return bool((ok & (y > -margin) & (y < self.suburb.height + margin)).any())

    # -- blocks and streets ------------------------------------------------------------------

    def lay_out(self, roads_appeared: int) -> None:
        """Streets, blocks and what fills them."""
        reach = math.hypot(self.suburb.width, self.suburb.height) / 2 + 40
        columns, rows = math.ceil(reach / _BLOCK_WIDTH), math.ceil(reach / _BLOCK_DEPTH)
        blocks = [
            (i, j)
            for j in range(-rows, rows)
            for i in range(-columns, columns)
            if self.visible(self.block(i, j))
        ]
        self.main_roads(reach, rows)
        self.new_streets(blocks, roads_appeared)
        for block in blocks:
            self.uses[block] = "new" if block in self.new_blocks else self.use_of(*block)
        for block in blocks:
            getattr(self, f"fill_{self.uses[block]}")(*block)

    def block(self, i: int, j: int) -> Points:
        """Outline of a block, up to the kerbs of the roads around it."""
        u, v = i * _BLOCK_WIDTH, j * _BLOCK_DEPTH
        return self.rectangle(u + 0.5, u + _BLOCK_WIDTH - 0.5, v + 6, v + _BLOCK_DEPTH - 6)

    def use_of(self, i: int, j: int) -> str:
        """A land use: houses in the middle of the place, open land towards its edge."""
        distance = math.hypot((i + 0.5) / 5, (j + 0.5) / 2.6)
        built = min(0.92, max(0.4, 1.08 - 0.45 * distance))
        draw = float(self.rng.random())
        if draw < built:
            return "houses" if self.rng.random() < 0.86 else "halls"
        return str(self.rng.choice(["field", "wood", "park"], p=[0.42, 0.3, 0.28]))

    def main_roads(self, reach: float, rows: int) -> None:
        """The main road through the middle, and roads parallel to it."""
        u = np.linspace(-reach, reach, 120)
        for j in range(-rows + 1, rows):
            main = j == 0
            width = _MAIN_WIDTH if main else _STREET_WIDTH
            line = self.at(u, j * _BLOCK_DEPTH)
            if self.visible(line):
                self.add_street(Street(line, width, centre_line=main))

    def add_street(self, street: Street) -> None:
        """Put a street into the suburb and take its ground."""
        self.suburb.streets.append(street)
        self.ground.take(np.asarray(street.polygon.buffer(1.5).exterior.coords))

    def side_street(self, i: int, j: int, length: float, stage: Stage, *, far: bool) -> Street:
        """A street through the middle of a block, from its near or its far end."""
        u = (i + 0.5) * _BLOCK_WIDTH
        v = j * _BLOCK_DEPTH + np.linspace(2, length, 40)
        if far:
            v = (2 * j + 1) * _BLOCK_DEPTH - v
        through = length >= _BLOCK_DEPTH - 4
        circle = 0.0 if through else 11.5
        # A bend of its own keeps streets of neighbouring blocks from being copies.
        sway = 3.0 * np.sin(v / 40 + 1.7 * i)
        return Street(self.at(u + sway, v), _STREET_WIDTH, stage, turning_circle=circle)

    def new_streets(self, blocks: list[tuple[int, int]], count: int) -> None:
        """Choose the blocks near the middle that are open before and built up after."""
        centre = np.array([self.suburb.width, self.suburb.height]) / 2
        near = sorted(
            blocks, key=lambda b: float(np.hypot(*(self.block(*b).mean(axis=0) - centre)))
        )
        for block in near:
            if len(self.new_blocks) == count:
                return
            for length in (_BLOCK_DEPTH - 40, 80.0, 55.0):
                street = self.side_street(*block, length, "after", far=block[1] < 0)
                neighbours = {(block[0] + 1, block[1]), (block[0] - 1, block[1])}
                if neighbours & self.new_blocks.keys():
                    break
                if self.observed.contains(street.polygon.buffer(2)):
                    self.new_blocks[block] = street
                    break
        if len(self.new_blocks) < count:
            raise ConfigError(
                f"only {len(self.new_blocks)} of {count} new roads fit; paint a larger place"
            )

    # -- what fills a block ------------------------------------------------------------------

    def fill_houses(self, i: int, j: int) -> None:
        """A residential street with lots on both sides."""
        if self.rng.random() < 0.6:
            length = _BLOCK_DEPTH - 2
        else:
            length = float(self.rng.uniform(85, _BLOCK_DEPTH - 38))
        street = self.side_street(i, j, length, "both", far=bool(self.rng.random() < 0.5))
        self.add_street(street)
        style = self.builder.style(3)
        self.lots += self.builder.along(street, style)

    def fill_new(self, i: int, j: int) -> None:
        """Open land before; a street with some houses after."""
        street = self.new_blocks[i, j]
        outline = self.block(i, j)
        self.suburb.patches.append(
            Patch(outline, "ground", vary(self.rng, (132, 120, 92), 8), ragged=True)
        )
        self.suburb.patches.append(
            Patch(
                np.asarray(street.polygon.buffer(5).exterior.coords),
                "soil", vary(self.rng, SOIL, 8), "after", ragged=True,
            )
        )  # fmt: skip
        self.add_street(street)
        style = self.builder.style(2)
        self.new_lots += self.builder.along(street, style, fill=0.95)
        self.parks.append(outline)

    def fill_halls(self, i: int, j: int) -> None:
        """A large flat building behind a car park."""
        u, v = (i + 0.5) * _BLOCK_WIDTH, (j + 0.5) * _BLOCK_DEPTH
        for dv in (-33.0, 34.0):
            here, ahead = self.at(u, v + dv)[0], self.at(u + 1, v + dv)[0]
            along = (ahead - here) / np.hypot(*(ahead - here))
            box = Box(
                (float(here[0]), float(here[1])), (float(along[0]), float(along[1])),
                float(self.rng.uniform(38, 62)), float(self.rng.uniform(20, 30)),
            )  # fmt: skip
            if not self.ground.free(box.corners(3)):
                continue
            self.lots.append(self.builder.hall(box))
            self.ground.take(self.lots[-1].outline)

    def fill_field(self, i: int, j: int) -> None:
        """Tilled land; one crop before, another after."""
        along = self.at((i + 0.5) * _BLOCK_WIDTH, np.array([0.0, 1.0]) + j * _BLOCK_DEPTH)
        direction = along[1] - along[0]
        if self.rng.random() < 0.5:
            direction = np.array([-direction[1], direction[0]])
        crops: tuple[Colour, ...] = ((104, 111, 79), (142, 128, 92), (128, 106, 84), (112, 116, 78))
        pair = self.rng.choice(len(crops), 2)
        self.suburb.fields.append(
            Field(
                self.block(i, j), (float(direction[0]), float(direction[1])),
                float(self.rng.uniform(2.2, 4.5)), vary(self.rng, crops[pair[0]], 6),
                vary(self.rng, crops[pair[1]], 6), int(self.rng.integers(1 << 31)),
            )
        )  # fmt: skip

    def fill_wood(self, i: int, j: int) -> None:
        """Crown against crown."""
        self.woods.append(self.block(i, j))

    def fill_park(self, i: int, j: int) -> None:
        """Rough grass with a tree here and there."""
        self.parks.append(self.block(i, j))

    # -- change ------------------------------------------------------------------------------

    def change_buildings(self, appeared: int, disappeared: int) -> None:
        """Choose which houses come and go; the others stay."""
        fresh = [lot for lot in self.new_lots if self.inside(lot)]
        self.rng.shuffle(fresh)
        old = [lot for lot in self.lots if self.inside(lot)]
        self.rng.shuffle(old)
        # One hall first, if several buildings are asked for: large roofs change as well.
        halls = [lot for lot in old if lot.house.eaves >= 6][: 1 if appeared > 4 else 0]
        old = [lot for lot in old if all(lot is not hall for hall in halls)]
        come = (halls + fresh[: math.ceil(appeared * 0.6)] + old)[:appeared]
        chosen = {id(lot) for lot in come}
        small = [lot for lot in old if id(lot) not in chosen and lot.house.eaves < 6]
        go = small[:disappeared]
        if len(come) < appeared or len(go) < disappeared:
            raise ConfigError(
                f"only {len(come)} of {appeared} new and {len(go)} of {disappeared} vanished "
                "buildings fit; paint a larger place"
            )
        for lot in come:
            self.settle(lot, "after")
        for lot in go:
            self.settle(lot, "before")
        settled = {id(lot) for lot in come + go}
        for lot in self.lots:
            if id(lot) not in settled:
                self.settle(lot, "both")

    def inside(self, lot: Lot) -> bool:
        """Whether a lot's house lies on ground that both dates show."""
        return bool(self.observed.contains(lot.house.polygon.buffer(2)))

    def settle(self, lot: Lot, stage: Stage) -> None:
        """Put a lot into the suburb for the dates on which its house stands."""
        town = self.suburb
        # The ground around a house that goes stays as it was: only the house is cleared.
        around: Stage = "after" if stage == "after" else "both"
        town.patches += [dataclasses.replace(p, stage=around) for p in lot.patches]
        town.lines += [dataclasses.replace(n, stage=around) for n in lot.lines]
        town.cars += [(box, colour, stage) for box, colour, _ in lot.cars]
        town.buildings.append(dataclasses.replace(lot.house, stage=stage))
        if stage == "before":
            cleared = np.asarray(lot.house.polygon.buffer(1.2).exterior.coords)
            town.patches.append(
                Patch(cleared, "soil", vary(self.rng, SOIL, 10), "after", ragged=True)
            )

    # -- trees and cars ----------------------------------------------------------------------

    def plant(self) -> None:
        """Woods, trees in parks, in yards and along streets."""
        for outline in self.woods:
            self.scatter(outline, 26.0, (2.6, 5.2))
        for outline in self.parks:
            self.scatter(outline, 420.0, (1.2, 4.0))
        for tilled in self.suburb.fields:
            self.hedge(tilled.outline)
        everything = np.array(
            [[0, 0], [1, 0], [1, 1], [0, 1]], np.float64
        ) * [self.suburb.width, self.suburb.height]  # fmt: skip
        self.scatter(everything, 60.0, (1.2, 4.8), around_roads=True)

    def scatter(
        self,
        outline: Points,
        area_each: float,
        radius: tuple[float, float],
        *,
        around_roads: bool = False,
    ) -> None:
        """Trees at random places of an outline that are not taken."""
        shape = shapely.Polygon(outline).buffer(0)
        low, high = outline.min(axis=0), outline.max(axis=0)
        count = int(float(np.prod(high - low)) / area_each)
        places = self.rng.uniform(low, high, (count, 2))
        inside = shapely.contains_xy(shape, places[:, 0], places[:, 1])
        keep_out = None
        if around_roads:
            open_land = [shapely.Polygon(f.outline) for f in self.suburb.fields]
            open_land += [shapely.Polygon(block) for block in self.parks]
            keep_out = shapely.union_all([part.buffer(0) for part in open_land])
            inside &= ~shapely.contains_xy(keep_out, places[:, 0], places[:, 1])
        # Trees stand in groves: where a smooth random field is low there are few.
        last = np.array(self.clumps.shape[::-1]) - 1
        cols, rows = np.clip(places // 8, 0, last).astype(int).T
        clumps = self.clumps[rows, cols]
        inside &= (clumps > self.rng.uniform(-0.9, 0.9, count)) | (not around_roads)
        for x, y in places[inside]:
            self.tree(float(x), float(y), float(self.rng.uniform(*radius)))

    def hedge(self, outline: Points) -> None:
        """A row of bushes along an edge of a field, with gaps."""
        ring = shapely.LineString(outline)
        s = 0.0
        while s < ring.length:
            spot = ring.interpolate(s)
            if math.sin(s / 31) > 0.2:
                self.tree(spot.x, spot.y, float(self.rng.uniform(1.2, 2.6)))
            s += float(self.rng.uniform(2.5, 7))

    def tree(self, x: float, y: float, radius: float) -> None:
        """A tree, unless a roof or a road is below its crown."""
        rng = self.rng
        around = ((0.0, 0.0), (0.6, 0.0), (-0.6, 0.0), (0.0, 0.6), (0.0, -0.6))
        draws = rng.random(4)
        kind = int(rng.integers(12))
        if any(self.ground.taken_at(x + a * radius, y + b * radius) for a, b in around):
            return
        palette: tuple[Colour, ...] = ((66, 82, 50), (76, 90, 56), (58, 74, 48), (90, 92, 64))
        colour = vary(rng, palette[int(draws[0] * 4)], 6)
        stage: Stage = "both" if draws[1] < 0.94 else ("before" if draws[1] < 0.97 else "after")
        self.suburb.trees.append(
            Tree(
                x, y, radius, radius * (1.3 + 0.5 * draws[2]), colour, kind,
                0.97 + 0.2 * draws[3], stage,
            )
        )  # fmt: skip

    def park_cars(self) -> None:
        """Cars at the kerb, other ones on each date."""
        stages: tuple[Stage, ...] = ("before", "after")
        for street in self.suburb.streets:
            line = shapely.LineString(street.line)
            for stage in stages:
                if street.stage not in ("both", stage):
                    continue
                for s in self.rng.uniform(0, line.length, int(line.length / 28)):
                    here, ahead = line.interpolate(s), line.interpolate(s + 1)
                    along = np.array([ahead.x - here.x, ahead.y - here.y])
                    along /= max(float(np.hypot(*along)), 1e-9)
                    side = float(self.rng.choice([-1, 1])) * (street.width / 2 - 1.4)
                    spot = (here.x - along[1] * side, here.y + along[0] * side)
                    axis = (float(along[0]), float(along[1]))
                    self.suburb.cars.append(self.builder.car(spot, axis, stage))
