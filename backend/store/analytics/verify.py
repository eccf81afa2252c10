"""Recomputation of the rollups from the raw rows: ``verify`` compares them with the stored ones, ``rebuild`` replaces
those.

It shares no statement with ``rollups.aggregate``: each table is one SELECT over a window of days with about AT_ONCE
activities. Days before ``frozen_before`` have lost activities to pruning and do not change. The statements over the
temporary tables are text, as those of ``aggregate``.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from peewee import SQL, fn

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.activity.models import ActivityByUser, ActivityPartition, UserActivity
from flashflow.backend.store.activity.session_rollup import ENGAGED
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.engine.models import BaseModel
from flashflow.backend.store.engine.statement import Statement, TextStatement, by_index, slot, slots, variants
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups import four_week_blocks, packed_timestamps
from flashflow.backend.store.rollups.aggregate import aggregate_batch, keyed_rows
from flashflow.backend.store.rollups.dimensions import VALUES
from flashflow.backend.store.rollups.models import (
    OTHER,
    ActiveDay,
    ActivityHour,
    CohortDay,
    HourBlock,
    NameBlock,
    NameDay,
    RollupState,
    SessionDay,
    TypeWeek,
    UserDay,
    UserKey,
    UserSpan,
    UserTypeDay,
)
from flashflow.backend.store.rollups.partitions import BITS, LONG, partition, partitions
from flashflow.backend.store.rollups.schema import week_of

AT_ONCE = 250_000
"""Activities of one window, about 100 bytes each; a single day may have more."""
FAR = 10**9
"""A local day later than any; -FAR is earlier than any."""
_AGGREGATED = "a.seq <= (SELECT through FROM rollup_state)"
_LIVE = "COALESCE((SELECT frozen_before FROM rollup_state), -1)"
_LIVE_DAYS = f"day >= {_LIVE}"


class Table(NamedTuple):
    """A rollup table: the SELECT of its ``rows``, and the condition on rows that are not frozen (``live``)."""

    model: type[BaseModel]
    rows: str
    """``{hour}``: the SQL function for a timestamp's local hour; ``{within}``: a condition on sessions."""
    live: str = "1"
    within: str = "day BETWEEN :first AND :last"
    """The condition on rows of the days :first to :last; ``1``: the table is computed as a whole."""

    @property
    def name(self) -> str:
        return str(self.model._meta.table_name)

    @property
    def columns(self) -> str:
        """Its columns in the order of ``rows``."""
        return ", ".join(field.column_name for field in self.model._meta.sorted_fields)


class Window(NamedTuple):
    """Local days, both included."""

    first: int
    last: int


ALL_DAYS = Window(-FAR, FAR)


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
_APP = f"COALESCE((SELECT key FROM dimensions WHERE kind = {OTHER['app']} AND name = s.app), {OTHER['app']})"
_IS_ENGAGED = ENGAGED.format(duration=_DURATION, pages="pages_visited")
_DAYS = "user_days WHERE day BETWEEN :first AND :last"
_PRESENT = f"(SELECT app, user, day FROM {_DAYS} UNION {{all}} SELECT 0, user, day FROM {_DAYS})"

