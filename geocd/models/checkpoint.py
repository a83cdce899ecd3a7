"""Weights files: safetensors with their card inside. A pickle is never executed."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from geocd.errors import (
    DamagedWeightsError,
    PickleRefusedError,
    WeightsError,
)
from geocd.models.card import NONE, WeightsCard
from geocd.models.files import CARD_KEY, find_weights, read_checked, tensors_sha256
from geocd.models.network import ChangeNetwork
from geocd.models.registry import build_model
from geocd.outputs import check_writable, replacing


@dataclass(frozen=True, slots=True)
class Weights:
    """A network with its weights and their card, in evaluation mode on the CPU."""

    network: ChangeNetwork
    card: WeightsCard


def load_weights(name: str) -> Weights:
    """A network with weights given by bundled name or by path, checked against their card.

    Raises:
        UnknownWeightsError: neither a bundled name nor a file.
        DamagedWeightsError: the tensors are not those that the card was written for.
        WeightsError: the tensors do not fit the architecture.
    """
    path = find_weights(name)
    card, content = read_checked(path)
    return read_network(card, content, source=str(path))


def read_network(card: WeightsCard, content: bytes, *, source: str) -> Weights:
    """The network of a weights file that ``read_checked`` read.

    Args:
        card: of the file.
        content: of the whole file.
        source: its name, for people.

    Raises:
        WeightsError: the tensors do not fit the architecture.
    """
    network = build_model(
        card.architecture,
        bands=len(card.bands),
        classes=len(card.classes),
        width=card.width,
        options=card.options,
    )
    _load_state(network, load(content), source)
    return Weights(network.eval(), card)


def _load_state(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    state = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{source} does not fit the network: {error}") from None
    # Counters of seen batches matter to training only; old checkpoints lack them.
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"{source} does not fit the network: "
            f"{len(missing)} tensors missing ({', '.join(missing[:3])}...), "
            f"{len(unexpected)} not known ({', '.join(unexpected[:3])}...)"
        )


def _fits_half(value: Tensor) -> bool:
    """True for matrices: variances of batch norm can exceed what 16 bits hold."""
    return value.is_floating_point() and value.ndim > 1


def save_weights(
    path: Path,
    network: nn.Module,
    card: WeightsCard,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> WeightsCard:
    """Write a network's weights with their card; atomic. Returns the card with its hash.

    Args:
        path: ends in ``.safetensors``.
        network: its state is written, without the counters of batch norm.
        card: its hash is replaced.
        half: store matrices in 16 bits.
        overwrite: replace an existing file.

    Raises:
        OutputExistsError: the file exists and ``overwrite`` is false.
    """
    check_writable(path, overwrite=overwrite)
    tensors = {
        name: (value.half() if half and _fits_half(value) else value).cpu().contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    broken = [n for n, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{len(broken)} tensors hold numbers that are not finite, {broken[0]} for one; "
            "the weights are not written"
        )
    card = dataclasses.replace(card, tensors_sha256=tensors_sha256(save(tensors)))
    with replacing(path) as temporary:
        # save_file would give the file the mode 0600.
        temporary.write_bytes(save(tensors, metadata={CARD_KEY: card.to_json()}))
    return card


def _read_foreign(path: Path) -> dict[str, Tensor]:
    """The state dictionary of a checkpoint of another program."""
    if not path.is_file():
        raise WeightsError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise DamagedWeightsError(f"{path} is damaged ({error}); fetch it again") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise DamagedWeightsError(f"{path} is damaged or no checkpoint ({error})") from None
        raise PickleRefusedError(
            f"{path} holds more than tensors (a whole module, most likely), and reading it would "
            "execute code from the file; in the program that made it, save only the state: "
            "torch.save(model.state_dict(), 'state.pth'), then import that file"
        ) from None
    except Exception as error:  # what a damaged pickle raises is anybody's guess
        raise DamagedWeightsError(f"{path} is damaged or no checkpoint ({error})") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not any(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"{path} holds no state dictionary")
    tensors = {k: v for k, v in loaded.items() if isinstance(v, Tensor)}
    return {k.removeprefix("module."): v for k, v in tensors.items()}


@dataclass(frozen=True, slots=True)
class _Anatomy:
    """What the names and shapes of a checkpoint's tensors tell of its network."""

    architecture: str
    width: int
    bands: int
    classes: int
    options: Mapping[str, str]

    def build(self) -> ChangeNetwork:
        return build_model(
            self.architecture,
            bands=self.bands,
            classes=self.classes,
            width=self.width,
            options=self.options,
        )


