"""What every network declares of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Answers:
    """All that a network says of a pair, for training to supervise."""

    logits: list[Tensor]
    """Logits (B, classes, H, W) of every head; the last is the network's answer."""
    maps: list[Tensor] = field(default_factory=list)
    """The encoder's maps of both dates at strides 2, 4, 8..., each (2 * B, C, H/s, W/s), before
    first; empty where dates are not encoded apart."""


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
    precise: tuple[str, ...] = ()
    """Submodules, of one input and one output, that stay in float32 where the rest runs in half
    precision: without them too many pixels change sides."""
    map_channels: tuple[int, ...] = ()
    """Channels of the maps in ``answers``."""

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of two images (B, bands, H, W)."""
        raise NotImplementedError

    def answers(self, before: Tensor, after: Tensor) -> Answers:
        """Everything that training can supervise, of two images (B, bands, H, W)."""
        return Answers([self(before, after)])

    def encode(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps of single dates (B, bands, H, W), as in ``answers``.

        Only networks that declare ``map_channels`` can.
        """
        raise NotImplementedError
