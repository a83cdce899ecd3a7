"""What is in a set of samples, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN = 8
"""Entries of a list that the text shows."""
_FEW_VALUES = 8
"""Label values up to which a label is taken for a label and not for a blurred picture."""


@dataclass(frozen=True, slots=True)
class ClassPixels:
    """Pixels of the labels of a split by what they say about a class."""

    none: int = 0
    change: int = 0
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class SplitReport:
    """One split of a set.

    Attributes:
        split: its name; None: the set has no splits.
        samples: pairs or tiles, sound or not.
        sizes: images by "height x width".
        bands: images by "bands x type".
        label_values: label pixels by value, as they are in the files.
        classes: label pixels by class.
        unlabelled: tiles without a label file.
        lossy: label files whose values are blurred by compression.
        without_change: samples whose labels are sound and show no change, by name.
        damaged: files that cannot be read, as messages.
        mismatched: samples whose files do not fit each other or the coding, as messages.
    """

    split: str | None
    samples: int
    sizes: Mapping[str, int]
    bands: Mapping[str, int]
    label_values: Mapping[int, int]
    classes: Mapping[str, ClassPixels]
    unlabelled: int
    lossy: int
    without_change: tuple[str, ...]
    damaged: tuple[str, ...]
    mismatched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SameContent:
    """Files that show the same pixels, or the same ground.

    Attributes:
        files: two or more.
        places: the splits and other sets that they belong to.
    """

    files: tuple[str, ...]
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """A set of labelled pairs or of single-date tiles.

    Attributes:
        source: folder or manifest.
        kind: "pairs" or "tiles".
        splits: one report for each.
        duplicates: images of equal content within a split.
        leaks: images of equal content in several splits or in another set.
        overlaps: georeferenced pairs of several splits that show the same ground.
        unread: images of the other sets that could not be compared, as messages.
    """

    source: str
    kind: str
    splits: tuple[SplitReport, ...]
    duplicates: tuple[SameContent, ...]
    leaks: tuple[SameContent, ...]
    overlaps: tuple[SameContent, ...]
    unread: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if nothing is damaged, everything fits together and no split leaks."""
        wrong = [*self.leaks, *self.overlaps, *self.unread]
        return not wrong and not any(s.damaged or s.mismatched for s in self.splits)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"ok": self.ok, **dataclasses.asdict(self)}

    def text(self) -> str:
        """The report for people."""
        lines = [f"{self.source}: {_number(sum(s.samples for s in self.splits), self.kind)}"]
        for split in self.splits:
            lines += ["", f"{split.split or 'no split'}: {_number(split.samples, self.kind)}"]
            lines += [f"  {title:<14} {text}" for title, text in _rows(split, self.kind)]
        lines += ["", *_same("Duplicates", self.duplicates, "within a split")]
        lines += _same("Leaks", self.leaks, "across splits or sets")
        if self.overlaps:
            lines += _same("Overlaps", self.overlaps, "of ground across splits")
        if self.unread:
            lines += [f"Not compared: {_some(self.unread, '; ')}"]
        return "\n".join(lines)


def _rows(split: SplitReport, kind: str) -> list[tuple[str, str]]:
    rows = [("sizes", _counts(split.sizes)), ("bands", _counts(split.bands))]
    if split.label_values:
        rows.append(("label values", _values(split)))
    for name, pixels in split.classes.items():
        total = pixels.none + pixels.change + pixels.ignored
        if total > pixels.ignored:
            there = "change" if kind == "pairs" else "present"
            counts = (("none", pixels.none), (there, pixels.change), ("ignored", pixels.ignored))
            shares = (f"{word} {100 * count / total:.2f} %" for word, count in counts)
            rows.append((name, ", ".join(shares)))
    if split.unlabelled:
        rows.append(("unlabelled", _number(split.unlabelled, kind)))
    if split.without_change:
        count = _number(len(split.without_change), kind)
        rows.append(("nothing there", f"{count}: {_some(split.without_change)}"))
    for title, messages in (("DAMAGED", split.damaged), ("MISMATCHED", split.mismatched)):
        rows += [(title, message) for message in messages[:_SHOWN]]
        if len(messages) > _SHOWN:
            rows.append((title, f"and {len(messages) - _SHOWN} more"))
    return rows


def _number(count: int, kind: str) -> str:
    return f"{count} {kind.removesuffix('s') if count == 1 else kind}"


def _counts(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return _some([f"{name} ({count})" for name, count in ordered]) or "none"


def _values(split: SplitReport) -> str:
    total = sum(split.label_values.values())
    shares = [f"{value} ({100 * count / total:.2f} %)"
              for value, count in sorted(split.label_values.items())]  # fmt: skip
    text = _some(shares)
    if split.lossy:
        return f"{text}; {_number(split.lossy, 'lossy files')}, cut at 128"
    if len(shares) > _FEW_VALUES:
        return f"{text}; so many values look like labels blurred by compression or resampling"
    return text


def _some(names: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return separator.join(names[:_SHOWN]) + more


def _same(title: str, groups: Sequence[SameContent], where: str) -> list[str]:
    if not groups:
        return [f"{title} {where}: none"]
    lines = [f"{title} {where}: {len(groups)}"]
    for group in groups[:_SHOWN]:
        places = f" ({', '.join(group.places)})" if len(group.places) > 1 else ""
        lines.append(f"  {' = '.join(group.files)}{places}")
    if len(groups) > _SHOWN:
        lines.append(f"  and {len(groups) - _SHOWN} more")
    return lines
