"""A pair scored from top to bottom, in stages that overlap in time.

    read, cut, fill          network          stitch
    thread ─ batches ──>     thread ─ levels ──>  caller: finished rows

The queues between them are short, so memory is bounded, and no pixel is read twice: the rows
that a strip of windows shares with the one above, and the columns that neighbours share, are
kept.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from geocd.clock import Clock
from geocd.config import TilingConfig
from geocd.predict.predictor import Images, Predictor
from geocd.rasters.fill import fill_unobserved
from geocd.tiling.stitch import Stitcher, hide_unobserved
from geocd.tiling.windows import Stripe, Window, starts, stripes

T = TypeVar("T")
Progress = Callable[[int, int], None]

STRIPE = 8192
"""Columns that are scored together from top to bottom; a multiple of the blocks of a GeoTIFF."""
READ_WIDTH = 2048
"""Columns that are read at a time, at least a window."""


class PairArrays(Protocol):
    """A part of both dates: images (bands, height, width) as they are, and masks of them."""

    @property
    def before(self) -> Images:
        """The earlier date."""
        ...

    @property
    def after(self) -> Images:
        """The later date."""
        ...

    @property
    def seen(self) -> NDArray[np.bool_]:
        """True where both dates were observed."""
        ...

    @property
    def valid(self) -> NDArray[np.bool_]:
        """True where the result is wanted, too."""
        ...


_STRIPS = 4
"""Ends of strips that wait in a batch at most: each holds a mask as wide as the stripe, and where
nothing is observed no window would ever fill the batch."""


ReadPart = Callable[[slice, slice], PairArrays]


@dataclass(frozen=True, slots=True)
class Piece:
    """Finished scores."""

    left: int
    """Their first column."""
    levels: NDArray[np.uint8]
    """Shape (classes, rows, columns): 0..254, 255 not observed."""


@dataclass(slots=True)
class _Batch:
    """Windows to score, and the ends of strips among them, in order."""

    before: list[Images] = field(default_factory=list)
    after: list[Images] = field(default_factory=list)
    events: list[Window | _StripEnd] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _StripEnd:
    """The rows above the next strip are complete; ``valid`` is theirs, in the stripe's columns."""

    valid: NDArray[np.bool_]


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
                    break
            else:
                _offer((None, StopIteration()))
        except BaseException as error:  # carried to the consumer, whatever it is
            _offer((None, error))
        finally:
            # A stage before this one has a thread of its own, which must stop as well.
            if isinstance(items, Generator):
                items.close()

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


