"""geocd:detect."""

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
)

from .algorithm import GeocdAlgorithm

WEIGHTS = ["geocd-vhr", "geocd-snunet"]
"""Bundled weights, the default first."""


class DetectAlgorithm(GeocdAlgorithm):
    """From two images to change polygons."""

    command = "detect"
    title = "Detect changes between two images"
    help = """Finds building and road change between two images of the same place.

The images may differ in CRS, resolution and extent. A misregistration is measured and, where that \
helps, corrected. The polygons are written in the CRS of the image before; a GeoPackage also holds \
centrelines of roads, the ground that was not observed, and what made it all. The layers open \
styled.

Alignment: 'auto' corrects what it can prove, 'off' trusts the georeferencing, 'require' fails \
where nothing can be proven; 'shift', 'affine' and 'local' allow no more freedom than that.

Scores are worth keeping: 'Polygons from scores' makes polygons from them at another threshold, \
without the network.

The program geocd is installed apart from QGIS; its path is set in Settings > Options > Processing \
> Providers > geocd."""

    def initAlgorithm(self, configuration=None):
        """Describe the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("BEFORE", "Image before"))
        self.addParameter(QgsProcessingParameterRasterLayer("AFTER", "Image after"))
        self.addParameter(
            QgsProcessingParameterEnum(
                "WEIGHTS",
                "Weights",
                options=WEIGHTS,
                defaultValue=WEIGHTS[0],
                usesStaticStrings=True,
            )
        )
        self.add_threshold()
        self.add_min_area()
        self.add_align()
        self.addParameter(
            QgsProcessingParameterFeatureSource(
                "AOI", "Area of interest", [QgsProcessing.TypeVectorPolygon], optional=True
            )
        )
        self.add_advanced(
            QgsProcessingParameterFeatureSource(
                "FOOTPRINTS", "Known buildings", [QgsProcessing.TypeVectorPolygon], optional=True
            )
        )
        self.add_advanced(
            QgsProcessingParameterFile(
                "WEIGHTS_FILE",
                "Weights of one's own, instead of the bundled ones",
                extension="safetensors",
                optional=True,
            )
        )
        self.add_extra()
        self.addParameter(
            QgsProcessingParameterVectorDestination(
                "OUTPUT", "Change polygons", QgsProcessing.TypeVectorPolygon
            )
        )
        for name, words in (("MASK", "Change map"), ("SCORES", "Scores")):
            self.addParameter(
                QgsProcessingParameterRasterDestination(
                    name, words, optional=True, createByDefault=False
                )
            )
        for name, words, kind in (
            ("REPORT", "Report for a browser", "Web pages (*.html)"),
            ("PROJECT", "QGIS project", "QGIS projects (*.qgz)"),
        ):
            self.addParameter(
                QgsProcessingParameterFileDestination(
                    name, words, kind, optional=True, createByDefault=False
                )
            )

    def collect(self, parameters, context, feedback):
        """See the base class."""
        own = self.parameterAsFile(parameters, "WEIGHTS_FILE", context)
        told = [
            self.raster_path(parameters, "BEFORE", context),
            self.raster_path(parameters, "AFTER", context),
            "--weights", own or self.parameterAsEnumString(parameters, "WEIGHTS", context),
            "--align", self.parameterAsEnumString(parameters, "ALIGN", context),
            *self.threshold(parameters, context),
            *self.min_area(parameters, context),
        ]  # fmt: skip
        for name, option in (("AOI", "--aoi"), ("FOOTPRINTS", "--footprints")):
            path = self.polygons_path(parameters, name, context, feedback)
            told += [option, path] if path else []
        wanted, results = self.outputs(parameters, context, {
            "OUTPUT": "--output", "MASK": "--mask", "SCORES": "--scores", "REPORT": "--report",
            "PROJECT": "--qgis-project",
        })  # fmt: skip
        return told + wanted, results
