"""Losses of change, for independent classes with pixels of unknown label."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geocd.training.tiles import IGNORE


def bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy plus dice, the mean over the classes that are known at all.

    Dice is taken over the batch and the plane, for each class. Pixels labelled ``IGNORE`` count
    in neither.

    Args:
        logits: shape (B, K, H, W).
        target: shape (B, K, H, W), uint8: 0, 1 or ``IGNORE``.

    Returns:
        A scalar; zero where nothing is known.
    """
    known = (target != IGNORE).float()  # (B, K, H, W)
    truth = (target == 1).float()
    logits = logits.float()
    per_pixel = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * known
    pixels = known.sum(dim=(0, 2, 3))  # (K,)
    bce = per_pixel.sum(dim=(0, 2, 3)) / pixels.clamp(min=1)
    score = torch.sigmoid(logits) * known
    overlap = (score * truth).sum(dim=(0, 2, 3))
    total = score.sum(dim=(0, 2, 3)) + (truth * known).sum(dim=(0, 2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    present = (pixels > 0).float()
    return ((bce + dice) * present).sum() / present.sum().clamp(min=1)
