"""Queries over the rollups by user: active and new users, retention cohorts, funnels, the user list."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from peewee import JOIN, fn

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.core.encoding import to_json
from flashflow.backend.store.analytics.totals import Slice
from flashflow.backend.store.engine.statement import Statement, TextStatement, slot
from flashflow.backend.store.rollups.models import ActiveDay, CohortDay, UserKey, UserSpan
from flashflow.backend.store.rollups.packed_timestamps import COLUMN as PACKED
from flashflow.backend.store.rollups.partitions import between
from flashflow.backend.store.rollups.schema import FIRST, LAST, OF_USER, week_of

FEW_DAYS = 32
"""Up to this many days, reading all users' days is faster than looking up each user."""
LOOK = 1.2
"""The cost of looking up a user relative to reading a row (0.5 and 0.4 µs)."""


# The statements of active users and of the user list stay text: each is put together from the conditions below, which
# need a fixed join order, and is one of few texts.
def active_users(conn: sqlite3.Connection, part: Slice) -> int:
    """Count distinct users with an activity in the slice."""
    if part.nothing:
        return 0
    if part.first == part.last and part.cut is None:
        return daily_users(conn, part)
    few = part.last - part.first < FEW_DAYS
    if part.type:
        sql = _OF_TYPE_READ if _is_read_faster(conn, part) else _OF_TYPE_LOOKED_UP
    elif part.cut is None and part.last >= (conn.execute("SELECT MAX(day) FROM user_days").fetchone()[0] or 0):
        # No activity is later than the slice: users last seen on or after its first day were active in it.
        sql = "SELECT COUNT(*) FROM user_spans WHERE app = :app AND last_day >= :first"
    else:
        sql = _READ if few else _LOOKED_UP
    until = "" if part.cut is None else f" AND (d.day < :last OR {FIRST} < :cut)"
    (count,) = conn.execute(sql.replace("{until}", until), _values(part)).fetchone()
    return int(count)


_OF_TYPE = "type_weeks t CROSS JOIN user_type_days d ON d.week = t.week AND d.type = t.type"
_IN_APP = "(:app = 0 OR d.app = :app)"
_MEANWHILE = "s.app = :app AND s.last_day >= :first AND s.first_day <= :last"
# Users first or last seen within the days were active; for the others each day between is looked up.
_CAME = (
    "(s.last_day <= :whole OR s.first_day BETWEEN :first AND :whole OR EXISTS (SELECT 1 FROM "
    f"{OF_USER} AND d.user = s.user WHERE t.day BETWEEN :first AND :last{{until}} AND {_IN_APP}))"
)
_READ = f"SELECT COUNT(DISTINCT d.user) FROM user_days d WHERE d.day BETWEEN :first AND :last{{until}} AND {_IN_APP}"
_LOOKED_UP = f"SELECT COUNT(*) FROM user_spans s WHERE {_MEANWHILE} AND {_CAME}"
_OF_TYPE_READ = (
    f"SELECT COUNT(DISTINCT d.user) FROM {_OF_TYPE} AND d.day BETWEEN :first AND :last{{until}} "
    f"WHERE t.type = :type AND t.week BETWEEN {week_of(':first')} AND {week_of(':last')} AND {_IN_APP}"
)
_OF_TYPE_LOOKED_UP = (
    f"SELECT COUNT(*) FROM user_spans s WHERE {_MEANWHILE} AND EXISTS "
    f"(SELECT 1 FROM {_OF_TYPE} AND d.user = s.user AND d.day BETWEEN :first AND :last{{until}} WHERE t.type = :type "
    f"AND t.week BETWEEN {week_of('MAX(:first, s.first_day)')} AND {week_of('MIN(:last, s.last_day)')} AND {_IN_APP})"
)


def _is_read_faster(conn: sqlite3.Connection, part: Slice) -> bool:
    """Whether reading every row of the slice's type is faster than looking up each user week by week until a row is
    found: a rare type has few rows, and most weeks have none of a user. An estimate, always from the stored tables."""
    users, new, weeks, there, rows = conn.execute(
        f"SELECT COUNT(*), TOTAL(s.first_day >= :first), (SELECT COUNT(*) FROM main.type_weeks WHERE type = :type "
        f"AND week BETWEEN {week_of(':first')} AND {week_of(':last')}), {_USER_DAYS.format(type=0)}, "
        f"{_USER_DAYS.format(type=':type')} FROM main.user_spans s WHERE {_MEANWHILE}",
        _values(part),
    ).fetchone()
    if not rows:
        return True
    # The share of a user's active days with the type, and the weeks between a user's active days.
    share, apart = min(1, rows / max(there, 1)), max(1, weeks * users / max(there, 1))
    of_new, of_others = 1 + (1 - share) * apart / share, apart / share
    looks = new * min(weeks, of_new) + (users - new) * min(weeks, of_others)
    return bool(rows <= looks * LOOK)


