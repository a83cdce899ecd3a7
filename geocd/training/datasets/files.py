"""Image and label files as arrays, refused with their names when they do not fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geocd.errors import DamagedSampleError, DatasetError
from geocd.training.datasets.coding import LabelCoding
from geocd.training.datasets.layouts import LabelledPair

# By default GDAL hands out a PNG or JPEG that is cut short as if it were whole, and lists the
# folder of every file it opens.
_STRICT = {
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its pixels.

    Attributes:
        shape: (height, width).
        bands: without alpha.
        dtype: type of the values.
        lossy: compression may have changed the values.
    """

    shape: tuple[int, int]
    bands: int
    dtype: str
    lossy: bool

    def __str__(self) -> str:
        return f"{self.shape[0]} x {self.shape[1]}"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An image as a rasterio dataset that does not hide damage.

    Raises:
        DamagedSampleError: it is missing, or damaged as far as it is read.
    """
    try:
        with warnings.catch_warnings(), rasterio.Env(**_STRICT):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                yield dataset
    except RasterioError as error:
        # Failed reads say no more than that; what GDAL had to say is their cause.
        reason = f"it is damaged ({error.__cause__ or error})"
        reason = reason if path.exists() else "there is no such file"
        raise DamagedSampleError(f"cannot read {path}: {reason}; copy it again") from None


def _header(dataset: Any) -> Header:
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    lossy = "JPEG" in (dataset.driver, *structure.get("COMPRESSION", "").split())
    lossy |= structure.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSY")
    bands = dataset.count - (ColorInterp.alpha in dataset.colorinterp)
    return Header(dataset.shape, bands, dataset.dtypes[0], lossy)


def read_header(path: Path) -> Header:
    """Size, bands and type of an image, without its pixels.

    Raises:
        DamagedSampleError: it cannot be opened.
    """
    with opened(path) as dataset:
        return _header(dataset)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """An image as it is: (height, width, bands).

    Raises:
        DamagedSampleError: it cannot be read.
    """
    with opened(path) as dataset:
        return np.moveaxis(dataset.read(), 0, -1)


def read_observed(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image as RGB, and where it shows anything.

    One band is repeated; of four bands and more the first three are taken; alpha is left out and
    colour tables are applied.

    Returns:
        RGB, shape (height, width, 3), uint8; valid, shape (height, width), False where the file's
        nodata value, alpha band or mask says that nothing was observed.

    Raises:
        DamagedSampleError: it cannot be read.
        DatasetError: two bands, or values of more than 8 bits.
    """
    with opened(path) as dataset:
        header = _header(dataset)
        check_image(path, header)
        valid = np.asarray(dataset.dataset_mask() > 0)
        if ColorInterp.palette in dataset.colorinterp:
            colours = np.zeros((256, 3), np.uint8)
            for value, colour in dataset.colormap(1).items():
                colours[value] = colour[:3]
            return np.asarray(colours[dataset.read(1)]), valid
        bands = [1] if header.bands == 1 else [1, 2, 3]
        image = np.moveaxis(dataset.read(bands), 0, -1)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))), valid


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image as RGB, shape (height, width, 3), uint8; see ``read_observed``."""
    return read_observed(path)[0]


def check_image(path: Path, header: Header) -> None:
    """Refuse an image that does not show red, green and blue, or grey, in 8 bits.

    Raises:
        DatasetError: see above.
    """
    if header.dtype != "uint8":
        raise DatasetError(
            f"{path} holds {header.dtype} values, wanted are 8 bits; scale it, for example with "
            "gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT and one LOW and HIGH for the "
            "whole set, or name it in a manifest, which stretches it"
        )
    if header.bands == 2:
        raise DatasetError(f"{path} has 2 bands, wanted are 1 (grey) or 3 (red, green, blue)")


def read_label_values(path: Path) -> tuple[NDArray[Any], bool]:
    """The values of a label file, shape (height, width), and whether they are blurred.

    Raises:
        DamagedSampleError: it cannot be read.
        DatasetError: its bands differ, or it holds fractions.
    """
    with opened(path) as dataset:
        header = _header(dataset)
        bands = dataset.read(list(range(1, header.bands + 1)))
    if header.lossy:
        return bands.mean(axis=0).astype(bands.dtype), True
    if (bands != bands[:1]).any():
        raise DatasetError(
            f"{path} is a label in colours; turn its colours into one band of class values first"
        )
    label = bands[0]
    if label.dtype.kind == "f":
        if not (label == np.rint(label)).all():
            raise DatasetError(f"{path} is a label of fractions; wanted are whole class values")
        label = label.astype(np.int64)
    return label, False


def read_label(path: Path, coding: LabelCoding) -> NDArray[np.uint8]:
    """The class planes of a label file, shape (classes, height, width): 0, 1 or ``IGNORE``.

    Raises:
        DatasetError: see ``read_label_values`` and ``LabelCoding.planes``.
    """
    values, lossy = read_label_values(path)
    return coding.planes(values, name=str(path), lossy=lossy)


def check_sizes(pair: LabelledPair, shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse a pair whose files differ in size.

    Args:
        pair: the pair.
        shapes: (height, width) of before, after and label.

    Raises:
        DatasetError: they differ.
    """
    files = (pair.before, pair.after, pair.label)
    for file, shape in zip(files[1:], shapes[1:], strict=True):
        if shape != shapes[0]:
            raise DatasetError(
                f"{file} is {shape[0]} x {shape[1]}, but {files[0]} is "
                f"{shapes[0][0]} x {shapes[0][1]}; they must be of one size"
            )
