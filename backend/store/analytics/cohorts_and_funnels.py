"""Queries over the rollups by user: active and new users, retention cohorts, funnels, the user list."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from peewee import JOIN, SQL, Expression, Select, fn

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.analytics.totals import Slice
from flashflow.backend.store.engine.statement import Statement, TextStatement, slot, variants
from flashflow.backend.store.rollups.models import ActiveDay, CohortDay, UserDay, UserKey, UserSpan
from flashflow.backend.store.rollups.packed_timestamps import COLUMN as PACKED
from flashflow.backend.store.rollups.partitions import between
from flashflow.backend.store.rollups.schema import FIRST, LAST, OF_USER, week_of

FEW_DAYS = 32
"""Up to this many days, reading all users' days is faster than looking up each user."""
MOST_STEPS = 10
"""Steps of a funnel."""
LOOK = 1.2
"""The cost of looking up a user relative to reading a row (0.5 and 0.4 µs)."""


def active_users(conn: sqlite3.Connection, part: Slice) -> int:
    """Count distinct users with an activity in the slice."""
    if part.nothing:
        return 0
    if part.first == part.last and part.cut is None:
        return daily_users(conn, part)
    if part.type:
        how = "type_read" if _is_read_faster(conn, part) else "type_looked_up"
    elif part.cut is None and part.last >= _LAST_DAY.value(conn):
        # No activity is later than the slice: users last seen on or after its first day were active in it.
        return int(_SEEN_SINCE.value(conn, app=part.app, first=part.first))
    else:
        how = "read" if part.last - part.first < FEW_DAYS else "looked_up"
    return int(_count_active(how, part.cut is not None).value(conn, **_values(part)))


_OF_TYPE = "type_weeks t CROSS JOIN user_type_days d ON d.week = t.week AND d.type = t.type"
_IN_APP = "(:app = 0 OR d.app = :app)"
_MEANWHILE = "s.app = :app AND s.last_day >= :first AND s.first_day <= :last"
# Users first or last seen within the days were active; for the others each day between is looked up.
_CAME = (
    "(s.last_day <= :whole OR s.first_day BETWEEN :first AND :whole OR EXISTS (SELECT 1 FROM "
    f"{OF_USER} AND d.user = s.user WHERE t.day BETWEEN :first AND :last{{until}} AND {_IN_APP}))"
)
_ACTIVE = {
    "read": "SELECT COUNT(DISTINCT d.user) FROM user_days d "
    f"WHERE d.day BETWEEN :first AND :last{{until}} AND {_IN_APP}",
    "looked_up": f"SELECT COUNT(*) FROM user_spans s WHERE {_MEANWHILE} AND {_CAME}",
    "type_read": f"SELECT COUNT(DISTINCT d.user) FROM {_OF_TYPE} AND d.day BETWEEN :first AND :last{{until}} "
    f"WHERE t.type = :type AND t.week BETWEEN {week_of(':first')} AND {week_of(':last')} AND {_IN_APP}",
    "type_looked_up": f"SELECT COUNT(*) FROM user_spans s WHERE {_MEANWHILE} AND EXISTS "
    f"(SELECT 1 FROM {_OF_TYPE} AND d.user = s.user AND d.day BETWEEN :first AND :last{{until}} WHERE t.type = :type "
    f"AND t.week BETWEEN {week_of('MAX(:first, s.first_day)')} AND {week_of('MIN(:last, s.last_day)')} AND {_IN_APP})",
}


@variants(_ACTIVE, (False, True))
def _count_active(how: str, is_cut: bool) -> TextStatement[tuple[Any, ...]]:
    """Build the query that counts users by reading rows or by looking up each user."""
    until = f" AND (d.day < :last OR {FIRST} < :cut)" if is_cut else ""
    return TextStatement(_ACTIVE[how].replace("{until}", until), reason="a join order")


class _Estimate(NamedTuple):
    """Users, new users, weeks with the type, the users of each day summed, and those of the type."""

    users: int
    new: int
    weeks: int
    there: int
    rows: int


