"""Whether a picture is fit to be judged: its light, its sharpness, and what plainly differs.

Everything is told relative to the golden, so nothing here needs to know the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geocd.errors import InputError

Gray = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Float32 = NDArray[np.float32]

_POINTS = 6000
"""Edge points at which the sharpness is told, at most."""
_REGIONS = 3
"""The golden is cut into so many regions each way; the least sharp one counts."""
_FEW = 60
"""Edge points without which a region says nothing."""
_FAR = 4
"""Distance, in pixels, to which an edge is looked at on either side: the largest step over two
pixels, as a share of the step over all, is how steep it is."""
_LEAST_STEP = 12.0
"""Least step across an edge of the golden, in grey levels."""
_SMOOTH = 2.0
"""Standard deviation, in pixels, of the smoothing before grey values are compared."""
_STRIDE = 4
"""Pixels from one to the next at which grey values are compared."""
_FITS = 4
"""Rounds of the fit of a line; what did not follow the last one counts less."""
PLAIN = 0.4
"""Difference, in golden's contrasts, from which on a sample plainly differs."""
PLAIN_DISC = 7
"""Diameter, in pixels, of the disc that must fit into what plainly differs: more than the
registration leaves at edges."""


@dataclass(frozen=True, slots=True)
class Light:
    """How a sample's grey values answer to the golden's: ``sample ~ gain * golden + offset``.

    Attributes:
        gain: contrast, as a share of the golden's.
        offset: grey levels.
        brightness: difference at the golden's mean, in grey levels.
        noise: standard deviation about the line, as a share of the golden's, 0 and more.
    """

    gain: float
    offset: float
    brightness: float
    noise: float


class Quality:
    """Compares pictures to one golden.

    Args:
        golden: grey values, shape (height, width).
        usable: False where nothing is looked at, same shape.

    Raises:
        InputError: the golden has too few clear edges.
    """

    def __init__(self, golden: Gray, usable: Mask) -> None:
        self._smooth = _smoothed(golden)
        self._golden, self._usable = golden.astype(np.float32), usable
        self._contrast = max(float(self._golden[usable].std()), 1.0)
        self._places, self._normals, self._group = _edges(golden, usable)
        self._steep = _steepness(golden, self._places, self._normals, self._group)
        if not self._steep:
            raise InputError(
                "the golden has too few clear edges to tell whether a sample is as sharp; show "
                "more of the part, or take it sharper and with more contrast"
            )

    def light(self, aligned: Gray, seen: Mask) -> Light:
        """The line between the grey values, fitted to what follows it.

        Args:
            aligned: the sample on the golden's grid, shape (height, width).
            seen: True where it was observed.
        """
        grid = (slice(None, None, _STRIDE),) * 2
        kept = (self._usable & seen)[grid]
        x = self._smooth[grid][kept].astype(np.float64)
        y = _smoothed(aligned)[grid][kept].astype(np.float64)
        if len(x) < _FEW:
            return Light(0.0, 0.0, math.inf, math.inf)
        weight = np.ones_like(x)
        gain = offset = 0.0
        for _ in range(_FITS):
            mx, my = np.average(x, weights=weight), np.average(y, weights=weight)
            spread = np.average((x - mx) ** 2, weights=weight)
            gain = float(np.average((x - mx) * (y - my), weights=weight) / max(spread, 1e-6))
            offset = float(my - gain * mx)
            away = y - gain * x - offset
            width = max(1.4826 * float(np.median(np.abs(away))), 2.0)
            weight = 1 / (1 + (away / (2 * width)) ** 2)
        fine = aligned[grid][kept] - gain * self._golden[grid][kept] - offset
        noise = 1.4826 * float(np.median(np.abs(fine))) / self._contrast
        mean = float(x.mean())
        return Light(gain, offset, gain * mean + offset - mean, noise)

    def distance(self, aligned: Gray, seen: Mask) -> tuple[int, float]:
        """How far from the golden: pixels that plainly differ, then mean difference in grey levels.

        Edges of a golden that was resampled are softer, so the mean alone would favour the first.

        Args:
            aligned: the sample on the golden's grid, shape (height, width).
            seen: True where it was observed.
        """
        light = self.light(aligned, seen)
        kept = self._usable & seen
        expected = light.gain * self._golden[kept] + light.offset
        plain = int(self.plain(aligned, seen, light).sum())
        return plain, float(np.abs(aligned[kept] - expected).mean())

    def sharpness(self, sample: Gray, motion: Affine) -> float:
        """Steepness of the edges of the least sharp region, as a share of the golden's.

        Regions and directions are told apart: a picture may be blurred in a corner, or one way.

        Args:
            sample: as it was taken, shape (height, width): resampling would blur it.
            motion: from (col, row) of the golden to the sample; integers are corners of pixels.
        """
        array = Affine.translation(-0.5, -0.5) @ motion @ Affine.translation(0.5, 0.5)
        linear = np.array([[array.a, array.b], [array.d, array.e]])
        places = self._places @ linear.T + np.array([array.c, array.f])
        found = _steepness(sample, places, self._normals @ linear.T, self._group)
        shares = [
            found[group] / steep
            for group, steep in self._steep.items()
            if group in found and steep > 0
        ]
        return max(0.0, min(shares)) if shares else 0.0

    def plain(self, aligned: Gray, seen: Mask, light: Light) -> Mask:
        """Where a sample plainly differs, whatever a network says; shape (height, width).

        Args:
            aligned: the sample on the golden's grid.
            seen: True where it was observed.
            light: how it was lit.
        """
        expected = np.clip(light.gain * self._golden + light.offset, 0, 255)
        apart = cv2.blur(np.abs(aligned.astype(np.float32) - expected), (3, 3))
        # The contrast between what is dark and what is bright on a golden is two deviations.
        limit = PLAIN * 2 * self._contrast * max(light.gain, 0.1)
        far = ((apart > limit) & seen & self._usable).astype(np.uint8)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (PLAIN_DISC, PLAIN_DISC))
        # At the frame, too, all of the disc must fit in: pictures end there, parts do not.
        opened = cv2.morphologyEx(
            far, cv2.MORPH_OPEN, disc, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)
        )
        return np.asarray(opened > 0)


