"""Networks, their weights and the cards that travel with the weights.

Names are loaded when they are first used: cards can be read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Weights": "geocd.models.checkpoint",
    "WeightsCard": "geocd.models.card",
    "build_model": "geocd.models.registry",
    "bundled_weights": "geocd.models.files",
    "import_checkpoint": "geocd.models.checkpoint",
    "known_models": "geocd.models.registry",
    "load_weights": "geocd.models.checkpoint",
    "read_card": "geocd.models.files",
    "save_weights": "geocd.models.checkpoint",
}

__all__ = [
    "Weights",
    "WeightsCard",
    "build_model",
    "bundled_weights",
    "import_checkpoint",
    "known_models",
    "load_weights",
    "read_card",
    "save_weights",
]

if TYPE_CHECKING:
    from geocd.models.card import WeightsCard
    from geocd.models.checkpoint import Weights, import_checkpoint, load_weights, save_weights
    from geocd.models.files import bundled_weights, read_card
    from geocd.models.registry import build_model, known_models


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geocd.models' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
