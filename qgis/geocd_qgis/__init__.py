"""geocd in QGIS: a Processing provider that runs the program geocd."""


def classFactory(iface):
    """The plugin, as QGIS asks for it; ``iface`` is None without a window."""
    from .plugin import GeocdPlugin

    return GeocdPlugin()
