"""What the algorithms share: they collect parameters, start geocd, and show what it says."""

import shlex

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)

from . import runner

EXECUTABLE = "GEOCD_EXECUTABLE"
"""Name of the setting that holds the path of the program."""
ALIGN_MODES = ["auto", "off", "shift", "affine", "local", "require"]
"""Values of ``--align``."""


class Styler(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer the style that came with its file: Processing opens layers without."""

    def postProcessLayer(self, layer, context, feedback):
        """Called when the layer has been opened."""
        layer.loadDefaultStyle()
        layer.triggerRepaint()


class GeocdAlgorithm(QgsProcessingAlgorithm):
    """Runs a command of geocd."""

    # One for all: QGIS holds no more than a pointer to it.
    _styler = Styler()
    command = ""
    """Name of the command, and of the algorithm."""
    title = ""
    help = ""

    def name(self):
        """Second part of the name: geocd:detect."""
        return self.command

    def displayName(self):
        """Name in the toolbox."""
        return self.title

    def shortHelpString(self):
        """Text beside the parameters."""
        return self.help

    def createInstance(self):
        """Another one of the kind."""
        return type(self)()

    def collect(self, parameters, context, feedback):
        """What geocd is told after the name of the command, and the results of the algorithm."""
        raise NotImplementedError

    def processAlgorithm(self, parameters, context, feedback):
        """Run geocd; its lines go to the log, its errors are those of the algorithm."""
        try:
            program = runner.find_geocd(ProcessingConfig.getSetting(EXECUTABLE) or "")
        except runner.GeocdNotFoundError as error:
            raise QgsProcessingException(str(error)) from None
        told, results = self.collect(parameters, context, feedback)
        told += shlex.split(self.parameterAsString(parameters, "EXTRA", context))
        command = [program, self.command, *told, "--overwrite"]
        feedback.pushCommandInfo(shlex.join(command))
        errors = []

        def _heard(line):
            if line.startswith("Error:"):
                errors.append(line)
            _show(line, feedback)

        code = runner.run(command, heard=_heard, cancelled=feedback.isCanceled)
        if feedback.isCanceled():
            feedback.pushInfo("geocd was stopped; no output was written.")
            return {}
        if code != 0:
            raise QgsProcessingException("\n".join(errors) or f"geocd ended with code {code}")
        feedback.setProgress(100)
        return results

    def raster_path(self, parameters, name, context):
        """The file of a raster layer."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, name))
        if layer.providerType() != "gdal":
            raise QgsProcessingException(
                f"{layer.name()} comes from the provider {layer.providerType()}, and geocd reads "
                "files; save it as a GeoTIFF first"
            )
        return layer.source()

    def polygons_path(self, parameters, name, context, feedback):
        """A file with the features of a vector layer alone; empty if none was chosen."""
        if not parameters.get(name):
            return ""
        return self.parameterAsCompatibleSourceLayerPath(
            parameters, name, context, ["fgb"], "fgb", feedback
        )

    def outputs(self, parameters, context, options):
        """Options of geocd for the outputs that are wanted, and the results.

        Args:
            parameters: as Processing gives them.
            context: as Processing gives it.
            options: option of geocd by name of the parameter.
        """
        told, results = [], {}
        for name, option in options.items():
            kind = self.parameterDefinition(name).type()
            as_path = self.parameterAsFileOutput if kind == "fileDestination" else (
                self.parameterAsOutputLayer
            )  # fmt: skip
            path = as_path(parameters, name, context)
            if path:
                told += [option, path]
                results[name] = path
            if context.willLoadLayerOnCompletion(path):
                details = context.layerToLoadOnCompletionDetails(path)
                details.setPostProcessor(self._styler)
        return told, results

    def add_advanced(self, parameter):
        """Add a parameter that is folded away at first."""
        flags = parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced
        parameter.setFlags(flags)
        self.addParameter(parameter)

    def add_align(self):
        """Add the choice of how images are aligned."""
        self.addParameter(
            QgsProcessingParameterEnum(
                "ALIGN",
                "Alignment",
                options=ALIGN_MODES,
                defaultValue="auto",
                usesStaticStrings=True,
            )
        )

    def add_threshold(self):
        """Add the threshold, one for all or by class."""
        self.addParameter(
            QgsProcessingParameterNumber(
                "THRESHOLD",
                "Least score of a change (empty: that of the weights)",
                type=QgsProcessingParameterNumber.Double,
                optional=True,
                minValue=0,
                maxValue=1,
            )
        )
        self.add_advanced(
            QgsProcessingParameterString(
                "THRESHOLD_BY_CLASS",
                "Least score by class, like building=0.6,road=0.4",
                optional=True,
            )
        )

    def threshold(self, parameters, context):
        """The option for the threshold, if there is one."""
        by_class = self.parameterAsString(parameters, "THRESHOLD_BY_CLASS", context)
        if by_class:
            return ["--threshold", by_class]
        if parameters.get("THRESHOLD") is None:
            return []
        return ["--threshold", str(self.parameterAsDouble(parameters, "THRESHOLD", context))]

    def add_min_area(self):
        """Add the minimum mapping unit."""
        self.addParameter(
            QgsProcessingParameterNumber(
                "MIN_AREA",
                "Smallest change kept (square metres; pixels without a CRS)",
                type=QgsProcessingParameterNumber.Double,
                defaultValue=20,
                minValue=0,
            )
        )

    def min_area(self, parameters, context):
        """The option for the minimum mapping unit."""
        return ["--min-area", str(self.parameterAsDouble(parameters, "MIN_AREA", context))]

    def add_extra(self):
        """Add a line for what has no parameter of its own."""
        self.add_advanced(
            QgsProcessingParameterString(
                "EXTRA", f"More options, as 'geocd {self.command} --help' has them", optional=True
            )
        )


def _show(line, feedback):
    """Put a line of geocd where it belongs."""
    percent = runner.percent_of(line)
    if percent is not None:
        feedback.setProgress(percent)
        feedback.setProgressText(line.rsplit(" (", 1)[0])
    elif line.startswith("Error:"):
        feedback.reportError(line)
    elif line.startswith("Warning:"):
        feedback.pushWarning(line)
    elif line.strip() and not runner.is_progress(line):
        feedback.pushInfo(line)
