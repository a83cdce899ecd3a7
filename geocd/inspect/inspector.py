"""One sample after another held against the golden: pass, reject or cannot judge."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.config import NOT_OBSERVED, DetectConfig, InspectConfig, thresholds_of
from geocd.errors import ConfigError, GeocdError
from geocd.inspect.defects import find_defects, threshold_levels
from geocd.inspect.frame import Frame
from geocd.inspect.goldens import Goldens, Picture, brought, open_frame, open_goldens
from geocd.inspect.quality import Light
from geocd.inspect.register import Registration
from geocd.inspect.verdict import CANNOT_JUDGE, PASS, REJECT, Verdict, cannot_judge
from geocd.inspect.zones import Zone, map_zones
from geocd.models.files import bundled_weights, find_weights, read_card
from geocd.predict.backends import open_predictor
from geocd.predict.flow import prefetch
from geocd.predict.memory import fit_batch
from geocd.predict.openvino import threads
from geocd.predict.predictor import Predictor
from geocd.tiling.stitch import Stitcher
from geocd.tiling.windows import Window, split

log = logging.getLogger(__name__)

Scored = NDArray[np.uint8] | Exception | None
"""Levels of a sample, what went wrong when they were made, or None if none were wanted."""

DEFAULT_WEIGHTS = "pcb"
"""Weights that were trained to tell defects."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample on the golden's grid, ready for the network; or with a verdict already.

    Attributes:
        name: of the sample.
        verdict: final, if it cannot be judged at all.
        aligned: on the golden's grid.
        seen: where it was observed, shape (height, width).
        registration: how it lies.
        goldens: numbers of the goldens that it is held against.
        lights: its light, relative to each of them.
        measures: for the verdict.
        doubts: why it cannot be judged, although it is aligned.
    """

    name: str
    verdict: Verdict | None = None
    aligned: Frame | None = None
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    registration: Registration | None = None
    goldens: tuple[int, ...] = ()
    lights: tuple[Light, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


class Inspector:
    """Holds samples against golden pictures.

        inspector = Inspector(["golden.png"], "pcb", config=InspectConfig(mm_per_pixel=0.05))
        verdict = inspector.judge("sample.png")       # a file, or an array (height, width[, 3])
        verdict.word, verdict.reasons, verdict.defects
        for verdict in inspector.judge_all(files):    # several at a time: faster
            ...

    Whatever goes wrong with one sample makes it 'cannot judge', never a pass, and ends nothing.
    Everything that depends on the goldens alone is made here, once. One thread calls it.

    Args:
        goldens: pictures of good parts, files or arrays, of one size; the grid, the zones and all
            results are in pixels of the first.
        network: name or file of weights, or a predictor that is ready; None: the bundled ``pcb``.
        config: every setting.
        zones: limits and masks; see ``geocd.inspect.zones``.

    Raises:
        ConfigError: settings that exclude each other.
        InputError: goldens that cannot be used, or zones outside of them.
        GeocdError: and its other kinds, for weights and backends.
    """

    def __init__(
        self, goldens: Sequence[Picture], network: str | Path | Predictor | None = None, *,
        config: InspectConfig | None = None, zones: Sequence[Zone] = (),
    ) -> None:  # fmt: skip
        self.config = config = config or InspectConfig()
        frames = open_goldens(goldens, white=config.white)
        self.shape, self.is_colour = frames[0].shape, frames[0].is_colour
        self.all_zones = tuple(zones)
        self.zones = map_zones(self.all_zones, self.shape)
        self.goldens = Goldens(frames, self.zones.excluded, max_shift=config.max_shift)
        self._batch = config.predict.batch_size
        self.predictor = self._open(network)
        self.card = card = self.predictor.card
        self.classes = card.change_classes
        self.thresholds = thresholds_of(config.threshold, self.classes, card.thresholds)
        self._limits = threshold_levels(self.thresholds, self.zones)
        self._channels = [Frame(p).channels(len(card.bands)) for p in self.goldens.planes]
        self._windows = list(split(self.shape, config.tiling))
        self._golden_windows = [_cut(c, self._windows) for c in self._channels]
        self._rim = _rim(self.shape, config.border)

    def _open(self, network: str | Path | Predictor | None) -> Predictor:
        if network is None:
            if DEFAULT_WEIGHTS not in bundled_weights():
                raise ConfigError("no weights for inspection come with geocd; name some: --weights")
            network = DEFAULT_WEIGHTS
        if not isinstance(network, str | Path):
            return network
        side = self.config.tiling.tile_size
        window = (min(side, self.shape[0]), min(side, self.shape[1]))
        predict, card = self.config.predict, read_card(find_weights(str(network)))
        as_detect = DetectConfig(tiling=self.config.tiling, predict=predict)
        self._batch = fit_batch(self.shape, card, as_detect)
        predict = replace(predict, batch_size=self._batch)
        return open_predictor(str(network), window=window, config=predict)

    def judge(self, sample: Picture, *, name: str | None = None) -> Verdict:
        """The verdict on one sample; never an exception for what is wrong with it.

        Args:
            sample: a file, or an array of shape (height, width) or (height, width, 3), uint8 or
                uint16.
            name: what the verdict calls it; None: the file's name.
        """
        prepared = self.prepare(sample, name=name)
        return self._finish(prepared, *self._levels([prepared]))

    def judge_all(self, samples: Iterable[Picture]) -> Iterator[Verdict]:
        """Verdicts in the order of the samples.

        While the network runs on as many samples as keep every processor busy, those after them
        are registered, and those before them judged.
        """
        together = math.ceil(threads() / len(self._windows))
        ahead = prefetch((self.prepare(sample) for sample in samples), depth=2 * together)
        with closing(prefetch(self._scored(ahead, together), depth=2 * together)) as scored:
            for prepared, levels in scored:
                yield self._finish(prepared, levels)

    def prepare(self, sample: Picture, *, name: str | None = None) -> Prepared:
        """Read and register a sample, and see if it is fit to be judged.

        May run in another thread than the network. Args as for ``judge``.
        """
        called = name or (Path(sample).name if isinstance(sample, str | Path) else "sample")
        try:
            return self._prepare(called, sample)
        except GeocdError as error:
            return Prepared(called, cannot_judge(called, str(error)))
        except Exception as error:
            return Prepared(called, _failed(called, error))

    def score(self, samples: Sequence[Prepared]) -> list[NDArray[np.uint8]]:
        """Levels of aligned samples, (classes, height, width), 0..254, 255 where not observed.

        Against several goldens, the lowest: a defect differs from all of them.
        """
        pairs = [(golden, sample) for sample in samples for golden in sample.goldens]
        before = np.concatenate([self._golden_windows[golden] for golden, _ in pairs])
        after = np.concatenate([self._sample_windows(*pair) for pair in pairs])
        parts = [slice(k, k + self._batch) for k in range(0, len(after), self._batch)]
        levels = np.concatenate([self.predictor(before[part], after[part]) for part in parts])
        each = iter(np.split(levels, len(pairs)))
        return [
            np.where(
                sample.seen,
                np.min([self._stitched(next(each)) for _ in sample.goldens], axis=0),
                np.uint8(NOT_OBSERVED),
            )
            for sample in samples
        ]

    def _scored(
        self, samples: Iterator[Prepared], together: int
    ) -> Iterator[tuple[Prepared, Scored]]:
        while group := tuple(islice(samples, together)):
            yield from zip(group, self._levels(group), strict=True)

    def _levels(self, samples: Sequence[Prepared]) -> list[Scored]:
        """Levels of those that can be judged, or what went wrong with them; None for the others."""
        able = [sample for sample in samples if sample.verdict is None]
        try:
            levels = iter(self.score(able) if able else [])
        except Exception as error:
            if len(samples) > 1:
                return [scored for sample in samples for scored in self._levels([sample])]
            return [error]
        return [next(levels) if sample.verdict is None else None for sample in samples]

    def _prepare(self, name: str, sample: Picture) -> Prepared:
        frame = open_frame(sample, white=self.config.white)
        wrong = self._wrong_kind(frame)
        if wrong:
            return Prepared(name, cannot_judge(name, wrong))
        found = self.goldens.register(frame.gray)
        if not found.proven:
            reason = f"not aligned with the golden: {found.reason}"
            return Prepared(name, cannot_judge(name, reason, registration=found))
        planes, seen = brought(frame.planes, found.motion, self.shape)
        aligned = Frame(planes)
        everyone = tuple(range(len(self.goldens)))
        nearest = self.goldens.nearest(aligned, seen)
        used = everyone if self.config.golden_rule == "union" else (nearest,)
        lights = tuple(self.goldens.quality[n].light(aligned.gray, seen) for n in used)
        light = lights[used.index(nearest)]
        measures = {
            "sharpness": self.goldens.quality[0].sharpness(frame.gray, found.motion),
            "contrast": light.gain,
            "brightness": light.brightness,
            "noise": light.noise,
            "unseen": float((~seen & ~self.zones.excluded).mean()),
        }
        doubts = self._doubts(found, measures, seen)
        return Prepared(name, None, aligned, seen, found, used, lights, measures, tuple(doubts))

    def _wrong_kind(self, frame: Frame) -> str:
        """Why a picture is not of the golden's kind; empty if it is."""
        if frame.shape != self.shape:
            (height, width), (golden_height, golden_width) = frame.shape, self.shape
            return (
                f"another size than the golden: {width} x {height} pixels, and the golden has "
                f"{golden_width} x {golden_height}"
            )
        if frame.is_colour != self.is_colour:
            kinds = ("colour", "grey") if frame.is_colour else ("grey", "colour")
            return f"it is in {kinds[0]} and the golden in {kinds[1]}: another camera or setting"
        return ""

    def _doubts(
        self, found: Registration, measures: dict[str, float], seen: NDArray[np.bool_]
    ) -> Iterator[str]:
        """Why an aligned sample cannot be judged all the same."""
        config = self.config
        if not found.residual_px <= config.max_residual:
            yield (
                f"not aligned well enough: its edges lie {found.residual_px:.2f} px off, and "
                f"{config.max_residual:g} are allowed"
            )
        if not measures["sharpness"] >= config.min_sharpness:
            yield (
                f"blurred: its edges are {measures['sharpness']:.0%} as steep as the golden's, and "
                f"{config.min_sharpness:.0%} are needed"
            )
        low, high = config.contrasts
        if not low <= measures["contrast"] <= high:
            yield (
                f"out of distribution: its contrast is {measures['contrast']:.2f} times the "
                f"golden's, and {low:g} to {high:g} are allowed"
            )
        if not abs(measures["brightness"]) <= config.max_brightness:
            yield (
                f"out of distribution: its brightness differs by {measures['brightness']:+.0f} "
                f"grey levels from the golden's, and {config.max_brightness:g} are allowed"
            )
        if not measures["noise"] <= config.max_noise:
            yield (
                f"out of distribution: its noise is {measures['noise']:.2f} of the golden's "
                f"contrast, and {config.max_noise:g} are allowed"
            )
        missing = ~seen & ~self.zones.excluded & ~self._rim
        if missing.any():
            yield (
                f"{int(missing.sum()):,} pixels of the golden, further than {config.border:g} px "
                "from its edge, are not in the picture"
            )

    def _sample_windows(self, golden: int, sample: Prepared) -> NDArray[np.uint8]:
        """Windows of an aligned sample, (N, bands, height, width), to be held against a golden."""
        assert sample.aligned is not None
        channels = sample.aligned.channels(len(self.card.bands))
        # What was not seen looks as on the golden; elsewhere it would look like a defect.
        return _cut(np.where(sample.seen, channels, self._channels[golden]), self._windows)

    def _stitched(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Levels (classes, height, width) of those of the windows."""
        stitcher = Stitcher(self.shape, len(self.classes), self.config.tiling)
        rows = []
        for index, (window, level) in enumerate(zip(self._windows, levels, strict=True)):
            stitcher.add(window, level)
            last = index + 1 == len(self._windows) or self._windows[index + 1].row != window.row
            if last:
                rows.append(stitcher.take()[1])
        return np.concatenate(rows, axis=1)

    def _finish(self, prepared: Prepared, levels: Scored) -> Verdict:
        if prepared.verdict is not None:
            return prepared.verdict
        try:
            if not isinstance(levels, np.ndarray):
                raise levels or AssertionError("not scored")
            return self._judge(prepared, levels)
        except Exception as error:
            return _failed(prepared.name, error)

    def _judge(self, prepared: Prepared, levels: NDArray[np.uint8]) -> Verdict:
        assert prepared.aligned is not None
        looked_at = prepared.seen & ~self.zones.excluded
        defects, reasons, found = find_defects(
            np.where(looked_at, levels, 0), self._limits, looked_at, classes=self.classes,
            zones=self.zones, min_area=self.config.min_area,
        )  # fmt: skip
        plain = self._plain(prepared)
        measures = prepared.measures | {"unlike": float((plain | found)[looked_at].mean())}
        doubts = [*prepared.doubts, *self._unexplained(plain, found, measures["unlike"])]
        word = CANNOT_JUDGE if doubts else REJECT if reasons else PASS
        return Verdict(
            prepared.name, word, (*doubts, *reasons), tuple(defects),
            None if len(prepared.goldens) > 1 else prepared.goldens[0], prepared.registration,
            measures, self.config.mm_per_pixel, prepared.aligned.planes, levels.max(axis=0),
        )  # fmt: skip

    def _plain(self, prepared: Prepared) -> NDArray[np.bool_]:
        """Where the sample plainly differs from every golden that it is held against."""
        assert prepared.aligned is not None
        gray = prepared.aligned.gray
        masks = [
            self.goldens.quality[n].plain(gray, prepared.seen, light)
            for n, light in zip(prepared.goldens, prepared.lights, strict=True)
        ]
        return np.asarray(np.logical_and.reduce(masks))

    def _unexplained(
        self, plain: NDArray[np.bool_], found: NDArray[np.bool_], unlike: float
    ) -> Iterator[str]:
        """Plain differences that the network does not account for."""
        if unlike > self.config.max_unlike:
            yield (
                f"out of distribution: {unlike:.0%} of it plainly differ from the golden, and "
                f"{self.config.max_unlike:.0%} are allowed; is it another part?"
            )
        for x, y in _untouched(plain, found)[:3]:
            yield f"a plain difference near ({x}, {y}) that the network calls no defect"


def _untouched(plain: NDArray[np.bool_], found: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Centres (x, y) of plain differences of which nothing was found."""
    count, labels, _, centres = cv2.connectedComponentsWithStats(plain.astype(np.uint8))
    met = np.zeros(count, np.bool_)
    met[labels[found & plain]] = True
    return [(round(x), round(y)) for x, y in centres[1:][~met[1:]].tolist()]


def _failed(name: str, error: Exception) -> Verdict:
    log.debug("inspection of %s failed", name, exc_info=error)
    return cannot_judge(name, f"judging it failed: {type(error).__name__}: {error}")


def _cut(planes: NDArray[np.uint8], windows: Sequence[Window]) -> NDArray[np.uint8]:
    return np.stack([planes[:, *window.slices] for window in windows])


def _rim(shape: tuple[int, int], border: float) -> NDArray[np.bool_]:
    """True within a distance of the edge, shape (height, width)."""
    rim = np.ones(shape, np.bool_)
    width = int(border)
    rim[width : shape[0] - width, width : shape[1] - width] = False
    return rim
