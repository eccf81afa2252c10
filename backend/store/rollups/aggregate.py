"""Aggregation of activities into the rollups, in batches, in one transaction with ``figures_state.through``.

Row by row, the rollups by user would cost several WAL pages an activity (a third of a write); in batches, each in its
table's order, they cost a tenth of that. Activities after ``through`` (the tail) are aggregated before each query, so
that every query includes them.
"""

from __future__ import annotations

from typing import Any

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups import packed_timestamps
from flashflow.backend.store.rollups.dimensions import ABSENT, VALUES, intern
from flashflow.backend.store.rollups.models import OTHER
from flashflow.backend.store.rollups.partitions import partition_of, place_in
from flashflow.backend.store.rollups.schema import OF_USER, week_of

MOST_IN_BATCH = 50_000
"""Activities in one batch: it bounds the wait of the next write."""

_SLICE_MS = 15 * 60 * 1000

_BATCH = """CREATE TEMP TABLE IF NOT EXISTS batch (
    user INTEGER, app INTEGER, type INTEGER, page INTEGER, feature INTEGER, referrer INTEGER, hour INTEGER,
    timestamp INTEGER, seq INTEGER
)"""
_NEW = "CREATE TEMP TABLE IF NOT EXISTS new_days (type INTEGER, user INTEGER, day INTEGER, app INTEGER)"


def keyed_rows(hour: str, source: str, absent: str = str(ABSENT)) -> str:
    """Build a SELECT of the activities ``a`` of ``source``: user, app, type, page, feature, referrer as keys, ``hour``,
    timestamp and seq. A name without a key is ``absent``, where ``{other}`` stands for its kind's “all others”."""
    names = ", ".join(
        f"CASE WHEN {value} IS NOT NULL THEN COALESCE((SELECT key FROM figure_names "
        f"WHERE kind = {OTHER[kind]} AND name = {value}), {absent.format(other=OTHER[kind])}) END"
        for kind, value in VALUES.items()
    )
    user = "(SELECT key FROM figure_users u WHERE u.user_id = a.user_id)"
    return f"SELECT {user}, {names}, {hour}, a.timestamp, a.seq FROM {source}"


_TAIL = "user_activities a NOT INDEXED WHERE a.seq > ? AND a.seq <= ?"
_FILL = "INSERT INTO temp.batch " + keyed_rows("{hour}", _TAIL)
_UNKNOWN = (
    f"SELECT 1 FROM temp.batch WHERE user IS NULL OR app = {ABSENT} OR type = {ABSENT} OR page = {ABSENT} "
    f"OR feature = {ABSENT} OR referrer = {ABSENT} LIMIT 1"
)
_BY_USER = (
    f"INSERT INTO activities_by_user SELECT {partition_of('timestamp')}, user, {place_in('timestamp')}, seq "
    "FROM temp.batch ORDER BY 1, 2, 3, 4",
    f"INSERT OR IGNORE INTO activity_parts SELECT DISTINCT {partition_of('timestamp')} FROM temp.batch",
)

# A user's first activity of a day: of any type (0) or of one, in any app (0) or in one.
_NEW_DAYS = (
    "INSERT INTO temp.new_days SELECT DISTINCT 0, user, hour / 24, app FROM temp.batch f WHERE NOT EXISTS "
    "(SELECT 1 FROM user_days d WHERE d.day = f.hour / 24 AND d.user = f.user AND d.app = f.app)",
    "INSERT INTO temp.new_days SELECT DISTINCT type, user, hour / 24, app FROM temp.batch f WHERE NOT EXISTS "
    f"(SELECT 1 FROM user_type_days d WHERE d.week = {week_of('f.hour / 24')} AND d.type = f.type "
    "AND d.user = f.user AND d.day = f.hour / 24 AND d.app = f.app)",
    "INSERT INTO temp.new_days SELECT DISTINCT 0, user, day, 0 FROM temp.new_days f WHERE type = 0 "
    "AND NOT EXISTS (SELECT 1 FROM user_days d WHERE d.day = f.day AND d.user = f.user)",
    "INSERT INTO temp.new_days SELECT DISTINCT type, user, day, 0 FROM temp.new_days f WHERE type <> 0 "
    f"AND NOT EXISTS (SELECT 1 FROM user_type_days d WHERE d.week = {week_of('f.day')} AND d.type = f.type "
    "AND d.user = f.user AND d.day = f.day)",
)
_UPSERT = (
    "ON CONFLICT DO UPDATE SET activities = activities + excluded.activities, at = MIN(at, excluded.at), "
    "span = MAX(at + span, excluded.at + excluded.span) - MIN(at, excluded.at)"
)
"""The upsert clause of ``user_days``."""
_UPSERT_OF_TYPE = f"{_UPSERT}, {packed_timestamps.COLUMN} = {packed_timestamps.KEPT_AND_NEW}"
_MOVED = (
    "SELECT f.app, f.user, s.first_day FROM temp.new_days f JOIN user_spans s ON s.app = f.app AND s.user = f.user "
    "WHERE f.type = 0 AND f.day < s.first_day GROUP BY 1, 2"
)
_DAYS_OF = f"SELECT DISTINCT d.day FROM {OF_USER} WHERE d.user = ? AND (? = 0 OR d.app = ?)"
_ADD_COHORT = (
    "INSERT INTO cohort_days (app, first_day, day, users) VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET users = users + excluded.users"
)
_COUNTS = (
    "INSERT INTO user_spans SELECT app, user, MIN(day), MAX(day) FROM temp.new_days WHERE type = 0 GROUP BY 1, 2 "
    "ON CONFLICT DO UPDATE SET first_day = MIN(first_day, excluded.first_day), "
    "last_day = MAX(last_day, excluded.last_day)",
    "INSERT INTO cohort_days SELECT f.app, s.first_day, f.day, COUNT(*) FROM temp.new_days f "
    "JOIN user_spans s ON s.app = f.app AND s.user = f.user WHERE f.type = 0 GROUP BY 1, 2, 3 "
    "ON CONFLICT DO UPDATE SET users = users + excluded.users",
    "INSERT INTO active_days SELECT type, app, day, COUNT(*) FROM temp.new_days WHERE true GROUP BY 1, 2, 3 "
    "ON CONFLICT DO UPDATE SET users = users + excluded.users",
    f"INSERT INTO user_days SELECT hour / 24, user, app, COUNT(*), MIN(timestamp) - hour / 24 * {DAY_MS}, "
    f"MAX(timestamp) - MIN(timestamp) FROM temp.batch WHERE true GROUP BY 1, 2, 3 {_UPSERT}",
    f"INSERT INTO user_type_days SELECT {week_of('hour / 24')}, type, user, hour / 24, app, COUNT(*), "
    f"MIN(timestamp) - hour / 24 * {DAY_MS}, MAX(timestamp) - MIN(timestamp), "
    f"{packed_timestamps.packed_sql('COUNT(*)', 'timestamp')} "
    f"FROM temp.batch WHERE true GROUP BY 1, 2, 3, 4, 5 {_UPSERT_OF_TYPE}",
    f"INSERT OR IGNORE INTO type_weeks SELECT DISTINCT type, {week_of('hour / 24')} FROM temp.batch",
    "INSERT INTO activity_hours SELECT hour, app, type, COUNT(*) FROM temp.batch WHERE true GROUP BY 1, 2, 3 "
    "ON CONFLICT DO UPDATE SET activities = activities + excluded.activities",
    *(
        f"INSERT INTO name_days SELECT {OTHER[kind]}, hour / 24, app, {kind}, type, COUNT(*) FROM temp.batch "
        f"WHERE {kind} IS NOT NULL GROUP BY 2, 3, 4, 5 ON CONFLICT DO UPDATE SET "
        "activities = activities + excluded.activities"
        for kind in ("type", "page", "feature", "referrer")
    ),
    *(  # ``heavy_users``
        f"INSERT INTO user_names SELECT user, app, {OTHER[kind]}, {kind}, COUNT(*) FROM temp.batch "
        f"WHERE {kind} IS NOT NULL AND user IN (SELECT user FROM heavy_users) GROUP BY 1, 2, 4 "
        "ON CONFLICT DO UPDATE SET activities = activities + excluded.activities"
        for kind in ("page", "feature")
    ),
)


