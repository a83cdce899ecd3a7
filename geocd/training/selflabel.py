"""Labels that the network in training gives to tiles where people gave none.

A source that labels only roads says nothing of its buildings, and a street map misses some. Half
way through training the head that segments single dates knows both better than nothing: where it
is sure, unknown pixels take its word; where it firmly contradicts a label, nobody is believed.

Source:
    Lee (2013), pseudo-label, ICML workshop on challenges in representation learning;
    Xie et al. (2020), noisy student, doi 10.1109/CVPR42600.2020.01070.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from geocd.outputs import replacing
from geocd.training.recipe import SelfLabelConfig
from geocd.training.tiles import IGNORE, Tile

Labels = NDArray[np.uint8]
Scores = NDArray[np.float32]
Segment = Callable[[NDArray[np.uint8]], Scores]
"""From RGB (height, width, 3) to scores (classes, height, width), 0..1; sides multiples of 16."""

_STRIDE = 16


def believe(labels: Labels, scores: Scores, config: SelfLabelConfig) -> Labels:
    """Labels completed and doubted by the scores of a segmentation.

    Args:
        labels: shape (classes, height, width), uint8: 0, 1 or ``IGNORE``.
        scores: same shape, 0..1.
        config: how sure the scores must be.
    """
    out = labels.copy()
    unknown = labels == IGNORE
    out[unknown & (scores >= config.present)] = 1
    out[unknown & (scores <= config.absent)] = 0
    out[(labels == 1) & (scores <= config.doubt)] = IGNORE
    out[(labels == 0) & (scores >= 1 - config.doubt)] = IGNORE
    return out


def tile_scores(tile: Tile, segment: Segment, config: SelfLabelConfig) -> Scores:
    """Scores of a tile: the mean over the scales and flips at which it is read."""
    height, width = tile.image.shape[:2]
    total = np.zeros(tile.labels.shape, np.float32)
    readings = 0
    for gsd in config.gsd:
        zoom = float(np.clip(tile.gsd / gsd, 0.5, 1.5))
        size = (round(width * zoom), round(height * zoom))
        kernel = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(tile.image, size, interpolation=kernel), np.uint8)
        for flip in (slice(None), slice(None, None, -1)):
            scores = _padded(image[:, flip], segment)[:, :, flip]
            for plane, score in zip(total, scores, strict=True):
                plane += cv2.resize(score, (width, height), interpolation=cv2.INTER_LINEAR)
            readings += 1
    return np.asarray(total / readings, np.float32)


def _padded(image: NDArray[np.uint8], segment: Segment) -> Scores:
    height, width = image.shape[:2]
    pad = ((0, -height % _STRIDE), (0, -width % _STRIDE), (0, 0))
    return segment(np.pad(image, pad, mode="symmetric"))[:, :height, :width]


def complete_labels(
    tiles: Sequence[Tile], path: Path, segment: Segment, config: SelfLabelConfig, *, run: str
) -> list[Tile]:
    """The tiles with labels completed by a segmentation, which a file keeps.

    Args:
        tiles: with the labels that people gave.
        path: safetensors file of completed labels; it is read where it exists, else written.
        segment: tells what stands on an image.
        config: how sure the segmentation must be.
        run: what the labels depend on; a file of another run is written anew.
    """
    key = {"run": hashlib.sha256(run.encode()).hexdigest()}
    if not path.exists() or _written_by(path) != key:
        made = {t.name: believe(t.labels, tile_scores(t, segment, config), config) for t in tiles}
        with replacing(path) as temporary:
            save_file(made, temporary, metadata=key)
    labels = load_file(path)
    return [dataclasses.replace(tile, labels=labels[tile.name]) for tile in tiles]


def _written_by(path: Path) -> dict[str, str] | None:
    with safe_open(path, framework="np") as file:
        metadata: dict[str, str] | None = file.metadata()
    return metadata
