"""The training loop: one process, resumable to the step."""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from geocd.errors import ConfigError
from geocd.models.card import WeightsCard
from geocd.models.checkpoint import save_weights
from geocd.models.registry import build_model
from geocd.models.siam_nested_lite import (
    ENCODER_CHANNELS,
    MEAN,
    STD,
    SiamNestedLite,
    load_imagenet_encoder,
)
from geocd.outputs import replacing
from geocd.training.losses import bce_dice
from geocd.training.recipe import Recipe
from geocd.training.synthesis import PairSynthesizer
from geocd.training.tiles import load_tiles

log = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
Progress = Callable[[int, int, dict[str, float]], None]

_CHECKPOINT = "checkpoint.pt"
_SAVE_EVERY_S = 120.0


class SegmentationHead(nn.Module):
    """What stands on each date, from the encoder's maps: a dense gradient for the encoder.

    Used in training only, and left out of the weights.
    """

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(c, width, 1) for c in ENCODER_CHANNELS)
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits (2 * B, classes, H/2, W/2) from the maps of both dates."""
        total = self.reduce[-1](maps[-1])
        for reduce, m in zip(list(self.reduce)[-2::-1], maps[-2::-1], strict=True):
            total = reduce(m) + nn.functional.interpolate(total, scale_factor=2.0)
        out: Tensor = self.head(total)
        return out


class _PairStream(IterableDataset[Batch]):
    """Batches of synthesised pairs; pair i of a run depends on the seed and on i alone."""

    def __init__(self, synthesizer: PairSynthesizer, recipe: Recipe, start: int) -> None:
        self.synthesizer, self.recipe, self.start = synthesizer, recipe, start

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        info = torch.utils.data.get_worker_info()
        first, step_by = (info.id, info.num_workers) if info else (0, 1)
        for step in range(self.start + first, self.recipe.steps, step_by):
            stage, _ = self.recipe.stage_at(step)
            yield self._batch(step, stage.crop, stage.batch)

    def _batch(self, step: int, crop: int, size: int) -> Batch:
        pairs = [
            self.synthesizer.sample(np.random.default_rng([self.recipe.seed, step, i]), crop)
            for i in range(size)
        ]

        def _stack(planes: Sequence[np.ndarray[Any, Any]]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(np.stack(planes)))

        images = _stack([p.before for p in pairs] + [p.after for p in pairs])
        before, after = images.permute(0, 3, 1, 2).contiguous().chunk(2)  # (B, 3, H, W)
        dates = _stack([p.labels_before for p in pairs] + [p.labels_after for p in pairs])
        return before, after, _stack([p.change for p in pairs]), dates


class Trainer:
    """Trains by a recipe; everything that a resumed run needs is in its state.

    Args:
        recipe: what to train.
        data: root of the sources' folders.
        output: folder of the checkpoint and the log.
        device: torch device.
        workers: processes that make pairs.
    """

    def __init__(
        self, recipe: Recipe, data: Path, output: Path, *, device: str = "cpu", workers: int = 1
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.output, self.workers = recipe, output, workers
        self.device = torch.device(device)
        output.mkdir(parents=True, exist_ok=True)
        tiles = load_tiles(data, recipe.sources, classes=len(recipe.classes))
        self.synthesizer = PairSynthesizer(tiles, recipe.sources, recipe.synthesis)
        self.network = self._build()
        self.auxiliary = SegmentationHead(len(recipe.classes)) if recipe.auxiliary else None
        modules = [self.network] + ([self.auxiliary] if self.auxiliary else [])
        self.trained = nn.ModuleList(modules).to(self.device)
        self.trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self._parameter_groups(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.step = 0
        self.seconds = 0.0

    def _build(self) -> nn.Module:
        network = build_model(
            self.recipe.model, bands=3, classes=len(self.recipe.classes), width=self.recipe.width
        )
        if isinstance(network, SiamNestedLite):
            load_imagenet_encoder(network)
        elif self.recipe.auxiliary:
            raise ConfigError(
                f"{self.recipe.model} has no encoder for the auxiliary segmentation; "
                "set auxiliary = 0 in the recipe"
            )
        return network

    def _parameter_groups(self) -> list[dict[str, Any]]:
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, parameter in self.trained.named_parameters():
            slow = name.startswith("0.encoder.")
            groups.setdefault((slow, parameter.ndim > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "scale": self.recipe.encoder_rate if slow else 1.0,
                # Biases and batch norms are not decayed.
                "weight_decay": self.recipe.weight_decay if is_matrix else 0.0,
            }
            for (slow, is_matrix), parameters in groups.items()
        ]

    def _set_learning_rate(self) -> None:
        recipe = self.recipe
        rise = min(1.0, (self.step + 1) / max(1, recipe.warmup))
        fall = 0.5 * (1 + math.cos(math.pi * self.step / recipe.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * group["scale"] * rise * max(fall, 0.01)

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        before, after, change, dates = (t.to(self.device, non_blocking=True) for t in batch)
        normal_before, normal_after = (
            ((x.float() - MEAN) / STD).contiguous(memory_format=torch.channels_last)
            for x in (before, after)
        )
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            if self.auxiliary is None:
                return {"change": bce_dice(self.network(normal_before, normal_after), change)}
            assert isinstance(self.network, SiamNestedLite)
            maps = self.network.encode(normal_before, normal_after)
            logits = self.network.decode(normal_before, normal_after, maps)
            dates_logits = self.auxiliary(maps)
        return {
            "change": bce_dice(logits, change),
            "dates": self.recipe.auxiliary * bce_dice(dates_logits, dates[:, :, ::2, ::2]),
        }

    def _train_step(self, batch: Batch) -> dict[str, float]:
        self.trained.train()
        self._set_learning_rate()
        parts = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip)
        self.optimizer.step()
        # Early averages would remember the initial weights for too long.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.dtype.is_floating_point:
                    self.ema[name].lerp_(value, 1 - decay)
                else:
                    self.ema[name].copy_(value)
        self.step += 1
        return {name: value.item() for name, value in parts.items()}

    def save(self) -> None:
        """Write the state; the previous one survives a failure."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "recipe": self.recipe.decides(),
            "trained": self.trained.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(self.output / _CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if there is one.

        Raises:
            ConfigError: the checkpoint was made by another recipe.
        """
        path = self.output / _CHECKPOINT
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != self.recipe.decides():
            raise ConfigError(
                f"{path} was made by another recipe; train into another folder or remove it"
            )
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = state["ema"]
        self.step, self.seconds = state["step"], state["seconds"]
        return True

    def export(self, *, validation: Mapping[str, Any] | None = None) -> Path:
        """Write the averaged weights with their card, 16 bits a number, beside the checkpoint."""
        recipe = self.recipe
        network = copy.deepcopy(self.network).to("cpu")
        network.load_state_dict(self.ema)
        notes = recipe.card
        card = WeightsCard(
            name=recipe.name, architecture=recipe.model, width=recipe.width,
            classes=recipe.classes, exclusive=False,
            thresholds=notes.thresholds,
            bands=("red", "green", "blue"), mean=(MEAN,) * 3, std=(STD,) * 3, gsd=notes.gsd,
            summary=notes.summary, terms=notes.terms, limitations=notes.limitations,
            training=self._history(), validation=dict(validation or {}),
        )  # fmt: skip
        path = self.output / f"{recipe.name}.safetensors"
        save_weights(path, network, card, half=True, overwrite=True)
        return path

    def _history(self) -> dict[str, Any]:
        """What the weights were trained on, for their card."""
        tiles = Counter(tile.source for tile in self.synthesizer.tiles)
        return {
            "initial_weights": "EfficientNet-Lite0, ImageNet (Apache-2.0)",
            "pairs": "synthesised from single-date labelled tiles; no real pair",
            "steps": self.step,
            "steps_planned": self.recipe.steps,
            "hours": round(self.seconds / 3600, 2),
            "device": str(self.device),
            "seed": self.recipe.seed,
            "stages": [f"{s.steps} steps of {s.batch} x {s.crop} px" for s in self.recipe.stages],
            "data": [
                {"folder": s.folder, "files": s.include, "tiles": tiles[i], "gsd_m": s.gsd,
                 "share": s.weight, "origin": s.origin, "terms": s.terms}
                for i, s in enumerate(self.recipe.sources)
            ],
        }  # fmt: skip

    def run(self, *, progress: Progress | None = None, stop_after: int | None = None) -> None:
        """Train to the end of the recipe, or for ``stop_after`` more steps; saves as it goes."""
        last = self.recipe.steps if stop_after is None else self.step + stop_after
        last = min(last, self.recipe.steps)
        stream = _PairStream(self.synthesizer, self.recipe, self.step)
        loader = DataLoader(
            stream,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            pin_memory=self.device.type == "cuda",
        )
        begun = saved = time.monotonic()
        seconds = self.seconds
        with (self.output / "log.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            for batch in loader if self.step < last else ():
                losses = self._train_step(batch)
                self.seconds = seconds + time.monotonic() - begun
                writer.writerow(
                    [self.step, f"{self.seconds:.1f}", *(f"{v:.5f}" for v in losses.values())]
                )
                if progress:
                    progress(self.step, self.recipe.steps, losses)
                if self.step >= last:
                    break
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    self.save()
                    file.flush()
                    saved = time.monotonic()
        self.save()
