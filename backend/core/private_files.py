"""Small files of the data folder, written atomically with mode 0600."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from flashflow.backend.core.errors import StorageError, StorageFull

T = TypeVar("T")

log = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_private(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically, synced, with mode 0600. Raises StorageError."""
    half = path.with_name(f".{path.name}.part")
    try:
        half.unlink(missing_ok=True)  # left by a process that was killed
        with open(os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.is_dir() and not path.is_symlink():
            log.warning("%s was a folder. It was set aside as %s.", path.name, set_aside(path).name)
        os.replace(half, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            half.unlink(missing_ok=True)
        raise _refusal(path, error) from error


def read_or_create(
    path: Path, parse: Callable[[bytes], T | None], create: Callable[[], bytes], report: Callable[[str], None]
) -> T:
    """Return the parsed content of ``path``; create it where it is missing.

    A file that cannot be read, or whose content ``parse`` refuses (None), is set aside and created again; ``report``
    receives one sentence that names both files. Raises StorageError where the folder cannot be used.
    """
    damaged = True
    try:
        found = parse(path.read_bytes())
    except FileNotFoundError:
        found, damaged = None, False
    except OSError as error:
        # The sentence for ``report``, or the refusal, names the file.
        log.info("%s cannot be read: %s", path.name, error.strerror)
        found = None
    if found is not None:
        _make_private(path)
        return found
    made = create()
    parsed = parse(made)
    assert parsed is not None, f"{path.name} was created with content that does not parse"
    aside = set_aside(path) if damaged else None
    try:
        write_private(path, made)
    except StorageError:
        if aside is not None:  # so that the next start finds the damage again
            with suppress(OSError):
                aside.rename(path)
        raise
    if aside is not None:
        report(f"{path.name} was damaged. It was set aside as {aside.name} and created again.")
    return parsed


def set_aside(path: Path) -> Path:
    """Rename the damaged ``path`` to ``NAME.damaged-TIME``; return the new path. Raises StorageError."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    try:
        path.rename(aside)
    except OSError as error:
        raise _refusal(path, error) from error
    return aside


def sync_folder(folder: Path) -> None:
    """Sync ``folder`` so that a new name in it survives a power cut; ignored where folders cannot be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _make_private(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & 0o077:
        with suppress(OSError):  # a file system without modes
            path.chmod(0o600)


def _refusal(path: Path, error: OSError) -> StorageError:
    kind = StorageFull if error.errno in _FULL else StorageError
    return kind(f"{path} cannot be used: {error.strerror}.")
