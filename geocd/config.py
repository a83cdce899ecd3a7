"""Every default of geocd, with its unit. Impossible values fail when they are built."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from geocd.errors import ConfigError

AlignMode = Literal["auto", "off", "shift", "affine", "local", "require"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
BackendName = Literal["auto", "torch", "openvino"]
PrecisionName = Literal["auto", "float32", "bf16", "fp16", "int8"]
RadiometryMode = Literal["none", "linear"]
UnalignedMode = Literal["mask", "keep"]
GoldenRule = Literal["nearest", "union"]
MissUnit = Literal["object", "pixel", "image"]

DEFAULT_WEIGHTS = "geocd-vhr"
NOT_OBSERVED = 255
"""Value of 'not observed' in change maps and in score rasters."""
SCORE_SCALE = 254
"""A stored score of 254 is 1.0; 255 is kept for 'not observed'."""
CLASS_CODES = {"building": 1, "road": 2, "change": 3}
"""Values of the classes in a change map; 0 is 'no change'. Binary weights know 'change' only."""


def map_class(name: str) -> str:
    """What a class of weights is in a change map: plain change, if the map has none like it."""
    return name if name in CLASS_CODES else "change"


KINDS = ("building", "road")
"""What a change polygon can be."""
CHANGE_MAP_COLOURS = {
    0: (0, 0, 0, 0),
    CLASS_CODES["building"]: (213, 94, 0, 255),
    CLASS_CODES["road"]: (86, 180, 233, 255),
    CLASS_CODES["change"]: (204, 121, 167, 255),
    NOT_OBSERVED: (128, 128, 128, 128),
}
"""Red, green, blue and alpha (0..255) of each value of a change map.

Vermilion, sky blue and reddish purple differ for every common colour vision (Okabe and Ito, 2008),
and all three stand out from vegetation, asphalt and soil.
"""


PerClass = float | Mapping[str, float]
"""A number for every class, or numbers by name: {"building": 0.6, "road": 0.4}."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def numbers_of(value: PerClass) -> tuple[float, ...]:
    """The number, or all the numbers."""
    return tuple(value.values()) if isinstance(value, Mapping) else (value,)


def thresholds_of(
    value: PerClass | None, classes: Sequence[str], defaults: Sequence[float]
) -> tuple[float, ...]:
    """A threshold for each class, in the order of ``classes``.

    Args:
        value: as in `DetectConfig.threshold`; None and names that are left out: the default.
        classes: names of the classes.
        defaults: one a class, 0..1.

    Raises:
        ConfigError: a name is none of ``classes``, or a threshold impossible.
    """
    if value is None:
        return tuple(defaults)
    for number in numbers_of(value):
        _require(0 < number < 1, f"threshold must lie between 0 and 1, got {number}")
    if not isinstance(value, Mapping):
        return (value,) * len(classes)
    for name in value:
        _require(
            name in classes,
            f"there is a threshold for {name!r}, the classes are {', '.join(classes)}",
        )
    return tuple(value.get(name, d) for name, d in zip(classes, defaults, strict=True))


def grown_to(
    value: PerClass | None, classes: Sequence[str], thresholds: Sequence[float]
) -> tuple[float, ...]:
    """The score down to which objects grow, for each class, in the order of ``classes``.

    Args:
        value: as in `VectorizeConfig.grow`; None and names that are left out: the threshold.
        classes: names of the classes.
        thresholds: one a class, 0..1.

    Raises:
        ConfigError: a name is none of ``classes``, or a score lies above the threshold.
    """
    if isinstance(value, Mapping):
        strange = [name for name in value if name not in classes]
        _require(
            not strange,
            f"objects of {', '.join(map(repr, strange))} cannot grow, the classes are "
            f"{', '.join(classes)}",
        )
    low = thresholds_of(value, classes, thresholds)
    for name, grown, threshold in zip(classes, low, thresholds, strict=True):
        _require(
            grown <= threshold,
            f"{name} would grow by scores of {grown:g} and more, above its threshold "
            f"{threshold:g}; give a lower one",
        )
    return low


