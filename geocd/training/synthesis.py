"""Bitemporal pairs with known change, synthesised from single-date labelled tiles.

    kind           before              after                     change
    construction   vacant ground       built-up, elsewhere       where one of them is built
    unrelated      any scene           any other                 where one of them is built
    ground         vacant ground       other vacant ground       none, or a road
    patch          a scene             parts from another        inside the parts, likewise
    paste          a scene             + single buildings        the buildings
    removal        a scene             - single buildings        the buildings, not the fills
    unchanged      a scene             the same                  nowhere

Every image then gets a light, a season and a sensor of its own, and pairs of one scene a
misregistration and a lean of roofs. The two dates are swapped at random.

Source:
    Zheng et al. (2021), ChangeStar: supervision from single-temporal labels,
    doi 10.1109/ICCV48922.2021.01491.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocd.errors import DatasetError
from geocd.training.augment import photometric, smooth_noise
from geocd.training.clutter import clutter
from geocd.training.recipe import SynthesisConfig, TileSource
from geocd.training.tiles import IGNORE, Tile

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
_BUILDING = 0


@dataclass(slots=True)
class View:
    """A crop of a tile at some scale and rotation: image (H, W, 3), labels (K, H, W)."""

    image: Image
    labels: Labels


@dataclass(frozen=True, slots=True)
class Pair:
    """A training sample.

    Attributes:
        before, after: RGB, shape (H, W, 3), uint8.
        change: shape (classes, H, W), uint8: 0, 1 or ``IGNORE``.
        labels_before, labels_after: what stands there on each date, like ``change``.
        kind: how the pair was made.
    """

    before: Image
    after: Image
    change: Labels
    labels_before: Labels
    labels_after: Labels
    kind: str


def differ(a: Labels, b: Labels) -> Labels:
    """1 where exactly one date has the class, 0 where both or neither, else ``IGNORE``."""
    unknown = (a == IGNORE) | (b == IGNORE)
    return np.where(unknown, np.uint8(IGNORE), (a != b).astype(np.uint8))


def _compose(base: View, other: View, mask: Mask, feather: float) -> View:
    """``other`` inside the mask, ``base`` outside; only the image is feathered."""
    soft = mask.astype(np.float32)
    if feather > 0:
        soft = np.asarray(cv2.GaussianBlur(soft, (0, 0), feather), np.float32)
    soft = soft[..., None]
    image = base.image * (1 - soft) + other.image * soft
    labels = np.where(mask, other.labels, base.labels)
    return View(image.astype(np.uint8), labels)


def _matched(image: Image, reference: Image, share: float) -> Image:
    """The image with its mean colour moved towards the reference's."""
    move = (reference.mean(axis=(0, 1)) - image.mean(axis=(0, 1))) * share
    return np.asarray(np.clip(image + move, 0, 255), np.uint8)


def _blobs(shape: tuple[int, int], rng: Generator) -> Mask:
    """One to four rotated rectangles or ellipses."""
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 5)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        size = np.exp(rng.uniform(np.log(0.12), np.log(0.8), 2)) * (width, height)
        angle = float(rng.uniform(0, 180))
        box = (tuple(map(float, centre)), tuple(map(float, size)), angle)
        if rng.random() < 0.6:
            cv2.fillPoly(mask, [cv2.boxPoints(box).astype(np.int32)], 1)
        else:
            cv2.ellipse(mask, box, 1, -1)
    return mask.astype(bool)


def _some_objects(plane: NDArray[np.uint8], rng: Generator, *, margin: int) -> Mask:
    """A random choice of the connected objects of a label plane, grown by a margin."""
    count, components = cv2.connectedComponents((plane == 1).astype(np.uint8))
    if count <= 1:
        return np.zeros(plane.shape, bool)
    keep: Mask = np.asarray(rng.random(count) < rng.uniform(0.2, 1.0))
    keep[0] = False
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return np.asarray(cv2.dilate(keep[components].astype(np.uint8), kernel)) > 0


