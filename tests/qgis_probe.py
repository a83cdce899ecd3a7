"""Run by Debian's own Python, which has PyQGIS: what a layer looks like when QGIS opens it.

    python3 qgis_probe.py vector FILE[|layername=NAME] [PNG]
    python3 qgis_probe.py layers FILE
    python3 qgis_probe.py raster FILE [PNG]
    python3 qgis_probe.py project FILE [PNG]
    python3 qgis_probe.py load PLUGINS GEOCD SCORES OUTPUT
    python3 qgis_probe.py cancel PLUGINS GEOCD BEFORE AFTER OUTPUT

A vector file without a name is asked for its layer "changes". A picture of a project shows what
it shows at first. "load" makes polygons and opens them as the toolbox does; "cancel" begins to
detect, and cancels when the network has begun.

Prints one JSON object.
"""

import json
import sys

from qgis.core import (
    QgsApplication,
    QgsLayerTreeGroup,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
    QgsWkbTypes,
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
    if renderer:
        facts["legend"] = [item.label() for item in renderer.legendSymbolItems()]
    if facts["renderer"] == "categorizedSymbol":
        facts["attribute"] = renderer.classAttribute()
        facts["categories"] = {c.value(): c.label() for c in renderer.categories()}
        facts["colours"] = {c.value(): c.symbol().color().name() for c in renderer.categories()}
        drawn = {c.value(): c.symbol().symbolLayer(0).layerType() for c in renderer.categories()}
        facts["drawn"] = drawn
    return layer, facts


def _layers(path):
    """Every layer of a file that has geometries."""
    parts = QgsProviderRegistry.instance().querySublayers(path)
    names = [part.name() for part in parts if part.wkbType() != QgsWkbTypes.NoGeometry]
    return None, {name: _vector(f"{path}|layername={name}")[1] for name in names}


def _raster(path):
    layer = QgsRasterLayer(path, "change map")
    renderer = layer.renderer()
    facts = {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "renderer": renderer.type() if renderer else None,
    }
    if facts["renderer"] == "singlebandpseudocolor":
        facts["band"] = renderer.band()
        shader = renderer.shader().rasterShaderFunction()
        facts["legend"] = [label for label, _ in renderer.legendSymbologyItems()]
        facts["continuous"] = shader.legendSettings().useContinuousLegend()
    if facts["renderer"] == "paletted":
        facts["legend"] = {int(c.value): c.label for c in renderer.classes()}
        facts["colours"] = {int(c.value): c.color.getRgb() for c in renderer.classes()}
    return layer, facts


def _switch_on(plugins, geocd):
    """Make the plugin's algorithms known."""
    sys.path += ["/usr/share/qgis/python/plugins", plugins]
    from geocd_qgis.provider import GeocdProvider
    from processing.core.Processing import Processing
    from processing.core.ProcessingConfig import ProcessingConfig

    Processing.initialize()
    registry = QgsApplication.processingRegistry()
    registry.addProvider(GeocdProvider())
    ProcessingConfig.setSettingValue("GEOCD_EXECUTABLE", geocd)
    return registry


def _load(plugins, geocd, scores, output):
    """Make polygons with the plugin, and open them as Processing opens results."""
    algorithm = _switch_on(plugins, geocd).createAlgorithmById("geocd:vectorize")
    import processing

    processing.runAndLoadResults(algorithm, {"SCORES": scores, "OUTPUT": output})
    layers = QgsProject.instance().mapLayers().values()
    return {layer.name(): layer.renderer().type() for layer in layers}


def _cancel(plugins, geocd, before, after, output):
    """Start the plugin's detect, and cancel it as soon as there is progress of the network."""
    registry = _switch_on(plugins, geocd)
    feedback = QgsProcessingFeedback()
    feedback.progressChanged.connect(lambda percent: percent >= 15 and feedback.cancel())
    algorithm = registry.createAlgorithmById("geocd:detect")
    values = {"BEFORE": before, "AFTER": after, "OUTPUT": output,
              "EXTRA": "--tile-size 64 --overlap 48"}  # fmt: skip
    results, _ = algorithm.run(values, QgsProcessingContext(), feedback)
    return {"cancelled": feedback.isCanceled(), "percent": feedback.progress(),
            "results": results, "log": feedback.textLog()}  # fmt: skip


def _members(node):
    """The legend as nested lists: a name, or [name, members]."""
    return [
        [child.name(), _members(child)] if isinstance(child, QgsLayerTreeGroup) else child.name()
        for child in node.children()
    ]


def _project(path):
    project = QgsProject.instance()
    root = project.layerTreeRoot()
    facts = {
        "read": project.read(path),
        "title": project.title(),
        "crs": project.crs().authid(),
        "legend": _members(root),
        "extent": _box(project.viewSettings().defaultViewExtent()),
        "bookmarks": [
            [b.name(), b.group(), _box(b.extent()), b.extent().crs().authid()]
            for b in project.bookmarkManager().bookmarks()
        ],
        "themes": {
            name: [
                layer.name() for layer in project.mapThemeCollection().mapThemeVisibleLayers(name)
            ]
            for name in project.mapThemeCollection().mapThemes()
        },
        "shown": [x.name() for x in root.layerOrder() if root.findLayer(x.id()).isVisible()],
        "layers": {
            layer.name(): {
                "valid": layer.isValid(),
                "source": layer.source(),
                "crs": layer.crs().authid(),
                "renderer": layer.renderer().type() if layer.renderer() else None,
                "note": layer.abstract(),
            }
            for layer in root.layerOrder()
        },
    }
    return project, facts


def _box(extent):
    return [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]


def _picture(shown, path):
    settings = QgsMapSettings()
    if isinstance(shown, QgsProject):
        root = shown.layerTreeRoot()
        visible = [x for x in root.layerOrder() if root.findLayer(x.id()).isVisible()]
        settings.setLayers(visible)
        settings.setExtent(QgsRectangle(shown.viewSettings().defaultViewExtent()))
    else:
        settings.setLayers([shown])
        settings.setExtent(shown.extent())
    settings.setDestinationCrs(shown.crs())
    settings.setOutputSize(QSize(600, 600))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(path)


def main():
    application = QgsApplication([], False)
    application.initQgis()
    if sys.argv[1] in ("load", "cancel"):
        print(json.dumps({"load": _load, "cancel": _cancel}[sys.argv[1]](*sys.argv[2:])))
        QgsProject.instance().clear()
        application.exitQgis()
        return
    probes = {"vector": _vector, "layers": _layers, "raster": _raster, "project": _project}
    layer, facts = probes[sys.argv[1]](sys.argv[2])
    if len(sys.argv) > 3:
        _picture(layer, sys.argv[3])
    print(json.dumps(facts))
    del layer
    # Layers that outlive the application crash it.
    QgsProject.instance().clear()
    application.exitQgis()


main()
