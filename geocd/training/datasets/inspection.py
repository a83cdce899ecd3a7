"""Looking through a set of samples: every file is decoded once."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from geocd.errors import DamagedSampleError, DatasetError
from geocd.rasters.grid import reproject_geometry
from geocd.training.datasets.access import strips
from geocd.training.datasets.coding import LabelCoding
from geocd.training.datasets.files import (
    check_sizes,
    read_header,
    read_label_values,
    read_observed,
)
from geocd.training.datasets.layouts import LabelledPair, image_files
from geocd.training.datasets.manifest import GeoreferencedPair, load_pairs
from geocd.training.datasets.report import (
    ClassPixels,
    DatasetReport,
    SameContent,
    SplitReport,
)
from geocd.training.datasets.scenes import SceneAccess
from geocd.training.tiles import IGNORE, content_hash


@dataclass(frozen=True, slots=True)
class _Tile:
    """A single-date tile; label None: it has none."""

    name: str
    image: Path
    label: Path | None
    split: str | None = None


@dataclass(slots=True)
class _Facts:
    """What was seen of one sample, up to the first thing that is wrong with it."""

    sizes: list[str] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)
    hashes: list[tuple[str, str]] = field(default_factory=list)
    """(hash, file) of the images that show more than one colour."""
    values: Counter[int] = field(default_factory=Counter)
    pixels: NDArray[np.int64] | None = None
    """Label pixels by class and by none, change and ignored, shape (classes, 3)."""
    lossy: bool = False
    footprint: tuple[Any, BaseGeometry] | None = None
    """CRS and outline of a georeferenced pair."""
    damaged: str | None = None
    mismatched: str | None = None


_Sample = LabelledPair | _Tile


def inspect_pairs(
    source: Path,
    *,
    coding: LabelCoding | None = None,
    against: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> DatasetReport:
    """Look through a set of labelled pairs, or of single-date tiles.

    Images are compared by a hash of their decoded pixels: a leak is an image, of either date,
    that is in two splits or in another set. Images of one colour are not compared.

    Args:
        source: folder in a layout that ``find_pairs`` knows, manifest, or folder with ``images/``
            and, if it is labelled, ``labels/``.
        coding: what the values of the labels mean; None: any value but 0 is one class.
        against: other sets that must not share an image with this one.
        progress: called with samples done and samples in all.

    Raises:
        DatasetError: no set can be made out, or a date or label is missing.
    """
    samples = _samples(source)
    kind = "tiles" if isinstance(samples[0], _Tile) else "pairs"
    coding = coding or LabelCoding(classes=("change" if kind == "pairs" else "labelled",))
    others = [(str(folder), sample) for folder in against for sample in _samples(folder)]
    total = len(samples) + len(others)
    seen: list[_Facts] = []
    places: list[tuple[str, _Facts]] = []
    for sample in samples:
        seen.append(_examine(sample, coding))
        places.append((sample.split or str(source), seen[-1]))
        if progress:
            progress(len(seen), total)
    for done, (folder, sample) in enumerate(others, len(seen) + 1):
        places.append((folder, _examine(sample, None)))
        if progress:
            progress(done, total)
    leaks, duplicates = _compare(places, own=len(seen))
    return DatasetReport(
        source=str(source),
        kind=kind,
        splits=tuple(_summarise(samples, seen, coding)),
        duplicates=duplicates,
        leaks=leaks,
        overlaps=tuple(_overlaps(samples, seen)),
        unread=tuple(facts.damaged or facts.mismatched or "" for _, facts in places[len(seen):]
                     if facts.damaged or facts.mismatched),
    )  # fmt: skip


def _samples(source: Path) -> Sequence[_Sample]:
    if not source.exists():
        raise DatasetError(f"there is no {source}")
    if not (source / "images").is_dir():
        return load_pairs(source)
    labels = source / "labels"
    by_stem = {path.stem: path for path in image_files(labels)} if labels.is_dir() else {}
    tiles = [_Tile(p.stem, p, by_stem.get(p.stem)) for p in image_files(source / "images")]
    if not tiles:
        raise DatasetError(f"no images in {source / 'images'}")
    return tiles


def _examine(sample: _Sample, coding: LabelCoding | None) -> _Facts:
    """Facts of a sample; without a coding only its images are looked at."""
    facts = _Facts()
    try:
        if isinstance(sample, GeoreferencedPair):
            _examine_scenes(sample, coding or LabelCoding(), facts)
            return facts
        pair = isinstance(sample, LabelledPair)
        images = [sample.before, sample.after] if pair else [sample.image]  # type: ignore[union-attr]
        valid = [_examine_image(path, facts) for path in images]
        if coding is not None and sample.label is not None:
            values, facts.lossy = read_label_values(sample.label)
            _count_values(values, facts)
            files = LabelledPair(sample.name, images[0], images[-1], sample.label)
            check_sizes(files, [valid[0].shape, valid[-1].shape, values.shape])
            planes = coding.planes(values, name=str(sample.label), lossy=facts.lossy)
            planes[:, ~(valid[0] & valid[-1])] = IGNORE
            _count_classes(planes, facts)
    except DamagedSampleError as error:
        facts.damaged = str(error)
    except DatasetError as error:
        facts.mismatched = str(error)
    return facts


def _examine_image(path: Path, facts: _Facts) -> NDArray[np.bool_]:
    """Note an image's facts; returns where it shows anything."""
    header = read_header(path)
    facts.sizes.append(str(header))
    facts.bands.append(f"{header.bands} x {header.dtype}")
    image, valid = read_observed(path)
    if (image != image[0, 0]).any():
        facts.hashes.append((content_hash(image), str(path)))
    return valid


