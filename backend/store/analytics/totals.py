"""Questions over the figures that sum: activities, sessions, names, hours. Answers are plain numbers and rows.

A ``Slice`` says which days, and how far into the last of them: for a period that is compared with one still running,
``cut`` is where the other has come to. Every question reads figures alone, except for the one hour that a cut goes
through, and sessions that are still open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from flashflow.backend.core.encoding import to_json
from flashflow.backend.store.activity.session_rollup import ENGAGED
from flashflow.backend.store.activity.session_table import LIVE_PAGES
from flashflow.backend.store.rollups.four_week_blocks import blocks_within
from flashflow.backend.store.rollups.schema import OTHER


class Cut(NamedTuple):
    """A moment inside the last day: ``at``, its local ``hour``, the start of that hour and the day's own."""

    at: int
    hour: int
    hour_start: int
    day_start: int


class Slice(NamedTuple):
    """Local days ``first`` to ``last``, both included; ``app`` and ``type`` as keys, 0 for all; -1: no such one."""

    first: int
    last: int
    app: int = 0
    type: int = 0
    cut: Cut | None = None

    @property
    def nothing(self) -> bool:
        """Whether it names an app or a type that no activity ever had."""
        return self.app < 0 or self.type < 0


class SessionSums(NamedTuple):
    """Sessions that began in a slice; ``duration`` in milliseconds over all of them."""

    sessions: int
    duration: int
    pages: int
    engaged: int


NO_SESSIONS = SessionSums(0, 0, 0, 0)
_DURATION = "(COALESCE(end_time, last_seen) - start_time)"
_SESSIONS_NOW = (
    f"SELECT COUNT(*), COALESCE(SUM({_DURATION}), 0), COALESCE(SUM(pages), 0), COALESCE(SUM("
    f"{ENGAGED.format(duration=_DURATION, pages='pages')}), 0) FROM (SELECT *, {LIVE_PAGES} AS pages "
    "FROM user_sessions{by} WHERE {where})"
)
OPEN = " INDEXED BY user_sessions_open"
"""Sessions still open are few: SQLite, which cannot know, would look through all that began in the days."""


def activities(conn: sqlite3.Connection, asked: Slice) -> int:
    """How many activities there were."""
    if asked.nothing:
        return 0
    whole = asked if asked.cut is None else asked._replace(last=asked.last - 1)
    of_types = f"WHERE kind = {OTHER['type']}"
    rows, values = _counted(conn, whole, "name", "day", f"name_days {of_types}", f"name_blocks {of_types}")
    (count,) = conn.execute(f"SELECT COALESCE(SUM(activities), 0) FROM ({rows})", values).fetchone()
    if asked.cut is None:
        return int(count)
    where, values = _scope(asked)
    (hours,) = conn.execute(
        f"SELECT COALESCE(SUM(activities), 0) FROM activity_hours WHERE hour >= ? AND hour < ?{where}",
        (asked.last * 24, asked.cut.hour, *values),
    ).fetchone()
    return int(count) + int(hours) + _in_the_hour(conn, asked, asked.cut)


def _in_the_hour(conn: sqlite3.Connection, asked: Slice, cut: Cut) -> int:
    """Activities of the hour that ``cut`` goes through, before it; by the bare rows."""
    (count,) = conn.execute(
        "SELECT COUNT(*) FROM user_activities WHERE timestamp >= ? AND timestamp < ? "
        "AND seq <= (SELECT through FROM figures_state) "
        "AND (? = 0 OR app = (SELECT name FROM figure_names WHERE key = ?)) "
        "AND (? = 0 OR activity_type = (SELECT name FROM figure_names WHERE key = ?))",
        (cut.hour_start, cut.at, asked.app, asked.app, asked.type, asked.type),
    ).fetchone()
    return int(count)


