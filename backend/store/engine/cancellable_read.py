"""Cancel reads: interrupt SQLite so that the thread is free for the next read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_current = threading.local()


class Cancelled(TimeoutError):
    """The read exceeded its caller's time-out."""


class Reading:
    """A query that one thread runs as any number of reads. Call ``cancel`` from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conn: sqlite3.Connection | None = None
        self.is_cancelled = False

    def run(self, query: Callable[[], T]) -> T:
        """Run ``query`` in this thread. Raises Cancelled."""
        _current.reading = self
        try:
            return query()
        finally:
            _current.reading = None

    def cancel(self) -> None:
        """Interrupt the current read and refuse later ones."""
        with self._lock:
            self.is_cancelled = True
            if self._conn is not None:
                self._conn.interrupt()

    @contextmanager
    def on(self, conn: sqlite3.Connection) -> Iterator[None]:
        """Context in which this query reads on ``conn``. Raises Cancelled."""
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
            with self._lock:  # from here on an interrupt would hit another query
                self._conn = outer


def current() -> Reading | None:
    """Return the Reading that this thread runs, if any."""
    reading: Reading | None = getattr(_current, "reading", None)
    return reading
