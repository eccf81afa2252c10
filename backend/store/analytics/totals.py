"""Queries over the rollups that sum: activities, sessions, names, hours.

The comparison range of a period that is not over is cut at the current time of day (``Slice.cut``). The queries read
rollups only, except for the hour of a cut and for open sessions.
"""

from __future__ import annotations

import sqlite3
from functools import reduce
from typing import Any

from peewee import OP, SQL, Expression, Select, SelectBase, Table, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.activity.models import UserActivity, UserSession
from flashflow.backend.store.activity.session_rollup import ENGAGED
from flashflow.backend.store.activity.session_table import LIVE_PAGES
from flashflow.backend.store.engine.statement import (
    Statement,
    TextStatement,
    among,
    any_or_same,
    by_index,
    columns,
    slot,
    variants,
)
from flashflow.backend.store.rollups.four_week_blocks import blocks_within
from flashflow.backend.store.rollups.models import (
    OTHER,
    ActiveDay,
    ActivityHour,
    Dimension,
    HourBlock,
    NameBlock,
    NameDay,
    RollupState,
    SessionDay,
)


class Cut(NamedTuple):
    """A time ``at`` in the last day, its local ``hour``, and the starts of that hour and of the day; times in
    milliseconds since 1970."""

    at: int
    hour: int
    hour_start: int
    day_start: int


class Slice(NamedTuple):
    """Local days ``first`` to ``last``, both included; keys of an ``app`` and a ``type``, 0 for all, -1 for unknown."""

    first: int
    last: int
    app: int = 0
    type: int = 0
    cut: Cut | None = None

    @property
    def nothing(self) -> bool:
        """Whether the app or the type is unknown: the slice is empty."""
        return self.app < 0 or self.type < 0


class SessionSums(NamedTuple):
    """Sessions that began in a slice; ``duration`` in milliseconds over all of them."""

    sessions: int
    duration: int
    pages: int
    engaged: int


class DayTotals(NamedTuple):
    """Activities and active users of a day."""

    day: int
    activities: int
    users: int


class HourOfWeek(NamedTuple):
    """Activities in an hour of the week; weekday: Monday is 0."""

    weekday: int
    hour: int
    activities: int


class _Count(NamedTuple):
    """A sum of a day, an hour or a name by its key."""

    key: int
    amount: int


class _Name(NamedTuple):
    key: int
    name: str


class _Stored(NamedTuple):
    """The first and the last day of a table."""

    oldest: int | None
    newest: int | None


NO_SESSIONS = SessionSums(0, 0, 0, 0)
NOTHING = DayTotals(0, 0, 0)
_H, _D = ActivityHour, NameDay
_EITHER = (False, True)
_NAMES = ("type", "page", "feature", "referrer")


# Each query of names, hours and sessions has a form for an app, a type, both or none: a condition that may be absent
# is tested at each of up to 100,000 rows.
def _scope(source: Any, by_app: bool, by_type: bool = False) -> list[Expression]:
    """Build the conditions on app and type."""
    return [getattr(source, name) == slot(name) for name, given in (("app", by_app), ("type", by_type)) if given]


def activities(conn: sqlite3.Connection, part: Slice) -> int:
    """Count the activities of a slice."""
    if part.nothing:
        return 0
    count = _sum(conn, part if part.cut is None else part._replace(last=part.last - 1))
    if part.cut is None:
        return count
    before = _sum_before(bool(part.app), bool(part.type)).value(
        conn, first=part.last * 24, end=part.cut.hour, app=part.app, type=part.type
    )
    return count + int(before) + _in_the_hour(conn, part, part.cut)


def _sum(conn: sqlite3.Connection, part: Slice) -> int:
    parts = _parts(conn, part, "type")
    return int(_sum_of_rows(*parts.form).value(conn, **parts.values))


@variants(_EITHER, _EITHER, _EITHER)
def _sum_of_rows(in_blocks: bool, by_app: bool, by_type: bool) -> Statement[tuple[int]]:
    rows = _rows("type", in_blocks, by_app, by_type)
    return Statement(Select([rows], [fn.COALESCE(fn.SUM(rows.c.activities), 0)]))


