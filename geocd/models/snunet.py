"""SNUNet-CD and Siam-NestedUNet: a densely connected Siamese UNet++.

    x0_0 x0_1 x0_2 x0_3 x0_4      row i: resolution 1 / 2**i
    x1_0 x1_1 x1_2 x1_3           column 0: the shared encoder, run on both dates
    x2_0 x2_1 x2_2                node (i, j) sees both dates' x{i}_0, the earlier nodes of
    x3_0 x3_1                     its row, and the node below it, upsampled
    x4_0

Module names are those of the published checkpoints, so that these load as they are.

Source:
    Fang et al. (2021), SNUNet-CD, doi 10.1109/LGRS.2021.3056416.
    Li et al. (2020), Siam-NestedUNet, doi 10.1145/3437802.3437810.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from geocd.models.attention import ChannelAttention
from geocd.models.network import Answers, ChangeNetwork

DEPTH = 4
"""Number of times that the resolution is halved; sides must be multiples of 2**DEPTH."""


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions; the skip starts before the first batch norm."""

    folds = (("conv2", "bn2"),)
    """What ``fold_batch_norms`` may join; the skip needs what comes before ``bn1``."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, channels_in, H, W) to (B, channels_out, H, W)."""
        skip = self.conv1(x)
        y = torch.relu(self.bn1(skip))
        return torch.relu(self.bn2(self.conv2(y)) + skip)


