"""What a run leaves in its folder: a line and pictures of every sample, and what made them.

out/
  inspection.json      goldens, weights, thresholds, zones and settings, with hashes
  verdicts.jsonl       one line a sample, complete as soon as it is there
  pictures/            golden.jpg, NUMBER.jpg of a sample, NUMBER_K.jpg of its K-th defect
  index.html           the contact sheet
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import geocd
from geocd.errors import ConfigError, OutputError, OutputExistsError
from geocd.inspect.inspector import Inspector
from geocd.inspect.verdict import CANNOT_JUDGE, Defect, Verdict
from geocd.outputs import replacing

SETTINGS, VERDICTS, PICTURES, PAGE = "inspection.json", "verdicts.jsonl", "pictures", "index.html"
GOLDEN = "golden"
_COUNTS = (213, 94, 0)
_TOO_SMALL = (86, 180, 233)
"""Vermilion and sky blue: different hue and brightness for every common colour vision (Okabe and
Ito, 2008)."""
_SIDE = 360
"""Longest side of the picture of a sample, in pixels."""
_CLOSE = 120
"""Side of the picture of a defect, in pixels."""
_LEAST_VIEW = 40
"""Least side of what the picture of a defect shows, in pixels of the golden."""
_MOST_PICTURES = 12
"""Defects of a sample that get a picture; the largest."""
_QUALITY = 85

Picture = NDArray[np.uint8]


class RunFolder:
    """The folder of a run, opened to add to it.

    Args:
        path: created if need be.
        inspector: what judges.
        goldens: names of the goldens.
        resume: go on with what the folder holds, if the same goldens, weights and settings made it.
        overwrite: forget what the folder holds.

    Raises:
        OutputExistsError: the folder holds a run, and neither was asked for.
        ConfigError: it was made otherwise, so its verdicts cannot be continued.
        OutputError: it cannot be written.
    """

    def __init__(
        self, path: Path, inspector: Inspector, goldens: list[str], *, resume: bool,
        overwrite: bool,
    ) -> None:  # fmt: skip
        self.path, self._inspector = path, inspector
        self.settings = describe(inspector, goldens)
        try:
            (path / PICTURES).mkdir(parents=True, exist_ok=True)
            self._open(resume, overwrite)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write to {path}: {error.strerror or error}") from None

    def _open(self, resume: bool, overwrite: bool) -> None:
        old = self.path / VERDICTS
        if old.exists() and not overwrite:
            if not resume:
                raise OutputExistsError(
                    f"{self.path} holds verdicts already; overwriting must be asked for "
                    "(--overwrite), or watch the folder to go on with it (--watch)"
                )
            self._check_same()
            self.entries = list(read_lines(old))
        else:
            self.entries = []
            for picture in (self.path / PICTURES).glob("*.jpg"):
                picture.unlink()
        with replacing(self.path / SETTINGS) as draft:
            draft.write_text(json.dumps(self.settings, indent=1))
        # What a killed run left half-written is gone with this.
        with replacing(old) as draft:
            draft.write_text("".join(json.dumps(entry) + "\n" for entry in self.entries))
        self._lines = old.open("a")
        save_picture(_shown(self._inspector.goldens.planes[0]), self._picture(GOLDEN))

    def _check_same(self) -> None:
        try:
            before = json.loads((self.path / SETTINGS).read_text())
        except (OSError, ValueError):
            before = {}
        different = [key for key in self.settings if before.get(key) != self.settings[key]]
        if different:
            raise ConfigError(
                f"the verdicts in {self.path} were given with other {', '.join(different)}; write "
                "elsewhere, or start anew with --overwrite"
            )

    def _picture(self, name: str) -> Path:
        return self.path / PICTURES / f"{name}.jpg"

    def add(self, verdict: Verdict, file: Path, **facts: Any) -> dict[str, Any]:
        """Keep a verdict with its pictures; returns its line, which is on the disk.

        Args:
            verdict: of a sample.
            file: of the sample.
            facts: more entries of the line.
        """
        number = len(self.entries) + 1
        entry = {"number": number, **verdict.to_dict(), "file": str(file), **facts}
        save_picture(_sample_picture(verdict, file), self._picture(str(number)))
        golden = self._inspector.goldens.planes[verdict.golden or 0]
        for index, defect in enumerate(verdict.defects[:_MOST_PICTURES], 1):
            close = _defect_picture(verdict, defect, golden)
            save_picture(close, self._picture(f"{number}_{index}"))
            entry["defects"][index - 1]["picture"] = f"{PICTURES}/{number}_{index}.jpg"
        entry["picture"] = f"{PICTURES}/{number}.jpg"
        self._lines.write(json.dumps(entry) + "\n")
        self._lines.flush()
        self.entries.append(entry)
        return entry

    def close(self) -> None:
        """Close the file of lines."""
        self._lines.close()


def describe(inspector: Inspector, goldens: list[str]) -> dict[str, Any]:
    """Everything that decides verdicts, JSON-ready."""
    settings = asdict(inspector.config)
    digest = hashlib.sha256()
    for planes in inspector.goldens.planes:
        digest.update(planes.tobytes())
    zones = [
        {"name": z.name, "exclude": z.exclude, "threshold": z.threshold,
         "min_area_px": z.min_area_px, "max_defects": z.max_defects,
         "outline": z.outline.wkt}
        for z in inspector.all_zones
    ]  # fmt: skip
    described = {
        "geocd": geocd.__version__,
        "goldens": {"files": goldens, "sha256": digest.hexdigest()},
        "weights": {"name": inspector.card.name, "sha256": inspector.card.tensors_sha256},
        "thresholds": dict(zip(inspector.classes, inspector.thresholds, strict=True)),
        "zones": zones,
        "settings": settings,
    }
    parsed: dict[str, Any] = json.loads(json.dumps(described))
    return parsed


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a file of verdicts; a last line that was cut off by a crash is left out."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def save_picture(picture: Picture, path: Path) -> None:
    """Write a picture, (height, width, 3), as JPEG.

    Nothing names it before it is whole: its line is written after it.
    """
    Image.fromarray(picture).save(path, "JPEG", quality=_QUALITY)


def _shown(planes: NDArray[np.uint8]) -> Picture:
    """Planes (1 or 3, height, width) as a picture of bounded size."""
    picture = np.moveaxis(np.broadcast_to(planes, (3, *planes.shape[1:])), 0, -1)
    shrink = max(1.0, max(picture.shape[:2]) / _SIDE)
    size = tuple(max(1, round(side / shrink)) for side in picture.shape[1::-1])
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _sample_picture(verdict: Verdict, file: Path) -> Picture:
    """The sample on the golden's grid with boxes; as it is, if it was not aligned."""
    if verdict.aligned is None:
        return _unaligned_picture(file)
    picture = _shown(verdict.aligned)
    scale = picture.shape[1] / verdict.aligned.shape[2]
    for defect in verdict.defects:
        left, top, right, bottom = (round(v * scale) for v in defect.box)
        colour = _COUNTS if defect.counts else _TOO_SMALL
        cv2.rectangle(picture, (left - 3, top - 3), (right + 2, bottom + 2), colour, 2)
    return picture


