"""What a painted suburb is made of. Lengths in metres, x to the right, y down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

Points = NDArray[np.float64]
Colour = tuple[float, float, float]
Stage = Literal["both", "before", "after"]
"""The dates on which a thing is there."""
Surface = Literal[
    "ground",
    "lawn",
    "soil",
    "asphalt",
    "concrete",
    "tile",
    "shingle",
    "metal",
    "membrane",
    "paint",
    "water",
]
SURFACES: tuple[Surface, ...] = (
    "ground", "lawn", "soil", "asphalt", "concrete", "tile", "shingle", "metal", "membrane",
    "paint", "water",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on the ground, turned by any angle.

    Attributes:
        centre: (x, y).
        along: unit vector (x, y) of the long axis; a ridge runs along it.
        length: full length along the axis.
        depth: full length across it.
    """

    centre: tuple[float, float]
    along: tuple[float, float]
    length: float
    depth: float

    @property
    def across(self) -> tuple[float, float]:
        """Unit vector (x, y) at a right angle to the long axis."""
        return -self.along[1], self.along[0]

    def point(self, u: float, v: float) -> tuple[float, float]:
        """The place ``u`` metres along and ``v`` metres across from the centre."""
        (x, y), (ax, ay), (nx, ny) = self.centre, self.along, self.across
        return x + u * ax + v * nx, y + u * ay + v * ny

    def corners(self, grow: float = 0.0) -> Points:
        """The four corners, (4, 2), of the box grown by so many metres on each side."""
        u, v = self.length / 2 + grow, self.depth / 2 + grow
        return np.array([self.point(a, b) for a, b in ((-u, -v), (u, -v), (u, v), (-u, v))])


def _merged(parts: list[shapely.Polygon]) -> shapely.Polygon:
    merged = shapely.union_all(parts)
    if not isinstance(merged, shapely.Polygon):
        raise ValueError(f"parts of one thing must touch, these make a {merged.geom_type}")
    return merged


@dataclass(frozen=True, slots=True)
class Street:
    """A carriageway along a line, with a turning circle at the end if it is a dead end."""

    line: Points
    width: float
    stage: Stage = "both"
    centre_line: bool = False
    turning_circle: float = 0.0

    @property
    def polygon(self) -> shapely.Polygon:
        """The carriageway from kerb to kerb."""
        parts = [shapely.LineString(self.line).buffer(self.width / 2, cap_style="flat")]
        if self.turning_circle:
            parts.append(shapely.Point(*self.line[-1]).buffer(self.turning_circle))
        return _merged(parts)


@dataclass(frozen=True, slots=True)
class Building:
    """A house or a hall: boxes under one kind of roof.

    Attributes:
        boxes: parts; where they overlap, the higher roof shows.
        roof: shape of the roof over each part.
        surface: what it is covered with.
        colour: red, green, blue, 0..255, before light falls on it.
        eaves: height of the walls.
        pitch: rise of the roof per metre.
        seed: for everything small on the roof.
        stage: the dates on which it stands.
    """

    boxes: tuple[Box, ...]
    roof: Literal["gable", "hip", "flat"]
    surface: Surface
    colour: Colour
    eaves: float
    pitch: float
    seed: int
    stage: Stage = "both"

    @property
    def polygon(self) -> shapely.Polygon:
        """Outline of the roof seen from above."""
        return _merged([shapely.Polygon(box.corners()) for box in self.boxes])


@dataclass(frozen=True, slots=True)
class Patch:
    """A piece of ground of one kind: a lawn, a driveway, a car park, bare soil, a pool."""

    outline: Points
    surface: Surface
    colour: Colour
    stage: Stage = "both"
    ragged: bool = False
    """Whether the edge is worn rather than built."""
    glint: float = 0.0
    """Of water: how much of it mirrors the sun, 0..1."""


@dataclass(frozen=True, slots=True)
class Line:
    """Something long and thin: a road marking (height 0), a fence or a hedge."""

    points: Points
    width: float
    colour: Colour
    height: float = 0.0
    stage: Stage = "both"


@dataclass(frozen=True, slots=True)
class Tree:
    """A crown. ``growth`` is the size after over the size before."""

    x: float
    y: float
    radius: float
    height: float
    colour: Colour
    shape: int
    growth: float = 1.0
    stage: Stage = "both"


@dataclass(frozen=True, slots=True)
class Field:
    """Tilled or mown land with furrows; crop and furrows differ between the dates."""

    outline: Points
    direction: tuple[float, float]
    spacing: float
    before: Colour
    after: Colour
    seed: int


@dataclass(slots=True)
class Suburb:
    """Everything in a painted place, on both dates."""

    width: float
    height: float
    streets: list[Street] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    cars: list[tuple[Box, Colour, Stage]] = field(default_factory=list)
    clutter: list[Building] = field(default_factory=list)
    """Containers, lorries, silos: they stand like buildings and are none."""
