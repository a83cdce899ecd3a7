"""Single-date labelled tiles: the raw material of synthesised pairs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.errors import DatasetError
from geocd.training.recipe import TileSource

log = logging.getLogger(__name__)

IGNORE = 255
"""Label of a pixel of which nothing is known for a class."""
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class Tile:
    """One labelled image of one date.

    Attributes:
        name: source folder and file name, for messages.
        image: RGB, shape (height, width, 3), uint8.
        labels: one plane per class, shape (classes, height, width), uint8: 0, 1 or ``IGNORE``.
        gsd: metres per pixel.
        source: index of the source in the recipe.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    gsd: float
    source: int

    def has(self, plane: int) -> bool:
        """True where the class is labelled and present in the tile."""
        return bool((self.labels[plane] == 1).any())


def read_image(path: Path, *, colour: bool) -> NDArray[np.uint8]:
    """An image file as RGB (height, width, 3) or as its single plane (height, width).

    Raises:
        DatasetError: the file cannot be decoded.
    """
    flags = cv2.IMREAD_COLOR_RGB if colour else cv2.IMREAD_UNCHANGED
    image = cv2.imread(str(path), flags)
    if image is None:
        raise DatasetError(f"cannot read {path} as an image; remove it or replace it")
    if not colour and image.ndim == 3:
        image = image[..., 0]
    return np.asarray(image, dtype=np.uint8)


def _read_tile(path: Path, root: Path, source: TileSource, index: int, n: int) -> Tile:
    image = read_image(path, colour=True)
    height, width = image.shape[:2]
    labels = np.full((n, height, width), IGNORE, np.uint8)
    if source.labels:
        stem = root / source.folder / "labels" / path.stem
        found = [stem.with_suffix(s) for s in _SUFFIXES if stem.with_suffix(s).exists()]
        if not found:
            raise DatasetError(f"{path} has no label beside it in {stem.parent}")
        values = read_image(found[0], colour=False)
        if values.shape != (height, width):
            raise DatasetError(
                f"{path.name}: image is {height} x {width}, label is "
                f"{values.shape[0]} x {values.shape[1]}; they must be of one size"
            )
        for plane, value in source.labels.items():
            labels[plane] = values == value
    return Tile(f"{source.folder}/{path.name}", image, labels, source.gsd, index)


def load_tiles(root: Path, sources: Sequence[TileSource], *, classes: int) -> list[Tile]:
    """Every tile of the sources, in memory.

    A source is a folder with ``images/`` and, if it is labelled, ``labels/`` of the same names.

    Raises:
        DatasetError: a folder is missing or empty, or a label does not fit its image.
    """
    tiles: list[Tile] = []
    for index, source in enumerate(sources):
        folder = root / source.folder
        images = folder / "images" if (folder / "images").is_dir() else folder
        paths = sorted(p for p in images.glob(source.include) if p.suffix.lower() in _SUFFIXES)
        if not paths:
            raise DatasetError(f"no images that match {source.include!r} in {images}")
        tiles += [_read_tile(p, root, source, index, classes) for p in paths]
        log.info("%s: %d tiles", source.folder, len(paths))
    return tiles


def content_hash(image: NDArray[np.uint8]) -> str:
    """A hash of the decoded pixels: the same picture under two names gives the same hash."""
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
