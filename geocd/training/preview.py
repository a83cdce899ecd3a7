"""Sheets of tiles and of synthesised pairs, to look at what a network will be taught."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geocd.config import CHANGE_MAP_COLOURS, CLASS_CODES
from geocd.errors import ConfigError
from geocd.outputs import check_writable, replacing
from geocd.training.defects import DefectPairs
from geocd.training.real import RealPairs
from geocd.training.recipe import Recipe
from geocd.training.stream import PairSampler
from geocd.training.synthesis import Pair, PairSynthesizer
from geocd.training.tiles import IGNORE, Tile, load_tiles

_PLANES = ("building", "road")
_TITLE, _GAP = 22, 4
_INK, _PAPER, _UNKNOWN = (20, 20, 20), (255, 255, 255), (128, 128, 128)
_COLUMNS = 4


def write_tiles(
    tiles: Sequence[Tile], path: Path, *, number: int = 12, side: int = 256, seed: int = 0,
    overwrite: bool = False,
) -> None:  # fmt: skip
    """Write a picture of some tiles with the outlines of their labels: does everything fit?

    Buildings are outlined in orange, roads in blue; where nothing is known there is no outline.

    Args:
        tiles: from ``load_tiles``.
        path: picture file; its extension decides the format.
        number: tiles to show, drawn at random; fewer if there are fewer.
        side: each tile is cut to so many pixels at most.
        seed: other seeds show other tiles.
        overwrite: replace an existing file.

    Raises:
        ConfigError: no tiles, or a number or side below 1.
        OutputError: the file cannot be written.
    """
    if not tiles or number < 1 or side < 1:
        raise ConfigError(
            f"a sheet needs at least one tile of at least one pixel; got {number} of {len(tiles)} "
            f"tiles, {side} pixels"
        )
    check_writable(path, overwrite=overwrite)
    rng = np.random.default_rng(seed)
    shown = sorted(rng.permutation(len(tiles))[:number].tolist())
    rows = -(-len(shown) // _COLUMNS)
    columns = min(len(shown), _COLUMNS)
    size = (_GAP + columns * (side + _GAP), rows * (side + _TITLE + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for place, index in enumerate(shown):
        top, left = divmod(place, _COLUMNS)
        at = (_GAP + left * (side + _GAP), top * (side + _TITLE + _GAP))
        draw.text((at[0], at[1] + 4), tiles[index].name[-side // 7 :], fill=_INK, font=font)
        picture = outlined(tiles[index])[:side, :side]
        sheet.paste(Image.fromarray(picture), (at[0], at[1] + _TITLE))
    with replacing(path) as temporary:
        sheet.save(temporary)


def outlined(tile: Tile) -> NDArray[np.uint8]:
    """The image of a tile with the outlines of its labels, shape (height, width, 3)."""
    out = tile.image.copy()
    for name, plane in zip(_PLANES, tile.labels, strict=False):
        present = np.pad(plane == 1, 1, mode="edge")
        core = present[:-2, 1:-1] & present[2:, 1:-1] & present[1:-1, :-2] & present[1:-1, 2:]
        out[(plane == 1) & ~core] = CHANGE_MAP_COLOURS[CLASS_CODES[name]][:3]
    return out


def write_sheet(
    synthesizer: PairSynthesizer, path: Path, *, kinds: Sequence[str] = (), number: int = 2,
    crop: int = 160, seed: int = 0, overwrite: bool = False,
) -> None:  # fmt: skip
    """Write a picture with some pairs of each kind: before, after, and the change on grey.

    New and vanished buildings are orange, roads blue; what is ignored in every class is hatched.

    Args:
        synthesizer: makes the pairs.
        path: picture file; its extension decides the format.
        kinds: which kinds; empty: those whose share is not 0.
        number: pairs of each kind, side by side.
        crop: side of a pair, pixels.
        seed: other seeds show other pairs.
        overwrite: replace an existing file.

    Raises:
        ConfigError: an unknown kind, or a number below 1.
        OutputError: the file cannot be written.
    """
    shares = synthesizer.config.shares
    kinds = tuple(kinds) or tuple(kind for kind, share in shares.items() if share > 0)
    unknown = sorted(set(kinds) - set(shares))
    if unknown or number < 1 or crop < 1:
        raise ConfigError(
            f"a sheet needs kinds of {', '.join(shares)}, and at least one pair of at least one "
            f"pixel; got {', '.join(unknown) or f'{number} pairs of {crop} pixels'}"
        )
    check_writable(path, overwrite=overwrite)
    width = number * (3 * crop + 3 * _GAP) + _GAP
    height = len(kinds) * (crop + _TITLE + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for row, kind in enumerate(kinds):
        top = row * (crop + _TITLE + _GAP)
        draw.text((_GAP, top + 2), kind, fill=_INK, font=font)
        for column in range(number):
            rng = np.random.default_rng([seed, row, column])
            pair = synthesizer.sample(rng, crop, kind=kind)
            left = _GAP + column * (3 * crop + 3 * _GAP)
            sheet.paste(Image.fromarray(_strip(pair)), (left, top + _TITLE))
    with replacing(path) as temporary:
        sheet.save(temporary)


def _strip(pair: Pair) -> NDArray[np.uint8]:
    """Before, after and change side by side, shape (height, 3 * width + gaps, 3)."""
    gap = np.full((pair.before.shape[0], _GAP // 2, 3), 255, np.uint8)
    return np.hstack([pair.before, gap, pair.after, gap, change_picture(pair)])


def change_picture(pair: Pair) -> NDArray[np.uint8]:
    """The change of a pair in colours on its greyed after image, shape (height, width, 3)."""
    grey = pair.after.mean(axis=2, keepdims=True) * 0.5 + 96
    out = np.repeat(grey, 3, axis=2)
    for name, plane in zip(_PLANES, pair.change, strict=False):
        out[plane == 1] = CHANGE_MAP_COLOURS[CLASS_CODES[name]][:3]
    rows, cols = np.indices(pair.change.shape[1:])
    hatched = (pair.change == IGNORE).all(axis=0) & ((rows + cols) % 6 < 2)
    out[hatched] = _UNKNOWN
    return out.astype(np.uint8)


def write_preview(recipe: Recipe, data: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``pairs.png`` and, of tiles, ``tiles.png``: what a recipe's pairs look like.

    Args:
        recipe: its sources and its synthesis.
        data: the data root.
        folder: is made if it does not exist.
        overwrite: replace existing pictures.

    Raises:
        ConfigError: the recipe synthesises nothing.
        DatasetError: the tiles or the pictures of good parts cannot be used.
        OutputError: a picture cannot be written.
    """
    if not (recipe.sources or recipe.defects):
        raise ConfigError(
            f"{recipe.name} synthesises no pairs: it has no [[sources]] and no [[defects]]"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.defects:
        _write_defects(recipe, data, folder / "pairs.png", overwrite=overwrite)
        return
    tiles = load_tiles(data, recipe.sources, classes=len(recipe.planes))
    write_tiles(tiles, folder / "tiles.png", seed=recipe.seed, overwrite=overwrite)
    synthesizer = PairSynthesizer(tiles, recipe.sources, recipe.synthesis)
    write_sheet(synthesizer, folder / "pairs.png", seed=recipe.seed, overwrite=overwrite)


def _write_defects(recipe: Recipe, data: Path, path: Path, *, overwrite: bool) -> None:
    """A sheet of real pairs and of pairs with synthesised defects, as they are trained on."""
    check_writable(path, overwrite=overwrite)
    samplers: list[PairSampler] = [
        *(RealPairs(s, data, classes=recipe.planes, strict=False) for s in recipe.pairs),
        *(DefectPairs(source, data) for source in recipe.defects),
    ]
    crop, columns, rows = recipe.stages[0].crop, 3, 4
    wide = 3 * crop + 2 * _GAP
    sheet = Image.new(
        "RGB", (columns * wide + _GAP, len(samplers) * rows * (crop + _GAP) + _GAP), _PAPER
    )
    for place in range(len(samplers) * rows * columns):
        row, column = divmod(place, columns)
        rng = np.random.default_rng([recipe.seed, place])
        pair = samplers[row // rows].sample(rng, crop)
        at = (_GAP + column * wide, _GAP + row * (crop + _GAP))
        sheet.paste(Image.fromarray(_strip(pair)), at)
    with replacing(path) as temporary:
        sheet.save(temporary)
