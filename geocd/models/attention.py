"""Ensemble channel attention, shared by the nested networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """How much each channel counts, 0..1, judged from its mean and its maximum over the window.

    Source:
        Woo et al. (2018), CBAM, doi 10.1007/978-3-030-01234-2_1; the two poolings share one
        bottleneck of ``channels // ratio``.
    """

    def __init__(self, channels: int, *, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // ratio, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // ratio, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, C, H, W) to (B, C, 1, 1), 0..1."""
        mean = x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        peak = x.amax(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        return torch.sigmoid(self._squeeze(mean) + self._squeeze(peak))

    def _squeeze(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.fc2(torch.relu(self.fc1(pooled)))
        return out


class EnsembleChannelAttention(nn.Module):
    """Weighs the nested outputs of one resolution against each other (ECAM).

    ``intra`` attention looks at the sum of the outputs and is the same for each of them;
    ``inter`` attention looks at all of them side by side.

    Source:
        Fang et al. (2021), SNUNet-CD, doi 10.1109/LGRS.2021.3056416.
    """

    def __init__(self, channels: int, outputs: int, *, intra_ratio: int, inter_ratio: int) -> None:
        super().__init__()
        self.intra = ChannelAttention(channels, ratio=intra_ratio)
        self.inter = ChannelAttention(channels * outputs, ratio=inter_ratio)

    def forward(self, nodes: list[Tensor]) -> Tensor:
        """From ``outputs`` maps of (B, C, H, W) to (B, outputs * C, H, W)."""
        stacked = torch.cat(nodes, dim=1)  # (B, outputs * C, H, W)
        intra = self.intra(torch.stack(nodes).sum(dim=0))  # (B, C, 1, 1)
        weights: Tensor = self.inter(stacked)  # (B, outputs * C, 1, 1)
        out: Tensor = weights * (stacked + intra.repeat(1, len(nodes), 1, 1))
        return out
