"""Checkpoint the WAL without delaying commits.

SQLite's auto-checkpoint runs inside a COMMIT every thousand pages and adds milliseconds to it. Here a thread copies the
bulk (PASSIVE blocks no writer); the writer then copies the rest between two transactions, so that the next one can
restart the WAL. Rows that are only in the WAL are lost if it is damaged, so a checkpoint also runs after a second
without commits and every 30 seconds during commits.
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
"""Transactions, or changed rows, after which a checkpoint runs: a WAL of 20 to 60 MB. Half of it makes the slowest 1 %
of writes take 50 % longer, because a commit waits while the disk syncs a checkpoint."""
IDLE_S = 1.0
LONGEST_S = 30.0


class Checkpointer:
    """Checkpoints the file of one writer, which calls ``after_commit`` between transactions. Calls ``on_checkpoint``
    after each checkpoint."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], name: str, on_checkpoint: Callable[[], None] | None = None
    ) -> None:
        self._connect = connect
        self._name = name
        self._on_checkpoint = on_checkpoint
        self._commits = 0
        self._groups = 0
        self._changes = 0
        self._newest = 0.0
        self.thread: SupervisedThread | None = None
        self._dirty = threading.Event()
        self._due = threading.Event()
        self._copied = threading.Event()
        self._stopping = False

    def after_commit(self, conn: sqlite3.Connection) -> None:
        """Request a checkpoint when it is due; finish it once the thread has copied the bulk."""
        self._commits += 1
        self._groups += 1
        self._newest = time.monotonic()
        if self._copied.is_set():
            self._copied.clear()
            _checkpoint(conn)
            self._groups, self._changes = 0, conn.total_changes
        elif not self._due.is_set() and (self._groups >= GROUPS or conn.total_changes - self._changes >= CHANGES):
            self._due.set()
        if not self._dirty.is_set():
            self._dirty.set()
        if self.thread is None:
            self.thread = SupervisedThread(self._name, self._run, lambda: self._stopping)
            self.thread.start()

    def stop(self) -> None:
        """End the thread after its current checkpoint. Safe to call twice."""
        self._stopping = True
        self._due.set()
        self._dirty.set()
        if self.thread is not None:
            self.thread.join()

    def _run(self) -> None:
        conn: sqlite3.Connection | None = None
        # Check `_stopping` before and after the wait: the event that `stop` sets may be cleared at the end of a round.
        while not self._stopping:
            self._dirty.wait()
            requested = self._wait_until_due()
            if self._stopping:
                break
            commits = self._commits
            try:
                conn = conn or self._connect()
                complete = _checkpoint(conn)
                if self._on_checkpoint is not None:
                    self._on_checkpoint()
                if requested:
                    self._copied.set()
            except Exception:
                log.exception("the checkpoint thread failed; retrying")
                complete = False
            self._due.clear()
            if complete:
                self._dirty.clear()
                if self._commits != commits:  # a commit during the checkpoint is not in it
                    self._dirty.set()
            elif not requested:
                self._due.wait(LONGEST_S)  # a long read blocks it, or the disk is full
        if conn is not None:
            conn.close()

    def _wait_until_due(self) -> bool:
        """Wait for a request (True), for IDLE_S without a commit, or for LONGEST_S."""
        end = time.monotonic() + LONGEST_S
        while not self._stopping:
            now = time.monotonic()
            due = min(self._newest + IDLE_S, end)
            if due <= now:
                break
            if self._due.wait(due - now):
                return True
        return False


def _checkpoint(conn: sqlite3.Connection) -> bool:
    """Copy the WAL into the file; return whether all of it was copied."""
    try:
        busy, frames, copied = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        # The WAL keeps everything; a later checkpoint copies it when the disk has room again.
        log.warning("the checkpoint failed: %s", error)
        return False
    return not busy and frames == copied