def _recognise(tensors: Mapping[str, Tensor], source: Path) -> _Anatomy:
    first, final = tensors.get("conv0_0.conv1.weight"), tensors.get("conv_final.weight")
    if first is None or final is None or first.ndim != 4 or final.ndim != 4:
        raise WeightsError(
            f"{source}: the tensors are those of no network that geocd knows how to import "
            "(SNUNet-CD with ECAM, Siam-NestedUNet with concatenation); "
            f"found for example {', '.join(list(tensors)[:3])}"
        )
    # Bilinear upsampling has no tensors; transposed convolutions are called Up{i}_{j}.up.
    learnt = any(name.startswith("Up") for name in tensors)
    return _Anatomy(
        architecture="snunet" if "ca.fc1.weight" in tensors else "siam-nested-unet",
        width=first.shape[0],
        bands=first.shape[1],
        classes=final.shape[0],
        options={} if learnt else {"upsampling": "bilinear"},
    )


def import_checkpoint(
    source: Path,
    target: Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    gsd: tuple[float, float] | None = None,
    threshold: float = 0.5,
    overwrite: bool = False,
) -> WeightsCard:
    """Convert a published checkpoint to a weights file with a card.

    Args:
        source: a state dictionary (``.pth`` or ``.safetensors``), with or without a ``module.``
            prefix or a wrapping ``state_dict`` key.
        target: the weights file to write.
        name: name for the card; default: the target's name.
        classes: names of the outputs; default for two: none, change.
        mean: subtracted from each band on the scale 0..255; default 0, as published.
        std: divisor of each band on the scale 0..255; default 1, as published.
        gsd: range of ground sample distances in metres; default: any.
        threshold: least score of a change.
        overwrite: replace an existing target.

    Raises:
        PickleRefusedError: reading the source would execute code.
        DamagedWeightsError: the source cannot be read.
        WeightsError: the tensors fit no network that is known.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"weights are written as .safetensors, not {target.suffix!r}: {target}")
    tensors = _read_foreign(source)
    found = _recognise(tensors, source)
    if classes is None:
        if found.classes > 2:
            raise WeightsError(f"{source} has {found.classes} outputs; name them with --classes")
        classes = ("change",) if found.classes == 1 else (NONE, "change")
    if len(classes) != found.classes:
        raise WeightsError(
            f"{source} has {found.classes} outputs, but {len(classes)} names are given"
        )
    exclusive = classes[0] == NONE
    network = found.build()
    _load_state(network, tensors, str(source))
    known = ("red", "green", "blue")
    bands = known if found.bands == 3 else tuple(f"band {i + 1}" for i in range(found.bands))
    card = WeightsCard(
        name=name or target.stem,
        architecture=found.architecture,
        width=found.width,
        options=found.options,
        classes=tuple(classes),
        exclusive=exclusive,
        thresholds=(threshold,) * (found.classes - exclusive),
        bands=bands,
        mean=tuple(mean or (0.0,) * found.bands),
        std=tuple(std or (1.0,) * found.bands),
        gsd=gsd,
        summary=f"imported from {source.name}",
        training={"imported_from": source.name},
        terms="those of the imported checkpoint",
    )
    return save_weights(target, network, card, overwrite=overwrite)
