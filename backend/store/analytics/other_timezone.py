"""The figures by another zone's clock, made for one question: of the kept ones, and of bare rows where these are cut.

They are temporary tables of the same names, which SQLite finds before the kept ones; the questions are the same. Hours,
and days where only their sum is asked for, are taken whole unless the other clock cuts them (``zone_hours``); so are
the days of users. Of somebody who was there on both sides of the other zone's midnight it is enough to know that, but
where a sum begins (``Reach.seams``): there the moments are looked up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from flashflow.backend.core.clock import rfc3339
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.analytics.timezone_hours import HOUR_MS, Clocks, Told, told
from flashflow.backend.store.analytics.verify import BY_DAY, expected_rows, names_of_days
from flashflow.backend.store.rollups.aggregate import UNITE, keyed_rows
from flashflow.backend.store.rollups.dimensions import VALUES
from flashflow.backend.store.rollups.partitions import BITS, between, pruned_before
from flashflow.backend.store.rollups.schema import DAY_MS, FIRST, LAST, OTHER, week_of

MOST_ROWS = 2_000_000
"""Rows that one question may have counted anew: days of users, and activities and sessions of what is cut; each takes
some 1 to 3 µs."""
NAMES = frozenset({"page", "feature", "referrer"})
"""Kinds of names that most questions do not ask for."""


class Reach(NamedTuple):
    """What a question looks at: local days, both included, and tables of figures.

    ``kinds``: which kinds of names, if it asks for the sums over all days alone; ``types``: those by which users are
    told apart, where ``user_type_days`` is among the tables; ``hours``: the days whose hours are told apart (None: all
    of them); ``cohorts``: whether ``cohort_days`` tells who came back, or only who was new; ``seams``: days at which a
    sum over days begins (None: it asks for each day by itself).
    """

    first: int
    last: int
    tables: frozenset[str]
    kinds: frozenset[str] = frozenset()
    types: tuple[str, ...] = ()
    hours: tuple[int, int] | None = None
    cohorts: bool = False
    seams: tuple[int, ...] | None = None


_MADE_OF = {
    "active_days": ("user_days",),
    "user_spans": ("user_days",),
    "cohort_days": ("user_days", "user_spans"),
    "type_weeks": ("user_type_days",),
    "name_blocks": ("name_days",),
    "hour_blocks": ("activity_hours",),
}
_KEYED = frozenset({"user_days", "user_type_days", "user_spans", "cohort_days"})
"""Tables that are looked into by their keys."""
_BY_DAY = {table.name: table for table in BY_DAY}

# --- what each is made of ---------------------------------------------------------------------------------------------

_IN_APP = "(:app = 0 OR d.app = :app)"
_DAYS = {
    "user_days": f"FROM main.user_days d {{more}} WHERE d.day BETWEEN :first AND :last AND {_IN_APP} AND {{which}}",
    "user_type_days": (
        "FROM main.type_weeks w CROSS JOIN main.user_type_days d ON d.week = w.week AND d.type = w.type "
        "AND d.day BETWEEN :first AND :last {more} WHERE w.type IN (SELECT value FROM json_each(:types)) "
        f"AND w.week BETWEEN {week_of(':first')} AND {week_of(':last')} AND {_IN_APP} AND {{which}}"
    ),
}
_KEY = {"user_days": "{day}, d.user, d.app", "user_type_days": f"{week_of('{day}')}, d.type, d.user, {{day}}, d.app"}
_GROUP = {"user_days": "1, 2, 3", "user_type_days": "1, 2, 3, 4, 5"}
_REST = {"user_days": "0", "user_type_days": "0, NULL"}
_AT = f"((t.part << {BITS}) + p.at)"
_MOMENTS = (
    "CROSS JOIN main.activity_parts t CROSS JOIN main.activities_by_user p ON p.part = t.part AND p.user = d.user "
    f"AND {between(f'MAX({FIRST}, :start)', f'MIN({LAST}, :end - 1)')}"
)
_ROWS = f"{_MOMENTS} CROSS JOIN main.user_activities a ON a.seq = p.seq"
_SHARED = "EXISTS (SELECT 1 FROM main.user_days o WHERE o.day = d.day AND o.user = d.user AND o.app <> d.app)"


def _is(kind: str) -> str:
    """SQL for whether the activity ``a`` is of the row's ``d`` app or type."""
    key = f"SELECT key FROM figure_names WHERE kind = {OTHER[kind]} AND name = {VALUES[kind]}"
    return f"COALESCE(({key}), {OTHER[kind]}) = d.{kind}"


