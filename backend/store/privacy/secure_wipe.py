"""Remove traces of deleted rows: free pages, the WAL, backups."""

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
"""Largest file that is rewritten: for a larger one the writer would wait longer than a request's time-out."""
WAIT_S = 10.0


def sweep(path: Path) -> bool:
    """Remove traces of deleted rows from ``path`` and its WAL; return whether that was complete."""
    # ``secure_delete`` overwrites with zeros, but another SQLite may have written the file without it, which leaves
    # copies in free pages: so a file up to REWRITE_BYTES is rewritten.
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as conn:
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
    """Checkpoint and truncate the WAL; wait up to WAIT_S for long reads. Return whether it worked."""
    end = time.monotonic() + WAIT_S
    while True:
        (busy, _, _) = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return True
        if time.monotonic() > end:
            log.warning("the WAL could not be emptied after an erasure: a read takes too long")
            return False
        time.sleep(0.02)


def renew_backups(path: Path, clock: Clock) -> int:
    """Replace all backups of ``path``, unfinished ones included, with a new one; return the number removed."""
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
    """Names of damaged files that were set aside; erasure does not change them."""
    return tuple(sorted(p.name for p in path.parent.glob(f"{path.name}.damaged-*")))
