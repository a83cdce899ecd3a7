"""The sun, the season and the camera of one date."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.testing.canvas import Canvas
from geocd.testing.textures import Float, Image, as_float


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """The season, the sun and the camera of one date.

    Attributes:
        azimuth: of the sun, degrees clockwise from north (up).
        elevation: of the sun, degrees above the horizon.
        lushness: 0 parched, 1 after a wet spring.
        sky: share of the light that reaches a shadow, 0..1.
        gains: of red, green and blue.
        haze: share of the light that comes from the air in between, 0..1.
        exposure: factor on everything, before the tone curve.
        blur: of the optics, standard deviation in pixels.
        sharpening: how much of the lost detail processing puts back.
        noise: of the sensor, standard deviation in grey levels.
        quality: of the JPEG compression, 1..100.
    """

    azimuth: float
    elevation: float
    lushness: float
    sky: float = 0.14
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    haze: float = 0.03
    exposure: float = 1.0
    blur: float = 0.5
    sharpening: float = 0.8
    noise: float = 1.6
    quality: int = 90

    @property
    def towards_sun(self) -> tuple[float, float, float]:
        """Unit vector (x right, y down, z up)."""
        azimuth, elevation = math.radians(self.azimuth), math.radians(self.elevation)
        flat = math.cos(elevation)
        return flat * math.sin(azimuth), -flat * math.cos(azimuth), math.sin(elevation)


def _shadow(height: Float, light: Light, scale: float) -> NDArray[np.bool_]:
    """Where something between a pixel and the sun is higher than the ray of light.

    Each round doubles the distance looked at, so a hundred pixels cost seven rounds:

        round 1   h(x), h(x + d) - t
        round 2   the best of 0..1 steps, and of 2..3 steps lowered by 2 t
        round 3   the best of 0..3 steps, and of 4..7 steps lowered by 4 t
    """
    x, y, z = light.towards_sun
    flat = math.hypot(x, y)
    drop = z / flat / scale
    reach = max(1.0, float(height.max()) / drop)
    highest, step = height.copy(), 1
    while step <= reach:
        dx, dy = round(x / flat * step), round(y / flat * step)
        towards = _moved(highest, -dy, -dx)
        np.maximum(highest, towards - np.float32(step * drop), out=highest)
        step *= 2
    # A hand's breadth of slack: a sloping roof must not shade itself by rounding.
    return highest > height + 0.25


def _moved(image: Float, rows: int, cols: int) -> Float:
    """The image moved down and right; what comes in from outside is ground (0)."""
    height, width = image.shape
    result = np.zeros_like(image)
    to_rows = slice(max(rows, 0), height + min(rows, 0))
    to_cols = slice(max(cols, 0), width + min(cols, 0))
    from_rows = slice(max(-rows, 0), height + min(-rows, 0))
    from_cols = slice(max(-cols, 0), width + min(-cols, 0))
    if to_rows.start < to_rows.stop and to_cols.start < to_cols.stop:
        result[to_rows, to_cols] = image[from_rows, from_cols]
    return result


def illuminate(canvas: Canvas, light: Light) -> Float:
    """Sunlight on slopes, skylight in shadows; radiance with flat sunlit ground at its albedo."""
    x, y, z = light.towards_sun
    gx, gy = canvas.slope_x, canvas.slope_y
    facing = (z - x * gx - y * gy) / np.sqrt(1 + gx * gx + gy * gy)
    shade = _shadow(canvas.height, light, canvas.scale).astype(np.float32)
    shade = as_float(cv2.GaussianBlur(shade, (0, 0), 0.3 * canvas.scale))
    sun = np.clip(facing / z, 0, 1.6) * (1 - 0.94 * shade)
    # The sky is hidden at the foot of walls and between crowns.
    around = cv2.blur(canvas.height, (round(3 * canvas.scale) | 1,) * 2)
    hidden = np.clip((around - canvas.height) * 0.12, 0, 0.5)
    sky = light.sky * (1 - hidden)
    direct = ((1 - light.sky) * sun).astype(np.float32)
    fall = cv2.merge([direct + sky * np.float32(tint) for tint in (0.88, 0.98, 1.16)])
    radiance = as_float(cv2.multiply(canvas.albedo, canvas.albedo, scale=1 / 255**2))
    radiance *= fall
    return radiance


def expose(radiance: Float, light: Light, rng: np.random.Generator) -> Image:
    """Haze, exposure, optics, noise and compression; (H, W, 3) radiance to (3, H, W) bytes."""
    height, width = radiance.shape[:2]
    radiance = as_float(cv2.GaussianBlur(radiance, (0, 0), light.blur))
    air = np.array([0.17, 0.19, 0.22], np.float32)
    gains = np.array(light.gains, np.float32) * light.exposure
    radiance = (radiance * (1 - light.haze) + air * light.haze) * gains
    # Brighter towards one corner, as between the frames of a mosaic.
    tilt = np.linspace(-0.03, 0.03, width)[None, :] + np.linspace(0.03, -0.03, height)[:, None]
    radiance *= (1 + tilt)[..., None].astype(np.float32)
    image = 255 * np.sqrt(np.clip(radiance, 0, None))
    # The shoulder of film: highlights bend instead of clipping.
    image = np.where(image > 190, 190 + 65 * np.tanh((image - 190) / 65), image)
    image += light.sharpening * (image - cv2.GaussianBlur(image, (0, 0), 1.2))
    grain = rng.standard_normal((height, width, 1), dtype=np.float32)
    colour_grain = rng.standard_normal((height, width, 3), dtype=np.float32)
    image += light.noise * (0.85 * grain + 0.5 * colour_grain)
    levels = np.clip(image, 1, 255).astype(np.uint8)
    return _compressed(levels, light.quality)


def _compressed(image: Image, quality: int) -> Image:
    """The image after a JPEG round trip, (3, H, W); 0 stays free for nodata."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV was built without JPEG")
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(np.maximum(decoded[..., ::-1], 1).transpose(2, 0, 1))
