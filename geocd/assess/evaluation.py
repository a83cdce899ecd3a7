"""Running weights over labelled pairs, the way a user would run them."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geocd.assess.baselines import BASELINES
from geocd.assess.metrics import Confusion, confusion
from geocd.config import CLASS_CODES, NOT_OBSERVED, DetectConfig
from geocd.pipeline import detect
from geocd.training.datasets import find_pairs, read_pixels, read_truth

_NOTHING = Confusion(0, 0, 0, 0)


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
            truth = read_truth(pair, mask.shape)
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
