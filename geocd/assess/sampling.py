"""A stratified random sample of a change map's pixels, in memory that follows the sample."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geocd.config import CLASS_CODES, NOT_OBSERVED, SampleConfig
from geocd.errors import ConfigError, GeocdWarning, InputError, RasterOpenError
from geocd.rasters.grid import Grid
from geocd.rasters.write import bounded_cache
from geocd.vectorize.attributes import Ruler

NONE, NEAR = "none", "near"
"""Strata of unchanged ground: far from change, and close to it."""
STRATA = (NONE, NEAR, *CLASS_CODES)
"""Names of the strata, in order."""
MAP_CLASSES = (NONE, *CLASS_CODES)
"""Names of a change map's classes, in the order of their values."""

_OUTSIDE = 255
"""In a plane of strata: not observed, so in no stratum."""
_PIECE_PIXELS = 1 << 22
_BLOCK = 512
_UNEQUAL = 1.01
"""Ratio of the largest to the smallest pixel above which shares of pixels are no shares of ground
any more."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """A part of the map from which units are drawn."""

    name: str
    pixels: int
    """Pixels that it has in all."""
    drawn: int
    """Pixels in the sample."""

    @property
    def map_class(self) -> str:
        """What the map says there."""
        return NONE if self.name == NEAR else self.name


@dataclass(frozen=True, slots=True)
class PixelSample:
    """Pixels drawn from a change map, in an order that tells nothing of their strata."""

    grid: Grid
    strata: tuple[Stratum, ...]
    stratum: NDArray[np.int64]
    """Index of each unit's stratum, shape (n,)."""
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    pixel_area: float
    """Square metres a pixel, on average; pixels (1) without a CRS."""

    @property
    def unit(self) -> str:
        """Unit of areas: m2 or px."""
        return "px" if self.grid.crs is None else "m2"


def draw_sample(
    change_map: str | Path,
    *,
    config: SampleConfig,
    progress: Callable[[int, int], None] | None = None,
) -> PixelSample:
    """Draw pixels from each stratum of a change map, each with the same chance in its stratum.

    The strata are the map's classes, and unchanged ground close to change. The map is read in
    pieces, twice: once to count, once to find the pixels that were drawn.

    Args:
        change_map: as ``geocd detect --mask`` writes it: 0 no change, 1 building, 2 road,
            3 change, 255 not observed.
        config: how many, how wide the buffer, and the seed.
        progress: called with rows done and rows in all, over both readings.

    Raises:
        RasterOpenError: it is missing or no raster.
        InputError: it has other values, or all of it is unobserved.
        ConfigError: a stratum was named that the map does not have.

    Source:
        Olofsson et al. (2014), doi 10.1016/j.rse.2014.02.015; the buffer: Olofsson et al. (2020),
        doi 10.1016/j.rse.2019.111492.
    """
    with bounded_cache(), _opened(Path(change_map)) as dataset:
        grid = _grid(dataset)
        pieces = _Pieces(dataset, _reach(grid, config.buffer), progress)
        counts = np.array([_count(plane) for _, plane in pieces.read()])  # (pieces, strata)
        sizes = dict(zip(STRATA, counts.sum(axis=0).tolist(), strict=True))
        drawn = _draw(sizes, config)
        kept = [name for name in STRATA if name in drawn]
        places = _locate(pieces, counts, drawn)
    strata = tuple(Stratum(name, sizes[name], len(drawn[name])) for name in kept)
    stratum = np.repeat(np.arange(len(kept)), [s.drawn for s in strata])
    flat = np.concatenate([places[name] for name in kept])
    # Whoever labels must not see from the order what the map says.
    order = np.random.default_rng([config.seed, 1]).permutation(len(flat))
    row, col = np.divmod(flat[order], grid.width)
    return PixelSample(grid, strata, stratum[order], row, col, _pixel_area(grid))