_USER_DAYS = (
    "(SELECT TOTAL(users) FROM main.active_days WHERE type = {type} AND app = :app AND day BETWEEN :first AND :last)"
)


def _values(part: Slice) -> dict[str, int | None]:
    """Return the parameters of the statements above; ``whole``: the last day that is not cut."""
    cut = None if part.cut is None else part.cut.at
    whole = part.last if cut is None else part.last - 1
    first, last, app, kind, _ = part
    return {"first": first, "last": last, "app": app, "type": kind, "cut": cut, "whole": whole}


def new_users(conn: sqlite3.Connection, part: Slice) -> int:
    """Count users whose first activity ever is in the slice."""
    if part.nothing:
        return 0
    values = _values(part)
    count = int(_NEW.value(conn, app=part.app, first=part.first, last=values["whole"]))
    return count if part.cut is None else count + int(_NEW_BEFORE_CUT.value(conn, **values))


def daily_users(conn: sqlite3.Connection, part: Slice) -> int:
    """Return the sum of each day's active users."""
    if part.nothing:
        return 0
    return int(_DAILY.value(conn, type=part.type, app=part.app, first=part.first, last=part.last))


_A, _C, _S = ActiveDay, CohortDay, UserSpan
_DAILY = Statement(
    _A.select(fn.COALESCE(fn.SUM(_A.users), 0)).where(
        _A.type == slot("type"), _A.app == slot("app"), _A.day.between(slot("first"), slot("last"))
    )
)
_NEW = Statement(
    _A.select(fn.COALESCE(fn.SUM(_C.users), 0))
    .join(_C, JOIN.CROSS)
    .where(
        _C.app == _A.app,
        _C.first_day == _A.day,
        _C.day == _A.day,
        _A.type == 0,
        _A.app == slot("app"),
        _A.day.between(slot("first"), slot("last")),
    )
)
_NEW_BEFORE_CUT = TextStatement(
    "SELECT COUNT(DISTINCT d.user) FROM user_days d JOIN user_spans s ON s.app = :app AND s.user = d.user "
    f"AND s.first_day = d.day WHERE d.day = :last AND {FIRST} < :cut AND {_IN_APP}",
    reason="SQL shared by the queries of users",
)


# --- retention --------------------------------------------------------------------------------------------------------


class _Size(NamedTuple):
    first_day: int
    users: int


class _Share(NamedTuple):
    """The users of a cohort on the day ``later`` days after its first."""

    first_day: int
    later: int
    users: int


_FIRST_DAYS = slot("first"), slot("last")
_SIZES = Statement(
    _S.select(_S.first_day, fn.COUNT(_S.user).alias("users"))
    .where(_S.app == slot("app"), _S.first_day.between(*_FIRST_DAYS))
    .group_by(_S.first_day),
    _Size,
)
_RETURNED = Statement(
    _C.select(_C.first_day, (_C.day - _C.first_day).alias("later"), _C.users).where(
        _C.app == slot("app"), _C.first_day.between(*_FIRST_DAYS), _C.day <= _C.first_day + slot("days")
    ),
    _Share,
)
_LAST_SEEN = Statement(
    _S.select(_S.first_day, (_S.last_day - _S.first_day).alias("later"), fn.COUNT(_S.user).alias("users"))
    .where(_S.app == slot("app"), _S.first_day.between(*_FIRST_DAYS))
    .group_by(_S.first_day, _S.last_day - _S.first_day),
    _Share,
)


def cohort_sizes(conn: sqlite3.Connection, part: Slice) -> dict[int, int]:
    """Return first day → number of users first active on it."""
    return dict(_SIZES.each(conn, app=part.app, first=part.first, last=part.last))


def returned_on(conn: sqlite3.Connection, part: Slice, days: int) -> dict[tuple[int, int], int]:
    """Return (first day, N) → number of the cohort's users active on the N-th day after it."""
    rows = _RETURNED.each(conn, app=part.app, first=part.first, last=part.last, days=days)
    return {(row.first_day, row.later): row.users for row in rows}


def last_seen_after(conn: sqlite3.Connection, part: Slice) -> dict[tuple[int, int], int]:
    """Return (first day, N) → number of the cohort's users last active on the N-th day after it."""
    rows = _LAST_SEEN.each(conn, app=part.app, first=part.first, last=part.last)
    return {(row.first_day, row.later): row.users for row in rows}


# --- funnel -----------------------------------------------------------------------------------------------------------