def _unaligned_picture(file: Path) -> Picture:
    """As much of a file as can be shown; a grey square of one that cannot."""
    try:
        with Image.open(file) as image:
            image.thumbnail((_SIDE, _SIDE))
            return np.asarray(image.convert("RGB"), np.uint8)
    except Exception:  # anything may be wrong with such a file, and its verdict is told already
        return np.full((_SIDE // 2, _SIDE // 2, 3), 128, np.uint8)


def _defect_picture(verdict: Verdict, defect: Defect, golden: NDArray[np.uint8]) -> Picture:
    """The golden and the sample side by side about a defect, the sample with its outline."""
    assert verdict.aligned is not None
    left, top, right, bottom = defect.box
    height, width = verdict.aligned.shape[1:]
    side = min(max(right - left, bottom - top) + 16, max(height, width))
    side = max(side, _LEAST_VIEW)
    x0 = int(np.clip((left + right - side) // 2, 0, max(0, width - side)))
    y0 = int(np.clip((top + bottom - side) // 2, 0, max(0, height - side)))
    views = []
    for planes in (golden, verdict.aligned):
        part = planes[:, y0 : y0 + side, x0 : x0 + side]
        picture = np.moveaxis(np.broadcast_to(part, (3, *part.shape[1:])), 0, -1)
        views.append(np.ascontiguousarray(
            cv2.resize(picture, (_CLOSE, _CLOSE), interpolation=cv2.INTER_LINEAR), np.uint8
        ))  # fmt: skip
    scale = _CLOSE / np.array([min(side, width), min(side, height)])
    corners = ((np.array(defect.outline) - (x0, y0)) * scale).round().astype(np.int32)
    colour = _COUNTS if defect.counts else _TOO_SMALL
    cv2.polylines(views[1], [corners], True, colour, 1, cv2.LINE_AA)
    gap = np.full((_CLOSE, 4, 3), 128, np.uint8)
    return np.concatenate([views[0], gap, views[1]], axis=1)


def worst(entries: list[dict[str, Any]]) -> str:
    """The word of a whole run: 'cannot judge' before 'reject' before 'pass'.

    A run without samples judged nothing.
    """
    words = {entry["verdict"] for entry in entries}
    if not words or CANNOT_JUDGE in words:
        return CANNOT_JUDGE
    return "reject" if "reject" in words else "pass"