def _opened(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except RasterioError as error:
        raise RasterOpenError(f"cannot open {path} as a raster ({error})") from None
    if dataset.count != 1 or dataset.dtypes[0] != "uint8":
        dataset.close()
        raise InputError(
            f"{path} is no change map: one band of bytes is wanted, found {dataset.count} of "
            f"{dataset.dtypes[0]}; write one with geocd detect --mask"
        )
    return dataset


def _grid(dataset: Any) -> Grid:
    transform = dataset.transform
    if dataset.crs is None and transform == Affine.identity():
        # y falls as rows rise, as QGIS shows images without georeferencing.
        transform = Affine(1, 0, 0, 0, -1, 0)
    return Grid(dataset.crs, transform, dataset.height, dataset.width)


def _reach(grid: Grid, buffer: float) -> float:
    """The buffer in pixels."""
    gsd = grid.gsd()
    return buffer if gsd is None else buffer / math.sqrt(gsd[0] * gsd[1])


class _Pieces:
    """Reads a change map as planes of strata, in bands of whole rows."""

    def __init__(
        self, dataset: Any, reach: float, progress: Callable[[int, int], None] | None
    ) -> None:
        self._dataset, self._reach = dataset, reach
        self.width = dataset.width
        rows = max(1, _PIECE_PIXELS // dataset.width)
        if rows > _BLOCK:
            rows -= rows % _BLOCK  # whole blocks of the file, each decoded once
        self._tops = list(range(0, dataset.height, rows))
        self._rows = rows
        self._progress, self._done = progress, 0

    def read(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[tuple[int, Any]]:
        """The first row and the plane (rows, width) of each piece, or of the wanted ones."""
        for index, top in enumerate(self._tops):
            if wanted is None or wanted[index]:
                yield top, self._plane(top)
            self._done += min(self._rows, self._dataset.height - top)
            if self._progress:
                self._progress(self._done, 2 * self._dataset.height)

    def _plane(self, top: int) -> NDArray[np.uint8]:
        halo = math.ceil(self._reach)
        first = max(0, top - halo)
        last = min(self._dataset.height, top + self._rows + halo)
        codes = self._dataset.read(1, window=Window(0, first, self.width, last - first))
        plane: NDArray[np.uint8] = _STRATUM_OF[codes]
        if (plane == len(STRATA)).any():
            value = int(codes[plane == len(STRATA)][0])
            raise InputError(
                f"{self._dataset.name} has the value {value}; a change map has "
                f"{', '.join(map(str, [0, *CLASS_CODES.values(), NOT_OBSERVED]))}: write one with "
                "geocd detect --mask"
            )
        if self._reach > 0:
            plane[_close(plane, self._reach) & (plane == 0)] = STRATA.index(NEAR)
        return plane[top - first : top - first + self._rows]


def _stratum_table() -> NDArray[np.uint8]:
    table = np.full(256, len(STRATA), np.uint8)
    table[0], table[NOT_OBSERVED] = STRATA.index(NONE), _OUTSIDE
    for name, code in CLASS_CODES.items():
        table[code] = STRATA.index(name)
    return table


_STRATUM_OF = _stratum_table()


def _close(plane: NDArray[np.uint8], reach: float) -> NDArray[np.bool_]:
    changed = (plane >= STRATA.index("building")) & (plane != _OUTSIDE)
    if not changed.any():
        return np.zeros(plane.shape, bool)
    distance = cv2.distanceTransform(
        (~changed).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    return np.asarray(distance <= reach)


def _count(plane: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.bincount(plane.ravel(), minlength=256)[: len(STRATA)]


def _draw(sizes: Mapping[str, int], config: SampleConfig) -> dict[str, NDArray[np.int64]]:
    """Sorted ranks, within its stratum, of the pixels drawn from each stratum."""
    if not sum(sizes.values()):
        raise InputError("no pixel of the change map was observed; there is nothing to sample")
    if isinstance(config.per_stratum, Mapping):
        _check_named(config.per_stratum, sizes)
    drawn = {}
    for index, (name, size) in enumerate(sizes.items()):
        if not size:
            continue
        wanted = config.wanted(name)
        assert wanted is not None
        if size < wanted:
            warnings.warn(
                f"the stratum {name} has {size} pixels, fewer than the {wanted} wanted: all of "
                "them are in the sample", GeocdWarning, stacklevel=3,
            )  # fmt: skip
        # A generator of its own, so that one stratum's number changes no other's pixels.
        generator = np.random.default_rng([config.seed, 0, index])
        ranks = generator.choice(size, min(size, wanted), replace=False, shuffle=False)
        drawn[name] = np.sort(ranks)
    return drawn


def _check_named(wanted: Mapping[str, float], sizes: Mapping[str, int]) -> None:
    there = [name for name, size in sizes.items() if size]
    for name in wanted:
        if name not in there:
            raise ConfigError(f"the map has no stratum {name!r}; it has {', '.join(there)}")
    for name in there:
        if name not in wanted:
            raise ConfigError(
                f"nothing is wanted of the stratum {name!r}, which has {sizes[name]} pixels; a "
                "stratum without a sample leaves the whole unknown: give it a number"
            )


def _locate(
    pieces: _Pieces, counts: NDArray[np.int64], drawn: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    """Flat positions (row * width + column) of the drawn pixels by stratum, in their order."""
    ends = counts.cumsum(axis=0)
    begins = ends - counts
    of_piece = {name: np.searchsorted(ends[:, STRATA.index(name)], ranks, side="right")
                for name, ranks in drawn.items()}  # fmt: skip
    wanted = np.zeros(len(counts), bool)
    for indices in of_piece.values():
        wanted[indices] = True
    found: dict[str, list[NDArray[np.int64]]] = {name: [] for name in drawn}
    for index, (top, plane) in zip(np.flatnonzero(wanted), pieces.read(wanted), strict=True):
        for name, ranks in drawn.items():
            here = ranks[of_piece[name] == index] - begins[index, STRATA.index(name)]
            if len(here):
                positions = np.flatnonzero(plane == STRATA.index(name))[here]
                found[name].append(positions + top * pieces.width)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _pixel_area(grid: Grid) -> float:
    if grid.crs is None:
        return 1.0
    rows = np.linspace(0, grid.height - 1, 9)
    cols = np.linspace(0, grid.width - 1, 9)
    left, top = (axis.ravel() for axis in np.meshgrid(cols, rows))
    areas = Ruler(grid).area(np.asarray(shapely.box(left, top, left + 1, top + 1)))
    if areas.max() > _UNEQUAL * areas.min():
        warnings.warn(
            f"the pixels of the map differ in size on the ground ({areas.min():.4g} to "
            f"{areas.max():.4g} m2), and a sample of pixels favours the small ones; make the map "
            "in an equal-area CRS for areas that hold", GeocdWarning, stacklevel=3,
        )  # fmt: skip
    return float(areas.mean())
