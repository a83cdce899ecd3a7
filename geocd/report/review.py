"""Verdicts of a person on changes: back into the GeoPackage, and what they say of the run."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geocd.errors import ConfigError, InputError, OutputError
from geocd.maps import LAYER, check_output
from geocd.outputs import replacing
from geocd.report.layer import VERDICTS, ChangeLayer, read_changes
from geocd.words import counted

_Z95 = 1.959964
"""Standard normal quantile of 97.5 %: a two-sided interval of 95 %."""
_SPATIAL_FUNCTIONS = {"ST_IsEmpty": 1, "ST_MinX": 1, "ST_MaxX": 1, "ST_MinY": 1, "ST_MaxY": 1}
"""What the triggers of a spatial index call when a geometry changes, with the argument counts."""
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class KindPrecision:
    """How many of the changes that a person judged are real."""

    accepted: int
    rejected: int
    unsure: int

    @property
    def precision(self) -> float:
        """Accepted of accepted and rejected; NaN if there are none."""
        judged = self.accepted + self.rejected
        return self.accepted / judged if judged else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson interval of the precision at 95 %; NaN if nothing was judged."""
        return wilson_interval(self.accepted, self.accepted + self.rejected)

    def to_dict(self) -> dict[str, Any]:
        """Counts, precision and interval, JSON-ready (undefined ones are None)."""
        judged = self.accepted + self.rejected > 0
        return {
            "accepted": self.accepted,
            "rejected": self.rejected,
            "unsure": self.unsure,
            "precision": self.precision if judged else None,
            "interval": list(self.interval) if judged else None,
        }


@dataclass(frozen=True, slots=True)
class ReviewResult:
    """What was written back, and the precision over all verdicts that the file holds now."""

    output: Path
    applied: int
    """Verdicts that found their change."""
    unknown: tuple[str, ...]
    """Ids of verdicts whose change is not in the file."""
    changes: int
    """Changes in the file."""
    total: KindPrecision
    kinds: dict[str, KindPrecision]

    def report(self) -> str:
        """The result, for people."""
        reviewed = self.total.accepted + self.total.rejected + self.total.unsure
        lines = [f"{counted(self.applied, 'verdict')} -> {self.output} (column verdict)"]
        if self.unknown:
            named = ", ".join(self.unknown[:_MOST_NAMED])
            more = f" and {len(self.unknown) - _MOST_NAMED} more"
            lines.append(
                f"{counted(len(self.unknown), 'verdict')} on changes that are not in the file: "
                f"{named}{more if len(self.unknown) > _MOST_NAMED else ''}"
            )
        lines.append(f"{reviewed} of {counted(self.changes, 'change')} reviewed")
        head = f"{'':<12} {'accepted':>8} {'rejected':>8} {'unsure':>8}  precision (95 %, Wilson)"
        rows = [_line("all", self.total), *(_line(k, p) for k, p in sorted(self.kinds.items()))]
        return "\n".join([*lines, head, *rows])

    def to_dict(self) -> dict[str, Any]:
        """The result, JSON-ready."""
        return {
            "output": str(self.output),
            "applied": self.applied,
            "unknown": list(self.unknown),
            "changes": self.changes,
            "all": self.total.to_dict(),
            "kinds": {kind: p.to_dict() for kind, p in self.kinds.items()},
        }


def _line(name: str, p: KindPrecision) -> str:
    low, high = p.interval
    figure = "-" if math.isnan(low) else f"{p.precision:.1%} ({low:.1%} to {high:.1%})"
    return f"{name:<12} {p.accepted:>8} {p.rejected:>8} {p.unsure:>8}  {figure}"


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Interval of a share at 95 %; honest for few trials and for shares near 0 and 1.

    Args:
        hits: 0..trials.
        trials: if 0, the interval is NaN.

    Returns:
        (low, high), each 0..1.

    Source:
        Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    if trials == 0:
        return math.nan, math.nan
    share, z2 = hits / trials, _Z95**2
    centre = share + z2 / (2 * trials)
    half = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    scale = 1 + z2 / trials
    # Exact at the ends, where rounding would leave the share outside.
    low = 0.0 if hits == 0 else (centre - half) / scale
    return low, 1.0 if hits == trials else (centre + half) / scale


@dataclass(frozen=True, slots=True)
class _Verdict:
    verdict: str
    note: str


