"""Tiles of a folder as one file, or moved: a VRT, which holds references and no pixels."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

from affine import Affine

from geocd.outputs import replacing
from geocd.rasters.scene import Scene, SceneTile

_GDAL_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32",
    "int32": "Int32", "float32": "Float32", "float64": "Float64",
}  # fmt: skip


def fits_a_mosaic(scene: Scene) -> bool:
    """Whether a VRT can hold all tiles: one CRS, rows along one direction, a known type."""

    def _upright(transform: Affine) -> bool:
        return bool(transform.b == transform.d == 0 and transform.a > 0 > transform.e)

    return scene.dtype in _GDAL_TYPES and all(
        tile.grid.crs == scene.crs and _upright(tile.grid.transform) for tile in scene.tiles
    )


def write_mosaic(scene: Scene, path: Path, *, transform: Affine | None = None) -> None:
    """Write the tiles of a scene as one VRT, with paths relative to it. Atomic.

    Args:
        scene: one of which `fits_a_mosaic` is true.
        path: file to write, .vrt; an existing one is replaced.
        transform: where the VRT is put; None: where the tiles are.

    Raises:
        OutputError: the file cannot be written.
    """
    grid, first = scene.grid, scene.tiles[0]
    root = ElementTree.Element(
        "VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height)
    )
    if grid.crs is not None:
        ElementTree.SubElement(root, "SRS").text = grid.crs.to_wkt()
    placed = ElementTree.SubElement(root, "GeoTransform")
    placed.text = ", ".join(repr(float(v)) for v in (transform or grid.transform).to_gdal())
    alphas = () if first.alpha is None else (first.alpha,)
    for band in sorted((*first.bands, *alphas)):
        element = ElementTree.SubElement(
            root, "VRTRasterBand", dataType=_GDAL_TYPES[scene.dtype], band=str(band)
        )
        if band in alphas:
            ElementTree.SubElement(element, "ColorInterp").text = "Alpha"
        elif first.nodata is not None:
            ElementTree.SubElement(element, "NoDataValue").text = repr(float(first.nodata))
        for tile in scene.tiles:
            element.append(_source(tile, band, scene, path.parent))
    with replacing(path) as temporary:
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8")


def _source(tile: SceneTile, band: int, scene: Scene, folder: Path) -> ElementTree.Element:
    """Where a tile lies in the mosaic."""
    hides = tile.nodata is not None and band != tile.alpha
    source = ElementTree.Element("ComplexSource" if hides else "SimpleSource")
    name = os.path.relpath(tile.path, folder)
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = name
    ElementTree.SubElement(source, "SourceBand").text = str(band)
    height, width = tile.grid.shape
    on_mosaic = ~scene.grid.transform @ tile.grid.transform
    (left, top), (right, bottom) = on_mosaic @ (0, 0), on_mosaic @ (width, height)
    ElementTree.SubElement(source, "SrcRect", _rectangle(0, 0, width, height))
    ElementTree.SubElement(source, "DstRect", _rectangle(left, top, right - left, bottom - top))
    if hides:
        ElementTree.SubElement(source, "NODATA").text = repr(float(tile.nodata or 0))
    return source


def _rectangle(x: float, y: float, width: float, height: float) -> dict[str, str]:
    return {"xOff": f"{x:.6f}", "yOff": f"{y:.6f}", "xSize": f"{width:.6f}",
            "ySize": f"{height:.6f}"}  # fmt: skip
