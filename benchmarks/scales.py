"""F1 of weights against the scale at which pairs are read.

    python benchmarks/scales.py --data ../shared/data/pairs --weights geocd-vhr geocd-snunet

Every set is evaluated as a user would, with the scale that `detect` chooses by itself and with
each of the others. Prints Markdown. Scales finer than half a pixel are left out: the images are
never enlarged more than twice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import geocd

SETS = {"levir256": 0.5, "whu512": 0.2}
"""Folder below --data, and metres per pixel."""
SCALES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["geocd-vhr"])
    options = parser.parse_args()
    print(f"| set | weights | as detect chooses | {' | '.join(f'{s} m' for s in SCALES)} |")
    print(f"|---|---|---|{'---|' * len(SCALES)}")
    for name, pixel in SETS.items():
        for weights in options.weights:
            cells = []
            for gsd in (None, *SCALES):
                if gsd is not None and gsd < pixel / 2:
                    cells.append("")
                    continue
                config = geocd.DetectConfig(weights=weights, pixel_size=pixel, gsd=gsd)
                c = geocd.evaluate(options.data / name, config=config)[0].total
                cells.append(f"{c.f1:.3f} ({c.precision:.2f}/{c.recall:.2f})")
            print(f"| {name} | {weights} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
