"""Folding the WAL into the file without making a writer wait for it.

SQLite by itself does this inside some unlucky COMMIT, every thousand pages: a few milliseconds of writing and syncing
that whoever waits for that commit pays. Here a thread of its own copies the bulk (PASSIVE holds up nobody); the writer
then copies the little that came meanwhile, between two transactions, after which the next one starts the WAL anew.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

GROUPS = 200
CHANGES = 16_000
"""After so many transactions, or changed rows, the WAL is worth folding: some 20 to 60 MB. With half of it the slowest
hundredth of the writes took half as long again: a commit waits while the disk syncs a fold."""


class Checkpointer:
    """Belongs to one writer; ``after_commit`` is called in its thread, between transactions."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str) -> None:
        self._connect = connect
        self._name = name
        self._groups = 0
        self._changes = 0
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._copied = threading.Event()
        self._stopping = False

    def after_commit(self, conn: sqlite3.Connection) -> None:
        """Ask for a fold when it is due; finish it when the thread has done its part."""
        self._groups += 1
        if self._copied.is_set():
            self._copied.clear()
            _fold(conn)
            self._groups, self._changes = 0, conn.total_changes
        elif not self._wanted.is_set() and (self._groups >= GROUPS or conn.total_changes - self._changes >= CHANGES):
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._wanted.set()

    def stop(self) -> None:
        """End the thread, after what it is doing. Safe to call twice."""
        self._stopping = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        conn: sqlite3.Connection | None = None
        # Asked before and after: what `stop` sets may be cleared here, at the end of a fold.
        while not self._stopping:
            self._wanted.wait()
            if self._stopping:
                break
            try:
                conn = conn or self._connect()
                _fold(conn)
                self._copied.set()
            except Exception:
                log.exception("the WAL could not be folded beside the writer; it is tried again")
            self._wanted.clear()
        if conn is not None:
            conn.close()


def _fold(conn: sqlite3.Connection) -> None:
    try:
        conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error as error:
        # The WAL keeps everything; it is folded when there is room again.
        log.warning("the WAL could not be folded now: %s", error)
