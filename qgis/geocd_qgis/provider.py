"""The algorithms of geocd, and the setting that says where the program is."""

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithm import EXECUTABLE
from .align import AlignAlgorithm
from .detect import DetectAlgorithm
from .vectorize import VectorizeAlgorithm


class GeocdProvider(QgsProcessingProvider):
    """Change detection by geocd."""

    def id(self):
        """First part of the names of algorithms: geocd:detect."""
        return "geocd"

    def name(self):
        """Name in the toolbox."""
        return "geocd"

    def icon(self):
        """Icon in the toolbox."""
        return QIcon(str(Path(__file__).parent / "icon.svg"))

    def load(self):
        """Make the setting known and the algorithms available."""
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(
            Setting(
                self.name(),
                EXECUTABLE,
                "Program geocd (empty: the one on PATH)",
                "",
                valuetype=Setting.FILE,
            )
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self):
        """Forget the setting."""
        ProcessingConfig.removeSetting(EXECUTABLE)

    def loadAlgorithms(self):
        """Called by ``refreshAlgorithms``."""
        for algorithm in (DetectAlgorithm, AlignAlgorithm, VectorizeAlgorithm):
            self.addAlgorithm(algorithm())

    def supportedOutputVectorLayerExtensions(self):
        """What geocd writes; the first one is the default."""
        return ["gpkg", "geojson", "fgb", "parquet"]

    def supportedOutputRasterLayerExtensions(self):
        """What geocd writes."""
        return ["tif"]
