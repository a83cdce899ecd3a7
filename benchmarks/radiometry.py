"""F1 of weights with and without radiometric normalisation.

    python benchmarks/radiometry.py --data ../shared/data/pairs

Every set is evaluated as a user would, once with after's values as they are and once brought to
before's light. Prints Markdown: F1 over all pixels (precision/recall), the median F1 of the
images, how many pairs were normalised, and the gains that were applied.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import geocd
from geocd import pipeline
from geocd.align.radiometry import Radiometry

SETS = {"levir256": 0.5, "whu512": 0.2}
"""Folder below --data, and metres per pixel."""


def recorded(found: list[Radiometry]) -> None:
    """Keep what is estimated for every pair, in the order of the pairs."""
    estimate = pipeline.estimate_radiometry

    def _estimate(*arguments: object) -> Radiometry:
        found.append(estimate(*arguments))  # type: ignore[arg-type]
        return found[-1]

    pipeline.estimate_radiometry = _estimate


def describe(found: list[Radiometry]) -> str:
    """How many pairs were normalised, and by how much."""
    gains = np.array([r.gain for r in found if r.status == "applied"])
    if not gains.size:
        return f"0 of {len(found)}"
    return f"{len(gains)} of {len(found)}, gains {gains.min():.2f} to {gains.max():.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pairs"))
    parser.add_argument("--weights", nargs="+", default=["geocd-vhr", "geocd-snunet"])
    options = parser.parse_args()
    found: list[Radiometry] = []
    recorded(found)
    print("| set | weights | radiometry | F1 | median F1 | normalised |\n|---|---|---|---|---|---|")
    for name, pixel in SETS.items():
        for weights in options.weights:
            for mode in ("none", "linear"):
                found.clear()
                config = geocd.DetectConfig(weights=weights, pixel_size=pixel, radiometry=mode)
                result = geocd.evaluate(options.data / name, config=config)[0]
                c = result.total
                told = describe(found) if found else ""
                f1 = f"{c.f1:.3f} ({c.precision:.2f}/{c.recall:.2f}) | {result.median_f1:.3f}"
                print(f"| {name} | {weights} | {mode} | {f1} | {told} |", flush=True)


if __name__ == "__main__":
    main()
