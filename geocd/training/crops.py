"""Crops of tiles: anywhere, near buildings or roads, or on vacant ground."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocd.errors import DatasetError
from geocd.training.recipe import SynthesisConfig, TileSource
from geocd.training.tiles import Tile

BUILDING, ROAD = 0, 1
"""Planes of the labels."""
_TRIES = 6
_VACANT = 24
"""Pixels around a point that must be free for its tile to count as one with vacant ground."""


@dataclass(slots=True)
class View:
    """A crop of a tile at some scale and rotation: image (H, W, 3), labels (K, H, W)."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def shows(self, plane: int) -> NDArray[np.bool_]:
        """True where the class is known to stand."""
        if plane >= len(self.labels):
            return np.zeros(self.labels.shape[1:], bool)
        return np.asarray(self.labels[plane] == 1)

    def taken(self) -> NDArray[np.bool_]:
        """True where any class is known to stand."""
        return np.asarray((self.labels == 1).any(axis=0))


@dataclass(frozen=True, slots=True)
class _Pool:
    """Tiles to draw from, and how often each is drawn."""

    index: NDArray[np.intp]
    share: NDArray[np.float64]

    def draw(self, rng: Generator) -> int:
        return int(rng.choice(self.index, p=self.share))


class Cropper:
    """Draws crops from tiles; the same generator state gives the same crop.

    Args:
        tiles: labelled and unlabelled tiles.
        sources: the recipe's sources, for their weights.
        config: how far a tile may be enlarged or reduced.

    Raises:
        DatasetError: no tile has a class labelled, or all sources have weight 0.
    """

    def __init__(
        self, tiles: Sequence[Tile], sources: Sequence[TileSource], config: SynthesisConfig
    ) -> None:
        self.tiles, self.sources, self.config = tiles, sources, config
        self._all = self._pool(lambda i: True)
        self._with = [
            self._pool(lambda i: tiles[i].has(BUILDING)), self._pool(lambda i: tiles[i].has(ROAD))
        ]  # fmt: skip
        if not (self.has(BUILDING) or self.has(ROAD)):
            raise DatasetError(
                "no tile has buildings or roads labelled; pairs cannot be synthesised"
            )
        self.foremost = BUILDING if self.has(BUILDING) else ROAD
        """The class that scenes are drawn around."""
        self._points = [_free_points(tile) for tile in tiles]
        choices: tuple[tuple[int, ...], ...] = ((BUILDING,), (ROAD,), (BUILDING, ROAD))
        self._vacant = {frozenset(planes): self._vacant_pool(planes) for planes in choices}

    def has(self, plane: int) -> bool:
        """True where some tile shows the class."""
        return bool(len(self._with[plane].index))

    def _pool(self, wanted: Callable[[int], bool]) -> _Pool:
        index = np.array([i for i in range(len(self.tiles)) if wanted(i)], np.intp)
        of = [self.tiles[i].source for i in index]
        share = np.array([self.sources[s].weight / of.count(s) for s in of], np.float64)
        if len(share) and not share.sum():
            raise DatasetError("the sources of these tiles all have weight 0; give one a weight")
        return _Pool(index, share / share.sum() if len(share) else share)

    def _vacant_pool(self, planes: tuple[int, ...]) -> _Pool:
        widest = [_room(points, planes).max(initial=0) for points in self._points]
        pool = self._pool(lambda i: widest[i] >= _VACANT)
        return pool if len(pool.index) else self._pool(lambda i: widest[i] > 0)

    def anywhere(self, rng: Generator, crop: int, gsd: float) -> View:
        """A crop of any tile."""
        tile = self.tiles[self._all.draw(rng)]
        at = rng.uniform(*self._inner(tile, crop, gsd))
        return self._view(tile, rng, crop, gsd, at)

    def near(self, plane: int, rng: Generator, crop: int, gsd: float) -> View:
        """A crop somewhere near a building or a road, not always on it."""
        tile = self.tiles[self._with[plane].draw(rng)]
        at = _place(tile.labels[plane], rng) + rng.normal(0, 0.25 * crop, 2)
        return self._view(tile, rng, crop, gsd, np.clip(at, *self._inner(tile, crop, gsd)))

    def vacant(
        self, rng: Generator, crop: int, gsd: float, *, planes: tuple[int, ...] = (BUILDING,)
    ) -> View:
        """A crop with little or nothing of some classes: the emptiest of a few points.

        Where no tile knows all of the classes, the first of them decides.
        """
        pool = self._vacant[frozenset(planes)]
        if not len(pool.index):
            planes = planes[:1]
            pool = self._vacant[frozenset(planes)]
        if not len(pool.index):
            return self.anywhere(rng, crop, gsd)
        found: list[tuple[float, Tile, NDArray[np.float32]]] = []
        for _ in range(_TRIES):
            index = pool.draw(rng)
            tile, points = self.tiles[index], self._points[index]
            room = _room(points, planes)
            # Corners of a turned crop may reach a little into what is taken.
            need = 0.55 * crop / self._zoom(tile, crop, gsd)
            free = np.flatnonzero(room >= need)
            chosen = int(free[rng.integers(len(free))]) if len(free) else int(room.argmax())
            found.append((float(room[chosen]) / need, tile, points[chosen]))
            if len(free):
                break
        _, tile, point = max(found, key=lambda candidate: candidate[0])
        return self._view(tile, rng, crop, gsd, point[:2].astype(np.float64))

    def _zoom(self, tile: Tile, crop: int, gsd: float) -> float:
        low, high = self.config.zoom
        # A crop much larger than its tile would be a kaleidoscope of reflections.
        low = max(low, 0.75 * crop / min(tile.image.shape[:2]))
        return float(np.clip(tile.gsd / gsd, low, max(low, high)))

    def _inner(
        self, tile: Tile, crop: int, gsd: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest (x, y) of a crop's centre that keep it within its tile."""
        size = np.array(tile.image.shape[1::-1], np.float64)
        reach = np.minimum(0.5 * crop / self._zoom(tile, crop, gsd), 0.5 * size)
        return reach, size - reach

    def _view(
        self, tile: Tile, rng: Generator, crop: int, gsd: float, at: NDArray[np.float64]
    ) -> View:
        """A crop around a point (x, y) of a tile, turned and mirrored at random."""
        zoom = self._zoom(tile, crop, gsd)
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
        mirror = -1 if rng.random() < 0.5 else 1
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
        matrix = np.column_stack([linear, np.array([crop / 2, crop / 2]) - linear @ at])

        def _warp(plane: NDArray[np.uint8], flags: int) -> NDArray[np.uint8]:
            warped = cv2.warpAffine(
                plane, matrix, (crop, crop), flags=flags, borderMode=cv2.BORDER_REFLECT_101
            )
            return np.asarray(warped, np.uint8)

        labels = np.stack([_warp(plane, cv2.INTER_NEAREST) for plane in tile.labels])
        return View(_warp(tile.image, cv2.INTER_LINEAR), labels)


def _place(plane: NDArray[np.uint8], rng: Generator) -> NDArray[np.float64]:
    """A random pixel (x, y) of those that are 1."""
    height, width = plane.shape
    # Darts are cheaper than a list of all pixels; rare classes get the list.
    rows, cols = rng.integers(height, size=64), rng.integers(width, size=64)
    hits = np.flatnonzero(plane[rows, cols] == 1)
    if len(hits):
        return np.array([cols[hits[0]], rows[hits[0]]], np.float64)
    rows, cols = np.nonzero(plane == 1)
    pick = rng.integers(len(rows))
    return np.array([cols[pick], rows[pick]], np.float64)


def _free_points(tile: Tile) -> NDArray[np.float32]:
    """Points of a grid, rows of (x, y, pixels to the nearest that is not free of each class)."""
    height, width = tile.image.shape[:2]
    rows, cols = np.mgrid[min(8, height // 2) : height : 16, min(8, width // 2) : width : 16]
    columns = [cols.ravel(), rows.ravel()]
    # A crop that reaches over the edge shows mirrored ground; a little of it does no harm.
    inside = 2 * np.minimum.reduce([rows + 1, cols + 1, height - rows, width - cols])
    for plane in tile.labels[: ROAD + 1]:
        free = (plane == 0).astype(np.uint8)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 3) if free.any() else free
        columns.append(np.minimum(distance[rows, cols], inside).ravel())
    return np.stack(columns, axis=1).astype(np.float32)


def _room(points: NDArray[np.float32], planes: tuple[int, ...]) -> NDArray[np.float32]:
    """Pixels around each point that are free of all of the classes."""
    columns = [2 + plane for plane in planes if 2 + plane < points.shape[1]]
    return np.asarray(points[:, columns].min(axis=1) if columns else np.zeros(len(points)),
                      np.float32)  # fmt: skip
