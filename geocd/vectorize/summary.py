"""Counts and areas of change polygons, and of what other thresholds would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely

from geocd.config import NOT_OBSERVED, VectorizeConfig
from geocd.errors import ConfigError
from geocd.rasters.write import bounded_cache
from geocd.tiling.classify import least_level
from geocd.vectorize.attributes import Ruler
from geocd.vectorize.components import ObjectStream
from geocd.vectorize.scorefile import RowReader, check_classes, grid_of, opened


@dataclass(frozen=True, slots=True)
class KindSummary:
    """Polygons of one kind."""

    count: int
    area_m2: float | None
    """Square metres; None without a CRS."""
    area_px: float
    """Pixels of the change map."""

    def to_dict(self) -> dict[str, Any]:
        """The same, JSON-ready."""
        return {"count": self.count, "area_m2": self.area_m2, "area_px": self.area_px}


def summarise(changes: geopandas.GeoDataFrame) -> dict[str, KindSummary]:
    """Count and area of each kind of change polygon."""
    summary = {}
    for kind, rows in changes.groupby("kind"):
        area = rows["area_m2"]
        summary[str(kind)] = KindSummary(
            count=len(rows),
            area_m2=None if area.isna().any() else float(area.sum()),
            area_px=float(rows["area_px"].sum()),
        )
    return summary


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """What a threshold would give of one class."""

    name: str
    """The class."""
    threshold: float
    summary: KindSummary

    def to_dict(self) -> dict[str, Any]:
        """The same, JSON-ready."""
        return {"class": self.name, "threshold": self.threshold} | self.summary.to_dict()


def sweep_thresholds(
    scores: Path,
    thresholds: Sequence[float],
    *,
    classes: Sequence[str],
    config: VectorizeConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[ThresholdRow]:
    """Objects and areas of each class at several thresholds, in one reading of the raster.

    Each class is looked at alone, and objects are taken as their pixels are: nothing is
    grown, opened, divided, filled or smoothed. Square metres are counted at the size that
    pixels have in the middle of the map.

    Args:
        scores: raster, uint8, one band per class: score * 254, 255 where not observed.
        thresholds: between 0 and 1.
        classes: names of the bands of ``scores``, in their order.
        config: of which the minimum mapping units count here.
        progress: told (rows done, rows).

    Returns:
        Class by class, by rising threshold.

    Raises:
        ConfigError: a threshold is none.
        InputError: the raster has other bands, or cannot be read.
    """
    thresholds = sorted(set(thresholds))
    strange = [value for value in thresholds if not 0 < value < 1]
    if strange:
        raise ConfigError(f"thresholds must lie between 0 and 1, got {strange[0]:g}")
    with bounded_cache(), opened(scores) as dataset:
        check_classes(dataset, classes)
        height, width = dataset.shape
        pixel = _middle_pixel(dataset)
        counts = {(name, value): np.zeros(2, np.int64) for name in classes for value in thresholds}
        streams = {key: ObjectStream(width, outlines=False) for key in counts}
        for rows in RowReader(dataset, (1.0,) * len(classes), (0,) * len(classes)):
            near = np.zeros(rows.codes.shape, bool)
            for (name, value), stream in streams.items():
                plane = rows.scores[list(classes).index(name)]
                passes = (plane >= least_level(value)) & (plane != NOT_OBSERVED)
                least = config.least_area(name if name != "change" else "building") / pixel
                found = stream.add(
                    passes.view(np.uint8), plane, near, last=rows.stop == height,
                    least_pixels=least * (1 - 1e-9),
                ).sums  # fmt: skip
                counts[name, value] += len(found.pixels), found.pixels.sum()
            if progress is not None:
                progress(rows.stop, height)
        measured = dataset.crs is not None
    return [
        ThresholdRow(name, value, KindSummary(int(n), float(px * pixel) if measured else None,
                                              float(px)))
        for (name, value), (n, px) in counts.items()
    ]  # fmt: skip


def _middle_pixel(dataset: Any) -> float:
    """Area of the pixel in the middle, in square metres (1 without a CRS)."""
    grid = grid_of(dataset)
    row, col = grid.height // 2, grid.width // 2
    return float(Ruler(grid).area(np.array([shapely.box(col, row, col + 1, row + 1)]))[0])