DAILY = (
    Table(
        UserDay,
        f"SELECT hour / 24, user, app, COUNT(*), MIN(timestamp) - hour / 24 * {DAY_MS}, "
        "MAX(timestamp) - MIN(timestamp) FROM checking GROUP BY 1, 2, 3",
        _LIVE_DAYS,
    ),
    Table(
        UserTypeDay,
        f"SELECT {week_of('hour / 24')}, type, user, hour / 24, app, COUNT(*), "
        f"MIN(timestamp) - hour / 24 * {DAY_MS}, MAX(timestamp) - MIN(timestamp), "
        f"{packed_timestamps.packed_sql('COUNT(*)', 'timestamp')} FROM checking GROUP BY 1, 2, 3, 4, 5",
        _LIVE_DAYS,
        f"week BETWEEN {week_of(':first')} AND {week_of(':last')} AND day BETWEEN :first AND :last",
    ),
    Table(
        ActivityHour,
        "SELECT hour, app, type, COUNT(*) FROM checking GROUP BY 1, 2, 3",
        f"hour >= {_LIVE} * 24",
        "hour BETWEEN :first * 24 AND :last * 24 + 23",
    ),
    Table(
        NameDay,
        " UNION ALL ".join(names_of_days(kind) for kind in ("type", "page", "feature", "referrer")),
        _LIVE_DAYS,
    ),
    Table(
        ActiveDay,
        "SELECT 0, app, day, COUNT(DISTINCT user) FROM {both} GROUP BY 2, 3 "
        "UNION ALL SELECT type, app, day, COUNT(DISTINCT user) FROM {both} GROUP BY 1, 2, 3".replace(
            "{both}", _BOTH_APPS
        ),
        _LIVE_DAYS,
    ),
)
# Pruned first days of a user are still in user_days.
SPANS = Table(
    UserSpan, f"SELECT app, user, MIN(day), MAX(day) FROM {_PRESENT.replace('{all}', 'ALL')} GROUP BY 1, 2", within="1"
)
COHORTS = Table(
    CohortDay,
    f"SELECT d.app, s.first_day, d.day, COUNT(*) FROM {_PRESENT.replace('{all}', '')} d "
    "JOIN user_spans s ON s.app = d.app AND s.user = d.user GROUP BY 1, 2, 3",
)
WHOLE = (
    Table(TypeWeek, "SELECT DISTINCT type, week FROM user_type_days", within="1"),
    Table(NameBlock, four_week_blocks.NAME_ROWS, within="1"),
    Table(HourBlock, four_week_blocks.HOUR_ROWS, within="1"),
    Table(
        SessionDay,
        f"SELECT {{hour}}(start_time) / 24, {_APP}, COUNT(*), SUM{_DURATION}, SUM(pages_visited), "
        f"SUM({_IS_ENGAGED}) FROM user_sessions s WHERE end_time IS NOT NULL{{within}} GROUP BY 1, 2",
        _LIVE_DAYS,
        "1",
    ),
    Table(
        ActivityPartition,
        f"WITH RECURSIVE found (partition) AS (SELECT MIN(timestamp) >> {BITS} FROM user_activities UNION ALL SELECT "
        f"(SELECT MIN(timestamp) >> {BITS} FROM user_activities WHERE timestamp >= (found.partition + 1) << {BITS}) "
        "FROM found WHERE partition IS NOT NULL) "
        "SELECT partition FROM found WHERE EXISTS (SELECT 1 FROM user_activities a "
        f"WHERE a.timestamp BETWEEN partition << {BITS} AND (partition << {BITS}) + {LONG - 1} AND {_AGGREGATED})",
        within="1",
    ),
)
LOCAL_TABLES = (*DAILY, *WHOLE[:-1], SPANS, COHORTS)
"""Tables that depend on the time zone, each after those it is computed from."""

TABLES = (*DAILY, SPANS, COHORTS, *WHOLE)


class Difference(Record, frozen=True, kw_only=True):
    """The number of missing and of surplus rows of a table."""

    table: str
    missing: int
    surplus: int


class _Counts(NamedTuple):
    missing: int
    surplus: int


def create_like(table: Table, name: str) -> str:
    """Build the statement that creates an empty temporary table with the columns and the key of ``table``."""
    keys = ", ".join(field.column_name for field in table.model._meta.get_primary_keys())  # type: ignore[no-untyped-call]
    columns = ", ".join(f"{column} INTEGER" for column in table.columns.split(", "))
    return f"CREATE TEMP TABLE {name} ({columns}, PRIMARY KEY ({keys}))"


def expected(table: Table) -> str:
    """Return the name of the temporary table with the correct rows of ``table``."""
    return f"expected_{table.name}"


def _differences(correct: str, stored: str) -> str:
    """Build the SELECT of _Counts."""
    missing, surplus = (f"SELECT COUNT(*) FROM ({a} EXCEPT {b})" for a, b in ((correct, stored), (stored, correct)))
    return f"SELECT ({missing}) AS missing, ({surplus}) AS surplus"


@variants(TABLES)
def _compare(table: Table) -> TextStatement[_Counts]:
    """Compare a table within a window, or as a whole, with its correct rows."""
    stored = f"SELECT {table.columns} FROM {table.name} WHERE {table.live} AND {table.within}"
    correct = f"SELECT {table.columns} FROM temp.{expected(table)}"
    return TextStatement(_differences(correct, stored), _Counts, reason="a temporary table")


