"""Queries over the rollups that sum: activities, sessions, names, hours.

The comparison range of a period that is not over is cut at the current time of day (``Slice.cut``). The queries read
rollups only, except for the hour of a cut and for open sessions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from peewee import SQL, fn

from flashflow.backend.store.activity.models import UserActivity
from flashflow.backend.store.activity.session_rollup import ENGAGED
from flashflow.backend.store.activity.session_table import LIVE_PAGES
from flashflow.backend.store.engine.statement import Statement, TextStatement, among, columns, slot
from flashflow.backend.store.rollups.four_week_blocks import blocks_within
from flashflow.backend.store.rollups.models import OTHER, ActiveDay, Dimension, RollupState


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


class _Users(NamedTuple):
    day: int
    users: int


class _Name(NamedTuple):
    key: int
    name: str


NO_SESSIONS = SessionSums(0, 0, 0, 0)
_DURATION = "(COALESCE(end_time, last_seen) - start_time)"
_SESSIONS_NOW = (
    f"SELECT COUNT(*), COALESCE(SUM({_DURATION}), 0), COALESCE(SUM(pages), 0), COALESCE(SUM("
    f"{ENGAGED.format(duration=_DURATION, pages='pages')}), 0) FROM (SELECT *, {LIVE_PAGES} AS pages "
    "FROM user_sessions{by} WHERE {where})"
)
OPEN = " INDEXED BY user_sessions_open"
"""Open sessions are few, but SQLite would choose the index by start and read all sessions of the days."""


def activities(conn: sqlite3.Connection, part: Slice) -> int:
    """Count the activities of a slice."""
    if part.nothing:
        return 0
    whole = part if part.cut is None else part._replace(last=part.last - 1)
    of_types = f"WHERE kind = {OTHER['type']}"
    rows, values = _counted(conn, whole, "name", "day", f"name_days {of_types}", f"name_blocks {of_types}")
    (count,) = conn.execute(f"SELECT COALESCE(SUM(activities), 0) FROM ({rows})", values).fetchone()
    if part.cut is None:
        return int(count)
    where, values = _scope(part)
    (hours,) = conn.execute(
        f"SELECT COALESCE(SUM(activities), 0) FROM activity_hours WHERE hour >= ? AND hour < ?{where}",
        (part.last * 24, part.cut.hour, *values),
    ).fetchone()
    return int(count) + int(hours) + _in_the_hour(conn, part, part.cut)


def _in_the_hour(conn: sqlite3.Connection, part: Slice, cut: Cut) -> int:
    """Count the activities of the cut's hour before the cut, from the raw rows."""
    return int(_IN_THE_HOUR.value(conn, start=cut.hour_start, end=cut.at, app=part.app, type=part.type))


def _name_of(key: str) -> Any:
    return Dimension.select(Dimension.name).where(Dimension.key == slot(key))


_IN_THE_HOUR = Statement(
    UserActivity.select(fn.COUNT(SQL("*"))).where(
        UserActivity.timestamp >= slot("start"),
        UserActivity.timestamp < slot("end"),
        UserActivity.seq <= RollupState.select(RollupState.through),
        (slot("app") == 0) | (UserActivity.app == _name_of("app")),
        (slot("type") == 0) | (UserActivity.activity_type == _name_of("type")),
    )
)


def sessions(
    conn: sqlite3.Connection, part: Slice, start_ms: int, end_ms: int, app: str | None, kept: str = "session_days"
) -> SessionSums:  # fmt: skip
    """Sum the sessions that began in the slice, which is from ``start_ms`` to before ``end_ms``; ``app`` is the name of
    its app, ``kept`` the rollup of ended sessions."""
    if part.nothing:
        return NO_SESSIONS
    days = part.last if part.cut is None else part.last - 1
    parts = [_ended(conn, part, days, kept)]
    named, name = ("", ()) if app is None else (" AND app = ?", (app,))
    if part.cut is not None:  # sessions of the last day that began before the cut
        where = f"start_time >= ? AND start_time < ? AND end_time IS NOT NULL{named}"
        parts.append(_now(conn, where, (part.cut.day_start, part.cut.at, *name)))
    where = f"end_time IS NULL AND start_time >= ? AND start_time < ?{named}"
    parts.append(_now(conn, where, (start_ms, end_ms if part.cut is None else part.cut.at, *name), OPEN))
    return SessionSums(*(sum(column) for column in zip(*parts, strict=True)))


