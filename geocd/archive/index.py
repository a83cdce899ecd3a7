"""An index of an archive: one row a file, GeoParquet, brought up to date instead of made anew."""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import rasterio
import shapely
from rasterio.errors import NotGeoreferencedWarning

from geocd.archive.header import DatePattern, Entry, Source, hash_of_text, read_entry
from geocd.archive.stac import is_stac, stac_sources, write_items
from geocd.errors import ConfigError, InputError
from geocd.maps.stac import check_stac_output
from geocd.outputs import check_writable, replacing
from geocd.rasters.scene import RASTER_SUFFIXES
from geocd.words import counted

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

INDEX_VERSION = 3
"""Rises when rows mean something else; an index of another version is made anew."""
_READ = tuple(Entry.__dataclass_fields__)
_TYPES = {
    "size": "Int64", "modified_ns": "Int64", "height": "Int64", "width": "Int64",
    "bands": "Int64", "alpha": "Int64", "masked": "boolean", "res_y": "Float64",
    "res_x": "Float64", "gsd": "Float64", "nodata": "Float64",
} | dict.fromkeys(
    ("path", "status", "reason", "tag_date", "crs", "dtype", "stamp", "hash", "stac_date", "date",
     "date_source", "duplicate_of"), "string",
)  # fmt: skip
_COLUMNS = ("path", "status", "reason", "date", "date_source", "crs", "gsd", "res_y", "res_x",
            "height", "width", "bands", "dtype", "nodata", "alpha", "masked", "transform", "size",
            "modified_ns", "stamp", "hash", "duplicate_of", "tag_date", "stac_date", "version",
            "geometry")  # fmt: skip


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What an index holds, and what was done for it."""

    output: Path
    table: geopandas.GeoDataFrame
    read: int
    """Files that were new or altered, and so were read."""
    gone: int
    """Files of the index before that are no more."""
    stac: Path | None = None
    """The item collection that was written."""

    def report(self) -> str:
        """The summary, for people: numbers, dates, and each file that is left out, with why."""
        table = self.table
        kept = len(table) - self.read
        counts = f"{self.read} read, {kept} as they were, {self.gone} gone"
        lines = [f"{counted(len(table), 'file')} -> {self.output} ({counts})"]
        usable = table[table.status == "ok"]
        for date, files in usable.groupby(usable["date"].fillna("no date")):
            systems = ", ".join(sorted(files["crs"].unique()))
            lines.append(f"  {date}: {counted(len(files), 'file')} in {systems}")
        twice = int(usable["duplicate_of"].notna().sum())
        if twice:
            lines.append(f"  copies of others: {twice}")
        lines += [
            f"  {row.status}: {_printable(row.path)}: {row.reason}"
            for row in table[table.status != "ok"].itertuples()
        ]
        if self.stac is not None:
            undated = int(usable["date"].isna().sum())
            told = f" (without {counted(undated, 'file')} that have no date)" if undated else ""
            lines.append(f"STAC items -> {self.stac}{told}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The summary, JSON-ready."""
        bad = self.table[self.table.status != "ok"]
        return {
            "output": str(self.output), "files": len(self.table), "read": self.read,
            "gone": self.gone, "duplicates": int(self.table["duplicate_of"].notna().sum()),
            "left_out": bad[["path", "status", "reason"]].to_dict("records"),
        }  # fmt: skip


