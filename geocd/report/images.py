"""Pictures of both dates for a page: overviews and thumbnails, in bounded memory and bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geocd.rasters.pair import PairReader, RasterPair

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Window = tuple[int, int, int]
"""Left column, top row and side of a square, in pixels of the pair's grid."""

IMAGE_TYPE = "image/webp"
SMALLEST_OVERVIEW = 256
"""Longest side, in pixels, below which an overview shows nothing."""
_LARGEST_STEP = 4.0
"""How many times smaller a warp may make an image in one go: it holds its whole source."""
_STRIP_PIXELS = 1 << 22
_QUALITIES = (92, 82, 68)
_THUMBNAIL = 128
"""Side of a thumbnail, in pixels."""
_THUMBNAIL_QUALITY = 74
_THUMBNAIL_STEPS = (4.0, 1.0)
_WORTH = 1.25
"""How many times coarser than a thumbnail the overview must be to make it worth its bytes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One date: colours (height, width, 3), uint8, and where it was observed (height, width)."""

    colours: Pixels
    valid: Mask

    def encode(self, quality: int) -> bytes:
        """As WebP; transparent where not observed."""
        image = Image.fromarray(self.colours)
        if not self.valid.all():
            image.putalpha(Image.fromarray(self.valid.astype(np.uint8) * np.uint8(255)))
        encoded = io.BytesIO()
        image.save(encoded, "WEBP", quality=quality, method=4)
        return encoded.getvalue()

    def resized(self, height: int, width: int) -> Picture:
        """Smaller, each pixel the mean of those it covers."""
        size = (width, height)
        colours = cv2.resize(self.colours, size, interpolation=cv2.INTER_AREA)
        valid = cv2.resize(self.valid.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
        return Picture(np.asarray(colours, np.uint8), np.asarray(valid) >= 128)


@dataclass(frozen=True, slots=True)
class Overview:
    """Both dates, ``step`` pixels of the pair's grid to a pixel."""

    before: Picture
    after: Picture
    step: float

    @property
    def seen(self) -> Mask:
        """Where both dates were observed."""
        return self.before.valid & self.after.valid

    @property
    def extent(self) -> tuple[float, float]:
        """(height, width) in pixels of the pair's grid; may reach a little over its edge."""
        height, width = self.before.valid.shape
        return height * self.step, width * self.step


def draw_overview(
    pair: RasterPair, *, longest: int, progress: Callable[[int, int], None]
) -> Overview:
    """Both dates with at most ``longest`` pixels a side, read in strips.

    Args:
        pair: its motion is applied to the after image.
        longest: longest side of the pictures, in pixels.
        progress: told (rows done, rows).

    Raises:
        RasterOpenError: a file is damaged.
    """
    step = max(1.0, max(pair.grid.shape) / longest)
    shrink = math.ceil(step / _LARGEST_STEP)
    with pair.reader(step=step / shrink) as reader:
        strips = list(_strips(reader, shrink, progress))
    dates = [
        Picture(*(np.concatenate(parts) for parts in zip(*date, strict=True)))
        for date in zip(*strips, strict=True)
    ]
    return Overview(dates[0], dates[1], step)


_Strip = tuple[tuple[Pixels, Mask], tuple[Pixels, Mask]]


def _strips(
    reader: PairReader, shrink: int, progress: Callable[[int, int], None]
) -> Iterator[_Strip]:
    height, width = reader.grid.shape
    rows = max(1, _STRIP_PIXELS // width // shrink) * shrink
    for top in range(0, height, rows):
        below = min(top + rows, height)
        before, seen, after, seen_after = reader.read_dates(slice(top, below), slice(0, width))
        yield _shrunk(before, seen, shrink), _shrunk(after, seen_after, shrink)
        progress(below, height)


def _shrunk(image: Pixels, valid: Mask, shrink: int) -> tuple[Pixels, Mask]:
    """The mean colour of the valid pixels of every block; valid where half of the block is.

    Args:
        image: shape (3, height, width).
        valid: shape (height, width).
        shrink: side of a block.

    Returns:
        Shapes (height / shrink, width / shrink, 3) and without the 3, rounded up.
    """
    planes = np.moveaxis(image, 0, -1)
    if shrink == 1:
        return np.where(valid[..., None], planes, np.uint8(0)), valid
    padding = [(0, -length % shrink) for length in valid.shape]
    height, width = (length + more for length, (_, more) in zip(valid.shape, padding, strict=True))
    blocks = height // shrink, shrink, width // shrink, shrink
    counts = np.pad(valid, padding).reshape(blocks).sum(axis=(1, 3), dtype=np.int32)
    # One band at a time: in 32 bits the sums take four times the room of the picture.
    bands = [
        np.pad(np.where(valid, plane, 0), padding).reshape(blocks).sum(axis=(1, 3), dtype=np.int32)
        for plane in image
    ]
    means = np.stack(bands, axis=-1) // np.maximum(counts, 1)[..., None]
    return means.astype(np.uint8), counts * 2 >= shrink * shrink


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Pictures of both dates, as files."""

    before: bytes
    after: bytes
    width: int
    """Columns of the pictures."""

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


def encode_overview(overview: Overview, most: int) -> EncodedPair:
    """The largest pictures of an overview that take at most so many bytes together.

    Quality gives way first, then size. If even the smallest size takes more, that is what
    comes back.
    """
    height, width = overview.before.valid.shape
    scale = 1.0
    while True:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        dates = [overview.before, overview.after]
        if scale < 1:
            dates = [date.resized(*size) for date in dates]
        for quality in _QUALITIES:
            before, after = (date.encode(quality) for date in dates)
            if len(before) + len(after) <= most:
                return EncodedPair(before, after, size[1])
        if max(size) <= SMALLEST_OVERVIEW:
            return EncodedPair(before, after, size[1])
        # Bytes go with the area, roughly; a little less, so that few rounds are needed.
        smaller = min(0.85, 0.95 * math.sqrt(most / (len(before) + len(after))))
        scale = max(scale * smaller, SMALLEST_OVERVIEW / max(height, width))


def thumbnails(
    pair: RasterPair, windows: list[Window], *, pixel: float
) -> Generator[EncodedPair | None, None, None]:
    """Pictures of both dates in square windows, one after the other.

    None where the overview shows the window as well, or where so large a window is not worth
    a reading.

    Args:
        pair: its motion is applied to the after image.
        windows: may reach over the edge of the pair's grid.
        pixel: pixels of the pair's grid in a pixel of the overview that the page holds.
    """
    with ExitStack() as stack:
        readers = {step: stack.enter_context(pair.reader(step=step)) for step in _THUMBNAIL_STEPS}
        for window in windows:
            needed = window[2] / _THUMBNAIL
            steps = [step for step in _THUMBNAIL_STEPS if step <= max(needed, 1.0)]
            if pixel < _WORTH * max(needed, 1.0) or needed > _LARGEST_STEP * steps[0]:
                yield None
            else:
                yield _thumbnail(readers[steps[0]], steps[0], window)


def _thumbnail(reader: PairReader, step: float, window: Window) -> EncodedPair:
    left, top, side = (round(value / step) for value in window)
    side = max(1, side)
    rows = slice(max(0, top), min(reader.grid.height, top + side))
    cols = slice(max(0, left), min(reader.grid.width, left + side))
    before, seen, after, seen_after = reader.read_dates(rows, cols)
    size = min(_THUMBNAIL, side)
    encoded = []
    for image, valid in ((before, seen), (after, seen_after)):
        colours, usable = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), bool)
        part = (
            slice(rows.start - top, rows.stop - top),
            slice(cols.start - left, cols.stop - left),
        )
        colours[part] = np.where(valid[..., None], np.moveaxis(image, 0, -1), np.uint8(0))
        usable[part] = valid
        encoded.append(Picture(colours, usable).resized(size, size).encode(_THUMBNAIL_QUALITY))
    return EncodedPair(encoded[0], encoded[1], size)