def _ended(conn: sqlite3.Connection, part: Slice, last: int, kept: str) -> SessionSums:
    where, values = ("", ()) if not part.app else (" AND app = ?", (part.app,))
    row = conn.execute(
        "SELECT COALESCE(SUM(sessions), 0), COALESCE(SUM(duration), 0), COALESCE(SUM(pages), 0), "
        f"COALESCE(SUM(engaged), 0) FROM {kept} WHERE day BETWEEN ? AND ?{where}",
        (part.first, last, *values),
    ).fetchone()
    return SessionSums(*row)


def _now(conn: sqlite3.Connection, where: str, values: tuple[Any, ...], by: str = "") -> SessionSums:
    return SessionSums(*conn.execute(_SESSIONS_NOW.replace("{where}", where).replace("{by}", by), values).fetchone())


def by_day(conn: sqlite3.Connection, part: Slice) -> dict[int, tuple[int, int]]:
    """Return day → activities and active users, for days with any. Ignores a cut."""
    if part.nothing:
        return {}
    where, values = _scope(part)
    counts = conn.execute(
        f"SELECT day, SUM(activities) FROM name_days WHERE kind = {OTHER['type']} AND day BETWEEN ? AND ?{where} "
        "GROUP BY 1",
        (part.first, part.last, *values),
    ).fetchall()
    users = dict(_USERS.each(conn, type=part.type, app=part.app, first=part.first, last=part.last))
    return {day: (count, users.get(day, 0)) for day, count in counts}


_USERS = Statement(
    ActiveDay.select(*columns(ActiveDay, _Users)).where(
        ActiveDay.type == slot("type"),
        ActiveDay.app == slot("app"),
        ActiveDay.day.between(slot("first"), slot("last")),
    ),
    _Users,
)


def by_hour(conn: sqlite3.Connection, part: Slice) -> dict[int, int]:
    """Return local hour → activities, for hours with any."""
    if part.nothing:
        return {}
    where, values = _scope(part)
    rows = conn.execute(
        f"SELECT hour, SUM(activities) FROM activity_hours WHERE hour BETWEEN ? AND ?{where} GROUP BY 1",
        (part.first * 24, part.last * 24 + 23, *values),
    )
    return dict(rows.fetchall())


def sessions_by_day(conn: sqlite3.Connection, part: Slice) -> dict[int, int]:
    """Return day → ended sessions that began on it."""
    if part.nothing:
        return {}
    where, values = ("", ()) if not part.app else (" AND app = ?", (part.app,))
    rows = conn.execute(
        f"SELECT day, SUM(sessions) FROM session_days WHERE day BETWEEN ? AND ?{where} GROUP BY 1",
        (part.first, part.last, *values),
    )
    return dict(rows.fetchall())


def open_starts(conn: sqlite3.Connection, app: str | None, start_ms: int, end_ms: int) -> list[int]:
    """Return the start times of open sessions that began from ``start_ms`` to before ``end_ms``."""
    return [start for (start,) in _OPEN_STARTS.each(conn, start=start_ms, end=end_ms, app=app)]


_OPEN_STARTS = TextStatement(
    f"SELECT start_time FROM user_sessions{OPEN} WHERE end_time IS NULL AND start_time >= :start "
    "AND start_time < :end AND (:app IS NULL OR app = :app)",
    reason="an index hint",
)


