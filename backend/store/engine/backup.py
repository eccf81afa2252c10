"""Backups, and what happens to a damaged file: set aside, never deleted, the newest good backup put in its place."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from flashflow.backend.core.clock import Clock, file_stamp
from flashflow.backend.store.engine.database import BUSY_TIMEOUT_S, create_private, uri_of
from flashflow.backend.store.engine.errors import is_damage

log = logging.getLogger(__name__)

KEEP = 7
"""Backups kept for each file and kind."""


def backups_folder(path: Path) -> Path:
    return path.parent / "backups"


def back_up(path: Path, clock: Clock, label: str) -> Path:
    """Copy the live file ``path`` as one consistent snapshot; returns the backup, readable by its owner alone.

    The name says what it is: ``notifications.20261122T101530123Z.daily.db``. The oldest beyond KEEP of the same
    label are removed. Raises sqlite3.Error or OSError where the copy cannot be made.
    """
    folder = backups_folder(path)
    folder.mkdir(mode=0o700, exist_ok=True)
    stamp = file_stamp(clock.now_ms())
    target = _placed(path, folder / f"{path.stem}.{stamp}.{label}.db")
    for old in sorted(folder.glob(f"{path.stem}.*.{label}.db"))[:-KEEP]:
        old.unlink()
    return target


def copy_to(path: Path, folder: Path, clock: Clock) -> Path:
    """Copy the live file ``path`` into ``folder``, made where it is missing; what is there stays. Raises sqlite3.Error
    or OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = file_stamp(clock.now_ms())
    return _placed(path, folder / f"{path.stem}.{stamp}.db")


def _placed(path: Path, target: Path) -> Path:
    half = target.with_suffix(".part")
    _copy(path, half)
    half.rename(target)
    _sync(target.parent)
    return target


def is_sound(path: Path, *, no_room: bool = False) -> bool:
    """Whether ``path`` is a SQLite file without structural damage (``quick_check``); one without a byte is none.

    Changes nothing: a WAL left behind stays as it is. Raises sqlite3.Error where it cannot be told (a full disk, …).
    """
    if path.stat().st_size == 0:
        return False
    # Half a transaction without a WAL (when a new file got its first page) only a writer can take back.
    # And ``unix-excl`` knows no reading without the right to write.
    mode = "rw" if no_room or path.with_name(path.name + "-journal").exists() else "ro"
    uri = uri_of(path, mode=mode, no_room=no_room)
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as conn:
            return bool(conn.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)])
    except sqlite3.DatabaseError as error:
        # Of a check nothing but the file's own format can be an SQLITE_ERROR.
        if not is_damage(error) and _code(error) != sqlite3.SQLITE_ERROR:
            raise
        log.warning("%s does not read: %s", path.name, error)
        return False


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def was_emptied(path: Path) -> bool:
    """Whether ``path`` has no byte although it once had: SQLite would take it for new and drop its WAL."""
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        return not path.exists() or path.stat().st_size == 0
    return path.exists() and path.stat().st_size == 0 and any(newest_first(path))


def recover(path: Path, clock: Clock) -> str:
    """Set the damaged ``path`` aside and restore the newest sound backup; returns the sentence to tell the person."""
    half = path.with_name(path.name + ".part")
    backup = next((b for b in newest_first(path) if is_sound(b)), None)
    if backup is not None:
        _copy(backup, half)  # first: where there is no room for it, the next start has to find the damage again
    stamp = file_stamp(clock.now_ms())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
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
    """Copy a database, live or not, as one snapshot; what could not be finished is removed again."""
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
    """The backups of ``path``, whatever made them."""
    return sorted(backups_folder(path).glob(f"{path.stem}.*.db"), key=lambda backup: backup.name.split(".")[1])[::-1]


def _sync(path: Path) -> None:
    """Ask the disk to keep ``path`` (Windows has no fsync of folders)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
