"""Recomputation of the rollups from the raw rows: ``verify`` compares them with the stored ones, ``rebuild`` replaces
those.

It shares no statement with ``rollups.aggregate``: each table is one SELECT over a window of days with about AT_ONCE
activities. Days before ``frozen_before`` have lost activities to pruning and do not change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.activity.session_rollup import ENGAGED
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups import four_week_blocks, packed_timestamps
from flashflow.backend.store.rollups.aggregate import aggregate_batch, keyed_rows
from flashflow.backend.store.rollups.dimensions import VALUES
from flashflow.backend.store.rollups.models import OTHER
from flashflow.backend.store.rollups.partitions import BITS, LONG, partition_of, place_in
from flashflow.backend.store.rollups.schema import week_of

AT_ONCE = 250_000
"""Activities of one window, about 100 bytes each; a single day may have more."""
FAR = 10**9
"""A local day later than any; -FAR is earlier than any."""
_AGGREGATED = "a.seq <= (SELECT through FROM figures_state)"
_LIVE = "COALESCE((SELECT frozen_before FROM figures_state), -1)"


class Table(NamedTuple):
    """A rollup table: the SELECT of its ``rows``, and the condition on rows that are not frozen (``live``)."""

    name: str
    rows: str
    live: str
    within: str = "day BETWEEN {first} AND {last}"
    """The condition on rows of the days ``first`` to ``last``; empty: the table is computed as a whole."""


class Window(NamedTuple):
    """Local days, both included."""

    first: int
    last: int


def names_of_days(kind: str) -> str:
    """Build the SELECT of the rows of ``name_days`` of one kind."""
    return (
        f"SELECT * FROM (SELECT {OTHER[kind]}, hour / 24, app, {kind}, type, COUNT(*) FROM checking "
        f"WHERE {kind} IS NOT NULL GROUP BY 2, 3, 4, 5)"
    )


_BOTH_APPS = (
    "(SELECT user, hour / 24 AS day, app, type FROM checking UNION SELECT user, hour / 24, 0, type FROM checking)"
)
_DURATION = "(end_time - start_time)"
_APP = f"COALESCE((SELECT key FROM figure_names WHERE kind = {OTHER['app']} AND name = s.app), {OTHER['app']})"
_IS_ENGAGED = ENGAGED.format(duration=_DURATION, pages="pages_visited")
_PRESENT = "(SELECT app, user, day FROM {days} UNION {all} SELECT 0, user, day FROM {days})"

DAILY = (
    Table(
        "user_days",
        f"SELECT hour / 24, user, app, COUNT(*), MIN(timestamp) - hour / 24 * {DAY_MS}, "
        "MAX(timestamp) - MIN(timestamp) FROM checking GROUP BY 1, 2, 3",
        "day >= {live}",
    ),
    Table(
        "user_type_days",
        f"SELECT {week_of('hour / 24')}, type, user, hour / 24, app, COUNT(*), "
        f"MIN(timestamp) - hour / 24 * {DAY_MS}, MAX(timestamp) - MIN(timestamp), "
        f"{packed_timestamps.packed_sql('COUNT(*)', 'timestamp')} FROM checking GROUP BY 1, 2, 3, 4, 5",
        "day >= {live}",
        f"week BETWEEN {week_of('{first}')} AND {week_of('{last}')} AND day BETWEEN {{first}} AND {{last}}",
    ),
    Table(
        "activity_hours",
        "SELECT hour, app, type, COUNT(*) FROM checking GROUP BY 1, 2, 3",
        "hour >= {live} * 24",
        "hour BETWEEN {first} * 24 AND {last} * 24 + 23",
    ),
    Table(
        "name_days",
        " UNION ALL ".join(names_of_days(kind) for kind in ("type", "page", "feature", "referrer")),
        "day >= {live}",
    ),
    Table(
        "active_days",
        "SELECT 0, app, day, COUNT(DISTINCT user) FROM {both} GROUP BY 2, 3 "
        "UNION ALL SELECT type, app, day, COUNT(DISTINCT user) FROM {both} GROUP BY 1, 2, 3".replace(
            "{both}", _BOTH_APPS
        ),
        "day >= {live}",
    ),
)
# Pruned first days of a user are still in user_days.
SPANS = Table(
    "user_spans", f"SELECT app, user, MIN(day), MAX(day) FROM {_PRESENT.replace('{all}', 'ALL')} GROUP BY 1, 2", "1", ""
)
COHORTS = Table(
    "cohort_days",
    f"SELECT d.app, s.first_day, d.day, COUNT(*) FROM {_PRESENT.replace('{all}', '')} d "
    "JOIN user_spans s ON s.app = d.app AND s.user = d.user GROUP BY 1, 2, 3",
    "1",
)
WHOLE = (
    Table("type_weeks", "SELECT DISTINCT type, week FROM user_type_days", "1", ""),
    Table("name_blocks", four_week_blocks.NAME_ROWS, "1", ""),
    Table("hour_blocks", four_week_blocks.HOUR_ROWS, "1", ""),
    Table(
        "session_days",
        f"SELECT {{hour}}(start_time) / 24, {_APP}, COUNT(*), SUM{_DURATION}, SUM(pages_visited), "
        f"SUM({_IS_ENGAGED}) FROM user_sessions s WHERE end_time IS NOT NULL{{within}} GROUP BY 1, 2",
        "day >= {live}",
        "",
    ),
    Table(
        "activity_parts",
        f"WITH RECURSIVE found (part) AS (SELECT MIN(timestamp) >> {BITS} FROM user_activities UNION ALL "
        f"SELECT (SELECT MIN(timestamp) >> {BITS} FROM user_activities WHERE timestamp >= (found.part + 1) << {BITS}) "
        f"FROM found WHERE part IS NOT NULL) SELECT part FROM found WHERE EXISTS (SELECT 1 FROM user_activities a "
        f"WHERE a.timestamp BETWEEN part << {BITS} AND (part << {BITS}) + {LONG - 1} AND {_AGGREGATED})",
        "1",
        "",
    ),
)
LOCAL_TABLES = (*DAILY, *WHOLE[:-1], SPANS, COHORTS)
"""Tables that depend on the time zone, each after those it is computed from."""

_USER = "(SELECT key FROM figure_users u WHERE u.user_id = a.user_id)"
_UNINDEXED = (
    f"SELECT COUNT(*) FROM user_activities a WHERE {_AGGREGATED} AND NOT EXISTS (SELECT 1 FROM activities_by_user p "
    f"WHERE p.part = {partition_of('a.timestamp')} AND p.user = {_USER} AND p.at = {place_in('a.timestamp')} "
    "AND p.seq = a.seq)"
)


class Difference(Record, frozen=True, kw_only=True):
    """The number of missing and of surplus rows of a table."""

    table: str
    missing: int
    surplus: int


def expected_rows(table: Table, hour: str = "local_hour", sessions_within: str = "", days: str = "user_days") -> str:
    """Build the SELECT of a table's rows; ``hour`` is the SQL function for the local hour, ``sessions_within`` a
    condition on sessions, ``days`` the source of users' days."""
    return table.rows.replace("{hour}", hour).replace("{within}", sessions_within).replace("{days}", days)


