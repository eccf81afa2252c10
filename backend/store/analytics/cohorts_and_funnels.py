"""Questions over the figures that tell people apart: who was active, who came back, who went through a funnel."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.store.analytics.totals import Slice
from flashflow.backend.store.rollups.partitions import between
from flashflow.backend.store.rollups.schema import FIRST, LAST, OF_USER, week_of

FEW_DAYS = 32
"""Up to so many days it is quicker to look at everybody's days than to look each user up."""
LOOK = 1.2
"""What one look for a user takes, beside reading a row of somebody (0.5 and 0.4 µs)."""


def active_users(conn: sqlite3.Connection, asked: Slice) -> int:
    """Distinct users with an activity in the slice."""
    if asked.nothing:
        return 0
    if asked.first == asked.last and asked.cut is None:
        return daily_users(conn, asked)
    few = asked.last - asked.first < FEW_DAYS
    if asked.type:
        sql = _OF_TYPE_READ if _is_soon_read(conn, asked) else _OF_TYPE_LOOKED_UP
    elif asked.cut is None and asked.last >= (conn.execute("SELECT MAX(day) FROM user_days").fetchone()[0] or 0):
        # Whoever came last within the slice was in it: nobody came after it.
        sql = "SELECT COUNT(*) FROM user_spans WHERE app = :app AND last_day >= :first"
    else:
        sql = _IN_FEW if few else _IN_MANY
    until = "" if asked.cut is None else f" AND (d.day < :last OR {FIRST} < :cut)"
    (count,) = conn.execute(sql.replace("{until}", until), _values(asked)).fetchone()
    return int(count)


_OF_TYPE = "type_weeks t CROSS JOIN user_type_days d ON d.week = t.week AND d.type = t.type"
_IN_APP = "(:app = 0 OR d.app = :app)"
_MEANWHILE = "s.app = :app AND s.last_day >= :first AND s.first_day <= :last"
# Whoever came first or last within the days was there; of the others each day between is looked up.
_CAME = (
    "(s.last_day <= :whole OR s.first_day BETWEEN :first AND :whole OR EXISTS (SELECT 1 FROM "
    f"{OF_USER} AND d.user = s.user WHERE t.day BETWEEN :first AND :last{{until}} AND {_IN_APP}))"
)
_IN_FEW = f"SELECT COUNT(DISTINCT d.user) FROM user_days d WHERE d.day BETWEEN :first AND :last{{until}} AND {_IN_APP}"
_IN_MANY = f"SELECT COUNT(*) FROM user_spans s WHERE {_MEANWHILE} AND {_CAME}"
_OF_TYPE_READ = (
    f"SELECT COUNT(DISTINCT d.user) FROM {_OF_TYPE} AND d.day BETWEEN :first AND :last{{until}} "
    f"WHERE t.type = :type AND t.week BETWEEN {week_of(':first')} AND {week_of(':last')} AND {_IN_APP}"
)
_OF_TYPE_LOOKED_UP = (
    f"SELECT COUNT(*) FROM user_spans s WHERE {_MEANWHILE} AND EXISTS "
    f"(SELECT 1 FROM {_OF_TYPE} AND d.user = s.user AND d.day BETWEEN :first AND :last{{until}} WHERE t.type = :type "
    f"AND t.week BETWEEN {week_of('MAX(:first, s.first_day)')} AND {week_of('MIN(:last, s.last_day)')} AND {_IN_APP})"
)


def _is_soon_read(conn: sqlite3.Connection, asked: Slice) -> bool:
    """Whether to read every row of the slice's type, rather than look for each user week by week until one is found:
    of a rare type there are few rows, and most weeks have none of a user. (An estimate, so the kept tables will do.)"""
    users, new, weeks, there, rows = conn.execute(
        f"SELECT COUNT(*), TOTAL(s.first_day >= :first), (SELECT COUNT(*) FROM main.type_weeks WHERE type = :type "
        f"AND week BETWEEN {week_of(':first')} AND {week_of(':last')}), {_USER_DAYS.format(type=0)}, "
        f"{_USER_DAYS.format(type=':type')} FROM main.user_spans s WHERE {_MEANWHILE}",
        _values(asked),
    ).fetchone()
    if not rows:
        return True
    # On so many of the days that somebody is there it is among what is done, and these are so many weeks apart.
    share, apart = min(1, rows / max(there, 1)), max(1, weeks * users / max(there, 1))
    of_new, of_others = 1 + (1 - share) * apart / share, apart / share
    looks = new * min(weeks, of_new) + (users - new) * min(weeks, of_others)
    return bool(rows <= looks * LOOK)


