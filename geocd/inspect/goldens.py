"""The golden pictures: checked, brought to one grid, and everything made that is made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.errors import ConfigError, GeocdError, InputError
from geocd.inspect.frame import Frame, as_frame, read_frame
from geocd.inspect.quality import Quality
from geocd.inspect.register import Register

Picture = str | Path | NDArray[Any]
Planes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def open_frame(picture: Picture, *, white: int) -> Frame:
    """A picture from a file or an array; see ``geocd.inspect.frame``."""
    if isinstance(picture, str | Path):
        return read_frame(picture, white=white)
    return as_frame(picture, white=white)


def open_goldens(pictures: Sequence[Picture], *, white: int) -> list[Frame]:
    """The goldens as they are.

    Raises:
        ConfigError: there is none.
        InputError: one cannot be read, or they differ in size or in colour.
    """
    if not pictures:
        raise ConfigError("inspection needs a golden picture; name one with --golden")
    frames = []
    for number, picture in enumerate(pictures):
        name = str(picture) if isinstance(picture, str | Path) else f"number {number + 1}"
        try:
            frames.append(open_frame(picture, white=white))
        except GeocdError as error:
            raise InputError(f"the golden {name} cannot be used: {error}") from None
        if frames[-1].planes.shape != frames[0].planes.shape:
            first, other = (_describe(frame) for frame in (frames[0], frames[-1]))
            raise InputError(
                f"goldens must be pictures of one kind: the first is {first}, {name} is {other}"
            )
    return frames


def _describe(frame: Frame) -> str:
    height, width = frame.shape
    return f"{width} x {height} in {'colour' if frame.is_colour else 'grey'}"


class Goldens:
    """Goldens on the grid of the first.

    Args:
        frames: of one size.
        excluded: pixels of the first that are not looked at, shape (height, width).
        max_shift: largest shift that is looked for, in pixels.

    Raises:
        InputError: the first has too few edges, or another does not show the same part.
    """

    def __init__(self, frames: Sequence[Frame], excluded: Mask, *, max_shift: float) -> None:
        first, *others = frames
        usable = ~excluded
        self.register = Register(first.gray, usable=usable, max_shift=max_shift)
        self.planes = [first.planes]
        self.seen = [np.ones(first.shape, np.bool_)]
        for number, frame in enumerate(others, 2):
            found = self.register(frame.gray)
            if not found.proven:
                raise InputError(
                    f"golden {number} cannot be brought to the first ({found.reason}); goldens "
                    "must show the same part, so inspect others on their own"
                )
            planes, seen = brought(frame.planes, found.motion, first.shape)
            # Where it shows nothing, it is as the first: nothing is excused there.
            self.planes.append(np.where(seen, planes, first.planes))
            self.seen.append(seen)
        self.quality = [Quality(Frame(planes).gray, usable) for planes in self.planes]

    def __len__(self) -> int:
        return len(self.planes)

    def nearest(self, aligned: Frame, seen: Mask) -> int:
        """Number of the golden that a sample differs least from; see ``Quality.distance``."""
        if len(self) == 1:
            return 0
        gray = aligned.gray
        return min(range(len(self)), key=lambda n: self.quality[n].distance(gray, seen))


def brought(planes: Planes, motion: Affine, shape: tuple[int, int]) -> tuple[Planes, Mask]:
    """A picture on the golden's grid, resampled once, and where it shows the golden.

    Args:
        planes: shape (bands, height, width).
        motion: from (col, row) of the golden to the picture; integers are corners of pixels.
        shape: (height, width) of the golden.
    """
    array = Affine.translation(-0.5, -0.5) @ motion @ Affine.translation(0.5, 0.5)
    matrix = np.array(array[:6], np.float64).reshape(2, 3)
    size = (shape[1], shape[0])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved = [
        cv2.warpAffine(plane, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        for plane in planes
    ]
    height, width = planes.shape[1:]
    x, y = np.arange(shape[1]), np.arange(shape[0])[:, None]
    places = (array.a * x + array.b * y + array.c, array.d * x + array.e * y + array.f)
    half = 0.5 + 1e-6
    seen = (
        (places[0] >= -half) & (places[0] <= width - 1 + half)
        & (places[1] >= -half) & (places[1] <= height - 1 + half)
    )  # fmt: skip
    return np.stack(moved), seen