# Of the users' days, which are of the one app that is asked for (0: of all).
_PRESENT = "(SELECT DISTINCT day, user FROM user_days)"
_ACTIVE = f"SELECT 0, 0, day, COUNT(*) FROM {_PRESENT} GROUP BY 3"
_ACTIVE_IN_APP = f"{_ACTIVE} UNION ALL {_ACTIVE.replace('0, 0', '0, :app')}"
_ACTIVE_OF_TYPES = " UNION ALL SELECT type, :app, day, COUNT(DISTINCT user) FROM user_type_days GROUP BY 1, 3"
_SPANS = "SELECT :app, user, MIN(day), MAX(day) FROM user_days GROUP BY user"
# By the kept days: whose first began before the range began, or had its first activity before.
_EARLIER = (
    "UPDATE temp.user_spans AS s SET first_day = -1 WHERE EXISTS (SELECT 1 FROM main.user_spans m "
    "WHERE m.app = s.app AND m.user = s.user AND (m.first_day < :first OR (m.first_day = :first "
    f"AND (SELECT MIN({FIRST}) FROM main.user_days d "
    "WHERE d.day = m.first_day AND d.user = m.user AND (m.app = 0 OR d.app = m.app)) < :start)))"
)
_NEW = "SELECT app, first_day, first_day, COUNT(*) FROM user_spans WHERE first_day >= 0 GROUP BY 2"
_COHORTS = (
    f"SELECT :app, s.first_day, d.day, COUNT(*) FROM {_PRESENT} d CROSS JOIN user_spans s ON s.app = :app "
    "AND s.user = d.user WHERE s.first_day >= 0 GROUP BY 2, 3"
)

_WHOLE_HOURS = "FROM temp.zone_map z CROSS JOIN main.activity_hours h ON h.hour = z.unit"
_WHOLE_NAMES = "FROM temp.zone_map z CROSS JOIN main.name_days d ON d.day = z.unit"
_CUT_ROWS = "temp.zone_rest r CROSS JOIN main.user_activities a ON a.timestamp >= r.low AND a.timestamp < r.high"
_WHOLE_SESSIONS = (
    "SELECT z.within, d.app, SUM(d.sessions), SUM(d.duration), SUM(d.pages), SUM(d.engaged) "
    "FROM temp.zone_map z CROSS JOIN main.session_days d ON d.day = z.unit GROUP BY 1, 2"
)
_CUT_SESSIONS = "temp.zone_rest r CROSS JOIN main.user_sessions s ON s.start_time >= r.low AND s.start_time < r.high"
_WITHIN = "start_time >= :start AND start_time < :end"
_SESSIONS_BEGUN = (
    "SELECT {day}, 0, COUNT(*), 0, 0, 0 FROM user_sessions INDEXED BY user_sessions_start "
    f"WHERE {_WITHIN} GROUP BY 1 UNION ALL "
    "SELECT {day}, 0, -COUNT(*), 0, 0, 0 FROM user_sessions INDEXED BY user_sessions_open "
    f"WHERE end_time IS NULL AND {_WITHIN} GROUP BY 1"
)


@contextmanager
def borrowed(conn: sqlite3.Connection, local: LocalTime, app: int, reach: Reach) -> Iterator[None]:
    """Have a question on ``conn`` answered by ``local``'s days, over what is in ``reach`` and of the ``app`` (its key;
    0: all); its tables alone may be asked. Somebody who came before has the first day -1. Raises ValidationError where
    too much would have to be counted anew, or where some of it was pruned."""
    start, end = local.start(max(reach.first, 0)), local.start(reach.last + 1)
    if start < (before := pruned_before(conn)):
        raise ValidationError.of(
            "tz", f"is not the workspace's, and what would have to be counted anew was pruned before {rfc3339(before)}"
        )
    (kept_by,) = conn.execute("SELECT zone FROM figures_state").fetchone()
    making = _Making(conn, Clocks(LocalTime(ZoneInfo(kept_by)), local, start, end), app, reach)
    try:
        making.make()
        yield
    finally:
        making.drop()


