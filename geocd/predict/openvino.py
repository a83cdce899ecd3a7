"""The OpenVINO backend: the fastest on processors. Runs from the cache without torch."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import geocd
from geocd.config import SCORE_SCALE, PrecisionName
from geocd.errors import BackendError, ConfigError
from geocd.models.card import WeightsCard
from geocd.models.files import read_checked
from geocd.predict import cache
from geocd.predict.halves import cut
from geocd.predict.padding import pad_to
from geocd.predict.runtime import openvino

Pairs = Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
Calibration = Callable[[WeightsCard], Pairs]
"""Gives pairs of images, each (bands, height, width), like those that the weights will see."""

_CAPABILITIES: dict[str, PrecisionName] = {
    "FP32": "float32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8",
}  # fmt: skip
_MODEL = "model.xml"
_MOST_FLIPPED = 0.005
"""Share of pixels on the other side of a threshold above which 8 bits are refused."""
_TEXT = ("convert.py", "graph.py")
_HINTS = {"float32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
FREE_UP_TO = 320
"""Largest side, in pixels, up to which one converted network serves windows of any size; beyond
it attention looks at parts of the window, and their number is fixed in the conversion."""


@lru_cache(maxsize=1)
def _core() -> Any:
    return openvino().Core()


def precisions() -> tuple[PrecisionName, ...]:
    """What this processor computes in."""
    known = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for key, name in _CAPABILITIES.items() if key in known)


def choose_precision(name: PrecisionName) -> PrecisionName:
    """What the network computes in; auto takes bf16 where the processor has it.

    Raises:
        ConfigError: this processor does not compute in it.
    """
    known = precisions()
    if name == "auto":
        return "bf16" if "bf16" in known else "float32"
    if name not in known:
        raise ConfigError(
            f"this processor does not compute in {name}; OpenVINO has {', '.join(known)} on it"
        )
    return name


def threads() -> int:
    """Processors that this process may use; OMP_NUM_THREADS, which torch heeds too, bounds it."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _code_digest() -> str:
    """Of the program text that draws the networks: other text, other conversion."""
    package = Path(geocd.__file__).parent
    digest = hashlib.sha256()
    for path in [
        *sorted((package / "models").glob("*.py")),
        *(package / "predict" / n for n in _TEXT),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Form:
    """Weights in the form in which OpenVINO gets them; equal if the conversion is."""

    path: Path = field(compare=False)
    content: bytes = field(compare=False, repr=False)
    card: WeightsCard = field(compare=False)
    quantised: bool
    calibration: Calibration | None = field(compare=False)
    traced: tuple[int, int] | None = None
    """Window (height, width) that alone it serves; None: every window up to FREE_UP_TO."""
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", cache.entry_key(self.facts))

    @property
    def facts(self) -> dict[str, Any]:
        """All that decides the conversion, JSON-ready."""
        card = self.card
        return {
            "geocd": geocd.__version__, "code": _code_digest(), "openvino": openvino().__version__,
            "tensors": card.tensors_sha256, "architecture": card.architecture,
            "width": card.width, "options": dict(card.options), "classes": card.classes,
            "exclusive": card.exclusive, "mean": card.mean, "std": card.std,
            "quantised": self.quantised, "traced": self.traced,
        }  # fmt: skip


class OpenVINOPredictor:
    """Runs weights with OpenVINO on the CPU, a window pair on each of several streams.

    Several streams of few threads beat one of many, and a window at a time stays in the caches.

    Args:
        path: weights file.
        precision: what the network computes in.
        streams: most window pairs that are worked on at once; each needs memory of its own.
        calibration: pairs for the conversion to int8.

    Raises:
        ImportError: OpenVINO is not installed.
        ConfigError: the processor lacks the precision.
        DamagedWeightsError: the tensors are not those that the card was written for.
    """

    def __init__(
        self, path: Path, *, precision: PrecisionName = "auto", streams: int = 8,
        calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        self.card, content = read_checked(path)
        self.precision = choose_precision(precision)
        self._form = _Form(path, content, self.card, self.precision == "int8", calibration)
        self._threads = threads()
        self._streams = max(1, min(streams, self._threads))
        self._lanes: dict[tuple[int, int], list[_Lane]] = {}
        self._one_call = threading.Lock()

    @property
    def description(self) -> str:
        """Backend, precision and device."""
        version = openvino().__version__.partition("-")[0]
        loss = ""
        if self.precision == "int8":
            share = _network(self._form)[1]["flipped"]
            loss = f" ({share:.2%} of the pixels of painted pairs change sides)"
        return f"OpenVINO {version}, {self.precision}{loss}, CPU with {self._threads} threads"

    def prepare(self, shape: tuple[int, int]) -> None:
        """Make ready for windows of (height, width) pixels, instead of at the first of them.

        Raises:
            BackendError: OpenVINO cannot convert, quantise or compile the network.
        """
        self._ready(shape)

    def __call__(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Levels (N, change classes, height, width), 0..254, of (N, bands, height, width)."""
        height, width = before.shape[2:]
        with self._one_call:
            lanes, stride = self._ready((height, width))
            before, after = (pad_to(images, stride) for images in (before, after))
            levels = np.empty(
                (len(before), len(self.card.change_classes), *before.shape[2:]), np.uint8
            )

            for first in range(0, len(before), len(lanes)):
                wave = slice(first, first + len(lanes))
                for index, level in enumerate(_side_by_side(lanes, before[wave], after[wave])):
                    levels[first + index] = level
        return levels[..., :height, :width]

    def _ready(self, shape: tuple[int, int]) -> tuple[list[_Lane], int]:
        """Lanes for windows of a shape, and the multiples that their sides must be of."""
        form = self._form
        if max(shape) > FREE_UP_TO:
            form = dataclasses.replace(form, traced=shape)
        stride = int(_network(form)[1]["stride"])
        padded = (shape[0] + -shape[0] % stride, shape[1] + -shape[1] % stride)
        if padded not in self._lanes:
            parts = _compile(form, padded, self.precision, self._threads, self._streams)
            # Windows of a run are of one size: lanes for another would only hold memory.
            self._lanes = {padded: [_Lane(parts) for _ in range(self._streams)]}
        return self._lanes[padded], stride


class _Lane:
    """What one window pair after another goes through: a model, or its front and its rest."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._requests = [part.create_infer_request() for part in parts]
        front, rest = self._requests[0], self._requests[-1]
        if front is not rest:
            # The front leaves its maps where the rest looks for them, behind the two images.
            for index in range(len(parts[0].outputs)):
                rest.set_input_tensor(2 + index, front.get_output_tensor(index))

    def start(self, part: int, *pair: NDArray[np.uint8]) -> None:
        """Set a part to work on one pair, (bands, H, W) each."""
        request = self._requests[part]
        for index, image in enumerate(pair):
            request.get_input_tensor(index).data[0] = image
        request.start_async()

    def finish(self, part: int) -> NDArray[np.uint8]:
        """Wait for a part; the levels (classes, H, W) if it is the last one."""
        self._requests[part].wait()
        levels: NDArray[np.uint8] = self._requests[part].get_output_tensor(0).data[0]
        return levels

    def __len__(self) -> int:
        return len(self._requests)


def _side_by_side(
    lanes: Sequence[_Lane], before: NDArray[np.uint8], after: NDArray[np.uint8]
) -> Iterator[NDArray[np.uint8]]:
    """Levels of as many pairs as there are lanes, or fewer.

    One thread drives all lanes: two threads of Python inside OpenVINO at once have locked each
    other out for good, each with one of the interpreter's lock and OpenVINO's.
    """
    busy = lanes[: len(before)]
    for lane, *pair in zip(busy, before, after, strict=True):
        lane.start(0, *pair)
    for part in range(1, len(lanes[0])):
        for lane, *pair in zip(busy, before, after, strict=True):
            lane.finish(part - 1)
            lane.start(part, *pair)
    for lane in busy:
        yield lane.finish(len(lane) - 1)


# Pairs of a set are scored one after another, each with a predictor of its own: what was read and
# compiled last is kept for the next.
@lru_cache(maxsize=2)
def _network(form: _Form) -> tuple[Any, dict[str, Any]]:
    """The network as OpenVINO has it, from the cache if it is there, and facts about it."""
    entry = cache.find_entry(form.key)
    if entry is not None:
        try:
            return _core().read_model(entry / _MODEL), cache.read_facts(entry)["network"]
        # Written whole, but not by this version; or another process has just removed it.
        except (RuntimeError, KeyError, OSError):
            shutil.rmtree(entry, ignore_errors=True)
    model, facts = _converted(form)
    ov = openvino()
    cache.store_entry(
        form.key,
        lambda folder: ov.save_model(model, folder / _MODEL, compress_to_fp16=False),
        {"network": facts, **form.facts},
    )
    return model, facts


def _converted(form: _Form) -> tuple[Any, dict[str, Any]]:
    # Loads torch, which takes seconds.
    from geocd.predict import convert

    try:
        model, facts = convert.convert(
            form.card, form.content, source=str(form.path), shape=form.traced
        )
        if form.quantised:
            if form.calibration is None:
                raise ConfigError("int8 needs pairs to calibrate with, and none were given")
            pairs = list(form.calibration(form.card))
            whole = model.clone()
            model = convert.quantise(model, pairs, precise=facts["precise"])
            facts["flipped"] = _flipped(whole, model, pairs, form.card)
    except RuntimeError as error:
        raise _refusal("convert", form.card, error) from error
    return model, facts


def _flipped(
    whole: Any, quantised: Any, pairs: Sequence[Any], card: WeightsCard
) -> float:  # fmt: skip
    """Share of the pixels of pairs that 8 bits put on the other side of a threshold.

    Raises:
        BackendError: it is more than anybody would want.
    """
    programs = [_core().compile_model(model, "CPU") for model in (whole, quantised)]
    limits = np.array(card.thresholds)[:, None, None] * SCORE_SCALE
    shares = []
    for before, after in pairs:
        sides = [program((before[None], after[None]))[0][0] >= limits for program in programs]
        shares.append(float((sides[0] != sides[1]).mean()))
    flipped = float(np.mean(shares))
    if flipped > _MOST_FLIPPED:
        raise BackendError(
            f"8 bits are not enough for {card.name}: {flipped:.1%} of the pixels that it was "
            "calibrated on change sides; try --precision auto"
        )
    return flipped


@lru_cache(maxsize=2)
def _compile(
    form: _Form, shape: tuple[int, int], precision: PrecisionName, threads: int, streams: int
) -> tuple[Any, ...]:
    model, facts = _network(form)
    model = model.clone()
    sizes = [1, len(form.card.bands), *shape]
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # A lane's window may be on either of its models: pinned, two lanes would share a core.
        "ENABLE_CPU_PINNING": False,
    }
    half = _HINTS[precision]
    try:
        model.reshape({0: sizes, 1: sizes})
        parts = [(model, half)]
        if precision in ("bf16", "fp16") and facts["precise"]:
            front, rest = cut(model, facts["precise"])
            parts = [(front, "f32"), (rest, half)]
        return tuple(
            _core().compile_model(part, "CPU", {**settings, "INFERENCE_PRECISION_HINT": hint})
            for part, hint in parts
        )
    except RuntimeError as error:
        raise _refusal("compile", form.card, error) from error


def _refusal(what: str, card: WeightsCard, error: RuntimeError) -> BackendError:
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no reason given"
    return BackendError(
        f"OpenVINO cannot {what} the network of {card.name} ({reason}); try --backend torch"
    )
