"""Ensemble channel attention, shared by the nested networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLED_SIDE = 256
"""Side of the ground over which attention is pooled, in pixels of the image."""


class ChannelAttention(nn.Module):
    """How much each channel counts, 0..1, judged from its mean and its maximum nearby.

    Up to one and a quarter times ``side``, "nearby" is the whole map. In larger maps it is a
    square of that side, at steps of half a side, and between the squares' centres the attention
    is interpolated: a network sees a place in the same light whatever the window.

        side        |-------|
        squares     |=======|=======|       cells of half a side: 4,
                        |=======|           squares of two cells: 3

    Args:
        channels: of the map.
        ratio: how many times narrower the bottleneck is.
        side: of the squares, in pixels of the map.

    Source:
        Woo et al. (2018), CBAM, doi 10.1007/978-3-030-01234-2_1; the two poolings share one
        bottleneck of ``channels // ratio``.
    """

    def __init__(self, channels: int, *, ratio: int, side: int = POOLED_SIDE) -> None:
        super().__init__()
        self.side = side
        self.fc1 = nn.Conv2d(channels, channels // ratio, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // ratio, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, C, H, W) to 0..1, (B, C, 1, 1) for small maps and (B, C, H, W) for large."""
        shape = (int(x.shape[2]), int(x.shape[3]))
        cells = [max(2, round(2 * length / self.side)) for length in shape]
        if cells == [2, 2]:
            mean = x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
            peak = x.amax(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
            return torch.sigmoid(self._squeeze(mean) + self._squeeze(peak))
        mean = _neighbours(_pooled(x, cells, torch.mean), lambda a, b: (a + b) / 2)
        peak = _neighbours(_pooled(x, cells, torch.amax), torch.maximum)
        gate = torch.sigmoid(self._squeeze(mean) + self._squeeze(peak))  # (B, C, n - 1, m - 1)
        gate = F.pad(gate, (1, 1, 1, 1), mode="replicate")  # (B, C, n + 1, m + 1)
        return F.interpolate(gate, size=shape, mode="bilinear", align_corners=True)

    def _squeeze(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.fc2(torch.relu(self.fc1(pooled)))
        return out


def _pooled(x: Tensor, cells: list[int], pool: Callable[..., Tensor]) -> Tensor:
    """(B, C, n, m) of (B, C, H, W): one value for each of n x m cells, equal but for rounding."""
    for dim, number in ((2, cells[0]), (3, cells[1])):
        length = int(x.shape[dim])
        edges = [round(i * length / number) for i in range(number + 1)]
        parts = [
            pool(x.narrow(dim, a, max(b - a, 1)), dim=dim) for a, b in itertools.pairwise(edges)
        ]
        x = torch.stack(parts, dim=dim)
    return x


def _neighbours(cells: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(B, C, n - 1, m - 1) of (B, C, n, m): squares of two by two cells."""
    rows = join(cells[:, :, :-1], cells[:, :, 1:])
    return join(rows[..., :-1], rows[..., 1:])


class EnsembleChannelAttention(nn.Module):
    """Weighs the nested outputs of one resolution against each other (ECAM).

    ``intra`` attention looks at the sum of the outputs and is the same for each of them;
    ``inter`` attention looks at all of them side by side.

    Args:
        channels: of one output.
        outputs: how many there are.
        intra_ratio, inter_ratio: how many times narrower the bottlenecks are.
        stride: pixels of the image in one of the maps.

    Source:
        Fang et al. (2021), SNUNet-CD, doi 10.1109/LGRS.2021.3056416.
    """

    def __init__(
        self, channels: int, outputs: int, *, intra_ratio: int, inter_ratio: int, stride: int
    ) -> None:
        super().__init__()
        side = POOLED_SIDE // stride
        self.intra = ChannelAttention(channels, ratio=intra_ratio, side=side)
        self.inter = ChannelAttention(channels * outputs, ratio=inter_ratio, side=side)

    def forward(self, nodes: list[Tensor]) -> Tensor:
        """From ``outputs`` maps of (B, C, H, W) to (B, outputs * C, H, W)."""
        stacked = torch.cat(nodes, dim=1)  # (B, outputs * C, H, W)
        intra = self.intra(torch.stack(nodes).sum(dim=0))  # (B, C, 1, 1) or (B, C, H, W)
        weights: Tensor = self.inter(stacked)  # (B, outputs * C, 1, 1) or (B, outputs * C, H, W)
        out: Tensor = weights * (stacked + intra.repeat(1, len(nodes), 1, 1))
        return out