@variants(TABLES, (True, False))
def _insert(table: Table, temporary: bool) -> TextStatement[tuple[Any, ...]]:
    """Insert the correct rows of a window, or of the whole table, that are not frozen."""
    into = f"temp.{expected(table)}" if temporary else table.name
    rows = table.rows.replace("{hour}", "local_hour").replace("{within}", "")
    merge = " ON CONFLICT (app, user) DO UPDATE SET first_day = MIN(first_day, excluded.first_day), "
    return TextStatement(
        f"WITH made ({table.columns}) AS ({rows}) INSERT INTO {into} ({table.columns}) SELECT * FROM made "
        f"WHERE {table.live}{f'{merge}last_day = MAX(last_day, excluded.last_day)' if table is SPANS else ''}",
        reason="a temporary table",
    )


@variants(TABLES)
def _clear(table: Table) -> TextStatement[tuple[Any, ...]]:
    """Delete the rows that are not frozen."""
    return TextStatement(f"DELETE FROM {table.name} WHERE {table.live}", reason="SQL shared by the rollup tables")


_A, _P = UserActivity, ActivityByUser
_IS_AGGREGATED = _A.seq <= RollupState.select(RollupState.through)
_KEY = UserKey.select(UserKey.key).where(UserKey.user_id == _A.user_id)
_PLACE = _A.timestamp.bin_and(LONG - 1)
_ROWS = Statement(lambda: _A.select(fn.COUNT(SQL("*"))).from_(by_index(_A, None)).where(_IS_AGGREGATED))
_ENTRIES = Statement(lambda: _P.select(fn.COUNT(SQL("*"))))
_UNINDEXED = Statement(
    lambda: _A.select(fn.COUNT(SQL("*"))).where(
        _IS_AGGREGATED,
        ~fn.EXISTS(
            _P.select(SQL("1")).where(
                _P.partition == partition(_A.timestamp), _P.user == _KEY, _P.at == _PLACE, _P.seq == _A.seq
            )
        ),
    )
)
_INDEX = Statement(
    lambda: _P.insert_from(
        _A.select(slot("partition"), _KEY, _PLACE, _A.seq)
        .where(_A.timestamp.between(slot("start"), slot("end")), _IS_AGGREGATED)
        .order_by(SQL("2"), SQL("3"), SQL("4")),
        [_P.partition, _P.user, _P.at, _P.seq],
    )
)
_DELETE_INDEX = Statement(_P.delete)
_COMPARE_NAMES = TextStatement(
    _differences(f"SELECT * FROM ({heavy_users.expected(':user')})", "SELECT * FROM user_names WHERE user = :user"),
    _Counts,
    reason="SQL shared with the aggregation",
)
_ZONE = Statement(lambda: RollupState.select(RollupState.zone))
_SAVE_ZONE = Statement(lambda: RollupState.update(slots(RollupState.zone)))


# --- comparison -------------------------------------------------------------------------------------------------------


def verify(conn: sqlite3.Connection) -> Iterator[Difference]:
    """Compare every table with the raw rows, in one snapshot. ``conn`` is in a transaction; only temporary tables are
    written."""
    windows = list(_windows(conn))
    found: Counter[tuple[str, str]] = Counter()
    for window in windows:
        _fill(conn, window)
        for table in DAILY:
            _verify(conn, table, [window], found)
    conn.execute("DROP TABLE temp.checking")
    _verify(conn, SPANS, windows, found)
    for window in windows:
        _verify(conn, COHORTS, [window], found)
    for table in WHOLE:
        _verify(conn, table, [ALL_DAYS], found)
    missing = _UNINDEXED.value(conn)
    _add(found, "activities_by_user", _Counts(missing, _ENTRIES.value(conn) - (_ROWS.value(conn) - missing)))
    for user in heavy_users.keys(conn):
        _add(found, "user_names", _COMPARE_NAMES.one(conn, user=user))
    for name in (*(table.name for table in TABLES), "activities_by_user", "user_names"):
        if found[name, "missing"] or found[name, "surplus"]:
            yield Difference(table=name, missing=found[name, "missing"], surplus=found[name, "surplus"])


