"""A QGIS project of a run: both images, the rasters and the polygons, ready to look through."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import geopandas
import pandas as pd
import pyogrio
import pyproj
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geocd.errors import ConfigError
from geocd.maps.mosaic import fits_a_mosaic, write_mosaic
from geocd.maps.placed import moved_georeferencing
from geocd.maps.qgis_xml import Bookmark, Extent, Group, MapLayer, Project, save_archive
from geocd.maps.qml import style_text
from geocd.maps.vector import LAYER
from geocd.outputs import check_writable, replacing
from geocd.rasters.scene import Scene

_BOOKMARKS = 20
"""So many of the largest changes are bookmarked."""
_MARGIN = 0.03
"""Ground shown around the run at first, as a share of its longer side."""
_LEAST_VIEW = 0.02
"""Shortest side of a bookmark, as a share of the longer side of the run."""
_VECTOR_LAYERS = {
    "centrelines": "Road centrelines",
    LAYER: "Change polygons",
    "not_observed": "Not observed",
    "footprint": "Extent",
}
"""What a GeoPackage of a run may hold, the uppermost first."""
_KIND_NAMES = {"building": "Building", "road": "Road"}
_VIRTUAL = {"http": "/vsicurl/http", "https": "/vsicurl/https", "ftp": "/vsicurl/ftp",
            "s3": "/vsis3", "gs": "/vsigs", "az": "/vsiaz"}  # fmt: skip
"""How GDAL without rasterio spells the beginnings of URLs."""


@dataclass(frozen=True, slots=True)
class _Image:
    """One date of the project."""

    role: str
    scene: Scene
    date: str | None
    moved: Affine | None
    """Transform under which it is shown; None: its own."""
    note: str


def check_qgis_project(path: Path, changes: Path, *, overwrite: bool) -> None:
    """Refuse a project that could not be written, before the work that leads to it.

    Args:
        path: of the project.
        changes: of the change polygons.
        overwrite: an existing project may be replaced.

    Raises:
        ConfigError: the project does not end in .qgz, or the polygons are in no GeoPackage.
        OutputError: see ``outputs.check_writable``.
    """
    if path.suffix.lower() != ".qgz":
        raise ConfigError(f"a QGIS project is written as .qgz, got {path.name!r}")
    if changes.suffix.lower() != ".gpkg":
        raise ConfigError(
            f"a QGIS project shows the layers of a GeoPackage, and {changes.name!r} is none; "
            "write the change polygons as .gpkg"
        )
    for output in (path, *(_mosaic(path, role) for role in ("before", "after"))):
        check_writable(output, overwrite=overwrite)


def _mosaic(project: Path, role: str) -> Path:
    """The VRT of the tiles of a date."""
    return project.with_name(f"{project.stem}.{role}.vrt")


def write_qgis_project(
    changes: str | Path,
    output: str | Path,
    *,
    before: str | Path | None = None,
    after: str | Path | None = None,
    mask: str | Path | None = None,
    scores: str | Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write a QGIS project that shows a run. Needs no QGIS. Atomic.

    From top to bottom: polygons, change map and scores (hidden at first), after, before; so
    that hiding or swiping 'after' uncovers 'before'. There are themes of both dates, and
    bookmarks of the largest changes. Paths are relative to the project: a folder that holds it
    and its files can be moved. The tiles of a folder become one VRT beside the project
    (``changes.before.vrt``); a group of layers where they differ in CRS or are rotated.

    Args:
        changes: GeoPackage that ``geocd.detect`` or ``geocd vectorize`` has written.
        output: the project, ends in .qgz.
        before: raster of the earlier date: a file, a URL, a VRT or a folder of tiles.
        after: of the later date. It is shown where the run moved it, through a VRT beside the
            project (``changes.after.vrt``); where no VRT can say that, as its georeferencing
            says. Which of the two is told when the mouse rests on the layer.
        mask: change map of the run.
        scores: score raster of the run.
        overwrite: replace an existing project, and the VRTs beside it.

    Raises:
        ConfigError: see `check_qgis_project`.
        GeocdError: and its kinds, for inputs and outputs.
    """
    path, package = Path(output), Path(changes)
    check_qgis_project(path, package, overwrite=overwrite)
    table = _read_table(package)
    record, crs = _read_record(package), _read_crs(package)
    images = [
        _image(role, Scene.open(source), table, record, crs)
        for role, source in (("after", after), ("before", before))
        if source is not None
    ]
    members = (
        _vector_group(package, path.parent, crs),
        *_raster_group(mask, scores, path.parent, crs),
        *(_image_member(image, path, record) for image in images),
    )
    extent = _extent(package)
    project = Project(
        title=_title(table, record),
        crs=crs,
        extent=_grown(extent, _MARGIN * _longer(extent)),
        root=Group("", members),
        bookmarks=list(_bookmarks(package, table, extent)),
        bookmark_group="Largest changes",
        themes=_themes(Group("", members), [image.role for image in images]),
    )
    with replacing(path) as temporary:
        save_archive(temporary, project)


