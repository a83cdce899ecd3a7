"""Whether a change would still be found if the dates lay a pixel apart from where they lie.

Misregistration draws change along every edge. What it draws depends on the last pixel of the
alignment, what was built or torn down does not: so after is moved by one pixel in four
directions, and the network is asked again.

    steadiness    0 ─────────────── STEADY ──────────
                  the least first,  stable without
                  while the budget  asking
                  lasts
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize

from geocd.config import SCORE_SCALE, TilingConfig
from geocd.predict.flow import Progress, ReadPart
from geocd.predict.predictor import Images, Predictor
from geocd.tiling.windows import Window, count, starts
from geocd.vectorize.outline import Floats, Geometries, Ints

SHIFTS: Final = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""(row, col) by which after is moved, in pixels of the reading grid."""
MIN_SURVIVING: Final = 0.5
"""Least share of a polygon's pixels that must pass in every direction."""
STEADY: Final = 5.0
"""Steadiness, in pixels, from which a polygon is stable without asking the network. On real and
painted pairs with 879 polygons, those below held 202 of the 208 that did not survive."""
LEAST_WINDOWS: Final = 4
"""Windows that may be asked however small the raster is: they take a second or two."""

_Place = tuple[Window, Window, Ints]
"""A window, its middle, and which polygons lie there."""


def steadiness(outlines: Geometries, scores: Floats, thresholds: Floats) -> Floats:
    """How little polygons depend on single pixels: how wide they are, times how sure.

    Args:
        outlines: polygons in pixels, shape (n,).
        scores: mean score of each, 0..1.
        thresholds: least score of each, below 1.

    Returns:
        Shape (n,), pixels: twice the area over the perimeter (the width of a strip, half the
        side of a square) times how far the score lies from the threshold (0) towards 1 (1).
    """
    width = 2 * shapely.area(outlines) / shapely.length(outlines)
    sureness: Floats = (scores - thresholds) / (1 - thresholds)
    return width * sureness


def shift_stability(
    outlines: Geometries,
    classes: Sequence[int],
    scores: Floats,
    *,
    read: ReadPart,
    predictor: Predictor,
    thresholds: Sequence[float],
    shape: tuple[int, int],
    tiling: TilingConfig,
    budget: float,
    batch_size: int = len(SHIFTS),
    progress: Progress | None = None,
) -> pd.arrays.BooleanArray:
    """Whether each polygon survives moving after by one pixel, in four directions.

    A polygon is stable if in every direction at least half of its observed pixels still reach
    the threshold of its class. Of wide and sure ones (see ``steadiness``) that is taken for
    granted. For the others the network is asked in the windows in which the pair was scored,
    because what it says depends on what it sees around; those that promise to settle most come
    first, as many as the budget allows. One is read at a time, so memory does not grow with the
    raster.

    Args:
        outlines: polygons in (col, row) of the reading grid, shape (n,).
        classes: index of each polygon's class among those of the predictor.
        scores: mean score of each polygon, shape (n,), 0..1.
        read: gives both dates for (rows, columns) of the grid, filled where not observed.
        predictor: what found the polygons.
        thresholds: least score of a change, 0..1, one a class.
        shape: (height, width) of the reading grid.
        tiling: as the pair was scored.
        budget: most network work, as a share of that of the scoring; 4 is always enough. At
            least ``LEAST_WINDOWS`` windows are asked in all directions.
        batch_size: most window pairs in one call of the predictor.
        progress: called with windows done and windows to ask.

    Returns:
        Shape (n,): True, False, or NA for a polygon that the budget did not reach, or that holds
        the centre of no observed pixel.
    """
    band = np.asarray(classes, dtype=np.intp)
    limits = np.asarray(thresholds, dtype=np.float64)[band]
    steady = steadiness(outlines, scores, limits)
    asked = np.flatnonzero(steady < STEADY)
    most = max(LEAST_WINDOWS, int(budget * count(shape, tiling) / len(SHIFTS)))
    doubt = 1 - np.clip(steady[asked] / STEADY, 0, 1)
    places = _most_promising(_occupied(outlines[asked], shape, tiling), doubt, most)
    pixels, passing = np.zeros(len(asked)), np.zeros((len(SHIFTS), len(asked)))
    for done, (window, core, members) in enumerate(places, 1):
        row, col, owner = _inside(outlines[asked[members]], core)
        if len(owner):
            before, moved, valid = _read_moved(read, window, shape)
            row, col, owner = row - window.row, col - window.col, members[owner]
            seen = valid[row, col]
            row, col, owner = row[seen], col[seen], owner[seen]
            levels = _scored(predictor, before, moved, batch_size)  # (4, classes, h, w)
            which = asked[owner]
            passed = levels[:, band[which], row, col] >= limits[which] * SCORE_SCALE  # (4, pixels)
            np.add.at(pixels, owner, 1)
            for survivors, survived in zip(passing, passed, strict=True):
                np.add.at(survivors, owner[survived], 1)
        if progress:
            progress(done, len(places))
    stable, unknown = np.ones(len(outlines), bool), np.zeros(len(outlines), bool)
    stable[asked] = (passing >= MIN_SURVIVING * pixels).all(axis=0)
    unknown[asked] = pixels == 0
    return pd.arrays.BooleanArray(stable, unknown)


