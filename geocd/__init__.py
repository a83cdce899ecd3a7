"""geocd finds what changed between two images of the same place.

    import geocd

    result = geocd.detect("before.tif", "after.tif", "changes.gpkg")
    print(result.report())
    result.changes.plot("kind")

Names are loaded when they are first used: importing geocd loads neither torch nor rasterio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AlignConfig": "geocd.config",
    "Alignment": "geocd.align",
    "CoregisterResult": "geocd.coregistration",
    "DetectConfig": "geocd.config",
    "DetectResult": "geocd.result",
    "GeocdError": "geocd.errors",
    "GeocdWarning": "geocd.errors",
    "InspectConfig": "geocd.config",
    "Inspector": "geocd.inspect",
    "PredictConfig": "geocd.config",
    "TilingConfig": "geocd.config",
    "VectorizeConfig": "geocd.config",
    "coregister": "geocd.coregistration",
    "detect": "geocd.pipeline",
    "evaluate": "geocd.assess",
    "load_weights": "geocd.models",
}

__all__ = [
    "AlignConfig",
    "Alignment",
    "CoregisterResult",
    "DetectConfig",
    "DetectResult",
    "GeocdError",
    "GeocdWarning",
    "InspectConfig",
    "Inspector",
    "PredictConfig",
    "TilingConfig",
    "VectorizeConfig",
    "__version__",
    "coregister",
    "detect",
    "evaluate",
    "load_weights",
]

if TYPE_CHECKING:
    from geocd.align import Alignment
    from geocd.assess import evaluate
    from geocd.config import (
        AlignConfig,
        DetectConfig,
        InspectConfig,
        PredictConfig,
        TilingConfig,
        VectorizeConfig,
    )
    from geocd.coregistration import CoregisterResult, coregister
    from geocd.errors import GeocdError, GeocdWarning
    from geocd.inspect import Inspector
    from geocd.models import load_weights
    from geocd.pipeline import detect
    from geocd.result import DetectResult


def __getattr__(name: str) -> Any:
    if name == "align":
        return importlib.import_module("geocd.align")
    if name not in _HOME:
        raise AttributeError(f"module 'geocd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
