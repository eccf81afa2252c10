"""Index of activities by user and counters per user, both updated in batches.

Entries of different users are on different pages: row by row, they were 15 of 65 µs of a write, nearly all of it WAL
pages.

- ``activities_by_user`` has the rows up to ``rollup_state.through``, added in sorted batches (``rollups.aggregate``).
  Later rows (the tail) are found by ``seq``. A query about one user reads both: by the view ``user_timeline``, or by
  the functions below.
- Small writes update the counters of ``user_analytics``. A write with activities of many users defers them, and its
  sessions, to the next small write (if they are few) or idle second: rows after ``counted`` and ``sessions_counted``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from peewee import EXCLUDED, JOIN, SQL, Case, ColumnBase, Select, Table, Value, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.activity.models import UserActivity, UserAnalytics, UserSession
from flashflow.backend.store.engine.statement import Statement, TextStatement, by_index, columns, listed, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups import partitions
from flashflow.backend.store.rollups.aggregate import aggregate_batch
from flashflow.backend.store.rollups.dimensions import user_key
from flashflow.backend.store.rollups.models import Dimension, RollupState
from flashflow.backend.store.rollups.partitions import ALWAYS

COUNT_AT = 65_536
"""Activities with deferred counters above which they are counted although writes continue."""
AGGREGATE_AT = 16_384
"""Rows in the tail that start an aggregation; a read scans about as many at most (0.1 µs each)."""


class ActivityRow(NamedTuple):
    """A stored activity; ids, the address and JSON as they are stored, times in milliseconds since 1970."""

    seq: int
    id: Any
    user_id: str
    activity_type: str
    session_id: Any
    app: str
    timestamp: int
    received_at: int
    metadata: str | None
    page_url: str | None
    referrer: str | None
    user_agent: str | None
    ip_address: Any


class Place(NamedTuple):
    """The place of an activity in a list by time."""

    timestamp: int
    seq: int


_COLUMNS = {name: name for name in ActivityRow._fields} | {
    "user_agent": "COALESCE(user_agent, (SELECT name FROM dimensions WHERE key = agent)) AS user_agent"
}
_OF = {"seq": "p.seq AS seq", "user_id": "u.user_id AS user_id"}
_MARK = "(SELECT through FROM rollup_state)"
_INDEXED = (
    "user_keys u CROSS JOIN activity_partitions t "
    "CROSS JOIN activities_by_user p ON p.partition = t.partition AND p.user = u.key "
    "CROSS JOIN user_activities a ON a.seq = p.seq"
)
TAIL = f"user_activities WHERE seq > {_MARK}"

VIEW_DDL = f"""CREATE VIEW user_timeline AS
    SELECT {", ".join(_OF.get(c, sql) for c, sql in _COLUMNS.items())} FROM {_INDEXED}
    UNION ALL SELECT {", ".join(_COLUMNS.values())} FROM {TAIL}"""

TIMELINE = Table("user_timeline")


def activity_columns(row: type[tuple[Any, ...]], *, stored: Collection[str] = ()) -> list[ColumnBase]:
    """Return the columns of ``row`` of an activity, as ``statement.columns``; the user agent may be stored as a key."""
    name = Dimension.select(Dimension.name).where(Dimension.key == UserActivity.agent)
    agent = fn.COALESCE(UserActivity.user_agent, name).alias("user_agent")
    return [agent if c.name == "user_agent" else c for c in columns(UserActivity, row, stored=stored)]


def of_session(column: str) -> str:
    """Build SQL for a column of the activities of the enclosing query's ``user_sessions``."""
    # Not by the view: SQLite does not push outer columns down into it.
    return (
        f"SELECT a.{column} FROM {_INDEXED} WHERE u.user_id = user_sessions.user_id "
        f"AND {partitions.between('user_sessions.start_time', 'user_sessions.last_seen')} "
        f"AND a.session_id = user_sessions.id UNION ALL SELECT {column} FROM {TAIL} "
        "AND user_id = user_sessions.user_id AND session_id = user_sessions.id"
    )


def rows_of(condition: str) -> str:
    """Build SQL for the ``seq`` of user :user's activities from :low to :high, both included, with ``condition``."""
    return (
        f"SELECT a.seq FROM {_INDEXED} WHERE u.user_id = :user AND {partitions.between(':low', ':high')} "
        f"AND a.{condition} UNION ALL SELECT seq FROM {TAIL.replace('user_activities', 'user_activities NOT INDEXED')} "
        f"AND user_id = :user AND timestamp BETWEEN :low AND :high AND {condition}"
    )


SINCE = (
    f"SELECT a.activity_type, a.app FROM {_INDEXED} WHERE u.user_id = :user "
    f"AND {partitions.between(':since', str(ALWAYS))} "
    f"UNION ALL SELECT activity_type, app FROM {TAIL} AND user_id = :user AND timestamp >= :since"
)
"""SQL for the type and app of every activity of :user at the time :since or later."""

