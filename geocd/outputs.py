"""Writing a file so that the target holds either the whole output or what was there before."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geocd.errors import ConfigError, GeocdError, OutputError, OutputExistsError

_DISK_IS_FULL = 1 << 20
"""Free bytes below which a failed write is put down to a full disk."""


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that could not be written, before the work that leads to it.

    Args:
        path: the file to be written.
        overwrite: an existing file may be replaced.

    Raises:
        OutputExistsError: the file is there already and ``overwrite`` is False.
        OutputError: the path is a folder, or its folder is missing or not writable.
    """
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if not folder.exists():
        raise OutputError(f"the folder {folder} does not exist; create it, or write elsewhere")
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder; write elsewhere")
    # The folder, not the file: a rename replaces the name and leaves the old file's bytes alone.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"the folder {folder} is not writable; change its mode or write elsewhere"
        )
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; overwriting must be asked for (--overwrite)")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well.

    The temporary file has the extension of the target, because writers choose a format by it.
    If the block raises anything, an interrupt included, the temporary file and the files
    beside it that bear its name (journals, indexes) are removed and the target stays as it was.

    Args:
        path: the file to be written; an existing one is replaced.

    Yields:
        The path to write to, in the same folder, not existing yet.

    Raises:
        OutputError: the system refused the write, the disk is full, or nothing was written.
    """
    temporary = _temporary(path, path.suffix)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except GeocdError:
        raise
    except OSError as error:
        raise OutputError(_reason(path, error)) from error
    except Exception as error:
        # Libraries report a full disk in words of their own; free space speaks for itself.
        if _disk_is_full(path.parent):
            raise OutputError(_reason(path, OSError(errno.ENOSPC, ""))) from error
        raise
    finally:
        for left in path.parent.glob(f"{_escaped(temporary.stem)}*"):
            left.unlink(missing_ok=True)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A temporary folder in the folder of ``beside``, removed with all it holds in the end.

    Intermediate rasters can be large; the folder that the output goes to is where room was
    meant to be.
    """
    folder = _temporary(beside, ".scratch")
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(_reason(folder, error)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary(path: Path, suffix: str) -> Path:
    """A hidden name beside ``path`` that nothing else has."""
    # Cut, because a long name must not become too long by what is added.
    return path.with_name(f".{path.stem[:40]}.{os.getpid()}-{secrets.token_hex(4)}{suffix}")


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder; the rename still holds.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _disk_is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _DISK_IS_FULL
    except OSError:
        return False


def _reason(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or _disk_is_full(path.parent):
        return f"{path} was not written: the disk is full; make room or write elsewhere"
    return f"{path} was not written: {error.strerror or error}; try another folder"


def _escaped(name: str) -> str:
    """The name with the characters that a glob pattern treats specially made plain."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def check_page(path: Path, *, overwrite: bool) -> None:
    """Refuse a page that could not be written, before the work that leads to it.

    Raises:
        ConfigError: the extension is not .html.
        OutputError: see ``check_writable``.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"a page is written as .html, got {path.name!r}")
    check_writable(path, overwrite=overwrite)
