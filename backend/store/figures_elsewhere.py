"""The figures by another zone's clock, made for one question: of the kept ones, and of bare rows where these are cut.

They are temporary tables of the same names, which SQLite finds before the kept ones; the questions are the same. What
people did is told by their days' first and last moments, so that only who was there on both sides of the other zone's
midnight is looked up; hours and names are whole where the other clock does not cut them (``zone_hours``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from zoneinfo import ZoneInfo

from backend.clock import rfc3339
from backend.errors import ValidationError
from backend.store import moments
from backend.store.figures_check import BY_DAY, Table, expected_rows, names_of_days
from backend.store.folding import UNITE, UNITE_OF_TYPE, keyed_rows
from backend.store.names import VALUES
from backend.store.parts import BITS, between
from backend.store.pruning import pruned_before
from backend.store.schema_figures import DAY_MS, FIRST, LAST, OTHER, week_of
from backend.store.zone_hours import HOUR_MS, Clocks, told
from backend.zone import LocalTime

MOST_ROWS = 2_000_000
"""Rows that one question may have counted anew: days of users, sessions, activities of hours that are cut; each takes
some 1 to 3 µs."""
NAMES = frozenset({"page", "feature", "referrer"})
"""Kinds of names that most questions do not ask for."""

# By the kept days: whose first began before the range began, or had its first activity before.
_EARLIER = (
    "UPDATE temp.user_spans AS s SET first_day = -1 WHERE EXISTS (SELECT 1 FROM main.user_spans m "
    "WHERE m.app = s.app AND m.user = s.user AND (m.first_day < :first OR (m.first_day = :first "
    f"AND (SELECT MIN({FIRST}) FROM main.user_days d "
    "WHERE d.day = m.first_day AND d.user = m.user AND (m.app = 0 OR d.app = m.app)) < :start)))"
)
# The user_days and user_type_days they are made of are of the one app that is asked for (0: of all).
_PRESENT = "(SELECT DISTINCT day, user FROM user_days)"
_ACTIVE = f"SELECT 0, 0, day, COUNT(*) FROM {_PRESENT} GROUP BY 3"
_ACTIVE_IN_APP = f"{_ACTIVE} UNION ALL {_ACTIVE.replace('0, 0', '0, :app')}"
_ACTIVE_OF_TYPES = " UNION ALL SELECT type, :app, day, COUNT(DISTINCT user) FROM user_type_days GROUP BY 1, 3"
_SPANS = "SELECT :app, user, MIN(day), MAX(day) FROM user_days GROUP BY user"
_NEW = "SELECT app, first_day, first_day, COUNT(*) FROM user_spans WHERE first_day >= 0 GROUP BY 2"
_COHORTS = (
    f"SELECT :app, s.first_day, d.day, COUNT(*) FROM {_PRESENT} d CROSS JOIN user_spans s ON s.app = :app "
    "AND s.user = d.user WHERE s.first_day >= 0 GROUP BY 2, 3"
)
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

# --- what is cut by the other clock's midnight ------------------------------------------------------------------------

_AT = f"((t.part << {BITS}) + p.at)"
_BARE = (
    "CROSS JOIN main.activity_parts t CROSS JOIN main.activities_by_user p ON p.part = t.part AND p.user = d.user "
    f"AND {between(f'MAX({FIRST}, :start)', f'MIN({LAST}, :end - 1)')}"
)
_ROWS = f"{_BARE} CROSS JOIN main.user_activities a ON a.seq = p.seq"
_WHOLE_HOURS = "FROM temp.zone_map z CROSS JOIN main.activity_hours h ON h.hour = z.unit"
_SHARED = "EXISTS (SELECT 1 FROM main.user_days o WHERE o.day = d.day AND o.user = d.user AND o.app <> d.app)"
_IN_APP = "(:app = 0 OR d.app = :app)"
_DAYS = f"FROM main.user_days d {{more}} WHERE d.day BETWEEN :first AND :last AND {_IN_APP} AND {{which}}"
_OF_TYPES = (
    "FROM main.type_weeks t0 CROSS JOIN main.user_type_days d ON d.week = t0.week AND d.type = t0.type "
    "AND d.day BETWEEN :first AND :last {more} WHERE t0.type IN (SELECT value FROM json_each(:types)) "
    f"AND t0.week BETWEEN {week_of(':first')} AND {week_of(':last')} AND {_IN_APP} AND {{which}}"
)


def _is(kind: str) -> str:
    """SQL for whether the activity ``a`` is of the row's ``d`` app or type."""
    key = f"SELECT key FROM figure_names WHERE kind = {OTHER[kind]} AND name = {VALUES[kind]}"
    return f"COALESCE(({key}), {OTHER[kind]}) = d.{kind}"


