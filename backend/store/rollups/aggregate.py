"""Aggregation of activities into the rollups, in batches, in one transaction with ``rollup_state.through``.

Row by row, the rollups by user would cost several WAL pages an activity (a third of a write); in batches, each in its
table's order, they cost a tenth of that. Activities after ``through`` (the tail) are aggregated before each query, so
that every query includes them.
"""

from __future__ import annotations

from collections import Counter

from peewee import EXCLUDED, fn

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.activity.models import UserActivity
from flashflow.backend.store.engine.statement import Statement, TextStatement, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups import packed_timestamps
from flashflow.backend.store.rollups.dimensions import ABSENT, TAIL, VALUES, intern
from flashflow.backend.store.rollups.models import OTHER, CohortDay, RollupState
from flashflow.backend.store.rollups.partitions import partition_of, place_in
from flashflow.backend.store.rollups.schema import OF_USER, week_of

MOST_IN_BATCH = 50_000
"""Activities in one batch: it bounds the wait of the next write."""

_SLICE_MS = 15 * 60 * 1000


class _State(NamedTuple):
    """The last seq aggregated and the last one stored."""

    through: int
    newest: int


class _Times(NamedTuple):
    low: int | None
    high: int | None


class _Moved(NamedTuple):
    """A user whose first day in an app is now ``first`` instead of ``old``."""

    app: int
    user: int
    old: int
    first: int


BATCH = """CREATE TEMP TABLE IF NOT EXISTS batch (
    user INTEGER, app INTEGER, type INTEGER, page INTEGER, feature INTEGER, referrer INTEGER, hour INTEGER,
    timestamp INTEGER, seq INTEGER
)"""
NEW_DAYS = "CREATE TEMP TABLE IF NOT EXISTS new_days (type INTEGER, user INTEGER, day INTEGER, app INTEGER)"


def keyed_rows(hour: str, source: str, absent: str = str(ABSENT)) -> str:
    """Build a SELECT of the activities ``a`` of ``source``: user, app, type, page, feature, referrer as keys, ``hour``,
    timestamp and seq. A name without a key is ``absent``, where ``{other}`` stands for its kind's “all others”."""
    names = ", ".join(
        f"CASE WHEN {value} IS NOT NULL THEN COALESCE((SELECT key FROM dimensions "
        f"WHERE kind = {OTHER[kind]} AND name = {value}), {absent.format(other=OTHER[kind])}) END"
        for kind, value in VALUES.items()
    )
    user = "(SELECT key FROM user_keys u WHERE u.user_id = a.user_id)"
    return f"SELECT {user}, {names}, {hour}, a.timestamp, a.seq FROM {source}"