# --- comparison -------------------------------------------------------------------------------------------------------


def verify(conn: sqlite3.Connection) -> Iterator[Difference]:
    """Compare every table with the raw rows, in one snapshot. ``conn`` is in a transaction; only temporary tables are
    written."""
    windows = list(_windows(conn))
    found = {table.name: [0, 0] for table in (*DAILY, SPANS, COHORTS, *WHOLE)}
    for window in windows:
        _fill(conn, window)
        for table in DAILY:
            _compare(conn, table, window, found)
    conn.execute("DROP TABLE temp.checking")
    create_like(conn, SPANS)
    for window in windows:
        conn.execute(_spans(window, "temp.expected"))
    _compare_expected(conn, SPANS, "1", found)
    for window in windows:
        _compare(conn, COHORTS, window, found)
    for table in WHOLE:
        _compare(conn, table, None, found)
    rows, entries = (
        conn.execute(sql).fetchone()[0]
        for sql in (
            f"SELECT COUNT(*) FROM user_activities a NOT INDEXED WHERE {_AGGREGATED}",
            "SELECT COUNT(*) FROM activities_by_user",
        )
    )
    (missing,) = conn.execute(_UNINDEXED).fetchone()
    found["activities_by_user"] = [missing, entries - (rows - missing)]
    found["user_names"] = [0, 0]
    for (user,) in conn.execute("SELECT user FROM heavy_users").fetchall():
        stored, correct = (
            f"SELECT * FROM user_names WHERE user = {user}",
            f"SELECT * FROM ({heavy_users.expected(str(user))})",
        )
        for place, (one, other) in enumerate(((correct, stored), (stored, correct))):
            found["user_names"][place] += conn.execute(f"SELECT COUNT(*) FROM ({one} EXCEPT {other})").fetchone()[0]
    for name, (missing, surplus) in found.items():
        if missing or surplus:
            yield Difference(table=name, missing=missing, surplus=surplus)


