"""What QGIS starts and stops."""

from qgis.core import QgsApplication

from .provider import GeocdProvider


class GeocdPlugin:
    """Adds the provider to Processing."""

    def __init__(self):
        self.provider = None

    def initProcessing(self):
        """Called alone where there is no window, as by qgis_process."""
        self.provider = GeocdProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):
        """Called in QGIS with a window."""
        self.initProcessing()

    def unload(self):
        """Called when the plugin is switched off."""
        QgsApplication.processingRegistry().removeProvider(self.provider)