def sessions(
    conn: sqlite3.Connection, asked: Slice, start_ms: int, end_ms: int, app: str | None, kept: str = "session_days"
) -> SessionSums:  # fmt: skip
    """Sessions that began in the slice, whose first and last-plus-one milliseconds are given, with ``app`` by name;
    ``kept``: the table of those that are over."""
    if asked.nothing:
        return NO_SESSIONS
    days = asked.last if asked.cut is None else asked.last - 1
    parts = [_ended(conn, asked, days, kept)]
    named, name = ("", ()) if app is None else (" AND app = ?", (app,))
    if asked.cut is not None:  # of the last day's, those that had begun by then
        where = f"start_time >= ? AND start_time < ? AND end_time IS NOT NULL{named}"
        parts.append(_now(conn, where, (asked.cut.day_start, asked.cut.at, *name)))
    where = f"end_time IS NULL AND start_time >= ? AND start_time < ?{named}"
    parts.append(_now(conn, where, (start_ms, end_ms if asked.cut is None else asked.cut.at, *name), OPEN))
    return SessionSums(*(sum(column) for column in zip(*parts, strict=True)))


def _ended(conn: sqlite3.Connection, asked: Slice, last: int, kept: str) -> SessionSums:
    where, values = ("", ()) if not asked.app else (" AND app = ?", (asked.app,))
    row = conn.execute(
        "SELECT COALESCE(SUM(sessions), 0), COALESCE(SUM(duration), 0), COALESCE(SUM(pages), 0), "
        f"COALESCE(SUM(engaged), 0) FROM {kept} WHERE day BETWEEN ? AND ?{where}",
        (asked.first, last, *values),
    ).fetchone()
    return SessionSums(*row)


def _now(conn: sqlite3.Connection, where: str, values: tuple[Any, ...], by: str = "") -> SessionSums:
    return SessionSums(*conn.execute(_SESSIONS_NOW.replace("{where}", where).replace("{by}", by), values).fetchone())


def by_day(conn: sqlite3.Connection, asked: Slice) -> dict[int, tuple[int, int]]:
    """Day → activities and active users, for days that had any. A cut is not looked at."""
    if asked.nothing:
        return {}
    where, values = _scope(asked)
    counts = conn.execute(
        f"SELECT day, SUM(activities) FROM name_days WHERE kind = {OTHER['type']} AND day BETWEEN ? AND ?{where} "
        "GROUP BY 1",
        (asked.first, asked.last, *values),
    ).fetchall()
    users = dict(
        conn.execute(
            "SELECT day, users FROM active_days WHERE type = ? AND app = ? AND day BETWEEN ? AND ?",
            (asked.type, asked.app, asked.first, asked.last),
        ).fetchall()
    )
    return {day: (count, users.get(day, 0)) for day, count in counts}


def by_hour(conn: sqlite3.Connection, asked: Slice) -> dict[int, int]:
    """Local hour → activities, for hours that had any."""
    if asked.nothing:
        return {}
    where, values = _scope(asked)
    rows = conn.execute(
        f"SELECT hour, SUM(activities) FROM activity_hours WHERE hour BETWEEN ? AND ?{where} GROUP BY 1",
        (asked.first * 24, asked.last * 24 + 23, *values),
    )
    return dict(rows.fetchall())


def sessions_by_day(conn: sqlite3.Connection, asked: Slice) -> dict[int, int]:
    """Day → sessions that began on it and are over."""
    if asked.nothing:
        return {}
    where, values = ("", ()) if not asked.app else (" AND app = ?", (asked.app,))
    rows = conn.execute(
        f"SELECT day, SUM(sessions) FROM session_days WHERE day BETWEEN ? AND ?{where} GROUP BY 1",
        (asked.first, asked.last, *values),
    )
    return dict(rows.fetchall())


def open_starts(conn: sqlite3.Connection, app: str | None, start_ms: int, end_ms: int) -> list[int]:
    """When the sessions that are still open began."""
    rows = conn.execute(
        f"SELECT start_time FROM user_sessions{OPEN} WHERE end_time IS NULL AND start_time >= ? AND start_time < ? "
        "AND (? IS NULL OR app = ?)",
        (start_ms, end_ms, app, app),
    )
    return [start for (start,) in rows]


