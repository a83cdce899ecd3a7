"""Pairs of a golden picture and a sample with defects, synthesised from good pictures alone.

    kind       what is drawn                                     on
    pinhole    a spot of the other material                      either material, inside it
    bite       a spot of the other material                      an edge
    cut        a strip of the other material                     across a track (open) or a gap
                                                                 between two tracks (short)
    missing    a part or hole filled with what surrounds it      a small connected piece
    scratch    a thin polyline of any grey                       anywhere
    stain      a soft spot of another grey                       anywhere

Materials are told apart by Otsu's threshold, so that the same kinds serve copper on laminate and
laminate on copper. Both pictures then get an exposure, a focus and a noise of their own, and a
misregistration that is no defect.

Source:
    The kinds of Tang et al. (2019), DeepPCB, arXiv 1902.06197: open, short, mouse bite, spur,
    pinhole, spurious copper.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from geocd.errors import DamagedSampleError, DatasetError
from geocd.training.camera import displaced, exposed
from geocd.training.datasets import SUFFIXES, read_image
from geocd.training.defect_source import DefectSource
from geocd.training.synthesis import Pair
from geocd.training.tiles import IGNORE

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Draw = Callable[[Image, Mask, Generator], Image | None]

_VISIBLE = 30
"""Grey levels by which a pixel must differ to be part of a defect."""
_LEAST_PIXELS = 8
"""Pixels below which nobody would call it a defect."""
_REACH = 36
"""Longest cut across a track or a gap, pixels."""
_FITS = 0.8
"""Least correlation of a good sample with its golden."""
_PIECE = 2500
"""Largest connected piece that goes missing, pixels."""


def _spot(shape: tuple[int, int], centre: NDArray[np.intp], radius: float, rng: Generator) -> Mask:
    """A ragged, mostly oblong spot around a (row, col)."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ragged = 1 + 0.18 * rng.standard_normal() * np.sin(2 * angles + rng.uniform(0, 6))
    ragged += 0.15 * rng.standard_normal() * np.sin(3 * angles + rng.uniform(0, 6))
    ragged += rng.normal(0, 0.06, 24)
    squeeze, turn = np.exp(rng.normal(0, 0.3)), rng.uniform(0, np.pi)
    x, y = np.cos(angles) * squeeze, np.sin(angles) / squeeze
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    outline = np.stack([x, y], axis=1) * (ragged * radius)[:, None] + centre[::-1]
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [(outline * 16).round().astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask.astype(bool)


def _any_of(places: Mask, rng: Generator) -> NDArray[np.intp] | None:
    """A random (row, col) where the mask is set."""
    found = np.flatnonzero(places)
    if not len(found):
        return None
    return np.array(np.unravel_index(found[rng.integers(len(found))], places.shape))


def _other_grey(image: Image, material: Mask, rng: Generator) -> NDArray[np.float64]:
    """Colour of what is not the material, or its reverse where there is nothing else."""
    if (~material).any():
        inside = image[~material]
        return np.asarray(inside[rng.integers(len(inside), size=9)].mean(axis=0), np.float64)
    mean = image.reshape(-1, image.shape[2]).mean(axis=0)
    return np.asarray(np.where(mean > 127, mean - 150, mean + 150).clip(0, 255), np.float64)


def _painted(image: Image, mask: Mask, colour: NDArray[np.float64], rng: Generator) -> Image:
    """The image with a mask in a colour, its edge a little soft now and then."""
    soft = mask.astype(np.float32)
    if rng.random() < 0.3:
        soft = np.asarray(cv2.GaussianBlur(soft, (0, 0), rng.uniform(0.4, 0.8)), np.float32)
    out = image + (colour - image) * soft[..., None]
    return np.asarray(out.round().clip(0, 255), np.uint8)


def _depth(material: Mask) -> NDArray[np.float32]:
    """Pixels to the nearest edge of the material; 0 outside."""
    if material.all():
        return np.full(material.shape, 99, np.float32)
    return np.asarray(cv2.distanceTransform(material.astype(np.uint8), cv2.DIST_L2, 3), np.float32)


def pinhole(image: Image, material: Mask, rng: Generator) -> Image | None:
    """A spot of the other material inside a material; None where there is no room."""
    radius = rng.uniform(1.8, 6.5)
    centre = _any_of(_depth(material) > radius + 1.5, rng)
    if centre is None:
        return None
    spot = _spot(material.shape, centre, radius, rng)
    return _painted(image, spot, _other_grey(image, material, rng), rng)


def bite(image: Image, material: Mask, rng: Generator) -> Image | None:
    """A spot bitten out of an edge: a mouse bite, or a spur on the other material's edge."""
    depth = _depth(material)
    centre = _any_of((depth > 0) & (depth < 2), rng)
    if centre is None or material.all():
        return None
    spot = _spot(material.shape, centre, rng.uniform(3.2, 9), rng) & material
    return _painted(image, spot, _other_grey(image, material, rng), rng)


def cut(image: Image, material: Mask, rng: Generator) -> Image | None:
    """A strip across a stretch of the material: an open, or a short across a gap."""
    depth = _depth(material)
    start = _any_of((depth > 1) & (depth < _REACH / 2), rng)
    if start is None or material.all():
        return None
    angles = rng.uniform(0, np.pi) + np.arange(12) * np.pi / 12
    best: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None
    for angle in angles:
        step = np.array([np.sin(angle), np.cos(angle)])
        ends = [_walk(material, start, sign * step) for sign in (-1, 1)]
        if ends[0] is None or ends[1] is None:
            continue
        length = float(np.hypot(*(ends[1] - ends[0])))
        if length <= _REACH and (best is None or length < best[0]):
            best = length, ends[0], ends[1]
    if best is None:
        return None
    strip = np.zeros(material.shape, np.uint8)
    bow = rng.normal(0, 1.5, 2)
    line = np.array([best[1], (best[1] + best[2]) / 2 + bow, best[2]])[:, ::-1]
    cv2.polylines(strip, [line.round().astype(np.int32)], False, 1, int(rng.integers(2, 8)))
    return _painted(image, (strip > 0) & material, _other_grey(image, material, rng), rng)


def _walk(
    material: Mask, start: NDArray[np.intp], step: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Where a straight walk leaves the material; None if it does not within reach."""
    path = start + np.arange(1, _REACH + 1)[:, None] * step  # (steps, 2)
    pixels = path.round().astype(int)
    inside = np.asarray(((pixels >= 0) & (pixels < material.shape)).all(axis=1))
    pixels = pixels[: len(inside) if inside.all() else int(inside.argmin())]
    left = np.flatnonzero(~material[pixels[:, 0], pixels[:, 1]])
    return path[left[0]] if len(left) else None


def missing(image: Image, material: Mask, rng: Generator) -> Image | None:
    """A small connected piece of the material that is not there."""
    number, labels, stats, _ = cv2.connectedComponentsWithStats(material.astype(np.uint8))
    height, width = material.shape
    x, y, w, h, area = stats[1:].T if number > 1 else np.zeros((5, 0), np.int32)
    whole = (x > 1) & (y > 1) & (x + w < width - 1) & (y + h < height - 1)
    pieces = 1 + np.flatnonzero(whole & (area <= _PIECE) & (area >= _LEAST_PIXELS))
    if not len(pieces):
        return None
    piece = np.asarray(labels == pieces[rng.integers(len(pieces))], np.uint8)
    grown = cv2.dilate(piece, np.ones((3, 3), np.uint8)) > 0
    return _painted(image, grown, _other_grey(image, material, rng), rng)


def scratch(image: Image, material: Mask, rng: Generator) -> Image | None:
    """A thin polyline of any grey."""
    at = rng.uniform(0, 1, 2) * material.shape[::-1]
    angle, points = rng.uniform(0, 2 * np.pi), [at]
    for _ in range(rng.integers(2, 6)):
        angle += rng.normal(0, 0.5)
        at = at + rng.uniform(5, 22) * np.array([np.cos(angle), np.sin(angle)])
        points.append(at)
    line = np.zeros(material.shape, np.uint8)
    course = np.array(points).round().astype(np.int32)
    cv2.polylines(line, [course], False, 1, int(rng.integers(1, 4)))
    colour = np.full(image.shape[2], rng.uniform(0, 255))
    return _painted(image, line > 0, colour, rng)


def stain(image: Image, material: Mask, rng: Generator) -> Image | None:
    """A soft spot of another grey."""
    centre = np.array([rng.integers(side) for side in material.shape], np.intp)
    spot = _spot(material.shape, centre, rng.uniform(3, 14), rng).astype(np.float32)
    soft = cv2.GaussianBlur(spot, (0, 0), rng.uniform(0.5, 2))[..., None]
    moved = image + soft * rng.choice([-1, 1]) * rng.uniform(60, 220)
    return np.asarray(np.clip(moved, 0, 255), np.uint8)


KINDS: dict[str, tuple[Draw, float]] = {
    "pinhole": (pinhole, 0.26), "bite": (bite, 0.28), "cut": (cut, 0.24),
    "missing": (missing, 0.06), "scratch": (scratch, 0.08), "stain": (stain, 0.08),
}  # fmt: skip
"""What is drawn, and how often."""


def with_defects(image: Image, rng: Generator, *, most: int = 5) -> tuple[Image, Mask]:
    """A sample with one to ``most`` defects, and where it differs from the good picture.

    Args:
        image: a good part, shape (height, width, 3), uint8.
        rng: decides everything.
        most: defects tried at most; those that find no room or cannot be seen are left out.
    """
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    limit, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = grey > limit
    if np.ptp(grey) < _VISIBLE:
        bright = np.ones(grey.shape, bool)
    names = list(KINDS)
    shares = np.array([KINDS[name][1] for name in names])
    out, where = image, np.zeros(grey.shape, bool)
    for _ in range(rng.integers(1, most + 1)):
        draw = KINDS[names[rng.choice(len(names), p=shares / shares.sum())]][0]
        material = bright if rng.random() < 0.5 or bright.all() else ~bright
        drawn = draw(out, material, rng)
        if drawn is None:
            continue
        # One that lies over another may undo it: what counts is the good picture.
        seen = np.abs(drawn.astype(np.int16) - image).max(axis=2) > _VISIBLE
        if seen.sum() >= where.sum() + _LEAST_PIXELS:
            out, where = drawn, seen
    return out, where


class DefectPairs:
    """Pairs of a golden picture and a sample, drawn from pictures of good parts.

    Args:
        source: where the pictures are, and how often samples have defects.
        root: the data root.
        strict: refuse damaged files instead of skipping them.

    Attributes:
        pairs: golden picture and good sample, each (height, width, 3), uint8, on one grid.
        damaged: names of files that cannot be read or do not lie on the golden.

    Raises:
        DatasetError: the folder has no pictures of those names that can be read, or the golden is
            not among them.
    """

    def __init__(self, source: DefectSource, root: Path, *, strict: bool = False) -> None:
        self.source = source
        folder = root / source.folder
        if not folder.is_dir():
            raise DatasetError(f"there is no folder {folder} of good pictures")
        images, self.damaged = _good_pictures(folder, source, strict=strict)
        if not images:
            raise DatasetError(
                f"no good pictures that match {', '.join(source.include)} can be read in {folder}"
            )
        if source.golden and source.golden not in images:
            raise DatasetError(
                f"the golden {source.golden} is none of the good pictures that can be read in "
                f"{folder}: {', '.join(list(images)[:5])}"
            )
        self.pairs: list[tuple[Image, Image]] = []
        for name, image in images.items():
            golden = images[source.golden or name]
            sample = image if golden is image else registered(image, golden)
            if sample is None:
                if strict:
                    raise DatasetError(f"{folder / name} cannot be brought onto {source.golden}")
                self.damaged.append(str(folder / name))
                continue
            self.pairs.append((golden, sample))

    def sample(self, rng: Generator, crop: int) -> Pair:
        """A pair of ``crop`` x ``crop`` pixels; the label lies where the sample shows it."""
        golden, sample = self._view(rng, crop)
        where, kind = np.zeros((crop, crop), bool), "good"
        if rng.random() < self.source.faulty:
            sample, where = with_defects(sample, rng)
            kind = "faulty"
        golden = displaced(golden, rng, largest=self.source.max_shift)
        if rng.random() < self.source.camera:
            golden = exposed(golden, rng)
        if rng.random() < self.source.camera:
            sample = exposed(sample, rng)
        change = where.astype(np.uint8)[None]
        unknown = np.full_like(change, IGNORE)
        dates = (golden, sample) if rng.random() < 0.5 else (sample, golden)
        return Pair(*dates, change, unknown, unknown, kind)

    def _view(self, rng: Generator, crop: int) -> tuple[Image, Image]:
        """A crop of a golden and a sample: turned, mirrored, scaled, reversed in grey at random."""
        views = [self._crop(rng, crop) for _ in range(3)]
        view = max(views, key=lambda v: np.ptp(v[0])) if rng.random() < 0.8 else views[0]
        golden, sample = view
        return (255 - golden, 255 - sample) if rng.random() < 0.3 else view

    def _crop(self, rng: Generator, crop: int) -> tuple[Image, Image]:
        pair = self.pairs[rng.integers(len(self.pairs))]
        zoom = float(np.exp(rng.uniform(-0.35, 0.35))) if rng.random() < 0.5 else 1.0
        quarter = rng.integers(4) * np.pi / 2
        angle = quarter if zoom == 1 or rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
        mirror = -1 if rng.random() < 0.5 else 1
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
        size = np.array(pair[0].shape[1::-1])
        reach = np.minimum(crop / 2 / zoom, size / 2)
        at = np.floor(rng.uniform(reach, np.maximum(size - reach, reach + 1e-6))) + 0.5
        # Centres of pixels meet centres of pixels, so that right angles do not blur.
        move = np.full(2, crop / 2 + (0.5 if crop % 2 == 0 else 0.0)) - linear @ at
        matrix = np.column_stack([linear, np.round(move) if zoom == 1 else move])
        golden, sample = (
            cv2.warpAffine(image, matrix, (crop, crop), borderMode=cv2.BORDER_REFLECT_101)
            for image in pair
        )
        return np.asarray(golden, np.uint8), np.asarray(sample, np.uint8)


def _good_pictures(
    folder: Path, source: DefectSource, *, strict: bool
) -> tuple[dict[str, Image], list[str]]:
    """The pictures of a source by file name, and the files that cannot be read."""
    images: dict[str, Image] = {}
    damaged: list[str] = []
    for path in sorted(folder.iterdir()):
        wanted = any(fnmatch(path.name, pattern) for pattern in source.include)
        if not wanted or path.suffix.lower() not in SUFFIXES:
            continue
        try:
            images[path.name] = read_image(path)
        except DamagedSampleError:
            if strict:
                raise
            damaged.append(str(path))
    return images, damaged


def registered(sample: Image, golden: Image) -> Image | None:
    """A good sample brought onto the golden by a shift and a turn; None if it does not fit.

    Args:
        sample: shape (height, width, 3), uint8, a few pixels off its place at most.
        golden: the same shape, or it does not fit.

    Source:
        Evangelidis and Psarakis (2008), doi 10.1109/TPAMI.2008.113.
    """
    if sample.shape != golden.shape:
        return None
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (golden, sample)]
    start = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 100, 1e-5)
    try:
        fit, motion = cv2.findTransformECC(
            grey[0], grey[1], start, cv2.MOTION_EUCLIDEAN, stop, None, 9
        )  # type: ignore[call-overload]
    except cv2.error:  # no correlation at all
        return None
    if fit < _FITS:
        return None
    height, width = golden.shape[:2]
    moved = cv2.warpAffine(
        sample, motion, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    return np.asarray(moved, np.uint8)
