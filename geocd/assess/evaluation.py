"""Running weights over labelled pairs, the way a user would run them."""

from __future__ import annotations

import math
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geocd.assess.baselines import BASELINES
from geocd.assess.metrics import Confusion, confusion
from geocd.config import CLASS_CODES, NOT_OBSERVED, DetectConfig
from geocd.errors import DatasetError
from geocd.pipeline import detect

_NOTHING = Confusion(0, 0, 0, 0)
_SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two images and the change between them, as files."""

    name: str
    before: Path
    after: Path
    label: Path


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Agreement of a method with the labels of a set of pairs."""

    method: str
    images: dict[str, Confusion]
    """Agreement by image."""

    @property
    def total(self) -> Confusion:
        """One confusion of all pixels of all images."""
        return sum(self.images.values(), _NOTHING)

    @property
    def median_f1(self) -> float:
        """Median of the images' F1, of those where it is defined."""
        defined = [c.f1 for c in self.images.values() if not math.isnan(c.f1)]
        return statistics.median(defined) if defined else math.nan

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "method": self.method,
            "total": self.total.to_dict(),
            "median_f1": None if math.isnan(self.median_f1) else round(self.median_f1, 5),
            "images": {name: c.to_dict() for name, c in self.images.items()},
        }


def find_pairs(folder: Path) -> list[LabelledPair]:
    """The pairs of a folder with ``A/`` (before), ``B/`` (after) and ``label/`` of equal names.

    Raises:
        DatasetError: a folder is missing or empty, or a date or a label is missing.
    """
    pairs = []
    for sub in ("A", "B", "label"):
        if not (folder / sub).is_dir():
            raise DatasetError(f"{folder} has no folder {sub}/; wanted are A/, B/ and label/")
    for before in sorted(p for p in (folder / "A").iterdir() if p.suffix.lower() in _SUFFIXES):
        found = {}
        for sub in ("B", "label"):
            matches = [p for p in (folder / sub).glob(f"{before.stem}.*")
                       if p.suffix.lower() in _SUFFIXES]  # fmt: skip
            if not matches:
                raise DatasetError(f"{before} has no partner in {folder / sub}")
            found[sub] = matches[0]
        pairs.append(LabelledPair(before.stem, before, found["B"], found["label"]))
    if not pairs:
        raise DatasetError(f"no images in {folder / 'A'}")
    return pairs


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


def _truth(pair: LabelledPair, shape: tuple[int, int]) -> NDArray[np.bool_]:
    label = read_pixels(pair.label)[..., 0]
    if label.shape != shape:
        raise DatasetError(
            f"{pair.label} is {label.shape[0]} x {label.shape[1]}, its images are "
            f"{shape[0]} x {shape[1]}"
        )
    return label > 0


def evaluate(
    data: Path,
    *,
    config: DetectConfig,
    kind: str = "building",
    progress: Callable[[int, int], None] | None = None,
) -> list[Evaluation]:
    """Run ``detect`` on every pair of a folder and compare one kind of change with the labels.

    Args:
        data: folder with ``A/``, ``B/`` and ``label/`` (0 no change, other values change).
        config: as for ``detect``; ``pixel_size`` tells the ground sample distance of images
            without georeferencing.
        kind: the class of the change map that the labels show.
        progress: called with pairs done and pairs in all.

    Returns:
        The weights' evaluation, then those of the baselines on the same pixels.

    Raises:
        DatasetError: the folder cannot be used.
    """
    pairs = find_pairs(data)
    results: dict[str, dict[str, Confusion]] = {
        method: {} for method in (config.weights, *BASELINES)
    }
    with tempfile.TemporaryDirectory() as scratch:
        for index, pair in enumerate(pairs):
            mask_path = Path(scratch) / f"{index}.tif"
            detect(pair.before, pair.after, Path(scratch) / f"{index}.gpkg", mask=mask_path,
                   config=config)  # fmt: skip
            mask = read_pixels(mask_path)[..., 0]
            truth = _truth(pair, mask.shape)
            codes = {CLASS_CODES[kind], CLASS_CODES["change"]}
            valid = mask != NOT_OBSERVED
            found = np.isin(mask, list(codes))
            results[config.weights][pair.name] = confusion(found, truth, valid=valid)
            before, after = read_pixels(pair.before), read_pixels(pair.after)
            for name, baseline in BASELINES.items():
                results[name][pair.name] = confusion(baseline(before, after), truth, valid=valid)
            if progress:
                progress(index + 1, len(pairs))
    return [Evaluation(name, images) for name, images in results.items()]
