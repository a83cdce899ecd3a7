"""geocd:align."""

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
)

from .algorithm import GeocdAlgorithm


class AlignAlgorithm(GeocdAlgorithm):
    """From an image to one that lies where its reference does."""

    command = "align"
    title = "Align an image to another"
    help = """Moves the image after to where it lies on the image before, and proves it.

Tie points are found in both images; some of them are held out and judge the motion that the \
others made. An image whose alignment cannot be proven is not written, and the run fails.

The aligned image keeps its bands, type, nodata and resolution. Tie points open styled by their \
role, and residuals as arrows before and after alignment."""

    def initAlgorithm(self, configuration=None):
        """Describe the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("BEFORE", "Image before: stays"))
        self.addParameter(QgsProcessingParameterRasterLayer("AFTER", "Image after: is moved"))
        self.add_align()
        self.addParameter(
            QgsProcessingParameterNumber(
                "MAX_SHIFT",
                "Largest displacement believed (pixels)",
                type=QgsProcessingParameterNumber.Double,
                defaultValue=100,
                minValue=0.1,
            )
        )
        self.addParameter(
            QgsProcessingParameterBoolean(
                "LIKE_BEFORE", "Write the very grid of the image before", defaultValue=False
            )
        )
        self.add_extra()
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Aligned image"))
        self.addParameter(
            QgsProcessingParameterVectorDestination(
                "TIE_POINTS",
                "Tie points",
                QgsProcessing.TypeVectorPoint,
                optional=True,
                createByDefault=False,
            )
        )
        for name, words, kind in (
            ("REPORT", "Measurements", "JSON files (*.json)"),
            ("PICTURE", "Picture of the residuals", "PNG files (*.png)"),
        ):
            self.addParameter(
                QgsProcessingParameterFileDestination(
                    name, words, kind, optional=True, createByDefault=False
                )
            )

    def collect(self, parameters, context, feedback):
        """See the base class."""
        told = [
            self.raster_path(parameters, "BEFORE", context),
            self.raster_path(parameters, "AFTER", context),
            "--align", self.parameterAsEnumString(parameters, "ALIGN", context),
            "--max-shift", str(self.parameterAsDouble(parameters, "MAX_SHIFT", context)),
        ]  # fmt: skip
        if self.parameterAsBool(parameters, "LIKE_BEFORE", context):
            told.append("--like-before")
        wanted, results = self.outputs(parameters, context, {
            "OUTPUT": "--output", "TIE_POINTS": "--tie-points", "REPORT": "--report",
            "PICTURE": "--picture",
        })  # fmt: skip
        return told + wanted, results
