"""Windows of any size, for networks that want sides of certain multiples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pad_to(images: NDArray[np.uint8], stride: int) -> NDArray[np.uint8]:
    """Images with their lower and right edges repeated up to multiples of ``stride``.

    Args:
        images: shape (N, bands, height, width).
        stride: pixels.
    """
    missing = [-side % stride for side in images.shape[2:]]
    if not any(missing):
        return images
    return np.pad(images, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
