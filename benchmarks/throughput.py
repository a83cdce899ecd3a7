"""Speed of geocd beside the reference network, in one run and in alternation.

    python benchmarks/throughput.py --reference Siam-NestedUNet/models/Models.py --side 8192

The yardstick is the published network at width 16 in its own loop: eager, float32, 256 x 256
windows side by side, nothing read and nothing written. Its code is not part of the project: fetch
https://github.com/likyoo/Siam-NestedUNet and name its file of models; without it, geocd's own
network with the same weights stands in, and the table says so.

Prints three tables. First, networks alone: every backend on the same windows, in turns, medians
and ratios; with the rate at which arithmetic is done against that of a large matrix product in
the same run. Then whole commands (read, score with overlap, stitch, write, trace; alignment off)
on a painted pair: seconds, ratio to the yardstick, share of everything but the network (the shift
check is network, too), and peak memory of the process. Then their seconds by stage.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from roofline import ORDER, product_rates, window_gflop

import geocd
from geocd.config import PredictConfig
from geocd.errors import GeocdError
from geocd.models.checkpoint import load_weights
from geocd.pipeline import calibration_pairs
from geocd.predict import openvino
from geocd.predict.backends import open_predictor
from geocd.testing import paint_scene

SIDE, BATCH = 256, 8
SAME, DEFAULT = "geocd-snunet", "geocd-vhr"
BACKENDS = (("torch", "float32"), ("torch", "bf16"), ("openvino", "float32"), ("openvino", "bf16"),
            ("openvino", "int8"))  # fmt: skip
COMMANDS = {
    "default": [],
    "without the shift check": ["--no-shift-check"],
    "every window in full": ["--no-first-look"],
    "fast": ["--overlap", "32"],
    "fastest": ["--overlap", "32", "--no-shift-check"],
    "fastest, 8 bits": ["--overlap", "32", "--no-shift-check", "--precision", "int8"],
}
"""Options of ``geocd detect``, by what they are called in the table."""
_LAUNCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Runs a command and prints its peak memory. A child's peak begins at what its parent held when it
was born, and this process holds networks."""
Scorer = Callable[[NDArray[np.uint8], NDArray[np.uint8]], object]


