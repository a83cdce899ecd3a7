"""What the network reaches of what a large matrix product reaches, in one run and in alternation.

    python benchmarks/roofline.py --weights geocd-vhr geocd-snunet

For each backend and precision: milliseconds a window of 256 x 256, GFLOP/s (two operations a
multiplication and addition, counted in the convolutions), and its share of the rate of a matrix
product of 2048 x 2048 in the same precision, by torch or by OpenVINO, whichever is faster there.
Medians; how many threads is OMP_NUM_THREADS. A machine that others use gives ratios at best.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from geocd.config import PredictConfig
from geocd.models.checkpoint import load_weights
from geocd.predict import openvino
from geocd.predict.backends import open_predictor
from geocd.predict.runtime import openvino as runtime

SIDE, ORDER, WINDOWS = 256, 2048, 4
PRECISIONS = ("float32", "bf16")


def window_gflop(weights: str) -> float:
    """Operations of the convolutions for one window pair, in thousand millions."""
    network, total = load_weights(weights).network, 0

    def _count(module: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        kernel = module.weight[0].numel()  # inputs of one output
        places = output.numel()
        if isinstance(module, nn.ConvTranspose2d):
            kernel, places = module.weight.numel() // module.in_channels, _[0].numel()
        total += 2 * kernel * places

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(_count)
    bands = network.get_parameter(next(iter(network.state_dict()))).shape[1]
    with torch.inference_mode():
        network(*torch.zeros(2, 1, bands, SIDE, SIDE))
    return total / 1e9


def _torch_product(precision: str) -> Callable[[], object]:
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = (torch.randn(ORDER, ORDER, dtype=dtype) for _ in range(2))
    return lambda: a @ b


def _openvino_product(precision: str) -> Callable[[], object]:
    ov = runtime()
    a = ov.opset13.parameter([ORDER, ORDER], ov.Type.f32)
    b = ov.opset13.constant(np.random.default_rng(0).random((ORDER, ORDER), np.float32))
    model = ov.Model([ov.opset13.matmul(a, b, False, False)], [a], "product")
    settings = {"INFERENCE_PRECISION_HINT": {"float32": "f32"}.get(precision, precision),
                "INFERENCE_NUM_THREADS": openvino.threads()}  # fmt: skip
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(ov.Tensor(np.ones((ORDER, ORDER), np.float32)))
    return lambda: request.infer(share_outputs=True)


def product_rates(precision: str) -> dict[str, Callable[[], object]]:
    """Matrix products of 2 * 2048**3 operations each."""
    return {"torch": _torch_product(precision), "openvino": _openvino_product(precision)}


def medians(programs: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, float]:
    """Seconds of each program, run in turn so that all meet the same conditions."""
    taken: dict[Any, list[float]] = {name: [] for name in programs}
    for turn in range(repeats + 1):
        for name, program in programs.items():
            begun = time.perf_counter()
            program()
            if turn:  # the first is for warming up
                taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="+", default=["geocd-vhr", "geocd-snunet"])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(openvino.threads())
    pair = np.random.default_rng(0).integers(0, 255, (2, WINDOWS, 3, SIDE, SIDE), np.uint8)
    programs: dict[Any, Callable[[], object]] = {}
    for precision in (p for p in PRECISIONS if p in openvino.precisions()):
        for name, product in product_rates(precision).items():
            programs["product", name, precision] = product
        for weights in options.weights:
            for backend in ("torch", "openvino"):
                config = PredictConfig(device="cpu", backend=backend, precision=precision)
                predictor = open_predictor(weights, window=(SIDE, SIDE), config=config)
                programs[weights, backend, precision] = lambda run=predictor: run(*pair)
    seconds = medians(programs, options.repeats)
    gflop = {weights: window_gflop(weights) for weights in options.weights}
    best = {
        precision: max(2 * ORDER**3 / 1e9 / s for k, s in seconds.items()
                       if k[0] == "product" and k[2] == precision)
        for _, _, precision in programs
    }  # fmt: skip
    print(f"{openvino.threads()} threads\n\n| what | backend | precision | ms | GFLOP/s | share |")
    print("|---|---|---|---|---|---|")
    for (what, backend, precision), taken in seconds.items():
        work = 2 * ORDER**3 / 1e9 if what == "product" else WINDOWS * gflop[what]
        number = 1 if what == "product" else WINDOWS
        rate = work / taken
        print(f"| {what} | {backend} | {precision} | {1e3 * taken / number:.1f} | {rate:.0f} | "
              f"{rate / best[precision]:.0%} |")  # fmt: skip


if __name__ == "__main__":
    main()
