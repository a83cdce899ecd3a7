"""The torch backend: CPU and CUDA."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geocd.config import SCORE_SCALE, DeviceName
from geocd.errors import ConfigError
from geocd.models.checkpoint import Weights
from geocd.models.network import ChangeNetwork


def choose_device(name: DeviceName) -> torch.device:
    """The torch device of a name.

    Raises:
        ConfigError: CUDA is asked for and torch sees no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch sees no CUDA device; try auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def change_scores(
    network: ChangeNetwork, before: Tensor, after: Tensor, *, exclusive: bool
) -> Tensor:
    """Scores (N, change classes, H, W), 0..1, float32, of normalised images (N, bands, H, W).

    Args:
        network: in evaluation mode.
        before: any height and width; edges are repeated up to the network's stride.
        after: likewise.
        exclusive: the classes exclude one another and start with "none", of which no score is
            kept.
    """
    height, width = before.shape[2:]
    pad = (0, -width % network.stride, 0, -height % network.stride)
    if any(pad):
        before, after = (F.pad(x, pad, mode="replicate") for x in (before, after))
    logits: Tensor = network(before, after)[..., :height, :width].float()  # (N, K, H, W)
    return logits.softmax(dim=1)[:, 1:] if exclusive else logits.sigmoid()


class TorchPredictor:
    """Runs a network with torch: float32 on the CPU, automatic mixed precision on CUDA.

    Args:
        weights: network and card.
        device: auto, cpu or cuda.
    """

    def __init__(self, weights: Weights, *, device: DeviceName = "auto") -> None:
        self.card = weights.card
        self.device = choose_device(device)
        self._network = weights.network.eval().to(self.device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(self.card.mean, device=self.device).view(shape)
        self._std = torch.tensor(self.card.std, device=self.device).view(shape)

    @property
    def description(self) -> str:
        """Backend, precision and device."""
        if self.device.type == "cuda":
            return f"torch, mixed precision, {torch.cuda.get_device_name(self.device)}"
        return f"torch, float32, CPU with {torch.get_num_threads()} threads"

    def _to_device(self, images: NDArray[np.uint8]) -> Tensor:
        batch = torch.from_numpy(np.ascontiguousarray(images))  # (N, C, H, W), uint8
        if self.device.type == "cuda":
            # Bytes cross the bus, from pinned memory, while the GPU still works.
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        normal = (batch.float() - self._mean) / self._std
        return normal.contiguous(memory_format=torch.channels_last)  # (N, C, H, W)

    def _autocast(self) -> Any:
        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.float16)
        return nullcontext()

    @torch.inference_mode()
    def __call__(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Levels (N, change classes, height, width), 0..254, of (N, bands, height, width)."""
        with self._autocast():
            scores = change_scores(
                self._network, self._to_device(before), self._to_device(after),
                exclusive=self.card.exclusive,
            )  # fmt: skip
        levels = (scores * SCORE_SCALE).round().to(torch.uint8)
        result: NDArray[np.uint8] = levels.contiguous().cpu().numpy()
        return result
