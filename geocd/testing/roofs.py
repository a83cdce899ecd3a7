"""Painting buildings: the planes of their roofs, what covers them and what stands on them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from geocd.testing.canvas import ROUGHNESS, SUBPIXEL_BITS, Canvas
from geocd.testing.plan import Box, Building, Colour
from geocd.testing.textures import Float


def paint_building(canvas: Canvas, building: Building) -> None:
    """Its parts; where two overlap, the higher roof is seen."""
    rng = np.random.default_rng(building.seed)
    outline = np.concatenate([box.corners(0.5) for box in building.boxes])
    window = canvas.window(outline)
    if window is None:
        return
    canvas.height[window][_outline_mask(canvas, building, window)] = 0
    for box in building.boxes:
        _paint_roof(canvas, building, box, rng)
    if building.roof == "flat":
        _furnish_flat(canvas, building, rng)
    else:
        _furnish_pitched(canvas, building, rng)


def _outline_mask(
    canvas: Canvas, building: Building, window: tuple[slice, slice]
) -> NDArray[np.bool_]:
    x, y = canvas.metres(window)
    mask = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for box in building.boxes:
        u, v = _local(box, x, y)
        mask |= (np.abs(u) < box.length / 2) & (np.abs(v) < box.depth / 2)
    return mask


def _local(box: Box, x: Float, y: Float) -> tuple[Float, Float]:
    """Coordinates along and across a box."""
    dx, dy = x - np.float32(box.centre[0]), y - np.float32(box.centre[1])
    u = dx * np.float32(box.along[0]) + dy * np.float32(box.along[1])
    v = dx * np.float32(box.across[0]) + dy * np.float32(box.across[1])
    return u, v


def _paint_roof(
    canvas: Canvas, building: Building, box: Box, rng: np.random.Generator
) -> None:  # fmt: skip
    """One part of a roof: its planes, its ridges, the texture of its cover."""
    window = canvas.window(box.corners())
    if window is None:
        return
    u, v = _local(box, *canvas.metres(window))
    to_eave, to_end = box.depth / 2 - np.abs(v), box.length / 2 - np.abs(u)
    inside = (to_eave > 0) & (to_end > 0)
    hipped = (building.roof == "hip") & (to_end < to_eave)
    if building.roof == "flat":
        height = np.full(u.shape, building.eaves, np.float32)
        slope_u = slope_v = np.zeros(u.shape, np.float32)
    else:
        run = np.where(hipped, to_end, to_eave)
        height = (building.eaves + building.pitch * run).astype(np.float32)
        slope_u = np.where(hipped, -np.sign(u) * building.pitch, 0).astype(np.float32)
        slope_v = np.where(hipped, 0, -np.sign(v) * building.pitch).astype(np.float32)
    mask = inside & (height > canvas.height[window])
    cover = _cover(canvas, building, window, u, v, hipped, rng)
    if building.roof != "flat":
        # Ridge and hip tiles catch the light; eaves carry a gutter.
        other = np.where(hipped, to_eave - to_end, np.abs(v))
        if building.roof == "hip":
            other = np.minimum(other, np.abs(to_eave - to_end) * 0.7)
        cover *= np.where((other < 0.28) & (height > building.eaves + 0.4), 1.1, 1.0)
        cover *= np.where(np.minimum(to_eave, to_end) < 0.25, 0.9, 1.0)
    canvas.albedo[window][mask] = np.array(building.colour, np.float32) * cover[mask][:, None]
    slope = (
        slope_u * box.along[0] + slope_v * box.across[0],
        slope_u * box.along[1] + slope_v * box.across[1],
    )
    canvas.rise(window, mask, height, slope)


def _cover(
    canvas: Canvas,
    building: Building,
    window: tuple[slice, slice],
    u: Float,
    v: Float,
    hipped: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Float:
    """Brightness of a roof's cover, about 1: courses or seams, stains, weathering."""
    fine, medium, _ = ROUGHNESS[building.surface]
    cover = 1 + fine * canvas.fine[window] + medium * canvas.medium[window]
    down, along = np.where(hipped, u, v), np.where(hipped, v, u)
    if building.surface in ("tile", "shingle"):
        cover += 0.03 * np.sin(2 * np.pi * down / 0.85 + rng.uniform(0, 6))
        # Rain draws streaks down the slope: noise that hardly changes along it.
        streaks = rng.standard_normal(64).astype(np.float32)
        cover += 0.025 * np.interp(along.ravel() % 32, np.arange(64) / 2, streaks).reshape(u.shape)
    elif building.surface == "metal":
        cover += 0.05 * np.sin(2 * np.pi * along / float(rng.uniform(1.1, 2.0)))
        panels = np.floor(along / 6.0 + rng.random())
        cover += 0.025 * np.sin(panels * 12.9)
    else:
        rolls = np.abs((along / 2.4) % 1 - 0.5) < 0.05
        cover -= 0.05 * rolls
        cover -= 0.10 * np.clip(canvas.coarse[window] + canvas.medium[window] - 0.6, 0, 1)
    return np.asarray(cover, np.float32)