def _is_read_faster(conn: sqlite3.Connection, part: Slice) -> bool:
    """Whether reading every row of the slice's type is faster than looking up each user week by week until a row is
    found: a rare type has few rows, and most weeks have none of a user. An estimate, always from the stored tables."""
    estimate = _ESTIMATE.one(conn, **_values(part))
    assert estimate is not None
    users, new, weeks, there, rows = estimate
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
_ESTIMATE = TextStatement(
    "SELECT COUNT(*) AS users, TOTAL(s.first_day >= :first) AS new, (SELECT COUNT(*) FROM main.type_weeks "
    f"WHERE type = :type AND week BETWEEN {week_of(':first')} AND {week_of(':last')}) AS weeks, "
    f"{_USER_DAYS.format(type=0)} AS there, {_USER_DAYS.format(type=':type')} AS rows "
    f"FROM main.user_spans s WHERE {_MEANWHILE}",
    _Estimate,
    reason="a table of the main file behind a temporary one",
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
_LAST_DAY = Statement(lambda: UserDay.select(fn.COALESCE(fn.MAX(UserDay.day), 0)))
_SEEN_SINCE = Statement(
    lambda: _S.select(fn.COUNT(SQL("*"))).where(_S.app == slot("app"), _S.last_day >= slot("first"))
)
_DAILY = Statement(
    lambda: _A.select(fn.COALESCE(fn.SUM(_A.users), 0)).where(
        _A.type == slot("type"), _A.app == slot("app"), _A.day.between(slot("first"), slot("last"))
    )
)
_NEW = Statement(
    lambda: (
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
    lambda: (
        _S.select(_S.first_day, fn.COUNT(_S.user).alias("users"))
        .where(_S.app == slot("app"), _S.first_day.between(*_FIRST_DAYS))
        .group_by(_S.first_day)
    ),
    _Size,
)
_RETURNED = Statement(
    lambda: _C.select(_C.first_day, (_C.day - _C.first_day).alias("later"), _C.users).where(
        _C.app == slot("app"), _C.first_day.between(*_FIRST_DAYS), _C.day <= _C.first_day + slot("days")
    ),
    _Share,
)
_LAST_SEEN = Statement(
    lambda: (
        _S.select(_S.first_day, (_S.last_day - _S.first_day).alias("later"), fn.COUNT(_S.user).alias("users"))
        .where(_S.app == slot("app"), _S.first_day.between(*_FIRST_DAYS))
        .group_by(_S.first_day, _S.last_day - _S.first_day)
    ),
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

# One statement computes the whole funnel; it stays text, as its parts need a join order. Each step is a
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
    users = "of_app" if part.app else "in_several_apps" if _ARE_SEVERAL.value(conn) else "in_one_app"
    is_read = _is_read_faster(conn, part._replace(type=types[0]))
    start, end = between_ms if between_ms is not None else (None, None)
    walked = _walk(len(types), users, is_read, between_ms is not None, dropped_at is not None).one(
        conn,
        app=part.app,
        first=part.first,
        last=part.last,
        start=start,
        end=end,
        window=window_days,
        dropped_at=dropped_at,
        **{f"type{n}": key for n, key in enumerate(types)},
    )
    assert walked is not None
    spent = msgspec.json.decode(walked.spent, type=list[list[int]])
    return FunnelCounts(walked.began, tuple(spent), msgspec.json.decode(walked.dropped, type=list[int])[:limit])


class _Walked(NamedTuple):
    """``spent`` and ``dropped`` of FunnelCounts as JSON."""

    began: int
    spent: str
    dropped: str


_OF_APPS = _S.select(fn.COUNT(SQL("*"))).where(_S.app > 0)
_ARE_SEVERAL = Statement(
    lambda: Select(columns=[Expression(_OF_APPS, ">", _S.select(fn.COUNT(SQL("*"))).where(_S.app == 0))])
)


@variants(range(2, MOST_STEPS + 1), ("of_app", "in_several_apps", "in_one_app"), *[(False, True)] * 3)
def _walk(steps: int, users: str, is_read: bool, is_bounded: bool, with_dropped: bool) -> TextStatement[_Walked]:
    """Build the query of a funnel; ``is_bounded``: its first step is from :start to before :end."""
    earliest = _EARLIEST_OF_ALL if users == "in_several_apps" else _EARLIEST
    by_app = users == "of_app"
    of_app = " AND d.app = :app" if by_app else ""
    timestamp, more = FIRST, of_app
    if is_bounded:
        timestamp, more = _next_after("(:start - 1)", 0, by_app), f"{of_app} AND {LAST} >= :start"
    if is_read:
        rows = (
            f"SELECT d.user AS user, MIN({_WHEN.format(timestamp=timestamp)}) AS at0 FROM {_OF_TYPE} "
            f"AND d.day BETWEEN :first AND :last{more} WHERE t.type = :type0 "
            f"AND t.week BETWEEN {week_of(':first')} AND {week_of(':last')} GROUP BY d.user"
        )
    else:
        first = earliest.format(
            type=":type0", user="s.user", timestamp=timestamp, more=more,
            since="MAX(:first, s.first_day)", until="MIN(:last, s.last_day)",
        )  # fmt: skip
        rows = f"SELECT s.user AS user, {first} AS at0 FROM user_spans s WHERE {_MEANWHILE}"
    if is_bounded:
        within = f"at0 & {_TIMESTAMP} < :end"
        rows = f"SELECT user, CASE WHEN {within} THEN at0 END AS at0 FROM ({rows}{_ROW_BY_ROW})"
    # Tables beside each other: within each other, nine of them are more than SQLite's parser takes.
    tables = [f"after0 AS ({rows}{_ROW_BY_ROW})"]
    over = f"(at0 & {_TIMESTAMP}) + :window * {DAY_MS}"
    for n in range(1, steps):
        then = f"(at{n - 1} & {_TIMESTAMP})"
        following = earliest.format(
            type=f":type{n}", user="w.user",
            timestamp=_next_after(then, n, by_app), more=f"{of_app} AND {LAST} > {then}",
            since=f"(at{n - 1} >> {_DAY})", until=f"(at0 >> {_DAY}) + :window + 1",
        )  # fmt: skip
        rows = f"SELECT w.*, CASE WHEN {then} <= {over} THEN {following} END AS at{n} FROM after{n - 1} w"
        tables.append(f"after{n} AS ({rows}{_ROW_BY_ROW})")
    took = [f"at{n} IS NOT NULL AND at{n} & {_TIMESTAMP} <= {over}" for n in range(steps)]
    spent = (
        f"json_group_array((at{n} & {_TIMESTAMP}) - (at{n - 1} & {_TIMESTAMP})) FILTER (WHERE {took[n]})"
        for n in range(1, steps)
    )
    stopped = " ".join(f"WHEN {n} THEN {took[n - 1]} AND NOT ({took[n]})" for n in range(1, steps))
    dropped = f"json_group_array(user) FILTER (WHERE CASE :dropped_at {stopped} END)" if with_dropped else "'[]'"
    return TextStatement(
        f"WITH {', '.join(tables)} SELECT COUNT(at0) AS began, json_array({', '.join(spent)}) AS spent, "
        f"{dropped} AS dropped FROM after{steps - 1}",
        _Walked,
        reason="a join order",
    )


def _next_after(then: str, step: int, by_app: bool) -> str:
    """Build SQL for the first timestamp after ``then`` of a row ``d``, whose last one is after ``then``."""
    return _NEXT.format(
        then=then,
        within=between(f"{then} + 1", LAST),
        name=f"(SELECT name FROM dimensions WHERE key = :type{step})",
        app=" AND a.app = (SELECT name FROM dimensions WHERE key = :app)" if by_app else "",
    )


def user_ids(conn: sqlite3.Connection, keys: Sequence[int]) -> list[str]:
    """Return the ids of users in the order of ``keys``."""
    return [_USER_ID.value(conn, key=key) for key in keys]


_USER_ID = Statement(lambda: UserKey.select(UserKey.user_id).where(UserKey.key == slot("key")))


# --- users ------------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A user with the local days of the first and the last activity in the slice's app, and the user's key."""

    user_id: str
    first_day: int
    last_day: int
    key: int


def seen_users(conn: sqlite3.Connection, part: Slice, limit: int, after: tuple[int, int] | None) -> list[Seen]:
    """Return users active in the slice, latest seen first; ``after`` is the (last day, key) of the previous page's last
    user."""
    if part.nothing:
        return []
    seen, key = after if after is not None else (None, None)
    return _seen_users(after is not None).all(conn, **_values(part), limit=limit, seen=seen, key=key)


@variants((False, True))
def _seen_users(continued: bool) -> TextStatement[Seen]:
    where = " AND (s.last_day, s.user) < (:seen, :key)" if continued else ""
    return TextStatement(
        "SELECT u.user_id, s.first_day, s.last_day, s.user AS key FROM user_spans s JOIN user_keys u "
        f"ON u.key = s.user WHERE {_MEANWHILE} AND {_CAME.format(until='')}{where} "
        "ORDER BY s.last_day DESC, s.user DESC LIMIT :limit",
        Seen,
        reason="a join order",
    )


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
