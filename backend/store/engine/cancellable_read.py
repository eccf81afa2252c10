"""A read that can be cancelled: SQLite is interrupted where it stands, so that its thread is free for the next one."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_current = threading.local()


class Cancelled(TimeoutError):
    """The read took longer than its caller waited."""


class Reading:
    """One question that a thread answers with any number of reads. ``cancel`` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conn: sqlite3.Connection | None = None
        self.is_cancelled = False

    def run(self, question: Callable[[], T]) -> T:
        """Answer ``question`` in this thread. Raises Cancelled."""
        _current.reading = self
        try:
            return question()
        finally:
            _current.reading = None

    def cancel(self) -> None:
        """End the read that is under way, and refuse those that would follow."""
        with self._lock:
            self.is_cancelled = True
            if self._conn is not None:
                self._conn.interrupt()

    @contextmanager
    def on(self, conn: sqlite3.Connection) -> Iterator[None]:
        """While this question reads on ``conn``. Raises Cancelled."""
        with self._lock:
            if self.is_cancelled:
                raise Cancelled
            outer, self._conn = self._conn, conn
        try:
            yield
        except sqlite3.OperationalError as error:
            if self.is_cancelled and error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise Cancelled from error
            raise
        finally:
            with self._lock:  # from here on an interrupt would meet another thread's question
                self._conn = outer


def current() -> Reading:
    """The question that this thread answers; one that is never cancelled where it answers none."""
    reading = getattr(_current, "reading", None)
    return reading if isinstance(reading, Reading) else Reading()
