"""Bitemporal pairs with known change, synthesised from single-date labelled tiles.

    kind           before              after                     change
    construction   vacant ground       built-up, elsewhere       where one of them is built
    unrelated      any scene           any other                 where one of them is built
    ground         vacant ground       other vacant ground       none, or a road
    patch          a scene             parts from another        inside the parts, likewise
    paste          a scene             + single buildings        the buildings
    removal        a scene             - single buildings        the buildings, not the fills
    road_paste     a scene             + stretches of road       the road
    road_removal   a scene             - stretches of road       the road, not the fills
    unchanged      a scene             the same                  nowhere

Every image then gets a light, a season and a sensor of its own, and pairs of one scene a
misregistration and a lean of roofs. The two dates are swapped at random.

Source:
    Zheng et al. (2021), ChangeStar: supervision from single-temporal labels,
    doi 10.1109/ICCV48922.2021.01491.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocd.errors import DatasetError
from geocd.training.augment import photometric, smooth_noise
from geocd.training.clutter import clutter
from geocd.training.crops import BUILDING, ROAD, Cropper, View
from geocd.training.parts import (
    blobs,
    clean_offset,
    decoys,
    grown,
    objects,
    shadow_reach,
    some_of,
    stretches,
)
from geocd.training.recipe import SynthesisConfig, TileSource
from geocd.training.tiles import IGNORE, Tile

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Draft = tuple[View, View, Mask]
"""Before, after, and where both show the same ground."""
_TRIES = 4


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
    change = np.asarray(a != b, np.uint8)
    change[(a == IGNORE) | (b == IGNORE)] = IGNORE
    return change


def compose(base: View, other: View, mask: Mask, feather: float) -> View:
    """``other`` inside the mask, ``base`` outside; only the image is feathered.

    Args:
        base: the scene, of the size of ``other``.
        other: what is put into it.
        mask: shape (height, width).
        feather: softness of the seam, standard deviation in pixels, above 0.
    """
    image, labels = base.image.copy(), base.labels.copy()
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if not width:
        return View(image, labels)
    labels[:, mask] = other.labels[:, mask]
    reach = math.ceil(3 * feather) + 1
    rows = slice(max(0, y - reach), y + height + reach)
    cols = slice(max(0, x - reach), x + width + reach)
    soft = cv2.GaussianBlur(mask[rows, cols].astype(np.float32), (0, 0), feather)
    there, here = other.image[rows, cols], base.image[rows, cols]
    image[rows, cols] = cv2.blendLinear(
        np.ascontiguousarray(there), np.ascontiguousarray(here), soft, 1 - soft
    )
    return View(image, labels)


def _recoloured(view: View, towards: Sequence[float], share: float) -> View:
    """The view with its mean colour moved towards another."""
    levels = np.arange(256, dtype=np.float32)[:, None]
    move = (np.array(towards[:3]) - cv2.mean(view.image)[:3]) * share
    table = np.clip(levels + move, 0, 255).astype(np.uint8)
    return View(np.asarray(cv2.LUT(view.image, table[None]), np.uint8), view.labels)


def lean(view: View, rng: Generator) -> Image:
    """The image with its roofs displaced by up to four pixels, as off nadir."""
    built = view.shows(BUILDING).astype(np.float32)
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


def misregistration(crop: int, largest: float, rng: Generator) -> NDArray[np.float64]:
    """A small shift and rotation, (2, 3), that moves no pixel by more than ``largest``."""
    shift = rng.normal(0, 0.4 * largest, 2)
    angle = float(np.clip(rng.normal(0, 0.3), -1, 1))
    # The corners move most: by the shift, and by the arc that they turn through.
    arc = math.radians(abs(angle)) * crop / math.sqrt(2)
    scale = min(1.0, largest / max(1e-6, float(np.hypot(*shift)) + arc))
    centre = ((crop - 1) / 2, (crop - 1) / 2)
    matrix = np.asarray(cv2.getRotationMatrix2D(centre, angle * scale, 1.0), np.float64)
    matrix[:, 2] += shift * scale
    return matrix


class PairSynthesizer:
    """Makes pairs from tiles; the same generator state gives the same pair.

    Args:
        tiles: labelled and unlabelled tiles.
        sources: the recipe's sources, for their weights.
        config: shares of the kinds, scales, misregistration.

    Raises:
        DatasetError: no tile has a class labelled, or not one that the shares ask for.
    """

    def __init__(
        self, tiles: Sequence[Tile], sources: Sequence[TileSource], config: SynthesisConfig
    ) -> None:
        self.tiles = tiles
        self.config = config
        self.crops = Cropper(tiles, sources, config)
        for plane, name, kinds in (
            (BUILDING, "buildings", ("construction", "paste", "removal")),
            (ROAD, "roads", ("road_paste", "road_removal")),
        ):
            if not self.crops.has(plane) and any(config.shares[kind] for kind in kinds):
                raise DatasetError(
                    f"no tile has {name} labelled; set {', '.join(kinds)} to 0, or add a source "
                    f"with {name}"
                )
        self._makers: dict[str, Callable[[Generator, int, float], Draft]] = {
            "construction": self._construction,
            "unrelated": self._unrelated,
            "patch": self._patch,
            "paste": self._paste,
            "removal": self._removal,
            "road_paste": self._road_paste,
            "road_removal": self._road_removal,
            "ground": self._ground,
            "unchanged": self._unchanged,
        }

    def sample(self, rng: Generator, crop: int, *, kind: str | None = None) -> Pair:
        """One pair of ``crop`` x ``crop`` pixels; without a kind the shares decide."""
        shares = self.config.shares
        drawn = str(rng.choice(list(shares), p=list(shares.values())))
        kind = kind or drawn
        low, high = self.config.gsd
        gsd = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        for _ in range(_TRIES):
            before, after, same_ground = self._makers[kind](rng, crop, gsd)
            # Now and then nothing can be pasted where it would have to go.
            if kind == "unchanged" or not same_ground.all():
                break
        if rng.random() < self.config.clutter:
            after, same_ground = _cluttered(after, same_ground, gsd, rng)
        change = differ(before.labels, after.labels)
        # What was not touched did not change, even where nobody knows what it is.
        change[:, same_ground] = 0
        if same_ground.any():
            after, change = self._displace(after, change, rng)
        pair = (self._sensor(before.image, rng), self._sensor(after.image, rng))
        labels = (before.labels, after.labels)
        if rng.random() < 0.5:
            pair, labels = pair[::-1], labels[::-1]
        return Pair(*pair, change, *labels, kind)

    def _sensor(self, image: Image, rng: Generator) -> Image:
        return photometric(image, rng, strong=bool(rng.random() < self.config.strong))

    # -- whole scenes ------------------------------------------------------------------------

    def _construction(self, rng: Generator, crop: int, gsd: float) -> Draft:
        before = self.crops.vacant(rng, crop, gsd)
        after = self.crops.near(BUILDING, rng, crop, gsd)
        if rng.random() < 0.5:
            after = _recoloured(after, cv2.mean(before.image), float(rng.uniform(0.3, 1)))
        return before, after, np.zeros((crop, crop), bool)

    def _unrelated(self, rng: Generator, crop: int, gsd: float) -> Draft:
        before = self.crops.near(self.crops.foremost, rng, crop, gsd)
        return before, self.crops.anywhere(rng, crop, gsd), np.zeros((crop, crop), bool)

    def _ground(self, rng: Generator, crop: int, gsd: float) -> Draft:
        before, after = (self.crops.vacant(rng, crop, gsd) for _ in range(2))
        after = _recoloured(after, cv2.mean(before.image), float(rng.uniform(0, 0.7)))
        return before, after, np.zeros((crop, crop), bool)

    def _unchanged(self, rng: Generator, crop: int, gsd: float) -> Draft:
        view = self.crops.anywhere(rng, crop, gsd)
        return view, View(view.image, view.labels), np.ones((crop, crop), bool)

    def _patch(self, rng: Generator, crop: int, gsd: float) -> Draft:
        base = self.crops.anywhere(rng, crop, gsd)
        if rng.random() < 0.6:
            other = self.crops.near(self.crops.foremost, rng, crop, gsd)
        else:
            other = self.crops.vacant(rng, crop, gsd)
        other = _recoloured(other, cv2.mean(base.image), float(rng.uniform(0.2, 1)))
        mask = blobs((crop, crop), rng)
        return base, compose(base, other, mask, float(rng.uniform(0.5, 2.5))), ~mask

    # -- single things -----------------------------------------------------------------------

    def _paste(self, rng: Generator, crop: int, gsd: float) -> Draft:
        # More often vacant ground than any.
        if rng.random() < 0.35:
            base = self.crops.anywhere(rng, crop, gsd)
        else:
            base = self.crops.vacant(rng, crop, gsd)
        donor = self.crops.near(BUILDING, rng, crop, gsd)
        built = donor.shows(BUILDING)
        # The margin brings the yard along, and the shadow on the side where it falls.
        margin, reach = int(rng.integers(2, 8)), shadow_reach(donor.image, built)
        # A building that cut another in two, or a road, would be a sight never seen.
        blocked = grown(base.taken(), margin, (-reach[0], -reach[1]))
        chosen = some_of(objects(built), rng, without=blocked)
        mask = grown(chosen, margin, reach) & ~(donor.taken() & ~chosen)
        return self._pasted(base, donor, mask, rng)

    def _road_paste(self, rng: Generator, crop: int, gsd: float) -> Draft:
        # Where it is known whether there are roads: open ground, or beside others.
        if rng.random() < 0.35:
            base = self.crops.near(ROAD, rng, crop, gsd)
        else:
            base = self.crops.vacant(rng, crop, gsd, planes=(ROAD, BUILDING))
        donor = self.crops.near(ROAD, rng, crop, gsd)
        margin = int(rng.integers(1, 5))
        # Roads go round buildings; they join other roads.
        blocked = grown(base.shows(BUILDING), margin)
        chosen = some_of(stretches(donor.shows(ROAD), rng), rng, without=blocked)
        others = (donor.taken() & ~chosen) | (base.shows(ROAD) & ~chosen)
        return self._pasted(base, donor, grown(chosen, margin) & ~others, rng)

    def _pasted(self, base: View, donor: View, mask: Mask, rng: Generator) -> Draft:
        donor = _recoloured(donor, cv2.mean(base.image), float(rng.uniform(0, 0.7)))
        if rng.random() < 0.5:
            # Ground pasted where nothing is built, so that the seam itself is no cue.
            mask = mask | (decoys(mask, rng) & ~grown(base.taken() | donor.taken(), 2))
        return base, compose(base, donor, mask, float(rng.uniform(0.5, 1.5))), ~mask

    def _removal(self, rng: Generator, crop: int, gsd: float) -> Draft:
        base = self.crops.near(BUILDING, rng, crop, gsd)
        built = base.shows(BUILDING)
        chosen = some_of(objects(built), rng)
        reach = shadow_reach(base.image, built)
        mask = grown(chosen, int(rng.integers(2, 6)), reach) & ~(base.taken() & ~chosen)
        ground = self.crops.vacant(rng, crop, gsd, planes=(BUILDING, ROAD))
        return self._cleared(base, ground, mask, rng)

    def _road_removal(self, rng: Generator, crop: int, gsd: float) -> Draft:
        base = self.crops.near(ROAD, rng, crop, gsd)
        chosen = some_of(stretches(base.shows(ROAD), rng), rng)
        mask = grown(chosen, int(rng.integers(1, 5))) & ~(base.taken() & ~chosen)
        ground = self.crops.vacant(rng, crop, gsd, planes=(ROAD, BUILDING))
        return self._cleared(base, ground, mask, rng)

    def _cleared(self, base: View, ground: View, mask: Mask, rng: Generator) -> Draft:
        """Ground in place of what the mask holds, and of as much where nothing stood."""
        taken = base.taken()
        offset = clean_offset(mask, taken | mask, rng) if rng.random() < 0.5 else None
        if offset is not None:
            # The ground next to it, as an eraser in a picture editor takes it.
            ground = _shifted(base, (-offset[0], -offset[1]))
        else:
            around = (~taken).astype(np.uint8)
            ground = _recoloured(ground, cv2.mean(base.image, around), 1.0)
        # Fills where nothing stood, so that the fill itself is no cue.
        fills = smooth_noise(mask.shape, 24, rng) > 1.6 if rng.random() < 0.5 else decoys(mask, rng)
        fills &= ~grown(taken | ground.taken(), 1)
        mask = mask | fills
        return base, compose(base, ground, mask, float(rng.uniform(0.5, 2.0))), ~mask

    # -- what every pair of one scene gets ---------------------------------------------------

    def _displace(self, after: View, change: Labels, rng: Generator) -> tuple[View, Labels]:
        """Misregister the after image, and let what appeared in it move along."""
        image = lean(after, rng) if rng.random() < 0.3 else after.image
        matrix = misregistration(image.shape[0], self.config.max_shift, rng)
        labels = np.stack([_warped(plane, matrix, cv2.INTER_NEAREST) for plane in after.labels])
        appeared = (change == 1) & (after.labels == 1)
        change[appeared] = 0
        for plane, part in zip(change, appeared, strict=True):
            if part.any():
                plane[_warped(part.astype(np.uint8), matrix, cv2.INTER_NEAREST) == 1] = 1
        return View(_warped(image, matrix, cv2.INTER_LINEAR), labels), change


def _warped(plane: NDArray[np.uint8], matrix: NDArray[np.float64], flags: int) -> NDArray[np.uint8]:
    size = (plane.shape[1], plane.shape[0])
    return np.asarray(
        cv2.warpAffine(plane, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101),
        np.uint8,
    )


def _shifted(view: View, move: tuple[int, int]) -> View:
    """The view moved by whole pixels to the right and down, mirrored at its edges."""
    matrix = np.array([[1, 0, move[0]], [0, 1, move[1]]], np.float64)
    labels = np.stack([_warped(plane, matrix, cv2.INTER_NEAREST) for plane in view.labels])
    return View(_warped(view.image, matrix, cv2.INTER_NEAREST), labels)


def _cluttered(view: View, same_ground: Mask, gsd: float, rng: Generator) -> tuple[View, Mask]:
    """A date with a yard on it, and the ground that is still the same."""
    image, yard = clutter(view.image, view.labels[BUILDING] != 1, gsd, rng)
    labels = view.labels.copy()
    # A yard is no building for sure; whether it counts as road, nobody can say.
    labels[BUILDING][yard & (labels[BUILDING] != 1)] = 0
    labels[ROAD:, yard] = IGNORE
    return View(image, labels), same_ground & ~yard
