"""Image and label files as arrays, refused with their names when they do not fit."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geocd.errors import DatasetError
from geocd.training.datasets.layouts import LabelledPair


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """An image as (height, width, bands), uint8.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                return np.moveaxis(dataset.read(), 0, -1)
    except RasterioError as error:
        raise DatasetError(f"cannot read {path}: {error}") from None


def read_truth(pair: LabelledPair, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the label of a pair says change, shape (height, width).

    Raises:
        DatasetError: the label cannot be read, or its size is not ``shape``.
    """
    label = read_pixels(pair.label)[..., 0]
    if label.shape != shape:
        raise DatasetError(
            f"{pair.label} is {label.shape[0]} x {label.shape[1]}, its images are "
            f"{shape[0]} x {shape[1]}"
        )
    return np.asarray(label > 0)
