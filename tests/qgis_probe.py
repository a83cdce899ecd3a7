"""Run by Debian's own Python, which has PyQGIS: what a layer looks like when QGIS opens it.

    python3 qgis_probe.py vector FILE [PNG]   or   python3 qgis_probe.py raster FILE [PNG]

Prints one JSON object.
"""

import json
import sys

from qgis.core import (
    QgsApplication,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize


def _vector(path):
    layer = QgsVectorLayer(path + "|layername=changes", "changes", "ogr")
    renderer = layer.renderer()
    facts = {
        "valid": layer.isValid(),
        "features": layer.featureCount(),
        "crs": layer.crs().authid(),
        "renderer": renderer.type() if renderer else None,
        "fields": [field.name() for field in layer.fields()],
    }
    if facts["renderer"] == "categorizedSymbol":
        facts["attribute"] = renderer.classAttribute()
        facts["categories"] = {c.value(): c.label() for c in renderer.categories()}
        facts["colours"] = {c.value(): c.symbol().color().name() for c in renderer.categories()}
    return layer, facts


def _raster(path):
    layer = QgsRasterLayer(path, "change map")
    renderer = layer.renderer()
    facts = {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "renderer": renderer.type() if renderer else None,
    }
    if facts["renderer"] == "paletted":
        facts["legend"] = {int(c.value): c.label for c in renderer.classes()}
        facts["colours"] = {int(c.value): c.color.getRgb() for c in renderer.classes()}
    return layer, facts


def _picture(layer, path):
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setOutputSize(QSize(600, 600))
    settings.setExtent(layer.extent())
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(path)


def main():
    application = QgsApplication([], False)
    application.initQgis()
    layer, facts = {"vector": _vector, "raster": _raster}[sys.argv[1]](sys.argv[2])
    if len(sys.argv) > 3:
        _picture(layer, sys.argv[3])
    print(json.dumps(facts))
    del layer
    # Layers that outlive the application crash it.
    QgsProject.instance().clear()
    application.exitQgis()


main()
