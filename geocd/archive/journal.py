"""What became of the units of a run: JSON lines that are on the disk when they are written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from geocd.errors import OutputError

_KEPT = ("status", "outputs", "error")


class Journal:
    """Appends lines to a file; a line is whole or, after a crash, the torn last one.

    Args:
        path: the file; lines that are there stay.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Without a buffer: what could not be written must not be tried again on closing.
            self._file = path.open("ab+", buffering=0)
            if self._file.tell() > 0:
                self._file.seek(-1, os.SEEK_END)
                # What a crash tore off is closed, so that the next line stands alone.
                if self._file.read(1) != b"\n":
                    self._append(b"\n")
        except OSError as error:
            raise OutputError(_reason(path, error)) from error

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line and wait until it is on the disk.

        Raises:
            OutputError: it cannot be written, for example because the disk is full.
        """
        try:
            self._append(json.dumps(entry, sort_keys=True).encode() + b"\n")
        except OSError as error:
            raise OutputError(_reason(self.path, error)) from error

    def _append(self, line: bytes) -> None:
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._file.close()


def _reason(path: Path, error: OSError) -> str:
    return f"cannot write the journal {path}: {error.strerror}; make room, then run again"


def read_journals(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Status, outputs and error of each unit and fingerprint by its last line; done stays done.

    Clocks of machines may differ, so no time is compared: a unit that one shard did is done,
    whatever another says.

    Args:
        folder: of the run; every ``journal*.jsonl`` in it is read.
    """
    states: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("journal*.jsonl")):
        own: dict[tuple[str, str], dict[str, Any]] = {}
        for line in path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                kept = {name: entry[name] for name in _KEPT if entry.get(name)}
                own[entry["unit"], entry["fingerprint"]] = kept
            except (ValueError, KeyError, TypeError):
                continue  # torn by a crash
        for key, entry in own.items():
            if states.get(key, {}).get("status") not in ("done", "empty"):
                states[key] = entry
    return states