def heat(conn: sqlite3.Connection, asked: Slice) -> list[tuple[int, int, int]]:
    """(weekday from Monday 0, hour, activities) for every hour of the week that had any."""
    if asked.nothing:
        return []
    rows, values = _counted(conn, asked, "hour", "hour", "activity_hours WHERE true", "hour_blocks WHERE true")
    # 1970-01-01 was a Thursday.
    return conn.execute(
        f"SELECT (hour / 24 + 3) % 7, hour % 24, SUM(activities) FROM ({rows}) GROUP BY 1, 2", values
    ).fetchall()


def top(conn: sqlite3.Connection, kind: str, asked: Slice, limit: int) -> tuple[list[tuple[str, int]], int]:
    """The names of ``kind`` with the most activities (an empty name: all others), equal ones by name, and the sum over
    all names. Of a type alone what was counted before types were is left out."""
    if asked.nothing:
        return [], 0
    # Apps are told by the types' rows: each activity has one type and one app.
    column, stored = ("app", "type") if kind == "app" else ("name", kind)
    of_kind = f"WHERE kind = {OTHER[stored]}"
    blocks = None if kind == "app" else f"name_blocks {of_kind}"
    rows, values = _counted(conn, asked, column, "day", f"name_days {of_kind}", blocks)
    counts = conn.execute(
        f"SELECT {column}, SUM(activities) AS n FROM ({rows}) GROUP BY 1 ORDER BY 2 DESC", values
    ).fetchall()
    least = counts[min(limit, len(counts)) - 1][1] if counts else 0
    among = to_json([key for key, n in counts if n >= least])
    names = dict(conn.execute(_NAMES, (among,)).fetchall())
    shown = sorted(
        ((names[key], n) for key, n in counts if n >= least), key=lambda pair: (-pair[1], not pair[0], pair[0])
    )
    return shown[:limit], sum(n for _, n in counts)


_NAMES = "SELECT n.key, n.name FROM json_each(?) k CROSS JOIN figure_names n ON n.key = k.value"


def _counted(
    conn: sqlite3.Connection, asked: Slice, what: str, moment: str, days: str, blocks: str | None
) -> tuple[str, tuple[int, ...]]:
    """SQL for the column ``what`` and the activities of a slice's rows, and its values: of whole ``blocks``, where
    these will do, and of ``days``, whose rows are by the ``moment`` (``day`` or ``hour``)."""
    unit = 24 if moment == "hour" else 1
    parts: list[str] = []
    bounds: list[int] = []
    spans: Sequence[tuple[int, int]] = ((asked.first, asked.last),)
    if blocks is not None and not (asked.app and asked.type):
        reach = conn.execute(
            f"SELECT (SELECT MIN({moment}) FROM {days}) / {unit}, (SELECT MAX({moment}) FROM {days}) / {unit}"
        ).fetchone()
        if found := blocks_within(asked.first, asked.last, *reach):
            parts.append(f"SELECT {what}, activities FROM {blocks} AND app = ? AND type = ? AND block BETWEEN ? AND ?")
            bounds += (asked.app, asked.type, found.first, found.last)
            spans = found.left_over
    where, values = _scope(asked)
    for first, last in spans:
        parts.append(f"SELECT {what}, activities FROM {days} AND {moment} BETWEEN ? AND ?{where}")
        bounds += (first * unit, last * unit + unit - 1, *values)
    return " UNION ALL ".join(parts), tuple(bounds)


def _scope(asked: Slice) -> tuple[str, tuple[int, ...]]:
    """The conditions on app and type of ``activity_hours`` and ``name_days``."""
    where, values = "", []
    for column, key in (("app", asked.app), ("type", asked.type)):
        if key:
            where += f" AND {column} = ?"
            values.append(key)
    return where, tuple(values)