def _most_promising(places: list[_Place], doubt: Floats, most: int) -> list[_Place]:
    """At most so many places, those with most doubt, and the polygons that lie nowhere else.

    Args:
        places: where polygons lie.
        doubt: of each polygon, 0..1; one that lies in several places is shared out among them.
        most: places that may be asked.
    """
    lies, reached = np.zeros(len(doubt)), np.zeros(len(doubt))
    for _, _, members in places:
        lies[members] += 1
    promise = [(doubt[members] / lies[members]).sum() for _, _, members in places]
    chosen = np.sort(np.argsort(-np.array(promise), kind="stable")[:most])
    for index in chosen:
        reached[places[index][2]] += 1
    settled = [
        (window, core, members[reached[members] == lies[members]])
        for window, core, members in (places[index] for index in chosen)
    ]
    return [place for place in settled if len(place[2])]


def _scored(
    predictor: Predictor, before: Images, moved: Images, batch_size: int
) -> NDArray[np.uint8]:
    """Levels (4, classes, height, width) of a window with after moved each way."""
    parts = [moved[start : start + batch_size] for start in range(0, len(moved), batch_size)]
    return np.concatenate([predictor(np.stack([before] * len(part)), part) for part in parts])


def _occupied(outlines: Geometries, shape: tuple[int, int], tiling: TilingConfig) -> list[_Place]:
    """(window, its middle, polygons whose boxes touch the middle), row by row.

    The middles share the grid out among the windows: each reaches half-way into the overlap.
    """
    begins = [starts(length, tiling.tile_size, tiling.overlap) for length in shape]
    edges = [
        np.array([0, *((a + b + tiling.tile_size) // 2 for a, b in itertools.pairwise(s)), length])
        for s, length in zip(begins, shape, strict=True)
    ]
    cells: dict[tuple[int, int], list[int]] = {}
    for member, (left, top, right, bottom) in enumerate(shapely.bounds(outlines)):
        rows, cols = (
            range(
                max(int(np.searchsorted(edge, low, side="right")) - 1, 0),
                min(int(np.searchsorted(edge, high, side="left")), len(edge) - 1),
            )
            for edge, low, high in ((edges[0], top, bottom), (edges[1], left, right))
        )
        for cell in itertools.product(rows, cols):
            cells.setdefault(cell, []).append(member)
    height, width = (min(tiling.tile_size, length) for length in shape)
    found = []
    for (i, j), members in sorted(cells.items()):
        (top, bottom), (left, right) = edges[0][i : i + 2], edges[1][j : j + 2]
        core = Window(int(top), int(left), int(bottom - top), int(right - left))
        window = Window(begins[0][i], begins[1][j], height, width)
        found.append((window, core, np.array(members, dtype=np.intp)))
    return found


def _inside(outlines: Geometries, core: Window) -> tuple[Ints, Ints, Ints]:
    """(row, col, index of the polygon) of the pixels of a window whose centres polygons hold."""
    left, top = core.col, core.row
    parts = shapely.clip_by_rect(outlines, left, top, left + core.width, top + core.height)
    parts = shapely.transform(parts, lambda points: points - (left, top))
    # A polygon that only touches the window leaves a line or a point there.
    shapes = [(part, i) for i, part in enumerate(parts, 1) if part.area > 0]
    if not shapes:
        none = np.empty(0, dtype=np.intp)
        return none, none, none
    labels = rasterize(shapes, out_shape=core.shape, dtype="int32")
    row, col = np.nonzero(labels)
    return row + top, col + left, np.asarray(labels[row, col] - 1, dtype=np.intp)


def _read_moved(
    read: ReadPart, window: Window, shape: tuple[int, int]
) -> tuple[Images, Images, NDArray[np.bool_]]:
    """(before, after moved each way (4, bands, height, width), valid) of a window."""
    (height, width), row, col = window.shape, window.row, window.col
    rows = slice(max(row - 1, 0), min(row + height + 1, shape[0]))
    cols = slice(max(col - 1, 0), min(col + width + 1, shape[1]))
    part = read(rows, cols)
    # Beyond the grid nothing can be read: there the edge is repeated.
    ring = (
        (rows.start - row + 1, row + height + 1 - rows.stop),
        (cols.start - col + 1, col + width + 1 - cols.stop),
    )
    after = np.pad(part.after, ((0, 0), *ring), mode="edge")
    moved = [
        after[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
        for down, right in SHIFTS
    ]
    here = (
        slice(row - rows.start, row - rows.start + height),
        slice(col - cols.start, col - cols.start + width),
    )
    return part.before[:, *here], np.stack(moved), part.valid[here]
