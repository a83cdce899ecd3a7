"""Rendering a planned suburb as an aerial photograph."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import shapely

from geocd.testing.camera import Light, expose, illuminate
from geocd.testing.canvas import CODE, SUBPIXEL_BITS, Canvas
from geocd.testing.plan import Box, Colour, Field, Line, Patch, Points, Stage, Suburb, Tree
from geocd.testing.roofs import paint_building
from geocd.testing.textures import Float, Image, as_float, fractal_noise


def render(
    suburb: Suburb,
    stage: Stage,
    light: Light,
    *,
    shape: tuple[int, int],
    gsd: float,
    seed: int,
) -> Image:
    """The suburb on one date, seen straight from above.

    Args:
        suburb: what stands where.
        stage: "before" or "after".
        light: season, sun and camera of the date.
        shape: (height, width) of the image.
        gsd: metres per pixel.
        seed: of the texture; equal seeds give the same soil on both dates.

    Returns:
        Shape (3, height, width), red, green, blue; values 1..255.
    """
    # Twice as fine where memory allows: edges of roofs then end between pixels, as in a photo.
    fineness = 2 if shape[0] * shape[1] <= 2048 * 2048 else 1
    canvas = Canvas(shape, fineness, gsd, np.random.default_rng([seed, 2]))
    canvas.paint_ground(light.lushness)
    _paint_surfaces(canvas, suburb, stage)
    canvas.apply_roughness()
    for tree in suburb.trees:
        if tree.stage in ("both", stage):
            _paint_tree(canvas, tree, stage, light.lushness)
    for building in (*suburb.clutter, *suburb.buildings):
        if building.stage in ("both", stage):
            paint_building(canvas, building)
    radiance = illuminate(canvas, light)
    date = np.random.default_rng([seed, 3, int(stage == "after")])
    seen = as_float(cv2.resize(radiance, shape[::-1], interpolation=cv2.INTER_AREA))
    return expose(seen, light, date)


# -- the ground ------------------------------------------------------------------------------


def _paint_surfaces(canvas: Canvas, suburb: Suburb, stage: Stage) -> None:
    """Fields, patches, streets, markings, fences and cars, in the order they cover each other."""
    for tilled in suburb.fields:
        _paint_field(canvas, tilled, stage)
    here = [patch for patch in suburb.patches if patch.stage in ("both", stage)]
    for patch in here:
        if patch.surface == "water":
            _paint_water(canvas, patch)
        elif patch.ragged:
            _paint_ragged(canvas, patch)
        elif patch.surface != "concrete":
            canvas.fill(patch.outline, patch.colour, patch.surface)
    _paint_streets(canvas, suburb, stage)
    for patch in here:
        if patch.surface in ("concrete", "paint"):
            canvas.fill(patch.outline, patch.colour, patch.surface)
    for line in suburb.lines:
        if line.stage in ("both", stage):
            _paint_line(canvas, line)
    for box, colour, when in suburb.cars:
        if when in ("both", stage):
            _paint_car(canvas, box, colour)


def _paint_field(canvas: Canvas, tilled: Field, stage: Stage) -> None:
    """Furrows with a wobble, and the bands that machines leave."""
    window = canvas.window(tilled.outline)
    if window is None:
        return
    x, y = canvas.metres(window)
    dx, dy = tilled.direction / np.hypot(*tilled.direction)
    across = -dy * x + dx * y + 0.5 * canvas.medium[window]
    phase = 2 * np.pi * across / tilled.spacing
    furrow = 0.06 * np.sin(phase) + 0.03 * np.sin(phase / 6.3) + 0.05 * canvas.coarse[window]
    canvas.fill(tilled.outline, tilled.before if stage == "before" else tilled.after, "ground")
    mask = np.zeros(furrow.shape, np.uint8)
    offset = np.array([window[1].start, window[0].start]) / canvas.scale
    cv2.fillPoly(mask, [canvas.pixels(tilled.outline - offset)], (1,), cv2.LINE_8, SUBPIXEL_BITS)
    inside = mask > 0
    canvas.albedo[window][inside] *= 1 + furrow[inside][:, None]


def _paint_ragged(canvas: Canvas, patch: Patch) -> None:
    """A patch whose edge frays into the ground around it."""
    window = canvas.window(patch.outline, 4.0)
    if window is None:
        return
    mask = np.zeros(canvas.height[window].shape, np.float32)
    offset = np.array([window[1].start, window[0].start]) / canvas.scale
    cv2.fillPoly(mask, [canvas.pixels(patch.outline - offset)], (1.0,), cv2.LINE_8, SUBPIXEL_BITS)
    mask = as_float(cv2.GaussianBlur(mask, (0, 0), 1.6 * canvas.scale))
    mask = np.clip((mask - 0.5 + 0.14 * canvas.medium[window]) * 5 + 0.5, 0, 1)
    mask *= 0.86
    albedo = canvas.albedo[window]
    albedo += mask[..., None] * (np.array(patch.colour, np.float32) - albedo)
    canvas.code[window][mask > 0.4] = CODE[patch.surface]


def _paint_water(canvas: Canvas, patch: Patch) -> None:
    """Water with a shore, and specks of glint where its waves mirror the sun."""
    window = canvas.window(patch.outline, 2.0)
    if window is None:
        return
    offset = np.array([window[1].start, window[0].start]) / canvas.scale
    mask = np.zeros(canvas.code[window].shape, np.uint8)
    cv2.fillPoly(mask, [canvas.pixels(patch.outline - offset)], (1,), cv2.LINE_8, SUBPIXEL_BITS)
    inside = mask > 0
    canvas.albedo[window][inside] = patch.colour
    canvas.code[window][inside] = CODE[patch.surface]
    waves = canvas.fine[window] + 0.8 * canvas.medium[window] + 0.6 * canvas.coarse[window]
    bright = inside & (waves > 3.2 - 2.4 * patch.glint) if patch.glint else np.zeros_like(inside)
    canvas.albedo[window][bright] = (236, 240, 238)


def _paint_streets(canvas: Canvas, suburb: Suburb, stage: Stage) -> None:
    """Verges and kerbs first, then all carriageways, so that junctions stay open."""
    streets = [street for street in suburb.streets if street.stage in ("both", stage)]
    polygons = [street.polygon for street in streets]
    for street, polygon in zip(streets, polygons, strict=True):
        new = street.stage == "after"
        if street.centre_line or new:
            walk = np.asarray(polygon.buffer(1.5).exterior.coords)
            canvas.fill(walk, (178, 172, 158), "concrete")
    for polygon in polygons:
        kerb = np.asarray(polygon.buffer(0.3).exterior.coords)
        canvas.fill(kerb, (184, 179, 168), "concrete")
    for index, polygon in enumerate(polygons):
        grey = 142.0 + 10 * math.sin(5.1 * index) - (26 if streets[index].stage == "after" else 0)
        outline = np.asarray(polygon.exterior.coords)
        canvas.fill(outline, (grey, grey - 2, grey - 7), "asphalt")
    for street in streets:
        line = shapely.LineString(street.line)
        for side in (-1, 1):
            # Wheels polish a lane and oil darkens its middle.
            # In a sharp bend a lane may come in several parts.
            for lane in shapely.get_parts(line.offset_curve(side * street.width / 4)):
                _stroke(canvas, np.asarray(lane.coords), 0.7, (124, 122, 117))
        if street.centre_line:
            _dashes(canvas, line)


def _stroke(canvas: Canvas, points: Points, width: float, colour: Colour) -> None:
    thickness = max(1, round(width * canvas.scale))
    points_px = [canvas.pixels(points)]
    cv2.polylines(
        canvas.albedo, points_px, False, colour, thickness, cv2.LINE_8, SUBPIXEL_BITS
    )  # fmt: skip


def _dashes(canvas: Canvas, line: shapely.LineString) -> None:
    for s in np.arange(0.0, line.length - 3, 9.0):
        a, b = line.interpolate(s), line.interpolate(s + 3)
        _stroke(canvas, np.array([[a.x, a.y], [b.x, b.y]]), 0.2, (206, 204, 196))


def _paint_line(canvas: Canvas, line: Line) -> None:
    """A marking, or a fence that stands up and casts a shadow."""
    _stroke(canvas, line.points, line.width, line.colour)
    if line.height:
        thickness = max(1, round(line.width * canvas.scale))
        cv2.polylines(
            canvas.height, [canvas.pixels(line.points)], False, (line.height,), thickness,
            cv2.LINE_8, SUBPIXEL_BITS,
        )  # fmt: skip


def _paint_car(canvas: Canvas, box: Box, colour: Colour) -> None:
    """A body with a darker windscreen and rear window."""
    canvas.fill(box.corners(), colour, "paint")
    for u, share in ((0.14, 0.12), (-0.34, 0.08)):
        glass = Box(box.point(u * box.length, 0), box.along, share * box.length * 1.6, 1.6)
        canvas.fill(glass.corners(), (58, 62, 68), "paint")
    points = [canvas.pixels(box.corners())]
    cv2.fillPoly(canvas.height, points, (1.4,), cv2.LINE_8, SUBPIXEL_BITS)


# -- trees -----------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _crown(shape: int) -> tuple[Float, Float]:
    """Height (0..1) and tint (about 1) of a crown on 64 x 64 pixels; height 0 is outside."""
    rng = np.random.default_rng(shape)
    y, x = np.mgrid[-1:1:64j, -1:1:64j].astype(np.float32)
    angle = np.arctan2(y, x)
    edge = np.full_like(x, 0.84)
    for k in range(2, 8):
        edge += 0.13 / k * np.cos(k * angle + rng.uniform(0, 6.28)).astype(np.float32)
    distance = np.hypot(x, y) / edge
    dome = np.sqrt(np.clip(1 - distance**2, 0, 1))
    lumps = fractal_noise((64, 64), rng, coarsest=20, finest=3, roughness=0.85)
    ragged = distance + 0.09 * lumps < 1
    height = np.where(ragged, np.clip(0.45 + 0.5 * dome + 0.10 * lumps, 0.2, 1.2), 0)
    tint = 1 + 0.13 * lumps - 0.16 * distance
    return height.astype(np.float32), tint.astype(np.float32)


def _paint_tree(canvas: Canvas, tree: Tree, stage: Stage, lushness: float) -> None:
    """Put a crown where it rises above what is there already."""
    growth = tree.growth if stage == "after" else 1.0
    radius = tree.radius * growth
    height, tint = _crown(tree.shape)
    side = round(2 * radius * canvas.scale) + 1
    height, tint = (as_float(cv2.resize(layer, (side, side))) for layer in (height, tint))
    height = height * np.float32(tree.height)
    row0 = math.floor((tree.y - radius) * canvas.scale)
    col0 = math.floor((tree.x - radius) * canvas.scale)
    rows = slice(max(-row0, 0), min(canvas.shape[0] - row0, side))
    cols = slice(max(-col0, 0), min(canvas.shape[1] - col0, side))
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return
    window = (
        slice(row0 + rows.start, row0 + rows.stop), slice(col0 + cols.start, col0 + cols.stop)
    )  # fmt: skip
    # Leaves are soft: half of the true slope shades like a crown, all of it like a rock.
    slope_y, slope_x = np.gradient(height * canvas.scale * 0.42)
    height, tint = height[rows, cols], tint[rows, cols]
    mask = height > np.maximum(canvas.height[window], 0.25 * tree.height)
    leaf = np.array(tree.colour, np.float32) + (lushness - 0.5) * np.array([-16, 4, -8], np.float32)
    canvas.albedo[window][mask] = leaf * tint[mask][:, None]
    # Roofs keep their slopes; the crown's own are limited where its edge falls to the ground.
    slope = (slope_x[rows, cols].clip(-1.3, 1.3), slope_y[rows, cols].clip(-1.3, 1.3))
    canvas.rise(window, mask, height, slope)