def _read_table(package: Path) -> pd.DataFrame:
    """What is said of the changes, by number in the file; without outlines, which are large."""
    wanted = ["kind", "area_m2", "before_date", "after_date"]
    return pd.DataFrame(pyogrio.read_dataframe(
        package, layer=LAYER, columns=wanted, read_geometry=False, fid_as_index=True
    ))  # fmt: skip


def _read_crs(package: Path) -> pyproj.CRS | None:
    text = pyogrio.read_info(package, layer=LAYER)["crs"]
    return None if text is None else pyproj.CRS.from_user_input(text)


def _read_record(package: Path) -> dict[str, Any]:
    """What made the polygons."""
    rows = pyogrio.read_dataframe(package, layer="provenance", read_geometry=False)
    record = {}
    for key, value in zip(rows["key"], rows["value"], strict=True):
        try:
            record[key] = json.loads(value)
        except ValueError:
            record[key] = value
    return record


def _date(role: str, table: pd.DataFrame, record: dict[str, Any]) -> str | None:
    column = table[f"{role}_date"].dropna() if f"{role}_date" in table else pd.Series(dtype=str)
    if len(column):
        return str(column.iloc[0])[:10]
    date = record.get("inputs", {}).get(role, {}).get("date")
    return None if date is None else str(date)


def _title(table: pd.DataFrame, record: dict[str, Any]) -> str:
    before, after = (_date(role, table, record) for role in ("before", "after"))
    return f"Changes from {before} to {after}" if before and after else "Changes"


def _image(
    role: str, scene: Scene, table: pd.DataFrame, record: dict[str, Any], crs: pyproj.CRS | None
) -> _Image:
    """A date, and where it is shown."""
    moved, note = None, ""
    alignment = record.get("alignment", {})
    if role == "after" and alignment.get("status") == "applied":
        before = None if crs is None else CRS.from_wkt(crs.to_wkt())
        local = all(Path(tile.path).is_file() for tile in scene.tiles)
        if local and fits_a_mosaic(scene):
            moved = moved_georeferencing(scene.grid, before, alignment)
        note = _note(alignment, moved=moved is not None)
    return _Image(role, scene, _date(role, table, record), moved, note)


def _note(alignment: dict[str, Any], *, moved: bool) -> str:
    """What the run did to the image after, and whether it is shown like that."""
    residual = (alignment.get("residual_before_px") or {}).get("median", 0)
    told = (
        f"The run moved this image ({alignment.get('model')}), because it lay "
        f"{residual:.1f} pixels off in the median. "
    )
    if not moved:
        return told + ("Here it is shown where its georeferencing says; 'geocd align' writes it "
                       "aligned.")  # fmt: skip
    if (alignment.get("motion") or {}).get("field") is not None:
        return told + ("Here it is shown moved as a whole, without its local displacements; "
                       "'geocd align' writes it with them.")  # fmt: skip
    return told + "Here it is shown where the run moved it."


