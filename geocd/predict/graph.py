"""All that a backend computes, as one network: bytes in, bytes out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geocd.config import SCORE_SCALE
from geocd.models.checkpoint import Weights
from geocd.models.fold import fold_batch_norms


class _InFloat32(nn.Module):
    """A module that runs in float32, whatever runs around it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.inner(x.float())
        return out


class ScoreGraph(nn.Module):
    """Levels 0..254 of two images of bytes; normalisation and the choice of classes included.

    Args:
        weights: network and card; the network is copied and its batch norms are folded.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.network = fold_batch_norms(weights.network)
        for name in self.network.precise:
            self.network.set_submodule(name, _InFloat32(self.network.get_submodule(name)))
        self.exclusive = weights.card.exclusive
        self.register_buffer("mean", torch.tensor(weights.card.mean).view(1, -1, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(weights.card.std).view(1, -1, 1, 1))
        self.eval()

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """From (B, bands, H, W) twice to (B, change classes, H, W), all uint8."""
        pair = [(image.float() - self.mean) * self.scale for image in (before, after)]
        logits = self.network(*pair).float()  # (B, K, H, W)
        scores = logits.softmax(dim=1)[:, 1:] if self.exclusive else logits.sigmoid()
        levels: Tensor = (scores * SCORE_SCALE).round().to(torch.uint8)
        return levels
