"""What a method must beat: baselines that every table shows."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def difference_otsu(before: Image, after: Image) -> Mask:
    """Change where the length of the colour difference passes Otsu's threshold.

    Args:
        before: shape (height, width, bands), uint8.
        after: likewise.

    Source:
        Otsu (1979), doi 10.1109/TSMC.1979.4310076; Malila (1980), change vector analysis.
    """
    difference = after.astype(np.float32) - before.astype(np.float32)
    length = np.sqrt((difference**2).sum(axis=2))
    scaled = cv2.normalize(length, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]
    _, mask = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(mask > 0)


def everything(before: Image, after: Image) -> Mask:
    """Change everywhere."""
    return np.ones(before.shape[:2], bool)


BASELINES: dict[str, Callable[[Image, Image], Mask]] = {
    "colour difference + Otsu": difference_otsu,
    "everything changed": everything,
}