def _compare(conn: sqlite3.Connection, table: Table, window: Window | None, found: dict[str, list[int]]) -> None:
    """Add the numbers of missing and surplus rows of a table, within a window or as a whole, to ``found``."""
    live = table.live.format(live=_LIVE)
    create_like(conn, table)
    conn.execute(f"INSERT INTO expected {expected_rows(table, days=_days(window))}")
    conn.execute(f"DELETE FROM expected WHERE NOT ({live})")
    _compare_expected(conn, table, live if window is None else f"{live} AND {_within(table, window)}", found)


def create_like(conn: sqlite3.Connection, table: Table, name: str = "expected") -> None:
    """Create an empty temporary table with the columns and the key of ``table``."""
    described = conn.execute(f"PRAGMA main.table_info({table.name})").fetchall()
    columns = ", ".join(f"{column} INTEGER" for _, column, *_ in described)
    keys = ", ".join(column for _, column, _, _, _, of_key in described if of_key)
    conn.execute(f"CREATE TEMP TABLE {name} ({columns}, PRIMARY KEY ({keys}))")


def _compare_expected(conn: sqlite3.Connection, table: Table, where: str, found: dict[str, list[int]]) -> None:
    stored = f"SELECT * FROM {table.name} WHERE {where}"
    for place, (one, other) in enumerate((("SELECT * FROM expected", stored), (stored, "SELECT * FROM expected"))):
        found[table.name][place] += conn.execute(f"SELECT COUNT(*) FROM ({one} EXCEPT {other})").fetchone()[0]
    conn.execute("DROP TABLE temp.expected")


# --- rebuild ----------------------------------------------------------------------------------------------------------


def stored_zone(conn: sqlite3.Connection) -> str:
    """Return the name of the time zone by which the stored rollups were counted; empty in a new file."""
    return str(conn.execute("SELECT zone FROM figures_state").fetchone()[0])


def rebuild(tx: Tx, local: LocalTime) -> None:
    """Recompute every table from the raw rows by ``local``'s days."""
    conn = tx.conn
    while aggregate_batch(tx, local):
        pass
    conn.execute("UPDATE figures_state SET zone = ?", (local.zone.key,))
    windows = list(_windows(conn))
    four_week_blocks.leave_blocks(conn)
    _clear(conn, DAILY)
    for window in windows:
        _fill(conn, window)
        for table in DAILY:
            _insert(conn, table, window)
    conn.execute("DROP TABLE temp.checking")
    _clear(conn, (SPANS, COHORTS, *WHOLE))
    for window in windows:
        conn.execute(_spans(window, "user_spans"))
    for window in windows:
        _insert(conn, COHORTS, window)
    for table in WHOLE:
        _insert(conn, table, None)
    four_week_blocks.keep_blocks(conn)
    conn.execute("DELETE FROM activities_by_user")
    for (part,) in conn.execute("SELECT part FROM activity_parts ORDER BY part").fetchall():
        conn.execute(
            f"INSERT INTO activities_by_user SELECT ?1, {_USER}, {place_in('a.timestamp')}, a.seq "
            f"FROM user_activities a WHERE a.timestamp BETWEEN ?2 AND ?3 AND {_AGGREGATED} ORDER BY 2, 3, 4",
            (part, part << BITS, (part << BITS) + LONG - 1),
        )
    heavy_users.rebuild(conn)


