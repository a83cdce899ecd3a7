"""FC-Siam-diff and FC-Siam-conc: a Siamese U-Net whose skips compare the two dates.

    before ─ stage 1 ─ stage 2 ─ stage 3 ─ stage 4      shared weights; each stage halves after it
    after  ─ stage 1 ─ stage 2 ─ stage 3 ─ stage 4 ─┐
                │         │         │         │     │   the deepest map is the after image's alone
    logits ── up 1 ──── up 2 ──── up 3 ──── up 4 ───┘

At each stage the decoder sees both dates' maps, as |a - b| (diff) or side by side (conc). The
published transposed 3 x 3 convolutions of stride 1 are written as the convolutions that they are.

Source:
    Daudt, Le Saux and Boulch (2018), Fully convolutional Siamese networks for change detection,
    doi 10.1109/ICIP.2018.8451652.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from geocd.models.network import ChangeNetwork

_DEPTHS = (2, 2, 3, 3)
"""Convolutions of each stage."""
_DROPOUT = 0.2
"""Share of channels dropped after each convolution in training, as published: the network is
small, and so are the sets it was made for."""


def _convolutions(channels: list[int]) -> nn.Sequential:
    """3 x 3 convolutions from each number of channels to the next."""
    layers: list[nn.Module] = []
    for channels_in, channels_out in pairwise(channels):
        layers += [
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Dropout2d(_DROPOUT),
        ]
    return nn.Sequential(*layers)


class _FCSiam(ChangeNetwork):
    """Encoder, decoder and head; subclasses say how the dates meet.

    Args:
        bands: bands of one image.
        classes: number of outputs.
        width: channels at full resolution; stage i has ``width * 2**i``. Published: 16.
    """

    stride = 2 ** len(_DEPTHS)
    maps_compared: ClassVar[int]
    """Maps of one stage's width that ``compare`` gives."""

    def __init__(self, *, bands: int = 3, classes: int = 2, width: int = 16) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(len(_DEPTHS))]
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        channels = bands
        for i, (repeats, w) in enumerate(zip(_DEPTHS, widths, strict=True)):
            self.down.append(_convolutions([channels, *[w] * repeats]))
            self.up.append(nn.ConvTranspose2d(w, w, 3, stride=2, padding=1, output_padding=1))
            # The last convolution narrows to what the stage above works with.
            narrow = [widths[i - 1]] if i > 0 else []
            same = [w] * (repeats - 1)
            self.merge.append(_convolutions([(1 + self.maps_compared) * w, *same, *narrow]))
            channels = w
        self.head = nn.Conv2d(width, classes, 3, padding=1)

    def compare(self, before: Tensor, after: Tensor) -> Tensor:
        """What the decoder sees of a stage's two maps (B, C, h, w)."""
        raise NotImplementedError

    def _encode(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self.down:
            # The first stage works at full resolution.
            image = stage(torch.max_pool2d(maps[-1], 2) if maps else image)
            maps.append(image)  # (B, width * 2**i, H / 2**i, W / 2**i)
        return maps

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of two images (B, bands, H, W); sides multiples of 16."""
        maps_before, maps_after = self._encode(before), self._encode(after)
        x = torch.max_pool2d(maps_after[-1], 2)  # (B, 8 * width, H/16, W/16)
        for i in reversed(range(len(_DEPTHS))):
            compared = self.compare(maps_before[i], maps_after[i])
            x = self.merge[i](torch.cat([self.up[i](x), compared], dim=1))  # (B, c, H/2**i, W/2**i)
        logits: Tensor = self.head(x)  # (B, classes, H, W)
        return logits


class FCSiamDiff(_FCSiam):
    """FC-Siam-diff: the decoder sees |a - b| of every stage.

    The skips do not tell the dates apart, but the deepest map, the after image's, does: as
    published, the network is not symmetric in time.
    """

    maps_compared = 1

    def compare(self, before: Tensor, after: Tensor) -> Tensor:
        """From twice (B, C, h, w) to (B, C, h, w)."""
        return (before - after).abs()


class FCSiamConc(_FCSiam):
    """FC-Siam-conc: the decoder sees both dates of every stage side by side."""

    maps_compared = 2

    def compare(self, before: Tensor, after: Tensor) -> Tensor:
        """From twice (B, C, h, w) to (B, 2C, h, w)."""
        return torch.cat([before, after], dim=1)