def _examine_scenes(pair: GeoreferencedPair, coding: LabelCoding, facts: _Facts) -> None:
    scene = SceneAccess(pair, coding)
    try:
        facts.footprint = scene.grid.crs, scene.grid.footprint
        facts.sizes.append(f"{scene.shape[0]} x {scene.shape[1]}")
        facts.bands += [
            f"{len(s.bands)} x {s.dtype}" for s in (scene.scenes.before, scene.scenes.after)
        ]
        hashes: tuple[list[str], list[str]] = ([], [])
        for rows, cols in strips(scene.shape):
            before, after, change = scene.read(rows, cols)
            for image, parts in zip((before, after), hashes, strict=True):
                if (image != image[0, 0]).any():
                    parts.append(content_hash(image))
            _count_values(scene.read_values(rows, cols)[0], facts)
            _count_classes(change, facts)
    finally:
        scene.close()
    for path, parts in zip((pair.before, pair.after), hashes, strict=True):
        if parts:
            digest = (
                parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()
            )
            facts.hashes.append((digest, str(path)))


def _count_values(values: NDArray[Any], facts: _Facts) -> None:
    found, counts = np.unique(values, return_counts=True)
    facts.values.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _count_classes(planes: NDArray[np.uint8], facts: _Facts) -> None:
    change, none = (planes == 1).sum(axis=(1, 2)), (planes == 0).sum(axis=(1, 2))
    ignored = planes[0].size - change - none
    counts = np.stack([none, change, ignored], axis=1).astype(np.int64)
    facts.pixels = counts if facts.pixels is None else facts.pixels + counts


def _summarise(
    samples: Sequence[_Sample], seen: Sequence[_Facts], coding: LabelCoding
) -> Iterator[SplitReport]:
    for split in dict.fromkeys(sample.split for sample in samples):
        part = [(s, f) for s, f in zip(samples, seen, strict=True) if s.split == split]
        pixels = np.zeros((len(coding.classes), 3), np.int64)
        values: Counter[int] = Counter()
        for _, facts in part:
            values.update(facts.values)
            if facts.pixels is not None:
                pixels += facts.pixels
        yield SplitReport(
            split=split,
            samples=len(part),
            sizes=dict(Counter(size for _, facts in part for size in facts.sizes)),
            bands=dict(Counter(bands for _, facts in part for bands in facts.bands)),
            label_values=dict(sorted(values.items())),
            classes={name: ClassPixels(*counts) for name, counts
                     in zip(coding.classes, pixels.tolist(), strict=True)},
            unlabelled=sum(sample.label is None for sample, _ in part),
            lossy=sum(facts.lossy for _, facts in part),
            without_change=tuple(sample.name for sample, facts in part
                                 if facts.pixels is not None and not facts.pixels[:, 1].any()),
            damaged=tuple(facts.damaged for _, facts in part if facts.damaged),
            mismatched=tuple(facts.mismatched for _, facts in part if facts.mismatched),
        )  # fmt: skip


def _compare(
    places: Sequence[tuple[str, _Facts]], *, own: int
) -> tuple[tuple[SameContent, ...], tuple[SameContent, ...]]:
    """(leaks, duplicates) that the first ``own`` samples have a part in."""
    files: dict[str, dict[str, str]] = defaultdict(dict)
    ours: set[str] = set()
    for number, (place, facts) in enumerate(places):
        for digest, file in facts.hashes:
            # One file named twice, by two lists, is a leak of the one image.
            files[digest].setdefault(f"{place}\0{file}", file)
            if number < own:
                ours.add(digest)
    leaks: list[SameContent] = []
    duplicates: list[SameContent] = []
    for digest in (d for d in files if d in ours and len(files[d]) > 1):
        where = tuple(dict.fromkeys(key.split("\0")[0] for key in files[digest]))
        same = SameContent(tuple(files[digest].values()), where)
        (leaks if len(where) > 1 else duplicates).append(same)
    return tuple(leaks), tuple(duplicates)


def _overlaps(samples: Sequence[_Sample], seen: Sequence[_Facts]) -> Iterator[SameContent]:
    """Georeferenced pairs of different splits that share ground."""
    placed = [(s, *f.footprint) for s, f in zip(samples, seen, strict=True)
              if f.footprint is not None and f.footprint[0] is not None]  # fmt: skip
    for (a, crs_a, outline_a), (b, crs_b, outline_b) in combinations(placed, 2):
        if a.split == b.split:
            continue
        moved = reproject_geometry(outline_b, crs_b, crs_a)
        shared = shapely.intersection(outline_a, moved).area
        # Neighbours that share an edge, up to rounding, share no ground.
        if shared > 1e-6 * min(outline_a.area, moved.area):
            yield SameContent((a.name, b.name), (a.split or "no split", b.split or "no split"))
