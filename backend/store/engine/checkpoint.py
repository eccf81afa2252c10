"""Folding the WAL into the file without making a writer wait for it.

SQLite by itself does this inside some unlucky COMMIT, every thousand pages: a few milliseconds of writing and syncing
that the caller of that commit pays. Here a thread of its own copies the bulk (PASSIVE holds up no writer); the writer
then copies the little that came meanwhile, between two transactions, after which the next one starts the WAL again.

What stands in the WAL alone is lost if the WAL is damaged. So it is folded by time too: after a second without a
commit, and every half minute while commits go on.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from flashflow.backend.core.supervised_thread import SupervisedThread

log = logging.getLogger(__name__)

GROUPS = 200
CHANGES = 16_000
"""After so many transactions, or changed rows, the WAL is worth folding: some 20 to 60 MB. With half of it the slowest
hundredth of the writes took half as long again: a commit waits while the disk syncs a fold."""
IDLE_S = 1.0
LONGEST_S = 30.0


class Checkpointer:
    """Belongs to one writer; ``after_commit`` is called between transactions. ``on_fold`` is called after each fold."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], name: str, on_fold: Callable[[], None] | None = None
    ) -> None:
        self._connect = connect
        self._name = name
        self._on_fold = on_fold
        self._commits = 0
        self._groups = 0
        self._changes = 0
        self._newest = 0.0
        self.thread: SupervisedThread | None = None
        self._dirty = threading.Event()
        self._wanted = threading.Event()
        self._copied = threading.Event()
        self._stopping = False

    def after_commit(self, conn: sqlite3.Connection) -> None:
        """Ask for a fold when it is due; finish it when the thread has done its part."""
        self._commits += 1
        self._groups += 1
        self._newest = time.monotonic()
        if self._copied.is_set():
            self._copied.clear()
            _fold(conn)
            self._groups, self._changes = 0, conn.total_changes
        elif not self._wanted.is_set() and (self._groups >= GROUPS or conn.total_changes - self._changes >= CHANGES):
            self._wanted.set()
        if not self._dirty.is_set():
            self._dirty.set()
        if self.thread is None:
            self.thread = SupervisedThread(self._name, self._run, lambda: self._stopping)
            self.thread.start()

    def stop(self) -> None:
        """End the thread, after what it is doing. Safe to call twice."""
        self._stopping = True
        self._wanted.set()
        self._dirty.set()
        if self.thread is not None:
            self.thread.join()

    def _run(self) -> None:
        conn: sqlite3.Connection | None = None
        # Asked before and after: what `stop` sets may be cleared here, at the end of a fold.
        while not self._stopping:
            self._dirty.wait()
            asked = self._wait_until_due()
            if self._stopping:
                break
            commits = self._commits
            try:
                conn = conn or self._connect()
                whole = _fold(conn)
                if self._on_fold is not None:
                    self._on_fold()
                if asked:
                    self._copied.set()
            except Exception:
                log.exception("the WAL could not be folded beside the writer; it is tried again")
                whole = False
            self._wanted.clear()
            if whole:
                self._dirty.clear()
                if self._commits != commits:  # one that came between is not in
                    self._dirty.set()
            elif not asked:
                self._wanted.wait(LONGEST_S)  # a long read is in the way, or the disk is full
        if conn is not None:
            conn.close()

    def _wait_until_due(self) -> bool:
        """Wait for GROUPS or CHANGES (True), for IDLE_S without a commit, or for LONGEST_S."""
        end = time.monotonic() + LONGEST_S
        while not self._stopping:
            now = time.monotonic()
            due = min(self._newest + IDLE_S, end)
            if due <= now:
                break
            if self._wanted.wait(due - now):
                return True
        return False


def _fold(conn: sqlite3.Connection) -> bool:
    """Copy the WAL into the file; whether all of it could be."""
    try:
        busy, frames, copied = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        # The WAL keeps everything; it is folded when there is room again.
        log.warning("the WAL could not be folded now: %s", error)
        return False
    return not busy and frames == copied
