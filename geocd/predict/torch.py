"""The torch backend: CPU, CUDA (one or several devices) and Apple's MPS."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geocd.config import DeviceName, PrecisionName
from geocd.errors import ConfigError, DeviceMemoryError, GeocdWarning
from geocd.models.checkpoint import Weights
from geocd.models.network import ChangeNetwork
from geocd.predict.graph import ScoreGraph
from geocd.predict.padding import pad_to

_PRECISIONS: dict[str, tuple[PrecisionName, ...]] = {
    "cpu": ("float32", "bf16"), "cuda": ("float32", "bf16", "fp16"), "mps": ("float32", "fp16"),
}  # fmt: skip
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CPU_FACTS = Path("/proc/cpuinfo")


def choose_device(name: DeviceName) -> torch.device:
    """The torch device of a name.

    Raises:
        ConfigError: CUDA or MPS is asked for and torch sees no such device.
    """
    there = {
        "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True,
    }  # fmt: skip
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    if not there[name]:
        raise ConfigError(
            f"device {name} was asked for, but torch sees no {name.upper()} device; try auto"
        )
    return torch.device(name)


def has_bf16() -> bool:
    """True where the processor multiplies bfloat16 itself, instead of widening it first."""
    try:
        facts = _CPU_FACTS.read_text()
    except OSError:
        return False
    return "avx512_bf16" in facts or "amx_bf16" in facts


def choose_precision(name: PrecisionName, device: torch.device) -> PrecisionName:
    """What the network computes in; auto takes half the bits where the device has them.

    Raises:
        ConfigError: torch does not compute in it on that device.
    """
    known = _PRECISIONS[device.type]
    if name == "auto":
        if device.type == "cpu":
            return "bf16" if has_bf16() else "float32"
        return "fp16" if device.type == "cuda" else "float32"
    if name not in known:
        raise ConfigError(
            f"torch does not compute in {name} on {device.type}; it has {', '.join(known)}"
        )
    return name


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


def _tells_of_full_memory(error: RuntimeError) -> bool:
    """CUDA has an error of its own for it; MPS and the processor say it in words."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in words)


@contextmanager
def _whole_float32(device: torch.device) -> Iterator[None]:
    """Convolutions of float32 keep their 32 bits.

    CUDA would cut them to 19, and layers that are spared half precision would gain nothing.
    """
    former = torch.backends.cudnn.allow_tf32
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = former