class Reach(NamedTuple):
    """What a question looks at: local days, both included, tables of figures, and which kinds of names. ``types``:
    those by which users are told apart, where ``user_type_days`` is among the tables; ``hours``: the days whose hours
    are told apart, where these are not all of them; ``cohorts``: whether ``cohort_days`` tells who came back, or only
    who was new."""

    first: int
    last: int
    tables: frozenset[str]
    kinds: frozenset[str] = frozenset()
    types: tuple[str, ...] = ()
    hours: tuple[int, int] | None = None
    cohorts: bool = False


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
        self._count_so_far = 0
        home, _, start, end = clocks
        types = conn.execute(
            f"SELECT json_group_array(key) FROM figure_names WHERE kind = {OTHER['type']} "
            f"AND name IN ({', '.join('?' * len(reach.types))})",
            reach.types,
        ).fetchone()[0]
        self._values = {
            "start": start, "end": end, "first": home.day(start), "last": home.day(end - 1), "types": types, "app": app,
        }  # fmt: skip

    def make(self) -> None:
        self._refuse_too_much()
        for table in BY_DAY:
            if table.name not in self._tables:  # the kept ones are by another clock: whoever asks them is to notice
                self._conn.execute(f"CREATE TEMP VIEW {table.name} AS SELECT * FROM temp.not_within_reach")
                self._hidden.append(table.name)
                continue
            described = self._conn.execute(f"PRAGMA main.table_info({table.name})").fetchall()
            columns = ", ".join(f"{column} {kind}" for _, column, kind, *_ in described)
            keys = ", ".join(column for _, column, _, _, _, of_key in described if of_key)
            if table.name in _KEYED:
                self._create(table.name, f"{columns}, PRIMARY KEY ({keys})", "WITHOUT ROWID")
            else:
                self._create(table.name, columns)
            special = {
                "user_days": self._user_days,
                "user_type_days": self._user_type_days,
                "activity_hours": self._hours,
                "name_days": self._names,
            }.get(table.name)
            if special is not None:
                special()
            else:
                self._run(f"INSERT INTO temp.{table.name} {self._rows_of(table)}")
            if table.name == "user_spans":
                self._run(_EARLIER)

    def drop(self) -> None:
        for name in self._made:
            self._conn.execute(f"DROP TABLE temp.{name}")
        for name in self._hidden:
            self._conn.execute(f"DROP VIEW temp.{name}")

    def _create(self, name: str, columns: str, how: str = "") -> None:
        self._conn.execute(f"CREATE TEMP TABLE {name} ({columns}) {how}")
        self._made.append(name)

    def _run(self, sql: str) -> None:
        self._conn.execute(sql, self._values)

    # --- how much it is -----------------------------------------------------------------------------------------------

    def _refuse_too_much(self) -> None:
        of_users = (
            "SELECT TOTAL(users) FROM main.active_days WHERE app = 0 AND day BETWEEN :first AND :last "
            "AND type IN (SELECT value FROM json_each({types}))"
        )
        sessions = "SELECT COUNT(*) FROM user_sessions WHERE start_time >= :start AND start_time < :end"
        for table, sql in (
            ("user_days", of_users.format(types="'[0]'")),
            ("user_type_days", of_users.format(types=":types")),
            ("session_days", sessions),
        ):
            if table in self._tables:
                (rows,) = self._conn.execute(sql, self._values).fetchone()
                self._count(int(rows))

    def _count(self, rows: int) -> None:
        self._count_so_far += rows
        if self._count_so_far > MOST_ROWS:
            raise ValidationError.of(
                "tz", f"is not the workspace's, and more than {MOST_ROWS:,} rows would have to be counted anew for it"
            )

    # --- users --------------------------------------------------------------------------------------------------------

    def _user_days(self) -> None:
        day, whole, cut = self._told_by(FIRST), *self._whole_and_cut()
        self._run(
            f"INSERT INTO temp.user_days SELECT {day}, d.user, d.app, d.activities, {FIRST} - {day} * {DAY_MS}, d.span "
            f"{_DAYS.format(more='', which=whole)} {UNITE}"
        )
        for rows, which in ((_BARE, f"NOT {_SHARED}"), (_ROWS, f"{_SHARED} AND {_is('app')}")):
            self._run(
                f"INSERT INTO temp.user_days SELECT day, user, app, COUNT(*), MIN(moment) - day * {DAY_MS}, "
                f"MAX(moment) - MIN(moment) FROM (SELECT {self._told_by(_AT)} AS day, d.user, d.app, {_AT} AS moment "
                f"{_DAYS.format(more=rows, which=f'{cut} AND {which}')}) WHERE true GROUP BY 1, 2, 3 {UNITE}"
            )

    def _user_type_days(self) -> None:
        day, whole, cut = self._told_by(FIRST), *self._whole_and_cut()
        self._run(
            f"INSERT INTO temp.user_type_days SELECT {week_of(day)}, d.type, d.user, {day}, d.app, d.activities, "
            f"{FIRST} - {day} * {DAY_MS}, d.span, d.moments {_OF_TYPES.format(more='', which=whole)} {UNITE_OF_TYPE}"
        )
        kept = f", json_each(moments_told({FIRST}, d.span, d.activities, d.moments)) m"
        known = "(d.activities < 3 OR d.moments IS NOT NULL)"
        for rows, moment, which in (
            (kept, "m.value", f"{known} AND m.value >= :start AND m.value < :end"),
            (_ROWS, _AT, f"NOT {known} AND {_is('app')} AND {_is('type')}"),
        ):
            self._run(
                f"INSERT INTO temp.user_type_days SELECT {week_of('day')}, type, user, day, app, COUNT(*), "
                f"MIN(moment) - day * {DAY_MS}, MAX(moment) - MIN(moment), {moments.kept('COUNT(*)', 'moment')} "
                f"FROM (SELECT {self._told_by(moment)} AS day, d.type, d.user, d.app, {moment} AS moment "
                f"{_OF_TYPES.format(more=rows, which=f'{cut} AND {which}')}) WHERE true "
                f"GROUP BY 1, 2, 3, 4, 5 {UNITE_OF_TYPE}"
            )

    def _whole_and_cut(self) -> tuple[str, str]:
        """SQL for whether a row ``d`` is of one day by the other clock, and whether it is of several, or of one that is
        not looked at."""
        one = f"{self._told_by(FIRST)} = {self._told_by(LAST)} AND {FIRST} >= :start"
        return f"{one} AND {FIRST} < :end", f"NOT ({one}) AND {LAST} >= :start AND {FIRST} < :end"

    # --- hours, names and the rest ------------------------------------------------------------------------------------

    def _hours(self) -> None:
        clocks, hours = self._clocks, self._reach.hours
        if hours is not None:
            clocks = clocks._replace(start=clocks.away.start(hours[0]), end=clocks.away.start(hours[1] + 1))
        if clocks.start < clocks.end:
            self._map(clocks, HOUR_MS, HOUR_MS, frozenset())
            self._conn.execute(
                "INSERT INTO temp.activity_hours SELECT z.within, h.app, h.type, SUM(h.activities) "
                f"{_WHOLE_HOURS} GROUP BY 1, 2, 3 "
                "UNION ALL SELECT hour, app, type, COUNT(*) FROM checking GROUP BY 1, 2, 3"
            )

    def _names(self) -> None:
        """Types by day. Other kinds are asked for by themselves, over the whole range: its days count for the first."""
        if not self._reach.kinds:
            self._map(self._clocks, HOUR_MS, DAY_MS, frozenset())
            self._conn.execute(
                f"INSERT INTO temp.name_days SELECT {OTHER['type']}, z.within, h.app, h.type, h.type, "
                f"SUM(h.activities) {_WHOLE_HOURS} GROUP BY 2, 3, 4 UNION ALL {names_of_days('type')}"
            )
        else:
            self._map(self._clocks, DAY_MS, None, self._reach.kinds)
            for kind in sorted(self._reach.kinds):
                self._conn.execute(
                    "INSERT INTO temp.name_days SELECT kind, ?1, app, name, type, SUM(activities) FROM temp.zone_map z "
                    f"CROSS JOIN main.name_days d ON d.day = z.unit WHERE d.kind = {OTHER[kind]} GROUP BY 3, 4, 5 "
                    f"UNION ALL {names_of_days(kind)}",
                    (self._reach.first,),
                )

    def _map(self, clocks: Clocks, home_unit: int, away_unit: int | None, kinds: frozenset[str]) -> None:
        """Units and what they are by the other clock, as ``zone_map``; the activities of the rest as ``checking``."""
        found = told(clocks, home_unit, away_unit)
        if "zone_map" not in self._made:
            self._create("zone_map", "unit INTEGER PRIMARY KEY, within INTEGER NOT NULL")
            self._create("zone_rest", "low INTEGER PRIMARY KEY, high INTEGER NOT NULL")
            self._create("checking", f"user, {', '.join(VALUES)}, hour, timestamp, seq")
        for name in ("zone_map", "zone_rest", "checking"):
            self._conn.execute(f"DELETE FROM temp.{name}")
        self._conn.executemany("INSERT INTO temp.zone_map VALUES (?, ?)", found.whole)
        self._conn.executemany("INSERT INTO temp.zone_rest VALUES (?, ?)", found.rest)
        within = (
            "FROM temp.zone_rest r CROSS JOIN main.user_activities a ON a.timestamp >= r.low AND a.timestamp < r.high"
        )
        self._count(self._conn.execute(f"SELECT COUNT(*) FROM (SELECT 1 {within} LIMIT {MOST_ROWS + 1})").fetchone()[0])
        source = f"{within} WHERE a.seq <= (SELECT through FROM main.figures_state)".removeprefix("FROM ")
        rows = keyed_rows(self._told_by("a.timestamp", HOUR_MS), source, "{other}", {"app", "type", *kinds})
        self._conn.execute(f"INSERT INTO temp.checking {rows}")

    def _rows_of(self, table: Table) -> str:
        """The SELECT of a table's rows, as far as they are asked for."""
        if table.name == "active_days":
            active = _ACTIVE_IN_APP if self._values["app"] else _ACTIVE
            return active + _ACTIVE_OF_TYPES * ("user_type_days" in self._tables)
        if table.name == "cohort_days":
            return _COHORTS if self._reach.cohorts else _NEW
        if table.name == "user_spans":
            return _SPANS
        rows = expected_rows(table, sessions_within=" AND start_time >= :start AND start_time < :end")
        return rows.replace("local_hour(start_time)", self._told_by("start_time", HOUR_MS))

    def _told_by(self, moment: str, unit: int = DAY_MS) -> str:
        """SQL for the other clock's day or hour of a moment that is looked at, or lies within two days of these."""
        _, away, start, end = self._clocks
        (_, offset), *changes = away.offsets(start - 2 * DAY_MS, end + 2 * DAY_MS)
        sql = str(offset)
        for since, offset in changes:
            sql = f"CASE WHEN {moment} >= {since} THEN {offset} ELSE {sql} END"
        return f"({moment} + {sql}) / {unit}"