def heat(conn: sqlite3.Connection, part: Slice) -> list[tuple[int, int, int]]:
    """Return (weekday, Monday is 0; hour; activities) for every hour of the week with any."""
    if part.nothing:
        return []
    rows, values = _counted(conn, part, "hour", "hour", "activity_hours WHERE true", "hour_blocks WHERE true")
    # 1970-01-01 was a Thursday.
    return conn.execute(
        f"SELECT (hour / 24 + 3) % 7, hour % 24, SUM(activities) FROM ({rows}) GROUP BY 1, 2", values
    ).fetchall()


def top(conn: sqlite3.Connection, kind: str, part: Slice, limit: int) -> tuple[list[tuple[str, int]], int]:
    """Return ``limit`` names of ``kind`` with the most activities, ties by name (an empty name: all others), and the
    sum over all names. By type, counts from before the rollup had types are left out."""
    if part.nothing:
        return [], 0
    # Apps are counted from the types' rows: each activity has one type and one app.
    column, stored = ("app", "type") if kind == "app" else ("name", kind)
    of_kind = f"WHERE kind = {OTHER[stored]}"
    blocks = None if kind == "app" else f"name_blocks {of_kind}"
    rows, values = _counted(conn, part, column, "day", f"name_days {of_kind}", blocks)
    counts = conn.execute(
        f"SELECT {column}, SUM(activities) AS n FROM ({rows}) GROUP BY 1 ORDER BY 2 DESC", values
    ).fetchall()
    least = counts[min(limit, len(counts)) - 1][1] if counts else 0
    names = dict(_NAMES.each(conn, keys=[key for key, n in counts if n >= least]))
    shown = sorted(
        ((names[key], n) for key, n in counts if n >= least), key=lambda pair: (-pair[1], not pair[0], pair[0])
    )
    return shown[:limit], sum(n for _, n in counts)


_NAMES = Statement(Dimension.select(*columns(Dimension, _Name)).where(among(Dimension.key, "keys")), _Name)


# The statements over names, hours and sessions below stay text: each is put together from days or blocks, one or two
# ranges, with or without an app and a type. Building the text costs less than a look-up among so many constants.
def _counted(
    conn: sqlite3.Connection, part: Slice, what: str, unit: str, days: str, blocks: str | None
) -> tuple[str, tuple[int, ...]]:
    """Build SQL for the column ``what`` and the activities of a slice's rows, and its values: from whole ``blocks`` and
    from ``days``, whose rows are by ``unit`` (``day`` or ``hour``)."""
    per_day = 24 if unit == "hour" else 1
    parts: list[str] = []
    bounds: list[int] = []
    spans: Sequence[tuple[int, int]] = ((part.first, part.last),)
    if blocks is not None and not (part.app and part.type):
        stored = conn.execute(
            f"SELECT (SELECT MIN({unit}) FROM {days}) / {per_day}, (SELECT MAX({unit}) FROM {days}) / {per_day}"
        ).fetchone()
        if found := blocks_within(part.first, part.last, *stored):
            parts.append(f"SELECT {what}, activities FROM {blocks} AND app = ? AND type = ? AND block BETWEEN ? AND ?")
            bounds += (part.app, part.type, found.first, found.last)
            spans = found.left_over
    where, values = _scope(part)
    for first, last in spans:
        parts.append(f"SELECT {what}, activities FROM {days} AND {unit} BETWEEN ? AND ?{where}")
        bounds += (first * per_day, last * per_day + per_day - 1, *values)
    return " UNION ALL ".join(parts), tuple(bounds)


def _scope(part: Slice) -> tuple[str, tuple[int, ...]]:
    """Build the conditions on app and type of ``activity_hours`` and ``name_days``, and their values."""
    where, values = "", []
    for column, key in (("app", part.app), ("type", part.type)):
        if key:
            where += f" AND {column} = ?"
            values.append(key)
    return where, tuple(values)
