"""Writing change polygons for people: formats, styles, QGIS projects."""

from geocd.maps.qgis_project import check_qgis_project, write_qgis_project
from geocd.maps.qml import write_raster_style
from geocd.maps.residuals import residual_picture
from geocd.maps.ties import TieSet, check_tie_output, write_ties
from geocd.maps.vector import LAYER, check_output, write_changes

__all__ = [
    "LAYER",
    "TieSet",
    "check_output",
    "check_qgis_project",
    "check_tie_output",
    "residual_picture",
    "write_changes",
    "write_qgis_project",
    "write_raster_style",
    "write_ties",
]
