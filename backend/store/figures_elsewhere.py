"""The figures by another zone's clock: made from the bare rows of a range, for one question.

They are temporary tables of the same names, which SQLite finds before the kept ones; the questions are the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import ValidationError
from backend.store.figures_check import BY_DAY, expected_rows
from backend.store.folding import keyed_rows
from backend.store.names import VALUES
from backend.store.parts import part_of
from backend.zone import LocalTime

MOST_ROWS = 500_000
"""Activities that one question may count anew; some 10 µs each."""

_EARLIER = (
    "EXISTS (SELECT 1 FROM activity_parts t CROSS JOIN activities_by_user p ON p.part = t.part AND p.user = s.user "
    f"CROSS JOIN user_activities a ON a.seq = p.seq WHERE t.part <= {part_of('?1')} AND a.timestamp < ?1 "
    "AND (s.app = 0 OR a.app = (SELECT name FROM figure_names WHERE key = s.app)))"
)


@contextmanager
def borrowed(conn: sqlite3.Connection, local: LocalTime, start_ms: int, end_ms: int) -> Iterator[None]:
    """Have every question on ``conn`` answered by ``local``'s days, over rows of ``[start_ms, end_ms)``. Somebody who
    came before has the first day -1. Raises ValidationError where that is too many rows."""
    (count,) = conn.execute(
        "SELECT COUNT(*) FROM (SELECT 1 FROM user_activities WHERE timestamp >= ? AND timestamp < ? LIMIT ?)",
        (start_ms, end_ms, MOST_ROWS + 1),
    ).fetchone()
    if count > MOST_ROWS:
        raise ValidationError.of(
            "tz", f"is not the workspace's, and more than {MOST_ROWS:,} activities would have to be counted anew for it"
        )
    conn.create_function("zone_hour", 1, local.hour, deterministic=True)
    within = f" AND start_time >= {int(start_ms)} AND start_time < {int(end_ms)}"
    made: list[str] = []
    try:
        _make(conn, "checking", f"user, {', '.join(VALUES)}, hour, timestamp, seq", made)
        source = (
            "user_activities a WHERE a.timestamp >= ? AND a.timestamp < ? "
            "AND a.seq <= (SELECT through FROM main.figures_state)"
        )
        conn.execute(
            f"INSERT INTO temp.checking {keyed_rows('zone_hour(a.timestamp)', source, '{other}')}", (start_ms, end_ms)
        )
        for table in BY_DAY:
            columns = ", ".join(column for _, column, *_ in conn.execute(f"PRAGMA main.table_info({table.name})"))
            _make(conn, table.name, columns, made)
            conn.execute(f"INSERT INTO temp.{table.name} {expected_rows(table, 'zone_hour', within)}")
            if table.name == "user_spans":
                conn.execute(f"UPDATE temp.user_spans AS s SET first_day = -1 WHERE {_EARLIER}", (start_ms,))
        conn.execute("CREATE INDEX temp.user_type_days_key ON user_type_days (week, type, user, day)")
        conn.execute("CREATE INDEX temp.cohort_days_key ON cohort_days (app, first_day, day)")
        conn.execute("CREATE INDEX temp.user_days_key ON user_days (day, user)")
        yield
    finally:
        for name in made:
            conn.execute(f"DROP TABLE temp.{name}")


def _make(conn: sqlite3.Connection, name: str, columns: str, made: list[str]) -> None:
    conn.execute(f"CREATE TEMP TABLE {name} ({columns})")
    made.append(name)
