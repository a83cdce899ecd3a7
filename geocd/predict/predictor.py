"""What every inference backend is, and how a pair is scored with one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from geocd.config import TilingConfig
from geocd.models.card import WeightsCard
from geocd.tiling.stitch import Stitcher, blending_window, encode_scores
from geocd.tiling.windows import Window, count, split, starts

T = TypeVar("T")
Images = NDArray[np.uint8]
Progress = Callable[[int, int], None]


class Predictor(Protocol):
    """A backend: a network with its weights, ready to run."""

    card: WeightsCard

    @property
    def description(self) -> str:
        """Backend, precision and device, for people."""
        ...

    def __call__(self, before: Images, after: Images) -> NDArray[np.uint8]:
        """Scores of window pairs, as bytes: a quarter of the traffic of floats.

        Args:
            before: shape (N, bands, height, width), uint8; any N, height and width.
            after: likewise.

        Returns:
            Shape (N, change classes, height, width), levels 0..``SCORE_SCALE`` for 0..1.
        """
        ...


class PairArrays(Protocol):
    """A strip of both dates: images (bands, height, width) and what is valid (height, width)."""

    @property
    def before(self) -> Images:
        """The earlier date."""
        ...

    @property
    def after(self) -> Images:
        """The later date."""
        ...

    @property
    def valid(self) -> NDArray[np.bool_]:
        """True where both dates were observed."""
        ...


ReadStrip = Callable[[slice, slice], PairArrays]


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items, made in a thread while the consumer works; at most ``depth`` wait."""
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def _offer(entry: tuple[T | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _produce() -> None:
        try:
            for item in items:
                if not _offer((item, None)):
                    return
            _offer((None, StopIteration()))
        except BaseException as error:  # carried to the consumer, whatever it is
            _offer((None, error))

    thread = threading.Thread(target=_produce, name="geocd-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def score_rows(
    predictor: Predictor,
    read: ReadStrip,
    shape: tuple[int, int],
    *,
    tiling: TilingConfig,
    batch_size: int,
    progress: Progress | None = None,
) -> Generator[NDArray[np.uint8], None, None]:
    """Scores of a whole pair, streamed from top to bottom.

    A strip of windows is read at a time, in a thread of its own; windows that nobody observed
    are skipped. Memory is bounded by the width and the tile size, not by the height.

    Args:
        predictor: the backend.
        read: gives both dates for (rows, columns) of the grid; called from one thread.
        shape: (height, width) of the grid.
        tiling: tile size and overlap.
        batch_size: window pairs in one call of the predictor.
        progress: called with windows done and windows in all.

    Yields:
        Encoded scores (classes, rows, width), uint8: 0..254, 255 not observed.
    """
    height, width = shape
    windows = list(split((1, width), tiling))
    tops = starts(height, tiling.tile_size, tiling.overlap)
    tile_h = min(tiling.tile_size, height)
    weight = blending_window((tile_h, windows[0].width), tiling.overlap)
    stitcher = Stitcher(shape, len(predictor.card.change_classes))
    total, done = count(shape, tiling), 0
    strips = ((top, read(slice(top, top + tile_h), slice(0, width))) for top in tops)
    # Closed by hand: whatever ends the loop, the thread must stop before its files are closed.
    with closing(prefetch(strips)) as ahead:
        for index, (top, strip) in enumerate(ahead):
            row = [Window(top, w.col, tile_h, w.width) for w in windows]
            seen = [w for w in row if strip.valid[:, w.slices[1]].any()]
            for first in range(0, len(seen), batch_size):
                batch = seen[first : first + batch_size]
                cols = [w.slices[1] for w in batch]
                scores = predictor(
                    np.stack([strip.before[:, :, c] for c in cols]),
                    np.stack([strip.after[:, :, c] for c in cols]),
                )
                for window, score in zip(batch, scores, strict=True):
                    stitcher.add(window, score, weight=weight)
                if progress:
                    progress(done + first + len(batch), total)
            done += len(row)
            if progress:
                progress(done, total)
            below = tops[index + 1] if index + 1 < len(tops) else height
            taken, finished = stitcher.take(below)
            yield encode_scores(finished, strip.valid[taken - top : below - top])
