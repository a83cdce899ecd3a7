"""Where pictures of good parts are, and how samples are made from them."""

from __future__ import annotations

from dataclasses import dataclass

from geocd.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectSource:
    """A folder of pictures of good parts, on which defects are synthesised."""

    folder: str
    """Folder of pictures below the data root."""
    include: tuple[str, ...] = ("*",)
    """Patterns of the file names that belong to the source."""
    golden: str = ""
    """Name of the golden picture. The others are then good samples of the same part, which are
    brought onto it, and what differs between them is no defect. Empty: each picture is its own
    golden, and they may show different parts."""
    weight: float = 1.0
    """How often the source is drawn, against the others and the pairs."""
    faulty: float = 0.7
    """Share of the samples that have defects, 0..1."""
    max_shift: float = 2.0
    """Largest misregistration between golden picture and sample, pixels."""
    camera: float = 0.6
    """Share of pictures that get another exposure, focus and noise, 0..1."""
    origin: str = ""
    """Where the pictures come from, for the weights card."""
    terms: str = ""
    """Terms of the pictures, for the weights card."""

    def __post_init__(self) -> None:
        for name in ("faulty", "camera"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be a share from 0 to 1, got {getattr(self, name)}")
        if self.max_shift < 0:
            raise ConfigError(f"max_shift must not be negative, got {self.max_shift}")