_USER_DAYS = (
    "(SELECT TOTAL(users) FROM main.active_days WHERE type = {type} AND app = :app AND day BETWEEN :first AND :last)"
)


def _values(asked: Slice) -> dict[str, int | None]:
    """What the statements above name; ``whole``: the last day that is not cut."""
    cut = None if asked.cut is None else asked.cut.at
    whole = asked.last if cut is None else asked.last - 1
    first, last, app, kind, _ = asked
    return {"first": first, "last": last, "app": app, "type": kind, "cut": cut, "whole": whole}


def new_users(conn: sqlite3.Connection, asked: Slice) -> int:
    """Users whose first activity ever lies in the slice (with a cut: of its last day, those who came before it)."""
    if asked.nothing:
        return 0
    last = asked.last if asked.cut is None else asked.last - 1
    (count,) = conn.execute(
        "SELECT COALESCE(SUM(c.users), 0) FROM active_days t CROSS JOIN cohort_days c "
        "ON c.app = t.app AND c.first_day = t.day AND c.day = t.day "
        "WHERE t.type = 0 AND t.app = ? AND t.day BETWEEN ? AND ?",
        (asked.app, asked.first, last),
    ).fetchone()
    if asked.cut is not None:
        (more,) = conn.execute(
            "SELECT COUNT(DISTINCT d.user) FROM user_days d JOIN user_spans s ON s.app = ? AND s.user = d.user "
            f"AND s.first_day = d.day WHERE d.day = ? AND {FIRST} < ? AND (? = 0 OR d.app = ?)",
            (asked.app, asked.last, asked.cut.at, asked.app, asked.app),
        ).fetchone()
        count += more
    return int(count)


def daily_users(conn: sqlite3.Connection, asked: Slice) -> int:
    """The sum of each day's active users."""
    if asked.nothing:
        return 0
    (total,) = conn.execute(
        "SELECT COALESCE(SUM(users), 0) FROM active_days WHERE type = ? AND app = ? AND day BETWEEN ? AND ?",
        (asked.type, asked.app, asked.first, asked.last),
    ).fetchone()
    return int(total)


# --- retention --------------------------------------------------------------------------------------------------------


def cohort_sizes(conn: sqlite3.Connection, asked: Slice) -> dict[int, int]:
    """First day → how many users were active for the first time ever on it."""
    rows = conn.execute(
        "SELECT first_day, COUNT(*) FROM user_spans WHERE app = ? AND first_day BETWEEN ? AND ? GROUP BY 1",
        (asked.app, asked.first, asked.last),
    )
    return dict(rows.fetchall())


def returned_on(conn: sqlite3.Connection, asked: Slice, days: int) -> dict[tuple[int, int], int]:
    """(first day, N) → how many of that cohort were active on the N-th day after it."""
    rows = conn.execute(
        "SELECT first_day, day - first_day, users FROM cohort_days "
        "WHERE app = ? AND first_day BETWEEN ? AND ? AND day <= first_day + ?",
        (asked.app, asked.first, asked.last, days),
    )
    return {(first, n): users for first, n, users in rows}


def last_seen_after(conn: sqlite3.Connection, asked: Slice) -> dict[tuple[int, int], int]:
    """(first day, N) → how many of that cohort were active for the last time on the N-th day after it."""
    rows = conn.execute(
        "SELECT first_day, last_day - first_day, COUNT(*) FROM user_spans "
        "WHERE app = ? AND first_day BETWEEN ? AND ? GROUP BY 1, 2",
        (asked.app, asked.first, asked.last),
    )
    return {(first, n): users for first, n, users in rows}


# --- funnel -----------------------------------------------------------------------------------------------------------

