"""Planning places of many kinds, as they stand on one date: what a suburb does not show."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import shapely

from geocd.testing.lands import LANDS, LandBuilder
from geocd.testing.lots import vary
from geocd.testing.plan import Box, Building, Colour, Patch, Points, Street, Suburb, Surface
from geocd.testing.suburb import Planner, plan_suburb

TownKind = Literal["suburb", "blocks", "slabs", "industry", "village", "open"]
"""suburb: houses in lots. blocks: rows of houses around courtyards. slabs: blocks of flats among
lawns. industry: halls with large roofs, yards, car parks. village: farms and fields. open: no
building at all."""
TOWN_KINDS: tuple[TownKind, ...] = get_args(TownKind)

_OPEN = (*LANDS, "wood", "park", "field")


@dataclass(frozen=True, slots=True)
class _Style:
    """How a kind of town is cut into cells, and what fills them."""

    spacing: tuple[float, float]
    """Distance of its streets, metres."""
    streets: tuple[float, float]
    """Width of its streets, metres."""
    uses: dict[str, float]
    """Odds of what fills a cell."""


_STYLES: dict[TownKind, _Style] = {
    "blocks": _Style((62, 115), (7, 15), {
        "rows": 8, "flats": 1, "park": 1, "car_park": 0.6, "pitches": 0.4, "site": 0.3}),
    "slabs": _Style((95, 170), (7, 14), {
        "flats": 7, "rows": 0.7, "park": 1, "car_park": 1, "pitches": 1, "site": 0.5}),
    "industry": _Style((120, 210), (8, 13), {
        "halls": 8, "car_park": 1, "containers": 1, "site": 0.8, "field": 0.5, "park": 0.5}),
    "village": _Style((130, 240), (5, 8), {
        "farm": 4, "field": 4, "wood": 1, "park": 1.5, "water": 0.4, "meadow": 1}),
    "open": _Style((140, 300), (5, 12), dict.fromkeys(_OPEN, 1.0)),
}  # fmt: skip

_TILES: tuple[Colour, ...] = (
    (160, 98, 74), (142, 84, 66), (172, 118, 90), (120, 96, 82), (98, 96, 98), (134, 128, 120),
)  # fmt: skip
_FLAT: tuple[Colour, ...] = (
    (226, 226, 222), (190, 190, 186), (150, 150, 148), (118, 116, 112), (84, 82, 82),
    (158, 148, 130), (112, 118, 90), (176, 160, 140),
)  # fmt: skip
_METAL: tuple[Colour, ...] = (
    (216, 218, 218), (172, 176, 180), (112, 130, 156), (104, 130, 114), (150, 104, 84),
    (100, 104, 110), (196, 186, 160),
)  # fmt: skip


def plan_town(width: float, height: float, *, seed: int, kind: TownKind) -> Suburb:
    """A place of some kind, in which nothing changes.

    Args:
        width: extent from west to east, in metres.
        height: extent from north to south, in metres.
        seed: the same arguments give the same place.
        kind: what is built there.
    """
    everywhere = shapely.box(0, 0, width, height)
    if kind == "suburb":
        return plan_suburb(
            width, height, seed=seed, buildings_appeared=0, buildings_disappeared=0,
            roads_appeared=0, observed=everywhere,
        )  # fmt: skip
    planner = _TownPlanner(width, height, seed, everywhere, kind)
    planner.lay_out(0)
    planner.plant()
    if kind != "open" or planner.rng.random() < 0.5:
        planner.park_cars()
    return planner.suburb


class _TownPlanner(Planner):
    """Streets at uneven distances, and cells between them that are filled one by one."""

    def __init__(
        self, width: float, height: float, seed: int, observed: shapely.Polygon, kind: TownKind
    ) -> None:
        super().__init__(width, height, seed, observed)
        self.style = _STYLES[kind]
        self.kind = kind
        self.angle = float(self.rng.uniform(0, math.pi))
        self.bend = float(self.rng.uniform(0, 8)), float(self.rng.uniform(0, 6.28))
        self.offset = self.rng.uniform(-60, 60, 2)
        self.land = LandBuilder(self)

    def lay_out(self, roads_appeared: int) -> None:
        """Streets, cells and what fills them; nothing appears."""
        reach = math.hypot(self.suburb.width, self.suburb.height) / 2 + 90
        us, vs = self.lines(reach), self.lines(reach)
        for index, u in enumerate(us):
            self.street(u, vs, index, upright=True)
        for index, v in enumerate(vs):
            self.street(v, us, index, upright=False)
        uses, odds = list(self.style.uses), np.array(list(self.style.uses.values()))
        for u0, u1 in itertools.pairwise(us):
            for v0, v1 in itertools.pairwise(vs):
                cell = (u0 + 9.5, u1 - 9.5, v0 + 9.5, v1 - 9.5)
                use = str(self.rng.choice(uses, p=odds / odds.sum()))
                if self.visible(self.rectangle(*cell), 10):
                    self.fill(use, cell)

    def fill(self, use: str, cell: tuple[float, float, float, float]) -> None:
        """Fill a cell of the frame, (u0, u1, v0, v1)."""
        if use in LANDS:
            self.land.fill(use, cell)
        elif use in ("wood", "park"):
            {"wood": self.woods, "park": self.parks}[use].append(self.rectangle(*cell))
        else:
            getattr(self, f"fill_{use}_cell")(cell)

    def lines(self, reach: float) -> list[float]:
        """Places of parallel streets across the frame."""
        places = [-reach - float(self.rng.uniform(0, self.style.spacing[0]))]
        while places[-1] < reach:
            places.append(places[-1] + float(self.rng.uniform(*self.style.spacing)))
        return places

    def street(self, place: float, ends: list[float], index: int, *, upright: bool) -> None:
        """A street along one line of the frame; in open country some are missing."""
        if self.kind in ("village", "open") and self.rng.random() < 0.45:
            return
        along = np.linspace(ends[0], ends[-1], 90)
        line = self.at(place, along) if upright else self.at(along, place)
        if self.visible(line):
            width = float(self.rng.uniform(*self.style.streets))
            marked = width > 9 and bool(self.rng.random() < 0.6)
            self.add_street(Street(line, width, centre_line=marked))

    def box(self, u: float, v: float, length: float, depth: float, *, turned: bool = False) -> Box:
        """A rectangle at a place of the frame, along its local axes."""
        here, ahead = self.at(u, v)[0], self.at(u + (not turned), v + turned)[0]
        along = (ahead - here) / np.hypot(*(ahead - here))
        spot = (float(here[0]), float(here[1]))
        return Box(spot, (float(along[0]), float(along[1])), length, depth)

    def build(
        self, boxes: tuple[Box, ...], roof: Literal["gable", "hip", "flat"], eaves: float,
        *, pitch: float = 0.0, metal: bool = False, colour: Colour | None = None,
    ) -> bool:  # fmt: skip
        """A building, unless something is in the way."""
        # Houses in a row stand wall to wall.
        if not all(self.ground.free(box.corners(-0.8)) for box in boxes):
            return False
        palette = _METAL if metal else (_FLAT if roof == "flat" else _TILES)
        surface: Surface = "metal" if metal else ("membrane" if roof == "flat" else "tile")
        if colour is None:
            colour = palette[int(self.rng.integers(len(palette)))]
        self.suburb.buildings.append(
            Building(
                boxes, roof, surface, vary(self.rng, colour, 9), eaves, pitch,
                int(self.rng.integers(1 << 31)),
            )
        )  # fmt: skip
        for box in boxes:
            self.ground.take(box.corners(0.4))
        return True

    def cover(self, outline: Points, surface: Surface, colour: Colour, spread: float = 8) -> None:
        """Ground of one kind."""
        self.suburb.patches.append(Patch(outline, surface, vary(self.rng, colour, spread)))

    # -- cells with buildings ----------------------------------------------------------------

    def fill_rows_cell(self, cell: tuple[float, float, float, float]) -> None:
        """Houses wall to wall along the edges, and small ones in the courtyard."""
        rng, (u0, u1, v0, v1) = self.rng, cell
        paved = rng.random() < 0.5
        self.cover(
            self.rectangle(*cell), "concrete" if paved else "lawn",
            (150, 144, 134) if paved else (100, 108, 76),
        )  # fmt: skip
        depth, storeys = float(rng.uniform(10, 14)), float(rng.uniform(6, 18))
        flat = rng.random() < 0.3
        near, far = v0 + depth / 2, v1 - depth / 2
        for v in (near, far):
            self.row(u0, u1, v, depth, storeys, flat=flat, turned=False)
        for u in (u0 + depth / 2, u1 - depth / 2):
            self.row(v0 + depth + 0.8, v1 - depth - 0.8, u, depth, storeys, flat=flat, turned=True)
        for _ in range(int(rng.integers(0, 5))):
            u, v = rng.uniform(u0 + depth + 6, u1 - depth - 6), rng.uniform(near + 8, far - 8)
            box = self.box(u, v, float(rng.uniform(5, 14)), float(rng.uniform(4, 8)))
            self.build((box,), "flat", float(rng.uniform(3, 5)))

    def row(
        self, start: float, end: float, at: float, depth: float, eaves: float,
        *, flat: bool, turned: bool,
    ) -> None:  # fmt: skip
        """Houses side by side along one edge of a cell, each with a roof of its own."""
        rng, s = self.rng, start
        while s < end - 7:
            width = min(float(rng.uniform(8, 22)), end - s)
            if rng.random() < 0.92:
                u, v = (at, s + width / 2) if turned else (s + width / 2, at)
                box = self.box(u, v, width - 0.9, depth, turned=turned)
                height = eaves + float(rng.normal(0, 1.5))
                if flat or rng.random() < 0.1:
                    self.build((box,), "flat", max(height, 4))
                else:
                    self.build((box,), "gable", max(height, 4), pitch=float(rng.uniform(0.5, 1)))
            s += width

    def fill_flats_cell(self, cell: tuple[float, float, float, float]) -> None:
        """Parallel slabs or towers on lawn, with a car park."""
        rng, (u0, u1, v0, v1) = self.rng, cell
        self.cover(self.rectangle(*cell), "lawn", (98, 108, 74))
        eaves, depth = float(rng.uniform(11, 30)), float(rng.uniform(10, 15))
        colour = _FLAT[int(rng.integers(len(_FLAT)))]
        turned, towers = bool(rng.random() < 0.5), rng.random() < 0.25
        s, end = (u0, u1) if turned else (v0, v1)
        low, high = (v0, v1) if turned else (u0, u1)
        s += float(rng.uniform(8, 16))
        while s < end - 8:
            if rng.random() < 0.3:
                middle = (low + high) / 2
                u, v = (s, middle) if turned else (middle, s)
                self.land.park(self.box(u, v, 0.8 * (high - low), 17, turned=turned))
            else:
                length = depth * 1.6 if towers else float(rng.uniform(0.4, 0.85)) * (high - low)
                at = float(rng.uniform(low + length / 2, high - length / 2))
                u, v = (s, at) if turned else (at, s)
                boxes = [self.box(u, v, length, depth, turned=turned)]
                if rng.random() < 0.3:
                    boxes.append(Box(boxes[0].point(length * 0.35, depth * 0.6),
                                     boxes[0].across, depth * 1.4, depth * 0.9))  # fmt: skip
                self.build(tuple(boxes), "flat", eaves, colour=colour)
            s += float(rng.uniform(24, 44))

    def fill_halls_cell(self, cell: tuple[float, float, float, float]) -> None:
        """One to four halls with large roofs on a paved yard, and what parks there."""
        rng, (u0, u1, v0, v1) = self.rng, cell
        paved = rng.random() < 0.6
        self.cover(
            self.rectangle(*cell), "asphalt" if paved else "concrete",
            (124, 122, 118) if paved else (168, 162, 150), 12,
        )  # fmt: skip
        self.ground.take(self.rectangle(*cell))
        self.ground.release(self.rectangle(u0 + 3, u1 - 3, v0 + 3, v1 - 3))
        split = bool(rng.random() < 0.6)
        middle = (v0 + v1) / 2 + float(rng.uniform(-12, 12)) if split else v1
        for low, high in ((v0, middle - 7), (middle + 7, v1)) if split else ((v0, v1),):
            length = float(rng.uniform(0.45, 0.95)) * (u1 - u0 - 8)
            depth = float(rng.uniform(0.45, 0.9)) * (high - low - 8)
            if min(length, depth) < 12:
                continue
            u = float(rng.uniform(u0 + 4 + length / 2, u1 - 4 - length / 2))
            v = float(rng.uniform(low + 4 + depth / 2, high - 4 - depth / 2))
            self.hall(self.box(u, v, length, depth))
        for _ in range(int(rng.integers(2, 7))):
            u, v = rng.uniform(u0 + 8, u1 - 8), rng.uniform(v0 + 6, v1 - 6)
            length = float(rng.uniform(18, 60))
            yard = self.box(u, v, length, 16.0, turned=bool(rng.random() < 0.5))
            if self.ground.free(yard.corners(1)):
                (self.land.park if rng.random() < 0.65 else self.land.stack)(yard)
                self.ground.take(yard.corners(1))
        self.ground.take(self.rectangle(*cell))

    def hall(self, box: Box) -> None:
        """A hall with an annexe; flat, or metal with a shallow gable or several."""
        rng = self.rng
        eaves, draw = float(rng.uniform(5, 13)), float(rng.random())
        if draw < 0.65:
            boxes = [box]
            if rng.random() < 0.5:
                spot = box.point(float(rng.uniform(-0.3, 0.3)) * box.length, -0.5 * box.depth)
                boxes.append(Box(spot, box.along, box.length * 0.3, min(box.depth * 0.4, 20)))
            self.build(tuple(boxes), "flat", eaves, metal=bool(rng.random() < 0.35))
            return
        bays = 1 if draw < 0.8 else int(rng.integers(2, 6))
        depth = box.depth / bays
        parts = tuple(
            Box(box.point(0, (bay - (bays - 1) / 2) * depth), box.along, box.length, depth + 0.05)
            for bay in range(bays)
        )
        self.build(parts, "gable", eaves, pitch=float(rng.uniform(0.08, 0.3)), metal=True)

    def fill_farm_cell(self, cell: tuple[float, float, float, float]) -> None:
        """A house and barns around a yard, houses along the street, fields behind."""
        rng, (u0, u1, v0, v1) = self.rng, cell
        if rng.random() < 0.6:
            self.fill_field_cell(cell)
        u, v = u0 + float(rng.uniform(22, 40)), float(rng.uniform(v0 + 25, v1 - 25))
        yard = self.box(u, v, 44, 40)
        self.suburb.patches.append(
            Patch(yard.corners(), "soil", vary(rng, (158, 146, 126), 10), ragged=True)
        )
        for du, dv, long in ((-12, 0, 16.0), (4, -17, 30.0), (4, 17, 26.0), (19, 0, 22.0)):
            if rng.random() < 0.75:
                depth = float(rng.uniform(9, 15))
                box = self.box(u + du, v + dv, long, depth, turned=dv == 0)
                metal = bool(rng.random() < 0.4)
                self.build((box,), "gable", float(rng.uniform(3, 6)),
                           pitch=float(rng.uniform(0.3, 0.9)), metal=metal)  # fmt: skip
        self.ground.take(yard.corners())
        at = np.linspace(v0 - 9, v1 + 9, 12)
        edge = Street(self.at(u1 + 9.5, at), 7.0)
        for lot in self.builder.along(edge, self.builder.style(3), fill=0.5):
            self.settle(lot, "both")

    def fill_field_cell(self, cell: tuple[float, float, float, float]) -> None:
        """Tilled land."""
        self.land.fill("plough", cell)