def reference(path: Path | None) -> Scorer:
    """The published network with geocd's weights, as its authors run it."""
    weights = load_weights(SAME)
    network = weights.network.eval()
    if path is not None:
        # The published file fixes a width of 32; the yardstick is the same code at another.
        source = path.read_text().replace("n1 = 32", f"n1 = {weights.card.width}")
        spec = importlib.util.spec_from_loader("reference", loader=None)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        exec(compile(source, str(path), "exec"), module.__dict__)
        network = module.SNUNet_ECAM(3, len(weights.card.classes)).eval()
        network.load_state_dict(weights.network.state_dict())
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (weights.card.mean, weights.card.std))

    @torch.inference_mode()
    def _run(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> object:
        return network(*((torch.from_numpy(x).float() - mean) / std for x in (before, after)))

    return _run


def contestants(path: Path | None) -> dict[tuple[str, str], Scorer]:
    """All that are timed, by weights and name."""
    name = "reference" if path else "stand-in for the reference"
    found: dict[tuple[str, str], Scorer] = {(SAME, f"{name}, eager float32"): reference(path)}
    for weights in (SAME, DEFAULT):
        for backend, precision in BACKENDS:
            config = PredictConfig(device="cpu", backend=backend, precision=precision)
            try:
                found[weights, f"{backend} {precision}"] = open_predictor(
                    weights, window=(SIDE, SIDE), config=config, calibration=calibration_pairs
                )
            except GeocdError as error:
                print(f"{weights} {backend} {precision} is left out: {error}")
    return found


def _seconds(program: Callable[[], object]) -> float:
    begun = time.perf_counter()
    program()
    return time.perf_counter() - begun


def networks(path: Path | None, rounds: int) -> float:
    """Print the table of networks alone; returns the yardstick's megapixels a second."""
    scene = paint_scene((BATCH * SIDE, SIDE), seed=1)
    before = np.ascontiguousarray(np.stack(np.split(scene, BATCH, axis=1)))
    after = np.ascontiguousarray(before[::-1])
    scorers, speeds = contestants(path), {}
    known = [p for p in ("float32", "bf16") if p in openvino.precisions()]
    products = {precision: product_rates(precision) for precision in known}
    rates: dict[str, list[float]] = {precision: [] for precision in known}
    for run in range(rounds + 1):
        for key, scorer in scorers.items():
            seconds = _seconds(lambda run=scorer: run(before, after))
            if run:  # the first round warms up
                speed = before.shape[0] * SIDE**2 / 1e6 / seconds
                speeds.setdefault(key, []).append(speed)
        for precision, programs in products.items():
            seconds = min(_seconds(program) for program in programs.values())
            rates[precision].append(2 * ORDER**3 / 1e9 / seconds)
    yardstick = statistics.median(next(iter(speeds.values())))
    work = {weights: window_gflop(weights) for weights in (SAME, DEFAULT)}
    print(f"\nnetworks alone, batches of {BATCH}, medians of {rounds} rounds in turns\n")
    print("| weights | backend | Mpix/s | ratio | GFLOP/s | of a matrix product |")
    print("|---|---|---|---|---|---|")
    for (weights, name), each in speeds.items():
        speed = statistics.median(each)
        rate = speed * 1e6 / SIDE**2 * work[weights]
        peaks = [statistics.median(rates[p][1:]) for p in known if p in name]
        share = f"{rate / peaks[0]:.0%} of {peaks[0]:.0f}" if peaks else "-"
        print(f"| {weights} | {name} | {speed:.2f} | {speed / yardstick:.1f} | {rate:.0f} | "
              f"{share} |", flush=True)  # fmt: skip
    return yardstick


def paint(folder: Path, side: int) -> list[str]:
    """Before and after of repeated ground: other light and noise, two changes in 1024 pixels.

    At 0.8 m, which both weights read as it is.
    """
    before, rng = paint_scene((1024, 1024), seed=1), np.random.default_rng(0)
    after = np.clip(0.95 * before + 6 + rng.normal(0, 3, before.shape), 0, 255).astype(np.uint8)
    for row, col in rng.integers(0, 980, (2, 2)):
        after[:, row : row + 30, col : col + 24] = rng.integers(120, 250, (3, 1, 1))
    paths = []
    for name, image in (("before", before), ("after", after)):
        paths.append(str(folder / f"{name}.tif"))
        with rasterio.open(
            paths[-1], "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8",
            crs="EPSG:32633", transform=Affine(0.8, 0, 5e5, 0, -0.8, 5e6), tiled=True,
            blockxsize=256, blockysize=256, compress="deflate",
        ) as dataset:  # fmt: skip
            for row in range(0, side, 1024):
                for col in range(0, side, 1024):
                    height, width = min(1024, side - row), min(1024, side - col)
                    window = Window(col, row, width, height)
                    dataset.write(image[:, :height, :width], window=window)
    return paths


def command(paths: list[str], folder: Path, options: list[str]) -> dict[str, Any] | None:
    """What a run says of itself, with its seconds and its peak MiB; None if it fails."""
    call = [sys.executable, "-c", _LAUNCH, sys.executable, "-m", "geocd_cli", "detect", *paths,
            "-o", str(folder / "c.gpkg"), "--mask", str(folder / "m.tif"), "--align", "off",
            "--overwrite", "--json", "-q", *options]  # fmt: skip
    begun = time.perf_counter()
    process = subprocess.run(call, stdout=subprocess.PIPE, text=True)
    wall = time.perf_counter() - begun
    if process.returncode:
        return None
    said, peak = process.stdout.strip().rsplit("\n", 1)
    return json.loads(said) | {"wall": wall, "peak": int(peak) / 1024}


def commands(side: int, rounds: int, yardstick: float) -> None:
    """Print the tables of whole commands."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = paint(folder, side)
        for _ in range(rounds):
            for weights in (SAME, DEFAULT):
                for label, options in COMMANDS.items():
                    if "int8" in options and importlib.util.find_spec("nncf") is None:
                        continue
                    found = command(paths, folder, ["--weights", weights, *options])
                    if found:
                        runs.setdefault((weights, label), []).append(found)
    print(f"\nwhole command, {side} x {side} pixels, medians of {rounds} rounds in turns\n")
    print("| weights | settings | backend | s | Mpix/s | ratio | not the network | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    middle = {key: sorted(each, key=lambda run: run["wall"])[len(each) // 2]
              for key, each in runs.items()}  # fmt: skip
    for (weights, label), run in middle.items():
        speed = side * side / 1e6 / run["wall"]
        network = run["seconds_within_predict"]["network"] + run["seconds"]["check"]
        rest = 1 - network / run["wall"]
        print(f"| {weights} | {label} | {run['backend']} | {run['wall']:.1f} | {speed:.2f} | "
              f"{speed / yardstick:.1f} | {rest:.0%} | {run['peak']:.0f} |")  # fmt: skip
    print("\nseconds by stage; those in brackets overlap within predict\n")
    for (weights, label), run in middle.items():
        inner = ", ".join(f"{k} {v:.1f}" for k, v in run["seconds_within_predict"].items())
        stages = ", ".join(f"{k} {v:.1f}" for k, v in run["seconds"].items())
        print(f"{weights}, {label}: {stages} ({inner})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="the published file of models")
    parser.add_argument("--side", type=int, default=8192, help="pixels; 0: networks alone")
    parser.add_argument("--rounds", type=int, default=5, help="of the networks")
    parser.add_argument("--command-rounds", type=int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"geocd {geocd.__version__}, torch {torch.__version__}, {platform.machine()}, "
          f"{os.cpu_count()} cores, {torch.get_num_threads()} used, load {load:.1f}")  # fmt: skip
    yardstick = networks(options.reference, options.rounds)
    if options.side:
        commands(options.side, options.command_rounds, yardstick)


if __name__ == "__main__":
    main()
