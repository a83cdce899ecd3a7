"""What registration has to do with each change polygon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import geopandas
import numpy as np
import pandas as pd
import shapely

from geocd.align import Alignment
from geocd.config import DetectConfig, map_class, thresholds_of
from geocd.models.card import WeightsCard
from geocd.predict.first_look import FirstLook
from geocd.predict.flow import Progress
from geocd.predict.predictor import Predictor
from geocd.rasters.grid import Grid, apply_transform
from geocd.rasters.pair import RasterPair
from geocd.vectorize.outline import Floats, Geometries
from geocd.vectorize.stability import shift_stability

REGISTRATION_COLUMNS: Final = ("misregistration_px", "shift_stable")
"""Attributes of a change polygon that tell what registration has to do with it."""


def check_registration(
    changes: geopandas.GeoDataFrame,
    pair: RasterPair,
    predictor: Predictor,
    alignment: Alignment,
    *,
    thresholds: Mapping[str, float],
    config: DetectConfig,
    progress: Progress | None = None,
) -> geopandas.GeoDataFrame:
    """The polygons with ``misregistration_px`` and ``shift_stable``, before the dates.

    ``misregistration_px`` is the residual of the tie points about the polygon once the
    alignment is carried out, in pixels of the reading grid; null where there are none.
    ``shift_stable`` tells whether the polygon survives moving one date by one such pixel, see
    ``shift_stability``; null where that was not checked, for want of budget or at all.

    Args:
        changes: as ``trace_changes`` gives them.
        pair: the pair as it was scored.
        predictor: what scored it.
        alignment: what was found about its geometry.
        thresholds: least score of a change, 0..1, by class.
        config: whether to check and at what expense, the tiling, and how far objects grow.
        progress: called with windows done and windows to ask, if there are any.
    """
    outlines = _in_pixels(changes, pair.grid)
    middles = shapely.get_coordinates(shapely.point_on_surface(outlines))
    stable = pd.array([pd.NA] * len(changes), dtype="boolean")
    if config.shift_check:
        with pair.reader() as reader:
            stable = shift_stability(
                outlines, _classes(changes, predictor.card),
                changes["score_mean"].to_numpy(dtype=np.float64), read=reader.read,
                # Where there is a change, a first look settles nothing.
                predictor=predictor.in_full if isinstance(predictor, FirstLook) else predictor,
                thresholds=_least_scores(thresholds, config),
                shape=pair.grid.shape, tiling=config.tiling, budget=config.shift_budget,
                batch_size=config.predict.batch_size, progress=progress,
            )  # fmt: skip
    changes = changes.copy()
    place = changes.columns.get_loc("observed") + 1
    changes.insert(place, REGISTRATION_COLUMNS[0], alignment.misregistration(middles))
    changes.insert(place + 1, REGISTRATION_COLUMNS[1], stable)
    return changes


def _in_pixels(changes: geopandas.GeoDataFrame, grid: Grid) -> Geometries:
    """The polygons in (col, row) of a grid that has their CRS, shape (n,)."""

    def _move(points: Floats) -> Floats:
        return np.column_stack(apply_transform(~grid.transform, points[:, 0], points[:, 1]))

    moved: Geometries = shapely.transform(np.asarray(changes.geometry, dtype=object), _move)
    return moved


def _classes(changes: geopandas.GeoDataFrame, card: WeightsCard) -> list[int]:
    """Which of the card's classes each polygon was found as."""
    names = changes["kind"].where(changes["kind_source"] == "network", "change")
    classes = [map_class(name) for name in card.change_classes]
    return [classes.index(name) for name in names]


def _least_scores(thresholds: Mapping[str, float], config: DetectConfig) -> tuple[float, ...]:
    """The lowest score that belongs to an object, by class."""
    reached = tuple(thresholds.values())
    grown = thresholds_of(config.vectorize.grow, tuple(thresholds), reached)
    return tuple(map(min, reached, grown))
