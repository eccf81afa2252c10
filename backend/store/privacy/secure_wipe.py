"""What a file still holds of rows that are gone: pages that moved, the WAL, the backups."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from flashflow.backend.core.clock import Clock
from flashflow.backend.store.engine.backup import back_up, backups_folder

log = logging.getLogger(__name__)

REWRITE_BYTES = 256 * 1024 * 1024
"""A larger file is not rewritten: that would hold up its writer for longer than a request waits."""
PATIENCE_S = 10.0


def sweep(path: Path) -> bool:
    """Leave no trace of deleted rows in ``path`` and its WAL; whether all of it could be done.

    Deleting overwrites with zeros, but a file that was written without ``secure_delete`` (by another SQLite) may hold
    copies where its cells once stood: so a file up to REWRITE_BYTES is rewritten.
    """
    with closing(sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)) as conn:
        conn.execute("PRAGMA secure_delete = ON").fetchall()
        conn.execute("PRAGMA temp_store = MEMORY").fetchall()
        done = True
        if path.stat().st_size <= REWRITE_BYTES:
            try:
                conn.execute("VACUUM")
            except sqlite3.OperationalError as error:
                log.warning("%s could not be rewritten after an erasure: %s", path.name, error)
                done = False
        return _empty_wal(conn) and done


def _empty_wal(conn: sqlite3.Connection) -> bool:
    """Fold the WAL in and cut it to nothing; a reader in the middle of a long read is waited for."""
    end = time.monotonic() + PATIENCE_S
    while True:
        (busy, _, _) = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return True
        if time.monotonic() > end:
            log.warning("the WAL could not be emptied after an erasure: something reads for very long")
            return False
        time.sleep(0.02)


def renew_backups(path: Path, clock: Clock) -> int:
    """Replace every backup of ``path``, and what is left of one that was broken off, with one of now; how many were
    removed."""
    folder = backups_folder(path)
    old = [*folder.glob(f"{path.stem}.*.db"), *folder.glob(f"{path.stem}.*.part")] if folder.exists() else []
    if not old:
        return 0
    fresh = back_up(path, clock, "after-erasure")
    removed = 0
    for backup in old:
        if backup != fresh and backup.exists():
            backup.unlink()
            removed += 1
    return removed


def set_aside(path: Path) -> tuple[str, ...]:
    """Damaged files that were set aside and never deleted: they are as they were."""
    return tuple(sorted(p.name for p in path.parent.glob(f"{path.name}.damaged-*")))
