"""The parts of a QGIS project file: layers, legend, bookmarks, as QGIS 3.22 and later read them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import pyproj

Extent = tuple[float, float, float, float]
"""(left, bottom, right, top) in CRS units."""

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_GEOMETRIES = ("Point", "Line", "Polygon")
# Of control characters XML has three only; the rest, and halves of pairs, it cannot write at all.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class MapLayer:
    """A layer of a project."""

    role: str
    """What it is in the project; no other layer is the same."""
    name: str
    provider: Literal["gdal", "ogr"]
    source: str
    """As QGIS writes it: a path relative to the project, and what of the file is meant."""
    crs: pyproj.CRS | None
    style: Element
    """The root of a QML file."""
    visible: bool = True
    note: str = ""
    """What the layer tells when the mouse rests on it."""

    @property
    def id(self) -> str:
        """Names it in the project file."""
        # QGIS does not believe in ids of ten letters or fewer, and makes up others.
        return f"geocd-layer-{self.role}"


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that lie together in the legend, the uppermost first."""

    name: str
    members: tuple[MapLayer | Group, ...]
    expanded: bool = True

    def layers(self) -> Iterable[MapLayer]:
        """All layers in it, from top to bottom."""
        for member in self.members:
            yield from member.layers() if isinstance(member, Group) else (member,)

    def groups(self) -> Iterable[Group]:
        """All groups in it."""
        for member in self.members:
            if isinstance(member, Group):
                yield from (member, *member.groups())


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A place to go to."""

    name: str
    extent: Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project shows, and what of it first."""

    title: str
    crs: pyproj.CRS | None
    extent: Extent
    root: Group
    bookmarks: Sequence[Bookmark] = ()
    bookmark_group: str = ""
    themes: dict[str, frozenset[str]] = field(default_factory=dict)
    """Names of themes, and the roles of the layers that each shows."""

    def xml(self) -> bytes:
        """The project file, UTF-8."""
        root = Element("qgis", projectname=_text(self.title), version="3.22.0")
        _leaf(root, "title", self.title)
        _srs(SubElement(root, "projectCrs"), self.crs)
        _tree(SubElement(root, "layer-tree-group"), self.root)
        self._canvas(root)
        layers = SubElement(root, "projectlayers")
        order = SubElement(root, "layerorder")
        for layer in self.root.layers():
            layers.append(_maplayer(layer))
            SubElement(order, "layer", id=layer.id)
        properties = SubElement(root, "properties")
        paths = SubElement(properties, "Paths")
        SubElement(paths, "Absolute", type="bool").text = "false"
        # Without this QGIS does not even read the CRS of the project.
        projections = SubElement(SubElement(properties, "SpatialRefSys"), "ProjectionsEnabled")
        projections.set("type", "int")
        projections.text = str(int(self.crs is not None))
        themes = SubElement(root, "visibility-presets")
        for name, shown in self.themes.items():
            themes.append(self._theme(name, shown))
        places = SubElement(root, "Bookmarks")
        for number, place in enumerate(self.bookmarks, 1):
            entry = SubElement(places, "Bookmark", id=f"change-{number}", name=_text(place.name))
            entry.set("group", _text(self.bookmark_group))
            entry.set("extent", _wkt(place.extent))
            _srs(entry, self.crs)
        ElementTree.indent(root, " ")
        text = ElementTree.tostring(root, encoding="unicode")
        return (_DOCTYPE + text).encode()

    def _canvas(self, root: Element) -> None:
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(repr, self.extent), strict=True))
        canvas = SubElement(root, "mapcanvas", name="theMapCanvas")
        extent = SubElement(canvas, "extent")
        for name, value in corners.items():
            _leaf(extent, name, value)
        _srs(SubElement(canvas, "destinationsrs"), self.crs)
        views = SubElement(root, "ProjectViewSettings", UseProjectScales="0", rotation="0")
        _srs(SubElement(views, "DefaultViewExtent", corners), self.crs)

    def _theme(self, name: str, shown: frozenset[str]) -> Element:
        theme = Element("visibility-preset", {"name": _text(name), "has-checked-group-info": "1"})
        for layer in self.root.layers():
            if layer.role in shown:
                SubElement(theme, "layer", id=layer.id, style="default", visible="1")
        nodes = SubElement(theme, "checked-group-nodes")
        for group in self.root.groups():
            SubElement(nodes, "checked-group-node", id=_text(group.name))
        return theme


def save_archive(path: Path, project: Project) -> None:
    """Write a project as a .qgz archive; the same project gives the same bytes."""
    entry = zipfile.ZipInfo("project.qgs", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, project.xml())


def _text(text: str) -> str:
    """The text with what XML cannot hold made visible."""
    return _NO_XML.sub("\ufffd", text)


def _leaf(parent: Element, name: str, text: str) -> None:
    SubElement(parent, name).text = _text(text)


def _wkt(extent: Extent) -> str:
    left, bottom, right, top = extent
    ring = ((left, bottom), (right, bottom), (right, top), (left, top), (left, bottom))
    return f"POLYGON(({', '.join(f'{x!r} {y!r}' for x, y in ring)}))"


def _srs(parent: Element, crs: pyproj.CRS | None) -> None:
    element = SubElement(parent, "spatialrefsys", nativeFormat="Wkt")
    authority: Any = None if crs is None else crs.to_authority(min_confidence=100)
    _leaf(element, "wkt", "" if crs is None else crs.to_wkt())
    # By its code QGIS finds the CRS in its own database; the WKT is for those that have none.
    _leaf(element, "authid", ":".join(authority) if authority else "")


def _maplayer(layer: MapLayer) -> Element:
    vector = layer.provider == "ogr"
    element = Element("maplayer", type="vector" if vector else "raster")
    _leaf(element, "id", layer.id)
    _leaf(element, "datasource", layer.source)
    _leaf(element, "layername", layer.name)
    _leaf(element, "abstract", layer.note)
    _srs(SubElement(element, "srs"), layer.crs)
    SubElement(element, "provider", encoding="UTF-8").text = layer.provider
    styles = SubElement(element, "map-layer-style-manager", current="default")
    SubElement(styles, "map-layer-style", name="default")
    if vector:
        kind = layer.style.findtext("layerGeometryType", "2")
        element.set("geometry", _GEOMETRIES[int(kind)])
        SubElement(element, "legend", type="default-vector")
    element.extend(child for child in layer.style if child.tag in ("renderer-v2", "pipe"))
    return element


def _tree(element: Element, group: Group) -> None:
    for member in group.members:
        common = {"name": _text(member.name), "expanded": "0", "checked": "Qt::Checked"}
        if isinstance(member, Group):
            branch = SubElement(element, "layer-tree-group", common)
            branch.set("expanded", str(int(member.expanded)))
            _tree(branch, member)
            continue
        leaf = SubElement(element, "layer-tree-layer", common)
        leaf.set("checked", "Qt::Checked" if member.visible else "Qt::Unchecked")
        leaf.set("expanded", str(int(member.visible and member.provider == "ogr")))
        leaf.set("id", member.id)
        leaf.set("source", _text(member.source))
        leaf.set("providerKey", member.provider)
