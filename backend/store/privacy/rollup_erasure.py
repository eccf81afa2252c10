"""Subtract one user from the rollups, while their activities and sessions can still be read.

Sums over pruned rows identify no user: they stay. Only rows keyed by user are deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from peewee import SQL, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.activity.models import ActivityByUser, ActivityPartition, UserSession
from flashflow.backend.store.activity.session_rollup import Counted, change, engaged, first_live_day
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.engine.statement import Statement, TextStatement, among, columns, slot
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.aggregate import aggregate_batch, keyed_rows
from flashflow.backend.store.rollups.dimensions import VALUES, app_key, user_key
from flashflow.backend.store.rollups.models import (
    OTHER,
    ActiveDay,
    CohortDay,
    SessionDay,
    TypeWeek,
    UserDay,
    UserKey,
    UserSpan,
    UserTypeDay,
)
from flashflow.backend.store.rollups.partitions import drop_empty, rows_of_user
from flashflow.backend.store.rollups.schema import OF_USER, week_of


class _Day(NamedTuple):
    """A day with activities of the user of one type in one app."""

    type: int
    week: int
    day: int
    app: int


class _Span(NamedTuple):
    app: int
    first_day: int


class _Session(NamedTuple):
    app: str
    start_time: int
    end_time: int
    pages_visited: int
    key_activities: int


def subtract_user(tx: Tx, local: LocalTime, user_id: str) -> None:
    """Subtract the user from every rollup; a second call does nothing. Call it before deleting any of their activities.
    The index by user and the user's key stay until ``subtract_key``."""
    while aggregate_batch(tx, local):
        pass
    user = user_key(tx.conn, user_id)
    if user is None or _SEEN.one(tx.conn, user=user) is None:
        return
    heavy_users.erase(tx.conn, user)
    _subtract_active_days(tx, user)  # first: it reads the keys of types, which may go with the activities
    _subtract_activities(tx, user)


def subtract_key(tx: Tx, user_id: str) -> None:
    """Delete the index entries and the key of a user whose activities are deleted."""
    user = user_key(tx.conn, user_id)
    _DELETE_ENTRIES.run(tx.conn, user=user)
    drop_empty(tx.conn)
    _DELETE_KEY.run(tx.conn, user=user)


def _subtract_activities(tx: Tx, user: int) -> None:
    """Subtract the user's activities from hours and names; delete names that no other user has."""
    conn = tx.conn
    conn.execute("DROP TABLE IF EXISTS temp.erasing")
    conn.execute(ERASING)
    _FILL.run(conn, user=user)
    for statement in (*_SUBTRACT_HOURS, *_SUBTRACT_NAMES):
        statement.run(conn)
    conn.execute("DROP TABLE erasing")


ERASING = f"CREATE TEMP TABLE erasing (user, {', '.join(VALUES)}, hour, timestamp, seq)"
_FILL = TextStatement(
    f"INSERT INTO erasing {keyed_rows('local_hour(a.timestamp)', rows_of_user(':user'), '{other}')}",
    reason="a temporary table",
)
_SUBTRACT_HOURS = [
    TextStatement(sql, reason="a temporary table")
    for sql in (
        "UPDATE activity_hours SET activities = activities - gone.n FROM (SELECT hour, app, type, COUNT(*) AS n "
        "FROM erasing GROUP BY 1, 2, 3) gone WHERE activity_hours.hour = gone.hour "
        "AND activity_hours.app = gone.app AND activity_hours.type = gone.type",
        "DELETE FROM activity_hours WHERE activities <= 0 AND hour IN (SELECT hour FROM erasing)",
    )
]
_SUBTRACT_NAMES = [
    TextStatement(sql.format(kind=kind, number=OTHER[kind]), reason="a temporary table")
    for kind in ("page", "feature", "referrer", "type")  # types last: rows of the other kinds refer to them
    for sql in (
        "UPDATE name_days SET activities = activities - gone.n FROM (SELECT hour / 24 AS day, app, "
        "{kind} AS name, type, COUNT(*) AS n FROM erasing WHERE {kind} IS NOT NULL GROUP BY 1, 2, 3, 4) gone "
        "WHERE kind = {number} AND name_days.day = gone.day AND name_days.app = gone.app "
        "AND name_days.name = gone.name AND name_days.type = gone.type",
        "DELETE FROM name_days WHERE kind = {number} AND activities <= 0 AND day IN (SELECT hour / 24 FROM erasing)",
        "DELETE FROM dimensions WHERE kind = {number} AND name <> '' AND NOT marked "
        "AND key IN (SELECT {kind} FROM erasing) AND key NOT IN (SELECT name FROM name_days WHERE kind = {number})",
    )
]


