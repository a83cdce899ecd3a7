"""A U-Net that draws the change map, and the critic that it is trained against.

    stacked pair ─ e1 ─ e2 ─ e3 ─ e4 ─ e5 ┐      each e halves, each d doubles the resolution
                    │    │    │    │      │
        logits ─── d1 ─ d2 ─ d3 ─ d4 ─ d5 ┘

The critic takes both images with a change map and scores each patch of them: drawn or true. It
serves training alone and is never part of the weights. ``geocd.training.losses`` has the losses.

Source:
    Lebedev et al. (2018), Change detection in remote sensing images using conditional adversarial
    networks, doi 10.5194/isprs-archives-XLII-2-565-2018.
    Isola et al. (2017), pix2pix, doi 10.1109/CVPR.2017.632.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geocd.models.network import ChangeNetwork

_FACTORS = (1, 2, 4, 8, 8)
"""Channels of the encoder's maps, in widths. pix2pix goes on to eight maps, down to one pixel of a
256 x 256 window; that would tie the network to windows of 256, and its result to the window."""
_DROPOUT = 0.5
"""Share of values dropped in the deepest decoder blocks in training, as published. pix2pix keeps
dropping at inference to draw different pictures; a change map must not depend on chance."""


def _down(channels_in: int, channels_out: int, *, stride: int = 2, norm: bool = True) -> nn.Module:
    """A 4 x 4 convolution that halves the resolution, or cuts a pixel off it with stride 1."""
    return nn.Sequential(
        # Batch norm brings a bias of its own.
        nn.Conv2d(channels_in, channels_out, 4, stride=stride, padding=1, bias=not norm),
        nn.BatchNorm2d(channels_out) if norm else nn.Identity(),
        nn.LeakyReLU(0.2, inplace=True),
    )


def _up(channels_in: int, channels_out: int, *, dropout: bool) -> nn.Module:
    """A transposed 4 x 4 convolution that doubles the resolution."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.Dropout(_DROPOUT) if dropout else nn.Identity(),
        nn.ReLU(inplace=True),
    )


def _initialise(network: nn.Module) -> None:
    """Normal with deviation 0.02, as published."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class StackedUNet(ChangeNetwork):
    """The generator: a U-Net from both images, stacked, to the change map.

    Args:
        bands: bands of one image.
        classes: number of outputs.
        width: channels at half resolution; the maps below have 2, 4, 8 and 8 times as many.
            Published: 64.
    """

    stride = 2 ** len(_FACTORS)

    def __init__(self, *, bands: int = 3, classes: int = 2, width: int = 64) -> None:
        super().__init__()
        widths = [width * factor for factor in _FACTORS]
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        channels = 2 * bands
        for i, w in enumerate(widths):
            # The first map keeps the images' brightness.
            self.encoder.append(_down(channels, w, norm=i > 0))
            channels = w
        for i in range(len(widths) - 1, 0, -1):
            self.decoder.append(_up(channels, widths[i - 1], dropout=i > 1))
            channels = 2 * widths[i - 1]  # with the encoder's map of that resolution
        self.head = nn.ConvTranspose2d(channels, classes, 4, stride=2, padding=1)
        _initialise(self)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of two images (B, bands, H, W); sides multiples of 32."""
        x = torch.cat([before, after], dim=1)  # (B, 2 * bands, H, W)
        maps: list[Tensor] = []
        for block in self.encoder:
            x = block(x)  # (B, c, H / 2**i, W / 2**i)
            maps.append(x)
        for block, skip in zip(self.decoder, maps[-2::-1], strict=True):
            x = torch.cat([block(x), skip], dim=1)  # (B, 2c, 2h, 2w)
        logits: Tensor = self.head(x)  # (B, classes, H, W)
        return logits


class PatchDiscriminator(nn.Module):
    """The critic: does the change map of a patch look true, given both images?

    Each score judges 70 x 70 pixels.

    Args:
        bands: bands of one image.
        classes: planes of the change map.
        width: channels at half resolution. Published: 64.
    """

    def __init__(self, *, bands: int = 3, classes: int = 2, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _down(2 * bands + classes, width, norm=False),
            _down(width, 2 * width),
            _down(2 * width, 4 * width),
            _down(4 * width, 8 * width, stride=1),
            nn.Conv2d(8 * width, 1, 4, padding=1),
        )
        _initialise(self)

    def forward(self, before: Tensor, after: Tensor, change: Tensor) -> Tensor:
        """How true each patch looks, as logits.

        Args:
            before: shape (B, bands, H, W), normalised as for the generator; sides at least 24.
            after: likewise.
            change: the change map, shape (B, classes, H, W), 0..1.

        Returns:
            Shape (B, 1, H/8 - 2, W/8 - 2) for sides that are multiples of 8.
        """
        scores: Tensor = self.layers(torch.cat([before, after, change.to(before.dtype)], dim=1))
        return scores