def _clear(conn: sqlite3.Connection, tables: Iterable[Table]) -> None:
    for table in tables:
        conn.execute(f"DELETE FROM {table.name} WHERE {table.live.format(live=_LIVE)}")


def _insert(conn: sqlite3.Connection, table: Table, window: Window | None) -> None:
    columns = ", ".join(column for _, column, *_ in conn.execute(f"PRAGMA main.table_info({table.name})"))
    rows, live = expected_rows(table, days=_days(window)), table.live.format(live=_LIVE)
    conn.execute(f"WITH made ({columns}) AS ({rows}) INSERT INTO {table.name} SELECT * FROM made WHERE {live}")


# --- windows of days --------------------------------------------------------------------------------------------------


def _windows(conn: sqlite3.Connection) -> Iterator[Window]:
    """Iterate over windows that cover all days; each has about AT_ONCE activities, or is a single day."""
    first, since = -FAR, -FAR * DAY_MS
    while True:
        row = conn.execute(
            "SELECT local_hour(timestamp) / 24, timestamp FROM user_activities WHERE timestamp >= ? ORDER BY timestamp "
            "LIMIT 1 OFFSET ?",
            (since, AT_ONCE),
        ).fetchone()
        if row is None:
            yield Window(first, FAR)
            return
        last = max(first, row[0] - 1)
        yield Window(first, last)
        first, since = last + 1, last * DAY_MS


def _fill(conn: sqlite3.Connection, window: Window) -> None:
    """Fill ``checking`` with a window's activities."""
    # A local day starts and ends within a day of the UTC day of the same number.
    fill_checking(conn, "local_hour", (window.first - 1) * DAY_MS, (window.last + 2) * DAY_MS)
    conn.execute(f"DELETE FROM checking WHERE hour NOT BETWEEN {window.first * 24} AND {window.last * 24 + 23}")


def fill_checking(conn: sqlite3.Connection, hour: str, start: int, end: int) -> None:
    """Fill the temporary table ``checking`` with the keys of all aggregated activities from ``start`` to before ``end``
    (milliseconds since 1970); ``hour`` is the SQL function for a timestamp's local hour."""
    conn.execute("DROP TABLE IF EXISTS temp.checking")
    conn.execute(f"CREATE TEMP TABLE checking (user, {', '.join(VALUES)}, hour, timestamp, seq)")
    rows = f"user_activities a WHERE a.timestamp >= {start} AND a.timestamp < {end} AND {_AGGREGATED}"
    conn.execute(f"INSERT INTO checking {keyed_rows(f'{hour}(a.timestamp)', rows, '{other}')}")


def _within(table: Table, window: Window) -> str:
    return table.within.format(first=window.first, last=window.last)


def _days(window: Window | None) -> str:
    """Build the source of users' days within a window."""
    if window is None:
        return "user_days"
    return f"(SELECT * FROM user_days WHERE day BETWEEN {window.first} AND {window.last})"


def _spans(window: Window, into: str) -> str:
    return (
        f"INSERT INTO {into} {expected_rows(SPANS, days=_days(window))} ON CONFLICT (app, user) DO UPDATE SET "
        "first_day = MIN(first_day, excluded.first_day), last_day = MAX(last_day, excluded.last_day)"
    )
