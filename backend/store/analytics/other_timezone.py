"""Temporary rollup tables by another time zone's clock, counted from the raw rows of one query's range.

They have the names of the stored tables, and SQLite resolves an unqualified name to the temporary table first: every
query runs unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flashflow.backend.core.clock import rfc3339
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.analytics.verify import LOCAL_TABLES, create_like, expected_rows, fill_checking
from flashflow.backend.store.rollups.partitions import pruned_before
from flashflow.backend.store.rollups.schema import FIRST

MOST_ROWS = 200_000
"""Raw activities and sessions that one query may count; each takes about 15 µs."""
_COUNT_ROWS = (
    "SELECT COUNT(*) FROM (SELECT 1 FROM (SELECT 1 FROM user_activities WHERE timestamp >= :start AND timestamp < :end "
    "UNION ALL SELECT 1 FROM user_sessions INDEXED BY user_sessions_start WHERE start_time >= :start "
    "AND start_time < :end) LIMIT :most + 1)"
)
_SESSIONS_WITHIN = " AND s.start_time >= {start} AND s.start_time < {end}"
_MARK_EARLIER_USERS = (
    "UPDATE temp.user_spans AS s SET first_day = -1 WHERE EXISTS (SELECT 1 FROM main.user_spans m "
    f"WHERE m.app = s.app AND m.user = s.user AND (SELECT MIN({FIRST}) FROM main.user_days d "
    "WHERE d.day = m.first_day AND d.user = m.user AND (m.app = 0 OR d.app = m.app)) < :start)"
)


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
    values = {"start": start, "end": end, "most": MOST_ROWS}
    (rows,) = conn.execute(_COUNT_ROWS, values).fetchone()
    if rows > MOST_ROWS:
        raise ValidationError.of(
            "tz", f"is not the workspace's time zone, and the range has more than {MOST_ROWS:,} activities and sessions"
        )
    conn.create_function("other_hour", 1, local.hour, deterministic=True)
    created = ["checking"]
    try:
        fill_checking(conn, "other_hour", start, end)
        within = _SESSIONS_WITHIN.format(start=start, end=end)
        for table in LOCAL_TABLES:
            create_like(conn, table, table.name)
            created.append(table.name)
            conn.execute(f"INSERT INTO temp.{table.name} {expected_rows(table, 'other_hour', within)}")
            if table.name == "user_spans":
                conn.execute(_MARK_EARLIER_USERS, {"start": start})
        yield
    finally:
        for name in created:
            conn.execute(f"DROP TABLE IF EXISTS temp.{name}")
