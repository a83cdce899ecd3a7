"""Inspection of circuit boards: what is missed, what is invented, which good boards are stopped.

    python benchmarks/inspection.py --data ../shared/data/pcb

The threshold comes from products that the weights were not trained on (``--calibration``), the
figures from others again (``--products``). Each board is held against its own template, through
the whole of ``geocd inspect``: registration, quality, network, defects. Good boards are the
templates themselves under another exposure, noise, shift and turn. The baseline is the colour
difference with Otsu's threshold, after the same registration. Prints Markdown.

For weights that were adapted to a product:

    python benchmarks/inspection.py --data ... --weights new-product.safetensors \\
        --products 13000 --threshold 0.5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import geocd
from geocd.assess.baselines import difference_otsu
from geocd.assess.calibrate import calibrate
from geocd.assess.conformal import Promise
from geocd.config import SCORE_SCALE, CalibrateConfig, DetectConfig, InspectConfig, TilingConfig
from geocd.inspect.inspector import Inspector
from geocd.inspect.verdict import Verdict
from geocd.predict.backends import open_predictor

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
MAX_MISS = 0.02
"""Largest share of missed defects for which the threshold is calibrated."""
COVER = 0.05
"""Share of its annotated box from which on a defect is found; the smallest fill about as much."""
NEAR = 3
"""Pixels around an annotated box in which an alarm is not false."""
ALTERATIONS = ("exposure", "noise", "shift", "turn", "all")
"""What is done to good boards."""


@dataclass
class Tally:
    """What was counted on the boards of a product."""

    boards: int = 0
    annotated: int = 0
    found: int = 0
    false: int = 0
    words: dict[str, int] = field(default_factory=dict)

    def add(self, shown: Mask, boxes: Mask, word: str) -> None:
        """A board with what is shown as defect, and the annotated boxes."""
        count, numbers = cv2.connectedComponents(boxes.astype(np.uint8), connectivity=8)
        hit = np.unique(numbers[shown])
        wide = cv2.dilate(boxes.astype(np.uint8), np.ones((2 * NEAR + 1,) * 2, np.uint8)) > 0
        alarms, labels = cv2.connectedComponents(shown.astype(np.uint8), connectivity=8)
        real = np.unique(labels[wide & shown])
        self.boards += 1
        self.annotated += count - 1
        self.found += int((hit > 0).sum())
        self.false += alarms - 1 - int((real > 0).sum())
        self.words[word] = self.words.get(word, 0) + 1

    def __add__(self, other: Tally) -> Tally:
        words = {k: self.words.get(k, 0) + other.words.get(k, 0)
                 for k in self.words | other.words}  # fmt: skip
        return Tally(self.boards + other.boards, self.annotated + other.annotated,
                     self.found + other.found, self.false + other.false, words)  # fmt: skip

    def row(self, name: str) -> str:
        """For the table."""
        recall = self.found / self.annotated if self.annotated else float("nan")
        words = [str(self.words.get(word, 0)) for word in ("pass", "reject", "cannot judge")]
        return (
            f"| {name} | {self.boards} | {self.annotated} | {self.annotated - self.found} | "
            f"{recall:.4f} | {self.false / max(self.boards, 1):.2f} | {' | '.join(words)} |"
        )


def names_of(data: Path, products: Sequence[str]) -> list[str]:
    """Names of the boards of some products."""
    return sorted(p.stem for p in (data / "B").iterdir() if p.stem[:5] in products)


def read(path: Path) -> Image:
    """A picture in grey, or a mask."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise SystemExit(f"cannot read {path}")
    return np.asarray(image, np.uint8)


def link(data: Path, products: Sequence[str], folder: Path) -> None:
    """A set of the pairs of some products, made of links."""
    # The boxes: what differs within them is in part an edge that lies beside the golden's.
    for part, source in (("A", "A"), ("B", "B"), ("label", "label_box")):
        (folder / part).mkdir(parents=True)
        for path in (data / source).iterdir():
            if path.stem[:5] in products:
                (folder / part / path.name).symlink_to(path.resolve())


def tiling_of(options: argparse.Namespace) -> TilingConfig:
    """The windows, of the calibration as of the inspections."""
    return TilingConfig(tile_size=options.tile_size, overlap=options.overlap)


