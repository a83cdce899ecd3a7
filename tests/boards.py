"""A stand-in for the network of an inspection, and small painted boards."""

from __future__ import annotations

import cv2
import numpy as np

from geocd.inspect import Inspector
from geocd.models.files import find_weights, read_card
from geocd.testing.boards import paint_board, photograph

SHAPE = (256, 256)
BOARD = paint_board(SHAPE, seed=3)
GOLDEN = BOARD.image


class Difference:
    """Stands in for a network: a defect where grey values differ by 100 over 3 x 3 pixels."""

    description = "difference"

    def __init__(self, blind=False):
        self.card = read_card(find_weights("pcb"))
        self.blind, self.calls = blind, 0

    def __call__(self, before, after):
        self.calls += 1
        out = []
        for a, b in zip(before, after, strict=True):
            apart = np.abs(a.mean(axis=0, dtype=np.float32) - b.mean(axis=0, dtype=np.float32))
            far = (apart > 100).astype(np.uint8) * (not self.blind)
            out.append(cv2.morphologyEx(far, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) * 254)
        return np.stack(out)[:, None]


def inspector(goldens=(GOLDEN,), *, blind=False, config=None, zones=()):
    return Inspector(list(goldens), Difference(blind), config=config, zones=zones)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def good(**how):
    return photograph(GOLDEN, **how)


def bad(names=("spot",), *, seed=1, **how):
    return photograph(BOARD.with_defects(names, seed=seed).image, **how)