@variants(_EITHER, _EITHER)
def _sum_before(by_app: bool, by_type: bool) -> Statement[tuple[int]]:
    return Statement(
        _H.select(fn.COALESCE(fn.SUM(_H.activities), 0)).where(
            _H.hour >= slot("first"), _H.hour < slot("end"), *_scope(_H, by_app, by_type)
        )
    )


def _in_the_hour(conn: sqlite3.Connection, part: Slice, cut: Cut) -> int:
    """Count the activities of the cut's hour before the cut, from the raw rows."""
    return int(_IN_THE_HOUR.value(conn, start=cut.hour_start, end=cut.at, app=part.app, type=part.type))


def _name_of(key: str) -> Any:
    return Dimension.select(Dimension.name).where(Dimension.key == slot(key))


_IN_THE_HOUR = Statement(
    lambda: UserActivity.select(fn.COUNT(SQL("*"))).where(
        UserActivity.timestamp >= slot("start"),
        UserActivity.timestamp < slot("end"),
        UserActivity.seq <= RollupState.select(RollupState.through),
        (slot("app") == 0) | (UserActivity.app == _name_of("app")),
        (slot("type") == 0) | (UserActivity.activity_type == _name_of("type")),
    )
)


def sessions(
    conn: sqlite3.Connection, part: Slice, start_ms: int, end_ms: int, app: str | None, *, of_file: bool = False
) -> SessionSums:
    """Sum the sessions that began in the slice, which is from ``start_ms`` to before ``end_ms``; ``app`` is the name of
    its app. ``of_file``: by the stored rollup, not by a temporary one of another time zone."""
    if part.nothing:
        return NO_SESSIONS
    days = part.last if part.cut is None else part.last - 1
    ended = _ended(bool(part.app), of_file)
    parts = [ended.one(conn, app=part.app, first=part.first, last=days)]
    if part.cut is not None:  # sessions of the last day that began before the cut
        now = _sum_sessions(app is not None, False)
        parts.append(now.one(conn, start=part.cut.day_start, end=part.cut.at, app=app))
    now = _sum_sessions(app is not None, True)
    parts.append(now.one(conn, start=start_ms, end=end_ms if part.cut is None else part.cut.at, app=app))
    return SessionSums(*(sum(column) for column in zip(*filter(None, parts), strict=True)))


@variants(_EITHER, _EITHER)
def _ended(by_app: bool, of_file: bool) -> Statement[SessionSums]:
    days = Table("session_days", schema="main" if of_file else None)
    sums = [fn.COALESCE(fn.SUM(getattr(days.c, name)), 0).alias(name) for name in SessionSums._fields]
    where = days.c.day.between(slot("first"), slot("last")), *_scope(days.c, by_app)
    return Statement(days.select(*sums).where(*where), SessionSums)


_DURATION = "(COALESCE(end_time, last_seen) - start_time)"


@variants(_EITHER, _EITHER)
def _sum_sessions(by_app: bool, is_open: bool) -> TextStatement[SessionSums]:
    """Sum the open, or the ended, sessions that began from :start to before :end."""
    # Open sessions are few, but SQLite would choose the index by start and read all sessions of the days.
    by, state = (" INDEXED BY user_sessions_open", "IS NULL") if is_open else ("", "IS NOT NULL")
    engaged = ENGAGED.format(duration=_DURATION, pages="pages")
    return TextStatement(
        f"SELECT COUNT(*) AS sessions, COALESCE(SUM({_DURATION}), 0) AS duration, COALESCE(SUM(pages), 0) AS pages, "
        f"COALESCE(SUM({engaged}), 0) AS engaged FROM (SELECT *, {LIVE_PAGES} AS pages FROM user_sessions{by} "
        f"WHERE start_time >= :start AND start_time < :end AND end_time {state}{' AND app = :app' if by_app else ''})",
        SessionSums,
        reason="a join order",
    )


def by_day(conn: sqlite3.Connection, part: Slice) -> dict[int, DayTotals]:
    """Return day → totals, for days with any. Ignores a cut."""
    if part.nothing:
        return {}
    days = _sum_by_day(bool(part.app), bool(part.type))
    return {row.day: row for row in days.each(conn, type=part.type, app=part.app, first=part.first, last=part.last)}


