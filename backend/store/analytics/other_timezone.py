"""Temporary rollup tables by another time zone's clock, counted from the raw rows of one query's range.

They have the names of the stored tables, and SQLite resolves an unqualified name to the temporary table first: every
query runs unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peewee import SQL, Select, fn

from flashflow.backend.core.clock import rfc3339
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.activity.models import UserActivity, UserSession
from flashflow.backend.store.analytics.verify import ALL_DAYS, LOCAL_TABLES, SPANS, Table, create_like, fill_checking
from flashflow.backend.store.engine.statement import Statement, TextStatement, by_index, slot, variants
from flashflow.backend.store.rollups.partitions import pruned_before
from flashflow.backend.store.rollups.schema import FIRST

MOST_ROWS = 200_000
"""Raw activities and sessions that one query may count; each takes about 15 µs."""
_A, _S = UserActivity, UserSession
_ONE_EACH = (
    _A.select(SQL("1"))
    .where(_A.timestamp >= slot("start"), _A.timestamp < slot("end"))
    .union_all(
        _S.select(SQL("1"))
        .from_(by_index(_S, "user_sessions_start"))
        .where(_S.start_time >= slot("start"), _S.start_time < slot("end"))
    )
)
_COUNT_ROWS = Statement(lambda: Select([Select([_ONE_EACH], [SQL("1")]).limit(slot("most") + 1)], [fn.COUNT(SQL("*"))]))
_MARK_EARLIER_USERS = TextStatement(
    "UPDATE temp.user_spans AS s SET first_day = -1 WHERE EXISTS (SELECT 1 FROM main.user_spans m "
    f"WHERE m.app = s.app AND m.user = s.user AND (SELECT MIN({FIRST}) FROM main.user_days d "
    "WHERE d.day = m.first_day AND d.user = m.user AND (m.app = 0 OR d.app = m.app)) < :start)",
    reason="a table of the main file behind a temporary one",
)


@variants(LOCAL_TABLES)
def _insert(table: Table) -> TextStatement[tuple[Any, ...]]:
    """Insert the rows of a table by the function ``other_hour``."""
    within = " AND s.start_time >= :start AND s.start_time < :end"
    rows = table.rows.replace("{hour}", "other_hour").replace("{within}", within)
    return TextStatement(f"INSERT INTO temp.{table.name} {rows}", reason="a temporary table")


class LocalDays(NamedTuple):
    """Local days that a query reads, both included."""

    first: int
    last: int


@contextmanager
def rollups_by(conn: sqlite3.Connection, local: LocalTime, days: LocalDays) -> Iterator[None]:
    """Answer queries on ``conn`` by ``local``'s clock within ``days``.

    A user with an activity before ``days`` has the first day -1. Raises ValidationError where the range has more than
    MOST_ROWS raw rows, or rows of it were pruned.
    """
    start, end = local.start(max(days.first, 0)), local.start(days.last + 1)
    if start < (before := pruned_before(conn)):
        raise ValidationError.of(
            "tz", f"is not the workspace's time zone, and activities of the range were pruned before {rfc3339(before)}"
        )
    if _COUNT_ROWS.value(conn, start=start, end=end, most=MOST_ROWS) > MOST_ROWS:
        raise ValidationError.of(
            "tz", f"is not the workspace's time zone, and the range has more than {MOST_ROWS:,} activities and sessions"
        )
    conn.create_function("other_hour", 1, local.hour, deterministic=True)
    created = ["checking"]
    try:
        fill_checking(conn, "other_hour", start, end)
        for table in LOCAL_TABLES:
            conn.execute(create_like(table, table.name))
            created.append(table.name)
            _insert(table).run(conn, start=start, end=end, **ALL_DAYS._asdict())
            if table is SPANS:
                _MARK_EARLIER_USERS.run(conn, start=start)
        yield
    finally:
        for name in created:
            conn.execute(f"DROP TABLE IF EXISTS temp.{name}")
