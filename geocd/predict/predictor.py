"""What every inference backend is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geocd.models.card import WeightsCard

Images = NDArray[np.uint8]


class Predictor(Protocol):
    """A backend: a network with its weights, ready to run."""

    card: WeightsCard

    @property
    def description(self) -> str:
        """Backend, precision and device, for people."""
        ...

    def __call__(self, before: Images, after: Images) -> NDArray[np.uint8]:
        """Scores of window pairs, as bytes: a quarter of the traffic of floats.

        Args:
            before: shape (N, bands, height, width), uint8; any N, height and width.
            after: likewise.

        Returns:
            Shape (N, change classes, height, width), levels 0..``SCORE_SCALE`` for 0..1.
        """
        ...