def _furnish_flat(canvas: Canvas, building: Building, rng: np.random.Generator) -> None:
    """A parapet all round, and machines, skylights and vents on the roof."""
    ring = np.asarray(building.polygon.exterior.coords)
    inner = building.polygon.buffer(-0.35)
    red, green, blue = building.colour
    edge = (min(250.0, red * 1.06), min(250.0, green * 1.06), min(250.0, blue * 1.06))
    rim = [canvas.pixels(ring)]
    thickness = max(1, round(0.5 * canvas.scale))
    for layer, value in ((canvas.albedo, edge), (canvas.height, (building.eaves + 0.7,))):
        cv2.polylines(layer, rim, True, value, thickness, cv2.LINE_8, SUBPIXEL_BITS)
    if inner.is_empty:
        return
    main = building.boxes[0]
    for _ in range(round(main.length * main.depth / 110)):
        spot = main.point(
            float(rng.uniform(-0.42, 0.42)) * main.length,
            float(rng.uniform(-0.4, 0.4)) * main.depth,
        )
        grey = float(rng.choice([206.0, 168.0, 96.0]))
        side = float(rng.uniform(0.9, 3.0))
        unit = Box(spot, main.along, side, side * float(rng.uniform(0.6, 1.0)))
        _block(canvas, unit, (grey, grey, grey), building.eaves + float(rng.uniform(0.5, 1.6)))


def _furnish_pitched(canvas: Canvas, building: Building, rng: np.random.Generator) -> None:
    """A chimney, vents, and now and then solar panels."""
    main = building.boxes[0]
    top = building.eaves + building.pitch * main.depth / 2
    if rng.random() < 0.55:
        spot = main.point(float(rng.uniform(-0.25, 0.25)) * main.length, float(rng.uniform(-1, 1)))
        _block(canvas, Box(spot, main.along, 0.9, 0.8), (120, 96, 84), top + 0.9)
    for _ in range(int(rng.integers(1, 4))):
        v = float(rng.uniform(0.15, 0.32)) * main.depth * float(rng.choice([-1, 1]))
        spot = main.point(float(rng.uniform(-0.35, 0.35)) * main.length, v)
        grey = float(rng.choice([60.0, 210.0]))
        _block(canvas, Box(spot, main.along, 0.55, 0.5), (grey, grey, grey), None)
    if rng.random() < 0.12:
        v = 0.25 * main.depth * float(rng.choice([-1, 1]))
        panels = Box(main.point(0, v), main.along, 6.0, main.depth * 0.24)
        _block(canvas, panels, (44, 50, 66), None)


def _block(canvas: Canvas, box: Box, colour: Colour, top: float | None) -> None:
    """A small box on a roof; without a height it only shows, and casts no shadow."""
    outline = [canvas.pixels(box.corners())]
    cv2.fillPoly(canvas.albedo, outline, colour, cv2.LINE_8, SUBPIXEL_BITS)
    if top is not None:
        cv2.fillPoly(canvas.height, outline, (top,), cv2.LINE_8, SUBPIXEL_BITS)