def subtract_sessions(tx: Tx, local: LocalTime, seqs: Sequence[int]) -> None:
    """Subtract ended sessions, which are about to be deleted, from their days."""
    live = first_live_day(tx)
    gone = []
    for row in _ENDED.all(tx.conn, seqs=seqs):
        duration, pages = row.end_time - row.start_time, row.pages_visited
        is_engaged = int(engaged(duration, pages, row.key_activities))
        counted = Counted(local.day(row.start_time), app_key(tx, row.app), duration, pages, is_engaged)
        if counted.day >= live:
            gone.append(counted)
        # A frozen day may have been counted in another zone, so it may lack this session.
        elif _HAS.one(tx.conn, **counted._asdict()) is not None:
            change(tx, [(counted, None)])
    change(tx, ((counted, None) for counted in gone))


def _subtract_active_days(tx: Tx, user: int) -> None:
    """Subtract the user from active-day and cohort counts."""
    conn = tx.conn
    rows = _DAYS.all(conn, user=user)
    present = {(t, a, row.day) for row in rows for t in (0, row.type) for a in (0, row.app)}
    firsts = {span.app: span.first_day for span in _SPANS.each(conn, user=user, apps=[*{a for _, a, _ in present}])}
    for type_, app, day in present:
        _LESS_ACTIVE.run(conn, type=type_, app=app, day=day)
        if type_ == 0 and app in firsts:
            _LESS_IN_COHORT.run(conn, app=app, first_day=firsts[app], day=day)
        if type_ == 0 == app:
            _DELETE_DAY.run(conn, day=day, user=user)
    _DELETE_INACTIVE.run(conn)
    _DELETE_COHORTS.run(conn)
    for app in firsts:
        _DELETE_SPAN.run(conn, app=app, user=user)
    for type_, week in {(row.type, row.week) for row in rows}:
        _DELETE_TYPE_DAYS.run(conn, type=type_, week=week, user=user)
        _DELETE_WEEK.run(conn, type=type_, week=week)


_SEEN = Statement(lambda: UserSpan.select(SQL("1")).where(UserSpan.app == 0, UserSpan.user == slot("user")))
_DELETE_ENTRIES = Statement(
    lambda: ActivityByUser.delete().where(
        ActivityByUser.partition.in_(ActivityPartition.select(ActivityPartition.partition)),
        ActivityByUser.user == slot("user"),
    )
)
_DELETE_KEY = Statement(lambda: UserKey.delete().where(UserKey.key == slot("user")))
_ENDED = Statement(
    lambda: UserSession.select(*columns(UserSession, _Session)).where(
        among(UserSession.seq, "seqs"), UserSession.end_time.is_null(False)
    ),
    _Session,
)
_HAS = Statement(
    lambda: SessionDay.select(SQL("1")).where(
        SessionDay.day == slot("day"),
        SessionDay.app == slot("app"),
        SessionDay.sessions > 0,
        SessionDay.duration >= slot("duration"),
        SessionDay.pages >= slot("pages"),
        SessionDay.engaged >= slot("engaged"),
    )
)
_DAYS = TextStatement(
    f"SELECT DISTINCT d.type, d.week, d.day, d.app FROM (SELECT DISTINCT {week_of('d.day')} AS week FROM {OF_USER} "
    "WHERE d.user = :user) w CROSS JOIN type_weeks t ON t.week = w.week "
    "CROSS JOIN user_type_days d ON d.week = t.week AND d.type = t.type AND d.user = :user",
    _Day,
    reason="a join order",
)
_SPANS = Statement(
    lambda: UserSpan.select(*columns(UserSpan, _Span)).where(
        UserSpan.user == slot("user"), among(UserSpan.app, "apps")
    ),
    _Span,
)
_LESS_ACTIVE = Statement(
    lambda: ActiveDay.update({ActiveDay.users: ActiveDay.users - 1}).where(
        ActiveDay.type == slot("type"), ActiveDay.app == slot("app"), ActiveDay.day == slot("day")
    )
)
_DELETE_INACTIVE = Statement(lambda: ActiveDay.delete().where(ActiveDay.users <= 0))
_LESS_IN_COHORT = Statement(
    lambda: CohortDay.update({CohortDay.users: CohortDay.users - 1}).where(
        CohortDay.app == slot("app"), CohortDay.first_day == slot("first_day"), CohortDay.day == slot("day")
    )
)
_DELETE_COHORTS = Statement(lambda: CohortDay.delete().where(CohortDay.users <= 0))
_DELETE_DAY = Statement(lambda: UserDay.delete().where(UserDay.day == slot("day"), UserDay.user == slot("user")))
_DELETE_SPAN = Statement(lambda: UserSpan.delete().where(UserSpan.app == slot("app"), UserSpan.user == slot("user")))
_DELETE_TYPE_DAYS = Statement(
    lambda: UserTypeDay.delete().where(
        UserTypeDay.week == slot("week"), UserTypeDay.type == slot("type"), UserTypeDay.user == slot("user")
    )
)
_DELETE_WEEK = Statement(
    lambda: TypeWeek.delete().where(
        TypeWeek.type == slot("type"),
        TypeWeek.week == slot("week"),
        ~fn.EXISTS(
            UserTypeDay.select(SQL("1")).where(UserTypeDay.week == slot("week"), UserTypeDay.type == slot("type"))
        ),
    )
)
