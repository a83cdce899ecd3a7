"""Where a sample lies on the golden: found in milliseconds, and proven or not.

What depends on the golden alone is made once: its edge points on three scales. A sample is then
compared at those points only.

Source:
    Lucas and Kanade (1981); steps from the gradient of the reference, so that its equations are
    made once: Baker and Matthews (2004), doi:10.1023/B:VISI.0000011205.11775.fd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.align.phase import correlate
from geocd.align.reader import FloatArray, GrayArray, GrayPair, MaskArray
from geocd.align.ties import normalise
from geocd.errors import InputError

Float32 = NDArray[np.float32]

LARGEST_TURN: Final = 4.0
"""Rotation, in degrees, beyond which a sample lies wrong."""
LARGEST_ZOOM: Final = 0.03
"""Difference of the scale from 1 beyond which a sample lies wrong."""
_LONGEST = 1280
"""Longest side, in pixels, of the finest scale on which the images are compared."""
_FACTORS = (4, 2, 1)
"""Sides of the pixels of the three scales, in pixels of the finest."""
_POINTS = 12_000
"""Edge points on a scale, at most."""
_BLUR = 1.0
"""Standard deviation of the smoothing on every scale, in its pixels."""
_EDGE = 0.12
"""Least gradient of an edge point, in local standard scores a pixel."""
_CELLS = 16
"""Blocks each way; they share no pixel, so that one judges what others made."""
_FEW = 12
"""Edge points without which a block says nothing."""
_LEAST_BLOCKS = 12
"""Blocks without which nothing is proven."""
_STEPS = 12
"""Steps on a scale, at most."""
_REST = 0.003
"""Movement of the corners, in pixels of the scale, at which the search is at rest."""
_AGREES_PX = 2.0
"""Distance across its edges, in pixels of the finest scale, within which a block agrees."""
_AGREES_SCORE = 0.6
"""Least correlation of a block that agrees."""
_LEAST_AGREEING = 0.5
"""Least share of the blocks that must agree; of images of other parts, 0.15 at most did."""
_REGIONS = 3
"""The golden is cut into so many regions each way; no region may disagree as a whole."""
_LEAST_REGION = 0.25
"""Least share of the blocks of a region that must agree."""
_FEW_BLOCKS = 12
"""Blocks without which a region says nothing."""
_UNSURE_PX = 2.0
"""Standard deviation of the position of a corner, in pixels, beyond which it is not known."""
_TURNS = (0.0, 1.5, -1.5, 3.0, -3.0)
"""Rotations from which the search begins, in degrees, until one is proven."""


@dataclass(frozen=True, slots=True)
class Registration:
    """How a sample lies on the golden.

    Attributes:
        motion: from (col, row) of the golden to where the sample shows the same spot; integers
            are the corners of pixels.
        shift: movement (x, y) of the middle of the golden, in pixels.
        proven: whether blocks that did not make the motion confirm it.
        reason: why not; empty if it is proven.
        residual_px: median distance across edges, in pixels, of blocks to a motion that they did
            not make; NaN without blocks.
        p90_px: the distance that nine in ten do not exceed.
        agreeing: share of the blocks that agree, 0..1.
        blocks: blocks with edges.
        unsure_px: standard deviation of the position of the worst corner, in pixels.
    """

    motion: Affine
    shift: tuple[float, float]
    proven: bool
    reason: str
    residual_px: float
    p90_px: float
    agreeing: float
    blocks: int
    unsure_px: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; numbers that are none are None."""
        turn = math.degrees(math.atan2(self.motion.d, self.motion.a))
        return {
            "proven": self.proven,
            "shift_px": [round(v, 3) for v in self.shift],
            "turn_degrees": round(turn, 4),
            "scale": round(math.hypot(self.motion.a, self.motion.d), 6),
            "residual_px": _number(self.residual_px),
            "p90_px": _number(self.p90_px),
            "agreeing": round(self.agreeing, 3),
            "blocks": self.blocks,
        }


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class _Scale:
    """The edge points of the golden on one scale; n rows.

    Attributes:
        factor: side of a pixel of the scale, in pixels of the image.
        xy: array coordinates on the scale, shape (n, 2).
        value: smoothed local standard score, shape (n,).
        gradient: of it, (x, y), shape (n, 2).
        jacobian: change of the value with the four numbers of the motion, shape (n, 4).
        block: number of the block of each point, shape (n,).
        reach: what the coordinates are divided by in ``jacobian``, about the centre.
        centre: (x, y) on the scale.
    """

    factor: float
    xy: Float32
    value: Float32
    gradient: Float32
    jacobian: Float32
    block: NDArray[np.intp]
    reach: float
    centre: FloatArray