def _verify(conn: sqlite3.Connection, table: Table, windows: Sequence[Window], found: Counter[tuple[str, str]]) -> None:
    """Add the numbers of missing and surplus rows of a table within ``windows`` to ``found``."""
    conn.execute(create_like(table, expected(table)))
    for window in windows:
        _insert(table, True).run(conn, **window._asdict())
    _add(found, table.name, _compare(table).one(conn, **windows[-1]._asdict()))
    conn.execute(f"DROP TABLE temp.{expected(table)}")


def _add(found: Counter[tuple[str, str]], name: str, counts: _Counts | None) -> None:
    assert counts is not None
    found.update({(name, kind): count for kind, count in counts._asdict().items()})


# --- rebuild ----------------------------------------------------------------------------------------------------------


def stored_zone(conn: sqlite3.Connection) -> str:
    """Return the name of the time zone by which the stored rollups were counted; empty in a new file."""
    return str(_ZONE.value(conn))


def rebuild(tx: Tx, local: LocalTime) -> None:
    """Recompute every table from the raw rows by ``local``'s days."""
    conn = tx.conn
    while aggregate_batch(tx, local):
        pass
    _SAVE_ZONE.run(conn, zone=local.zone.key)
    windows = list(_windows(conn))
    four_week_blocks.leave_blocks(conn)
    for table in TABLES:
        _clear(table).run(conn)
    for window in windows:
        _fill(conn, window)
        for table in DAILY:
            _insert(table, False).run(conn, **window._asdict())
    conn.execute("DROP TABLE temp.checking")
    for table in (SPANS, COHORTS):
        for window in windows:
            _insert(table, False).run(conn, **window._asdict())
    for table in WHOLE:
        _insert(table, False).run(conn, **ALL_DAYS._asdict())
    four_week_blocks.keep_blocks(conn)
    _DELETE_INDEX.run(conn)
    for part, _, _ in partitions(conn, oldest=True):
        _INDEX.run(conn, partition=part, start=part << BITS, end=(part << BITS) + LONG - 1)
    heavy_users.rebuild(conn)


# --- windows of days --------------------------------------------------------------------------------------------------

_AFTER = Statement(
    lambda: (
        _A.select((fn.local_hour(_A.timestamp) / 24).alias("day"))
        .where(_A.timestamp >= slot("since"))
        .order_by(_A.timestamp)
        .limit(1)
        .offset(AT_ONCE)
    )
)


def _windows(conn: sqlite3.Connection) -> Iterator[Window]:
    """Iterate over windows that cover all days; each has about AT_ONCE activities, or is a single day."""
    first, since = -FAR, -FAR * DAY_MS
    while (day := _AFTER.value(conn, since=since)) is not None:
        last = max(first, day - 1)
        yield Window(first, last)
        first, since = last + 1, last * DAY_MS
    yield Window(first, FAR)


def _fill(conn: sqlite3.Connection, window: Window) -> None:
    """Fill ``checking`` with a window's activities."""
    # A local day starts and ends within a day of the UTC day of the same number.
    fill_checking(conn, "local_hour", (window.first - 1) * DAY_MS, (window.last + 2) * DAY_MS)
    _TRIM.run(conn, **window._asdict())


def fill_checking(conn: sqlite3.Connection, hour: str, start: int, end: int) -> None:
    """Fill the temporary table ``checking`` with the keys of all aggregated activities from ``start`` to before ``end``
    (milliseconds since 1970); ``hour`` is the SQL function for a timestamp's local hour."""
    conn.execute("DROP TABLE IF EXISTS temp.checking")
    conn.execute(CHECKING)
    _check(hour).run(conn, start=start, end=end)


CHECKING = f"CREATE TEMP TABLE checking (user, {', '.join(VALUES)}, hour, timestamp, seq)"
_TRIM = TextStatement(
    "DELETE FROM checking WHERE hour NOT BETWEEN :first * 24 AND :last * 24 + 23", reason="a temporary table"
)


@variants(("local_hour", "other_hour"))
def _check(hour: str) -> TextStatement[tuple[Any, ...]]:
    rows = f"user_activities a WHERE a.timestamp >= :start AND a.timestamp < :end AND {_AGGREGATED}"
    keyed = keyed_rows(f"{hour}(a.timestamp)", rows, "{other}")
    return TextStatement(f"INSERT INTO checking {keyed}", reason="a temporary table")
