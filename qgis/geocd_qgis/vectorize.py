"""geocd:vectorize."""

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
)

from .algorithm import GeocdAlgorithm

_NUMBERS = (
    ("OPENING", "--opening", "Radius of the disc that must fit into a change (metres)", 0.0),
    ("FILL_HOLES", "--fill-holes", "Close holes up to (square metres)", 0.0),
    ("SIMPLIFY", "--simplify", "Tolerance of outlines (pixels)", 0.6),
)
_SWITCHES = (
    ("REGULARIZE", "regularize", "Draw buildings with right angles"),
    ("SPLIT", "split", "Take buildings apart where the scores dip between them"),
)


class VectorizeAlgorithm(GeocdAlgorithm):
    """From scores to change polygons."""

    command = "vectorize"
    title = "Polygons from scores"
    help = """Makes change polygons from scores that 'Detect changes' has written, at any \
threshold and without the network.

A lower threshold finds more and is wrong more often. Without one, that of the run which wrote the \
scores is used. Buildings are drawn with right angles where their pixels agree. With both images, \
each change is told to have appeared, disappeared or been altered."""

    def initAlgorithm(self, configuration=None):
        """Describe the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("SCORES", "Scores"))
        self.add_threshold()
        self.add_min_area()
        for name, _, words, default in _NUMBERS:
            self.add_advanced(
                QgsProcessingParameterNumber(
                    name,
                    words,
                    type=QgsProcessingParameterNumber.Double,
                    defaultValue=default,
                    minValue=0,
                )
            )
        for name, _, words in _SWITCHES:
            self.addParameter(QgsProcessingParameterBoolean(name, words, defaultValue=True))
        for role in ("before", "after"):
            self.add_advanced(
                QgsProcessingParameterRasterLayer(
                    role.upper(), f"Image {role}, to judge directions by", optional=True
                )
            )
        self.add_extra()
        self.addParameter(
            QgsProcessingParameterVectorDestination(
                "OUTPUT", "Change polygons", QgsProcessing.TypeVectorPolygon
            )
        )
        self.addParameter(
            QgsProcessingParameterFileDestination(
                "PROJECT",
                "QGIS project",
                "QGIS projects (*.qgz)",
                optional=True,
                createByDefault=False,
            )
        )

    def collect(self, parameters, context, feedback):
        """See the base class."""
        told = [self.raster_path(parameters, "SCORES", context), "--table", ""]
        told += self.threshold(parameters, context) + self.min_area(parameters, context)
        for name, option, _, _ in _NUMBERS:
            told += [option, str(self.parameterAsDouble(parameters, name, context))]
        for name, option, _ in _SWITCHES:
            on = self.parameterAsBool(parameters, name, context)
            told.append(f"--{option}" if on else f"--no-{option}")
        for role in ("before", "after"):
            if parameters.get(role.upper()):
                told += [f"--{role}", self.raster_path(parameters, role.upper(), context)]
        wanted, results = self.outputs(
            parameters, context, {"OUTPUT": "--output", "PROJECT": "--qgis-project"}
        )
        return told + wanted, results