def _lean(view: View, rng: Generator) -> Image:
    """The image with its roofs displaced by a few pixels, as off nadir."""
    built = (view.labels[_BUILDING] == 1).astype(np.float32)
    if not built.any():
        return view.image
    height = cv2.GaussianBlur(built, (0, 0), 2.0)
    dx, dy = rng.normal(0, 2.0, 2).clip(-4, 4).astype(np.float32)
    rows, cols = np.indices(built.shape, dtype=np.float32)
    return np.asarray(
        cv2.remap(
            view.image,
            cols - dx * height,
            rows - dy * height,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    )


class PairSynthesizer:
    """Makes pairs from tiles; the same generator state gives the same pair.

    Args:
        tiles: labelled and unlabelled tiles.
        sources: the recipe's sources, for their weights.
        config: shares of the kinds, scales, misregistration.

    Raises:
        DatasetError: no tile has buildings labelled.
    """

    def __init__(
        self, tiles: Sequence[Tile], sources: Sequence[TileSource], config: SynthesisConfig
    ) -> None:
        self.tiles = tiles
        self.config = config
        self._all = self._pool(sources, lambda tile: True)
        self._built = self._pool(sources, lambda tile: tile.has(_BUILDING))
        if not len(self._built[0]):
            raise DatasetError("no tile has buildings labelled; pairs cannot be synthesised")
        self._vacant = {i: _vacant_points(tiles[i]) for i in self._built[0]}
        self._makers: dict[str, Callable[[Generator, int, float], tuple[View, View, Mask]]] = {
            "construction": self._construction,
            "unrelated": self._unrelated,
            "patch": self._patch,
            "paste": self._paste,
            "removal": self._removal,
            "ground": self._ground,
            "unchanged": self._unchanged,
        }

    def _pool(
        self, sources: Sequence[TileSource], wanted: Callable[[Tile], bool]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        index = np.array([i for i, t in enumerate(self.tiles) if wanted(t)], np.intp)
        of = [self.tiles[i].source for i in index]
        share = np.array([sources[s].weight / of.count(s) for s in of], np.float64)
        return index, share / share.sum() if len(share) else share

    def sample(self, rng: Generator, crop: int) -> Pair:
        """One pair of ``crop`` x ``crop`` pixels."""
        shares = self.config.shares
        kind = str(rng.choice(list(shares), p=list(shares.values())))
        low, high = self.config.gsd
        gsd = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        before, after, same_ground = self._makers[kind](rng, crop, gsd)
        if rng.random() < self.config.clutter:
            after, same_ground = _cluttered(after, same_ground, gsd, rng)
        change = differ(before.labels, after.labels)
        # What was not touched did not change, even where nobody knows what it is.
        change[:, same_ground] = 0
        if same_ground.any():
            after, change = self._displace(before, after, change, rng)
        pair = (self._sensor(before.image, rng), self._sensor(after.image, rng))
        labels = (before.labels, after.labels)
        if rng.random() < 0.5:
            pair, labels = pair[::-1], labels[::-1]
        return Pair(*pair, change, *labels, kind)

    def _sensor(self, image: Image, rng: Generator) -> Image:
        return photometric(image, rng, strong=bool(rng.random() < self.config.strong))

    def _view(
        self, tile: Tile, rng: Generator, crop: int, gsd: float, at: tuple[float, float] | None
    ) -> View:
        """A crop around a point (x, y) of a tile, turned and mirrored at random."""
        height, width = tile.image.shape[:2]
        low, high = self.config.zoom
        # A crop much larger than its tile would be a kaleidoscope of reflections.
        low = max(low, 0.75 * crop / min(height, width))
        zoom = float(np.clip(tile.gsd / gsd, low, max(low, high)))
        if at is None:
            reach = min(0.5 * crop / zoom, 0.5 * height, 0.5 * width)
            at = (rng.uniform(reach, width - reach), rng.uniform(reach, height - reach))
        angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
        mirror = -1 if rng.random() < 0.5 else 1
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
        matrix = np.column_stack([linear, np.array([crop / 2, crop / 2]) - linear @ at])
        image = cv2.warpAffine(
            tile.image, matrix, (crop, crop), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )  # fmt: skip
        labels = np.stack(
            [
                cv2.warpAffine(
                    plane, matrix, (crop, crop), flags=cv2.INTER_NEAREST,
                    borderMode=cv2.BORDER_REFLECT_101,
                )
                for plane in tile.labels
            ]
        )  # fmt: skip
        return View(np.asarray(image, np.uint8), labels.astype(np.uint8))

    def _any(self, rng: Generator, crop: int, gsd: float) -> View:
        tile = self.tiles[rng.choice(self._all[0], p=self._all[1])]
        return self._view(tile, rng, crop, gsd, None)

    def _built_view(self, rng: Generator, crop: int, gsd: float) -> View:
        tile = self.tiles[rng.choice(self._built[0], p=self._built[1])]
        rows, cols = np.nonzero(tile.labels[_BUILDING] == 1)
        pick = rng.integers(len(rows))
        # Somewhere near a building, not always on it.
        x, y = np.array([cols[pick], rows[pick]]) + rng.normal(0, 0.25 * crop, 2)
        return self._view(tile, rng, crop, gsd, (float(x), float(y)))

    def _vacant_view(self, rng: Generator, crop: int, gsd: float) -> View:
        """A crop with few buildings or none: the emptiest of a few points."""
        for _ in range(6):
            index = int(rng.choice(self._built[0], p=self._built[1]))
            tile, points = self.tiles[index], self._vacant[index]
            zoom = float(np.clip(tile.gsd / gsd, *self.config.zoom))
            free = points[points[:, 2] >= 0.55 * crop / zoom]
            if len(free):
                break
        else:
            free = points[np.argmax(points[:, 2])][None]
        x, y, _ = free[rng.integers(len(free))]
        return self._view(tile, rng, crop, gsd, (float(x), float(y)))

    def _construction(self, rng: Generator, crop: int, gsd: float) -> tuple[View, View, Mask]:
        before = self._vacant_view(rng, crop, gsd)
        after = self._built_view(rng, crop, gsd)
        if rng.random() < 0.5:
            after.image = _matched(after.image, before.image, float(rng.uniform(0.3, 1)))
        return before, after, np.zeros((crop, crop), bool)

    def _unrelated(self, rng: Generator, crop: int, gsd: float) -> tuple[View, View, Mask]:
        pair = self._built_view(rng, crop, gsd), self._any(rng, crop, gsd)
        return *pair, np.zeros((crop, crop), bool)

    def _ground(self, rng: Generator, crop: int, gsd: float) -> tuple[View, View, Mask]:
        before, after = (self._vacant_view(rng, crop, gsd) for _ in range(2))
        after.image = _matched(after.image, before.image, float(rng.uniform(0, 0.7)))
        return before, after, np.zeros((crop, crop), bool)

    def _patch(self, rng: Generator, crop: int, gsd: float) -> tuple[View, View, Mask]:
        base = self._any(rng, crop, gsd)
        draw = self._built_view if rng.random() < 0.6 else self._vacant_view
        other = draw(rng, crop, gsd)
        other.image = _matched(other.image, base.image, float(rng.uniform(0.2, 1)))
        mask = _blobs((crop, crop), rng)
        return base, _compose(base, other, mask, float(rng.uniform(0.5, 2.5))), ~mask

    def _paste(self, rng: Generator, crop: int, gsd: float) -> tuple[View, View, Mask]:
        base = (self._any if rng.random() < 0.5 else self._vacant_view)(rng, crop, gsd)
        donor = self._built_view(rng, crop, gsd)
        # The margin brings the shadow and the yard along.
        mask = _some_objects(donor.labels[_BUILDING], rng, margin=int(rng.integers(2, 8)))
        donor.image = _matched(donor.image, base.image, float(rng.uniform(0, 0.7)))
        if (base.labels == IGNORE).all():
            # Pasted on ground of which nothing is known: it is built now at least.
            base = View(base.image, np.where(mask, np.uint8(IGNORE), base.labels))
        return base, _compose(base, donor, mask, float(rng.uniform(0.5, 1.5))), ~mask

    def _removal(self, rng: Generator, crop: int, gsd: float) -> tuple[View, View, Mask]:
        base = self._built_view(rng, crop, gsd)
        ground = self._vacant_view(rng, crop, gsd)
        ring = (base.labels[_BUILDING] == 0)[..., None]
        colour = (base.image * ring).sum(axis=(0, 1)) / max(1, int(ring.sum()))
        move = colour - ground.image.mean(axis=(0, 1))
        ground.image = np.clip(ground.image + move, 0, 255).astype(np.uint8)
        mask = _some_objects(base.labels[_BUILDING], rng, margin=int(rng.integers(2, 6)))
        # Fills where nothing stood, so that the fill itself is no cue.
        mask |= smooth_noise((crop, crop), 24, rng) > 1.6
        return base, _compose(base, ground, mask, float(rng.uniform(0.5, 2.0))), ~mask

    def _unchanged(self, rng: Generator, crop: int, gsd: float) -> tuple[View, View, Mask]:
        view = self._any(rng, crop, gsd)
        return view, View(view.image, view.labels), np.ones((crop, crop), bool)

    def _displace(
        self, before: View, after: View, change: Labels, rng: Generator
    ) -> tuple[View, Labels]:
        """Misregister the after image, and let what appeared in it move along."""
        image = _lean(after, rng) if rng.random() < 0.3 else after.image
        crop = image.shape[0]
        shift = rng.normal(0, 0.4 * self.config.max_shift, 2)
        shift *= min(1.0, self.config.max_shift / max(1e-6, float(np.hypot(*shift))))
        angle = float(np.clip(rng.normal(0, 0.3), -1, 1))
        matrix = cv2.getRotationMatrix2D((crop / 2, crop / 2), angle, 1.0)
        matrix = matrix + np.column_stack([np.zeros((2, 2)), shift])

        def _warp(plane: NDArray[np.uint8], flags: int) -> NDArray[np.uint8]:
            warped = cv2.warpAffine(
                plane, matrix, (crop, crop), flags=flags, borderMode=cv2.BORDER_REFLECT_101
            )
            return np.asarray(warped, np.uint8)

        labels = np.stack([_warp(plane, cv2.INTER_NEAREST) for plane in after.labels])
        appeared = (change == 1) & (after.labels == 1)
        moved = np.stack([_warp(p.astype(np.uint8), cv2.INTER_NEAREST) for p in appeared])
        change = np.where(appeared, np.uint8(0), change)
        change = np.where(moved == 1, np.uint8(1), change)
        return View(_warp(image, cv2.INTER_LINEAR), labels), change


def _cluttered(view: View, same_ground: Mask, gsd: float, rng: Generator) -> tuple[View, Mask]:
    """A date with a yard on it, and the ground that is still the same."""
    image, yard = clutter(view.image, view.labels[_BUILDING] != 1, gsd, rng)
    labels = view.labels.copy()
    # A yard is no building for sure; whether it counts as road, nobody can say.
    labels[_BUILDING][yard & (labels[_BUILDING] != 1)] = 0
    labels[_BUILDING + 1 :, yard] = IGNORE
    return View(image, labels), same_ground & ~yard


def _vacant_points(tile: Tile) -> NDArray[np.float32]:
    """Points of a grid with their distance to the nearest building: rows of (x, y, pixels)."""
    free = (tile.labels[_BUILDING] == 0).astype(np.uint8)
    distance = cv2.distanceTransform(free, cv2.DIST_L2, 3)
    rows, cols = np.mgrid[8 : free.shape[0] : 16, 8 : free.shape[1] : 16]
    points = [cols.ravel(), rows.ravel(), distance[rows, cols].ravel()]
    return np.stack(points, axis=1).astype(np.float32)
