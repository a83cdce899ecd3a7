"""Whole folders of samples: once, or watched for as long as a line runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geocd.errors import InputError
from geocd.inspect.inspector import Inspector
from geocd.inspect.outputs import PAGE, RunFolder, worst
from geocd.inspect.page import render_sheet
from geocd.inspect.verdict import CANNOT_JUDGE, PASS, REJECT, Verdict
from geocd.outputs import replacing
from geocd.rasters.scene import RASTER_SUFFIXES
from geocd.words import counted

Told = Callable[[Verdict, dict[str, Any]], None]
"""Called with every verdict and its line, as soon as the line is on the disk."""

POLL_S = 0.3
"""Seconds between two looks at a watched folder."""
_PAGE_EVERY_S = 10.0
"""Seconds after which the contact sheet of a watched folder is made anew, if there is more."""
EXIT_CODES: dict[str, int] = {PASS: 0, REJECT: 1, CANNOT_JUDGE: 3}
"""Exit code of a run by the worst of its verdicts."""


@dataclass(frozen=True, slots=True)
class InspectResult:
    """What a run found; entries as in ``verdicts.jsonl``."""

    entries: tuple[dict[str, Any], ...]
    page: Path
    seconds: float

    @property
    def word(self) -> str:
        """The worst verdict; 'cannot judge' of a run without samples."""
        return worst(list(self.entries))

    @property
    def exit_code(self) -> int:
        """0: all pass. 1: all were judged, and some rejected. 3: something was not judged."""
        return EXIT_CODES[self.word]

    def report(self) -> str:
        """One line, for people."""
        counts = {
            w: sum(e["verdict"] == w for e in self.entries) for w in (PASS, REJECT, CANNOT_JUDGE)
        }
        return (
            f"{counted(len(self.entries), 'sample')}: {counts[PASS]} pass, {counts[REJECT]} "
            f"rejected, {counts[CANNOT_JUDGE]} not judged -> {self.page}"
        )


def inspect_files(
    inspector: Inspector, samples: Sequence[str | Path], output: str | Path, *,
    goldens: Sequence[str] = (), overwrite: bool = False, told: Told | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> InspectResult:  # fmt: skip
    """Judge files and folders of samples, and write lines, pictures and a contact sheet.

    Args:
        inspector: what judges.
        samples: files, and folders of pictures; in folders in the order of their names.
        output: folder for the results; see ``geocd.inspect.outputs``.
        goldens: names of the goldens, for the record.
        overwrite: replace an earlier run.
        told: called with every verdict.
        progress: called with samples done and samples in all.

    Raises:
        InputError: a sample does not exist, or there is none.
        OutputError: and its kinds; see ``RunFolder``.
    """
    files = list(_sample_files(samples))
    if not files:
        raise InputError(f"there are no pictures in {', '.join(map(str, samples))}")
    begun = time.monotonic()
    folder = RunFolder(Path(output), inspector, list(goldens), resume=False, overwrite=overwrite)
    try:
        for done, (file, verdict) in enumerate(
            zip(files, inspector.judge_all(files), strict=True), 1
        ):
            entry = folder.add(verdict, file, **_stamp(file))
            if told:
                told(verdict, entry)
            if progress:
                progress(done, len(files))
    finally:
        page = _close(folder)
    return InspectResult(tuple(folder.entries), page, time.monotonic() - begun)


def watch_folder(
    inspector: Inspector, samples: str | Path, output: str | Path, *,
    goldens: Sequence[str] = (), overwrite: bool = False, told: Told | None = None,
    stop: Callable[[], bool] = lambda: False, poll_s: float = POLL_S,
) -> InspectResult:  # fmt: skip
    """Judge every picture that appears in a folder, until ``stop`` or an interrupt.

    A file is judged once its size and time have stood still between two looks; if it is replaced
    later, it is judged again. Hidden files, and those whose names end otherwise than pictures'
    do, are left alone, so that a writer may use such a name until it is done. Begun again with
    the same output, it goes on where it was.

    Args:
        inspector: what judges.
        samples: the folder that is watched.
        output: as for ``inspect_files``.
        goldens: as for ``inspect_files``.
        overwrite: forget an earlier run.
        told: called with every verdict.
        stop: asked between two looks.
        poll_s: seconds between two looks.

    Raises:
        InputError: there is no such folder.
        ConfigError: the output was made with other goldens, weights or settings.
        OutputError: and its kinds; see ``RunFolder``.
    """
    source, begun = Path(samples), time.monotonic()
    if not source.is_dir():
        raise InputError(f"{source} is no folder; a watched folder must be there from the start")
    folder = RunFolder(Path(output), inspector, list(goldens), resume=True, overwrite=overwrite)
    judged = {(e["file"], e.get("bytes"), e.get("modified")) for e in folder.entries}
    waiting: dict[Path, dict[str, Any]] = {}
    drawn, last = len(folder.entries), time.monotonic()
    try:
        while not stop():
            ready = _settled(source, judged, waiting)
            for file, verdict in zip(ready, inspector.judge_all(ready), strict=True):
                stamp = waiting.pop(file)
                judged.add((str(file), *stamp.values()))
                entry = folder.add(verdict, file, **stamp)
                if told:
                    told(verdict, entry)
            if len(folder.entries) > drawn and time.monotonic() - last > _PAGE_EVERY_S:
                _write_page(folder)
                drawn, last = len(folder.entries), time.monotonic()
            if not ready:
                time.sleep(poll_s)
    except KeyboardInterrupt:
        pass
    finally:
        page = _close(folder)
    return InspectResult(tuple(folder.entries), page, time.monotonic() - begun)


def _settled(
    source: Path, judged: set[tuple[Any, ...]], waiting: dict[Path, dict[str, Any]]
) -> list[Path]:
    """Files that have not changed since the last look, the oldest first.

    ``waiting`` is brought up to date: what each new file was like when it was last looked at.
    """
    ready, seen = [], set()
    for file in _pictures(source):
        stamp = _stamp(file)
        if not stamp or (str(file), *stamp.values()) in judged:
            continue
        seen.add(file)
        if waiting.get(file) == stamp:
            ready.append(file)
        waiting[file] = stamp
    for gone in set(waiting) - seen:
        del waiting[gone]
    return sorted(ready, key=lambda f: (waiting[f]["modified"], f.name))


def _stamp(file: Path) -> dict[str, Any]:
    """Size and time of a file; empty if it has just gone."""
    try:
        facts = file.stat()
    except OSError:
        return {}
    return {"bytes": facts.st_size, "modified": facts.st_mtime_ns}


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in RASTER_SUFFIXES and not path.name.startswith(".")
    )


def _sample_files(samples: Sequence[str | Path]) -> Iterator[Path]:
    for sample in map(Path, samples):
        if sample.is_dir():
            yield from _pictures(sample)
        elif sample.exists():
            yield sample
        else:
            raise InputError(f"there is no {sample}")


def _write_page(folder: RunFolder) -> Path:
    page = folder.path / PAGE
    with replacing(page) as draft:
        draft.write_text(render_sheet(folder.entries, folder.settings, folder.path))
    return page


def _close(folder: RunFolder) -> Path:
    folder.close()
    return _write_page(folder)