_A, _S, _U, _STATE = UserActivity, UserSession, UserAnalytics, RollupState
_COUNTERS = (_U.user_id, _U.total_sessions, _U.total_activities, _U.last_activity)
_ADD = {
    _U.total_sessions: _U.total_sessions + EXCLUDED.total_sessions,
    _U.total_activities: _U.total_activities + EXCLUDED.total_activities,
    _U.last_activity: Case(
        None, [(EXCLUDED.last_activity > fn.COALESCE(_U.last_activity, 0), EXCLUDED.last_activity)], _U.last_activity
    ),
}
COUNT_USERS = Statement(lambda: _U.insert(slots(*_COUNTERS)).on_conflict(conflict_target=[_U.user_id], update=_ADD))
_COUNT_TAIL = Statement(
    lambda: _U.insert_from(
        _A.select(_A.user_id, Value(0), fn.COUNT(SQL("*")), fn.MAX(_A.timestamp))
        .where(_A.seq > slot("counted"))
        .group_by(_A.user_id),
        _COUNTERS,
    ).on_conflict(conflict_target=[_U.user_id], update=_ADD)
)
_SESSIONS_COUNTED = _STATE.select(_STATE.sessions_counted)
_COUNT_SESSIONS = Statement(
    lambda: _U.insert_from(
        _S.select(_S.user_id, fn.COUNT(SQL("*")), Value(0), SQL("NULL"))
        .where(_S.seq > _SESSIONS_COUNTED)
        .group_by(_S.user_id),
        _COUNTERS,
    ).on_conflict(conflict_target=[_U.user_id], update=_ADD)
)
_CHANGE_SESSIONS = Statement(
    lambda: _U.update({_U.total_sessions: _U.total_sessions + slot("by")}).where(
        _U.user_id == slot("user"), slot("seq") <= fn.COALESCE(_SESSIONS_COUNTED, ALWAYS)
    )
)
_COUNTED = Statement(lambda: _STATE.select(_STATE.counted))
_COUNT_LATER = Statement(
    lambda: _STATE.update({**slots(_STATE.counted), _STATE.sessions_counted: _S.select(fn.COALESCE(fn.MAX(_S.seq), 0))})
)
_ALL_COUNTED = Statement(lambda: _STATE.update({_STATE.counted: None, _STATE.sessions_counted: None}))
_UNCOUNTED_SESSIONS = Statement(
    lambda: _S.select(fn.COUNT(SQL("*"))).where(_S.user_id == slot("user"), _S.seq > _SESSIONS_COUNTED)
)
_THROUGH = Statement(lambda: _STATE.select(_STATE.through))
_NEWEST = Statement(lambda: _A.select(fn.COALESCE(fn.MAX(_A.seq), 0)))


def catch_up(tx: Tx, local: LocalTime) -> bool:
    """Aggregate one batch of the tail into the rollups and the index, and update deferred counters above COUNT_AT;
    return whether more is left."""
    counted = counted_to(tx.conn)
    if counted is not None and _newest(tx.conn) - counted > COUNT_AT:
        count_tail(tx)
    return aggregate_batch(tx, local)


def counted_to(conn: sqlite3.Connection) -> int | None:
    """Return the last ``seq`` that the counters include; None if they include all."""
    counted: int | None = _COUNTED.value(conn)
    return counted


def count_later(tx: Tx, seq: int) -> None:
    """Defer the counters for activities after ``seq`` and for sessions from now on."""
    _COUNT_LATER.run(tx.conn, counted=seq)


def count_tail(tx: Tx) -> bool:
    """Update deferred counters; return whether there were any."""
    counted = counted_to(tx.conn)
    if counted is None:
        return False
    _COUNT_TAIL.run(tx.conn, counted=counted)
    _COUNT_SESSIONS.run(tx.conn)
    _ALL_COUNTED.run(tx.conn)
    return True


def change_sessions(tx: Tx, user_id: str, seq: int, by: int) -> None:
    """Add ``by`` to the user's number of sessions, unless it does not include the session ``seq`` yet."""
    _CHANGE_SESSIONS.run(tx.conn, user=user_id, seq=seq, by=by)


def uncounted_sessions(conn: sqlite3.Connection, user_id: str) -> int:
    """Return the number of the user's sessions that the counters do not include yet."""
    return int(_UNCOUNTED_SESSIONS.value(conn, user=user_id))


def tail_length(conn: sqlite3.Connection) -> int:
    """Return the length of the tail; an upper bound, since deleted rows count."""
    return _newest(conn) - int(_THROUGH.value(conn))


def _newest(conn: sqlite3.Connection) -> int:
    return int(_NEWEST.value(conn))


