"""Backups, and what happens to a damaged file: set aside, never deleted, the newest good backup put in its place."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from backend.clock import Clock, rfc3339
from backend.store.database import create_private, fold_wal

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
    stamp = rfc3339(clock.now_ms()).translate({ord(c): None for c in "-:."})
    target = folder / f"{path.stem}.{stamp}.{label}.db"
    half = target.with_suffix(".part")
    half.unlink(missing_ok=True)
    create_private(half)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(half)) as copy:
        source.backup(copy)
    _sync(half)
    half.rename(target)
    _sync(folder)
    for old in sorted(folder.glob(f"{path.stem}.*.{label}.db"))[:-KEEP]:
        old.unlink()
    return target


def is_sound(path: Path) -> bool:
    """Whether ``path`` is a SQLite file without structural damage (``quick_check``)."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=10)) as conn:
            return bool(conn.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)])
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise
        log.warning("%s does not read: %s", path.name, error)
        return False


def recover(path: Path, clock: Clock) -> str:
    """Set the damaged ``path`` aside and restore the newest sound backup; returns the sentence to tell the person."""
    stamp = rfc3339(clock.now_ms()).translate({ord(c): None for c in "-:."})
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    for backup in sorted(backups_folder(path).glob(f"{path.stem}.*.db"), key=_stamp, reverse=True):
        if not is_sound(backup):
            continue
        create_private(path)
        with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(path)) as copy:
            source.backup(copy)
        fold_wal(path)
        _sync(path)
        return f"{path.name} was damaged. It was set aside as {aside.name}; the backup {backup.name} took its place."
    return f"{path.name} was damaged and no backup was found. It was set aside as {aside.name}; a new file was started."


def _stamp(backup: Path) -> str:
    return backup.name.split(".")[1]


def _sync(path: Path) -> None:
    """Ask the disk to keep ``path`` (Windows has no fsync of folders)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