def _extent(package: Path) -> Extent:
    """Of the run; of the polygons in a file without a footprint."""
    footprint = "footprint" in pyogrio.list_layers(package)[:, 0]
    info = pyogrio.read_info(package, layer="footprint" if footprint else LAYER,
                             force_feature_count=True, force_total_bounds=True)  # fmt: skip
    if info["features"] == 0:
        return 0.0, 0.0, 1.0, 1.0
    left, bottom, right, top = (float(v) for v in info["total_bounds"])
    return left, bottom, right, top


def _longer(extent: Extent) -> float:
    left, bottom, right, top = extent
    return max(right - left, top - bottom)


def _grown(extent: Extent, by: float) -> Extent:
    left, bottom, right, top = extent
    return left - by, bottom - by, right + by, top + by


def _bookmarks(package: Path, table: pd.DataFrame, extent: Extent) -> Iterator[Bookmark]:
    """The largest changes, each with ground around it."""
    metric = bool(table["area_m2"].notna().all())
    area = table["area_m2"] if metric else _outlines(package).area
    largest = area.sort_values(ascending=False, kind="stable").index[:_BOOKMARKS]
    if largest.empty:
        return
    boxes = _outlines(package, fids=list(largest)).bounds
    for number, index in enumerate(largest, 1):
        kind = _KIND_NAMES.get(table["kind"][index], "Other")
        size = f"{area[index]:,.0f} {'m²' if metric else 'pixels'}"
        left, bottom, right, top = (float(v) for v in boxes.loc[index])
        shape = (left, bottom, right, top)
        by = max(_longer(shape), (_LEAST_VIEW * _longer(extent) - _longer(shape)) / 2)
        yield Bookmark(f"{number:02d} {kind}, {size}", _grown(shape, by))


def _outlines(package: Path, fids: list[int] | None = None) -> geopandas.GeoSeries:
    frame = pyogrio.read_dataframe(package, layer=LAYER, columns=[], fids=fids, fid_as_index=True)
    return frame.geometry


def _themes(root: Group, roles: Sequence[str]) -> dict[str, frozenset[str]]:
    """A theme a date, with the polygons on top."""
    drawn = {layer.role for layer in root.layers() if layer.visible}
    images = {i for i in drawn if i.startswith(("before", "after"))}
    return {
        role.capitalize(): frozenset(
            drawn - images | {i for i in images if i == role or i.startswith(f"{role}-")}
        )
        for role in reversed(roles)
    }


def _relative(path: str | Path, folder: Path) -> str:
    """A path as QGIS writes it in a project in ``folder``; URLs as GDAL reads them."""
    text = str(path)
    scheme, separator, rest = text.partition("://")
    if separator and scheme in _VIRTUAL:
        virtual = _VIRTUAL[scheme]
        return f"{virtual}://{rest}" if virtual.startswith("/vsicurl") else f"{virtual}/{rest}"
    if separator or text.startswith("/vsi"):
        return text
    # abspath, because QGIS too takes '..' as text, whatever links there are.
    relative = os.path.relpath(os.path.abspath(text), os.path.abspath(folder))  # noqa: PTH100
    return relative if relative.startswith("..") else f"./{relative}"


def _vector_group(package: Path, folder: Path, crs: pyproj.CRS | None) -> Group:
    there = set(pyogrio.list_layers(package)[:, 0])
    source = _relative(package, folder)
    layers = tuple(
        MapLayer(layer, name, "ogr", f"{source}|layername={layer}", crs, _style(layer))
        for layer, name in _VECTOR_LAYERS.items()
        if layer in there
    )
    return Group("Changes", layers)


