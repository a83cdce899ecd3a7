"""The threshold of an inspection from an operating point of ``geocd calibrate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from geocd.assess.operating_point import OperatingPoint, read_operating_point
from geocd.config import DetectConfig, InspectConfig
from geocd.errors import ConfigError
from geocd.inspect.zones import Zone


def with_operating_point(
    config: InspectConfig, path: str | Path, *, weights: str, zones: Sequence[Zone] = ()
) -> InspectConfig:
    """The same settings with a threshold that was proven to miss little.

    Args:
        config: without a threshold of its own.
        path: file of the operating point.
        weights: name or file of the weights.
        zones: of the golden.

    Raises:
        OperatingPointError: it was proven for other weights, windows, backend or precision.
        ConfigError: a threshold was asked for as well, or a zone's would break the promise.
    """
    point = read_operating_point(path)
    # What calibrate runs is detect; of its settings, inspection shares the weights, the windows
    # and what runs them. Alignment is proven for each sample.
    as_detect = DetectConfig(
        weights=weights, threshold=config.threshold, tiling=config.tiling, predict=config.predict
    )
    proven = point.apply(as_detect)
    _check_zones(point, zones)
    return replace(
        config, threshold=proven.threshold, predict=proven.predict,
        operating_point=proven.operating_point,
    )  # fmt: skip


def _check_zones(point: OperatingPoint, zones: Sequence[Zone]) -> None:
    for zone in zones:
        if zone.threshold is not None and zone.threshold > point.threshold:
            raise ConfigError(
                f"zone {zone.name} has the threshold {zone.threshold:g}, above the proven "
                f"{point.threshold:g}: what is promised would not hold there; lower it, or leave "
                "the operating point out"
            )
