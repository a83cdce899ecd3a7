"""The same change in several pairs: one of them is kept, and what is known of a place over time."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geocd.vectorize.outline import as_multipolygons

_SAME = 0.5
"""Least share of the smaller of two polygons that lies in the other, if they are one change."""

_WHOLE = 0.999
"""Share of the ground in and around a change that is observed, if none of it is cut off."""

Ints = NDArray[np.intp]


def without_duplicates(changes: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The changes, each from one pair of dates: that with the newest, and the closest, dates.

    A pair that saw the change whole goes before one that a gap in a survey cuts it off in.

    Polygons are one change if half of the smaller lies in the other, their kinds are equal and
    the spans between their dates overlap. Spans that only follow one another tell of two
    changes: what was built in one may be pulled down in the next.

    Args:
        changes: with the columns kind, before_date, after_date, observed and pair.
    """
    first, second = _overlapping(changes)
    kind, before, after = (changes[c].to_numpy(str) for c in ("kind", "before_date", "after_date"))
    same = (
        (kind[first] == kind[second])
        & (before[first] < after[second])
        & (before[second] < after[first])
    )
    groups = _groups(len(changes), first[same], second[same])
    whole = changes["observed"].groupby([groups, changes["pair"]]).transform("min") >= _WHOLE
    best: dict[int, tuple[Any, ...]] = {}
    ranks = list(zip(whole, after, before, changes["pair"], strict=True))
    for group, rank in zip(groups.tolist(), ranks, strict=True):
        best[group] = max(rank, best.get(group, rank))
    kept = [best[group] == rank for group, rank in zip(groups.tolist(), ranks, strict=True)]
    return changes[np.array(kept, bool)].reset_index(drop=True)


def places_over_time(changes: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """One row for each place that changed, with its dates.

    Columns: ``last_before`` (date of the last image on which nothing had happened yet),
    ``first_seen`` (date of the first image that shows a change), ``last_seen`` (of the last
    image that shows one), ``times`` (spans between images that hold a change), ``kinds``, and
    ``spans``, such as "2015-05-20/2018-06-11 2018-06-11/2021-05-30".

    Args:
        changes: as in `without_duplicates`.
    """
    groups = _groups(len(changes), *_overlapping(changes))
    table = pd.DataFrame(
        {name: changes[name].to_numpy(str) for name in ("before_date", "after_date", "kind")}
    ).assign(place=groups)
    table["span"] = table["before_date"] + "/" + table["after_date"]
    spans, kinds = (
        table.drop_duplicates(["place", name]).sort_values(["place", name]).groupby("place")[name]
        for name in ("span", "kind")
    )
    earliest = table.sort_values(["place", "after_date", "before_date"]).groupby("place").first()
    rows = pd.DataFrame({
        "last_before": earliest["before_date"], "first_seen": earliest["after_date"],
        "last_seen": table.groupby("place")["after_date"].max(), "times": spans.size(),
        "kinds": kinds.agg(",".join), "spans": spans.agg(" ".join),
    })  # fmt: skip
    outlines = as_multipolygons(_united(np.asarray(changes.geometry, dtype=object), groups))
    return geopandas.GeoDataFrame(rows.reset_index(drop=True), geometry=outlines,
                                  crs=changes.crs)  # fmt: skip


def _united(shapes: NDArray[Any], groups: Ints) -> NDArray[Any]:
    """The union of the shapes of each group, in the order of the groups."""
    order = np.argsort(groups, kind="stable")
    _, begin, count = np.unique(groups[order], return_index=True, return_counts=True)
    united = shapes[order][begin]
    for place in np.flatnonzero(count > 1):
        members = order[begin[place] : begin[place] + count[place]]
        united[place] = shapely.union_all(shapes[members])
    return united


def _overlapping(changes: geopandas.GeoDataFrame) -> tuple[Ints, Ints]:
    """Numbers of polygons that lie on one another by half of the smaller."""
    shapes = np.asarray(changes.geometry, dtype=object)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    first, second = first[first < second], second[first < second]
    shared = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    smaller = np.minimum(shapely.area(shapes[first]), shapely.area(shapes[second]))
    same = shared >= _SAME * smaller
    return first[same], second[same]


def _groups(count: int, first: Ints, second: Ints) -> Ints:
    """The number of the first member of the group that each belongs to."""
    labels = np.arange(count)
    while True:
        low = np.minimum(labels[first], labels[second])
        lower = labels.copy()
        np.minimum.at(lower, first, low)
        np.minimum.at(lower, second, low)
        lower = lower[lower]
        if np.array_equal(lower, labels):
            return labels
        labels = lower
