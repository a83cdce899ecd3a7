"""Run by Debian's own Python, which has PyQGIS: what a layer looks like when QGIS opens it.

    python3 qgis_probe.py vector FILE[|layername=NAME] [PNG]
    python3 qgis_probe.py raster FILE [PNG]

A vector file without a name is asked for its layer "changes".

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
    source = path if "|" in path else path + "|layername=changes"
    layer = QgsVectorLayer(source, "layer", "ogr")
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
        drawn = {c.value(): c.symbol().symbolLayer(0).layerType() for c in renderer.categories()}
        facts["drawn"] = drawn
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
