"""What a network sees where nothing was observed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_NEUTRAL = 127


def fill_unobserved(image: NDArray[np.uint8], seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with what was not observed on both dates filled from its surroundings.

    The edge of a hole on one date would otherwise look like change to a network. Narrow gaps
    between tiles take their neighbours' colour, wide holes the mean of the window.

    Args:
        image: shape (bands, height, width).
        seen: shape (height, width), True where both dates were observed.
    """
    if seen.all():
        return image
    if not seen.any():
        return np.full_like(image, _NEUTRAL)
    planes = np.moveaxis(image, 0, -1).astype(np.float32)  # (height, width, bands)
    weight = seen.astype(np.float32)
    near = cv2.blur(weight, (9, 9))[..., None]
    blurred = cv2.blur(planes * weight[..., None], (9, 9)).reshape(planes.shape)
    mean = planes[seen].mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        filled = np.where(near > 1e-3, blurred / near, mean)
    out = np.where(seen[..., None], planes, filled)
    return np.moveaxis(out, -1, 0).astype(np.uint8)
