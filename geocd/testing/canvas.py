"""The raster that a suburb is painted on: colour, surface, height and slope."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.testing.plan import SURFACES, Colour, Points, Surface
from geocd.testing.textures import Float, fractal_noise

CODE: dict[Surface, int] = {surface: code for code, surface in enumerate(SURFACES)}
# How much of the fine, the medium and the coarse noise shows on each surface.
ROUGHNESS: dict[Surface, tuple[float, float, float]] = {
    "ground": (0.090, 0.090, 0.05),
    "lawn": (0.070, 0.070, 0.05),
    "soil": (0.070, 0.080, 0.06),
    "asphalt": (0.035, 0.045, 0.05),
    "concrete": (0.035, 0.050, 0.02),
    "tile": (0.055, 0.040, 0.02),
    "shingle": (0.050, 0.040, 0.02),
    "metal": (0.020, 0.030, 0.02),
    "membrane": (0.025, 0.050, 0.03),
    "paint": (0.020, 0.020, 0.00),
    "water": (0.060, 0.030, 0.05),
}
SUBPIXEL_BITS = 4


class Canvas:
    """Colour, height and slope of the ground and what stands on it."""

    def __init__(
        self, shape: tuple[int, int], fineness: int, gsd: float, rng: np.random.Generator
    ) -> None:
        self.scale = fineness / gsd
        """Pixels per metre."""
        self.shape = (shape[0] * fineness, shape[1] * fineness)
        self.rng = rng
        self.albedo = np.zeros((*self.shape, 3), np.float32)
        self.code = np.zeros(self.shape, np.uint8)
        self.height = np.zeros(self.shape, np.float32)
        # Metres of rise per metre to the right and downwards; only for shading.
        self.slope_x = np.zeros(self.shape, np.float32)
        self.slope_y = np.zeros(self.shape, np.float32)
        px = self.scale
        self.fine = fractal_noise(self.shape, rng, coarsest=1.2 * px, finest=2, roughness=0.9)
        self.medium = fractal_noise(self.shape, rng, coarsest=14 * px, finest=1.2 * px)
        self.coarse = fractal_noise(self.shape, rng, coarsest=90 * px, finest=9 * px, roughness=0.7)

    def pixels(self, points: Points) -> NDArray[np.int32]:
        """Points in metres as OpenCV wants them: pixel centres, fixed point."""
        fixed = (points * self.scale - 0.5) * (1 << SUBPIXEL_BITS)
        return np.round(fixed).astype(np.int32)

    def window(self, points: Points, margin: float = 0.0) -> tuple[slice, slice] | None:
        """Rows and columns around some points; None if off the canvas."""
        low = np.floor((points.min(axis=0) - margin) * self.scale).astype(int)
        high = np.ceil((points.max(axis=0) + margin) * self.scale).astype(int) + 1
        (x0, y0), (x1, y1) = np.maximum(low, 0), np.minimum(high, self.shape[::-1])
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def metres(self, window: tuple[slice, slice]) -> tuple[Float, Float]:
        """X (1, n) and y (n, 1) of the pixel centres of a window."""
        rows, cols = window
        y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) / self.scale
        x = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5) / self.scale
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)

    def fill(self, outline: Points, colour: Colour, surface: Surface) -> None:
        """A polygon of one colour and surface."""
        points = [self.pixels(outline)]
        cv2.fillPoly(self.albedo, points, colour, cv2.LINE_8, SUBPIXEL_BITS)
        cv2.fillPoly(self.code, points, (CODE[surface],), cv2.LINE_8, SUBPIXEL_BITS)

    def paint_ground(self, lushness: float) -> None:
        """Grass, dry grass and bare soil, mixed by noise."""
        bare, dry, lush = (
            np.array(c, np.float32) for c in ((150, 130, 106), (128, 117, 90), (94, 100, 72))
        )
        green = np.clip(0.5 + 0.33 * self.coarse + 0.22 * self.medium + (lushness - 0.55), 0, 1)
        worn = np.clip(0.45 * self.coarse[::-1] + 0.35 * self.medium[:, ::-1] - 0.62, 0, 1)
        for band in range(3):
            layer = dry[band] + green * (lush[band] - dry[band])
            self.albedo[..., band] = layer + worn * (bare[band] - layer)

    def apply_roughness(self) -> None:
        """Let noise show on every surface as far as it is rough."""
        factors = np.ones(self.shape, np.float32)
        for index, noise in enumerate((self.fine, self.medium, self.coarse)):
            table = np.zeros(256, np.float32)
            table[: len(SURFACES)] = [ROUGHNESS[surface][index] for surface in SURFACES]
            factors += cv2.LUT(self.code, table).reshape(self.shape) * noise
        self.albedo *= cv2.merge([factors] * 3)

    def rise(self, window: tuple[slice, slice], mask: NDArray[np.bool_], top: Any, slope: Any) -> (
        None
    ):  # fmt: skip
        """Set height and slope inside a mask of a window."""
        self.height[window][mask] = top if np.isscalar(top) else top[mask]
        for layer, part in ((self.slope_x, slope[0]), (self.slope_y, slope[1])):
            layer[window][mask] = part if np.isscalar(part) else part[mask]
