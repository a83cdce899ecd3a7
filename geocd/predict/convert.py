"""Weights to OpenVINO, and to 8 bits; loads torch, and runs once per machine."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geocd.errors import ConfigError
from geocd.models.card import WeightsCard
from geocd.models.checkpoint import read_network
from geocd.predict import runtime
from geocd.predict.graph import ScoreGraph
from geocd.predict.padding import pad_to

_SIDE = 64
"""Side of the window with which a network that serves windows of several sizes is traced."""


def convert(
    card: WeightsCard, content: bytes, *, source: str, shape: tuple[int, int] | None
) -> tuple[Any, dict[str, Any]]:
    """An OpenVINO model from bytes to bytes, and what its user must know, JSON-ready.

    That is ``stride``, the multiples that its windows must be of, and ``precise``, how names of
    the nodes begin that stay in float32.

    Args:
        card: of the weights.
        content: of the weights file.
        source: its name, for people.
        shape: (height, width) of the windows; None: any up to ``openvino.FREE_UP_TO``.

    Raises:
        WeightsError: the tensors do not fit the architecture.
        RuntimeError: OpenVINO cannot convert the network.
    """
    weights = read_network(card, content, source=source)
    stride = weights.network.stride
    blank = np.zeros((1, len(card.bands), *(shape or (_SIDE, _SIDE))), np.uint8)
    example = torch.from_numpy(pad_to(blank, stride))
    with warnings.catch_warnings():
        # Tracing takes the size of the window for a constant, which is what is wanted here.
        warnings.simplefilter("ignore")
        model = runtime.converter()(ScoreGraph(weights), example_input=(example, example))
    precise = [f"__module.network.{name}" for name in weights.network.precise]
    return model, {"stride": stride, "precise": precise}


def quantise(
    model: Any,
    pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    *,
    precise: Sequence[str] = (),
) -> Any:
    """The model with weights and activations of 8 bits, their ranges measured on pairs.

    Args:
        model: from ``convert``.
        pairs: images (bands, height, width), the more alike to what will be seen the better.
        precise: how names of the nodes begin that keep their precision.

    Raises:
        ConfigError: NNCF is not installed.

    Source:
        Jacob et al. (2018), integer-arithmetic-only inference, doi 10.1109/CVPR.2018.00286.
    """
    try:
        nncf = runtime.nncf()
    except ImportError as error:
        raise ConfigError(
            f"int8 needs NNCF, which cannot be imported ({error}); install it with: "
            "pip install 'geocd[int8]'"
        ) from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    samples = [(before[None], after[None]) for before, after in pairs]
    spared = nncf.IgnoredScope(patterns=[f"{re.escape(p)}[./].*" for p in precise], validate=False)
    return nncf.quantize(
        model, nncf.Dataset(samples), preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples), ignored_scope=spared,
    )  # fmt: skip
