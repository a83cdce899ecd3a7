"""Painted circuit boards: a golden one, and pictures of others with known defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.errors import ShapeError

Gray = NDArray[np.uint8]
DefectName = Literal["open", "spot", "hole", "scratch"]
DEFECTS: tuple[DefectName, ...] = get_args(DefectName)

_BARE, _COPPER = 235, 20
_PITCH = 32
"""Distance of the pads, in pixels."""
_WIDTH = 5
"""Width of a trace, in pixels."""
_PAD, _HOLE = 10, 5
"""Radii of pads and of their holes, in pixels."""


_LEAST = 60
"""Pixels that a defect must change, so that it is one."""


@dataclass(frozen=True, slots=True)
class Board:
    """A board as it is, without a camera.

    Attributes:
        image: grey values, shape (height, width), uint8.
        pads: centres (x, y).
        traces: both ends of each, (x, y).
        truth: where it differs from the board that was meant, shape (height, width).
    """

    image: Gray
    pads: tuple[tuple[int, int], ...]
    traces: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    truth: NDArray[np.bool_]

    def with_defects(self, names: Sequence[DefectName], *, seed: int) -> Board:
        """A board with so many things wrong, no two at one place.

        Args:
            names: what goes wrong, from ``DEFECTS``.
            seed: decides where.

        Raises:
            ShapeError: the board is too small for so many.
        """
        rng = np.random.default_rng(seed)
        image, truth = self.image.copy(), self.truth.copy()
        for name in names:
            for _ in range(200):
                tried = _spoil(self, image, name, rng)
                wrong = np.abs(tried.astype(int) - image) > 60
                if wrong.sum() > _LEAST and not (_grown(wrong) & truth).any():
                    image, truth = tried, truth | wrong
                    break
            else:
                raise ShapeError(
                    f"there is no room for a defect of the kind {name}; use a larger board"
                )
        return Board(image, self.pads, self.traces, truth)


def paint_board(shape: tuple[int, int] = (256, 256), *, seed: int = 0) -> Board:
    """A bare board: pads with holes, and traces between them.

    Args:
        shape: (height, width), in pixels.
        seed: the same seed and shape give the same board.
    """
    rng = np.random.default_rng(seed)
    rows, cols = (side // _PITCH for side in shape)
    place = {
        (r, c): (_PITCH // 2 + c * _PITCH + int(rng.integers(-3, 4)),
                 _PITCH // 2 + r * _PITCH + int(rng.integers(-3, 4)))
        for r in range(rows) for c in range(cols) if rng.random() < 0.7
    }  # fmt: skip
    traces = []
    for (r, c), here in place.items():
        for step in ((0, 1), (1, 0), (1, 1)):
            there = place.get((r + step[0], c + step[1]))
            if there is not None and rng.random() < 0.4:
                traces.append((here, there))
    image = np.full(shape, _BARE, np.uint8)
    for here, there in traces:
        cv2.line(image, here, there, _COPPER, _WIDTH, cv2.LINE_AA)
    for pad in place.values():
        cv2.circle(image, pad, _PAD, _COPPER, -1, cv2.LINE_AA)
    for pad in place.values():
        cv2.circle(image, pad, _HOLE, _BARE, -1, cv2.LINE_AA)
    return Board(image, tuple(place.values()), tuple(traces), np.zeros(shape, np.bool_))


def _spoil(board: Board, image: Gray, name: DefectName, rng: np.random.Generator) -> Gray:
    """The image with one thing wrong, at a place that chance decides."""
    out = image.copy()
    height, width = image.shape
    # Well inside: a picture that is moved must still show it.
    spot = (int(rng.integers(20, width - 20)), int(rng.integers(20, height - 20)))
    if name == "hole":
        pads = [p for p in board.pads if 20 <= p[0] < width - 20 and 20 <= p[1] < height - 20]
        cv2.circle(out, pads[int(rng.integers(len(pads)))], _HOLE + 1, _COPPER, -1, cv2.LINE_AA)
    elif name == "open":
        ends = np.array(board.traces[int(rng.integers(len(board.traces)))])
        middle = tuple(ends.mean(axis=0).round().astype(int).tolist())
        if min(middle) >= 20 and middle[0] < width - 20 and middle[1] < height - 20:
            cv2.circle(out, middle, 6, _BARE, -1, cv2.LINE_AA)
    elif name == "spot":
        cv2.circle(out, spot, 6, _COPPER, -1, cv2.LINE_AA)
    else:
        turn = rng.uniform(0, np.pi)
        away = (np.array([np.cos(turn), np.sin(turn)]) * 14).round().astype(int)
        first, last = ((np.array(spot) + s * away).tolist() for s in (-1, 1))
        cv2.line(out, first, last, _BARE, 5, cv2.LINE_AA)
    return out


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0)


def photograph(
    image: Gray, *, shift: tuple[float, float] = (0.0, 0.0), turn: float = 0.0, gain: float = 1.0,
    offset: float = 0.0, noise: float = 0.0, blur: float = 0.0, seed: int = 0,
) -> Gray:  # fmt: skip
    """A board as a camera takes it.

    Args:
        image: the board, shape (height, width).
        shift: (row, col), in pixels; what lies in the middle moves by that.
        turn: degrees, counter-clockwise.
        gain: contrast.
        offset: grey levels.
        noise: standard deviation, in grey levels.
        blur: standard deviation, in pixels.
        seed: of the noise.
    """
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1.0)
    matrix[:, 2] += np.array([shift[1], shift[0]])
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC,
                           borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    values = np.asarray(moved, np.float32)
    if blur > 0:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), blur), np.float32)
    values = values * gain + offset
    if noise > 0:
        values += np.random.default_rng(seed).normal(0, noise, values.shape).astype(np.float32)
    return np.asarray(np.rint(values.clip(0, 255)), np.uint8)


def paint_inspection(folder: Path, *, seed: int = 0, side: int = 640) -> dict[str, str]:
    """A golden board and samples of it as files, and what is true of each.

    Writes ``golden.png`` and ``samples/``.

    Args:
        folder: created if need be.
        seed: the same seed gives the same boards.
        side: of the pictures, in pixels.

    Returns:
        The verdict that each file of ``samples/`` deserves, by its name.
    """
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    board = paint_board((side, side), seed=seed)
    good = board.image
    bad = [board.with_defects(names, seed=seed + n) for n, names in
           enumerate((DEFECTS, ("scratch",), ("hole",)), 1)]  # fmt: skip
    pictures = {
        "1_good.png": (photograph(good, shift=(3, -4), turn=0.4, gain=0.9, noise=5), "pass"),
        "2_good.png": (photograph(good, shift=(-2, 1), turn=-0.5, offset=12, noise=4), "pass"),
        "3_four_defects.png": (photograph(bad[0].image, shift=(2, 5), noise=5), "reject"),
        "4_scratched.png": (photograph(bad[1].image, turn=0.3, noise=5), "reject"),
        "5_hole_missing.png": (photograph(bad[2].image, shift=(-4, 2), gain=0.85), "reject"),
        "6_blurred.png": (photograph(good, blur=1.8), "cannot judge"),
        "7_other_board.png": (paint_board((side, side), seed=seed + 1).image, "cannot judge"),
    }
    for path, image in [
        (folder / "golden.png", good),
        *((samples / name, image) for name, (image, _) in pictures.items()),
    ]:
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    cut = (samples / "3_four_defects.png").read_bytes()
    (samples / "8_cut_short.png").write_bytes(cut[: len(cut) // 2])
    return {name: word for name, (_, word) in pictures.items()} | {
        "8_cut_short.png": "cannot judge"
    }