# One statement for the whole walk: in it each user's step is one more column, the local day and the moment in one
# number (the day above _DAY bits of milliseconds), so that a single look into the index finds both.
_DAY = 48
_MOMENT = (1 << _DAY) - 1
_THAT_WEEK = (
    f"d.week = {week_of('{since}')} AND d.type = {{type}} AND d.user = {{user}} "
    "AND d.day BETWEEN {since} AND {until}{more}"
)
_LATER = (
    f"{_OF_TYPE} AND d.user = {{user}} AND d.day <= {{until}}{{more}} WHERE t.type = {{type}} "
    f"AND t.week > {week_of('{since}')} AND t.week <= {week_of('{until}')}"
)
_WHEN = f"(d.day << {_DAY}) + {{moment}}"
_EARLIEST = (
    f"COALESCE((SELECT {_WHEN} FROM user_type_days d WHERE {_THAT_WEEK} ORDER BY d.day LIMIT 1), "
    f"(SELECT {_WHEN} FROM {_LATER} ORDER BY t.week, d.day LIMIT 1))"
)
# Where somebody used several apps, a day has a row for each.
_EARLIEST_OF_ALL = (
    f"COALESCE((SELECT MIN({_WHEN}) FROM user_type_days d WHERE {_THAT_WEEK}), "
    f"(SELECT MIN({_WHEN}) FROM {_LATER} GROUP BY t.week ORDER BY t.week LIMIT 1))"
)
# The first moment after {then} of a day's activities, where there is one. Of a day of so many that what lies between
# the first and the last was not kept, the bare rows are asked.
_NEXT = (
    f"CASE WHEN {FIRST} > {{then}} THEN {FIRST} WHEN d.activities = 2 THEN {LAST} "
    f"WHEN d.moments IS NOT NULL THEN moment_after({FIRST}, d.span, d.moments, {{then}}) ELSE "
    "(SELECT a.timestamp FROM activity_parts t CROSS JOIN activities_by_user p ON p.part = t.part AND p.user = d.user "
    "CROSS JOIN user_activities a ON a.seq = p.seq WHERE {within} AND a.activity_type = {name}{app} "
    "ORDER BY t.part, p.at LIMIT 1) END"
)
_ROW_BY_ROW = " LIMIT -1"
"""What has SQLite hand on a subquery's rows one by one: not put down first, and no column worked out for each use."""


class Walked(NamedTuple):
    """How many took the first step; for each step after it, how many milliseconds whoever took it needed since the one
    before; and the keys of some who stopped before the step asked for."""

    began: int
    spent: tuple[list[int], ...]
    dropped: list[int]


def walk(
    conn: sqlite3.Connection,
    types: Sequence[int],
    asked: Slice,
    window_days: int,
    dropped_at: int | None = None,
    limit: int = 0,
    between_ms: tuple[int, int] | None = None,
) -> Walked:
    """The way of everybody who took the first step (the types by their keys) in the slice, as far as each step was
    taken within ``window_days`` of the first. ``dropped_at`` is the place of a step, from 0; ``between_ms``: from
    where to before where in the slice the first step counts (milliseconds since 1970; None: all of it)."""
    if asked.app < 0 or types[0] < 0:
        return Walked(0, tuple([] for _ in types[1:]), [])
    app = asked.app
    (several,) = conn.execute(
        "SELECT (SELECT COUNT(*) FROM user_spans WHERE app > 0) > (SELECT COUNT(*) FROM user_spans WHERE app = 0)"
    ).fetchone()
    earliest = _EARLIEST_OF_ALL if several and not app else _EARLIEST
    of_app = f" AND d.app = {app}" if app else ""
    moment, more = FIRST, of_app
    if between_ms is not None:
        before = str(between_ms[0] - 1)
        moment, more = _next_after(before, types[0], app), f"{of_app} AND {LAST} > {before}"
    if _is_soon_read(conn, asked._replace(type=types[0])):
        way = (
            f"SELECT d.user AS user, MIN({_WHEN.format(moment=moment)}) AS at0 FROM {_OF_TYPE} "
            f"AND d.day BETWEEN {asked.first} AND {asked.last}{more} WHERE t.type = {types[0]} "
            f"AND t.week BETWEEN {week_of(str(asked.first))} AND {week_of(str(asked.last))} GROUP BY d.user"
        )
    else:
        first = earliest.format(
            type=types[0], user="s.user", moment=moment, more=more,
            since=f"MAX({asked.first}, s.first_day)", until=f"MIN({asked.last}, s.last_day)",
        )  # fmt: skip
        way = (
            f"SELECT s.user AS user, {first} AS at0 FROM user_spans s "
            f"WHERE s.app = {app} AND s.last_day >= {asked.first} AND s.first_day <= {asked.last}"
        )
    if between_ms is not None:
        within = f"at0 & {_MOMENT} < {between_ms[1]}"
        way = f"SELECT user, CASE WHEN {within} THEN at0 END AS at0 FROM ({way}{_ROW_BY_ROW})"
    over = f"(at0 & {_MOMENT}) + {window_days * DAY_MS}"
    for n, kind in enumerate(types[1:], 1):
        then = f"(at{n - 1} & {_MOMENT})"
        following = earliest.format(
            type=kind, user="w.user", moment=_next_after(then, kind, app), more=f"{of_app} AND {LAST} > {then}",
            since=f"(at{n - 1} >> {_DAY})", until=f"(at0 >> {_DAY}) + {window_days + 1}",
        )  # fmt: skip
        way = f"SELECT w.*, CASE WHEN {then} <= {over} THEN {following} END AS at{n} FROM ({way}{_ROW_BY_ROW}) w"
    took = [f"at{n} IS NOT NULL AND at{n} & {_MOMENT} <= {over}" for n in range(len(types))]
    answers = ["COUNT(at0)"]
    for n in range(1, len(types)):
        needed = f"(at{n} & {_MOMENT}) - (at{n - 1} & {_MOMENT})"
        answers.append(f"json_group_array({needed}) FILTER (WHERE {took[n]})")
    if dropped_at is not None:
        stopped = f"{took[dropped_at - 1]} AND NOT ({took[dropped_at]})"
        answers.append(f"json_group_array(user) FILTER (WHERE {stopped})")
    began, *lists = conn.execute(f"SELECT {', '.join(answers)} FROM ({way}{_ROW_BY_ROW})").fetchone()
    numbers = [msgspec.json.decode(text, type=list[int]) for text in lists]
    return Walked(began, tuple(numbers[: len(types) - 1]), numbers[-1][:limit] if dropped_at is not None else [])