def parse_bytes(text: str) -> int:
    """Bytes of '2GB', '512 MiB' or '1.5G'; a unit counts in powers of 1024.

    Raises:
        ConfigError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    if found is None:
        raise ConfigError(f"memory must be a size like 2GB or 800MB, got {text!r}")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignConfig:
    """How the after image is co-registered to the before image."""

    mode: AlignMode = "auto"
    """auto: estimate, judge, apply if it helps. off: trust the georeferencing. shift, affine,
    local: as auto, with a motion no richer than that. require: as auto, and a pair of which
    nothing can be shown is an error."""
    max_shift: float = 100.0
    """Largest displacement that is believed, in pixels of the reading grid."""
    overview_size: int = 1024
    """Longest side, in pixels, of the image on which a first, coarse motion is sought."""
    min_gain: float = 0.1
    """Least reduction, in pixels, of the held-out median residual that keeps a warp."""

    def __post_init__(self) -> None:
        modes = get_args(AlignMode)
        _require(self.mode in modes, f"align must be one of {', '.join(modes)}, got {self.mode!r}")
        _require(self.max_shift > 0, f"max_shift must be positive, got {self.max_shift}")
        _require(
            self.overview_size >= 256, f"overview_size must be >= 256, got {self.overview_size}"
        )
        _require(self.min_gain >= 0, f"min_gain must not be negative, got {self.min_gain}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingConfig:
    """How a pair is cut into windows."""

    tile_size: int = 256
    """Side of a square window, in pixels; a multiple of 16."""
    overlap: int = 64
    """Pixels that a window shares with its neighbour; less than the tile size."""

    def __post_init__(self) -> None:
        _require(
            self.tile_size >= 32 and self.tile_size % 16 == 0,
            f"tile size must be a multiple of 16 and at least 32, got {self.tile_size}; "
            f"try {max(32, round(self.tile_size / 16) * 16)}",
        )
        _require(
            0 <= self.overlap < self.tile_size,
            f"overlap must be at least 0 and less than the tile size {self.tile_size}, "
            f"got {self.overlap}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig:
    """Where and how the network runs."""

    device: DeviceName = "auto"
    """auto takes CUDA or Apple's MPS where there is such a device, the CPU elsewhere."""
    backend: BackendName = "auto"
    """What runs the network; auto takes OpenVINO on the CPU and torch on GPUs."""
    precision: PrecisionName = "auto"
    """What the network computes in; auto takes the fastest whose loss is negligible."""
    compile: bool = False
    """Let torch compile the network first: a minute at the start, faster on large rasters."""
    batch_size: int = 8
    """Window pairs in one forward pass."""
    first_look: bool = True
    """Look at half the resolution first, and run the network only where that shows a hint."""
    memory: int | None = None
    """Bytes that the run may take; the batch becomes smaller to fit. None: no bound is set."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("device", get_args(DeviceName)),
            ("backend", get_args(BackendName)),
            ("precision", get_args(PrecisionName)),
        ):
            value = getattr(self, name)
            _require(value in choices, f"{name} must be one of {', '.join(choices)}, got {value!r}")
        _require(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        _require(
            self.memory is None or self.memory > 0, f"memory must be positive, got {self.memory}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorizeConfig:
    """How change polygons are made from the change map."""

    min_area: PerClass = 20.0
    """Minimum mapping unit: smallest polygon kept, in square metres (pixels without a CRS); by
    kind ("building", "road"), or one for both."""
    grow: PerClass | None = None
    """Score, 0..1, down to which objects grow around the pixels that reach the threshold
    (hysteresis); by class, or one for all. None: objects end where the threshold does."""
    opening: float = 0.0
    """Radius, in metres (pixels without a CRS), of the disc that must fit into an object: what
    is thinner goes, and takes no room that others need. 0: nothing goes."""
    fill_holes: float = 0.0
    """Holes up to this size are closed, in square metres (pixels without a CRS), unless another
    object lies in them."""
    simplify: float = 0.6
    """Tolerance of the thinning of outlines, in pixels; 0 keeps the outlines of the pixels."""
    regularize: bool = True
    """Whether buildings are drawn with right angles where their pixels have them; not where
    the outlines of the pixels are kept."""
    split: bool = True
    """Whether buildings that touch are taken apart where the scores dip between them."""
    road_elongation: float = 8.0
    """Least length/width ratio of a road, where the weights do not tell roads from buildings."""
    road_width: float = 30.0
    """Largest mean width of a road, in metres, where the weights do not tell them (with a CRS)."""

    def __post_init__(self) -> None:
        if isinstance(self.min_area, Mapping):
            strange = set(self.min_area) - set(KINDS)
            _require(not strange, f"min_area is by {' and '.join(KINDS)}, got {sorted(strange)}")
        for number in numbers_of(self.min_area):
            _require(
                math.isfinite(number) and number >= 0,
                f"min_area must not be negative, got {number}",
            )
        for number in numbers_of(self.grow) if self.grow is not None else ():
            _require(0 < number < 1, f"grow must lie between 0 and 1, got {number}")
        for name in ("opening", "fill_holes"):
            number = getattr(self, name)
            _require(
                math.isfinite(number) and number >= 0, f"{name} must not be negative, got {number}"
            )
        _require(0 <= self.simplify <= 5, f"simplify must be in 0..5 pixels, got {self.simplify}")
        _require(
            self.road_elongation >= 1, f"road_elongation must be >= 1, got {self.road_elongation}"
        )
        _require(self.road_width > 0, f"road_width must be positive, got {self.road_width}")

    def least_area(self, kind: str) -> float:
        """Minimum mapping unit of a kind, in square metres (pixels without a CRS)."""
        if not isinstance(self.min_area, Mapping):
            return self.min_area
        return self.min_area.get(kind, VectorizeConfig().least_area(kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectConfig:
    """What counts as an object, and as found, when a change map is compared with the truth."""

    iou: float = 0.5
    """Least intersection over union of an object of the map and one of the truth that pair."""
    min_area: float = 20.0
    """Smallest object that counts, in square metres (pixels where their size is unknown)."""
    boundary: float = 2.0
    """How far an outline may lie off and still be right, in pixels of the map."""

    def __post_init__(self) -> None:
        _require(
            math.isfinite(self.boundary) and self.boundary >= 0,
            f"the tolerance of outlines must not be negative, got {self.boundary}",
        )
        _require(0 < self.iou <= 1, f"the least overlap must be in (0, 1], got {self.iou}")
        _require(
            math.isfinite(self.min_area) and self.min_area >= 0,
            f"min_area must not be negative, got {self.min_area}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateConfig:
    """What an operating point promises, and what counts as missed."""

    unit: MissUnit = "object"
    """What is missed: changed objects, changed pixels, or images of which nothing is found. The
    loss of an image is the share of them that is missed in it."""
    max_miss: float = 0.05
    """Largest mean share missed, 0..1."""
    confidence: float | None = 0.95
    """How sure the promise is over the draw of the calibration set, 0..1; None: it holds on
    average over such draws only."""
    cover: float = 0.5
    """Least share of an object that must be found, 0 < cover <= 1; below, it is missed."""
    min_area: float = 20.0
    """Smallest object that counts, in square metres (pixels where their size is unknown)."""
    site: str | None = None
    """Regular expression that finds the site in an image's name (its first group, or all of it);
    images of one site are one unit. None: every image is a unit of its own."""

    def __post_init__(self) -> None:
        units = get_args(MissUnit)
        _require(self.unit in units, f"unit must be one of {', '.join(units)}, got {self.unit!r}")
        for name in ("max_miss", "confidence"):
            value = getattr(self, name)
            _require(
                value is None or 0 < value < 1,
                f"{name} must lie between 0 and 1, got {value}",
            )
        _require(0 < self.cover <= 1, f"cover must be in (0, 1], got {self.cover}")
        _require(
            math.isfinite(self.min_area) and self.min_area >= 0,
            f"min_area must not be negative, got {self.min_area}",
        )
        try:
            re.compile(self.site or "")
        except re.error as error:
            raise ConfigError(f"site is no regular expression: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How a sample is drawn from a change map, for people to label."""

    per_stratum: PerClass = 50
    """Pixels drawn from each stratum, or by name: {"none": 100, "near": 75, "building": 50}."""
    buffer: float = 10.0
    """Unchanged ground this close to change is a stratum of its own, "near", because most of
    what a map misses lies there; metres (pixels without a CRS). 0: no such stratum."""
    seed: int = 0
    """The same seed draws the same pixels."""

    def __post_init__(self) -> None:
        for number in numbers_of(self.per_stratum):
            _require(
                float(number).is_integer() and number >= 2,
                f"a stratum needs two whole pixels or more, got {number:g}",
            )
        _require(
            math.isfinite(self.buffer) and self.buffer >= 0,
            f"buffer must not be negative, got {self.buffer}",
        )
        _require(self.seed >= 0, f"seed must not be negative, got {self.seed}")

    def wanted(self, stratum: str) -> int | None:
        """Pixels wanted of a stratum; None where nothing was said of it."""
        if isinstance(self.per_stratum, Mapping):
            number = self.per_stratum.get(stratum)
            return None if number is None else int(number)
        return int(self.per_stratum)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """How large a report may be."""

    max_mb: float = 20.0
    """Largest size of the page, in megabytes (millions of bytes)."""
    max_changes: int = 100_000
    """Changes on the map and in the list; of more, the largest."""
    max_thumbnails: int = 1000
    """Changes that get pictures sharper than the overview, where that is coarse."""
    overview_size: int = 4096
    """Longest side of the pictures of both dates, in pixels."""

    def __post_init__(self) -> None:
        _require(
            math.isfinite(self.max_mb) and self.max_mb > 0,
            f"max_mb must be positive megabytes, got {self.max_mb}",
        )
        _require(self.max_changes >= 1, f"max_changes must be at least 1, got {self.max_changes}")
        _require(
            self.max_thumbnails >= 0, f"max_thumbnails must be >= 0, got {self.max_thumbnails}"
        )
        _require(
            self.overview_size >= 256, f"overview_size must be >= 256, got {self.overview_size}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectConfig:
    """Everything that `geocd.detect` can be told beside its inputs and outputs."""

    weights: str = DEFAULT_WEIGHTS
    """Name of bundled weights, or the path of a weights file."""
    bands: tuple[int, ...] | None = None
    """Bands to read, counted from 1, in the order of the weights; None: the first ones."""
    threshold: PerClass | None = None
    """Least score of a change, 0..1, for every class or by class; None, and classes that are
    left out: the thresholds on the weights card."""
    operating_point: str | None = None
    """SHA-256 of the operating point that brought the threshold; None: none did."""
    gsd: float | None = None
    """Ground sample distance at which the pair is read, in metres; None: chosen by the card."""
    pixel_size: float | None = None
    """Metres that a pixel of images without a CRS covers; None: unknown, read as it is."""
    radiometry: RadiometryMode = "none"
    """linear: bring after's bands to before's light, fitted to unchanged ground. none: as it is."""
    unaligned: UnalignedMode = "keep"
    """mask: ground where tie points contradict the alignment counts as not observed."""
    shift_check: bool = True
    """Whether to tell of changes if they survive moving one date by one pixel."""
    shift_budget: float = 0.5
    """Most network work for that, as a share of that of the scoring; 4 checks every change."""
    align: AlignConfig = field(default_factory=AlignConfig)
    tiling: TilingConfig = field(default_factory=TilingConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    vectorize: VectorizeConfig = field(default_factory=VectorizeConfig)

    def with_batch(self, batch_size: int) -> DetectConfig:
        """The same with so many window pairs in a forward pass."""
        return replace(self, predict=replace(self.predict, batch_size=batch_size))

    def __post_init__(self) -> None:
        for number in numbers_of(self.threshold) if self.threshold is not None else ():
            _require(0 < number < 1, f"threshold must lie between 0 and 1, got {number}")
        _require(
            self.radiometry in ("none", "linear"),
            f"radiometry must be none or linear, got {self.radiometry!r}",
        )
        _require(
            self.unaligned in ("mask", "keep"),
            f"unaligned must be mask or keep, got {self.unaligned!r}",
        )
        _require(
            math.isfinite(self.shift_budget) and self.shift_budget >= 0,
            f"shift_budget must not be negative, got {self.shift_budget}",
        )
        for name in ("gsd", "pixel_size"):
            value = getattr(self, name)
            _require(
                value is None or (math.isfinite(value) and value > 0),
                f"{name} must be positive metres, got {value}",
            )
        if self.bands is not None:
            _require(
                len(self.bands) > 0 and min(self.bands) >= 1,
                f"bands are counted from 1, got {','.join(map(str, self.bands))}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectConfig:
    """How samples are held against a golden one, and when one is not judged at all."""

    threshold: PerClass | None = None
    """Least score of a defect, 0..1, for every class or by class; None: as on the weights card."""
    operating_point: str | None = None
    """SHA-256 of the operating point that brought the threshold; None: none did."""
    golden_rule: GoldenRule = "nearest"
    """Of several goldens. nearest: a sample is held against the one that it is most like. union:
    a defect must differ from every golden."""
    min_area: float = 3.0
    """Smallest defect that counts, in pixels; zones may say otherwise."""
    mm_per_pixel: float | None = None
    """Millimetres that a pixel of the golden covers; None: unknown, defects are in pixels only."""
    white: int = 65535
    """Value of 16-bit files that is white; 4095 for cameras of 12 bits."""
    border: float = 12.0
    """Width, in pixels, of the strip at the golden's edge that a sample may leave unseen."""
    max_shift: float = 20.0
    """Largest displacement of a sample, in pixels."""
    max_residual: float = 1.0
    """Largest median distance across edges, in pixels, of a sample that counts as aligned."""
    min_sharpness: float = 0.6
    """Least steepness of edges, as a share of the golden's."""
    contrasts: tuple[float, float] = (0.5, 2.0)
    """Least and largest contrast, as a share of the golden's."""
    max_brightness: float = 80.0
    """Largest difference of the brightness from the golden's, in grey levels of 255."""
    max_noise: float = 0.25
    """Largest standard deviation of the noise, as a share of that of the golden's grey values."""
    max_unlike: float = 0.15
    """Largest share of a sample that may plainly differ from the golden."""
    tiling: TilingConfig = field(default_factory=TilingConfig)
    predict: PredictConfig = field(default_factory=lambda: PredictConfig(first_look=False))

    def __post_init__(self) -> None:
        for number in numbers_of(self.threshold) if self.threshold is not None else ():
            _require(0 < number < 1, f"threshold must lie between 0 and 1, got {number}")
        rules = get_args(GoldenRule)
        _require(
            self.golden_rule in rules,
            f"golden_rule must be one of {', '.join(rules)}, got {self.golden_rule!r}",
        )
        for name in ("min_area", "border", "max_brightness", "max_noise", "max_unlike"):
            number = getattr(self, name)
            _require(
                math.isfinite(number) and number >= 0, f"{name} must not be negative, got {number}"
            )
        for name in ("max_shift", "max_residual"):
            number = getattr(self, name)
            _require(
                math.isfinite(number) and number > 0,
                f"{name} must be positive pixels, got {number}",
            )
        _require(
            self.mm_per_pixel is None
            or (math.isfinite(self.mm_per_pixel) and self.mm_per_pixel > 0),
            f"mm_per_pixel must be positive millimetres, got {self.mm_per_pixel}",
        )
        _require(1 <= self.white <= 65535, f"white must be in 1..65535, got {self.white}")
        _require(
            0 < self.min_sharpness <= 1,
            f"min_sharpness must be in (0, 1], got {self.min_sharpness}",
        )
        low, high = self.contrasts
        _require(0 < low <= 1 <= high, f"contrasts must enclose 1, got {low:g} to {high:g}")
        _require(
            not self.predict.first_look,
            "a first look at half the resolution may miss a defect; inspection runs without it",
        )
