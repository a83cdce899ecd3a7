"""Single-date labelled tiles: the raw material of synthesised pairs."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.errors import DamagedSampleError, DatasetError, GeocdWarning
from geocd.training.painted import paint_tile
from geocd.training.recipe import TileSource

log = logging.getLogger(__name__)

IGNORE = 255
"""Label of a pixel of which nothing is known for a class."""
_CLASSES = ("building", "road")
_PAINTED = "painted/"
"""How the names of painted tiles begin."""
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
        return plane < len(self.labels) and bool((self.labels[plane] == 1).any())


class TileList(list[Tile]):
    """Tiles in memory.

    Attributes:
        damaged: names of those that were skipped because a file is damaged.
    """

    def __init__(self, tiles: Iterable[Tile] = (), damaged: Sequence[str] = ()) -> None:
        super().__init__(tiles)
        self.damaged = tuple(damaged)

    def content_hashes(self) -> set[str]:
        """Hashes of the images, by which a calibration knows them again; not of painted ones."""
        return {content_hash(tile.image) for tile in self if not tile.name.startswith(_PAINTED)}


def load_tiles(
    root: Path, sources: Sequence[TileSource], *, classes: int, strict: bool = False
) -> TileList:
    """Every tile of the sources, in memory; painted ones are painted now.

    A source is a folder with ``images/`` and, if it is labelled, ``labels/`` of the same names.
    Its label values are 0 (none), those that the source names and its ``ignore``. A class that a
    source does not label is unknown, except where another class stands: no road is a building.

    Args:
        root: the data root.
        sources: what to read.
        classes: planes of the labels; the first is buildings, the second roads.
        strict: refuse damaged files instead of skipping them with a warning.

    Raises:
        DatasetError: a folder is missing or empty, nothing in it can be read, a label does not
            fit its image or holds other values, or a file is damaged and ``strict`` is set.
    """
    tiles: list[Tile] = []
    damaged: list[str] = []
    for index, source in enumerate(sources):
        if source.painted:
            made = [_painted_tile(source, index, number, classes) for number in
                    range(source.painted)]  # fmt: skip
        else:
            paths = _images(root, source)
            made = []
            for path in paths:
                try:
                    made.append(_read_tile(path, root, source, index, classes))
                except DamagedSampleError as error:
                    if strict:
                        raise
                    warnings.warn(f"tile skipped: {error}", GeocdWarning, stacklevel=2)
                    damaged.append(f"{source.folder}/{path.name}")
            if not made:
                raise DatasetError(f"none of {len(paths)} tiles in {source.folder} can be read")
        tiles += made
        log.info("%s: %d tiles", source.name, len(made))
    return TileList(tiles, damaged)


def _images(root: Path, source: TileSource) -> list[Path]:
    folder = root / source.folder
    images = folder / "images" if (folder / "images").is_dir() else folder
    paths = sorted(p for p in images.glob(source.include) if p.suffix.lower() in _SUFFIXES)
    if not paths:
        raise DatasetError(f"no images that match {source.include!r} in {images}")
    return paths


def _painted_tile(source: TileSource, index: int, number: int, classes: int) -> Tile:
    made = paint_tile([source.seed, number], gsd=source.gsd)
    name = f"{_PAINTED}{index}/{number:05d}"
    return Tile(name, made.image, _fitted(made.labels, classes), source.gsd, index)


def _read_tile(path: Path, root: Path, source: TileSource, index: int, classes: int) -> Tile:
    # Imported here, because the sets of real pairs know the tiles.
    from geocd.training.datasets.files import read_image

    image = read_image(path)
    labels = np.full((len(_CLASSES), *image.shape[:2]), IGNORE, np.uint8)
    if source.labels:
        stem = root / source.folder / "labels" / path.stem
        found = [stem.with_suffix(s) for s in _SUFFIXES if stem.with_suffix(s).exists()]
        if not found:
            raise DatasetError(f"{path} has no label beside it in {stem.parent}")
        labels = _read_labels(found[0], source)
        if labels.shape[1:] != image.shape[:2]:
            (height, width), (rows, cols) = image.shape[:2], labels.shape[1:]
            raise DatasetError(
                f"{path.name}: image is {height} x {width}, label is {rows} x {cols}; "
                "they must be of one size"
            )
    name = f"{source.folder}/{path.name}"
    return Tile(name, image, _fitted(labels, classes), source.gsd, index)


def _read_labels(path: Path, source: TileSource) -> NDArray[np.uint8]:
    """Planes of buildings and roads, shape (2, height, width)."""
    from geocd.training.datasets.coding import LabelCoding
    from geocd.training.datasets.files import read_label_values

    values, lossy = read_label_values(path)
    if lossy:
        coding = LabelCoding(classes=_CLASSES, values=source.labels, ignore=source.ignore)
        planes = coding.planes(values, name=str(path), lossy=True)
    else:
        _refuse_unknown(values, path, source)
        planes = np.full((len(_CLASSES), *values.shape), IGNORE, np.uint8)
        for name, value in source.labels.items():
            planes[_CLASSES.index(name)] = values == value
        if source.ignore is not None:
            planes[:, values == source.ignore] = IGNORE
    for plane, other in zip(planes, planes[::-1], strict=True):
        # No road is a building, and no building a road.
        plane[(plane == IGNORE) & (other == 1)] = 0
    return planes


def _refuse_unknown(values: NDArray[np.integer], path: Path, source: TileSource) -> None:
    if values.dtype == np.uint8:
        # Counting bytes is much faster than sorting them.
        found = np.flatnonzero(cv2.calcHist([values], [0], None, [256], [0, 256]))
    else:
        found = np.unique(values)
    known = {0, source.ignore, *source.labels.values()}
    wrong = [str(value) for value in found.tolist() if value not in known]
    if wrong:
        meaning = ", ".join(f"{value} {name}" for name, value in source.labels.items())
        raise DatasetError(
            f"{path} holds {', '.join(wrong[:8])}{' ...' if len(wrong) > 8 else ''}; "
            f"the source names 0 none, {meaning}; set its building, road or ignore, "
            "or write the other values as 0"
        )


def _fitted(labels: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """As many planes as there are classes; of further classes nothing is known."""
    fitted = np.full((classes, *labels.shape[1:]), IGNORE, np.uint8)
    fitted[: len(labels)] = labels[:classes]
    return fitted


def content_hash(image: NDArray[np.uint8]) -> str:
    """A hash of the decoded pixels: the same picture under two names gives the same hash."""
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