class _Strips:
    """Reads the windows of a stripe strip by strip, every pixel once.

    Both dates and both masks travel as the planes of one array.
    """

    def __init__(
        self, read: ReadPart, shape: tuple[int, int], tiling: TilingConfig, stripe: Stripe,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._read, self.shape, self._clock = read, shape, clock
        self.tile = min(tiling.tile_size, shape[0]), min(tiling.tile_size, shape[1])
        self.tops = starts(shape[0], tiling.tile_size, tiling.overlap)
        self.stripe, self.lefts = stripe, stripe.lefts

    def windows(self) -> Iterator[tuple[Window, NDArray[np.uint8]] | _StripEnd]:
        """Windows with their planes (2 * bands + 2, height, width), and the ends of strips.

        Windows that nobody observed are left out.
        """
        height, origin = self.shape[0], self.lefts[0]
        width = self.lefts[-1] + self.tile[1] - origin
        inner = slice(self.stripe.cols.start - origin, self.stripe.cols.stop - origin)
        # One buffer for the rows above and below: columns are read before they are written.
        shared: NDArray[np.uint8] | None = None
        above = 0
        for top, end in zip(self.tops, [*self.tops[1:], height], strict=True):
            rows = end - top
            below = self.tile[0] - rows
            valid = np.empty((rows, width), bool)
            for group, first, fresh in self._groups(top, shared, above):
                if shared is None:
                    most = self.tile[0] - min(np.diff([*self.tops, height]))
                    shared = np.empty((len(group), most, width), np.uint8)
                stop = first + group.shape[2]
                new = slice(fresh - origin, stop - origin)
                shared[:, :below, new] = group[:, rows:, fresh - first :]
                valid[:, new] = group[-1, :rows, fresh - first :]
                for left in self.lefts:
                    if first <= left and fresh < left + self.tile[1] <= stop:
                        planes = group[:, :, left - first : left - first + self.tile[1]]
                        if planes[-1].any():
                            yield Window(top, left, *self.tile), planes
            above = below
            yield _StripEnd(valid[:, inner])

    def _groups(
        self, top: int, shared: NDArray[np.uint8] | None, above: int
    ) -> Iterator[tuple[NDArray[np.uint8], int, int]]:
        """Planes of neighbouring windows, their first column, and the first that is new."""
        step = max(1, (READ_WIDTH - self.tile[1]) // max(1, self._stride()) + 1)
        former: NDArray[np.uint8] | None = None
        origin = start = fresh = self.lefts[0]
        for index in range(0, len(self.lefts), step):
            part = self.lefts[index : index + step]
            stop = part[-1] + self.tile[1]
            with self._clock.stage("read"):
                news = self._planes(slice(top + above, top + self.tile[0]), slice(fresh, stop))
                planes = np.empty((len(news), self.tile[0], stop - part[0]), np.uint8)
                new = slice(fresh - part[0], None)
                planes[:, above:, new] = news
                if shared is not None:
                    planes[:, :above, new] = shared[:, :above, fresh - origin : stop - origin]
                if former is not None:
                    planes[:, :, : fresh - part[0]] = former[:, :, part[0] - start :]
            yield planes, part[0], fresh
            former, start, fresh = planes, part[0], stop

    def _stride(self) -> int:
        return self.lefts[1] - self.lefts[0] if len(self.lefts) > 1 else self.tile[1]

    def _planes(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        part = self._read(rows, cols)
        masks = (part.seen[None].view(np.uint8), part.valid[None].view(np.uint8))
        return np.concatenate([part.before, part.after, *masks])


def _batches(strips: _Strips, size: int, clock: Clock) -> Iterator[_Batch]:
    batch, ends = _Batch(), 0
    for item in strips.windows():
        if isinstance(item, _StripEnd):
            batch.events.append(item)
            ends += 1
            if ends == _STRIPS:
                yield batch
                batch, ends = _Batch(), 0
            continue
        window, planes = item
        with clock.stage("read"):
            bands, seen = (len(planes) - 2) // 2, planes[-2] > 0
            batch.before.append(fill_unobserved(planes[:bands], seen))
            batch.after.append(fill_unobserved(planes[bands:-2], seen))
        batch.events.append(window)
        if len(batch.before) == size:
            yield batch
            batch, ends = _Batch(), 0
    yield batch


def _scored(
    batches: Iterator[_Batch], predictor: Predictor, clock: Clock
) -> Generator[tuple[list[Window | _StripEnd], Iterator[NDArray[np.uint8]]], None, None]:
    # Closed by hand: whatever ends the loop, the thread must stop before its files are closed.
    with closing(prefetch(batches)) as ahead:
        for batch in ahead:
            levels: Iterator[NDArray[np.uint8]] = iter(())
            if batch.before:
                with clock.stage("network"):
                    levels = iter(predictor(np.stack(batch.before), np.stack(batch.after)))
            yield batch.events, levels


def score_pieces(
    predictor: Predictor,
    read: ReadPart,
    shape: tuple[int, int],
    *,
    tiling: TilingConfig,
    batch_size: int,
    stripe_width: int = STRIPE,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Generator[Piece, None, None]:
    """Scores of a whole pair, streamed from top to bottom, one stripe of columns after another.

    Windows that nobody observed are skipped. Scores depend on the windows alone: not on the
    batch, nor on how the raster is read.

    Args:
        predictor: the backend; called from one thread.
        read: gives both dates for (rows, columns) of the grid; called from one thread.
        shape: (height, width) of the grid.
        tiling: tile size and overlap.
        batch_size: window pairs in one call of the predictor.
        stripe_width: columns that are finished together; memory follows it.
        progress: called with windows done and windows in all.
        clock: counts the stages "read", "network" and "stitch".

    Yields:
        Pieces that cover the grid: all rows of a stripe before those of the next.
    """
    plan = stripes(shape[1], tiling, stripe_width)
    rows = len(starts(shape[0], tiling.tile_size, tiling.overlap))
    total, before = rows * sum(len(stripe.lefts) for stripe in plan), 0
    for stripe in plan:

        def _report(done: int, before: int = before) -> None:
            if progress:
                progress(before + done, total)

        yield from _stripe_pieces(
            predictor, read, shape, tiling, stripe, batch_size, _report, clock or Clock()
        )
        before += rows * len(stripe.lefts)


def _stripe_pieces(
    predictor: Predictor, read: ReadPart, shape: tuple[int, int], tiling: TilingConfig,
    stripe: Stripe, batch_size: int, progress: Callable[[int], None], clock: Clock,
) -> Generator[Piece, None, None]:  # fmt: skip
    strips = _Strips(read, shape, tiling, stripe, clock)
    stitcher = Stitcher(shape, len(predictor.card.change_classes), tiling, stripe)
    batches, ended, done = _batches(strips, batch_size, clock), 0, 0
    with closing(prefetch(_scored(batches, predictor, clock))) as scored:
        for events, levels in scored:
            for event in events:
                with clock.stage("stitch"):
                    if isinstance(event, Window):
                        stitcher.add(event, next(levels))
                        done += 1
                        continue
                    _, rows = stitcher.take()
                    rows = hide_unobserved(rows, event.valid)
                ended += 1
                done = ended * len(stripe.lefts)
                yield Piece(stripe.cols.start, rows)
            progress(done)