class Up(nn.Module):
    """Doubles the resolution, by a transposed convolution or by bilinear interpolation.

    Bilinear interpolation has no parameters. It aligns the corners, as the published code does:
    checkpoints trained so give other scores without. Pixels are then sampled at steps of
    (side - 1) / (2 * side - 1), so the scores depend on the window a little.
    """

    def __init__(self, channels: int, upsampling: str) -> None:
        super().__init__()
        self.up: nn.Module
        if upsampling == "bilinear":
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        else:
            self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, C, H, W) to (B, C, 2H, 2W)."""
        out: Tensor = self.up(x)
        return out


class _NestedBackbone(ChangeNetwork):
    """The encoder and the nested nodes; subclasses make logits of x0_1..x0_4.

    Args:
        bands: bands of one image.
        width: channels at full resolution; row i has ``width * 2**i``.
        upsampling: transposed or bilinear.
    """

    stride = 2**DEPTH
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"upsampling": ("transposed", "bilinear")}

    def __init__(self, bands: int, width: int, upsampling: str) -> None:
        super().__init__()
        filters = [width * 2**i for i in range(DEPTH + 1)]
        self.map_channels = tuple(filters[1:DEPTH])
        for i, channels in enumerate(filters):
            self.add_module(f"conv{i}_0", ConvBlock(bands if i == 0 else filters[i - 1], channels))
            if i > 0:
                self.add_module(f"Up{i}_0", Up(channels, upsampling))
        for j in range(1, DEPTH + 1):
            for i in range(DEPTH + 1 - j):
                # Both dates' x{i}_0, the j - 1 earlier nodes, and the node below.
                channels_in = (j + 1) * filters[i] + filters[i + 1]
                self.add_module(f"conv{i}_{j}", ConvBlock(channels_in, filters[i]))
                if i > 0:
                    self.add_module(f"Up{i}_{j}", Up(filters[i], upsampling))

    def _encode(self, image: Tensor, levels: int) -> list[Tensor]:
        features = [self.get_submodule("conv0_0")(image)]  # (B, n, H, W)
        for i in range(1, levels):
            pooled = torch.max_pool2d(features[-1], 2)  # (B, f[i-1], H/2**i, W/2**i)
            features.append(self.get_submodule(f"conv{i}_0")(pooled))
        return features

    def encode(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps of single dates (B, bands, H, W), from stride 2 on."""
        return self._encode(images, DEPTH)[1:]

    def _encode_dates(
        self, before: Tensor, after: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Maps of before, of after, and of both dates (2 * B, C, h, w) from stride 2 on."""
        if self.training:  # batch norm looks at one date at a time, as published
            first, second = self._encode(before, DEPTH), self._encode(after, DEPTH)
            both = [torch.cat(dates) for dates in zip(first, second, strict=True)]
        else:
            both = self._encode(torch.cat([before, after]), DEPTH)
            first, second = ([m.chunk(2)[date] for m in both] for date in (0, 1))
        deepest = self.get_submodule(f"conv{DEPTH}_0")(torch.max_pool2d(second[-1], 2))
        return first, [*second, deepest], both[1:]

    def nodes(self, before: Tensor, after: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The full-resolution nodes x0_1..x0_4, each (B, width, H, W), and both dates' maps.

        Only the after image is encoded to the lowest resolution, and every upsampled
        encoder map is the after image's: the network is not symmetric in time.
        """
        row_before, row_after, maps = self._encode_dates(before, after)
        rows: list[list[Tensor]] = [[a] for a in row_after]
        for j in range(1, DEPTH + 1):
            for i in range(DEPTH + 1 - j):
                below = self.get_submodule(f"Up{i + 1}_{j - 1}")(rows[i + 1][j - 1])
                inputs = [row_before[i], row_after[i], *rows[i][1:], below]
                rows[i].append(self.get_submodule(f"conv{i}_{j}")(torch.cat(inputs, dim=1)))
        return rows[0][1:], maps


class SNUNet(_NestedBackbone):
    """SNUNet-CD: the nested network with ensemble channel attention.

    Args:
        bands: bands of one image.
        classes: number of output classes.
        width: channels at full resolution; published: 16, 24, 32, 40, 48.
        upsampling: transposed (convolution, as published) or bilinear.
    """

    def __init__(
        self,
        *,
        bands: int = 3,
        classes: int = 2,
        width: int = 32,
        upsampling: str = "transposed",
    ) -> None:
        super().__init__(bands, width, upsampling)
        self.ca = ChannelAttention(width * DEPTH, ratio=16)
        self.ca1 = ChannelAttention(width, ratio=4)
        self.conv_final = nn.Conv2d(width * DEPTH, classes, 1)
        initialise(self)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of two images (B, bands, H, W); sides multiples of 16."""
        return self.answers(before, after).logits[-1]

    def answers(self, before: Tensor, after: Tensor) -> Answers:
        """Logits, and the encoder's maps of both dates."""
        nodes, maps = self.nodes(before, after)
        out = torch.cat(nodes, dim=1)  # (B, 4n, H, W)
        intra = self.ca1(torch.stack(nodes).sum(dim=0))  # (B, n, 1, 1)
        out = self.ca(out) * (out + intra.repeat(1, DEPTH, 1, 1))
        return Answers([self.conv_final(out)], maps)  # logits (B, classes, H, W)


class SiamNestedUNet(_NestedBackbone):
    """Siam-NestedUNet with concatenation: one head per node and one over the heads.

    Args:
        bands: bands of one image.
        classes: number of output classes.
        width: channels at full resolution.
        upsampling: transposed (convolution, as published) or bilinear.
    """

    def __init__(
        self,
        *,
        bands: int = 3,
        classes: int = 2,
        width: int = 32,
        upsampling: str = "transposed",
    ) -> None:
        super().__init__(bands, width, upsampling)
        for j in range(1, DEPTH + 1):
            self.add_module(f"final{j}", nn.Conv2d(width, classes, 1))
        self.conv_final = nn.Conv2d(classes * DEPTH, classes, 1)
        initialise(self)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of two images (B, bands, H, W); sides multiples of 16."""
        return self.answers(before, after).logits[-1]

    def answers(self, before: Tensor, after: Tensor) -> Answers:
        """The heads of x0_1..x0_4 and the final one over them, and the dates' maps."""
        nodes, maps = self.nodes(before, after)
        heads = [self.get_submodule(f"final{j}")(n) for j, n in enumerate(nodes, start=1)]
        return Answers([*heads, self.conv_final(torch.cat(heads, dim=1))], maps)


def initialise(network: nn.Module) -> None:
    """Kaiming normal by fan in on convolutions, with a small last layer.

    The published initialisation counts fan out; it starts with logits so large that training
    stalls for hundreds of steps. Transposed convolutions keep torch's default.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    final = network.get_submodule("conv_final")
    assert isinstance(final, nn.Conv2d)
    nn.init.normal_(final.weight, std=0.01)
