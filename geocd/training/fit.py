"""The training loop: resumable to the step, in one process or several."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from geocd.errors import ConfigError, DivergedError, GeocdError, OutputError
from geocd.predict.torch import change_scores
from geocd.training.checkpoints import read_checkpoint, write_checkpoint
from geocd.training.defects import DefectPairs
from geocd.training.export import RunFacts, export_weights
from geocd.training.real import RealPairs
from geocd.training.recipe import Recipe
from geocd.training.selflabel import complete_labels
from geocd.training.stream import Mixture, PairSampler, PairStream
from geocd.training.synthesis import PairSynthesizer
from geocd.training.task import Critic, TrainingTask
from geocd.training.tiles import Tile, load_tiles
from geocd.training.watch import Case, RunLog, Score, Validation, Verdict

log = logging.getLogger(__name__)
Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called with the steps done, the steps in all, and the losses of the last."""

_CHECKPOINT = "checkpoint.pt"
_SAVE_EVERY_S = 120.0


@dataclass(frozen=True, slots=True)
class Gain:
    """F1 on the validation before and after a run that started from trained weights."""

    before: float
    after: float
    step: int
    """Step of the weights that are kept; 0: those that the run started from."""

    def __str__(self) -> str:
        if self.step == 0:
            return (
                f"validation F1 {self.before:.3f} at the start, and no better after: the weights "
                "kept are those that the run started from"
            )
        return f"validation F1 {self.before:.3f} -> {self.after:.3f} at step {self.step}"


@dataclass(slots=True)
class _State:
    """Where a run is, apart from its tensors."""

    step: int = 0
    seconds: float = 0.0
    first_f1: float = -1.0
    """F1 of the first validation."""
    best_f1: float = -1.0
    best_step: int = 0
    stale: int = 0
    """Validations since the best one."""


