"""How fast a recipe trains, and whether making the pairs holds it up.

    python benchmarks/training.py --data ../shared/data --config geocd-vhr --crop 256 --batch 8

Trains in a temporary folder for some steps, after a warm-up, with one worker process that makes
the pairs. Prints crops an hour, the share of the time that the loop waited for pairs, and what
making a pair costs by itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from geocd.training.fit import Trainer
from geocd.training.recipe import Stage, ValidationConfig, find_recipe, load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", default="geocd-vhr")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = dataclasses.replace(
        load_recipe(find_recipe(options.config)), validation=ValidationConfig(),
        stages=(Stage(steps=options.steps + 3, crop=options.crop, batch=options.batch),),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(recipe, options.data, Path(scratch), workers=1)
        sampler = trainer._sampler(0)
        making = []
        for index in range(24):
            begun = time.perf_counter()
            sampler.sample(np.random.default_rng([1, index]), options.crop)
            making.append(time.perf_counter() - begun)
        steps, waits, mark = [], [], time.perf_counter()
        for parts in trainer._batches(sampler, range(recipe.steps)):
            got = time.perf_counter()
            trainer._train_step(parts)
            done = time.perf_counter()
            waits.append(got - mark)
            steps.append(done - mark)
            mark = done
    step, wait = statistics.median(steps[3:]), sum(waits[3:]) / sum(steps[3:])
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
          f"torch {torch.__version__}, {options.threads} threads")  # fmt: skip
    print(f"{options.config}, {options.batch} x {options.crop} px: {step:.2f} s a step (median), "
          f"{3600 * options.batch / step:,.0f} crops an hour")  # fmt: skip
    print(f"waiting for pairs: {wait:.1%} of the time; making one: "
          f"{1000 * statistics.median(making):.1f} ms (median, one thread)")  # fmt: skip


if __name__ == "__main__":
    main()