# One statement computes the whole funnel; it stays text, because the number of steps makes its shape. Each step is a
# column with the local day and the timestamp in one number (the day above _DAY bits of milliseconds), so that one index
# look-up finds both.
_DAY = 48
_TIMESTAMP = (1 << _DAY) - 1
_THAT_WEEK = (
    f"d.week = {week_of('{since}')} AND d.type = {{type}} AND d.user = {{user}} "
    "AND d.day BETWEEN {since} AND {until}{more}"
)
_LATER = (
    f"{_OF_TYPE} AND d.user = {{user}} AND d.day <= {{until}}{{more}} WHERE t.type = {{type}} "
    f"AND t.week > {week_of('{since}')} AND t.week <= {week_of('{until}')}"
)
_WHEN = f"(d.day << {_DAY}) + {{timestamp}}"
_EARLIEST = (
    f"COALESCE((SELECT {_WHEN} FROM user_type_days d WHERE {_THAT_WEEK} ORDER BY d.day LIMIT 1), "
    f"(SELECT {_WHEN} FROM {_LATER} ORDER BY t.week, d.day LIMIT 1))"
)
# Where users use several apps, a day has a row for each.
_EARLIEST_OF_ALL = (
    f"COALESCE((SELECT MIN({_WHEN}) FROM user_type_days d WHERE {_THAT_WEEK}), "
    f"(SELECT MIN({_WHEN}) FROM {_LATER} GROUP BY t.week ORDER BY t.week LIMIT 1))"
)
# The first timestamp after {then} of a day's activities. For a day with more activities than are packed, it is read
# from the raw rows.
_NEXT = (
    f"CASE WHEN {FIRST} > {{then}} THEN {FIRST} WHEN d.activities = 2 THEN {LAST} "
    f"WHEN d.{PACKED} IS NOT NULL THEN timestamp_after({FIRST}, d.span, d.{PACKED}, {{then}}) ELSE "
    "(SELECT a.timestamp FROM activity_partitions t "
    "CROSS JOIN activities_by_user p ON p.partition = t.partition AND p.user = d.user "
    "CROSS JOIN user_activities a ON a.seq = p.seq WHERE {within} AND a.activity_type = {name}{app} "
    "ORDER BY t.partition, p.at LIMIT 1) END"
)
_ROW_BY_ROW = " LIMIT -1"
"""Keeps SQLite from flattening a subquery: its columns are computed once a row, and its rows are not materialised."""


class FunnelCounts(NamedTuple):
    """Number of users of the first step; for each later step the milliseconds since the step before, of each user who
    took it; the keys of some users who stopped before one step."""

    began: int
    spent: tuple[list[int], ...]
    dropped: list[int]


def walk(
    conn: sqlite3.Connection,
    types: Sequence[int],
    part: Slice,
    window_days: int,
    dropped_at: int | None = None,
    limit: int = 0,
    between_ms: tuple[int, int] | None = None,
) -> FunnelCounts:
    """Follow every user who took the first step in the slice through the steps ``types`` (keys).

    A step counts within ``window_days`` of the first. ``dropped_at`` is the index of a step, from 0. ``between_ms``
    limits the first step to a start and end in milliseconds since 1970, the end excluded (None: the whole slice).
    """
    if part.app < 0 or types[0] < 0:
        return FunnelCounts(0, tuple([] for _ in types[1:]), [])
    app = part.app
    (several,) = conn.execute(
        "SELECT (SELECT COUNT(*) FROM user_spans WHERE app > 0) > (SELECT COUNT(*) FROM user_spans WHERE app = 0)"
    ).fetchone()
    earliest = _EARLIEST_OF_ALL if several and not app else _EARLIEST
    of_app = f" AND d.app = {app}" if app else ""
    timestamp, more = FIRST, of_app
    if between_ms is not None:
        before = str(between_ms[0] - 1)
        timestamp, more = _next_after(before, types[0], app), f"{of_app} AND {LAST} > {before}"
    if _is_read_faster(conn, part._replace(type=types[0])):
        rows = (
            f"SELECT d.user AS user, MIN({_WHEN.format(timestamp=timestamp)}) AS at0 FROM {_OF_TYPE} "
            f"AND d.day BETWEEN {part.first} AND {part.last}{more} WHERE t.type = {types[0]} "
            f"AND t.week BETWEEN {week_of(str(part.first))} AND {week_of(str(part.last))} GROUP BY d.user"
        )
    else:
        first = earliest.format(
            type=types[0], user="s.user", timestamp=timestamp, more=more,
            since=f"MAX({part.first}, s.first_day)", until=f"MIN({part.last}, s.last_day)",
        )  # fmt: skip
        rows = (
            f"SELECT s.user AS user, {first} AS at0 FROM user_spans s "
            f"WHERE s.app = {app} AND s.last_day >= {part.first} AND s.first_day <= {part.last}"
        )
    if between_ms is not None:
        within = f"at0 & {_TIMESTAMP} < {between_ms[1]}"
        rows = f"SELECT user, CASE WHEN {within} THEN at0 END AS at0 FROM ({rows}{_ROW_BY_ROW})"
    over = f"(at0 & {_TIMESTAMP}) + {window_days * DAY_MS}"
    for n, kind in enumerate(types[1:], 1):
        then = f"(at{n - 1} & {_TIMESTAMP})"
        following = earliest.format(
            type=kind, user="w.user", timestamp=_next_after(then, kind, app), more=f"{of_app} AND {LAST} > {then}",
            since=f"(at{n - 1} >> {_DAY})", until=f"(at0 >> {_DAY}) + {window_days + 1}",
        )  # fmt: skip
        rows = f"SELECT w.*, CASE WHEN {then} <= {over} THEN {following} END AS at{n} FROM ({rows}{_ROW_BY_ROW}) w"
    took = [f"at{n} IS NOT NULL AND at{n} & {_TIMESTAMP} <= {over}" for n in range(len(types))]
    answers = ["COUNT(at0)"]
    for n in range(1, len(types)):
        needed = f"(at{n} & {_TIMESTAMP}) - (at{n - 1} & {_TIMESTAMP})"
        answers.append(f"json_group_array({needed}) FILTER (WHERE {took[n]})")
    if dropped_at is not None:
        stopped = f"{took[dropped_at - 1]} AND NOT ({took[dropped_at]})"
        answers.append(f"json_group_array(user) FILTER (WHERE {stopped})")
    began, *lists = conn.execute(f"SELECT {', '.join(answers)} FROM ({rows}{_ROW_BY_ROW})").fetchone()
    numbers = [msgspec.json.decode(text, type=list[int]) for text in lists]
    return FunnelCounts(began, tuple(numbers[: len(types) - 1]), numbers[-1][:limit] if dropped_at is not None else [])


