"""The figures by another zone's clock: made from the bare rows of a range, for one question.

They are temporary tables of the same names, which SQLite finds before the kept ones; the questions are the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from backend.clock import rfc3339
from backend.errors import ValidationError
from backend.store.figures_check import BY_DAY, Table, expected_rows, names_of_days
from backend.store.folding import keyed_rows
from backend.store.names import VALUES
from backend.store.pruning import pruned_before
from backend.store.schema_figures import FIRST
from backend.zone import LocalTime

MOST_ROWS = 900_000
"""Activities that one question may count anew where it tells people apart, some 2 to 6 µs each."""
MOST_PLAIN_ROWS = 1_000_000
"""… and where it counts names or hours alone, some 2 µs each."""
NAMES = frozenset({"page", "feature", "referrer"})
"""Kinds of names that most questions do not ask for."""

# By the kept days: whose first began before the range began, or had its first activity before.
_EARLIER = (
    "UPDATE temp.user_spans AS s SET first_day = -1 WHERE EXISTS (SELECT 1 FROM main.user_spans m "
    "WHERE m.app = s.app AND m.user = s.user AND (m.first_day < local_hour(?1) / 24 "
    f"OR (m.first_day = local_hour(?1) / 24 AND (SELECT MIN({FIRST}) FROM main.user_days d "
    "WHERE d.day = m.first_day AND d.user = m.user AND (m.app = 0 OR d.app = m.app)) < ?1)))"
)
_ACTIVE = (
    "SELECT {type}, app, day, COUNT(*) FROM {table} GROUP BY 1, 2, 3 "
    "UNION ALL SELECT {type}, 0, day, COUNT(DISTINCT user) FROM {table} GROUP BY 1, 3"
)
_PLAIN = frozenset({"name_days", "name_blocks", "activity_hours", "hour_blocks"})
_MADE_OF = {
    "active_days": ("user_days",),
    "user_spans": ("user_days",),
    "cohort_days": ("user_days", "user_spans"),
    "type_weeks": ("user_type_days",),
    "name_blocks": ("name_days",),
    "hour_blocks": ("activity_hours",),
}
_INDEXES = {
    "user_type_days": "week, type, user, day",
    "cohort_days": "app, first_day, day",
    "user_days": "day, user",
    "user_spans": "app, user",
}


class Reach(NamedTuple):
    """What a question looks at: local days, both included, tables of figures, and which kinds of names. Users are told
    apart by types where ``user_type_days`` is among the tables."""

    first: int
    last: int
    tables: frozenset[str]
    kinds: frozenset[str] = frozenset()


@contextmanager
def borrowed(conn: sqlite3.Connection, local: LocalTime, reach: Reach) -> Iterator[None]:
    """Have a question on ``conn`` answered by ``local``'s days, over the rows of ``reach``; its tables alone may be
    asked. Somebody who came before has the first day -1. Raises ValidationError where that is too many rows, or where
    some of them were pruned."""
    start_ms, end_ms = local.start(max(reach.first, 0)), local.start(reach.last + 1)
    if start_ms < (before := pruned_before(conn)):
        raise ValidationError.of(
            "tz", f"is not the workspace's, and what would have to be counted anew was pruned before {rfc3339(before)}"
        )
    most = MOST_PLAIN_ROWS if reach.tables <= _PLAIN else MOST_ROWS
    (count,) = conn.execute(
        "SELECT COUNT(*) FROM (SELECT 1 FROM user_activities WHERE timestamp >= ? AND timestamp < ? LIMIT ?)",
        (start_ms, end_ms, most + 1),
    ).fetchone()
    if count > most:
        raise ValidationError.of(
            "tz", f"is not the workspace's, and more than {most:,} activities would have to be counted anew for it"
        )
    conn.create_function("zone_hour", 1, local.hour, deterministic=True)
    within = f" AND start_time >= {int(start_ms)} AND start_time < {int(end_ms)}"
    tables = reach.tables.union(*(_MADE_OF.get(name, ()) for name in reach.tables))
    made: list[str] = []
    hidden: list[str] = []
    try:
        _make(conn, "checking", f"user, {', '.join(VALUES)}, hour, timestamp, seq", made)
        source = (
            "user_activities a WHERE a.timestamp >= ? AND a.timestamp < ? "
            "AND a.seq <= (SELECT through FROM main.figures_state)"
        )
        hour = _hour("a.timestamp", local, start_ms, end_ms)
        rows = keyed_rows(hour, source, "{other}", {"app", "type", *reach.kinds})
        conn.execute(f"INSERT INTO temp.checking {rows}", (start_ms, end_ms))
        for table in BY_DAY:
            if table.name not in tables:  # the kept ones are by another clock: whoever asks them is to notice
                conn.execute(f"CREATE TEMP VIEW {table.name} AS SELECT * FROM temp.not_within_reach")
                hidden.append(table.name)
                continue
            columns = ", ".join(column for _, column, *_ in conn.execute(f"PRAGMA main.table_info({table.name})"))
            _make(conn, table.name, columns, made)
            conn.execute(f"INSERT INTO temp.{table.name} {_rows(table, reach.kinds, tables, within)}")
            if table.name == "user_spans":
                conn.execute(_EARLIER, (start_ms,))
            if table.name in _INDEXES:
                conn.execute(f"CREATE INDEX temp.{table.name}_key ON {table.name} ({_INDEXES[table.name]})")
        yield
    finally:
        for name in made:
            conn.execute(f"DROP TABLE temp.{name}")
        for name in hidden:
            conn.execute(f"DROP VIEW temp.{name}")


def _rows(table: Table, kinds: frozenset[str], tables: frozenset[str], within: str) -> str:
    """The SELECT of a table's rows, as far as they are asked for."""
    if table.name == "active_days":
        of_all = _ACTIVE.format(type=0, table="user_days")
        of_one = _ACTIVE.format(type="type", table="user_type_days")
        return f"{of_all} UNION ALL {of_one}" if "user_type_days" in tables else of_all
    if table.name == "name_days":
        return " UNION ALL ".join(names_of_days(kind) for kind in ("type", *sorted(kinds)))
    return expected_rows(table, "zone_hour", within)


def _hour(moment: str, local: LocalTime, low: int, high: int) -> str:
    """SQL for the local hour of a moment from ``low`` to ``high``."""
    (_, offset), *changes = local.offsets(low, high)
    sql = str(offset)
    for since, offset in changes:
        sql = f"CASE WHEN {moment} >= {since} THEN {offset} ELSE {sql} END"
    return f"({moment} + {sql}) / 3600000"


def _make(conn: sqlite3.Connection, name: str, columns: str, made: list[str]) -> None:
    conn.execute(f"CREATE TEMP TABLE {name} ({columns})")
    made.append(name)