class Trainer:
    """Trains by a recipe; everything that a resumed run needs is in its checkpoint.

    Started by ``torchrun``, the processes share each batch.

    Args:
        recipe: what to train.
        data: root of the sources' folders.
        output: folder of the checkpoint, the logs and the weights.
        device: auto takes a GPU where there is one.
        workers: processes that make pairs, for each training process.
        strict: refuse damaged files instead of skipping them.

    Raises:
        ConfigError: the recipe cannot be carried out.
        DatasetError: the data cannot be used.
    """

    def __init__(
        self, recipe: Recipe, data: Path, output: Path, *,
        device: Literal["auto", "cpu"] = "auto", workers: int = 1, strict: bool = False,
    ) -> None:  # fmt: skip
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.output = recipe, data, output
        self.workers, self.strict = workers, strict
        # Without a GPU, "auto" would start no process group on the CPU.
        self.accelerator = Accelerator(cpu=device == "cpu" or not _has_accelerator())
        _make_folder(output)
        self.tiles = load_tiles(data, recipe.sources, classes=len(recipe.planes), strict=strict)
        self.real = [RealPairs(s, data, classes=recipe.planes, strict=strict) for s in recipe.pairs]
        self.defects = [DefectPairs(source, data, strict=strict) for source in recipe.defects]
        self.validation = (
            Validation(recipe, data, strict=strict) if recipe.validation.wanted else None
        )
        self.damaged = {name for real in self.real for name in real.pairs.damaged}
        self.damaged.update(self.tiles.damaged, *(d.damaged for d in self.defects))
        if self.validation:
            self.damaged.update(self.validation.damaged)
        self.state = _State()
        self._prepare()
        self.losses = RunLog(output / "log.csv")
        self.validations = RunLog(output / "validation.csv")
        self._unlogged: list[dict[str, object]] = []
        self._clock = self._saved = time.monotonic()

    def _prepare(self) -> None:
        prepare = self.accelerator.prepare
        task = TrainingTask(self.recipe)
        task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        config = self.recipe.optimizer
        optimizer = torch.optim.AdamW(task.parameter_groups(), lr=config.learning_rate)
        self.task, self.optimizer = prepare(task, optimizer)
        self.critic, self.critic_optimizer = None, None
        if self.recipe.loss.adversarial:
            critic = Critic(self.recipe)
            adam = torch.optim.AdamW(
                critic.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
            )
            self.critic, self.critic_optimizer = prepare(critic, adam)
        self.ema = {k: v.detach().clone() for k, v in self._bare.state_dict().items()}
        self.best: dict[str, Tensor] = {}

    @property
    def _bare(self) -> TrainingTask:
        task: TrainingTask = self.accelerator.unwrap_model(self.task)
        return task

    @property
    def is_main(self) -> bool:
        """True in the process that writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def gain(self) -> Gain | None:
        """What the run did to the validation; None where there was none to compare."""
        if not self._keeps_best or self.recipe.network.initial == "random":
            return None
        return Gain(self.state.first_f1, self.state.best_f1, self.state.best_step)

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.state.step

    # One step

    def _autocast(self) -> Any:
        if self.recipe.optimizer.precision == "float32":
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16)

    def _train_step(self, parts: list[tuple[Tensor, ...]]) -> dict[str, float]:
        self.task.train()
        state = self.state
        # Dropout must not depend on where a run was interrupted.
        seeds = [self.recipe.seed, state.step, self.accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        self._begin_step()
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            for name, value in self._pass(part, index, len(parts)).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value / len(parts)
        norm = self.accelerator.clip_grad_norm_(self.task.parameters(), self.recipe.optimizer.clip)
        names = sorted(sums)
        told = torch.stack([*(sums[n] for n in names), norm.to(sums[names[0]])])
        *mean, norm = self.accelerator.reduce(told, reduction="mean").tolist()
        if not all(math.isfinite(value) for value in (*mean, norm)):
            raise DivergedError(
                f"step {state.step + 1}: a loss or a gradient is no finite number "
                f"({', '.join(f'{n} {v:.3g}' for n, v in zip(names, mean, strict=True))}); "
                "the checkpoint holds the state before; lower learning_rate or clip"
            )
        for optimizer in self._optimizers:
            optimizer.step()
        self._average()
        state.step += 1
        return dict(zip(names, mean, strict=True))

    @property
    def _optimizers(self) -> list[Any]:
        return [o for o in (self.optimizer, self.critic_optimizer) if o is not None]

    def _begin_step(self) -> None:
        config = self.recipe.optimizer
        share = config.rate(self.state.step, self.recipe.steps)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * group.get("scale", 1.0) * share
            optimizer.zero_grad(set_to_none=True)

    def _whole(self, module: Any, index: int, parts: int) -> Any:
        """Processes add up their gradients in the last part of a batch only."""
        return nullcontext() if index == parts - 1 else self.accelerator.no_sync(module)

    def _pass(self, part: tuple[Tensor, ...], index: int, parts: int) -> dict[str, Tensor]:
        """Add the gradient of one part of a batch; returns its losses."""
        device = self.accelerator.device
        before, after, change, dates = (t.to(device, non_blocking=True) for t in part)
        judge = None
        if self.critic is not None:
            # The generator learns from the critic, not the critic from the generator.
            judge = self.accelerator.unwrap_model(self.critic).judge.requires_grad_(False)
        with self._whole(self.task, index, parts):
            with self._autocast():
                losses, logits = self.task(before, after, change, dates, judge)
            self.accelerator.backward(torch.stack(list(losses.values())).sum() / parts)
        found = {name: value.detach() for name, value in losses.items()}
        if judge is not None and self.critic is not None:
            judge.requires_grad_(True)
            normal = self._bare.normal
            with self._whole(self.critic, index, parts):
                with self._autocast():
                    cost = self.critic(normal(before), normal(after), logits, change)
                self.accelerator.backward(cost / parts)
            found["judging"] = cost.detach()
        return found

    @torch.no_grad()
    def _average(self) -> None:
        # Early averages would remember the initial weights for too long.
        step = self.state.step
        decay = min(self.recipe.optimizer.ema, (1 + step) / (10 + step))
        for name, value in self._bare.state_dict().items():
            if value.dtype.is_floating_point:
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    # The run

    def run(self, *, progress: Progress | None = None, stop_after: int | None = None) -> None:
        """Train to the end of the recipe, or for ``stop_after`` more steps; saves as it goes."""
        last = self.recipe.steps if stop_after is None else self.step + stop_after
        last = min(last, self.recipe.steps)
        self._clock = time.monotonic() - self.state.seconds
        self._saved = time.monotonic()
        if self.validation and self.step == 0 and self.recipe.network.initial != "random":
            # What the run starts from is what it must beat.
            self._validate(self.validation)
        while self.step < last and not self._stalled:
            index, _ = self.recipe.stage_at(self.step)
            ends = sum(stage.steps for stage in self.recipe.stages[: index + 1])
            sampler = self._sampler(index)
            for parts in self._batches(sampler, range(self.step, min(ends, last))):
                losses = self._train_step(parts)
                self._note(losses)
                if progress:
                    progress(self.step, self.recipe.steps, losses)
                if self._stalled:
                    break
        self.save()

    @property
    def _stalled(self) -> bool:
        patience = self.recipe.validation.patience
        return bool(patience) and self.state.stale >= patience

    def _batches(self, sampler: Mixture, steps: range) -> Iterator[list[tuple[Tensor, ...]]]:
        """The parts of each step's batch."""
        process = (self.accelerator.process_index, self.accelerator.num_processes)
        stream = PairStream(sampler, self.recipe, steps, process=process)
        loader = DataLoader(
            stream, batch_size=None, num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            pin_memory=self.accelerator.device.type == "cuda",
        )  # fmt: skip
        parts = []
        for batch in loader:
            if isinstance(batch, GeocdError):  # raised in a worker
                raise batch
            *tensors, damaged = batch
            self.damaged.update(damaged)
            parts.append(tuple(tensors))
            if len(parts) == self.recipe.optimizer.accumulate:
                yield parts
                parts = []

    def _sampler(self, stage: int) -> Mixture:
        """What the pairs of a stage are drawn from."""
        samplers: list[PairSampler] = [*self.real, *self.defects]
        weights = [s.weight for s in self.recipe.pairs] + [s.weight for s in self.recipe.defects]
        if self.recipe.sources:
            tiles = self._labelled(stage)
            samplers.append(PairSynthesizer(tiles, self.recipe.sources, self.recipe.synthesis))
            weights.append(self.recipe.synthesised)
        return Mixture(samplers, weights)

    def _labelled(self, stage: int) -> list[Tile]:
        """The tiles with the labels that a stage sees."""
        labelled = [i for i in range(stage + 1) if self.recipe.stages[i].self_label]
        if not labelled:
            return self.tiles
        path = self.output / f"labels-{labelled[-1]}.safetensors"
        task = self._averaged()

        def segment(image: NDArray[np.uint8]) -> NDArray[np.float32]:
            batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
            with self._autocast():
                return task.segment(batch.to(self.accelerator.device))[0].cpu().numpy()

        with self.accelerator.main_process_first():
            return complete_labels(
                self.tiles, path, segment, self.recipe.self_label, run=self.recipe.decides()
            )

    def _note(self, losses: dict[str, float]) -> None:
        """Log a step; validate and save when it is time."""
        self.state.seconds = time.monotonic() - self._clock
        self._unlogged.append(
            {"step": self.step, "seconds": f"{self.state.seconds:.1f}"}
            | {name: f"{value:.6f}" for name, value in losses.items()}
        )
        if self.validation and (
            self.step % self.recipe.validation.every == 0 or self.step == self.recipe.steps
        ):
            self._validate(self.validation)
        # By the clock of one process: no other may wait for it here.
        if self.is_main and time.monotonic() - self._saved > _SAVE_EVERY_S:
            self._save()

    # Validation

    def _averaged(self) -> TrainingTask:
        """The task with the averaged weights, in evaluation mode."""
        task = copy.deepcopy(self._bare)
        task.load_state_dict(self.ema)
        return task.eval()

    def _validate(self, validation: Validation) -> None:
        verdict = Verdict.of_nothing(self.recipe.planes)
        if self.accelerator.is_main_process:
            verdict, _ = validation.judge(self._score(self._averaged()))
            row = {"step": self.step} | {k: f"{v:.5f}" for k, v in verdict.f1.items()}
            self.validations.add([row])
        # All processes must come to the same end.
        told = torch.tensor(verdict.mean_f1, device=self.accelerator.device)
        f1, state = float(self.accelerator.reduce(told)), self.state
        if not self.best:
            state.first_f1 = f1
        if f1 > state.best_f1:
            state.best_f1, state.best_step, state.stale = f1, self.step, 0
            self.best = {k: v.clone() for k, v in self.ema.items()}
        else:
            state.stale += 1
        log.info("step %d: validation F1 %.3f", self.step, f1)

    def _score(self, task: TrainingTask) -> Score:
        """Scores of a pair of images of any size by a task."""

        def score(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float32]:
            images = torch.from_numpy(np.stack([before, after])).permute(0, 3, 1, 2)
            a, b = task.normal(images.to(self.accelerator.device)).chunk(2)
            with torch.inference_mode(), self._autocast():
                scores = change_scores(task.network, a, b, exclusive=self.recipe.exclusive)
            return scores[0].cpu().numpy()

        return score

    def judge(self, *, worst: int = 0) -> tuple[Verdict, list[Case]] | None:
        """The verdict of the validation on the weights that would be exported, and worst pairs."""
        if self.validation is None:
            return None
        return self.validation.judge(self._score(self._kept()), worst=worst)

    @property
    def _keeps_best(self) -> bool:
        return bool(self.best) and self.recipe.validation.keep == "best"

    def _kept(self) -> TrainingTask:
        """The task with the weights that are exported."""
        task = self._averaged()
        if self._keeps_best:
            task.load_state_dict(self.best)
        return task

    # What stays

    def save(self) -> None:
        """Write the checkpoint and the log; the previous checkpoint survives a failure."""
        if self.is_main:
            self._save()
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        self._saved = time.monotonic()
        # The log first: rows beyond the checkpoint are forgotten, missing ones are lost.
        self.losses.add(self._unlogged)
        self._unlogged = []
        write_checkpoint(self.output / _CHECKPOINT, self._checkpoint())

    def _checkpoint(self) -> dict[str, Any]:
        saved = {
            "recipe": self.recipe.decides(),
            "state": dataclasses.asdict(self.state),
            "task": self._bare.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "best": self.best,
            "damaged": sorted(self.damaged),
        }
        if self.critic is not None and self.critic_optimizer is not None:
            saved["critic"] = self.accelerator.unwrap_model(self.critic).state_dict()
            saved["critic_optimizer"] = self.critic_optimizer.state_dict()
        return saved

    def export(self, *, figures: Mapping[str, Any] | None = None) -> Path:
        """Write the averaged weights with their card beside the checkpoint.

        Of a validated run these are the weights with the best validation, or the last ones if
        the recipe says so.

        Args:
            figures: of ``geocd evaluate``, for the card.
        """
        path = self.output / f"{self.recipe.name}.safetensors"
        damaged = set(gather_object(sorted(self.damaged)))
        if self.is_main:
            counts = Counter(tile.source for tile in self.tiles)
            facts = RunFacts(
                step=self.state.best_step if self._keeps_best else self.step,
                seconds=self.state.seconds, device=self.accelerator.device.type,
                processes=self.accelerator.num_processes,
                tiles=tuple(counts[i] for i in range(len(self.recipe.sources))),
                pairs=tuple(len(real.pairs) for real in self.real),
                good=tuple(len(defects.pairs) for defects in self.defects),
                hashes=tuple(sorted(self._content_hashes())),
                damaged=tuple(sorted(damaged)),
            )  # fmt: skip
            network = self._kept().network.to("cpu")
            export_weights(path, network, self.recipe, facts, validation=figures or {})
        self.accelerator.wait_for_everyone()
        return path

    def _content_hashes(self) -> set[str]:
        return self.tiles.content_hashes().union(*(real.content_hashes() for real in self.real))

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if there is one.

        Raises:
            ConfigError: the checkpoint was made by another recipe.
            DamagedWeightsError: the checkpoint is not whole.
        """
        path = self.output / _CHECKPOINT
        found = path.exists()
        if found:
            self._restore(read_checkpoint(path), path)
        if self.is_main:
            # Logs of a run that was killed before its first checkpoint are forgotten whole.
            self.losses.forget_after(self.step if found else -1)
            self.validations.forget_after(self.step if found else -1)
        self.accelerator.wait_for_everyone()
        return found

    def _restore(self, saved: dict[str, Any], path: Path) -> None:
        if saved["recipe"] != self.recipe.decides():
            raise ConfigError(
                f"{path} was made by another recipe ({_differing(saved['recipe'], self.recipe)}); "
                "train into another folder or remove it"
            )
        device = self.accelerator.device
        self._bare.load_state_dict(saved["task"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.ema = {k: v.to(device) for k, v in saved["ema"].items()}
        self.best = {k: v.to(device) for k, v in saved["best"].items()}
        self.state = _State(**saved["state"])
        self.damaged.update(saved["damaged"])
        if self.critic is not None and self.critic_optimizer is not None:
            self.accelerator.unwrap_model(self.critic).load_state_dict(saved["critic"])
            self.critic_optimizer.load_state_dict(saved["critic_optimizer"])


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {path}: {error.strerror}; give another --output"
        ) from None


def _differing(saved: str, recipe: Recipe) -> str:
    """The keys of a recipe that differ from those of a checkpoint."""
    theirs, ours = json.loads(saved), json.loads(recipe.decides())
    return ", ".join(k for k in ours if theirs.get(k) != ours[k]) or "of another version"
