"""Windows of georeferenced pairs: two scenes and a label, brought onto one grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyogrio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from geocd.errors import DamagedSampleError, DatasetError, InputError, RasterOpenError
from geocd.rasters.grid import Grid, reproject_geometry
from geocd.rasters.pair import open_pair
from geocd.rasters.scene import Sampler, Scene, SceneTile
from geocd.training.datasets.coding import LabelCoding
from geocd.training.datasets.files import opened, read_header
from geocd.training.datasets.manifest import GeoreferencedPair
from geocd.training.tiles import IGNORE

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]

_OPEN_SCENE = 16 << 20
"""Bytes that an open scene is counted with: readers, caches, file handles."""


@contextmanager
def _naming(pair: GeoreferencedPair) -> Iterator[None]:
    """Errors of reading become errors of the data set that name the pair."""
    try:
        yield
    except RasterOpenError as error:
        raise DamagedSampleError(f"pair {pair.name}: {error}") from None
    except InputError as error:
        raise DatasetError(f"pair {pair.name}: {error}") from None


class SceneAccess:
    """A georeferenced pair, read by windows; use it in one thread.

    Args:
        pair: what to open.
        coding: what the values of the label mean.

    Raises:
        DamagedSampleError: a file cannot be opened.
        DatasetError: the scenes or the label do not fit each other.
    """

    nbytes = _OPEN_SCENE

    def __init__(self, pair: GeoreferencedPair, coding: LabelCoding) -> None:
        self.pair, self.coding = pair, coding
        with _naming(pair):
            self.scenes = open_pair(pair.before, pair.after, channels=3, bands=pair.bands,
                                    gsd=pair.gsd, area=pair.area)  # fmt: skip
            self.grid = self.scenes.grid
            self._label = open_label(pair, coding, self.grid)
        self._reader = self.scenes.reader()

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the ground that both scenes show, on before's grid."""
        return self.grid.shape

    def read(self, rows: slice, cols: slice) -> tuple[Image, Image, Labels]:
        """Before and after (h, w, 3) and change (classes, h, w) of a window inside the grid.

        What was not observed on both dates, or lies outside the label, is ignored.
        """
        with _naming(self.pair):
            window = self._reader.read(rows, cols)
        change = self.read_change(rows, cols)
        change[:, ~window.valid] = IGNORE
        before, after = (
            np.ascontiguousarray(np.moveaxis(x, 0, -1)) for x in (window.before, window.after)
        )
        return before, after, change

    def read_change(self, rows: slice, cols: slice) -> Labels:
        """The change of a window, whether or not the dates show it."""
        values, known = self.read_values(rows, cols)
        planes = self.coding.planes(values, name=str(self.pair.label), lossy=self._label.lossy)
        planes[:, ~known] = IGNORE
        return planes

    def read_values(self, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Label values (h, w) and where there are any."""
        with _naming(self.pair):
            return self._label.read(rows, cols)

    def close(self) -> None:
        """Close the files."""
        self._reader.__exit__()
        self._label.close()


class Label(Protocol):
    """A label on the grid of its pair; unknown pixels hold the value of 'no change'."""

    @property
    def lossy(self) -> bool:
        """Compression has blurred the values."""
        ...

    def read(self, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (h, w) of a window, and where there are any."""
        ...

    def close(self) -> None:
        """Give files back."""
        ...


def open_label(pair: GeoreferencedPair, coding: LabelCoding, grid: Grid) -> Label:
    """The label of a pair, polygons or a raster, on a grid.

    Raises:
        DamagedSampleError: it cannot be read.
        DatasetError: it does not fit the grid or the coding.
    """
    kind = _VectorLabel if pair.is_vector else _RasterLabel
    return kind(pair, coding, grid)


class _RasterLabel:
    """A label raster on any grid; the nearest value is taken."""

    def __init__(self, pair: GeoreferencedPair, coding: LabelCoding, grid: Grid) -> None:
        scene = _label_scene(pair.label)
        _check_crs(pair, scene.crs, grid)
        if len(scene.bands) != 1 or np.dtype(scene.dtype).kind not in "ui":
            raise DatasetError(
                f"{pair.label} has {len(scene.bands)} bands of {scene.dtype}; a label has one "
                "band of whole class values"
            )
        # Masks are often written with nodata=0, which would leave no place without change.
        meant = {coding.none, *coding.values.values()}
        tiles = (replace(t, nodata=None if t.nodata in meant else t.nodata) for t in scene.tiles)
        self._sampler = Sampler(
            replace(scene, tiles=tuple(tiles)), grid, resampling=Resampling.nearest
        )
        self._none = coding.none
        self.lossy = pair.label.is_file() and read_header(pair.label).lossy

    def read(self, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        values, known = self._sampler.read_raw(rows, cols, (1,))
        return np.where(known, values[0], np.array(self._none, values.dtype)), known

    def close(self) -> None:
        self._sampler.__exit__()


def _label_scene(path: Path) -> Scene:
    """A label as a scene; its values count, not the colours that a table gives them."""
    if path.is_file():
        with opened(path) as dataset:
            if ColorInterp.palette in dataset.colorinterp and not dataset.transform.is_identity:
                grid = Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)
                tile = SceneTile(str(path), grid, (1,), dataset.dtypes[0], dataset.nodata, None,
                                 None)  # fmt: skip
                return Scene(str(path), (tile,), grid)
    return Scene.open(path)


class _VectorLabel:
    """Polygons, rasterised window by window."""

    lossy = False

    def __init__(self, pair: GeoreferencedPair, coding: LabelCoding, grid: Grid) -> None:
        self.pair, self.grid, self._none = pair, grid, coding.none
        info = self._try(pyogrio.read_info, pair.label)
        self._crs = None if info["crs"] is None else CRS.from_user_input(info["crs"])
        _check_crs(pair, self._crs, grid)
        if pair.attribute is not None and pair.attribute not in info["fields"]:
            raise DatasetError(
                f"{pair.label} has no column {pair.attribute!r}; "
                f"it has: {', '.join(info['fields']) or 'none'}"
            )
        if pair.attribute is None and len(coding.values) > 1:
            raise DatasetError(
                f"{pair.label}: several classes are labelled, so attribute must name the column "
                "that holds the class"
            )
        taken = {coding.none, coding.ignore}
        free = next(value for value in (1, 2, 3) if value not in taken)
        self._value = next(iter(coding.values.values()), free)

    def _try(self, read: Any, *arguments: Any, **options: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # measured or empty geometries
                return read(*arguments, **options)
        except Exception as error:  # pyogrio raises several unrelated types
            raise DamagedSampleError(f"cannot read {self.pair.label}: {error}") from None

    def read(self, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        part = self.grid.crop(rows, cols)
        outline: BaseGeometry = part.footprint
        if self._crs is not None and self.grid.crs is not None:
            outline = reproject_geometry(outline, self.grid.crs, self._crs)
        column = self.pair.attribute
        # A footprint's curved edges may bulge between its vertices.
        margin = 0.01 * max(np.subtract(outline.bounds[2:], outline.bounds[:2]))
        layer = self._try(pyogrio.read_dataframe, self.pair.label,
                          columns=[] if column is None else [column],
                          bbox=outline.buffer(margin).bounds)  # fmt: skip
        layer = layer[layer.geometry.notna() & ~layer.geometry.is_empty]
        self._refuse_others(set(layer.geometry.geom_type))
        if self._crs is not None and self.grid.crs is not None and len(layer):
            layer = layer.to_crs(self.grid.crs.to_wkt())
        values = [self._value] * len(layer) if column is None else self._values(layer[column])
        values_there = [*zip(layer.geometry, values, strict=True)]
        known = np.ones(part.shape, bool)
        if not values_there:
            return np.full(part.shape, self._none, np.int32), known
        burnt = rasterize(values_there, part.shape, fill=self._none, transform=part.transform,
                          dtype="int32")  # fmt: skip
        return burnt, known

    def _refuse_others(self, kinds: set[str]) -> None:
        others = sorted(kinds - {"Polygon", "MultiPolygon"})
        if others:
            raise DatasetError(
                f"{self.pair.label} holds {others[0]} geometries; labels are polygons: give lines "
                "and points a width with a buffer first"
            )

    def _values(self, column: Any) -> list[int]:
        """Label values of the column's entries."""
        codes = self.pair.codes
        entries = column.tolist()
        if codes is not None:
            values = [codes.get(str(entry)) for entry in entries]
        else:
            values = [_whole(entry) for entry in entries]
        wrong = {str(e) for e, value in zip(entries, values, strict=True) if value is None}
        if wrong:
            raise DatasetError(
                f"{self.pair.label} holds {', '.join(map(repr, sorted(wrong)[:8]))} in its column "
                f"{self.pair.attribute!r}; give each of them a label value with codes = "
                "{ entry = value }"
            )
        return [value for value in values if value is not None]

    def close(self) -> None:
        """Nothing is open."""


def _whole(entry: object) -> int | None:
    """The entry as a label value; None if it is not a whole number."""
    if isinstance(entry, int | float) and entry == entry // 1:
        return int(entry)
    return None


def _check_crs(pair: GeoreferencedPair, crs: CRS | None, grid: Grid) -> None:
    if (crs is None) != (grid.crs is None):
        bare, other = ("label", "images") if crs is None else ("images", "label")
        raise DatasetError(
            f"pair {pair.name}: the {bare} without a CRS does not fit the {other} with one "
            f"({pair.label}); assign it first"
        )
