"""Labels of chips: polygons or a raster, in any CRS, as 0, class numbers and 255."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geocd.archive.header import hash_samples
from geocd.errors import ConfigError, InputError
from geocd.rasters.grid import Grid, reproject_geometry
from geocd.rasters.scene import Scene
from geocd.training.datasets.coding import LabelCoding
from geocd.training.datasets.files import opened
from geocd.training.datasets.manifest import GeoreferencedPair
from geocd.training.datasets.scenes import Label, open_label
from geocd.training.tiles import IGNORE

_DATES = ("before_date", "after_date")
_SHOWN = 8


@dataclass(frozen=True)
class ChipLabels:
    """Where labels come from, and what their values mean.

    Attributes:
        path: polygons (any vector file), or a raster of whole class values.
        classes: value of each class; empty: any polygon, and any value but 0, is change.
        ignore: value of pixels of which nothing is known.
        attribute: column of the polygons that holds the class, by name or value.
    """

    path: Path
    classes: Mapping[str, int] = field(default_factory=dict)
    ignore: int | None = None
    attribute: str | None = None

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise InputError(f"there are no labels {self.path}")
        if self.attribute is not None and not self.vector:
            raise ConfigError(f"{self.path} is a raster, which has no column {self.attribute!r}")
        if self.attribute is not None and not self.classes:
            raise ConfigError(
                f"the column {self.attribute!r} holds {self._entries()}; say which of them are "
                "classes (--class NAME=VALUE)"
            )
        _ = self.coding

    @property
    def coding(self) -> LabelCoding:
        """The values as training reads them."""
        names = tuple(self.classes) or ("change",)
        return LabelCoding(classes=names, values=dict(self.classes), ignore=self.ignore)

    @property
    def vector(self) -> bool:
        """Whether labels are polygons."""
        return self._pair(self.path).is_vector

    def to_dict(self) -> dict[str, Any]:
        """What decides the labels, JSON-ready."""
        content = hash_samples(self.path) if self.path.is_file() else None
        return {"path": str(self.path), "content": content, "classes": dict(self.classes),
                "ignore": self.ignore, "attribute": self.attribute}  # fmt: skip

    def check_place(self, grids: Sequence[Grid]) -> None:
        """Refuse labels that lie on none of the rasters.

        Raises:
            InputError: they lie elsewhere, or there are none.
            CrsMismatchError: only one side has a CRS.
        """
        outline, crs = self._outline()
        for grid in grids:
            ground: BaseGeometry = grid.footprint
            if crs is not None and grid.crs is not None:
                ground = reproject_geometry(ground, grid.crs, crs)
            if (crs is None) != (grid.crs is None) or shapely.intersects(ground, outline):
                return  # a CRS on one side only is told of when the label is opened
        left, bottom, right, top = outline.bounds
        raise InputError(
            f"the labels {self.path} lie outside the ground that both dates show: they cover "
            f"{left:.9g} {bottom:.9g} {right:.9g} {top:.9g} in {_name(crs)}; check their CRS and "
            "which files belong together"
        )

    def _outline(self) -> tuple[BaseGeometry, CRS | None]:
        if not self.vector and self.path.is_file():
            # By its header alone: change maps have colour tables, which images may not.
            with opened(self.path) as dataset:
                placed = not dataset.transform.is_identity
                transform = dataset.transform if placed else Affine.scale(1, -1)
                grid = Grid(dataset.crs, transform, dataset.height, dataset.width)
            return grid.footprint, grid.crs
        if not self.vector:
            scene = Scene.open(self.path)
            return scene.footprint(scene.crs), scene.crs
        info = self._read(pyogrio.read_info, force_total_bounds=True)
        bounds = info["total_bounds"]
        if not info["features"] or bounds is None or not np.isfinite(bounds).all():
            raise InputError(f"{self.path} holds no labels; is it the right file, or layer?")
        crs = None if info["crs"] is None else CRS.from_user_input(info["crs"])
        return shapely.box(*bounds), crs

    @contextmanager
    def opened(self, grid: Grid, dates: tuple[str, str] | None) -> Iterator[ChipLabel]:
        """The labels on a grid.

        Args:
            grid: of a pair.
            dates: polygons with other dates do not count; None: all polygons do.

        Raises:
            DatasetError: the label does not fit the grid or the classes.
        """
        with tempfile.TemporaryDirectory(prefix="geocd-labels-") as name:
            path = self.path
            if dates and self.vector and set(_DATES) <= set(self._info["fields"]):
                path = self._of_dates(dates, Path(name) / "labels.gpkg")
            pair = self._pair(path)
            label = open_label(pair, self.coding, grid)
            try:
                yield ChipLabel(label, self, grid)
            finally:
                label.close()

    @cached_property
    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = self._read(pyogrio.read_info)
        return info

    def _pair(self, path: Path) -> GeoreferencedPair:
        codes = None
        if self.attribute is not None and self._is_text:
            codes = dict(self.classes)
        return GeoreferencedPair("chips", Path(), Path(), path, attribute=self.attribute,
                                 codes=codes)  # fmt: skip

    @cached_property
    def _is_text(self) -> bool:
        """Whether the column holds names of classes, and not their values."""
        fields = [str(name) for name in self._info["fields"]]
        if self.attribute not in fields:
            raise InputError(
                f"{self.path} has no column {self.attribute!r}; it has: "
                f"{', '.join(fields) or 'none'}"
            )
        text = str(self._info["dtypes"][fields.index(self.attribute)]) == "object"
        if text:
            others = [entry for entry in self._distinct() if entry not in self.classes]
            if others:
                raise ConfigError(
                    f"the column {self.attribute!r} of {self.path} also holds "
                    f"{', '.join(map(repr, others[:_SHOWN]))}; give each of them a value "
                    "(--class NAME=VALUE)"
                )
        return text

    def _distinct(self) -> list[Any]:
        table = self._read(pyogrio.read_dataframe, columns=[self.attribute], read_geometry=False)
        return sorted(table[self.attribute].unique(), key=str)

    def _entries(self) -> str:
        if self.attribute not in self._info["fields"]:
            return "nothing, it is not there"
        return ", ".join(map(repr, self._distinct()[:_SHOWN]))

    def _of_dates(self, dates: tuple[str, str], path: Path) -> Path:
        where = " AND ".join(f"{name} = '{date}'" for name, date in zip(_DATES, dates, strict=True))
        layer = self._read(pyogrio.read_dataframe, where=where)
        pyogrio.write_dataframe(layer, path, geometry_type="MultiPolygon",
                                promote_to_multi=True)  # fmt: skip
        return path

    def _read(self, function: Any, **options: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return function(self.path, **options)
        except Exception as error:  # pyogrio raises several unrelated types
            raise InputError(f"cannot read the labels {self.path}: {error}") from None


class ChipLabel:
    """Labels on the grid of a pair."""

    def __init__(self, label: Label, source: ChipLabels, grid: Grid) -> None:
        self._label, self._source, self._grid = label, source, grid
        self._seen: set[int] = set()

    def read(self, place: tuple[int, int], size: int) -> NDArray[np.uint8]:
        """Values of a chip, shape (size, size): 0 none, 1 and up the classes, 255 not known.

        Raises:
            DatasetError: values that mean nothing.
            InputError: it cannot be told whether 255 is change.
        """
        coding = self._source.coding
        spans = [slice(b, min(b + size, n)) for b, n in zip(place, self._grid.shape, strict=True)]
        values, known = self._label.read(*spans)
        self._refuse_doubtful(values[known])
        planes = coding.planes(values, name=str(self._source.path), lossy=self._label.lossy)
        label: NDArray[np.uint8] = np.zeros(values.shape, np.uint8)
        for number, plane in enumerate(planes, 1):
            label[plane == 1] = number
        label[(planes == IGNORE).any(axis=0) | ~known] = IGNORE
        below, right = size - label.shape[0], size - label.shape[1]
        return np.pad(label, ((0, below), (0, right)), constant_values=IGNORE)

    def shares(self, label: NDArray[np.uint8]) -> dict[str, float]:
        """Share of each class in what is known of a label, 0..1, as columns of the index."""
        counts = np.bincount(label[label != IGNORE], minlength=2)
        total = max(1, int(counts.sum()))
        names = self._source.coding.classes
        padded = np.pad(counts, (0, max(0, len(names) + 1 - len(counts))))
        return {f"share_{name}": float(padded[n] / total) for n, name in enumerate(names, 1)}

    def _refuse_doubtful(self, values: NDArray[Any]) -> None:
        # Masks mark change by 255, class maps mark by it what is not known.
        source = self._source
        if source.classes or source.ignore is not None or source.vector:
            return
        self._seen |= set(np.unique(values).tolist())
        if IGNORE in self._seen and self._seen - {0, IGNORE} and not self._label.lossy:
            others = sorted(self._seen - {0, IGNORE})[:_SHOWN]
            raise InputError(
                f"{source.path} holds 255 beside {', '.join(map(str, others))}: say whether 255 is "
                "not known (--ignore 255) or change (--class change=255)"
            )


def _name(crs: CRS | None) -> str:
    if crs is None:
        return "pixel units"
    return ":".join(crs.to_authority() or ("a custom CRS",))
