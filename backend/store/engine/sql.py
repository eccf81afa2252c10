"""Many rows in few steps.

Python's sqlite3 lets go of the interpreter for every step of a statement, and ``executemany`` makes a step of every
row: beside a busy event loop each one is a wait for the interpreter. A statement over many rows is one step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

SIZES = (128, 64, 32, 16, 8, 4, 2, 1)
"""Rows in one statement: a handful of texts, so that each is compiled once."""

PAGE_BYTES = 2 * 1024 * 1024
"""A page of a list takes no further row once its rows are so large together; a single row may be larger."""


class Taken(NamedTuple):
    """Some rows, and whether there are more."""

    rows: list[tuple[Any, ...]]
    more: bool


def take(rows: Iterable[tuple[Any, ...]], most: int, most_bytes: int | None = PAGE_BYTES) -> Taken:
    """The first ``most`` rows, fewer once they hold ``most_bytes``; one at least. ``rows`` is read no further than to
    the next: a cursor has one row in memory at a time, where its order comes from an index."""
    taken: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        if len(taken) == most or (most_bytes is not None and size >= most_bytes):
            return Taken(taken, True)
        taken.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
    return Taken(taken, False)


def execute_rows(conn: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run ``sql`` over all ``rows``; its ``{rows}`` becomes ``(?, …), (?, …), …``."""
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
    """The conditions and values of those filters that were asked for."""
    asked = [(condition, value) for condition, value in filters if value is not None]
    return [condition for condition, _ in asked], [value for _, value in asked]


def clause(where: Sequence[str]) -> str:
    """`` WHERE a AND b``, or nothing."""
    return f" WHERE {' AND '.join(where)}" if where else ""
