"""Many rasters as one, without copying a pixel: GDAL's virtual rasters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Xml

from affine import Affine

from geocd.rasters.grid import Grid

_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32",
    "int32": "Int32", "uint64": "UInt64", "int64": "Int64", "float32": "Float32",
    "float64": "Float64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """A raster of a mosaic.

    Attributes:
        path: as it is written into the file.
        transform: from its (col, row) to (x, y); its pixels are those of the mosaic's lattice.
        height, width: pixels.
    """

    path: str
    transform: Affine
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """What the pieces of a mosaic have in common.

    Attributes:
        count: bands, alpha included.
        dtype: type of the values.
        nodata: value where there is nothing.
        alpha: band, counted from 1, that says where there is something.
        masked: the pieces have masks of their own, or are valid everywhere.
        names: descriptions of the bands.
    """

    count: int
    dtype: str = "uint8"
    nodata: float | None = None
    alpha: int | None = None
    masked: bool = False
    names: tuple[str, ...] = ()


def write_vrt(
    path: Path, grid: Grid, pieces: Sequence[Piece], bands: Bands, *,
    tags: Mapping[str, str] | None = None, relative: bool = False,
) -> None:  # fmt: skip
    """Write a virtual raster; later pieces lie on top, and where none is, nothing is valid.

    Args:
        path: the file, .vrt.
        grid: of the mosaic, which may cut pieces or reach beyond them.
        pieces: the rasters.
        bands: what they have in common.
        tags: metadata of the mosaic.
        relative: paths of pieces are relative to the folder of ``path``.
    """
    root = Xml.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs is not None:
        _text(root, "SRS", grid.crs.to_wkt())
    _text(root, "GeoTransform", ", ".join(repr(float(v)) for v in grid.transform.to_gdal()))
    if tags:
        metadata = Xml.SubElement(root, "Metadata")
        for key, value in tags.items():
            _text(metadata, "MDI", value).set("key", key)
    for number in range(1, bands.count + 1):
        band = Xml.SubElement(root, "VRTRasterBand", dataType=_TYPES[bands.dtype],
                              band=str(number))  # fmt: skip
        if bands.names:
            _text(band, "Description", bands.names[number - 1])
        if bands.nodata is not None:
            _text(band, "NoDataValue", repr(bands.nodata))
        if number == bands.alpha:
            _text(band, "ColorInterp", "Alpha")
        for piece in pieces:
            _source(band, piece, str(number), grid, bands, relative=relative)
    if bands.masked:
        # Without a mask, ground between the pieces would be black instead of unknown.
        mask = Xml.SubElement(Xml.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        for piece in pieces:
            _source(mask, piece, "mask,1", grid, Bands(count=1), relative=relative)
    Xml.ElementTree(root).write(path, encoding="utf-8")


def _source(
    band: Xml.Element, piece: Piece, number: str, grid: Grid, bands: Bands, *, relative: bool
) -> None:
    kind = "SimpleSource" if bands.nodata is None else "ComplexSource"
    source = Xml.SubElement(band, kind)
    _text(source, "SourceFilename", piece.path).set("relativeToVRT", str(int(relative)))
    _text(source, "SourceBand", number)
    col, row = ~grid.transform @ (piece.transform.c, piece.transform.f)
    size = {"xSize": str(piece.width), "ySize": str(piece.height)}
    Xml.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | size)
    Xml.SubElement(source, "DstRect", {"xOff": str(round(col)), "yOff": str(round(row))} | size)
    if bands.nodata is not None:
        _text(source, "NODATA", repr(bands.nodata))


def _text(parent: Xml.Element, name: str, text: str) -> Xml.Element:
    element = Xml.SubElement(parent, name)
    element.text = text
    return element