@variants(_EITHER, _EITHER)
def _sum_by_day(by_app: bool, by_type: bool) -> Statement[DayTotals]:
    users = ActiveDay.select(ActiveDay.users).where(
        ActiveDay.type == slot("type"), ActiveDay.app == slot("app"), ActiveDay.day == _D.day
    )
    return Statement(
        _D.select(_D.day, fn.SUM(_D.activities).alias("activities"), fn.COALESCE(users, 0).alias("users"))
        .where(_D.kind == OTHER["type"], _D.day.between(slot("first"), slot("last")), *_scope(_D, by_app, by_type))
        .group_by(_D.day),
        DayTotals,
    )


def by_hour(conn: sqlite3.Connection, part: Slice) -> dict[int, int]:
    """Return local hour → activities, for hours with any."""
    if part.nothing:
        return {}
    rows = _sum_by_hour(bool(part.app), bool(part.type))
    return dict(rows.each(conn, first=part.first * 24, last=part.last * 24 + 23, app=part.app, type=part.type))


@variants(_EITHER, _EITHER)
def _sum_by_hour(by_app: bool, by_type: bool) -> Statement[_Count]:
    return Statement(
        _H.select(_H.hour.alias("key"), fn.SUM(_H.activities).alias("amount"))
        .where(_H.hour.between(slot("first"), slot("last")), *_scope(_H, by_app, by_type))
        .group_by(_H.hour),
        _Count,
    )


def sessions_by_day(conn: sqlite3.Connection, part: Slice) -> dict[int, int]:
    """Return day → ended sessions that began on it."""
    if part.nothing:
        return {}
    return dict(_sum_sessions_by_day(bool(part.app)).each(conn, first=part.first, last=part.last, app=part.app))


@variants(_EITHER)
def _sum_sessions_by_day(by_app: bool) -> Statement[_Count]:
    return Statement(
        SessionDay.select(SessionDay.day.alias("key"), fn.SUM(SessionDay.sessions).alias("amount"))
        .where(SessionDay.day.between(slot("first"), slot("last")), *_scope(SessionDay, by_app))
        .group_by(SessionDay.day),
        _Count,
    )


def open_starts(conn: sqlite3.Connection, app: str | None, start_ms: int, end_ms: int) -> list[int]:
    """Return the start times of open sessions that began from ``start_ms`` to before ``end_ms``."""
    return [start for (start,) in _OPEN_STARTS.each(conn, start=start_ms, end=end_ms, app=app)]


_OPEN_STARTS = Statement(
    lambda: (
        UserSession.select(UserSession.start_time)
        .from_(by_index(UserSession, "user_sessions_open"))
        .where(
            UserSession.end_time.is_null(),
            UserSession.start_time >= slot("start"),
            UserSession.start_time < slot("end"),
            any_or_same(UserSession.app),
        )
    )
)


def heat(conn: sqlite3.Connection, part: Slice) -> list[HourOfWeek]:
    """Return the hours of the week with any activities."""
    if part.nothing:
        return []
    parts = _parts(conn, part, "hour")
    return _heat(*parts.form).all(conn, **parts.values)


@variants(_EITHER, _EITHER, _EITHER)
def _heat(in_blocks: bool, by_app: bool, by_type: bool) -> Statement[HourOfWeek]:
    rows = _rows("hour", in_blocks, by_app, by_type)
    weekday = Expression(rows.c.key / 24 + 3, OP.MOD, 7)  # 1970-01-01 was a Thursday
    hour = Expression(rows.c.key, OP.MOD, 24)
    return Statement(
        Select(
            [rows],
            [weekday.alias("weekday"), hour.alias("hour"), fn.SUM(rows.c.activities).alias("activities")],
        ).group_by(SQL("1"), SQL("2")),
        HourOfWeek,
    )