def _next_after(then: str, kind: int, app: int) -> str:
    """SQL for the first moment after ``then`` of a day's activities (``d``), one of which is later."""
    return _NEXT.format(
        then=then,
        within=between(f"{then} + 1", LAST),
        name=f"(SELECT name FROM figure_names WHERE key = {kind})",
        app=f" AND a.app = (SELECT name FROM figure_names WHERE key = {app})" if app else "",
    )


def user_ids(conn: sqlite3.Connection, keys: Sequence[int]) -> list[str]:
    """The ids of users by their keys, in their order."""
    return [conn.execute("SELECT user_id FROM figure_users WHERE key = ?", (key,)).fetchone()[0] for key in keys]


# --- users ------------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A user of the slice's app: local days of the first and the last activity."""

    user_id: str
    first_day: int
    last_day: int


def seen_users(
    conn: sqlite3.Connection, asked: Slice, limit: int, after: tuple[int, int] | None
) -> list[tuple[Seen, int]]:
    """Users active in the slice, the latest seen first, each with its key; ``after`` is the (last day, key) of the one
    before."""
    if asked.nothing:
        return []
    where = "" if after is None else " AND (s.last_day, s.user) < (:seen, :key)"
    rows = conn.execute(
        "SELECT u.user_id, s.first_day, s.last_day, s.user FROM user_spans s JOIN figure_users u ON u.key = s.user "
        f"WHERE {_MEANWHILE} AND {_CAME.format(until='')}{where} ORDER BY s.last_day DESC, s.user DESC LIMIT :limit",
        _values(asked) | {"limit": limit} | dict(zip(("seen", "key"), after or (), strict=False)),
    )
    return [(Seen(user_id, first, last), key) for user_id, first, last, key in rows]


def first_activity_at(conn: sqlite3.Connection, app: int, user: int) -> int:
    """When a user's first activity (in an app; 0: in any) was, by the workspace's figures."""
    (moment,) = conn.execute(
        f"SELECT MIN({FIRST}) FROM main.user_spans s "
        "JOIN main.user_days d ON d.day = s.first_day AND d.user = s.user "
        "WHERE s.app = ?1 AND s.user = ?2 AND (?1 = 0 OR d.app = ?1)",
        (app, user),
    ).fetchone()
    return int(moment)


def count_by_user(conn: sqlite3.Connection, asked: Slice, keys: Sequence[int]) -> dict[int, int]:
    """Activities of each user in the slice's days."""
    rows = conn.execute(
        f"SELECT d.user, SUM(d.activities) FROM json_each(?) k CROSS JOIN {OF_USER} AND d.user = k.value "
        "AND t.day BETWEEN ? AND ? WHERE (? = 0 OR d.app = ?) GROUP BY 1",
        ("[" + ",".join(map(str, keys)) + "]", asked.first, asked.last, asked.app, asked.app),
    )
    return dict(rows.fetchall())
