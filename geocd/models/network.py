"""What every network declares of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn


class ChangeNetwork(nn.Module):
    """A network from two images to logits.

    A subclass is built from ``bands``, ``classes`` and ``width``, and from its ``options`` as
    keywords; the first value of each option is the published one and the default.
    """

    stride: ClassVar[int]
    """Sides of the images must be multiples of this, pixels."""
    symmetric: ClassVar[bool] = False
    """True: swapping the dates cannot change the result, whatever the weights."""
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Choices within the architecture, with the values of each."""

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of two images (B, bands, H, W)."""
        raise NotImplementedError
