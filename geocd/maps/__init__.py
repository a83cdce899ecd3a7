"""Writing change polygons for people: formats, styles."""

from geocd.maps.qml import write_raster_style
from geocd.maps.vector import LAYER, check_output, write_changes

__all__ = ["LAYER", "check_output", "write_changes", "write_raster_style"]
