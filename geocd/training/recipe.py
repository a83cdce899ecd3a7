"""A training recipe: everything that decides what the weights become, in one TOML file."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geocd.errors import ConfigError
from geocd.models.card import NONE
from geocd.training.defect_source import DefectSource
from geocd.training.tables import config_from

_BUNDLED = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSource:
    """A folder of single-date tiles, or tiles that are painted without any imagery."""

    folder: str = ""
    """Folder below the data root, with ``images/`` and, if labelled, ``labels/``."""
    painted: int = 0
    """Number of painted tiles, in place of a folder."""
    seed: int = 0
    """Which painted tiles: sources of other seeds show other places."""
    include: str = "*"
    """Which file names of ``images/`` belong to the source."""
    gsd: float
    """Metres per pixel."""
    building: int | None = None
    """Label value of buildings; None: buildings are not labelled here."""
    road: int | None = None
    """Label value of roads; None: roads are not labelled here."""
    ignore: int | None = None
    """Label value of pixels of which nothing is known; None: there are none."""
    weight: float = 1.0
    """How often the source is drawn, against the others."""
    origin: str = ""
    """Where the imagery comes from, for the weights card."""
    terms: str = ""
    """Terms of the imagery, for the weights card."""

    def __post_init__(self) -> None:
        if bool(self.folder) == bool(self.painted) or self.painted < 0:
            raise ConfigError("a source of tiles needs either a folder or a number of painted ones")
        if self.gsd <= 0 or self.weight < 0:
            raise ConfigError(
                f"gsd must be positive and weight not negative, got {self.gsd} and {self.weight}"
            )
        values = (self.building, self.road, self.ignore)
        if self.painted and any(value is not None for value in values):
            raise ConfigError("painted tiles know their labels; leave building, road, ignore out")
        used = [0, *(value for value in values if value is not None)]
        if len(set(used)) != len(used):
            raise ConfigError(f"label values must differ from each other and from 0, got {used}")

    @property
    def name(self) -> str:
        """What messages and the weights card call it."""
        return self.folder or f"painted, {self.gsd:g} m, seed {self.seed}"

    @property
    def labels(self) -> dict[str, int]:
        """Label value of each class that the files label."""
        values = {"building": self.building, "road": self.road}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsSource:
    """A set of real pairs with labelled change."""

    folder: str
    """Folder or manifest below the data root, in a layout that ``find_pairs`` knows."""
    split: str | None = None
    """Split to read, where the set has splits; None: all pairs."""
    fold: str = ""
    """One part of the pairs, such as "1/5": training leaves it out, validation uses nothing
    else. Empty: all pairs."""
    gsd: float | None = None
    """Metres per pixel; None: unknown, pixels are taken as they are."""
    read_gsd: tuple[float, float] | None = None
    """Range of ground sample distances to which crops are brought, metres; None: as they are."""
    photometric: float = 0.0
    """Share of images that get another light, season and sensor."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Label value of each class; empty: any value but 0 is change of the first class."""
    ignore: int | None = None
    """Label value of pixels of which nothing is known."""
    weight: float = 1.0
    """How often the source is drawn, against the other pairs and the synthesised ones."""
    include: tuple[str, ...] = ("*",)
    """Patterns of the names of the pairs that belong to the source."""
    camera: float = 0.0
    """Share of images that get another exposure, focus and noise, as in a factory."""
    max_shift: float = 0.0
    """Largest misregistration that is added between the images, pixels."""
    balanced: float = 0.5
    """Share of crops that are drawn around a change, 0..1."""
    origin: str = ""
    """Where the pairs come from, for the weights card."""
    terms: str = ""
    """Terms of the pairs, for the weights card."""

    def __post_init__(self) -> None:
        if self.read_gsd is not None and self.gsd is None:
            raise ConfigError(f"{self.folder}: read_gsd needs the gsd of the pairs")
        if self.read_gsd is not None and not 0 < self.read_gsd[0] <= self.read_gsd[1]:
            raise ConfigError(
                f"{self.folder}: read_gsd must rise from above 0, got {self.read_gsd}"
            )
        number, _, folds = self.fold.partition("/")
        if self.fold and not (
            number.isdigit() and folds.isdigit() and 1 <= int(number) <= int(folds) > 1
        ):
            raise ConfigError(f'fold must look like "1/5", got {self.fold!r}')

    def in_fold(self, index: int) -> bool:
        """True where the pair of that number, in the order of names, lies in the fold."""
        number, _, folds = self.fold.partition("/")
        return bool(self.fold) and index % int(folds) == int(number) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of training with one size of crop."""

    steps: int
    """Optimiser steps."""
    crop: int
    """Side of a training crop, in pixels; a multiple of 16."""
    batch: int
    """Pairs in a step, over all processes."""
    self_label: bool = False
    """Before the stage, the segmentation of single dates completes the tiles' labels."""

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
    road_paste: float = 0.0
    """Share in which stretches of road are pasted into a scene."""
    road_removal: float = 0.0
    """Share in which stretches of road give way to ground."""
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
        if abs(sum(self.shares.values()) - 1) > 1e-6 or min(self.shares.values()) < 0:
            raise ConfigError(
                f"the shares of pairs must not be negative and sum to 1, got {self.shares}"
            )
        for name in ("clutter", "strong"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be a share from 0 to 1, got {getattr(self, name)}")
        for name in ("gsd", "zoom"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} must rise from above 0, got {low} to {high}")
        if self.max_shift < 0:
            raise ConfigError(f"max_shift must not be negative, got {self.max_shift}")

    @property
    def shares(self) -> dict[str, float]:
        """Share of each kind of pair, by name."""
        names = (
            "construction", "patch", "unrelated", "paste", "removal", "road_paste",
            "road_removal", "ground", "unchanged",
        )  # fmt: skip
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
    gsd: tuple[float, ...] = (0.65,)
    """Ground sample distances, metres, at which each tile is read."""

    def __post_init__(self) -> None:
        if not 0 <= self.doubt <= self.absent < self.present <= 1:
            raise ConfigError(
                f"self-labels need 0 <= doubt <= absent < present <= 1, got {self.doubt}, "
                f"{self.absent}, {self.present}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Which network is trained, and from where it starts."""

    architecture: str = "siam-nested-lite"
    """Architecture, as in ``geocd models list``."""
    width: int = 32
    """Width of the architecture."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Choices within the architecture, such as ``upsampling``."""
    initial: str = "imagenet"
    """Weights to start from: bundled ones by name, a file, ``imagenet`` (the encoder alone, where
    the architecture has one), or ``random``."""
    mean: float = 127.0
    """Subtracted from every band, on 0..255."""
    std: float = 128.0
    """What the difference is divided by, on 0..255."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.std <= 0:
            raise ConfigError(f"width and std must be positive, got {self.width} and {self.std}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW, and how its learning rate runs."""

    learning_rate: float = 2e-3
    """Peak learning rate."""
    encoder_rate: float = 0.4
    """Learning rate of a pretrained encoder, as a share of the rest's."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup: int = 100
    """Steps over which the learning rate rises."""
    schedule: Literal["cosine", "step"] = "cosine"
    """cosine: falls to ``final``. step: multiplied by ``step_factor`` every ``step_every``."""
    final: float = 0.01
    """Last learning rate of the cosine, as a share of the peak."""
    step_every: int = 1000
    """Steps between two falls of the step schedule."""
    step_factor: float = 0.5
    """What the step schedule multiplies by."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    accumulate: int = 1
    """Parts in which a batch is worked off, to fit into memory."""
    ema: float = 0.998
    """Decay of the running average of the weights, which is what is kept; 0: no average."""
    precision: Literal["bf16", "float32"] = "bf16"
    """bf16: automatic mixed precision with bfloat16."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.clip <= 0 or self.accumulate < 1:
            raise ConfigError("learning_rate and clip must be positive, accumulate at least 1")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be in [0, 1), got {self.ema}")
        if self.step_every < 1:
            raise ConfigError(f"step_every must be at least 1, got {self.step_every}")

    def rate(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step of so many."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if self.schedule == "step":
            return rise * float(self.step_factor ** (step // self.step_every))
        fall = 0.5 * (1 + math.cos(math.pi * step / steps))
        return rise * max(fall, self.final)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    change: str = "bce+dice"
    """Loss of the change: names of ``build_loss`` joined by +."""
    positive_weight: float = 1.0
    """Weight of change against no change in the cross entropies."""
    focal_gamma: float = 2.0
    """Exponent of the focal loss."""
    auxiliary: float = 0.4
    """Weight of the segmentation of each date, where the network can give its maps; 0: none."""
    teacher: str = ""
    """Weights whose scores are imitated: a bundled name or a file; empty: none."""
    imitation: float = 2.0
    """Weight of the imitation of the teacher."""
    adversarial: float = 0.0
    """Weight of a patch discriminator's verdict; 0: none."""
    l1: float = 0.0
    """Weight of the mean difference between scores and truth, as adversarial training wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    """How the run is watched, on pairs that it is not trained on."""

    every: int = 1000
    """Steps between two validations."""
    patience: int = 0
    """Validations without a better F1 after which training stops; 0: never."""
    keep: Literal["best", "last"] = "best"
    """Weights that are exported: those with the best F1, or those of the last step, where the
    validation cannot judge all that the stages are for."""
    synthesised: int = 0
    """Pairs synthesised with a seed of their own: from the tiles in ``sources`` or, where there
    are none, from the recipe's pictures of good parts."""
    crop: int = 256
    """Side of the synthesised pairs, pixels."""
    sources: tuple[TileSource, ...] = ()
    """Tiles that training does not see."""
    pairs: tuple[PairsSource, ...] = ()
    """Real pairs that training does not see."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.patience < 0:
            raise ConfigError("every must be at least 1 and patience must not be negative")
        if self.keep == "last" and self.patience:
            raise ConfigError("patience ends a run at its best weights, and keep asks for the last")
        if self.sources and not self.synthesised:
            raise ConfigError("[[validation.sources]] need a number of pairs, synthesised")

    @property
    def wanted(self) -> bool:
        """True where there is anything to validate on."""
        return bool(self.synthesised or self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardNotes:
    """What goes on the weights card and does not come out of the training itself."""

    summary: str = ""
    """One line for people."""
    gsd: tuple[float, float] | None = None
    """Ground sample distances that the weights are good for, metres; None: any."""
    thresholds: tuple[float, ...] = ()
    """Least score of a change, 0..1, for each class of change; none: 0.5."""
    terms: str = ""
    """What the weights may be used for."""
    limitations: tuple[str, ...] = ()
    """Known failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what the weights become."""

    name: str
    """Name of the weights."""
    classes: tuple[str, ...] = ("building", "road")
    """Outputs of the network, in order; exclusive ones start with "none"."""
    seed: int = 777
    """Seed of the initial weights and of every pair."""
    synthesised: float = 1.0
    """How often a pair is synthesised from tiles, against the weights of the real pairs."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    self_label: SelfLabelConfig = field(default_factory=SelfLabelConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    card: CardNotes = field(default_factory=lambda: CardNotes())
    """What the recipe's author has to say on the weights card."""
    stages: tuple[Stage, ...]
    sources: tuple[TileSource, ...] = ()
    """Single-date tiles from which pairs are synthesised."""
    pairs: tuple[PairsSource, ...] = ()
    """Real pairs."""
    defects: tuple[DefectSource, ...] = ()
    """Pictures of good parts, on which defects are synthesised."""

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise ConfigError(f"name must be a file name without its ending, got {self.name!r}")
        if not self.planes:
            raise ConfigError(f"a recipe needs a class of change, got {list(self.classes)}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")
        if self.card.thresholds and len(self.card.thresholds) != len(self.planes):
            raise ConfigError(
                f"[card] gives {len(self.card.thresholds)} thresholds for {len(self.planes)} "
                "classes of change; they must be as many"
            )
        weights = [s.weight for s in self.pairs] + [s.weight for s in self.defects]
        weights += [self.synthesised] * bool(self.sources)
        if min(weights, default=1) < 0 or sum(weights) == 0:
            raise ConfigError(f"weights of pairs must not be negative or all 0, got {weights}")
        if not self.stages:
            raise ConfigError("a recipe needs at least one [[stages]]")
        if not (self.sources or self.pairs or self.defects):
            raise ConfigError("a recipe needs [[sources]] of tiles, [[pairs]] or [[defects]]")
        if self.validation.synthesised and not (self.validation.sources or self.defects):
            raise ConfigError("synthesised validation needs [[validation.sources]] or [[defects]]")
        parts = self.optimizer.accumulate
        for stage in self.stages:
            if stage.batch % parts:
                raise ConfigError(
                    f"a batch of {stage.batch} cannot be worked off in {parts} equal parts"
                )

    @property
    def exclusive(self) -> bool:
        """True where the classes exclude one another."""
        return self.classes[:1] == (NONE,)

    @property
    def planes(self) -> tuple[str, ...]:
        """The classes of change, without "none": the planes of the labels."""
        return self.classes[1:] if self.exclusive else self.classes

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def decides(self) -> str:
        """Everything that decides the course of a run, as JSON; notes and what is kept do not."""
        table = dataclasses.asdict(self)
        del table["validation"]["keep"]
        left_out = {"card"} if self.defects else {"card", "defects"}
        return json.dumps({k: v for k, v in table.items() if k not in left_out}, sort_keys=True)

    def stage_at(self, step: int) -> tuple[int, Stage]:
        """The index of the stage that holds a step, and the stage."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, stage
            step -= stage.steps
        raise ConfigError(f"the step lies beyond the {self.steps} steps of the recipe")


def bundled_recipes() -> list[str]:
    """Names of the recipes that come with geocd, sorted."""
    return sorted(p.stem for p in _BUNDLED.glob("*.toml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe that comes with geocd, or of one given by its path.

    Raises:
        ConfigError: neither.
    """
    for path in (Path(name), _BUNDLED / f"{name}.toml"):
        if path.is_file():
            return path
    raise ConfigError(
        f"no recipe called {name!r} and no file of that name; "
        f"bundled are {', '.join(bundled_recipes())}"
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
    return config_from(Recipe, table, str(path))