def aggregate_batch(tx: Tx, local: LocalTime) -> bool:
    """Aggregate the oldest activities of the tail, up to MOST_IN_BATCH; return whether more are left."""
    conn = tx.conn
    through, newest = conn.execute(
        "SELECT through, COALESCE((SELECT MAX(seq) FROM user_activities), 0) FROM figures_state"
    ).fetchone()
    if newest <= through:
        return False
    end = min(newest, through + MOST_IN_BATCH)
    conn.execute(_BATCH)
    conn.execute(_NEW)
    _fill(tx, local, (through, end))
    for statement in (*_BY_USER, *_NEW_DAYS):
        conn.execute(statement)
    _move_cohorts(tx)
    for statement in _COUNTS:
        conn.execute(statement)
    conn.execute("DELETE FROM temp.batch")
    conn.execute("DELETE FROM temp.new_days")
    conn.execute("UPDATE figures_state SET through = ?", (end,))
    return bool(end < newest)


def _fill(tx: Tx, local: LocalTime, bounds: tuple[int, int]) -> None:
    """Fill ``batch`` with the keys of the tail's rows; new users and names are assigned keys first."""
    sql = _FILL.format(hour=_hour_of(tx, local, bounds))
    tx.conn.execute(sql, bounds)
    if tx.conn.execute(_UNKNOWN).fetchone():
        tx.conn.execute("DELETE FROM temp.batch")
        intern(tx, _TAIL, bounds)
        tx.conn.execute(sql, bounds)
        for kind in VALUES:
            tx.conn.execute(f"UPDATE temp.batch SET {kind} = {OTHER[kind]} WHERE {kind} = {ABSENT}")


def _hour_of(tx: Tx, local: LocalTime, bounds: tuple[int, int]) -> str:
    """Build SQL for an activity's local hour: arithmetic where the tail has one UTC offset, a function otherwise."""
    low, high = tx.conn.execute(f"SELECT MIN(timestamp), MAX(timestamp) FROM {_TAIL}", bounds).fetchone()
    if low is not None and low >= DAY_MS and high - low <= 2 * DAY_MS:
        offsets = {local.offset(at) for at in (*range(low, high, _SLICE_MS), high)}
        if len(offsets) == 1:
            return f"(a.timestamp + {offsets.pop()}) / 3600000"
    return "local_hour(a.timestamp)"


def _move_cohorts(tx: Tx) -> None:
    """Move the days of users whose first day is now earlier to the cohort of that day."""
    moves: list[tuple[Any, ...]] = []
    for app, user, old in tx.conn.execute(_MOVED).fetchall():
        (first,) = tx.conn.execute(
            "SELECT MIN(day) FROM temp.new_days WHERE type = 0 AND app = ? AND user = ?", (app, user)
        ).fetchone()
        for (day,) in tx.conn.execute(_DAYS_OF, (user, app, app)):
            moves += [(app, old, day, -1), (app, first, day, 1)]
    if moves:
        tx.conn.executemany(_ADD_COHORT, moves)
        tx.conn.execute("DELETE FROM cohort_days WHERE users = 0")