class Register:
    """Registers samples to one golden.

    Args:
        golden: grey values, shape (height, width), uint8.
        usable: False where the golden says nothing (masks that exclude), same shape.
        max_shift: largest shift that is looked for, in pixels.

    Raises:
        InputError: the golden has too few edges to hold a sample against.
    """

    def __init__(self, golden: GrayArray, *, usable: MaskArray, max_shift: float) -> None:
        self.shape = golden.shape
        self._max_shift = max_shift
        self._base = max(1.0, max(golden.shape) / _LONGEST)
        images = _pyramid(golden, usable, self._base)
        self._scales = [
            _edge_points(image, _shrunk_mask(usable, image.shape), factor * self._base)
            for image, factor in zip(images, _FACTORS, strict=True)
        ]
        self._coarse = images[0]
        blocks = np.bincount(self._scales[-1].block, minlength=1)
        if (blocks >= _FEW).sum() < _LEAST_BLOCKS:
            raise InputError(
                f"the golden has edges in {int((blocks >= _FEW).sum())} of its {_CELLS**2} blocks "
                f"only, and {_LEAST_BLOCKS} are needed to hold a sample against; show more of the "
                "part, or mask less"
            )

    def __call__(self, sample: GrayArray) -> Registration:
        """How a sample of the golden's size lies on it.

        Args:
            sample: grey values, shape (height, width), uint8.
        """
        images = _pyramid(sample, np.ones(sample.shape, np.bool_), self._base)
        first = None
        for turn in _TURNS:
            found = self._proved(self._search(images, turn), images[-1])
            if found.proven:
                return found
            first = first or found
        assert first is not None
        return first

    def _search(self, images: list[Float32], turn: float) -> FloatArray:
        """The motion (4,) on the finest scale, from coarse to fine; see ``_moved``."""
        numbers = self._start(images[0], turn)
        for scale, image, finer in zip(
            self._scales, images, (*self._scales[1:], None), strict=True
        ):
            numbers = _follow(scale, image, numbers, None)
            if finer is not None:
                numbers = _rescaled(numbers, scale, finer)
        return numbers

    def _start(self, image: Float32, turn: float) -> FloatArray:
        """The motion on the coarsest scale from which the search begins."""
        scale = self._scales[0]
        angle = math.radians(turn)
        start = np.array([math.cos(angle) - 1, math.sin(angle), 0.0, 0.0])
        start[:2] *= scale.reach
        upright = _whole(image, scale, start)
        everything = np.ones(image.shape, np.bool_)
        pair = GrayPair(_bytes(self._coarse), _bytes(upright), everything, everything)
        found = correlate(pair, limit=self._max_shift / scale.factor)
        shifted = start.copy()
        if found is not None:
            # What the turned image shows at a place came from the turned place.
            cos, sin = math.cos(angle), math.sin(angle)
            shifted[2:] = (cos * found[0] - sin * found[1], sin * found[0] + cos * found[1])
        return max(
            (start, shifted), key=lambda n: _correlation(scale.value, _look(scale, image, n))
        )

    def _proved(self, numbers: FloatArray, image: Float32) -> Registration:
        """The motion, and what blocks say of motions that they did not make."""
        scale = self._scales[-1]
        colour = (scale.block // _CELLS + scale.block % _CELLS) % 2
        verdict = _Blocks.empty()
        for side in (0, 1):
            made = _follow(scale, image, numbers, colour != side, steps=2)
            verdict = verdict.joined(_judge(scale, image, made, colour == side))
        motion = _as_affine(numbers, scale)
        away = np.abs(verdict.away) * self._base
        agrees = (away <= _AGREES_PX * self._base) & (verdict.score >= _AGREES_SCORE)
        share = float(agrees.mean()) if len(agrees) else 0.0
        told = away[agrees]
        median, p90 = (
            (float(np.median(told)), float(np.percentile(told, 90)))
            if len(told)
            else (math.nan, math.nan)
        )
        unsure = _unsureness(verdict, agrees, scale, self.shape)
        reason = self._doubt(motion, verdict, agrees, unsure)
        return Registration(
            motion, _shift(motion, self.shape), not reason, reason, median, p90, share,
            len(agrees), unsure,
        )  # fmt: skip

    def _doubt(
        self, motion: Affine, verdict: _Blocks, agrees: MaskArray, unsure: float
    ) -> str:  # fmt: skip
        """Why the motion is not proven; empty if it is."""
        share = float(agrees.mean()) if len(agrees) else 0.0
        if agrees.sum() < _LEAST_BLOCKS or share < _LEAST_AGREEING:
            return (
                f"only {share:.0%} of {len(agrees)} blocks agree on where it lies, and "
                f"{_LEAST_AGREEING:.0%} are needed"
            )
        astray = _astray_region(verdict, agrees, self._scales[-1])
        if astray:
            return f"the {astray} does not lie where the rest does"
        if unsure > _UNSURE_PX:
            return f"its edges leave its place open by {unsure:.1f} px"
        turn = math.degrees(math.atan2(motion.d, motion.a))
        zoom = math.hypot(motion.a, motion.d)
        shift = math.hypot(*_shift(motion, self.shape))
        if shift > self._max_shift:
            return f"it lies {shift:.1f} px off, and {self._max_shift:g} are allowed"
        if abs(turn) > LARGEST_TURN:
            return f"it is turned by {turn:.1f} degrees, and {LARGEST_TURN:g} are allowed"
        if abs(zoom - 1) > LARGEST_ZOOM:
            return f"it is {zoom:.3f} times as large as the golden"
        return ""


def _astray_region(verdict: _Blocks, agrees: MaskArray, scale: _Scale) -> str:
    """Name of a region whose blocks do not follow the motion; empty if there is none."""
    size = 2 * scale.centre + 1
    cell = np.clip(verdict.position / size * _REGIONS, 0, _REGIONS - 1).astype(np.intp)
    for row, vertical in enumerate(("upper", "middle", "lower")):
        for col, level in enumerate(("left", "centre", "right")):
            inside = (cell[:, 1] == row) & (cell[:, 0] == col)
            if inside.sum() >= _FEW_BLOCKS and agrees[inside].mean() < _LEAST_REGION:
                return f"{vertical} {level}"
    return ""


def _shift(motion: Affine, shape: tuple[int, ...]) -> tuple[float, float]:
    """Movement (x, y) of the middle, in pixels."""
    x, y = shape[1] / 2, shape[0] / 2
    there = motion @ (x, y)
    return float(there[0] - x), float(there[1] - y)


def _pyramid(gray: GrayArray, usable: MaskArray, base: float) -> list[Float32]:
    """Smoothed local standard scores, from the coarsest scale to the finest."""
    size = tuple(max(1, round(side / base)) for side in gray.shape[::-1])
    if base > 1:
        gray = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)
        usable = _shrunk_mask(usable, gray.shape)
    fine = normalise(gray, usable)
    images = []
    for factor in _FACTORS:
        image = fine
        if factor > 1:
            smaller = tuple(max(1, side // factor) for side in size)
            # Whole blocks of pixels, so that a pixel of the scale is exactly so large.
            whole = fine[: smaller[1] * factor, : smaller[0] * factor]
            image = _float(cv2.resize(whole, smaller, interpolation=cv2.INTER_AREA))
        images.append(_float(cv2.GaussianBlur(image, (0, 0), _BLUR)))
    return images


def _float(image: object) -> Float32:
    return np.asarray(image, dtype=np.float32)


def _bytes(scores: Float32) -> GrayArray:
    return np.clip(scores * 40 + 128, 0, 255).astype(np.uint8)


def _shrunk_mask(mask: MaskArray, shape: tuple[int, ...]) -> MaskArray:
    if mask.shape == shape:
        return mask
    size = (shape[1], shape[0])
    return np.asarray(
        cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.99
    )


def _edge_points(image: Float32, usable: MaskArray, factor: float) -> _Scale:
    """Edge points, spread over the blocks."""
    kernel = np.array([[-0.5, 0, 0.5]], np.float32)
    gx = _float(cv2.filter2D(image, cv2.CV_32F, kernel))
    gy = _float(cv2.filter2D(image, cv2.CV_32F, kernel.T))
    inside = cv2.erode(usable.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    rows, cols = np.nonzero((np.hypot(gx, gy) > _EDGE) & inside)
    height, width = image.shape
    block = (rows * _CELLS // height) * _CELLS + cols * _CELLS // width
    order = np.random.default_rng(0).permutation(len(rows))
    kept = order[_rank(block[order]) < max(_FEW, 2 * _POINTS // _CELLS**2)][:_POINTS]
    rows, cols, block = rows[kept], cols[kept], block[kept]
    xy = np.column_stack([cols, rows]).astype(np.float32)
    gradient = np.column_stack([gx[rows, cols], gy[rows, cols]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    reach = max(width, height) / 2
    u, v = ((xy - centre) / reach).T
    jacobian = np.column_stack(
        [gradient[:, 0] * u + gradient[:, 1] * v, gradient[:, 1] * u - gradient[:, 0] * v, gradient]
    ).astype(np.float32)
    return _Scale(factor, xy, image[rows, cols], gradient, jacobian, block, reach, centre)


def _rank(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many of the same group come before each."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], groups[order], side="left")
    rank = np.empty(len(groups), np.intp)
    rank[order] = np.arange(len(groups)) - starts
    return rank


def _moved(scale: _Scale, numbers: FloatArray) -> Float32:
    """Where the sample shows the points: stretched, turned and shifted about the centre.

    ``numbers`` are (stretch, turn, x, y): movement of a point ``reach`` away, and shift, in pixels
    of the scale.
    """
    u, v = ((scale.xy - scale.centre) / scale.reach).T
    a, b, x, y = numbers
    step = np.column_stack([a * u - b * v + x, b * u + a * v + y])
    return np.asarray(scale.xy + step, np.float32)


def _as_matrix(numbers: FloatArray, scale: _Scale) -> FloatArray:
    """The same motion as a matrix (2, 3) between array coordinates of the scale."""
    a, b, x, y = numbers
    linear = np.array(
        [[1 + a / scale.reach, -b / scale.reach], [b / scale.reach, 1 + a / scale.reach]]
    )
    offset = scale.centre + np.array([x, y]) - linear @ scale.centre
    return np.column_stack([linear, offset])


def _as_affine(numbers: FloatArray, scale: _Scale) -> Affine:
    """The same motion between corners of pixels of the image."""
    inner = Affine(*_as_matrix(numbers, scale).ravel().tolist())
    to_scale = Affine.translation(-0.5, -0.5) @ Affine.scale(1 / scale.factor)
    whole: Affine = ~to_scale @ inner @ to_scale
    return whole


def _rescaled(numbers: FloatArray, scale: _Scale, finer: _Scale) -> FloatArray:
    """The same motion in the numbers of another scale."""
    whole = _as_affine(numbers, scale)
    to_scale = Affine.translation(-0.5, -0.5) @ Affine.scale(1 / finer.factor)
    inner = to_scale @ whole @ ~to_scale
    there = np.array(inner @ tuple(finer.centre)) - finer.centre
    return np.array([(inner.a - 1) * finer.reach, inner.d * finer.reach, *there])


def _look(scale: _Scale, image: Float32, numbers: FloatArray) -> Float32:
    """Values of a sample at the moved points; NaN beyond its edge."""
    places = _moved(scale, numbers)
    # OpenCV samples pictures, not lists, and none wider than 32767.
    rows = -(-len(places) // 256)
    padded = np.zeros((rows * 256, 2), np.float32)
    padded[: len(places)] = places
    x, y = (np.ascontiguousarray(padded[:, k].reshape(rows, 256)) for k in (0, 1))
    found = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
                      borderValue=math.nan)  # fmt: skip
    return _float(found).ravel()[: len(places)]


def _whole(image: Float32, scale: _Scale, numbers: FloatArray) -> Float32:
    """A sample as the motion brings it to the golden."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (image.shape[1], image.shape[0])
    return _float(cv2.warpAffine(image, _as_matrix(numbers, scale), size, flags=flags))


def _follow(
    scale: _Scale, image: Float32, numbers: FloatArray, chosen: MaskArray | None, *,
    steps: int = _STEPS,
) -> FloatArray:  # fmt: skip
    """The motion after steps that bring the values at points together.

    Args:
        scale: the points.
        image: the sample on that scale.
        numbers: where to begin.
        chosen: points that count; None: all.
        steps: at most.
    """
    for _ in range(steps):
        away = _look(scale, image, numbers) - scale.value
        seen = np.isfinite(away) if chosen is None else np.isfinite(away) & chosen
        if seen.sum() < _FEW:
            return numbers
        away = np.where(seen, away, 0)
        spread = max(1.4826 * float(np.median(np.abs(away[seen]))), 0.05)
        weight = seen / (1 + np.square(away / (2 * spread)))
        weighted = scale.jacobian * weight[:, None].astype(np.float32)
        normal = (weighted.T @ scale.jacobian).astype(np.float64)
        normal += np.eye(4) * 1e-6 * np.trace(normal)
        step = np.linalg.solve(normal, (weighted.T @ away.astype(np.float32)).astype(np.float64))
        numbers = numbers - step
        if np.abs(step).sum() < _REST:
            break
    return numbers


@dataclass(frozen=True, slots=True)
class _Blocks:
    """What blocks say of a motion; n rows.

    Attributes:
        position: (x, y) on the scale, shape (n, 2).
        across: unit vector across the block's edges, shape (n, 2).
        away: distance across the edges, in pixels of the scale, shape (n,).
        score: correlation, shape (n,).
        corner: texture along the edges, as a share of that across, 0..1, shape (n,).
    """

    position: FloatArray
    across: FloatArray
    away: FloatArray
    score: FloatArray
    corner: FloatArray

    @classmethod
    def empty(cls) -> _Blocks:
        return cls(np.empty((0, 2)), np.empty((0, 2)), *np.empty((3, 0)))

    def joined(self, other: _Blocks) -> _Blocks:
        return _Blocks(*(
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("position", "across", "away", "score", "corner")
        ))  # fmt: skip


def _judge(scale: _Scale, image: Float32, numbers: FloatArray, chosen: MaskArray) -> _Blocks:
    """What the blocks of the chosen points say of a motion.

    A block of straight lines tells nothing along them, so each is asked across its edges.
    """
    values = _look(scale, image, numbers)
    seen = chosen & np.isfinite(values)
    count = np.bincount(scale.block[seen], minlength=_CELLS**2)
    wanted = np.bincount(scale.block[chosen], minlength=_CELLS**2)
    kept = (count >= _FEW) & (count >= wanted / 2)
    group, away = scale.block[seen], (values - scale.value)[seen]

    def _sums(numbers: Any) -> FloatArray:
        return np.asarray(np.bincount(group, numbers, minlength=_CELLS**2)[kept])

    gx, gy = scale.gradient[seen].T
    xx, xy, yy = _sums(gx * gx), _sums(gx * gy), _sums(gy * gy)
    angle = np.arctan2(2 * xy, xx - yy) / 2
    across = np.column_stack([np.cos(angle), np.sin(angle)])
    energy = xx * across[:, 0] ** 2 + 2 * xy * across[:, 0] * across[:, 1] + yy * across[:, 1] ** 2
    pull = _sums(gx * away) * across[:, 0] + _sums(gy * away) * across[:, 1]
    n = count[kept]
    x, y = scale.value[seen], values[seen]
    sx, sy = _sums(x), _sums(y)
    cov, vx, vy = (_sums(x * y) - sx * sy / n, _sums(x * x) - sx**2 / n, _sums(y * y) - sy**2 / n)
    score = cov / np.sqrt(np.maximum(vx * vy, 1e-3))
    position = np.column_stack([_sums(scale.xy[seen][:, k]) / n for k in (0, 1)])
    corner = np.clip((xx + yy - energy) / np.maximum(energy, 1e-9), 0, 1)
    return _Blocks(position, across, pull / np.maximum(energy, 1e-9), score, corner)


def _correlation(a: Float32, b: Float32) -> float:
    seen = np.isfinite(b)
    if seen.sum() < _FEW:
        return -1.0
    x, y = a[seen] - a[seen].mean(), b[seen] - b[seen].mean()
    return float((x * y).mean() / max(float(x.std() * y.std()), 1e-6))


def _unsureness(
    verdict: _Blocks, agrees: MaskArray, scale: _Scale, shape: tuple[int, ...]
) -> float:
    """Standard deviation of the position of the worst corner, in pixels of the image.

    Each block that agrees is one measurement across its edges, as exact as all of them are, and
    one along them, as exact as its corners allow.
    """
    if agrees.sum() < _LEAST_BLOCKS:
        return math.inf
    u, v = ((verdict.position[agrees] - scale.centre) / scale.reach).T
    ex, ey = verdict.across[agrees].T
    root = np.sqrt(verdict.corner[agrees])
    design = np.concatenate([
        np.column_stack([x * u + y * v, y * u - x * v, x, y])
        for x, y in ((ex, ey), (-ey * root, ex * root))
    ])  # fmt: skip
    normal = design.T @ design
    if np.linalg.cond(normal) > 1e9:
        return math.inf
    spread = max(1.4826 * float(np.median(np.abs(verdict.away[agrees]))), 0.05)
    covariance = np.linalg.inv(normal) * spread**2
    worst = 0.0
    half = np.array([shape[1], shape[0]]) / (2 * scale.factor * scale.reach)
    for sx, sy in ((1, 1), (1, -1)):
        u1, v1 = sx * half[0], sy * half[1]
        corner = np.array([[u1, -v1, 1, 0], [v1, u1, 0, 1]])
        worst = max(worst, float(np.linalg.eigvalsh(corner @ covariance @ corner.T)[-1]))
    return math.sqrt(worst) * scale.factor
