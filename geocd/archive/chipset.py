"""The folder of a set of chips: what is unfinished, what is whole, and the index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
from affine import Affine
from rasterio.crs import CRS

from geocd import outputs
from geocd.archive.header import WGS84
from geocd.errors import OutputError, OutputExistsError
from geocd.rasters.grid import Grid, reproject_geometry

INDEX = "chips.parquet"
"""Index of the chips; where it is, the set is whole."""
FOLDERS = ("A", "B", "label")
"""Where the files are."""
_WORK = ".tiling"
_COLUMNS = ("name", "split", "pair", "before_date", "after_date", "row", "col", "height", "width",
            "crs", "transform", "observed", "known")  # fmt: skip


def work_folder(output: Path) -> Path:
    """The folder of unfinished chips; refuses an output that is something else.

    Raises:
        OutputExistsError: the set is there, or other files are.
        OutputError: the folder cannot be made.
    """
    work = output / _WORK
    if (output / INDEX).exists():
        raise OutputExistsError(f"{output} holds chips already; remove it, or write elsewhere")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file, not a folder; write elsewhere")
    if output.is_dir() and any(output.iterdir()) and not work.is_dir():
        raise OutputExistsError(f"{output} is not empty; write into a folder of its own")
    if not output.parent.is_dir():
        raise OutputError(f"the folder {output.parent} does not exist; create it first")
    try:
        for name in (*FOLDERS, "parts"):
            (work / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {output}: {error.strerror}") from None
    return work


def agree(work: Path, settings: Mapping[str, Any]) -> None:
    """Go on only with what was begun with the same inputs and settings.

    Raises:
        OutputExistsError: they differ.
    """
    file = work / "settings.json"
    now = json.loads(json.dumps(settings))
    if file.exists():
        begun = json.loads(file.read_text())
        differing = sorted(k for k in now.keys() | begun.keys() if now.get(k) != begun.get(k))
        if differing:
            raise OutputExistsError(
                f"{work.parent} holds chips that were begun with other {', '.join(differing)}; "
                "go on with the same, remove the folder, or write elsewhere"
            )
        return
    with outputs.replacing(file) as draft:
        draft.write_text(json.dumps(now, indent=1))


def read_parts(work: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """What is told of each pair that is cut."""
    paths = (work / "parts" / f"{name}.json" for name in names)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def index_of(rows: list[dict[str, Any]], classes: Sequence[str]) -> geopandas.GeoDataFrame:
    """The index of chips by name, in WGS 84, or in pixel units where there is no CRS."""
    shares = [f"share_{name}" for name in classes]
    table = pd.DataFrame(rows, columns=[*_COLUMNS, *shares]).sort_values("name", ignore_index=True)
    table = table.astype(dict.fromkeys(("before_date", "after_date", "crs"), "string"))
    grids = [_grid_of(row) for row in table.to_dict("records")]
    placed = all(grid.crs is not None for grid in grids)
    ground = [
        reproject_geometry(g.footprint, g.crs, WGS84) if placed and g.crs else g.footprint
        for g in grids
    ]
    return geopandas.GeoDataFrame(table, geometry=ground, crs="EPSG:4326" if placed else None)


def _grid_of(row: Mapping[Any, Any]) -> Grid:
    crs = None if pd.isna(row["crs"]) else CRS.from_user_input(row["crs"])
    return Grid(crs, Affine(*row["transform"]), int(row["height"]), int(row["width"]))


def _chip_name(file: Path) -> str:
    """The name of the chip that a file, or a file beside it, belongs to."""
    return file.name.removesuffix(".aux.xml").rpartition(".")[0]


def publish(work: Path, output: Path, index: geopandas.GeoDataFrame) -> None:
    """Bring finished chips where they are looked for; the index comes last."""
    kept = set(index["name"])
    for name in FOLDERS:
        for chip in (work / name).iterdir():
            # Of a unit that failed, or was killed and then failed.
            if _chip_name(chip) not in kept:
                chip.unlink()
        if any((work / name).iterdir()):
            (work / name).replace(output / name)
    (output / "list").mkdir(exist_ok=True)
    for split, rows in index.groupby("split"):
        with outputs.replacing(output / "list" / f"{split}.txt") as draft:
            draft.write_text("".join(f"{name}\n" for name in rows["name"]))
    with outputs.replacing(output / INDEX) as draft:
        index.to_parquet(draft, schema_version="1.1.0", index=False,
                         write_covering_bbox=index.crs is not None)  # fmt: skip
