"""What is made once per machine: converted weights, in the user's cache folder.

    <cache>/geocd/networks/<key>/model.xml, model.bin, facts.json

An entry appears whole, by a rename, or not at all: two processes that make it at once cannot
meet. It is checked when it is read, and made anew if it is damaged. Entries that nobody used for
long, those of earlier versions above all, go when a new one is made. Without a usable folder
everything still works, slower.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from geocd.errors import GeocdWarning

KEPT_DAYS: Final = 30
"""Days without use after which an entry goes."""
_FACTS = "facts.json"


def cache_folder() -> Path:
    """Where this user's caches are: GEOCD_CACHE, or where the operating system has them."""
    own = os.environ.get("GEOCD_CACHE")
    if own:
        return Path(own)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "geocd"


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, GeocdWarning, stacklevel=3)


def entry_key(facts: Mapping[str, Any]) -> str:
    """Name of the entry that these facts, JSON-ready, decide."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def find_entry(key: str) -> Path | None:
    """The folder of an entry; None if it is absent or damaged."""
    folder = cache_folder() / "networks" / key
    try:
        digests = json.loads((folder / _FACTS).read_text())["files"]
        whole = all(_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not whole:
        return None
    with suppress(OSError):  # a folder that others filled, perhaps
        os.utime(folder)  # used now
    return folder


def read_facts(entry: Path) -> dict[str, Any]:
    """What was recorded with a sound entry."""
    facts: dict[str, Any] = json.loads((entry / _FACTS).read_text())["facts"]
    return facts


def store_entry(key: str, write: Callable[[Path], None], facts: Mapping[str, Any]) -> Path | None:
    """Make an entry; None, with a warning, where that is impossible.

    Args:
        key: from ``entry_key``.
        write: puts the files into an empty folder.
        facts: recorded with it, JSON-ready.
    """
    root = cache_folder() / "networks"
    draft: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
        write(draft)
        digests = {path.name: _digest(path) for path in draft.iterdir()}
        record = {"facts": dict(facts), "files": digests}
        (draft / _FACTS).write_text(json.dumps(record, indent=1))
        entry = _publish(draft, root / key)
        _prune(root)
        return entry
    except (OSError, RuntimeError) as error:  # the second: OpenVINO's way to say the first
        _warn_once(
            f"the network cannot be kept in {root} ({_first_line(error)}), so every run converts "
            "it anew; set GEOCD_CACHE to a folder that can be written"
        )
        return None
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, target: Path) -> Path:
    try:
        draft.rename(target)
    except OSError:
        if find_entry(target.name) is None:  # a damaged one is in the way
            shutil.rmtree(target)
            draft.rename(target)
    return target


def _prune(root: Path) -> None:
    """Remove what nobody used for long: entries, and what killed processes left half-done."""
    oldest = time.time() - KEPT_DAYS * 86400
    for path in root.iterdir():
        # Another process may do the same; and on Windows, what is open stays.
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                # Renamed first: no process finds an entry that is half gone.
                shutil.rmtree(path.rename(root / f".old-{uuid4().hex}"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