class IndexQuery(NamedTuple):
    """Filter of one user's activities: the time from ``low`` to ``high`` (milliseconds since 1970, both included), the
    places between ``after`` and ``before`` (both excluded), ``seq`` up to ``last``; None: any."""

    user_id: str
    low: int = -ALWAYS
    high: int = ALWAYS
    activity_type: str | None = None
    session_id: bytes | None = None
    """As it is stored."""
    app: str | None = None
    after: Place = Place(-ALWAYS, 0)
    before: Place = Place(ALWAYS, 0)
    last: int = ALWAYS

    @property
    def is_filtered(self) -> bool:
        """Whether there is a filter other than user and time."""
        return self._replace(user_id="", low=-ALWAYS, high=ALWAYS) != IndexQuery("")

    def values(self) -> dict[str, Any]:
        """Return the values of FILTERS."""
        return {
            "activity_type": self.activity_type,
            "session_id": self.session_id,
            "app": self.app,
            "after": self.after.timestamp,
            "after_seq": self.after.seq,
            "before": self.before.timestamp,
            "before_seq": self.before.seq,
            "last": self.last,
        }


def newest_of_user(
    conn: sqlite3.Connection, query: IndexQuery, limit: int, *, oldest: bool = False
) -> list[ActivityRow]:
    """Return the newest (or ``oldest``) activities."""
    return list(rows_at(conn, [place.seq for place in places_of_user(conn, query, limit, oldest=oldest)]))


def rows_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[ActivityRow]:
    """Iterate over the activities at ``seqs``, in their order."""
    return _ROWS_AT.each(conn, seqs=list(seqs))


def places_of_user(conn: sqlite3.Connection, query: IndexQuery, limit: int, *, oldest: bool = False) -> list[Place]:
    """Return the places of the newest (or ``oldest``) activities. Reads up to ``limit`` matches of each partition, and
    stops after the partition in which it has ``limit``."""
    filtered = query.is_filtered
    values = query.values() if filtered else {}
    found = _IN_TAIL[oldest, filtered].all(
        conn, user=query.user_id, low=query.low, high=query.high, limit=limit, **values
    )
    user = user_key(conn, query.user_id)
    in_partition, indexed = _IN_PARTITION[oldest, filtered], 0
    for part, low, high in (
        partitions.partitions(conn, query.low, query.high, oldest=oldest) if user is not None else ()
    ):
        rows = in_partition.all(conn, partition=part, user=user, low=low, high=high, limit=limit, **values)
        found += rows
        indexed += len(rows)
        if indexed >= limit:  # the next partitions are further away than all of these
            break
    found.sort(reverse=not oldest)
    return found[:limit]


_ROW = activity_columns(ActivityRow, stored=ActivityRow._fields)
_LISTED = listed("seqs")
# CROSS JOIN keeps the order of the list without sorting the rows, which may be as large as a request.
_ROWS_AT = Statement(lambda: Select([_LISTED], _ROW).join(_A, JOIN.CROSS, on=_A.seq == _LISTED.c.value), ActivityRow)
ACTIVITIES_BY_SEQ = (
    _A.select(*_ROW).from_(by_index(_A, None)).where(_A.seq > slot("after"), _A.seq <= slot("until")).order_by(_A.seq)
)
"""The query for the activities after a ``seq`` up to another one."""
FILTERS = " AND ".join(
    (
        "",
        "(:activity_type IS NULL OR activity_type = :activity_type)",
        "(:session_id IS NULL OR session_id = :session_id)",
        "(:app IS NULL OR app = :app)",
        "(timestamp, {seq}) > (:after, :after_seq)",
        "(timestamp, {seq}) < (:before, :before_seq)",
        "{seq} <= :last",
    )
)
"""SQL for further conditions, those of an IndexQuery apart from user and time."""
# By whether the oldest come first, and whether the query is filtered: most are not.
_VARIANTS = [
    ((oldest, filtered), order, FILTERS if filtered else "")
    for oldest, order in ((True, "ASC"), (False, "DESC"))
    for filtered in (True, False)
]
# NOT INDEXED: read the few rows of the tail by seq, not all rows by the index in the requested order.
_IN_TAIL = {
    variant: TextStatement(
        f"SELECT timestamp, seq FROM {TAIL.replace('user_activities', 'user_activities NOT INDEXED')} "
        f"AND user_id = :user AND timestamp BETWEEN :low AND :high{filters.format(seq='seq')} "
        f"ORDER BY timestamp {order}, seq {order} LIMIT :limit",
        Place,
        reason="an index hint",
    )
    for variant, order, filters in _VARIANTS
}
_IN_PARTITION = {
    variant: TextStatement(
        "SELECT a.timestamp, p.seq FROM activities_by_user p CROSS JOIN user_activities a ON a.seq = p.seq "
        "WHERE p.partition = :partition AND p.user = :user AND p.at BETWEEN :low AND :high"
        f"{filters.format(seq='p.seq')} ORDER BY p.at {order}, p.seq {order} LIMIT :limit",
        Place,
        reason="a join order",
    )
    for variant, order, filters in _VARIANTS
}
