"""Weights on pairs synthesised from tiles that training did not see: roads, and unchanged ground.

    python benchmarks/synthesised.py --data ../shared/data --weights geocd-vhr

No set of real pairs with labelled road change was at hand; this stands in for one. Pairs of
roads are made of road-labelled tiles (scenes exchanged, parts exchanged, stretches removed and
pasted); unchanged pairs show one tile twice under strong and independent light, season, sensor,
misregistration and lean; and pairs of painted towns, whose pictures may be shown to anyone. All at
the card's thresholds. `--page FILE` writes a page of the worst road pairs; it shows the imagery,
so mind its terms. `--picture FILE` draws painted road pairs, from best to worst.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geocd.assess.markup import document, figure_html, legend
from geocd.assess.metrics import Confusion, confusion
from geocd.assess.panels import error_map
from geocd.config import SCORE_SCALE
from geocd.models.checkpoint import Weights, load_weights
from geocd.predict.torch import TorchPredictor
from geocd.training.recipe import SynthesisConfig, TileSource
from geocd.training.synthesis import Pair, PairSynthesizer
from geocd.training.tiles import IGNORE, load_tiles

ROADS = (TileSource(folder="roads/gsi", gsd=0.2, road=255),)
TOWNS = (TileSource(folder="maps", include="val_*", gsd=0.9, building=1, road=2),)
PAINTED = (TileSource(painted=24, seed=4711, gsd=0.5),)
_NONE = dict.fromkeys(SynthesisConfig().shares, 0.0)
ROAD_KINDS = _NONE | {"unrelated": 0.4, "patch": 0.2, "road_paste": 0.2, "road_removal": 0.2}
ZOOM = (0.2, 1.9)
_TELLING = 400
"""Least pixels of change in a pair that is worth a picture."""


def pairs(data: Path, sources: tuple[TileSource, ...], number: int, **config: object) -> list[Pair]:
    """So many pairs of 256 x 256 pixels."""
    tiles = load_tiles(data, sources, classes=2)
    make = PairSynthesizer(tiles, sources, SynthesisConfig(zoom=ZOOM, **config))
    return [make.sample(np.random.default_rng([7, i]), 256) for i in range(number)]


def scores(weights: Weights, pair: Pair) -> NDArray[np.float32]:
    """Scores (classes, 256, 256)."""
    predictor = TorchPredictor(weights, device="cpu")
    images = (np.moveaxis(image, -1, 0)[None] for image in (pair.before, pair.after))
    return predictor(*images)[0] / np.float32(SCORE_SCALE)


def judge(
    weights: Weights, samples: list[Pair], plane: int
) -> tuple[Confusion, list[tuple[Confusion, Pair, NDArray[np.bool_]]]]:
    """Agreement for one class: in all, and of each pair with the map."""
    each = []
    for pair in samples:
        found = scores(weights, pair)[plane] >= weights.card.thresholds[plane]
        truth, known = pair.change[plane] == 1, pair.change[plane] != IGNORE
        each.append((confusion(found, truth, valid=known), pair, found))
    return sum((c for c, _, _ in each), Confusion(0, 0, 0, 0)), each


def page(each: list[tuple[Confusion, Pair, NDArray[np.bool_]]], plane: int, path: Path) -> None:
    """The ten worst pairs."""
    worst = sorted(each, key=lambda e: -(e[0].false_positive + e[0].false_negative))[:10]
    parts = ["<h1>Roads, worst synthesised pairs</h1>", legend()]
    for rank, (c, pair, found) in enumerate(worst, 1):
        truth, known = pair.change[plane] == 1, pair.change[plane] != IGNORE
        shown = (
            (pair.before, "before"),
            (pair.after, "after"),
            (error_map(pair.after, found & known, truth, known), "errors"),
        )
        pictures = "".join(figure_html(*p) for p in shown)
        parts.append(f"<h3>{rank}. {pair.kind}</h3><p>F1 {c.f1:.3f}</p>"
                     f'<div class="panels">{pictures}</div>')  # fmt: skip
    path.write_text(document("Roads, worst pairs", "\n".join(parts)))


def picture(each: list[tuple[Confusion, Pair, NDArray[np.bool_]]], plane: int, path: Path) -> None:
    """Five pairs from best to worst: before, after, hits, misses and false alarms."""
    telling = [e for e in each if e[0].true_positive + e[0].false_negative >= _TELLING]
    ranked = sorted(telling, key=lambda e: -e[0].f1)
    chosen = [ranked[i] for i in np.linspace(0, len(ranked) - 1, 5).round().astype(int)]
    rows = []
    for c, pair, found in chosen:
        truth, known = pair.change[plane] == 1, pair.change[plane] != IGNORE
        errors = error_map(pair.after, found & known, truth, known)
        rows.append(np.hstack([pair.before, pair.after, errors]))
        print(f"  {path.name}, row {len(rows)}: {pair.kind}, F1 {c.f1:.2f}")
    Image.fromarray(np.vstack(rows)).save(path, quality=80)


def _row(c: Confusion) -> str:
    return f"{c.precision:.3f} | {c.recall:.3f} | {c.f1:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["geocd-vhr"])
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    for name in options.weights:
        weights = load_weights(name)
        low = weights.card.gsd[0]
        print(f"\n{name}, {options.number} pairs of 256 px each, at the card's thresholds\n")
        print("| pairs | read at | class | P | R | F1 |\n|---|---|---|---|---|---|")
        for gsd in (low, low * 1.4):
            made = pairs(options.data, ROADS, options.number, gsd=(gsd, gsd), **ROAD_KINDS)
            total, each = judge(weights, made, 1)
            print(f"| roads/gsi | {gsd:.2f} m | road | {_row(total)} |", flush=True)
            if options.page and gsd == low:
                page(each, 1, options.page)
        made = pairs(options.data, PAINTED, options.number, gsd=(low, low), **ROAD_KINDS)
        total, each = judge(weights, made, 1)
        print(f"| painted towns | {low:.2f} m | road | {_row(total)} |", flush=True)
        if options.picture:
            picture(each, 1, options.picture)
        made = pairs(options.data, TOWNS, options.number, gsd=weights.card.gsd)
        for plane, kind in enumerate(weights.card.change_classes):
            total, _ = judge(weights, made, plane)
            print(f"| maps/val | {low:g}-{weights.card.gsd[1]:g} m | {kind} | {_row(total)} |")
        same = pairs(options.data, TOWNS, options.number, gsd=weights.card.gsd, strong=1.0,
                     **(_NONE | {"unchanged": 1.0}))  # fmt: skip
        for plane, kind in enumerate(weights.card.change_classes):
            total, _ = judge(weights, same, plane)
            print(f"unchanged ground, strongly altered: {kind} alarms on "
                  f"{total.false_alarm_share:.3%} of the pixels")  # fmt: skip


if __name__ == "__main__":
    main()
