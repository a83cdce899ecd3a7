"""Tiny labelled pairs as picture files."""

from __future__ import annotations

import numpy as np
from PIL import Image


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def picture(seed, shape=(24, 32)):
    return np.random.default_rng(seed).integers(1, 200, (*shape, 3)).astype(np.uint8)


def block_label(shape=(24, 32), value=255):
    label = np.zeros(shape, np.uint8)
    label[4:10, 6:14] = value
    return label


def triple(folder, stem, *, seed, names=("A", "B", "label"), ext=".png", shape=(24, 32)):
    save(folder / names[0] / f"{stem}{ext}", picture(2 * seed, shape))
    save(folder / names[1] / f"{stem}{ext}", picture(2 * seed + 1, shape))
    save(folder / names[2] / f"{stem}.png", block_label(shape))