def top(conn: sqlite3.Connection, kind: str, part: Slice, limit: int) -> tuple[list[tuple[str, int]], int]:
    """Return ``limit`` names of ``kind`` with the most activities, ties by name (an empty name: all others), and the
    sum over all names. By type, counts from before the rollup had types are left out."""
    if part.nothing:
        return [], 0
    parts = _parts(conn, part, kind)
    counts = _top(kind, *parts.form).all(conn, **parts.values)
    least = counts[min(limit, len(counts)) - 1].amount if counts else 0
    names = dict(_NAMES_OF.each(conn, keys=[row.key for row in counts if row.amount >= least]))
    shown = sorted((-row.amount, not names[row.key], names[row.key]) for row in counts if row.amount >= least)
    return [(name, -amount) for amount, _, name in shown[:limit]], sum(row.amount for row in counts)


@variants(("app", *_NAMES), _EITHER, _EITHER, _EITHER)
def _top(kind: str, in_blocks: bool, by_app: bool, by_type: bool) -> Statement[_Count]:
    rows = _rows(kind, in_blocks, by_app, by_type)
    return Statement(
        Select([rows], [rows.c.key, fn.SUM(rows.c.activities).alias("amount")])
        .group_by(rows.c.key)
        .order_by(SQL("2").desc()),
        _Count,
    )


_NAMES_OF = Statement(lambda: Dimension.select(*columns(Dimension, _Name)).where(among(Dimension.key, "keys")), _Name)


# --- days and blocks --------------------------------------------------------------------------------------------------


class _Parts(NamedTuple):
    """The form of a query over a slice's rows, and the values of its slots."""

    form: tuple[bool, bool, bool]
    values: dict[str, int]


def _rows(kind: str, in_blocks: bool, by_app: bool, by_type: bool) -> SelectBase:
    """Build the query for a ``key`` and the activities of a slice's rows: of its days, or of whole blocks and the days
    before and after them. ``kind``: a kind of names, or ``hour``."""
    of_hours = kind == "hour"
    days, blocks, unit = (_H, HourBlock, _H.hour) if of_hours else (_D, NameBlock, _D.day)
    column = kind if kind in {"app", "hour"} else "name"

    def select(source: Any, *where: Expression) -> SelectBase:
        # Apps are counted from the types' rows: each activity has one type and one app.
        of_kind = () if of_hours else (source.kind == OTHER["type" if kind == "app" else kind],)
        query: SelectBase = source.select(getattr(source, column).alias("key"), source.activities)
        return query.where(*of_kind, *where)

    spans = (("first", "last"), ("first_after", "last_after")) if in_blocks else (("first", "last"),)
    scope = _scope(days, by_app, by_type)
    parts = [select(days, unit.between(slot(first), slot(last)), *scope) for first, last in spans]
    if in_blocks:
        between = blocks.block.between(slot("first_block"), slot("last_block"))
        parts.append(select(blocks, *_scope(blocks, True, True), between))
    return reduce(SelectBase.union_all, parts)


def _parts(conn: sqlite3.Connection, part: Slice, kind: str) -> _Parts:
    """Choose whether a query of ``kind`` reads blocks."""
    first, last = part.first, part.last
    values = {"app": part.app, "type": part.type}
    blocks = None
    if kind != "app" and not (part.app and part.type):
        stored = _stored_days(kind).one(conn)
        blocks = None if stored is None else blocks_within(first, last, *stored)
    if blocks is not None:
        (first, last), (first_after, last_after) = blocks.left_over
        values |= {"first_block": blocks.first, "last_block": blocks.last}
        values |= _within(kind, first_after, last_after, "_after")
    values |= _within(kind, first, last)
    return _Parts((blocks is not None, bool(part.app), bool(part.type)), values)


def _within(kind: str, first: int, last: int, ending: str = "") -> dict[str, int]:
    """Return the bounds of days, or of their hours."""
    if kind == "hour":
        first, last = first * 24, last * 24 + 23
    return {f"first{ending}": first, f"last{ending}": last}


@variants((*_NAMES, "hour"))
def _stored_days(kind: str) -> Statement[_Stored]:
    def end(find: Any) -> SelectBase:
        if kind == "hour":
            return _H.select(find(_H.hour) / 24)
        return _D.select(find(_D.day)).where(_D.kind == OTHER[kind])

    return Statement(Select(columns=[end(fn.MIN).alias("oldest"), end(fn.MAX).alias("newest")]), _Stored)
