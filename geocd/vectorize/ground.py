"""Coordinates on the ground, with the digits that they deserve."""

from __future__ import annotations

import math

import pyproj
import shapely

from geocd.vectorize.outline import Geometries

_MILLIMETRE = 0.001
_SHARE = 0.01
"""Coordinates are never coarser than this share of a pixel."""
_DEGREE = 1e5
"""Metres in a degree, in round numbers."""


def decimals_of(crs: pyproj.CRS | None, pixel: float) -> int:
    """Decimals that tell millimetres apart, or hundredths of a pixel where those are finer.

    Args:
        crs: of the coordinates; None: they are as good as metres.
        pixel: side of a pixel on the ground, in metres (as it is without a CRS).
    """
    metres = 1.0
    if crs is not None:
        unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        metres = _DEGREE if crs.is_geographic else unit
    return max(0, math.ceil(math.log10(metres / min(_MILLIMETRE, _SHARE * pixel)) - 1e-9))


def rounded(geometries: Geometries, decimals: int) -> Geometries:
    """The geometries with their coordinates rounded.

    A vertex that two of them share stays shared. What would not be valid any more, such as a
    needle thinner than the step, keeps all its digits.

    Args:
        geometries: valid, shape (n,).
        decimals: of the coordinates.
    """
    result: Geometries = shapely.transform(geometries, lambda points: points.round(decimals))
    broken = ~shapely.is_valid(result)
    result[broken] = geometries[broken]
    return result
