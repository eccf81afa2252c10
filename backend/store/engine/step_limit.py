"""Limit the steps of a SQLite transaction on an event loop."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from flashflow.backend.store.engine.errors import result_codes

STEPS = 80_000
"""Instructions of SQLite's virtual machine, 1 to 3 ms: 60 sends take 30,000, reading a row 10. No index bounds the
number of rows of an inbox, a digest or a session."""
INTERVAL = 2_000


class TooManySteps(Exception):
    """A transaction on an event loop exceeded STEPS and was rolled back."""


@contextmanager
def bounded(conn: sqlite3.Connection, *, on: bool) -> Iterator[None]:
    """If ``on``, interrupt a transaction that takes more than STEPS. Raises TooManySteps."""
    if not on:
        yield
        return
    calls = itertools.count(1)
    conn.set_progress_handler(lambda: next(calls) * INTERVAL > STEPS, INTERVAL)
    try:
        yield
    except Exception as error:
        if any(code & 0xFF == sqlite3.SQLITE_INTERRUPT for code in result_codes(error)):
            raise TooManySteps from error
        raise
    finally:
        conn.set_progress_handler(None, 0)