class _Lane:
    """One device with its own copy of the network.

    Args:
        graph: from bytes to bytes.
        device: where it runs.
        precision: what it computes in, not auto.
    """

    def __init__(self, graph: Any, device: torch.device, precision: PrecisionName) -> None:
        self.device, self._dtype = device, _DTYPES.get(precision)
        self._graph = graph.to(device).to(memory_format=torch.channels_last)
        self._upload: Any = None
        if device.type == "cuda":
            self._upload = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._most: int | None = None  # windows that fit the memory at once, once that is known

    @torch.inference_mode()
    def __call__(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Levels of window pairs; a batch that the memory cannot hold is worked off in halves.

        Raises:
            DeviceMemoryError: a single window pair does not fit.
        """
        parts, first, size = [], 0, len(before) if self._most is None else self._most
        while first < len(before):
            batch = slice(first, first + size)
            try:
                parts.append(self._levels(before[batch], after[batch]))
                first += size
                continue
            except RuntimeError as error:
                if not _tells_of_full_memory(error):
                    raise
            # Here the error is gone, and with it what its frames held of the memory.
            size = self._most = self._fewer(min(size, len(before) - first), before.shape[2:])
        return np.concatenate(parts)

    def _fewer(self, size: int, shape: tuple[int, ...]) -> int:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        if size == 1:
            raise DeviceMemoryError(
                f"a window pair of {shape[0]} x {shape[1]} pixels does not fit the memory of "
                f"{self.device}; take a smaller --tile-size, or --device cpu"
            )
        warnings.warn(
            f"{size} window pairs do not fit the memory of {self.device}; "
            f"from now on {size // 2} at a time",
            GeocdWarning,
            stacklevel=2,
        )
        return size // 2

    def _levels(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        pair = [torch.from_numpy(np.ascontiguousarray(images)) for images in (before, after)]
        levels = self._forward(*pair) if self._upload is None else self._overlapped(*pair)
        result: NDArray[np.uint8] = levels.contiguous().numpy()  # (N, classes, H, W)
        return result

    def _forward(self, *pair: Tensor) -> Tensor:
        autocast: Any = nullcontext()
        if self._dtype is not None:
            autocast = torch.autocast(self.device.type, dtype=self._dtype)
        moved = [x.to(self.device, memory_format=torch.channels_last) for x in pair]
        with autocast:
            levels: Tensor = self._graph(*moved)
        # To the CPU without waiting for it; ``_overlapped`` waits once for the whole batch.
        return levels.to("cpu", non_blocking=self._upload is not None)

    def _overlapped(self, *pair: Tensor) -> Tensor:
        """While the first half of the batch is computed, the second crosses the bus."""
        with torch.cuda.device(self.device):
            compute = torch.cuda.current_stream(self.device)
            parts = []
            for half in zip(*(images.chunk(2) for images in pair), strict=True):
                with torch.cuda.stream(self._upload):
                    # Only from pinned memory do bytes cross while the processor goes on.
                    moved = [x.pin_memory().to(self.device, non_blocking=True) for x in half]
                compute.wait_stream(self._upload)
                for x in moved:
                    x.record_stream(compute)
                parts.append(self._forward(*moved))
            compute.synchronize()
        return torch.cat(parts)


class TorchPredictor:
    """Runs a network with torch.

    Args:
        weights: network and card.
        device: auto, cpu, cuda (every device that torch sees, the windows split among them) or
            mps.
        precision: what the network computes in; half precision is mixed (autocast).
        compiled: let torch compile the network; on the CPU that needs a C++ compiler.

    Raises:
        ConfigError: the device is not there or lacks the precision.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        device: DeviceName = "auto",
        precision: PrecisionName = "auto",
        compiled: bool = False,
    ) -> None:
        self.card, self._stride = weights.card, weights.network.stride
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        graph: Any = ScoreGraph(weights)
        devices = [self.device]
        if self.device.type == "cuda":
            devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        graphs = [graph, *(copy.deepcopy(graph) for _ in devices[1:])]
        self._lanes = [
            _Lane(torch.compile(own) if compiled else own, place, self.precision)
            for own, place in zip(graphs, devices, strict=True)
        ]

    @property
    def description(self) -> str:
        """Backend, precision and device."""
        if self.device.type == "cuda":
            names = [torch.cuda.get_device_name(lane.device) for lane in self._lanes]
            where = names[0] if len(names) == 1 else f"{len(names)} devices ({names[0]})"
        elif self.device.type == "mps":
            where = "MPS"
        else:
            where = f"CPU with {torch.get_num_threads()} threads"
        return f"torch, {self.precision}, {where}"

    def __call__(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Levels (N, change classes, height, width), 0..254, of (N, bands, height, width)."""
        height, width = before.shape[2:]
        before, after = (pad_to(images, self._stride) for images in (before, after))
        shares = np.array_split(np.arange(len(before)), len(self._lanes))
        work = [
            (lane, before[s], after[s])
            for lane, s in zip(self._lanes, shares, strict=True)
            if len(s)
        ]
        with _whole_float32(self.device):
            if len(work) == 1:
                levels = self._lanes[0](before, after)
            else:
                with ThreadPoolExecutor(len(work)) as pool:
                    levels = np.concatenate(list(pool.map(lambda job: job[0](*job[1:]), work)))
        return levels[..., :height, :width]
