"""Telling roads from buildings by shape, for weights that know only 'change'."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean_length_and_width(area: Floats, perimeter: Floats) -> tuple[Floats, Floats]:
    """Length and width of the strips that have these areas and perimeters.

    A strip of length L and width w has area L * w and perimeter 2 * (L + w). A network of
    roads has nearly the same two measures as one road of its total length, so bends,
    junctions and blocks enclosed by streets do not matter.

    Args:
        area: shape (n,), square metres or pixels.
        perimeter: shape (n,), holes included, metres or pixels.

    Returns:
        Two arrays of shape (n,), length and width in the unit of ``perimeter``; equal where
        the object is rounder than a square.
    """
    half_sum = perimeter / 4
    root = np.sqrt(np.maximum(half_sum**2 - area, 0.0))
    return half_sum + root, half_sum - root


def looks_like_road(
    area: Floats, perimeter: Floats, *, elongation: float, width: float | None
) -> npt.NDArray[np.bool_]:
    """True where an object is long and thin enough to be a road.

    Args:
        area: shape (n,), square metres or pixels.
        perimeter: shape (n,), holes included, metres or pixels.
        elongation: least length of a road in multiples of its width.
        width: largest width of a road in the unit of ``perimeter``; None: any.
    """
    long, wide = mean_length_and_width(area, perimeter)
    thin = long >= elongation * wide
    return thin if width is None else thin & (wide <= width)
