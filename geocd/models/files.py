"""Weights files as bytes: found, checked and described without torch, which is slow to load."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors

from geocd.errors import DamagedWeightsError, UnknownWeightsError, WeightsError
from geocd.models.card import WeightsCard

CARD_KEY = "geocd.card"
_BUNDLED = Path(__file__).parent / "weights"
_FOREIGN = {".pt", ".pth", ".ckpt", ".bin", ".tar"}
_TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip


def bundled_weights() -> list[str]:
    """Names of the weights that come with geocd, sorted."""
    return sorted(p.stem for p in _BUNDLED.glob("*.safetensors"))


def find_weights(name: str) -> Path:
    """The file of bundled weights, or of weights given by their path.

    Raises:
        UnknownWeightsError: neither a bundled name nor a file.
        WeightsError: a checkpoint of another program, which must be imported first.
    """
    if name in bundled_weights():
        return _BUNDLED / f"{name}.safetensors"
    path = Path(name)
    if not path.is_file():
        raise UnknownWeightsError(
            f"no weights called {name!r} and no file of that name; "
            f"bundled are {', '.join(bundled_weights()) or 'none'}"
        )
    if path.suffix.lower() in _FOREIGN:
        raise WeightsError(
            f"{path} is a PyTorch checkpoint; convert it first: "
            f"geocd models import {path} -o {path.with_suffix('.safetensors').name}"
        )
    return path


def tensors_sha256(content: bytes) -> str:
    """SHA-256 of the tensors of a weights file: their names, types, shapes and bytes.

    Args:
        content: of the whole file.
    """
    digest = hashlib.sha256()
    tensors = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    for name, tensor in sorted(tensors, key=lambda entry: str(entry[0])):
        kind = _TORCH_NAMES.get(tensor["dtype"], tensor["dtype"])
        digest.update(f"{name} torch.{kind} {tuple(tensor['shape'])}".encode())
        digest.update(tensor["data"])
    return digest.hexdigest()


def read_card(path: Path) -> WeightsCard:
    """The card of a weights file, without its tensors.

    Raises:
        DamagedWeightsError: no safetensors file, or one without a card.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(CARD_KEY)
    except (safetensors.SafetensorError, OSError) as error:
        raise DamagedWeightsError(
            f"{path} is damaged or no weights file ({error}); fetch it again"
        ) from None
    if text is None:
        raise DamagedWeightsError(
            f"{path} has no geocd card; convert it with: geocd models import {path} -o OUT"
        )
    return WeightsCard.from_json(text)


def read_checked(path: Path) -> tuple[WeightsCard, bytes]:
    """The card and the content of a weights file, checked against each other.

    Raises:
        DamagedWeightsError: the tensors are not those that the card was written for.
    """
    card, content = read_card(path), path.read_bytes()
    if tensors_sha256(content) != card.tensors_sha256:
        raise DamagedWeightsError(f"{path}: the tensors do not match the card; fetch it again")
    return card, content
