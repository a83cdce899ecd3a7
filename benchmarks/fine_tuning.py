"""What fine-tuning on a few real pairs gains at home, and what it costs elsewhere.

    python benchmarks/fine_tuning.py --data ../shared/data/pairs --out runs/fine-tuning

Cross-validated over images: for each set, the bundled weights are fine-tuned on four fifths of
its pairs by the recipe `fine-tune` and scored on the rest by `evaluate`, as a user would; each
fold is also scored on the whole other set, which it never saw. The number of steps is fixed
beforehand: no fold looks at its own test images. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
from pathlib import Path

import torch

import geocd
from geocd.assess import Confusion
from geocd.training.datasets import load_pairs
from geocd.training.fit import Trainer
from geocd.training.recipe import (
    PairsSource,
    Recipe,
    Stage,
    ValidationConfig,
    find_recipe,
    load_recipe,
)

SETS = {"levir256": 0.5, "whu512": 0.2}
"""Folder below --data, and metres per pixel."""
FOLDS = 5


def fold_recipe(name: str, fold: int, weights: str, steps: int) -> Recipe:
    """The recipe `fine-tune` for one fold of a set, without a validation of its own."""
    base = load_recipe(find_recipe("fine-tune"))
    source = dataclasses.replace(base.pairs[0], folder=name, gsd=SETS[name], fold=f"{fold}/{FOLDS}")
    stage = base.stages[0]
    return dataclasses.replace(
        base, name=f"{name}-{fold}", pairs=(source,), validation=ValidationConfig(),
        network=dataclasses.replace(base.network, initial=weights),
        stages=(Stage(steps=steps, crop=stage.crop, batch=stage.batch),),
    )  # fmt: skip


def held_out(data: Path, source: PairsSource, folder: Path) -> Path:
    """A folder with links to the pairs of the fold."""
    pairs = load_pairs(data / source.folder)
    for pair in (p for i, p in enumerate(pairs) if source.in_fold(i)):
        for sub, path in (("A", pair.before), ("B", pair.after), ("label", pair.label)):
            (folder / sub).mkdir(parents=True, exist_ok=True)
            (folder / sub / path.name).symlink_to(path.resolve())
    return folder


def score(data: Path, name: str, weights: str) -> dict[str, Confusion]:
    """Agreement of each image."""
    config = geocd.DetectConfig(weights=weights, pixel_size=SETS[name])
    return geocd.evaluate(data, config=config)[0].images


def total(images: dict[str, Confusion]) -> Confusion:
    """One confusion of all pixels."""
    return sum(images.values(), Confusion(0, 0, 0, 0))


def median(images: dict[str, Confusion]) -> float:
    """Median F1 of the images where it is defined."""
    return statistics.median(c.f1 for c in images.values() if not math.isnan(c.f1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="geocd-vhr")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = {name: score(options.data / name, name, options.weights) for name in SETS}
    rows = []
    for name in SETS:
        other = next(s for s in SETS if s != name)
        home: dict[str, Confusion] = {}
        away: list[float] = []
        for fold in range(1, FOLDS + 1):
            recipe = fold_recipe(name, fold, options.weights, options.steps)
            trainer = Trainer(recipe, options.data, options.out / recipe.name, workers=0)
            trainer.resume()
            trainer.run()
            weights = str(trainer.export())
            with tempfile.TemporaryDirectory() as scratch:
                home |= score(held_out(options.data, recipe.pairs[0], Path(scratch)), name, weights)
            away.append(total(score(options.data / other, other, weights)).f1)
            print(f"{recipe.name}: other set {away[-1]:.3f}", flush=True)
        rows.append((name, "before", total(start[name]), median(start[name])))
        rows.append((name, "fine-tuned", total(home), median(home)))
        was = total(start[other]).f1
        print(f"{other} after fine-tuning on {name}: {was:.3f} -> {statistics.mean(away):.3f} "
              f"({min(away):.3f} to {max(away):.3f} over the folds)")  # fmt: skip
    print("\n| set | weights | P | R | F1 | median F1 |\n|---|---|---|---|---|---|")
    for name, which, c, m in rows:
        print(f"| {name} | {which} | {c.precision:.3f} | {c.recall:.3f} | {c.f1:.3f} | {m:.3f} |")
    (options.out / "result.json").write_text(
        json.dumps([[n, w, c.to_dict(), m] for n, w, c, m in rows], indent=1)
    )


if __name__ == "__main__":
    main()
