"""Networks, their weights and the cards that travel with the weights."""

from geocd.models.card import WeightsCard
from geocd.models.checkpoint import (
    Weights,
    bundled_weights,
    import_checkpoint,
    load_weights,
    read_card,
    save_weights,
)
from geocd.models.registry import build_model, known_models

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
