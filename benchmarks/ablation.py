"""What the parts of the default recipe are worth: short runs without each of them.

    python benchmarks/ablation.py --data ../shared/data --out runs/ablation --threads 1

Every variant starts from ImageNet, trains for the same few steps with the same seed, and is
evaluated on real pairs that no run saw, read at one scale, at a threshold of 0.5 and at the best
one. Two variants fuse the dates in another way. The runs are short: they rank the parts for the
first minutes of training, with a spread of a few points from seed to seed (`--seeds`). A run that
was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

import geocd
from geocd.models import registry
from geocd.models.network import ChangeNetwork
from geocd.models.siam_nested_lite import SiamNestedLite
from geocd.training.fit import Trainer
from geocd.training.recipe import Recipe, Stage, ValidationConfig, find_recipe, load_recipe

SETS = {"levir256": 0.5, "whu512": 0.2}
"""Folder below pairs/, and metres per pixel."""
GSD = 0.5


def _without(*kinds: str) -> Callable[[Recipe], Recipe]:
    """The recipe without kinds of pairs; the others share what they had."""

    def change(recipe: Recipe) -> Recipe:
        config = recipe.synthesis
        left = {k: getattr(config, k) for k in config.shares if k not in kinds}
        total = sum(left.values())
        shares = dict.fromkeys(kinds, 0.0) | {k: v / total for k, v in left.items()}
        return dataclasses.replace(recipe, synthesis=dataclasses.replace(config, **shares))

    return change


def _with(part: str, **values: object) -> Callable[[Recipe], Recipe]:
    """The recipe with other values in one of its tables."""

    def change(recipe: Recipe) -> Recipe:
        table = dataclasses.replace(getattr(recipe, part), **values)
        return dataclasses.replace(recipe, **{part: table})

    return change


class _DifferenceAlone(SiamNestedLite):
    """The dates meet as their difference; half of the maps is empty, so that the cost is equal."""

    @staticmethod
    def meet(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([(a - b).abs(), torch.zeros_like(a)], dim=1)


class _Stacked(SiamNestedLite):
    """The dates are stacked, as in FC-Siam-conc; their order matters."""

    symmetric = False

    @staticmethod
    def meet(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b], dim=1)


VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    "the recipe": lambda recipe: recipe,
    "no segmentation of dates": _with("loss", auxiliary=0.0),
    "bce alone": _with("loss", change="bce"),
    "dice alone": _with("loss", change="dice"),
    "no yards": _with("synthesis", clutter=0.0),
    "no vacant pairs": _without("ground"),
    "no construction": _without("construction"),
    "no paste, no removal": _without("paste", "removal"),
    "no patches": _without("patch"),
    "one scale, 0.5 m": _with("synthesis", gsd=(0.5, 0.5)),
    "no roads pasted, none removed": _without("road_paste", "road_removal"),
    "encoder not pretrained": _with("network", initial="random"),
    "decoder of half the width": _with("network", width=16),
    "dates meet as their difference alone": lambda recipe: recipe,
    "dates stacked": lambda recipe: recipe,
}
FUSIONS: dict[str, type[ChangeNetwork]] = {
    "dates meet as their difference alone": _DifferenceAlone,
    "dates stacked": _Stacked,
}
"""What stands in for the default network in some variants."""


@contextmanager
def fusion(name: str) -> Iterator[None]:
    """The default network as the variant wants it, for the time of the block."""
    known = registry._NETWORKS
    usual = known["siam-nested-lite"]
    known["siam-nested-lite"] = FUSIONS.get(name, usual)
    try:
        yield
    finally:
        known["siam-nested-lite"] = usual


def variant(change: Callable[[Recipe], Recipe], name: str, seed: int, steps: int) -> Recipe:
    """The default recipe, shortened and changed."""
    base = load_recipe(find_recipe("geocd-vhr"))
    short = dataclasses.replace(
        base, name=f"{name.replace(' ', '-').replace(',', '')}-{seed}", seed=seed,
        stages=(Stage(steps=steps, crop=128, batch=8),), validation=ValidationConfig(),
    )  # fmt: skip
    return change(short)


def score(data: Path, name: str, weights: str) -> tuple[float, float]:
    """F1 at 0.5 and at the best threshold."""
    config = geocd.DetectConfig(weights=weights, pixel_size=SETS[name], gsd=GSD, threshold=0.5)
    result = geocd.evaluate(data / "pairs" / name, config=config)[0]
    return result.total.f1, result.curve.best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[777])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.steps} steps of 8 x 128 px, seeds {options.seeds}; F1 at 0.5 (best)\n")
    print(f"| variant | {' | '.join(SETS)} |\n|---|---|---|")
    for name in options.variants:
        change = VARIANTS[name]
        found: dict[str, list[tuple[float, float]]] = {s: [] for s in SETS}
        for seed in options.seeds:
            recipe = variant(change, name, seed, options.steps)
            with fusion(name):
                trainer = Trainer(recipe, options.data, options.out / recipe.name, workers=1)
                trainer.resume()
                trainer.run()
                weights = str(trainer.export())
                for s in SETS:
                    found[s].append(score(options.data, s, weights))
        cells = [
            f"{statistics.mean(f for f, _ in found[s]):.3f} "
            f"({statistics.mean(b for _, b in found[s]):.3f})"
            for s in SETS
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
