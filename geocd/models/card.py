"""The card that travels with the weights: what they are, what they expect, what they are worth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geocd.errors import WeightsError

NONE = "none"
"""Name of the class 'no change' in weights whose classes exclude one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsCard:
    """What a weights file says of itself.

    Raises:
        WeightsError: the fields do not fit each other.
    """

    name: str
    """Name of the weights."""
    architecture: str
    """Name of the network, as in ``geocd models list``."""
    width: int
    """Width of the network."""
    classes: tuple[str, ...]
    """Outputs of the network, in order."""
    exclusive: bool
    """True: the classes exclude one another (softmax, the first is "none"). False: independent
    (sigmoid)."""
    thresholds: tuple[float, ...]
    """Least score of a change, 0..1, for each class but "none"."""
    bands: tuple[str, ...]
    """Bands that the network expects, in order."""
    mean: tuple[float, ...]
    """Subtracted from each band, on the scale 0..255."""
    std: tuple[float, ...]
    """What the difference is divided by, on the scale 0..255."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Choices within the architecture, such as its upsampling; without them: as published."""
    gsd: tuple[float, float] | None = None
    """Ground sample distances that the weights are good for, metres; None: any."""
    summary: str = ""
    """One line for people."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Data with origin and terms, steps, hours, seeds."""
    validation: Mapping[str, Any] = field(default_factory=dict)
    """Figures, and what they were measured on."""
    limitations: tuple[str, ...] = ()
    """Known failures."""
    terms: str = ""
    """What the weights may be used for."""
    tensors_sha256: str = ""
    """SHA-256 of the tensors' names, types, shapes and bytes; set when the file is written."""

    def __post_init__(self) -> None:
        if not (len(self.bands) == len(self.mean) == len(self.std)):
            raise WeightsError(
                f"card of {self.name}: {len(self.bands)} bands, {len(self.mean)} means and "
                f"{len(self.std)} deviations; they must be as many"
            )
        if self.exclusive and self.classes[:1] != (NONE,):
            raise WeightsError(f'card of {self.name}: exclusive classes start with "{NONE}"')
        if len(self.thresholds) != len(self.change_classes):
            raise WeightsError(
                f"card of {self.name}: {len(self.change_classes)} classes of change, "
                f"{len(self.thresholds)} thresholds; they must be as many"
            )

    @property
    def change_classes(self) -> tuple[str, ...]:
        """The classes without "none": what scores are kept of."""
        return self.classes[1:] if self.exclusive else self.classes

    def to_json(self) -> str:
        """The card as text."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> WeightsCard:
        """The card that ``to_json`` wrote.

        Raises:
            WeightsError: the text is no card of this version.
        """
        try:
            table = json.loads(text)
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in table.items()
            }
            return cls(**values)
        except (ValueError, TypeError) as error:
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(f"the weights card cannot be read: {error}") from None