def _raster_group(
    mask: str | Path | None, scores: str | Path | None, folder: Path, crs: pyproj.CRS | None
) -> tuple[Group, ...]:
    layers = []
    if mask is not None:
        source = _relative(mask, folder)
        layers.append(MapLayer("mask", "Change map", "gdal", source, crs, _style("change_map"),
                               visible=False))  # fmt: skip
    if scores is not None:
        with rasterio.open(scores) as dataset:
            names = dataset.descriptions
        source = _relative(scores, folder)
        for band, name in enumerate(names, 1):
            style = _style("scores")
            for renderer in style.iter("rasterrenderer"):
                renderer.set("band", str(band))
            layers.append(MapLayer(f"scores-{band}", f"Score: {name}", "gdal", source, crs, style,
                                   visible=False))  # fmt: skip
    return (Group("Rasters of the run", tuple(layers)),) if layers else ()


def _style(name: str) -> Element:
    return ElementTree.fromstring(style_text(name))


def _image_member(image: _Image, project: Path, record: dict[str, Any]) -> MapLayer | Group:
    """The image as a layer; a folder of tiles as one too, or as a group of them."""
    scene, role = image.scene, image.role
    title = role.capitalize() + (f" ({image.date})" if image.date else "")
    style = _image_style(scene, _bands(scene, record))

    def _layer(number: str, name: str, source: str, crs: CRS | None) -> MapLayer:
        placed = None if crs is None else pyproj.CRS.from_wkt(crs.to_wkt())
        return MapLayer(role + number, name, "gdal", source, placed, style, note=image.note)

    if image.moved is not None:
        mosaic = _mosaic(project, role)
        write_mosaic(scene, mosaic, transform=image.moved)
        return _layer("", title, _relative(mosaic, project.parent), scene.crs)
    if len(scene.tiles) == 1:
        return _layer("", title, _relative(scene.tiles[0].path, project.parent), scene.crs)
    if fits_a_mosaic(scene):
        mosaic = _mosaic(project, role)
        write_mosaic(scene, mosaic)
        return _layer("", title, _relative(mosaic, project.parent), scene.crs)
    tiles = (
        _layer(f"-{number}", Path(tile.path).name, _relative(tile.path, project.parent),
               tile.grid.crs)
        for number, tile in enumerate(scene.tiles, 1)
    )  # fmt: skip
    # Of tiles that overlap the later one, by name, lies on top.
    return Group(title, tuple(tiles)[::-1], expanded=False)


def _bands(scene: Scene, record: dict[str, Any]) -> tuple[int, ...]:
    """The bands to show: those that the run read, else the first three, else the first."""
    config = record.get("config")
    chosen = config.get("bands") if isinstance(config, dict) else None
    if isinstance(chosen, list) and len(chosen) == 3 and set(chosen) <= set(scene.bands):
        return tuple(chosen)
    return scene.bands[:3] if len(scene.bands) >= 3 else scene.bands[:1]


def _image_style(scene: Scene, bands: tuple[int, ...]) -> Element:
    """A style that shows bytes as they are, and other values stretched as the network read them."""
    low, high = scene.stretch(bands)
    alpha = scene.tiles[0].alpha
    colours = ("red", "green", "blue") if len(bands) == 3 else ("gray",)
    root = Element("qgis")
    attributes = {f"{colour}Band": str(band) for colour, band in zip(colours, bands, strict=True)}
    attributes |= {
        "type": "multibandcolor" if len(bands) == 3 else "singlebandgray",
        "opacity": "1", "alphaBand": str(-1 if alpha is None else alpha), "nodataColor": "",
    }  # fmt: skip
    renderer = SubElement(SubElement(root, "pipe"), "rasterrenderer", attributes)
    SubElement(renderer, "rasterTransparency")
    for colour in colours:
        name = "contrastEnhancement" if colour == "gray" else f"{colour}ContrastEnhancement"
        enhancement = SubElement(renderer, name)
        SubElement(enhancement, "minValue").text = repr(low)
        SubElement(enhancement, "maxValue").text = repr(high)
        stretched = "NoEnhancement" if scene.dtype == "uint8" else "StretchToMinimumMaximum"
        SubElement(enhancement, "algorithm").text = stretched
    return root
