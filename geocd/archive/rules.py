"""What is paired, and how pairs are cut: every default of a plan, and of chips, lives here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from geocd.config import DEFAULT_WEIGHTS, TilingConfig
from geocd.errors import ConfigError
from geocd.models.files import find_weights, read_card

SceneBy = Literal["day", "month", "year"]
Duplicates = Literal["newest", "all"]
Mosaic = Literal["vrt", "cog"]
ChipFormat = Literal["tif", "png"]
_PAIRS = re.compile(r"consecutive|first-last|all|baseline=\d{4}(-\d\d(-\d\d)?)?")
_SEASON = re.compile(r"(\d\d-\d\d)\.\.(\d\d-\d\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRules:
    """Which dates are compared, on which ground, in pieces of which size."""

    pairs: str = "consecutive"
    """consecutive: each date with the next that shows the same ground. first-last: the first
    with the last. all: each with every later one. baseline=2015: dates of then with every later
    one."""
    min_overlap: float = 0.02
    """Least share of a unit's ground that a pair must have in common, 0..1."""
    season: str | None = None
    """MM-DD..MM-DD: dates outside are left out; may run over the end of a year."""
    max_gap: int | None = None
    """Most days between the dates of a pair."""
    gsd: tuple[float, float] | None = None
    """Smallest and largest ground sample distance, in metres; other files are left out."""
    scene_by: SceneBy = "day"
    """Files of one day, month or year are one date."""
    unit_size: int = 4032
    """Side of a work unit in pixels, rounded up to whole steps of the windows. Of images that are
    read coarser than they are, those that are read count."""
    halo: int = 192
    """Least number of pixels that a unit sees around itself; likewise."""
    seconds_per_megapixel: float = 1.5
    """What the estimated time rests on; depends on the machine."""
    tiling: TilingConfig = field(default_factory=TilingConfig)
    """Windows of the run to come; units begin where windows do."""
    weights: str = DEFAULT_WEIGHTS
    """Of the run to come: they say at which ground sample distance images are read."""

    def __post_init__(self) -> None:
        if not _PAIRS.fullmatch(self.pairs):
            raise ConfigError(
                "pairs must be consecutive, first-last, all or baseline=YEAR, got "
                f"{self.pairs!r}"
            )  # fmt: skip
        if self.season is not None and not _SEASON.fullmatch(self.season):
            raise ConfigError(f"season must look like 04-15..09-30, got {self.season!r}")
        if self.scene_by not in get_args(SceneBy):
            raise ConfigError(f"scenes are by day, month or year, got {self.scene_by!r}")
        for name, sound in (
            ("min_overlap", 0 < self.min_overlap <= 1), ("unit_size", self.unit_size >= 1),
            ("halo", self.halo >= 0), ("max_gap", self.max_gap is None or self.max_gap >= 1),
            ("seconds_per_megapixel", self.seconds_per_megapixel > 0),
            ("gsd", self.gsd is None or 0 < self.gsd[0] <= self.gsd[1] < math.inf),
        ):  # fmt: skip
            if not sound:
                raise ConfigError(f"{name} cannot be {getattr(self, name)!r}")

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        return self.tiling.tile_size - self.tiling.overlap

    @property
    def side(self) -> int:
        """Side of a unit in pixels: whole steps."""
        return math.ceil(self.unit_size / self.step) * self.step

    @property
    def margins(self) -> tuple[int, int]:
        """Pixels seen before (above, left of) and after (below, right of) a unit.

        Windows of a unit then lie exactly where those of its neighbours do:

            window |-------|            step 4, overlap 3
                       |-------|
            halo   |---|core...|..|     one step before, one overlap after
        """
        steps = max(1, math.ceil(self.halo / self.step)) * self.step
        return steps, steps + self.tiling.overlap

    def finer(self, gsd: float) -> int:
        """Pixels of a scene, each way, to one as it is read; 1 where it is read as it is or finer.

        Args:
            gsd: ground sample distance of the scene in metres.
        """
        least = (read_card(find_weights(self.weights)).gsd or (gsd, gsd))[0]
        # What projections distort, and what `reading_grid` takes as it is, makes no difference.
        return max(1, math.ceil(least / gsd - 0.05))

    def in_season(self, date: str) -> bool:
        """Whether an ISO date lies in the season; dates without a day do only without one."""
        if self.season is None:
            return True
        first, last = self.season.split("..")
        day = date[5:]
        if len(day) < 5:
            return False
        return first <= day <= last if first <= last else day >= first or day <= last


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipRules:
    """How pairs are cut into training chips, and the chips into splits."""

    size: int = 256
    """Side of a chip in pixels, a multiple of 16: networks halve it four times."""
    overlap: int = 64
    """Least number of pixels that neighbours share, less than the size."""
    format: ChipFormat = "tif"
    """tif: GeoTIFF. png: with a world file."""
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Of the chips that go to train, val and test; their sum is 1."""
    block: int | None = None
    """Side in pixels of the blocks of ground that splits are made of; None: as eight chips cover,
    or fewer where that would leave fewer than 30 blocks."""
    skip_empty: bool = False
    """Leave out chips in which no change is labelled."""
    seed: int = 0
    """Draws the splits."""

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 16:
            raise ConfigError(f"the size of a chip must be a multiple of 16, got {self.size}")
        if not 0 <= self.overlap < self.size:
            raise ConfigError(
                f"chips must overlap by 0 to {self.size - 1} pixels, got {self.overlap}"
            )
        if self.format not in get_args(ChipFormat):
            raise ConfigError(f"chips are tif or png, got {self.format!r}")
        sound = len(self.shares) == 3 and all(0 <= share <= 1 for share in self.shares)
        if not sound or not math.isclose(sum(self.shares), 1, abs_tol=1e-6):
            text = "/".join(f"{share:g}" for share in self.shares)
            raise ConfigError(
                f"the shares of train, val and test must be three numbers whose sum is 1, such as "
                f"0.8/0.1/0.1, got {text}"
            )
        if self.block is not None and self.block < self.size:
            raise ConfigError(
                f"a block must hold a chip of {self.size} pixels, got {self.block}; take a larger "
                "block or smaller chips"
            )
