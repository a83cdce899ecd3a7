"""A training recipe: everything that decides what the weights become, in one TOML file."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from geocd.errors import ConfigError

T = TypeVar("T")
_BUNDLED = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSource:
    """A folder of single-date tiles."""

    folder: str
    """Folder below the data root, with ``images/`` and, if labelled, ``labels/``."""
    include: str = "*"
    """Which file names of ``images/`` belong to the source."""
    gsd: float
    """Metres per pixel."""
    building: int | None = None
    """Label value of buildings; None: buildings are not labelled here."""
    road: int | None = None
    """Label value of roads; None: roads are not labelled here."""
    weight: float = 1.0
    """How often the source is drawn, against the others."""
    origin: str = ""
    """Where the imagery comes from, for the weights card."""
    terms: str = ""
    """Terms of the imagery, for the weights card."""

    @property
    def labels(self) -> dict[int, int]:
        """Label value of each labelled class, by its index."""
        values = (self.building, self.road)
        return {plane: value for plane, value in enumerate(values) if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of training with one size of crop."""

    steps: int
    """Optimiser steps."""
    crop: int
    """Side of a training crop, in pixels; a multiple of 16."""
    batch: int
    """Pairs in a step."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ConfigError("a stage needs at least one step and one pair in a batch")
        if self.crop < 32 or self.crop % 16:
            raise ConfigError(f"crop must be a multiple of 16 from 32 on, got {self.crop}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisConfig:
    """How pairs are made from single-date tiles."""

    construction: float = 0.30
    """Share of pairs in which vacant ground becomes built-up ground of another place."""
    patch: float = 0.20
    """Share in which parts of a scene are replaced by parts of another."""
    unrelated: float = 0.10
    """Share of unrelated scenes, labelled where exactly one date is built."""
    paste: float = 0.14
    """Share in which single buildings are pasted into a scene."""
    removal: float = 0.12
    """Share in which single buildings give way to ground."""
    ground: float = 0.0
    """Share in which vacant ground becomes other vacant ground."""
    unchanged: float = 0.14
    """Share in which only light, season and sensor differ."""
    clutter: float = 0.0
    """Share of pairs with a yard of vehicles, containers or bare soil on one date."""
    gsd: tuple[float, float] = (0.4, 1.0)
    """Range of ground sample distances, metres."""
    zoom: tuple[float, float] = (0.6, 1.9)
    """Range within which a tile may be enlarged or reduced to reach a GSD."""
    max_shift: float = 3.0
    """Largest misregistration between the dates, pixels."""
    strong: float = 0.4
    """Share of images under strong photometric change; the rest is mild."""

    def __post_init__(self) -> None:
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ConfigError(f"the shares of pairs must sum to 1, got {self.shares}")

    @property
    def shares(self) -> dict[str, float]:
        """Share of each kind of pair, by name."""
        names = ("construction", "patch", "unrelated", "paste", "removal", "ground", "unchanged")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfLabelConfig:
    """How sure the segmentation of single dates must be to be believed about a tile's labels."""

    present: float = 0.85
    """Least score, 0..1, that labels an unknown pixel with the class."""
    absent: float = 0.1
    """Largest score that labels an unknown pixel as free of the class."""
    doubt: float = 0.05
    """A label that the scores contradict to within this distance of certainty is ignored."""
    gsd: tuple[float, ...] = (0.45, 0.7)
    """Ground sample distances, metres, at which each tile is read."""

    def __post_init__(self) -> None:
        if not 0 <= self.doubt <= self.absent < self.present <= 1:
            raise ConfigError(
                f"self-labels need 0 <= doubt <= absent < present <= 1, got {self.doubt}, "
                f"{self.absent}, {self.present}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CardNotes:
    """What goes on the weights card and does not come out of the training itself."""

    summary: str = ""
    """One line for people."""
    gsd: tuple[float, float] | None = None
    """Ground sample distances that the weights are good for, metres; None: any."""
    thresholds: tuple[float, ...] = (0.5, 0.5)
    """Least score of a change, 0..1, for each class."""
    terms: str = ""
    """What the weights may be used for."""
    limitations: tuple[str, ...] = ()
    """Known failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what the weights become."""

    name: str
    """Name of the weights."""
    model: str = "siam-nested-lite"
    """Architecture, as in ``geocd models list``."""
    width: int = 32
    """Width of the architecture."""
    classes: tuple[str, ...] = ("building", "road")
    """Independent outputs of the network, in order."""
    seed: int = 777
    """Seed of the initial weights and of every pair."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW; it follows a cosine to a hundredth of it."""
    encoder_rate: float = 0.4
    """Learning rate of a pretrained encoder, as a share of the rest's."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    warmup: int = 100
    """Steps over which the learning rate rises."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the running average of the weights that is kept in the end."""
    auxiliary: float = 0.4
    """Weight of the segmentation of each date beside the loss of change; 0: none."""
    card: CardNotes = field(default_factory=lambda: CardNotes())
    """What the recipe's author has to say on the weights card."""
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    stages: tuple[Stage, ...]
    sources: tuple[TileSource, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def decides(self) -> str:
        """Everything that decides what the weights become, as JSON; the card's notes do not."""
        table = dataclasses.asdict(self)
        return json.dumps({k: v for k, v in table.items() if k != "card"}, sort_keys=True)

    def stage_at(self, step: int) -> tuple[Stage, int]:
        """The stage that holds a step, and how many steps of that stage are left."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, stage.steps - step
            step -= stage.steps
        raise ConfigError(f"step {step} lies beyond the {self.steps} steps of the recipe")


def _build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


def find_recipe(name: str) -> Path:
    """The file of a recipe that comes with geocd, or of one given by its path.

    Raises:
        ConfigError: neither.
    """
    bundled = sorted(_BUNDLED.glob("*.toml"))
    for path in (Path(name), *(p for p in bundled if p.stem == name)):
        if path.is_file():
            return path
    raise ConfigError(
        f"no recipe called {name!r} and no file of that name; "
        f"bundled are {', '.join(p.stem for p in bundled)}"
    )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from TOML; unknown keys are errors.

    Raises:
        ConfigError: not TOML, an unknown key, or an impossible value.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the recipe {path}: {error}") from None
    for key, cls in (("stages", Stage), ("sources", TileSource)):
        rows = table.get(key, [])
        if not rows:
            raise ConfigError(f"{path}: a recipe needs at least one [[{key}]]")
        table[key] = tuple(_build(cls, row, f"{path}: [[{key}]]") for row in rows)
    table["synthesis"] = _build(SynthesisConfig, table.get("synthesis", {}), f"{path}: [synthesis]")
    table["card"] = _build(CardNotes, table.get("card", {}), f"{path}: [card]")
    return _build(Recipe, table, str(path))
