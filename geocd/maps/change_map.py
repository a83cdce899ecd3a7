"""Scores and the change map that follows from them, written side by side."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocd.config import CHANGE_MAP_COLOURS, CLASS_CODES, NOT_OBSERVED, map_class
from geocd.models.card import WeightsCard
from geocd.rasters.grid import Grid
from geocd.rasters.write import RowWriter
from geocd.tiling.classify import classify


def class_codes(card: WeightsCard) -> tuple[int, ...]:
    """Values of the card's classes in a change map."""
    return tuple(CLASS_CODES[map_class(name)] for name in card.change_classes)


class ChangeMapWriter:
    """Takes rows of scores from top to bottom, and writes them and their classes.

    Args:
        grid: of both rasters.
        card: of the weights that gave the scores.
        scores: tiled GeoTIFF to create, one band a class.
        change_map: tiled GeoTIFF to create, one band; None: only scores are wanted.
        thresholds: one a class, 0..1.
        provenance: stored in both.
    """

    def __init__(
        self, grid: Grid, card: WeightsCard, *, scores: Path, change_map: Path | None,
        thresholds: tuple[float, ...], provenance: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._codes, self._thresholds = class_codes(card), thresholds
        self._scores = RowWriter(scores, grid, bands=card.change_classes)
        self._scores.tag(provenance)
        self._map: RowWriter | None = None
        if change_map is not None:
            self._map = RowWriter(change_map, grid, bands=("change",), colours=CHANGE_MAP_COLOURS)
            self._map.tag(provenance)
        self._stack = ExitStack()
        self._seen, self._size = 0, grid.height * grid.width

    @property
    def observed(self) -> float:
        """Share of the grid that the rows so far show as observed, 0..1."""
        return self._seen / self._size

    def write(self, rows: NDArray[np.uint8], left: int = 0) -> None:
        """Append rows of encoded scores, (classes, rows, columns); see ``RowWriter.write``."""
        self._seen += int(np.count_nonzero(rows[0] != NOT_OBSERVED))
        self._scores.write(rows, left)
        if self._map is not None:
            self._map.write(classify(rows, self._thresholds, self._codes)[None], left)

    def __enter__(self) -> ChangeMapWriter:
        self._stack.enter_context(self._scores)
        if self._map is not None:
            self._stack.enter_context(self._map)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.close()
