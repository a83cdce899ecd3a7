"""Public asserts: whether a layer of changes is sound, and how it compares with the truth."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from geocd.config import CLASS_CODES, NOT_OBSERVED
from geocd.errors import ShapeError

Mask = NDArray[np.uint8]


def assert_valid_change_layer(
    layer: geopandas.GeoDataFrame, *, columns: Iterable[str] = ("id", "kind")
) -> None:
    """Fail where a layer of change polygons breaks a promise.

    The promises: the columns are there; ids are unique; kinds are known; geometries are
    polygons, valid and not empty; scores and shares lie in 0..1; areas are positive.

    Args:
        layer: change polygons; an empty layer is sound if its columns are.
        columns: names that must be there, beside the geometry.

    Raises:
        AssertionError: with the promise that is broken, and by which ids.
    """
    missing = sorted(set(columns) - set(layer.columns))
    assert not missing, f"columns are missing: {', '.join(missing)}"
    names = layer["id"] if "id" in layer else layer.index.to_series()

    def _require(fine: NDArray[np.bool_], promise: str) -> None:
        broken = [str(name) for name in names[~np.asarray(fine, bool)]]
        assert not broken, f"{promise}; broken by id {', '.join(broken[:10])}"

    _require(~names.duplicated(keep=False).to_numpy(), "ids must be unique")
    shapes = layer.geometry
    bare = np.asarray(shapes)
    _require(shapely.is_geometry(bare) & ~shapely.is_empty(bare), "geometries must not be empty")
    _require(shapes.is_valid.to_numpy(), "geometries must be valid")
    _require(
        shapes.geom_type.isin(["Polygon", "MultiPolygon"]).to_numpy(),
        "geometries must be polygons",
    )
    if "kind" in layer:
        _require(layer["kind"].isin(list(CLASS_CODES)).to_numpy(), "kinds must be known classes")
    for name in {"score_mean", "score_max", "observed"} & set(layer.columns):
        _require(layer[name].between(0, 1).to_numpy(), f"{name} must lie in 0..1")
    for name in {"area_m2", "area_px"} & set(layer.columns):
        # An area is unknown, not zero, where the image has no CRS.
        known = layer[name].isna() | (layer[name] > 0)
        _require(known.to_numpy(), f"{name} must be positive")


def score_against_truth(
    found: Mask, truth: Mask, *, min_pixels: int = 1
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Compare a change map with the truth, object by object and pixel by pixel.

    An object is a group of pixels of one kind that touch, corners included. An object of the
    truth is *found* when at least half of its pixels have its kind in the map, else *missed*.
    An object of the map is *false* when less than half of its pixels have its kind in the
    truth. Pixels that the map calls not observed count nowhere.

    Args:
        found: the change map, values of `CLASS_CODES`, 0 or `NOT_OBSERVED`.
        truth: the same, of the same shape.
        min_pixels: objects with fewer pixels, on either side, count nowhere as objects.

    Returns:
        For "building", "road" and "any" (every kind alike, which is what fits binary weights):
        the counts ``objects`` (of the truth), ``found``, ``missed`` and ``false``, and the
        shares of pixels ``precision``, ``recall`` and ``f1``.

    Raises:
        ShapeError: the two differ in shape.
    """
    if found.shape != truth.shape:
        raise ShapeError(
            f"the map is {found.shape} and the truth {truth.shape} pixels; put them on one grid"
        )
    observed = (found != NOT_OBSERVED) & (truth != NOT_OBSERVED)
    codes = {kind: [code] for kind, code in CLASS_CODES.items() if kind != "change"}
    codes["any"] = list(CLASS_CODES.values())
    scores = {}
    for kind, values in codes.items():
        in_map, in_truth = np.isin(found, values) & observed, np.isin(truth, values) & observed
        scores[kind] = _score(in_map, in_truth, min_pixels)
    return scores


def _score(found: NDArray[np.bool_], truth: NDArray[np.bool_], min_pixels: int) -> dict[str, float]:
    right = int((found & truth).sum())
    precision = right / max(int(found.sum()), 1)
    recall = right / max(int(truth.sum()), 1)
    shares = _covered(truth, found, min_pixels)
    hits = int((shares >= 0.5).sum())
    return {
        "objects": len(shares),
        "found": hits,
        "missed": len(shares) - hits,
        "false": int((_covered(found, truth, min_pixels) < 0.5).sum()),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
    }


def _covered(
    objects: NDArray[np.bool_], other: NDArray[np.bool_], min_pixels: int
) -> NDArray[np.float64]:
    """Share of each object's pixels that the other mask holds too."""
    count, labels = cv2.connectedComponents(objects.astype(np.uint8), connectivity=8)
    sizes = np.bincount(labels.ravel(), minlength=count)[1:]
    shared = np.bincount(labels[other], minlength=count)[1:]
    kept = sizes >= min_pixels
    return np.asarray(shared[kept] / sizes[kept], np.float64)
