"""Score rasters: what is in one, and its rows as they are traced."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.windows import Window

from geocd.config import CLASS_CODES, NOT_OBSERVED
from geocd.errors import BandError, InputError, RasterOpenError
from geocd.rasters.grid import Grid
from geocd.rasters.write import PROVENANCE_TAG
from geocd.tiling.classify import classify

Bytes = npt.NDArray[np.uint8]

NEAR = 3
"""How far around an object, in pixels, it matters whether the ground was observed."""
_BAND_PIXELS = 1 << 21
"""Pixels that are held at once."""
_BLOCK = 64
"""Bands of rows begin at a multiple of this, a quarter of the files' blocks: GDAL keeps a block
that several bands share, and bands of the widest rasters stay small."""


@dataclass(frozen=True, slots=True)
class ScoreHeader:
    """What a score raster says about itself."""

    grid: Grid
    classes: tuple[str, ...]
    """What its bands are the scores of."""
    thresholds: tuple[float, ...]
    """Those of the run that wrote it, one a class, 0..1."""
    record: dict[str, Any]
    """What made it."""

    @property
    def dates(self) -> tuple[str | None, str | None]:
        """ISO dates of the images before and after, where they are known."""
        inputs = self.record.get("inputs", {})
        before, after = (inputs.get(role, {}).get("date") for role in ("before", "after"))
        return before, after


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The raster as an open dataset.

    Raises:
        RasterOpenError: it is missing, damaged or no raster.
    """
    try:
        with warnings.catch_warnings():
            # Images without georeferencing are a supported case, not an oversight.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except RasterioIOError as error:
        raise RasterOpenError(f"{path} cannot be read as a raster: {error}") from error
    with dataset:
        yield dataset


def read_header(path: Path) -> ScoreHeader:
    """What a score raster says about itself.

    Raises:
        RasterOpenError: it cannot be read.
        InputError: it is no score raster of geocd.
    """
    with opened(path) as dataset:
        wrong = _what_is_wrong(dataset)
        if wrong:
            raise InputError(
                f"{path} is no score raster of geocd: {wrong}; give the file that "
                "'geocd detect --scores FILE' has written"
            )
        record = json.loads(dataset.tags()[PROVENANCE_TAG])
        thresholds = tuple(record["thresholds"][name] for name in dataset.descriptions)
        return ScoreHeader(grid_of(dataset), dataset.descriptions, thresholds, record)


def _what_is_wrong(dataset: Any) -> str | None:
    kinds = sorted(set(dataset.dtypes))
    if kinds != ["uint8"]:
        return f"its {dataset.count} bands are {', '.join(kinds)}, not uint8"
    if dataset.colorinterp[0] == ColorInterp.palette:
        return "it has a colour table, as change maps have"
    try:
        record = json.loads(dataset.tags()[PROVENANCE_TAG])
        thresholds = record["thresholds"]
        known = set(thresholds) <= set(CLASS_CODES)
        sound = all(0 < float(value) < 1 for value in thresholds.values())
    except KeyError:
        return "nothing in it says what its bands are (another program may have taken the tags off)"
    except (ValueError, TypeError, AttributeError):
        return f"its item {PROVENANCE_TAG} is damaged"
    if not (known and sound and thresholds):
        return f"its classes and thresholds are {thresholds}"
    names = [name or "?" for name in dataset.descriptions]
    if sorted(names) != sorted(thresholds):
        return f"its bands are {', '.join(names)}, its classes {', '.join(thresholds)}"
    return None


def check_classes(dataset: Any, classes: Sequence[str]) -> None:
    """Refuse a raster whose bands cannot be the scores of these classes.

    Raises:
        InputError: there is no class of that name, or the values are not bytes.
        BandError: there are more or fewer bands than classes.
    """
    unknown = [name for name in classes if name not in CLASS_CODES]
    if unknown:
        raise InputError(f"unknown class {unknown[0]!r}; known classes: {', '.join(CLASS_CODES)}")
    if set(dataset.dtypes) != {"uint8"}:
        raise InputError(f"{dataset.name} must be uint8, found {dataset.dtypes[0]}")
    if dataset.count != len(classes):
        raise BandError(
            f"{dataset.name} has {dataset.count} bands for {len(classes)} classes "
            f"({', '.join(classes)}); give the classes of the weights that made it"
        )


