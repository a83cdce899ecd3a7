"""Reading one picture of a part: as bytes, grey or colour, or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geocd.errors import InputError
from geocd.training.datasets.files import opened

Planes = NDArray[np.uint8]

_COLOURFUL = 8
"""Difference of the channels of a pixel, in levels, from which on it has a colour."""
_FEW = 1e-4
"""Share of pixels with a colour below which a picture is grey."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of a part.

    Attributes:
        planes: shape (1 or 3, height, width), uint8; red, green, blue if there are three.
    """

    planes: Planes

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.planes.shape[1], self.planes.shape[2]

    @property
    def is_colour(self) -> bool:
        """Whether there are three planes."""
        return len(self.planes) == 3

    @property
    def gray(self) -> Planes:
        """The mean of the planes, shape (height, width)."""
        if not self.is_colour:
            return np.asarray(self.planes[0])
        return np.asarray(np.rint(self.planes.mean(axis=0, dtype=np.float32)), np.uint8)

    def channels(self, count: int) -> Planes:
        """The planes as a network of so many bands wants them.

        Raises:
            InputError: a network that wants neither one nor three bands, nor gets a grey picture.
        """
        if count == len(self.planes):
            return self.planes
        if count == 1:
            return self.gray[None]
        if not self.is_colour:
            return np.repeat(self.planes, count, axis=0)
        raise InputError(f"the weights want {count} bands, and the picture has red, green and blue")


def read_frame(path: str | Path, *, white: int) -> Frame:
    """A picture from a file, every pixel of it.

    Args:
        path: PNG, JPEG, TIFF or what else GDAL reads.
        white: value of 16-bit files that becomes 255.

    Raises:
        GeocdError: it is missing, damaged, cut short, or no picture that can be judged.
    """
    with opened(Path(path)) as dataset:
        if ColorInterp.palette in dataset.colorinterp:
            raise InputError("it has a colour table; save it as grey or as red, green and blue")
        bands = [
            index
            for index, colour in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if colour != ColorInterp.alpha
        ]
        planes = dataset.read(bands)
        if not (dataset.dataset_mask() > 0).all():
            raise InputError("parts of it are transparent or hold no values")
    return as_frame(np.moveaxis(planes, 0, -1), white=white)


def as_frame(image: NDArray[Any], *, white: int) -> Frame:
    """A picture from an array.

    Three channels that nowhere differ are grey.

    Args:
        image: shape (height, width), or (height, width, 1 or 3); uint8 or uint16.
        white: value of 16-bit arrays that becomes 255; 0 stays 0, and what lies between follows
            in proportion.

    Raises:
        InputError: another shape or type, or values above ``white``.
    """
    planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    if planes.ndim != 3 or len(planes) not in (1, 3) or 0 in planes.shape:
        raise InputError(f"it has the shape {image.shape}, wanted is grey or red, green and blue")
    if planes.dtype == np.uint16:
        planes = _scaled(planes, white)
    if planes.dtype != np.uint8:
        raise InputError(f"it holds {planes.dtype} values, wanted are 8 or 16 bits without a sign")
    if len(planes) == 3:
        apart = planes.max(axis=0) - planes.min(axis=0)
        if (apart > _COLOURFUL).mean() <= _FEW:
            planes = Frame(planes).gray[None]
    return Frame(np.ascontiguousarray(planes))


def _scaled(planes: NDArray[np.uint16], white: int) -> Planes:
    if planes.max() > white:
        raise InputError(
            f"it holds values up to {planes.max()}, above the white of {white}; say what is white "
            "in 16-bit files with --white"
        )
    return np.asarray(np.rint(planes.astype(np.float32) * (255 / white)), np.uint8)