# The statements over the temporary tables have no models; short SQL, and all of it in one place.
_STATE = Statement(
    lambda: RollupState.select(
        RollupState.through, fn.COALESCE(UserActivity.select(fn.MAX(UserActivity.seq)), 0).alias("newest")
    ),
    _State,
)
_ADVANCE = Statement(lambda: RollupState.update(slots(RollupState.through)))
_TIMES = TextStatement(
    f"SELECT MIN(timestamp) AS low, MAX(timestamp) AS high FROM {TAIL}", _Times, reason="an index hint"
)
_FILL_BY_OFFSET = TextStatement(
    f"INSERT INTO temp.batch {keyed_rows('(a.timestamp + :offset) / 3600000', TAIL)}", reason="a temporary table"
)
_FILL = TextStatement(
    f"INSERT INTO temp.batch {keyed_rows('local_hour(a.timestamp)', TAIL)}", reason="a temporary table"
)
_UNKNOWN = TextStatement(
    f"SELECT 1 FROM temp.batch WHERE user IS NULL OR app = {ABSENT} OR type = {ABSENT} OR page = {ABSENT} "
    f"OR feature = {ABSENT} OR referrer = {ABSENT} LIMIT 1",
    reason="a temporary table",
)
_OTHERS = TextStatement(
    "UPDATE temp.batch SET "
    + ", ".join(f"{kind} = CASE {kind} WHEN {ABSENT} THEN {OTHER[kind]} ELSE {kind} END" for kind in VALUES),
    reason="a temporary table",
)
_EMPTY_BATCH = TextStatement("DELETE FROM temp.batch", reason="a temporary table")
_EMPTY_NEW_DAYS = TextStatement("DELETE FROM temp.new_days", reason="a temporary table")
_BY_USER = (
    f"INSERT INTO activities_by_user SELECT {partition_of('timestamp')}, user, {place_in('timestamp')}, seq "
    "FROM temp.batch ORDER BY 1, 2, 3, 4",
    f"INSERT INTO activity_partitions SELECT DISTINCT {partition_of('timestamp')} FROM temp.batch WHERE true "
    "ON CONFLICT (partition) DO NOTHING",
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
_EXTENDED = (
    "activities = activities + excluded.activities, at = MIN(at, excluded.at), "
    "span = MAX(at + span, excluded.at + excluded.span) - MIN(at, excluded.at)"
)
"""The changes of a row of ``user_days`` by further activities of the day."""
_MOVED = TextStatement(
    "SELECT f.app, f.user, s.first_day AS old, MIN(f.day) AS first FROM temp.new_days f "
    "JOIN user_spans s ON s.app = f.app AND s.user = f.user WHERE f.type = 0 AND f.day < s.first_day GROUP BY 1, 2",
    _Moved,
    reason="a temporary table",
)
_DAYS_OF = TextStatement(
    f"SELECT DISTINCT d.day FROM {OF_USER} WHERE d.user = :user AND (:app = 0 OR d.app = :app)", reason="a join order"
)
_ADD_COHORT = Statement(
    lambda: CohortDay.insert(slots(CohortDay.app, CohortDay.first_day, CohortDay.day, CohortDay.users)).on_conflict(
        conflict_target=[CohortDay.app, CohortDay.first_day, CohortDay.day],
        update={CohortDay.users: CohortDay.users + EXCLUDED.users},
    )
)
_DELETE_EMPTY_COHORTS = Statement(lambda: CohortDay.delete().where(CohortDay.users == 0))
_COUNTS = (
    "INSERT INTO user_spans SELECT app, user, MIN(day), MAX(day) FROM temp.new_days WHERE type = 0 GROUP BY 1, 2 "
    "ON CONFLICT (app, user) DO UPDATE SET first_day = MIN(first_day, excluded.first_day), "
    "last_day = MAX(last_day, excluded.last_day)",
    "INSERT INTO cohort_days SELECT f.app, s.first_day, f.day, COUNT(*) FROM temp.new_days f "
    "JOIN user_spans s ON s.app = f.app AND s.user = f.user WHERE f.type = 0 GROUP BY 1, 2, 3 "
    "ON CONFLICT (app, first_day, day) DO UPDATE SET users = users + excluded.users",
    "INSERT INTO active_days SELECT type, app, day, COUNT(*) FROM temp.new_days WHERE true GROUP BY 1, 2, 3 "
    "ON CONFLICT (type, app, day) DO UPDATE SET users = users + excluded.users",
    f"INSERT INTO user_days SELECT hour / 24, user, app, COUNT(*), MIN(timestamp) - hour / 24 * {DAY_MS}, "
    "MAX(timestamp) - MIN(timestamp) FROM temp.batch WHERE true GROUP BY 1, 2, 3 "
    f"ON CONFLICT (day, user, app) DO UPDATE SET {_EXTENDED}",
    f"INSERT INTO user_type_days SELECT {week_of('hour / 24')}, type, user, hour / 24, app, COUNT(*), "
    f"MIN(timestamp) - hour / 24 * {DAY_MS}, MAX(timestamp) - MIN(timestamp), "
    f"{packed_timestamps.packed_sql('COUNT(*)', 'timestamp')} "
    "FROM temp.batch WHERE true GROUP BY 1, 2, 3, 4, 5 ON CONFLICT (week, type, user, day, app) DO UPDATE SET "
    f"{_EXTENDED}, {packed_timestamps.COLUMN} = {packed_timestamps.KEPT_AND_NEW}",
    f"INSERT INTO type_weeks SELECT DISTINCT type, {week_of('hour / 24')} FROM temp.batch WHERE true "
    "ON CONFLICT (type, week) DO NOTHING",
    "INSERT INTO activity_hours SELECT hour, app, type, COUNT(*) FROM temp.batch WHERE true GROUP BY 1, 2, 3 "
    "ON CONFLICT (hour, app, type) DO UPDATE SET activities = activities + excluded.activities",
    *(
        f"INSERT INTO name_days SELECT {OTHER[kind]}, hour / 24, app, {kind}, type, COUNT(*) FROM temp.batch "
        f"WHERE {kind} IS NOT NULL GROUP BY 2, 3, 4, 5 ON CONFLICT (kind, day, app, name, type) DO UPDATE SET "
        "activities = activities + excluded.activities"
        for kind in ("type", "page", "feature", "referrer")
    ),
    *(  # ``heavy_users``
        f"INSERT INTO user_names SELECT user, app, {OTHER[kind]}, {kind}, COUNT(*) FROM temp.batch "
        f"WHERE {kind} IS NOT NULL AND user IN (SELECT user FROM heavy_users) GROUP BY 1, 2, 4 "
        "ON CONFLICT (user, app, kind, name) DO UPDATE SET activities = activities + excluded.activities"
        for kind in ("page", "feature")
    ),
)
_INDEX = [TextStatement(sql, reason="a temporary table") for sql in (*_BY_USER, *_NEW_DAYS)]
_ADD = [TextStatement(sql, reason="a temporary table") for sql in _COUNTS]


def aggregate_batch(tx: Tx, local: LocalTime) -> bool:
    """Aggregate the oldest activities of the tail, up to MOST_IN_BATCH; return whether more are left."""
    conn = tx.conn
    state = _STATE.one(conn)
    assert state is not None
    if state.newest <= state.through:
        return False
    end = min(state.newest, state.through + MOST_IN_BATCH)
    conn.execute(BATCH)
    conn.execute(NEW_DAYS)
    _fill(tx, local, state.through, end)
    for statement in _INDEX:
        statement.run(conn)
    _move_cohorts(tx)
    for statement in _ADD:
        statement.run(conn)
    _EMPTY_BATCH.run(conn)
    _EMPTY_NEW_DAYS.run(conn)
    _ADVANCE.run(conn, through=end)
    return end < state.newest


def _fill(tx: Tx, local: LocalTime, after: int, end: int) -> None:
    """Fill ``batch`` with the keys of the tail's rows; new users and names are assigned keys first."""
    offset = _offset_of(tx, local, after, end)
    fill = _FILL if offset is None else _FILL_BY_OFFSET
    fill.run(tx.conn, after=after, end=end, offset=offset)
    if _UNKNOWN.one(tx.conn) is not None:
        _EMPTY_BATCH.run(tx.conn)
        intern(tx, after, end)
        fill.run(tx.conn, after=after, end=end, offset=offset)
        _OTHERS.run(tx.conn)


def _offset_of(tx: Tx, local: LocalTime, after: int, end: int) -> int | None:
    """Return the UTC offset of the tail's local hours, if it is one: arithmetic is faster than a function."""
    times = _TIMES.one(tx.conn, after=after, end=end)
    assert times is not None
    low, high = times
    if low is not None and high is not None and low >= DAY_MS and high - low <= 2 * DAY_MS:
        offsets = {local.offset(at) for at in (*range(low, high, _SLICE_MS), high)}
        if len(offsets) == 1:
            return offsets.pop()
    return None


def _move_cohorts(tx: Tx) -> None:
    """Move the days of users whose first day is now earlier to the cohort of that day."""
    moves: Counter[tuple[int, int, int]] = Counter()
    for row in _MOVED.all(tx.conn):
        for (day,) in _DAYS_OF.each(tx.conn, user=row.user, app=row.app):
            moves[row.app, row.old, day] -= 1
            moves[row.app, row.first, day] += 1
    if moves:
        _ADD_COHORT.many(tx.conn, [(*place, users) for place, users in moves.items()])
        _DELETE_EMPTY_COHORTS.run(tx.conn)
