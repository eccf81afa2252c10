"""Make backups, and replace a damaged file by the newest sound backup. A damaged file is set aside, never deleted."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from flashflow.backend.core.clock import Clock, file_stamp
from flashflow.backend.core.errors import StorageError, StorageFull
from flashflow.backend.store.engine.database import BUSY_TIMEOUT_S, create_private, uri_of
from flashflow.backend.store.engine.errors import is_damage, storage_error

log = logging.getLogger(__name__)

KEEP = 7
"""Backups kept for each file and label."""
ABANDONED_S = 3600
"""Age since its last write from which an unfinished copy is removed."""


def backups_folder(path: Path) -> Path:
    return path.parent / "backups"


def back_up(path: Path, clock: Clock, label: str) -> Path:
    """Copy the live file ``path`` as one consistent snapshot with mode 0600; return the backup's path.

    Its name is ``notifications.20261122T101530123Z.LABEL.db``. Only the newest KEEP of a label are kept. Raises
    StorageError, StorageFull where the disk is full.
    """
    folder = backups_folder(path)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        target = _copy_into_place(path, folder / f"{path.stem}.{file_stamp(clock.now_ms())}.{label}.db")
    except sqlite3.Error as error:
        raise storage_error(error) from error
    except OSError as error:
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"{path.name} cannot be backed up: {error.strerror}.") from error
    for old in sorted(folder.glob(f"{path.stem}.*.{label}.db"))[:-KEEP]:
        old.unlink()
    # Unfinished copies of processes that were killed; a younger one may be in the making.
    for half in folder.glob(f"{path.stem}.*.part"):
        with suppress(FileNotFoundError):
            if time.time() - half.stat().st_mtime > ABANDONED_S:
                half.unlink()
    return target


def copy_to(path: Path, folder: Path, clock: Clock) -> Path:
    """Copy the live file ``path`` into ``folder``, which is created if missing; delete nothing there. Raises
    sqlite3.Error or OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _copy_into_place(path, folder / f"{path.stem}.{file_stamp(clock.now_ms())}.db")


def _copy_into_place(path: Path, target: Path) -> Path:
    # By process: two of them may begin a backup within a millisecond.
    half = target.with_suffix(f".{os.getpid()}.part")
    _copy(path, half)
    half.rename(target)
    _sync(target.parent)
    return target


def is_sound(path: Path, *, no_room: bool = False) -> bool:
    """Whether ``path`` is a SQLite file without structural damage (``quick_check``). An empty file is not.

    Changes nothing, not even a leftover WAL. Raises sqlite3.Error if the check cannot run (a full disk, …).
    """
    if path.stat().st_size == 0:
        return False
    # Only a writer can roll back a hot journal (of a new file's first page), and ``unix-excl`` cannot open read-only.
    mode = "rw" if no_room or path.with_name(path.name + "-journal").exists() else "ro"
    uri = uri_of(path, mode=mode, no_room=no_room)
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as conn:
            return bool(conn.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)])
    except sqlite3.DatabaseError as error:
        # In a check, SQLITE_ERROR can only come from the file's format.
        if not is_damage(error) and _code(error) != sqlite3.SQLITE_ERROR:
            raise
        log.warning("%s cannot be read: %s", path.name, error)
        return False


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def was_emptied(path: Path) -> bool:
    """Whether ``path`` is empty or missing although a WAL or a backup shows that it had content."""
    # SQLite would take it for a new file and drop its WAL.
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        return not path.exists() or path.stat().st_size == 0
    return path.exists() and path.stat().st_size == 0 and any(newest_first(path))


def recover(path: Path, clock: Clock) -> str:
    """Set the damaged ``path`` aside and restore the newest sound backup; return a sentence for the user."""
    half = path.with_name(path.name + ".part")
    backup = next((b for b in newest_first(path) if is_sound(b)), None)
    if backup is not None:
        _copy(backup, half)  # first: if the disk is full, the next start must find the damage again
    aside = path.with_name(f"{path.name}.damaged-{file_stamp(clock.now_ms())}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    was = f"{path.name} was damaged. It was set aside as {aside.name}; "
    if backup is None:
        return f"{was}there was no good backup, so a new file was started."
    half.rename(path)
    _sync(path.parent)
    return f"{was}the backup {backup.name} took its place."


def _copy(source: Path, half: Path) -> None:
    """Copy a database, live or not, as one snapshot; remove an unfinished copy."""
    half.unlink(missing_ok=True)
    create_private(half)
    try:
        with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(half)) as copy:
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=delete")  # one file, complete in itself
        _sync(half)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def newest_first(path: Path) -> list[Path]:
    """Backups of ``path``, of any label."""
    return sorted(backups_folder(path).glob(f"{path.stem}.*.db"), key=lambda backup: backup.name.split(".")[1])[::-1]


def _sync(path: Path) -> None:
    """Sync a file or folder to disk (Windows cannot sync folders)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
