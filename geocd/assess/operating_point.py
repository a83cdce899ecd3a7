"""A threshold with its promise, bound to the weights and settings that it was proven for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geocd.config import DetectConfig
from geocd.errors import ConfigError, OperatingPointError
from geocd.models.files import find_weights, read_card
from geocd.outputs import check_writable, replacing
from geocd.predict.backends import chosen

_FORMAT = "geocd operating point 1"
_SHOWN = 12
"""Digits of a hash that messages show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What ``geocd calibrate`` found."""

    kind: str
    """Class of the weights that the threshold belongs to."""
    threshold: float
    """Least score of a change, 0..1."""
    weights: Mapping[str, str]
    """Name, architecture and SHA-256 of the tensors."""
    settings: Mapping[str, Any]
    """Settings of ``detect`` that shape scores; see ``settings_of``."""
    promise: Mapping[str, Any]
    """What is promised, in figures and in words."""
    calibration: Mapping[str, Any]
    """The calibration set, with its hash, and what was seen on it."""
    made: Mapping[str, Any]
    """Version, time, backend."""

    def to_json(self) -> str:
        """The file's text; a hash over all of it tells if it was changed by hand."""
        return json.dumps(self._content() | {"sha256": self.sha256}, indent=1)

    def apply(self, config: DetectConfig) -> DetectConfig:
        """The same settings with this threshold, and every window run in full, as in the proof.

        Raises:
            OperatingPointError: the weights or the settings are others.
            ConfigError: a threshold was asked for as well.
        """
        if config.threshold is not None:
            raise ConfigError("an operating point brings its threshold; leave --threshold out")
        card = read_card(find_weights(config.weights))
        if card.tensors_sha256 != self.weights["sha256"]:
            raise OperatingPointError(
                f"the operating point was proven for {self.weights['name']} "
                f"({self.weights['sha256'][:_SHOWN]}), the weights are {card.name} "
                f"({card.tensors_sha256[:_SHOWN]}); calibrate these, or run those"
            )
        wanted, found = dict(self.settings), settings_of(config)
        different = [
            f"{name} was {wanted.get(name)!r} and is {found.get(name)!r}"
            for name in sorted(wanted.keys() | found.keys())
            if wanted.get(name) != found.get(name)
        ]
        if different:
            raise OperatingPointError(
                f"the operating point was proven with other settings: {'; '.join(different)}; run "
                "with those, or calibrate with these"
            )
        return in_full(
            replace(config, threshold={self.kind: self.threshold}, operating_point=self.sha256)
        )

    @property
    def sha256(self) -> str:
        """The hash that the file carries, over all of its content."""
        return _digest(self._content())

    def _content(self) -> dict[str, Any]:
        return {"format": _FORMAT, **dataclasses.asdict(self)}


def in_full(config: DetectConfig) -> DetectConfig:
    """The same settings with every window run in full: what a first look passes over is missed."""
    return replace(config, predict=replace(config.predict, first_look=False))


def settings_of(config: DetectConfig) -> dict[str, Any]:
    """The settings that shape scores, flat and JSON-ready; not those of inputs or of outlines.

    Backend and precision are those that this machine runs, where they are left to it.
    """
    backend, precision = chosen(config.predict)
    align = {f"align.{k}": v for k, v in dataclasses.asdict(config.align).items()}
    tiling = {f"tiling.{k}": v for k, v in dataclasses.asdict(config.tiling).items()}
    return {
        "gsd": config.gsd,
        "radiometry": config.radiometry,
        "unaligned": config.unaligned,
        "backend": backend,
        "precision": precision,
        **align,
        **tiling,
    }


def write_operating_point(point: OperatingPoint, path: Path, *, overwrite: bool = False) -> None:
    """Write an operating point as JSON. Atomic.

    Raises:
        OutputError: and its kinds; see ``outputs.check_writable``.
    """
    check_writable(path, overwrite=overwrite)
    with replacing(path) as draft:
        draft.write_text(point.to_json())


def read_operating_point(path: str | Path) -> OperatingPoint:
    """Read what ``write_operating_point`` wrote.

    Raises:
        OperatingPointError: the file is missing, is something else, or was changed.
    """
    try:
        content = json.loads(Path(path).read_text())
        digest, form = content.pop("sha256"), content["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OperatingPointError(
            f"{path} is no operating point ({error}); make one with geocd calibrate"
        ) from None
    if form != _FORMAT or digest != _digest(content):
        raise OperatingPointError(
            f"{path} is not as geocd calibrate wrote it, so what it promises is not proven; make "
            "it again"
        )
    del content["format"]
    return OperatingPoint(**content)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
