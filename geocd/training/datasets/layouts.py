"""Which files of a folder belong together: the layouts of published sets of pairs.

FOLDER/A B label                      flat (LEVIR-CD, WHU-CD); T1 T2 mask, time1 time2 label ...
FOLDER/A B label + list/train.txt     flat with lists of file names (list/ or beside A/)
FOLDER/train/A B OUT                  a folder for each split (CDD, SYSU-CD)
FOLDER/train.txt: A/1.png B/1.png label/1.png     lists of triples (open-cd)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geocd.errors import DatasetError

SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"}
"""File names that end like this are images."""
SPLITS = ("train", "val", "test")
"""Names of split folders and, with ``.txt``, of split lists."""

_DATES = (("A", "B"), ("time1", "time2"), ("T1", "T2"), ("Image1", "Image2"), ("before", "after"))
_LABELS = ("label", "labels", "OUT", "gt", "mask")
_KNOWN = (
    f"A/, B/ and label/ (or {'/, '.join(_LABELS[1:])}/; dates may be called "
    f"{', '.join(f'{first}/ and {second}/' for first, second in _DATES[1:])}), directly or below "
    "train/, val/ and test/, with or without lists list/train.txt or train.txt"
)
_NAMED = 5
"""Missing files that a message names."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two images and the change between them, as files.

    Attributes:
        name: unique in its set: the file's stem, after its split where there are splits.
        before, after: images of the two dates.
        label: where change is.
        split: train, val, test, or whatever the set calls it; None: the set has no splits.
    """

    name: str
    before: Path
    after: Path
    label: Path
    split: str | None = None


@dataclass(frozen=True, slots=True)
class _Folders:
    """The three folders of a set or of one of its splits."""

    before: Path
    after: Path
    label: Path


def image_files(folder: Path) -> list[Path]:
    """The images of a folder by name, without hidden files."""
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def find_pairs(folder: Path, *, split: str | None = None) -> list[LabelledPair]:
    """The pairs of a folder in one of the known layouts, by split and name.

    Files belong together if their names are equal up to the extension.

    Args:
        folder: root of the set.
        split: only this split; None: all of them.

    Raises:
        DatasetError: the layout is not known, a split is missing or empty, or a pair lacks a date
            or its label.
    """
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}")
    groups = _groups(folder)
    if split is not None and split not in groups:
        known = ", ".join(str(name) for name in groups if name) or "none"
        raise DatasetError(f"{folder} has no split {split!r}; it has: {known}")
    wanted = list(groups) if split is None else [split]
    return [pair for name in wanted for pair in _pairs_of(folder, name, groups[name])]


def _groups(folder: Path) -> dict[str | None, Path | _Folders]:
    """Split lists and split folders by the split's name, or the folder itself under None."""
    groups: dict[str | None, Path | _Folders] = {}
    for split in SPLITS:
        lists = [folder / "list" / f"{split}.txt", folder / f"{split}.txt"]
        found = next((path for path in lists if path.is_file()), None)
        source = found or _folders_in(_children(folder).get(split))
        if source is not None:
            groups[split] = source
    if not groups:
        flat = _folders_in(folder)
        if flat is None:
            raise DatasetError(_unknown_layout(folder))
        groups[None] = flat
    return groups


def _children(folder: Path) -> dict[str, Path]:
    return {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}


def _folders_in(folder: Path | None) -> _Folders | None:
    """The folders of dates and labels in a folder; None without both dates."""
    if folder is None:
        return None
    children = _children(folder)
    for first, second in _DATES:
        before, after = children.get(first.lower()), children.get(second.lower())
        if before is None and after is None:
            continue
        label = next((children[n.lower()] for n in _LABELS if n.lower() in children), None)
        if before is None or after is None or label is None:
            missing = f"{second}/" if before else f"{first}/"
            if before and after:
                missing = f"labels ({'/, '.join(_LABELS)}/)"
            raise DatasetError(f"{folder} has no folder {missing}; {_found(folder)}")
        return _Folders(before, after, label)
    return None


def _found(folder: Path) -> str:
    names = [p.name + "/" * p.is_dir() for p in sorted(folder.iterdir())]
    if not names:
        return "it is empty"
    return f"found are {', '.join(names[:12])}" + (" ..." if len(names) > 12 else "")