def index_archive(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    date_pattern: str | None = None,
    stac: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> IndexResult:
    """Describe every raster of an archive; files that the index knows already are not read.

    Columns: ``path``, ``status`` (ok, damaged, unplaced, output) and ``reason``, ``date``
    (ISO date, month or year) and ``date_source`` (name, stac, tags), ``crs``, ``gsd`` (metres),
    ``res_y`` and ``res_x`` (CRS units), ``height``, ``width``, ``bands``, ``dtype``, ``nodata``,
    ``alpha``, ``masked``, ``transform``, ``size`` (bytes), ``modified_ns``, ``hash`` (see
    `hash_samples`), ``duplicate_of`` (path of a file with the same bytes and date),
    ``tag_date``, ``stac_date``. The geometry is the outline of the valid pixels in WGS 84, empty
    where the status is not ok.

    Args:
        sources: folders, with all their subfolders; STAC files and URLs, see `stac_sources`;
            rasters.
        output: the index, .parquet; one that is there is brought up to date.
        date_pattern: see `DatePattern`; what it finds goes before STAC, and STAC before tags.
        stac: also write the files that have a date as a STAC item collection, .json.
        threads: that read; None: four for each processor, because they wait for the disk.
        progress: called with the stage, the steps done and the steps in all.

    Raises:
        ConfigError: the pattern or the name of the output is impossible.
        InputError: a source is not there, or no STAC.
        OutputError: the index cannot be written; the one before is as it was.
    """
    target = Path(output)
    if target.suffix.lower() != ".parquet":
        raise ConfigError(f"an index is written as .parquet, got {target.name!r}")
    check_writable(target, overwrite=True)
    if stac is not None:
        check_stac_output(Path(stac))
        check_writable(Path(stac), overwrite=True)
    pattern = None if date_pattern is None else DatePattern(date_pattern)
    names = list(Source.__dataclass_fields__)
    found = pd.DataFrame(map(attrgetter(*names), _list_sources(sources)), columns=names)
    found = found.drop_duplicates("path").set_index("path", drop=False)
    known = _known_rows(target)
    fresh = _unaltered(found, known)
    entries = _read_all(found[~found.index.isin(fresh)], threads, progress)
    table = _table(entries, known.loc[fresh], found["stac_date"], pattern)
    with replacing(target) as draft:
        table.to_parquet(draft, schema_version="1.1.0", write_covering_bbox=True, index=False)
    gone = int((~known.index.isin(found.index)).sum())
    if stac is not None:
        write_items(Path(stac), table)
    return IndexResult(target, table, len(entries), gone, None if stac is None else Path(stac))


def read_index(path: Path) -> geopandas.GeoDataFrame:
    """An index from its file.

    Raises:
        InputError: it is missing, no index, or one of another version.
    """
    try:
        table = geopandas.read_parquet(path)
        versions = set(table["version"])
    except Exception as error:  # pyarrow raises several unrelated types
        raise InputError(f"cannot read the index {path}: {error}") from None
    if versions - {INDEX_VERSION}:
        raise InputError(
            f"{path} is an index of version {versions}, this is {INDEX_VERSION}; make it again "
            "with: geocd archive index"
        )
    return table.astype(_TYPES)


def _list_sources(sources: Sequence[str | Path]) -> list[Source]:
    listed: list[Source] = []
    for source in map(str, sources):
        path = Path(source)
        if is_stac(source):
            listed += stac_sources(source)
        elif "://" in source:
            listed.append(Source(path=source))
        elif path.is_dir():
            listed += _walk(str(path.resolve()))
        elif path.is_file():
            status = path.stat()
            listed.append(Source(path=str(path.resolve()), size=status.st_size,
                                 modified_ns=status.st_mtime_ns))  # fmt: skip
        else:
            raise InputError(f"{source} is not there; give a folder, a STAC file or a raster")
    return sorted(listed, key=lambda source: source.path)


def _walk(folder: str) -> Iterator[Source]:
    """Rasters in a folder and below; hidden files and folders, and links to folders, are not.

    A folder that cannot be listed is told of like a damaged file.
    """
    try:
        with os.scandir(folder) as listed:
            entries = [entry for entry in listed if not entry.name.startswith(".")]
    except OSError:
        yield Source(path=_writable(folder))
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in RASTER_SUFFIXES:  # noqa: PTH122
            with contextlib.suppress(FileNotFoundError):  # gone since the folder was listed
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield Source(path=_writable(entry.path), size=status.st_size,
                                 modified_ns=status.st_mtime_ns)  # fmt: skip


def _writable(path: str) -> str:
    """A path as text that can be written to a file; bytes that are no UTF-8 become U+FFFD."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _printable(path: str) -> str:
    """A path on one line, whatever it is made of."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)


def _known_rows(target: Path) -> pd.DataFrame:
    """The rows of the index before, by path; none without one, or with one of another version."""
    if target.exists():
        try:
            table = read_index(target)
        except InputError:
            table = None
        if table is not None:
            table["outline"] = table.geometry.to_wkb()
            return pd.DataFrame(table[list(_READ)]).set_index("path", drop=False)
    return pd.DataFrame(columns=list(_READ)).set_index("path", drop=False)


def _unaltered(found: pd.DataFrame, known: pd.DataFrame) -> pd.Index[Any]:
    """Paths that have the size and the time of change that the index has."""
    both = found.index.intersection(known.index)
    now, then = (t.loc[both, ["size", "modified_ns"]].astype("Int64") for t in (found, known))
    same = (now == then).all(axis=1) & now.notna().all(axis=1)
    # Of files elsewhere, a STAC item tells; one that could not be had may be there now.
    stamps = found.loc[both, "stamp"].map(lambda stamp: hash_of_text(stamp) if stamp else None)
    told = stamps.notna() & (stamps == known.loc[both, "stamp"])
    told &= now["size"].isna() & (known.loc[both, "status"] == "ok")
    kept: pd.Index[Any] = both[(same.fillna(False) | told.fillna(False)).to_numpy(bool)]
    return kept


def _read_all(
    found: pd.DataFrame, threads: int | None, progress: Progress | None
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    sources = [
        Source(path=path, size=_or_none(size), modified_ns=_or_none(modified),
               stac_date=_or_none(date), stamp=stamp)
        for path, size, modified, date, stamp in found.itertuples(index=False)
    ]  # fmt: skip
    workers = threads or 4 * (os.cpu_count() or 1)
    # Filters of warnings are those of the process, so they are set here and not in the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for entry in pool.map(_read_in_thread, sources):
            rows.append(entry.row())
            if progress:
                progress("index", len(rows), len(sources))
    return rows


def _or_none(value: Any) -> Any:
    return None if pd.isna(value) else value


def _read_in_thread(source: Source) -> Entry:
    # GDAL's settings are those of a thread. Sidecars are asked for by name: a folder of ten
    # thousand files is not listed again for each of them.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
        return read_entry(source)


def _table(
    entries: list[dict[str, Any]], kept: pd.DataFrame, stac_dates: pd.Series[Any],
    pattern: DatePattern | None,
) -> geopandas.GeoDataFrame:  # fmt: skip
    """The rows that were read and those that were kept, by path, with what follows from them."""
    parts = [part for part in (pd.DataFrame(entries, columns=list(_READ)), kept) if len(part)]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_READ))
    rows = rows.sort_values("path", ignore_index=True)
    rows["stac_date"] = stac_dates.reindex(rows["path"]).to_numpy()
    rows["version"] = INDEX_VERSION
    named = [None if pattern is None else pattern.find(path) for path in rows["path"]]
    given = {"name": pd.Series(named, dtype="string"), "stac": rows["stac_date"].astype("string"),
             "tags": rows["tag_date"].astype("string")}  # fmt: skip
    rows["date"] = rows["date_source"] = pd.Series(pd.NA, rows.index, dtype="string")
    for source, dates in given.items():
        rows["date_source"] = rows["date_source"].mask(rows["date"].isna() & dates.notna(), source)
        rows["date"] = rows["date"].fillna(dates)
    sound = rows["status"].eq("ok") & rows["hash"].notna()
    # Tiles that a later survey took over unchanged are no copies: there, nothing changed.
    content = rows["hash"].astype(str) + " " + rows["date"].astype(str)
    first = content.map(rows["path"].groupby(content[sound]).first())
    rows["duplicate_of"] = first.where(sound & (first != rows["path"]))
    outlines = shapely.from_wkb(rows["outline"].to_numpy(object))
    table = geopandas.GeoDataFrame(rows.drop(columns="outline"), geometry=outlines,
                                   crs="EPSG:4326")  # fmt: skip
    return table.astype(_TYPES)[list(_COLUMNS)]
