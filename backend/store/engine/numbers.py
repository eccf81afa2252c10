"""Sequence numbers and revisions: the highest ever given, of deleted rows too, and the next ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import count
from typing import Any

from peewee import ColumnBase, Field, Query, Select, Table, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.models import BaseModel, HighestRevision
from flashflow.backend.store.engine.statement import Statement

_GIVEN = Table("sqlite_sequence")


def next_number(field: Field[int]) -> ColumnBase:
    """Build the number after the highest one of ``field``; 1 in an empty table."""
    number: ColumnBase = field.model.select(fn.COALESCE(fn.MAX(field), 0) + 1)
    return number


def last_seq(model: type[BaseModel]) -> Query:
    """Build the query of the highest ``seq`` ever given in a table; no row if there is none."""
    query: Query = _GIVEN.select(_GIVEN.c.seq).where(_GIVEN.c.name == model._meta.table_name)
    return query


class _Last(NamedTuple):
    name: str
    seq: int


_LAST_SEQS = Statement(lambda: _GIVEN.select(_GIVEN.c.name, _GIVEN.c.seq), _Last)


def last_seqs(conn: sqlite3.Connection) -> dict[str, int]:
    """The highest ``seq`` that each table ever had."""
    try:
        return dict(_LAST_SEQS.each(conn))
    except sqlite3.OperationalError:  # no table has AUTOINCREMENT
        return {}


def last_revision(model: type[BaseModel]) -> Query:
    """Build the query of the highest ``revision`` ever given in a table (``models.keep_revision``)."""
    stored = model.select(fn.COALESCE(fn.MAX(model._meta.fields["revision"]), 0))
    return Select(columns=[fn.MAX(stored, HighestRevision.select(HighestRevision.revision))])


class Numbers:
    """The numbers of a table, in ascending order. ``last``: ``last_seq`` or ``last_revision``."""

    def __init__(self, last: Statement[tuple[Any, ...]]) -> None:
        self._last = last

    def last(self, conn: sqlite3.Connection) -> int:
        """The highest number ever given, to deleted rows too; 0 if there is none."""
        return self._last.value(conn) or 0

    def following(self, conn: sqlite3.Connection) -> Iterator[int]:
        """Yield the numbers to give next, in the writer's transaction; read the last one when the first is needed."""
        yield from count(self.last(conn) + 1)
