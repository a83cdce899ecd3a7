"""What a conversion to OpenVINO costs weights in accuracy, in float32 and in bfloat16.

    python benchmarks/export.py --data ../shared/data/pairs --weights geocd-vhr

Every pair is read whole at the scale of the weights and scored by torch in float32 (the
yardstick), by torch under bfloat16 autocast, and by OpenVINO in both precisions. Prints F1 at the
card's threshold, the largest and the mean difference of scores, and the share of pixels on the
other side of the threshold. On processors without bfloat16 OpenVINO computes in float32; the
last column says what it used.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor, nn

from geocd.assess.metrics import Confusion, confusion
from geocd.models.checkpoint import Weights, load_weights
from geocd.rasters.grid import Grid
from geocd.rasters.pair import reading_grid
from geocd.training.datasets import find_pairs, read_image, read_pixels

# OpenVINO reports its conversions over the network unless it thinks that this is a CI.
os.environ.setdefault("CI", "true")
import openvino as ov

SETS = {"levir256": 0.5, "whu512": 0.2}
"""Folder below --data, and metres per pixel."""
Score = Callable[[Tensor, Tensor], NDArray[np.float32]]


def read(path: Path, zoom: float, card_mean: float, card_std: float) -> Tensor:
    """An image at the reading scale, normalised, cut to multiples of 16: (1, 3, H, W)."""
    image = read_image(path)
    if zoom != 1:
        kernel = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=kernel)
    height, width = (side // 16 * 16 for side in image.shape[:2])
    normal = (image[:height, :width].astype(np.float32) - card_mean) / card_std
    return torch.from_numpy(normal).permute(2, 0, 1)[None].contiguous()


class _Scores(nn.Module):
    """Scores instead of logits, so that both programs do the whole work."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.network, self.exclusive = weights.network, weights.card.exclusive

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        logits = self.network(before, after)
        return logits.softmax(dim=1)[:, 1:] if self.exclusive else logits.sigmoid()


def backends(weights: Weights) -> dict[str, tuple[Score, str]]:
    """Each backend with the precision that it says it uses."""
    module = _Scores(weights).eval()

    def by_torch(before: Tensor, after: Tensor, *, half: bool) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            return module(before, after)[0].float().numpy()

    def by_openvino(hint: str) -> tuple[Score, str]:
        example = torch.zeros(1, 3, 64, 64)
        model = ov.convert_model(module, example_input=(example, example))
        compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

        def score(before: Tensor, after: Tensor) -> NDArray[np.float32]:
            return np.asarray(compiled((before.numpy(), after.numpy()))[0][0])

        return score, used

    return {
        "torch float32": (lambda a, b: by_torch(a, b, half=False), "f32"),
        "torch bfloat16": (lambda a, b: by_torch(a, b, half=True), "bf16"),
        "OpenVINO float32": by_openvino("f32"),
        "OpenVINO bfloat16": by_openvino("bf16"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", default="geocd-vhr")
    options = parser.parse_args()
    weights = load_weights(options.weights)
    card, threshold = weights.card, weights.card.thresholds[0]
    programs = backends(weights)
    print("| set | backend | F1 | largest difference | mean | other side | used |")
    print("|---|---|---|---|---|---|---|")
    for name, pixel in SETS.items():
        grid = Grid(None, Affine.identity(), 1000, 1000)
        zoom = reading_grid(grid, gsd_range=card.gsd, pixel_size=pixel).width / 1000
        rows: dict[str, list[tuple[Confusion, float, float, float]]] = {k: [] for k in programs}
        for pair in find_pairs(options.data / name):
            before, after = (read(p, zoom, card.mean[0], card.std[0])
                             for p in (pair.before, pair.after))  # fmt: skip
            height, width = before.shape[2:]
            label = (read_pixels(pair.label)[..., 0] > 0).astype(np.uint8)
            label = cv2.resize(label, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
            truth = label[:height, :width] > 0
            base = None
            for program, (score, _) in programs.items():
                found = score(before, after)[0]
                base = found if base is None else base
                gap = np.abs(found - base)
                flips = float(((found >= threshold) != (base >= threshold)).mean())
                agreed = confusion(found >= threshold, truth)
                rows[program].append((agreed, float(gap.max()), float(gap.mean()), flips))
        for program, figures in rows.items():
            counts, most, mean, flips = zip(*figures, strict=True)
            f1 = sum(counts, Confusion(0, 0, 0, 0)).f1
            print(f"| {name} | {program} | {f1:.4f} | {max(most):.4f} | {np.mean(mean):.5f} | "
                  f"{np.mean(flips):.3%} | {programs[program][1]} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
