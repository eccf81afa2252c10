"""A limit on what SQLite may do on an event loop, for work that no index bounds."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from flashflow.backend.store.engine.errors import result_codes

STEPS = 80_000
"""Instructions of SQLite's virtual machine, 1 to 3 ms: 60 sends take 30,000, a row that is read 10. No index bounds how
many rows an inbox, a digest or a session has."""
COUNTED_BY = 2_000


class TooManySteps(Exception):
    """A transaction on an event loop took more than STEPS. It was rolled back: nothing of it is done."""


@contextmanager
def bounded(conn: sqlite3.Connection, *, on: bool) -> Iterator[None]:
    """While ``on``, interrupt what takes more than STEPS in here. Raises TooManySteps."""
    if not on:
        yield
        return
    turns = itertools.count(1)
    conn.set_progress_handler(lambda: next(turns) * COUNTED_BY > STEPS, COUNTED_BY)
    try:
        yield
    except Exception as error:
        if any(code & 0xFF == sqlite3.SQLITE_INTERRUPT for code in result_codes(error)):
            raise TooManySteps from error
        raise
    finally:
        conn.set_progress_handler(None, 0)
