"""The figures computed once more from the bare rows: to compare with those that were kept, or to put in their place.

Nothing here shares a statement with ``folding``: each table is one plain question over all rows. Days before
``frozen_before`` have lost activities to pruning and are left as they stand.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from backend.records import Record
from backend.store.folding import fold, keyed_rows
from backend.store.names import VALUES
from backend.store.parts import part_of, place_in
from backend.store.schema_figures import OTHER, week_of
from backend.store.session_figures import ENGAGED
from backend.store.writer import Tx
from backend.zone import LocalTime

_ROWS = "user_activities a WHERE a.seq <= (SELECT through FROM figures_state)"
_LIVE = "COALESCE((SELECT frozen_before FROM figures_state), -1)"


class Table(NamedTuple):
    """A table of figures: what its rows should be, and which of them are compared."""

    name: str
    rows: str
    live: str


_BOTH_APPS = (
    "(SELECT user, hour / 24 AS day, app, type FROM checking UNION SELECT user, hour / 24, 0, type FROM checking)"
)
_DURATION = "(end_time - start_time)"
_APP = f"COALESCE((SELECT key FROM figure_names WHERE kind = {OTHER['app']} AND name = s.app), {OTHER['app']})"
_IS_ENGAGED = ENGAGED.format(duration=_DURATION, pages="pages_visited")

TABLES = (
    Table(
        "activities_by_user",
        f"SELECT {part_of('timestamp')}, user, {place_in('timestamp')}, seq FROM checking",
        "1",
    ),
    Table("activity_parts", f"SELECT DISTINCT {part_of('timestamp')} FROM checking", "1"),
    Table(
        "user_days",
        "SELECT hour / 24, user, app, COUNT(*), MIN(timestamp) FROM checking GROUP BY 1, 2, 3",
        "day >= {live}",
    ),
    Table(
        "user_type_days",
        f"SELECT {week_of('hour / 24')}, type, user, hour / 24, app, COUNT(*), MIN(timestamp), "
        "MAX(timestamp) - MIN(timestamp) FROM checking GROUP BY 1, 2, 3, 4, 5",
        "day >= {live}",
    ),
    Table("type_weeks", "SELECT DISTINCT type, week FROM user_type_days", "1"),
    Table(
        "activity_hours",
        "SELECT hour, app, type, COUNT(*) FROM checking GROUP BY 1, 2, 3",
        "hour >= {live} * 24",
    ),
    Table(
        "name_days",
        " UNION ALL ".join(
            f"SELECT * FROM (SELECT {OTHER[kind]}, hour / 24, app, {kind}, COUNT(*) FROM checking "
            f"WHERE {kind} IS NOT NULL GROUP BY 2, 3, 4)"
            for kind in ("type", "page", "feature", "referrer")
        ),
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
    Table(
        "session_days",
        f"SELECT {{hour}}(start_time) / 24, {_APP}, COUNT(*), SUM{_DURATION}, SUM(pages_visited), "
        f"SUM({_IS_ENGAGED}) FROM user_sessions s WHERE end_time IS NOT NULL{{within}} GROUP BY 1, 2",
        "day >= {live}",
    ),
    # Somebody whose first days were pruned still has them in user_days.
    Table(
        "user_spans",
        "SELECT app, user, MIN(day), MAX(day) FROM (SELECT app, user, day FROM user_days "
        "UNION ALL SELECT 0, user, day FROM user_days) GROUP BY 1, 2",
        "1",
    ),
    Table(
        "cohort_days",
        "SELECT d.app, s.first_day, d.day, COUNT(*) FROM (SELECT app, user, day FROM user_days "
        "UNION SELECT 0, user, day FROM user_days) d JOIN user_spans s ON s.app = d.app AND s.user = d.user "
        "GROUP BY 1, 2, 3",
        "1",
    ),
)


class Difference(Record, frozen=True, kw_only=True):
    """A table whose rows are not what they should be: how many lack, and how many are there that should not be."""

    table: str
    missing: int
    surplus: int


def expected_rows(table: Table, hour: str = "local_hour", sessions_within: str = "") -> str:
    """The SELECT of what a table's rows should be, by the SQL function ``hour``; a condition on the sessions."""
    return table.rows.replace("{hour}", hour).replace("{within}", sessions_within)


def verify(conn: sqlite3.Connection) -> Iterator[Difference]:
    """Compare every table with the bare rows, in one snapshot. ``conn`` is in a transaction; its own temporary tables
    are all that is written."""
    _prepare(conn)
    for table in TABLES:
        live = table.live.format(live=_LIVE)
        kept = f"SELECT * FROM {table.name} WHERE {live}"
        conn.execute(f"CREATE TEMP TABLE expected AS {kept} LIMIT 0")
        conn.execute(f"INSERT INTO expected {expected_rows(table)}")
        conn.execute(f"DELETE FROM expected WHERE NOT ({live})")
        missing, surplus = (
            conn.execute(f"SELECT COUNT(*) FROM ({one} EXCEPT {other})").fetchone()[0]
            for one, other in (("SELECT * FROM expected", kept), (kept, "SELECT * FROM expected"))
        )
        conn.execute("DROP TABLE expected")
        if missing or surplus:
            yield Difference(table=table.name, missing=missing, surplus=surplus)
    conn.execute("DROP TABLE checking")


def rebuild(tx: Tx, local: LocalTime) -> None:
    """Put what the bare rows say in the place of what was kept, by ``local``'s days."""
    conn = tx.conn
    while fold(tx, local):
        pass
    conn.execute("UPDATE figures_state SET zone = ?", (local.zone.key,))
    _prepare(conn)
    for table in TABLES:
        recount(conn, table.name)
    conn.execute("DROP TABLE checking")


def recount(conn: sqlite3.Connection, name: str) -> None:
    """Put what they should be in the place of one table's rows. Only ``session_days`` can be asked for by itself."""
    table = next(table for table in TABLES if table.name == name)
    live = table.live.format(live=_LIVE)
    conn.execute(f"DELETE FROM {name} WHERE {live}")
    columns = ", ".join(column for _, column, *_ in conn.execute(f"PRAGMA table_info({name})"))
    rows = expected_rows(table)
    conn.execute(f"WITH expected ({columns}) AS ({rows}) INSERT INTO {name} SELECT * FROM expected WHERE {live}")


def _prepare(conn: sqlite3.Connection) -> None:
    """The folded activities by their keys, in a temporary table."""
    conn.execute("DROP TABLE IF EXISTS temp.checking")
    names = ", ".join(VALUES)
    conn.execute(f"CREATE TEMP TABLE checking (user, {names}, hour, timestamp, seq)")
    conn.execute(f"INSERT INTO checking {keyed_rows('local_hour(a.timestamp)', _ROWS, '{other}')}")