def grid_of(dataset: Any) -> Grid:
    """Where the pixels of an open raster sit."""
    transform = dataset.transform
    if dataset.crs is None and transform == Affine.identity():
        # A GIS hangs an image without georeferencing below the x axis.
        transform = Affine(1, 0, 0, 0, -1, 0)
    return Grid(dataset.crs, transform, dataset.height, dataset.width)


def pyproj_crs(crs: CRS | None) -> pyproj.CRS | None:
    """The CRS for geopandas; by its code where it has one, because codes survive every format."""
    if crs is None:
        return None
    authority = crs.to_authority()
    return pyproj.CRS.from_user_input(":".join(authority) if authority else crs.to_wkt())


@dataclass(frozen=True, slots=True)
class Rows:
    """A band of rows, classified."""

    stop: int
    """Row after the last."""
    codes: Bytes
    """Change map, shape (rows, width)."""
    scores: Bytes
    """As they are stored, shape (classes, rows, width)."""
    doubtful: npt.NDArray[np.bool_]
    """Within `NEAR` pixels, diagonals included, of ground that was not observed, (rows, width)."""


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads a score raster from top to bottom, in bands of rows.

    Attributes:
        dataset: open raster of scores.
        thresholds: one a class, 0..1.
        codes: value of each class in the change map.
        opening: radii (rows, columns), in pixels, of the disc that must fit into what is kept.
    """

    dataset: Any
    thresholds: tuple[float, ...]
    codes: tuple[int, ...]
    opening: tuple[float, float] = (0.0, 0.0)

    def __iter__(self) -> Iterator[Rows]:
        height, width = self.dataset.shape
        step = max(_BLOCK, _BAND_PIXELS // width // _BLOCK * _BLOCK)
        for top in range(0, height, step):
            yield self.read(top, min(top + step, height))

    def read(self, top: int, stop: int) -> Rows:
        """The rows from ``top`` to before ``stop``, as if the whole raster had been looked at."""
        height, width = self.dataset.shape
        disc = _disc(self.opening)
        margin = max(NEAR, len(disc) - 1)  # opening looks as far as the disc is wide, twice
        first, last = max(0, top - margin), min(height, stop + margin)
        scores = self.dataset.read(window=Window(0, first, width, last - first))
        codes = classify(scores, self.thresholds, self.codes)
        inner = slice(top - first, stop - first)
        doubtful = _near(codes == NOT_OBSERVED, above=first == 0, below=last == height)
        if disc.size > 1:
            for code in self.codes:
                mask = (codes == code).astype(np.uint8)
                codes[(mask == 1) & (cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc) == 0)] = 0
        return Rows(stop, codes[inner], scores[:, inner], doubtful[inner])


def _near(unseen: npt.NDArray[np.bool_], *, above: bool, below: bool) -> npt.NDArray[np.bool_]:
    """True near what was not observed; what lies outside the raster was not."""
    near = np.zeros(unseen.shape, bool)
    if unseen.any():
        box = np.ones((2 * NEAR + 1,) * 2, np.uint8)
        near = cv2.dilate(unseen.view(np.uint8), box).astype(bool)
    near[:, :NEAR] = near[:, -NEAR:] = True
    if above:
        near[:NEAR] = True
    if below:
        near[-NEAR:] = True
    return near


def _disc(radii: tuple[float, float]) -> Bytes:
    """1 in the pixels whose middles lie within an ellipse."""
    rows, cols = (np.arange(-int(r), int(r) + 1) / max(r, 1e-9) for r in radii)
    return (rows[:, None] ** 2 + cols**2 <= 1 + 1e-9).astype(np.uint8)