def _smoothed(gray: Gray) -> Float32:
    return np.asarray(cv2.GaussianBlur(gray.astype(np.float32), (0, 0), _SMOOTH), np.float32)


def _edges(golden: Gray, usable: Mask) -> tuple[Float32, Float32, NDArray[np.intp]]:
    """Places (x, y) on edges, unit vectors across them, and the group of each.

    A group is a region and whether the edges in it rather run up or across.
    """
    image = golden.astype(np.float32)
    gx, gy = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    size = np.hypot(gx, gy)
    # The middle of an edge, and enough room for the distant look.
    top = size >= cv2.dilate(size, np.ones((3, 3), np.uint8)) * 0.95
    margin = _FAR + 1
    inside = cv2.erode(usable.astype(np.uint8), np.ones((2 * margin + 1,) * 2, np.uint8),
                       borderValue=0) > 0  # fmt: skip
    rows, cols = np.nonzero(top & inside & (size > 4 * _LEAST_STEP))
    normals = np.column_stack([gx[rows, cols], gy[rows, cols]]) / size[rows, cols][:, None]
    places = np.column_stack([cols, rows]).astype(np.float32)
    profile = _profiles(golden, places, normals.astype(np.float32))
    kept = np.flatnonzero(profile[:, -1] - profile[:, 0] >= _LEAST_STEP)
    kept = np.random.default_rng(0).permutation(kept)[:_POINTS]
    row, col = (places[kept][:, ::-1] * _REGIONS / np.array(golden.shape)).astype(np.intp).T
    upright = np.abs(normals[kept, 0]) > np.abs(normals[kept, 1])
    group = (row * _REGIONS + col) * 2 + upright
    return places[kept], normals[kept].astype(np.float32), np.asarray(group, np.intp)


def _profiles(gray: Gray, places: Float32, normals: Float32) -> Float32:
    """Grey values along lines across edges, a pixel apart, shape (n, 2 * _FAR + 1)."""
    reach = np.arange(-_FAR, _FAR + 1, dtype=np.float32)
    # OpenCV takes no more than 32767 rows.
    parts = np.array_split(np.arange(len(places)), max(1, -(-len(places) // 30_000)))
    found = []
    for part in parts:
        x, y = (
            (places[part, k, None] + reach * normals[part, k, None]).astype(np.float32)
            for k in (0, 1)
        )
        found.append(cv2.remap(gray, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return np.concatenate(found).astype(np.float32).reshape(len(places), len(reach))


def _steepness(
    gray: Gray, places: Float32, normals: Float32, group: NDArray[np.intp]
) -> dict[int, float]:
    """Median steepness of the edges of each group that has enough of them, 0..1 and about.

    An edge of the sample need not lie where the golden's does: the steepest place near it counts.
    """
    if not len(places):
        return {}
    profile = _profiles(gray, places, normals)
    whole = profile[:, -1] - profile[:, 0]
    steepest = (profile[:, 2:] - profile[:, :-2]).max(axis=1)
    there = whole >= _LEAST_STEP / 2
    share = steepest[there] / whole[there]
    return {
        int(index): float(np.median(share[group[there] == index]))
        for index in np.flatnonzero(np.bincount(group[there]) >= _FEW)
    }
