"""A stand-in for a network, so that the answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from geocd.models.files import find_weights, read_card


class Arithmetic:
    """Stands in for a network: building where after is brighter by 60, road where darker."""

    def __init__(self, weights):
        self.card = weights.card
        self.calls = 0

    description = "arithmetic"

    def __call__(self, before, after):
        self.calls += 1
        step = after.mean(axis=1, dtype=np.float32) - before.mean(axis=1, dtype=np.float32)
        return np.stack([step > 60, step < -60], axis=1) * np.uint8(254)


def open_arithmetic(weights, *, window, config, calibration):
    return Arithmetic(SimpleNamespace(card=read_card(find_weights(weights))))
