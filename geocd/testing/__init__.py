"""Painted scenes with known change, small rasters, and public asserts.

Nothing here needs imagery: a survey is painted from noise, polygons, a sun and a camera, so
the truth is known to the pixel.
"""

from __future__ import annotations

from geocd.testing.camera import Light
from geocd.testing.checks import assert_valid_change_layer, score_against_truth
from geocd.testing.files import write_raster
from geocd.testing.pictures import comparison_picture
from geocd.testing.plan import Suburb
from geocd.testing.render import render
from geocd.testing.suburb import plan_suburb
from geocd.testing.survey import PaintedChange, PaintedSurvey, paint_survey
from geocd.testing.textures import fractal_noise, paint_scene, shifted_pair

__all__ = [
    "Light",
    "PaintedChange",
    "PaintedSurvey",
    "Suburb",
    "assert_valid_change_layer",
    "comparison_picture",
    "fractal_noise",
    "paint_scene",
    "paint_survey",
    "plan_suburb",
    "render",
    "score_against_truth",
    "shifted_pair",
    "write_raster",
]