class _Making:
    """The temporary tables of one question."""

    def __init__(self, conn: sqlite3.Connection, clocks: Clocks, app: int, reach: Reach) -> None:
        self._conn = conn
        self._clocks = clocks
        self._reach = reach
        self._tables = reach.tables.union(*(_MADE_OF.get(name, ()) for name in reach.tables))
        self._made: list[str] = []
        self._hidden: list[str] = []
        self._counted = 0
        home, _, start, end = clocks
        (types,) = conn.execute(
            f"SELECT json_group_array(key) FROM figure_names WHERE kind = {OTHER['type']} "
            f"AND name IN ({', '.join('?' * len(reach.types))})",
            reach.types,
        ).fetchone()
        self._values = {
            "start": start, "end": end, "first": home.day(start), "last": home.day(end - 1), "types": types, "app": app,
        }  # fmt: skip

    def make(self) -> None:
        self._refuse_too_many_users()
        self._create("zone_map", "unit INTEGER PRIMARY KEY, within INTEGER NOT NULL")
        self._create("zone_rest", "low INTEGER PRIMARY KEY, high INTEGER NOT NULL")
        self._create("checking", f"user, {', '.join(VALUES)}, hour, timestamp, seq")
        for name in _BY_DAY:
            if name not in self._tables:  # the kept ones are by another clock: whoever asks them is to notice
                self._conn.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM temp.not_within_reach")
                self._hidden.append(name)
                continue
            described = self._conn.execute(f"PRAGMA main.table_info({name})").fetchall()
            columns = ", ".join(f"{column} {kind}" for _, column, kind, *_ in described)
            keys = ", ".join(column for _, column, _, _, _, of_key in described if of_key)
            if name in _KEYED:
                self._create(name, f"{columns}, PRIMARY KEY ({keys})", "WITHOUT ROWID")
            else:
                self._create(name, columns)
            self._fill(name)

    def drop(self) -> None:
        for name in self._made:
            self._conn.execute(f"DROP TABLE temp.{name}")
        for name in self._hidden:
            self._conn.execute(f"DROP VIEW temp.{name}")

    def _create(self, name: str, columns: str, how: str = "") -> None:
        self._conn.execute(f"CREATE TEMP TABLE {name} ({columns}) {how}")
        self._made.append(name)

    def _fill(self, name: str) -> None:
        if name in _DAYS:
            self._days_of_users(name)
        elif name == "active_days":
            active = _ACTIVE_IN_APP if self._values["app"] else _ACTIVE
            self._insert(name, active + _ACTIVE_OF_TYPES * ("user_type_days" in self._tables))
        elif name == "user_spans":
            self._insert(name, _SPANS)
            self._conn.execute(_EARLIER, self._values)
        elif name == "cohort_days":
            self._insert(name, _COHORTS if self._reach.cohorts else _NEW)
        elif name == "activity_hours":
            self._hours()
        elif name == "name_days":
            self._names()
        elif name == "session_days":
            self._sessions()
        else:
            self._insert(name, expected_rows(_BY_DAY[name]))

    def _insert(self, name: str, rows: str) -> None:
        self._conn.execute(f"INSERT INTO temp.{name} {rows}", self._values)

    def _count(self, rows: int) -> None:
        self._counted += rows
        if self._counted > MOST_ROWS:
            raise ValidationError.of(
                "tz", f"is not the workspace's, and more than {MOST_ROWS:,} rows would have to be counted anew for it"
            )

    # --- users --------------------------------------------------------------------------------------------------------

    def _refuse_too_many_users(self) -> None:
        for name, types in (("user_days", "'[0]'"), ("user_type_days", ":types")):
            if name in self._tables:
                (rows,) = self._conn.execute(
                    "SELECT TOTAL(users) FROM main.active_days WHERE app = 0 AND day BETWEEN :first AND :last "
                    f"AND type IN (SELECT value FROM json_each({types}))",
                    self._values,
                ).fetchone()
                self._count(int(rows))

    def _days_of_users(self, name: str) -> None:
        """A row that no seam lies in counts for its first moment's day, and where its last one is of the next, one of
        its activities for that. Where a seam does, or a whole day lies between, its moments are counted."""
        first_day, last_day = (self._clocks.away_sql(moment, DAY_MS) for moment in (FIRST, LAST))
        days = (self._clocks.away.start(day) for day in self._reach.seams or ())
        seams = {self._clocks.start, self._clocks.end, *days}
        cut = " OR ".join((f"{last_day} - {first_day} > 1", *(f"{FIRST} < {at} AND {LAST} >= {at}" for at in seams)))
        kept, overnight = f"NOT ({cut}) AND {FIRST} >= :start AND {FIRST} < :end", f"{first_day} < {last_day}"
        for day, activities, at, which in (
            (first_day, f"d.activities - ({overnight})", FIRST, kept),
            (last_day, "1", LAST, f"{kept} AND {overnight}"),
        ):
            self._add_days(name, day, f"{activities}, {at}", _DAYS[name].format(more="", which=which))
        looked_up = f"({cut}) AND {LAST} >= :start AND {FIRST} < :end"
        if name == "user_days":
            self._add_moments(name, _MOMENTS, f"{looked_up} AND NOT {_SHARED}")
            self._add_moments(name, _ROWS, f"{looked_up} AND {_SHARED} AND {_is('app')}")
        else:
            self._add_moments(name, _ROWS, f"{looked_up} AND {_is('app')} AND {_is('type')}")

    def _add_moments(self, name: str, rows: str, which: str) -> None:
        rows = f"{_DAYS[name].format(more=rows, which=which)} GROUP BY {_GROUP[name]}"
        self._add_days(name, self._clocks.away_sql(_AT, DAY_MS), f"COUNT(*), MIN({_AT})", rows)

    def _add_days(self, name: str, day: str, activities_and_first: str, rows: str) -> None:
        """(No question asks for more than a day's activities and the first of them.)"""
        key, rest = _KEY[name].format(day=day), _REST[name]
        self._insert(name, f"SELECT {key}, {activities_and_first} - {day} * {DAY_MS}, {rest} {rows} {UNITE}")

    # --- hours, names, sessions ---------------------------------------------------------------------------------------

    def _hours(self) -> None:
        clocks, hours = self._clocks, self._reach.hours
        if hours is not None:
            clocks = clocks._replace(start=clocks.away.start(hours[0]), end=clocks.away.start(hours[1] + 1))
        if clocks.start < clocks.end:
            self._map(told(clocks, HOUR_MS, HOUR_MS))
            self._check(frozenset())
            of_cut = "SELECT hour, app, type, COUNT(*) FROM checking GROUP BY 1, 2, 3"
            whole = f"SELECT z.within, h.app, h.type, SUM(h.activities) {_WHOLE_HOURS} GROUP BY 1, 2, 3"
            self._insert("activity_hours", f"{whole} UNION ALL {of_cut}")

    def _names(self) -> None:
        """Types by day; other kinds as the sum over all days, which counts for the first."""
        kinds = self._reach.kinds
        if not kinds:
            self._map(told(self._clocks, HOUR_MS, DAY_MS))
            self._check(frozenset())
            whole = f"SELECT {OTHER['type']}, z.within, h.app, h.type, h.type, SUM(h.activities) {_WHOLE_HOURS}"
            self._insert("name_days", f"{whole} GROUP BY 2, 3, 4 UNION ALL {names_of_days('type')}")
            return
        self._map(told(self._clocks, DAY_MS, None))
        self._check(kinds)
        for kind in sorted(kinds):
            whole = f"SELECT d.kind, {self._reach.first}, d.app, d.name, d.type, SUM(d.activities) {_WHOLE_NAMES}"
            of_kind = f"WHERE d.kind = {OTHER[kind]} GROUP BY 3, 4, 5"
            self._insert("name_days", f"{whole} {of_kind} UNION ALL {names_of_days(kind)}")

    def _sessions(self) -> None:
        """Where sums begin at seams, all days from one to the next count for the first of them; else how many sessions
        began on each day is all that is asked for, and of one app all of them are looked up."""
        day, app = self._clocks.away_sql("start_time", DAY_MS), self._values["app"]
        if self._reach.seams is None and not app:
            self._insert("session_days", _SESSIONS_BEGUN.format(day=day))
            return
        if self._reach.seams is None:
            self._map(Told([], [(self._clocks.start, self._clocks.end)]))
        else:
            inside = (seam for seam in self._reach.seams if self._reach.first < seam <= self._reach.last)
            seams = sorted({self._reach.first, self._reach.last + 1, *inside})
            self._map(*(self._between(one, other) for one, other in pairwise(seams)))
        self._count_cut(_CUT_SESSIONS)
        rows = expected_rows(_BY_DAY["session_days"]).replace("local_hour(start_time) / 24", day)
        self._insert("session_days", f"{_WHOLE_SESSIONS} UNION ALL {rows.replace('user_sessions s', _CUT_SESSIONS)}")

    def _between(self, one: int, other: int) -> Told:
        start = self._clocks.away.start
        found = told(self._clocks._replace(start=start(one), end=start(other)), DAY_MS, None)
        return Told([(unit, one) for unit, _ in found.whole], found.rest)

    def _map(self, *found: Told) -> None:
        """Have what is whole as ``zone_map``, and what is cut as ``zone_rest``."""
        for name in ("zone_map", "zone_rest"):
            self._conn.execute(f"DELETE FROM temp.{name}")
        for whole, rest in found:
            self._conn.executemany("INSERT INTO temp.zone_map VALUES (?, ?)", whole)
            self._conn.executemany("INSERT INTO temp.zone_rest VALUES (?, ?)", rest)

    def _check(self, kinds: frozenset[str]) -> None:
        """Have the activities of what is cut as ``checking``, with their names of ``kinds``."""
        self._count_cut(_CUT_ROWS)
        source = f"{_CUT_ROWS} WHERE a.seq <= (SELECT through FROM main.figures_state)"
        hour = self._clocks.away_sql("a.timestamp", HOUR_MS)
        self._conn.execute("DELETE FROM temp.checking")
        self._insert("checking", keyed_rows(hour, source, "{other}", {"app", "type", *kinds}))

    def _count_cut(self, rows: str) -> None:
        self._count(
            self._conn.execute(f"SELECT COUNT(*) FROM (SELECT 1 FROM {rows} LIMIT {MOST_ROWS + 1})").fetchone()[0]
        )