def apply_verdicts(verdicts: str | Path, changes: str | Path) -> ReviewResult:
    """Write the verdicts of a review into the columns verdict and verdict_note. Atomic.

    Verdicts on other changes that the file holds already stay. All layers, styles and indexes
    of the file are kept.

    Args:
        verdicts: the GeoJSON that a report exports.
        changes: the GeoPackage that the report was made of.

    Raises:
        InputError: the verdicts cannot be read, or belong to another run.
        ConfigError: ``changes`` is no GeoPackage.
        OutputError: the GeoPackage cannot be written, or is in use; it is as it was.
    """
    verdicts, changes = Path(verdicts), Path(changes)
    if changes.suffix.lower() != ".gpkg":
        raise ConfigError(
            f"verdicts are written into a GeoPackage, and {changes.name} is none; "
            "give the .gpkg that the report was made of"
        )
    # Before anything opens the file: SQLite would clear up after the other program.
    check_output(changes, overwrite=True)
    layer = read_changes(changes)
    given = _read_verdicts(verdicts, layer)
    ids = {str(value): value for value in layer.frame["id"].tolist()}
    known = {name: verdict for name, verdict in given.items() if name in ids}
    with replacing(changes) as temporary:
        try:
            shutil.copyfile(changes, temporary)
            _update(temporary, {ids[name]: verdict for name, verdict in known.items()})
        except sqlite3.Error as error:
            raise OutputError(
                f"{changes} was not changed: {error}; is it open in another program?"
            ) from None
    unknown = tuple(name for name in given if name not in ids)
    return _result(changes, len(known), unknown)


def _read_verdicts(path: Path, layer: ChangeLayer) -> dict[str, _Verdict]:
    """Verdicts by id, as text."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read verdicts from {path}: {error}") from None
    features = document.get("features") if isinstance(document, dict) else None
    about = document.get("geocd") if isinstance(document, dict) else None
    if not isinstance(features, list):
        raise InputError(
            f"{path} holds no verdicts: it has no list of features; export them from the report "
            "of geocd"
        )
    if not isinstance(about, dict) or "run" not in about:
        raise InputError(
            f'{path} holds no verdicts: its member "geocd": {{"run": ...}}, which says what run '
            "they are on, is missing; export them from the report of geocd, which writes it"
        )
    if about["run"] != layer.run:
        raise InputError(
            f"the verdicts are on run {about['run']} and {layer.name} is of run {layer.run}; "
            "give the file that the report was made of"
        )
    return dict(_read_verdict(path, feature) for feature in features)


def _read_verdict(path: Path, feature: Any) -> tuple[str, _Verdict]:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict) or properties.get("id") is None:
        raise InputError(f"{path}: a verdict does not say on which change it is")
    verdict, note = properties.get("verdict"), properties.get("note")
    if verdict not in VERDICTS:
        raise InputError(
            f"{path}: the verdict on change {properties['id']} is {verdict!r}; "
            f"wanted one of {', '.join(VERDICTS)}"
        )
    return str(properties["id"]), _Verdict(verdict, note if isinstance(note, str) else "")


def _update(geopackage: Path, verdicts: dict[Any, _Verdict]) -> None:
    database = sqlite3.connect(geopackage)
    try:
        # The spatial index has triggers on every update. They do nothing while the geometry
        # stays, but SQLite wants to know the functions that they name.
        for name, arguments in _SPATIAL_FUNCTIONS.items():
            database.create_function(name, arguments, lambda _: 0, deterministic=True)
        with database:
            columns = {row[1] for row in database.execute(f'pragma table_info("{LAYER}")')}
            for column in ("verdict", "verdict_note"):
                if column not in columns:
                    database.execute(f'alter table "{LAYER}" add column {column} text')
            database.executemany(
                f'update "{LAYER}" set verdict = ?, verdict_note = ? where id = ?',
                [(v.verdict, v.note or None, name) for name, v in verdicts.items()],
            )
            database.execute(
                "update gpkg_contents set last_change = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') "
                "where table_name = ?", (LAYER,),
            )  # fmt: skip
    finally:
        database.close()


def _result(changes: Path, applied: int, unknown: tuple[str, ...]) -> ReviewResult:
    frame = read_changes(changes).frame
    kinds = {
        str(kind): counts
        for kind, rows in frame.groupby("kind")
        if (counts := _count(rows["verdict"])) != KindPrecision(0, 0, 0)
    }
    return ReviewResult(
        output=changes, applied=applied, unknown=unknown, changes=len(frame),
        total=_count(frame["verdict"]), kinds=kinds,
    )  # fmt: skip


def _count(column: pd.Series[Any]) -> KindPrecision:
    counts = Counter(column.dropna())
    return KindPrecision(*(counts[verdict] for verdict in VERDICTS))
