"""Build and run SQL over many rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Generic, TypeVar

from flashflow.backend.core.named_tuple import NamedTuple

SIZES = (128, 64, 32, 16, 8, 4, 2, 1)
"""Rows in one statement: few different texts, so that SQLite's statement cache has all of them."""

PAGE_BYTES = 2 * 1024 * 1024
"""A page of a list ends once its rows have this many bytes; a single row may be larger."""
_SIZED = frozenset((str, bytes))

R = TypeVar("R", bound=tuple[Any, ...])


class Taken(NamedTuple, Generic[R]):
    """Rows, and whether there are more."""

    rows: list[R]
    more: bool


def take(rows: Iterable[R], most: int, most_bytes: int | None = PAGE_BYTES) -> Taken[R]:
    """Take the first ``most`` rows, fewer once they have ``most_bytes``, at least one. Reads one row further, so a
    cursor over an index never has more in memory."""
    taken: list[R] = []
    size = 0
    for row in rows:
        if len(taken) == most or (most_bytes is not None and size >= most_bytes):
            return Taken(taken, True)
        taken.append(row)
        if most_bytes is not None:
            size += sum([len(value) for value in row if type(value) in _SIZED])  # a third of a generator's time
    return Taken(taken, False)


def execute_rows(conn: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run ``sql`` over all ``rows``; its ``{rows}`` becomes ``(?, …), (?, …), …``."""
    # sqlite3 releases the interpreter lock at every step of a statement, and ``executemany`` makes one step per row:
    # beside a busy event loop each is a wait for the lock. A statement over many rows is one step.
    if not rows:
        return
    width, start, left = len(rows[0]), 0, len(rows)
    for size in SIZES:
        while left >= size:
            chunk = rows[start : start + size]
            conn.execute(_text(sql, width, size), list(chain.from_iterable(chunk)))
            start, left = start + size, left - size


@lru_cache(maxsize=256)
def _text(sql: str, width: int, size: int) -> str:
    row = f"({','.join('?' * width)})"
    return sql.replace("{rows}", ",".join([row] * size))


def conditions(filters: Sequence[tuple[str, Any]]) -> tuple[list[str], list[Any]]:
    """Return the conditions and values of the filters whose value is not None."""
    used = [(condition, value) for condition, value in filters if value is not None]
    return [condition for condition, _ in used], [value for _, value in used]


def clause(where: Sequence[str]) -> str:
    """Return `` WHERE a AND b``, or an empty string."""
    return f" WHERE {' AND '.join(where)}" if where else ""