def _unknown_layout(folder: Path) -> str:
    folders = [*sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))]
    marks = ({"a", "b"}, {"train", "test"})
    deeper = [p for p in folders if any(mark <= _children(p).keys() for mark in marks)]
    hint = f"; try {deeper[0]}" if deeper else ""
    return f"{folder} is no set of pairs: wanted are {_KNOWN}; {_found(folder)}{hint}"


def _pairs_of(root: Path, split: str | None, source: Path | _Folders) -> list[LabelledPair]:
    if isinstance(source, Path):
        pairs = list(_listed(root, str(split), source))
    else:
        pairs = _matched(source, split)
    if not pairs:
        where = source if isinstance(source, Path) else source.before
        what = f"split {split!r} of {root}" if split else str(root)
        raise DatasetError(f"{what} is empty: no images in {where}")
    return pairs


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in image_files(folder):
        if path.stem in files:
            raise DatasetError(f"{path} and {files[path.stem].name} have one name; remove one")
        files[path.stem] = path
    return files


def _matched(folders: _Folders, split: str | None) -> list[LabelledPair]:
    """All pairs of three folders; every file must have its two partners."""
    where = (folders.before, folders.after, folders.label)
    files = [_by_stem(folder) for folder in where]
    stems = sorted(set().union(*files))
    missing = []
    for stem in stems:
        there = next(f[stem] for f in files if stem in f)
        missing += [f"{there} has no partner in {folder}"
                    for folder, f in zip(where, files, strict=True) if stem not in f]  # fmt: skip
    _refuse(missing)
    return [_pair(stem, split, [f[stem] for f in files]) for stem in stems]


def _refuse(missing: list[str]) -> None:
    if missing:
        more = f"; and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise DatasetError("; ".join(missing[:_NAMED]) + more)


def _pair(stem: str, split: str | None, files: list[Path]) -> LabelledPair:
    before, after, label = files
    return LabelledPair(f"{split}/{stem}" if split else stem, before, after, label, split)


def _listed(root: Path, split: str, listing: Path) -> Iterator[LabelledPair]:
    """The pairs that a list names: a file name a line, or before, after and label."""
    lines = [line.strip() for line in listing.read_text(encoding="utf-8-sig").splitlines()]
    rows = [(number, line) for number, line in enumerate(lines, 1) if line]
    if any(len(_as_paths(line)) == 3 for _, line in rows):
        yield from _triples(root, split, listing, rows)
        return
    folders = _folders_in(_children(root).get(split)) or _folders_in(root)
    if folders is None:
        raise DatasetError(f"{listing} lists file names, but {root} is none of: {_KNOWN}")
    files = [_by_stem(folder) for folder in (folders.before, folders.after, folders.label)]
    where = (folders.before, folders.after, folders.label)
    stems = [(number, _stem(PurePosixPath(line).name)) for number, line in rows]
    _refuse(
        [f"{listing}, line {number}: no {stem} in {folder}"
         for number, stem in stems
         for folder, f in zip(where, files, strict=True) if stem not in f]
    )  # fmt: skip
    for _, stem in stems:
        yield _pair(stem, split, [f[stem] for f in files])


def _stem(name: str) -> str:
    # Names without an extension may hold dots.
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in SUFFIXES else name


def _as_paths(line: str) -> list[str]:
    """The columns of a line, if each of them names an image."""
    columns = re.split(r"[\s,]+", line)
    return columns if all(PurePosixPath(c).suffix.lower() in SUFFIXES for c in columns) else []


def _triples(
    root: Path, split: str, listing: Path, rows: list[tuple[int, str]]
) -> Iterator[LabelledPair]:
    dates = {name.lower() for pair in _DATES for name in pair}
    for number, line in rows:
        columns = _as_paths(line)
        if len(columns) != 3:
            raise DatasetError(
                f"{listing}, line {number}: wanted are before, after and label, found {line!r}"
            )
        _refuse(
            [f"{listing}, line {number}: there is no {root / column}"
             for column in columns if not (root / column).is_file()]
        )  # fmt: skip
        path = PurePosixPath(columns[0]).with_suffix("")
        name = "/".join(p for p in path.parts if p.lower() not in dates and p != split)
        yield _pair(name, split, [root / column for column in columns])