def operating_point(options: argparse.Namespace) -> tuple[float, str]:
    """The threshold, and what it promises, in words."""
    promise = CalibrateConfig(
        unit="object", max_miss=MAX_MISS, confidence=None, cover=COVER,
        min_area=InspectConfig().min_area,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        link(options.data, options.calibration, Path(folder) / "pairs")
        result = calibrate(
            Path(folder) / "pairs", promise=promise, kind="defect",
            config=DetectConfig(weights=options.weights, tiling=tiling_of(options)),
        )  # fmt: skip
    needed = Promise(MAX_MISS, 0.95).needed_units
    units = result.point.calibration["units"]
    words = (
        f"{result.report()}\n\n"
        f"To promise {MAX_MISS:.0%} with a confidence of 95 %, {needed} boards "
        f"without a miss are needed; there are {units}, so it holds on average over such sets."
    )
    return result.point.threshold, words


def shown_by(verdict: Verdict, threshold: float, least: float) -> Mask:
    """Pixels of the defects that count."""
    if verdict.scores is None:
        return np.zeros((1, 1), bool)
    level = max(1, int(np.ceil(threshold * SCORE_SCALE - 1e-9)))
    return large((verdict.scores >= level) & (verdict.scores <= SCORE_SCALE), least)


def large(mask: Mask, least: float) -> Mask:
    """The mask without spots of fewer pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    kept = stats[:, cv2.CC_STAT_AREA] >= least
    kept[0] = False
    return np.asarray(kept[labels])


def otsu(golden: Image, verdict: Verdict, least: float) -> Mask:
    """What the baseline shows of the registered sample."""
    assert verdict.aligned is not None
    after = np.moveaxis(verdict.aligned, 0, -1)
    if after.shape[2] == 1:
        after = after.repeat(3, axis=2)
    mask = difference_otsu(golden[..., None].repeat(3, axis=2), after)
    return large(mask & (verdict.scores <= SCORE_SCALE), least)


def altered(golden: Image, kind: str, rng: np.random.Generator) -> Image:
    """A good board as another camera sees it.

    Args:
        golden: shape (height, width), uint8.
        kind: one of ``ALTERATIONS``: gamma 0.7..1.4, gain 0.8..1.1, offset up to 20; noise of 3 to
            12 levels; a shift of up to 5 px; a turn of up to 0.5 degrees; or all of them.
        rng: decides everything.
    """
    image = golden.astype(np.float32)
    turn = rng.uniform(-0.5, 0.5) if kind in ("turn", "all") else 0.0
    shift = rng.uniform(-5, 5, 2) if kind in ("shift", "all") else np.zeros(2)
    if turn or shift.any():
        height, width = golden.shape
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1.0)
        matrix[:, 2] += shift
        image = cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
    if kind in ("exposure", "all"):
        image = 255 * (np.clip(image, 0, 255) / 255) ** rng.uniform(0.7, 1.4)
        image = image * rng.uniform(0.8, 1.1) + rng.uniform(-20, 20)
    if kind in ("noise", "all"):
        image = image + rng.normal(0, rng.uniform(3, 12), image.shape)
    return np.asarray(np.clip(image, 0, 255).round(), np.uint8)


class Bench:
    """Inspectors of many goldens that share one network."""

    def __init__(self, options: argparse.Namespace, threshold: float) -> None:
        self.config = InspectConfig(threshold=threshold, tiling=tiling_of(options))
        window = (options.tile_size, options.tile_size)
        self.predictor = open_predictor(options.weights, window=window, config=self.config.predict)

    def inspector(self, golden: Image) -> Inspector:
        """One golden's."""
        return Inspector([golden], self.predictor, config=self.config)


def test(bench: Bench, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Tallies of geocd and of the baseline by product, and boards that a person should look at."""
    ours: dict[str, Tally] = {}
    baseline: dict[str, Tally] = {}
    remarks = []
    least = bench.config.min_area
    for name in names_of(options.data, options.products):
        golden, sample = read(options.data / f"A/{name}.jpg"), options.data / f"B/{name}.jpg"
        boxes = read(options.data / f"label_box/{name}.png") > 127
        product = name[:5]
        try:
            verdict = bench.inspector(golden).judge(sample)
        except geocd.GeocdError as error:
            remarks.append(f"{name}: no inspector ({error})")
            continue
        if verdict.word != "reject":
            remarks.append(str(verdict))
        if verdict.scores is None:
            tally = ours.setdefault(product, Tally())
            tally.words[verdict.word] = tally.words.get(verdict.word, 0) + 1
            continue
        shown = shown_by(verdict, float(bench.config.threshold), least)
        ours.setdefault(product, Tally()).add(shown, boxes, verdict.word)
        mask = otsu(golden, verdict, least)
        baseline.setdefault(product, Tally()).add(mask, boxes, "reject" if mask.any() else "pass")
    return {"geocd": ours, "difference + Otsu": baseline}, remarks


def good(
    bench: Bench, options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, int], dict[str, int], list[str]]]:
    """Verdicts on good boards, of geocd and of the baseline, by alteration."""
    names = names_of(options.data, options.products)
    counts = {kind: ({}, {}, []) for kind in ALTERATIONS}
    for index, name in enumerate(names):
        golden = read(options.data / f"A/{name}.jpg")
        try:
            inspector = bench.inspector(golden)
        except geocd.GeocdError:
            continue  # told with the test
        for number, kind in enumerate(ALTERATIONS):
            rng = np.random.default_rng([options.seed, index, number])
            verdict = inspector.judge(altered(golden, kind, rng), name=f"{name}, {kind}")
            ours, baseline, remarks = counts[kind]
            ours[verdict.word] = ours.get(verdict.word, 0) + 1
            if not verdict.passed:
                remarks.append(str(verdict))
            if verdict.scores is not None:
                stopped = otsu(golden, verdict, bench.config.min_area).any()
                word = "reject" if stopped else "pass"
                baseline[word] = baseline.get(word, 0) + 1
    for kind, (ours, baseline, remarks) in counts.items():
        yield kind, ours, baseline, remarks


def speed(bench: Bench, options: argparse.Namespace) -> tuple[float, float]:
    """Wall-clock and processor seconds a sample, files to verdicts, one golden."""
    name = names_of(options.data, options.products)[0]
    golden = read(options.data / f"A/{name}.jpg")
    inspector = bench.inspector(golden)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for index in range(options.timed):
            files.append(Path(folder) / f"{index}.png")
            cv2.imwrite(str(files[-1]), altered(golden, "all", np.random.default_rng(index)))
        inspector.judge(files[0])
        wall, processor = time.perf_counter(), time.process_time()
        for _ in inspector.judge_all(files):
            pass
        done = len(files)
        return (time.perf_counter() - wall) / done, (time.process_time() - processor) / done


def report(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Print the tables; what is in them, JSON-ready."""
    tallies, remarks = test(bench, options)
    head = "| boards of | boards | defects | missed | recall | false an image | pass | reject | "
    print(f"## Boards with defects\n\n{head}cannot judge |\n{'|---' * 9}|")
    out: dict[str, Any] = {}
    for method, by_product in tallies.items():
        for product, tally in by_product.items():
            print(tally.row(f"{product}, {method}"))
        total = sum(by_product.values(), Tally())
        print(total.row(f"all, {method}"))
        out[method] = vars(total) | {"by_product": {k: vars(t) for k, t in by_product.items()}}
    print("", *remarks, sep="\n- ")
    print("\n## Good boards\n\n| altered in | pass | reject | cannot judge | Otsu passes |")
    print("|---|---|---|---|---|")
    out["good"] = {}
    told = []
    for kind, ours, baseline, notes in good(bench, options):
        passed, rejected, unsure = (ours.get(w, 0) for w in ("pass", "reject", "cannot judge"))
        print(f"| {kind} | {passed} | {rejected} | {unsure} | {baseline.get('pass', 0)} |")
        out["good"][kind] = ours | {"otsu_passes": baseline.get("pass", 0)}
        told += notes
    print("", *told[:12], sep="\n- ")
    if options.timed:
        wall, processor = speed(bench, options)
        print(f"\n{1 / wall:.1f} samples a second ({processor:.3f} s of processor time each)")
        out["speed"] = {"samples_per_second": 1 / wall, "processor_seconds": processor}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pcb"))
    parser.add_argument("--weights", default="pcb")
    parser.add_argument("--products", nargs="+", default=["13000", "44000"])
    parser.add_argument("--calibration", nargs="+", default=["77000", "92000"])
    parser.add_argument("--threshold", type=float, help="leaves the calibration out")
    parser.add_argument("--tile-size", type=int, default=640, help="side of a window, pixels")
    parser.add_argument("--overlap", type=int, default=64, help="of windows, pixels")
    parser.add_argument("--timed", type=int, default=40, help="samples that are timed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"geocd {geocd.__version__}, OpenCV {cv2.__version__}, Python "
          f"{platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
          f"{options.weights}, products {', '.join(options.products)}, "
          f"seed {options.seed}\n")  # fmt: skip
    threshold = options.threshold
    if threshold is None:
        threshold, words = operating_point(options)
        print(f"## Operating point, from {', '.join(options.calibration)}\n\n{words}\n")
    print(f"threshold {threshold:.4f}\n")
    figures = report(Bench(options, threshold), options) | {"threshold": threshold}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
