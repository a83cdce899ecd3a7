"""How much memory a run needs, and the batch that fits into what it may have."""

from __future__ import annotations

import itertools

from geocd.config import DetectConfig
from geocd.errors import ConfigError
from geocd.models.card import WeightsCard
from geocd.predict.flow import READ_WIDTH, STRIPE
from geocd.tiling.windows import starts

_MIB = 2**20
# Measured as peak resident memory, and rounded up: libraries with their code, blocks that GDAL
# keeps, and a band of rows while polygons are traced.
_PROGRAM = {"openvino": 330 * _MIB, "torch": 540 * _MIB}
_FIXED = 250 * _MIB
_WRITTEN_ROWS = 256
"""Rows that are held until a block of the file is full."""
_BYTES_PER_CHANNEL = {"siam-nested-lite": 30}
_BYTES_PER_CHANNEL_ELSE = 160
"""Bytes for each pixel of a window and each unit of the network's width, in float32."""


def memory_needed(shape: tuple[int, int], card: WeightsCard, config: DetectConfig) -> int:
    """Bytes that a run needs at most on a reading grid of (height, width).

    They grow with the tile, with the batch and, up to a stripe of columns, with the width.
    """
    tile_h, tile_w = (min(config.tiling.tile_size, side) for side in shape)
    tops = starts(shape[0], config.tiling.tile_size, config.tiling.overlap)
    rows = max((b - a for a, b in itertools.pairwise(tops)), default=tile_h)
    shared = tile_h - min((b - a for a, b in itertools.pairwise(tops)), default=tile_h)
    classes, planes = len(card.change_classes), 2 * len(card.bands) + 2
    by_width = (
        planes * shared  # rows of both dates that two strips share
        + 3 * rows  # what of a strip was observed: in the queues, and at work
        + classes * (4 * shared + 2 * rows)  # the stitcher
        + (classes + 1) * _WRITTEN_ROWS
        + rows  # the writers
    )
    pieces = 8 * planes * tile_h * max(READ_WIDTH, tile_w)
    channel = _BYTES_PER_CHANNEL.get(card.architecture, _BYTES_PER_CHANNEL_ELSE)
    network = config.predict.batch_size * channel * card.width * tile_h * tile_w
    if config.predict.first_look:
        network += network // 4
    torch = config.predict.backend == "torch" or config.predict.device in ("cuda", "mps")
    program = _PROGRAM["torch" if torch else "openvino"] + _FIXED
    return program + by_width * min(shape[1], STRIPE + 2 * tile_w) + pieces + network


def fit_batch(shape: tuple[int, int], card: WeightsCard, config: DetectConfig) -> int:
    """The largest batch, up to the configured one, with which a run keeps to its memory.

    Raises:
        ConfigError: even a single window at a time does not fit.
    """
    limit = config.predict.memory
    if limit is None:
        return config.predict.batch_size
    one = memory_needed(shape, card, config.with_batch(1))
    if one > limit:
        raise ConfigError(
            f"a run with windows of {config.tiling.tile_size} pixels on a raster {shape[1]} pixels "
            f"wide needs about {one / _MIB:.0f} MiB, and memory is bounded to {limit / _MIB:.0f}; "
            "allow more, take a smaller tile size, or cut the raster into parts"
        )
    each = memory_needed(shape, card, config.with_batch(2)) - one
    return min(config.predict.batch_size, 1 + (limit - one) // each)