def _next_after(then: str, kind: int, app: int) -> str:
    """Build SQL for the first timestamp after ``then`` of a row ``d``, whose last one is after ``then``."""
    return _NEXT.format(
        then=then,
        within=between(f"{then} + 1", LAST),
        name=f"(SELECT name FROM dimensions WHERE key = {kind})",
        app=f" AND a.app = (SELECT name FROM dimensions WHERE key = {app})" if app else "",
    )


def user_ids(conn: sqlite3.Connection, keys: Sequence[int]) -> list[str]:
    """Return the ids of users in the order of ``keys``."""
    return [_USER_ID.value(conn, key=key) for key in keys]


_USER_ID = Statement(UserKey.select(UserKey.user_id).where(UserKey.key == slot("key")))


# --- users ------------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A user with the local days of the first and the last activity in the slice's app."""

    user_id: str
    first_day: int
    last_day: int


def seen_users(
    conn: sqlite3.Connection, part: Slice, limit: int, after: tuple[int, int] | None
) -> list[tuple[Seen, int]]:
    """Return users active in the slice, latest seen first, each with its key; ``after`` is the (last day, key) of the
    previous page's last user."""
    if part.nothing:
        return []
    where = "" if after is None else " AND (s.last_day, s.user) < (:seen, :key)"
    rows = conn.execute(
        "SELECT u.user_id, s.first_day, s.last_day, s.user FROM user_spans s JOIN user_keys u ON u.key = s.user "
        f"WHERE {_MEANWHILE} AND {_CAME.format(until='')}{where} ORDER BY s.last_day DESC, s.user DESC LIMIT :limit",
        _values(part) | {"limit": limit} | dict(zip(("seen", "key"), after or (), strict=False)),
    )
    return [(Seen(user_id, first, last), key) for user_id, first, last, key in rows]


def first_activity_at(conn: sqlite3.Connection, app: int, user: int) -> int:
    """Return the time of a user's first activity in an app (0: in any), by the stored rollups."""
    return int(_FIRST_ACTIVITY.value(conn, app=app, user=user))


_FIRST_ACTIVITY = TextStatement(
    f"SELECT MIN({FIRST}) FROM main.user_spans s JOIN main.user_days d ON d.day = s.first_day AND d.user = s.user "
    f"WHERE s.app = :app AND s.user = :user AND {_IN_APP}",
    reason="a table of the main file behind a temporary one",
)


def count_by_user(conn: sqlite3.Connection, part: Slice, keys: Sequence[int]) -> dict[int, int]:
    """Count each user's activities in the slice's days."""
    return dict(_BY_USER.each(conn, users=to_json(keys), first=part.first, last=part.last, app=part.app))


class _OfUser(NamedTuple):
    user: int
    activities: int


_BY_USER = TextStatement(
    f"SELECT d.user, SUM(d.activities) AS activities FROM json_each(:users) k CROSS JOIN {OF_USER} "
    f"AND d.user = k.value AND t.day BETWEEN :first AND :last WHERE {_IN_APP} GROUP BY 1",
    _OfUser,
    reason="a join order",
)
