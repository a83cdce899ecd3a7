"""What made a file: versions, inputs, weights and settings."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geocd
from geocd.config import AlignConfig, DetectConfig

_LIBRARIES = ("torch", "rasterio", "geopandas", "shapely", "numpy", "opencv-python-headless")


def library_versions() -> dict[str, str]:
    """Versions of geocd, Python and the libraries that decide a result."""
    versions = {"geocd": geocd.__version__, "python": platform.python_version()}
    return versions | {name: version(name) for name in _LIBRARIES}


def describe_input(name: str, files: tuple[str, ...]) -> dict[str, Any]:
    """An input as it was found: its files with size and time of change, where they are local."""
    listed: list[dict[str, Any]] = []
    for file in files:
        entry: dict[str, Any] = {"path": file}
        if Path(file).is_file():
            status = Path(file).stat()
            entry["bytes"] = status.st_size
            entry["modified"] = datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
        listed.append(entry)
    return {"name": name, "files": listed}


def provenance(
    *,
    inputs: Mapping[str, Any],
    weights: Mapping[str, Any],
    config: DetectConfig | AlignConfig,
    alignment: Mapping[str, Any],
) -> dict[str, Any]:
    """The record that goes into every output, JSON-ready."""
    return {
        "geocd": geocd.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "inputs": dict(inputs),
        "weights": dict(weights),
        "config": dataclasses.asdict(config),
        "alignment": dict(alignment),
    }
