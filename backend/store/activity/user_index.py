"""Index of activities by user and counters per user, both updated in batches.

Entries of different users are on different pages: row by row, they were 15 of 65 µs of a write, nearly all of it WAL
pages.

- ``activities_by_user`` has the rows up to ``figures_state.through``, added in sorted batches (``rollups.aggregate``).
  Later rows (the tail) are found by ``seq``. A query about one user reads both: by the view ``user_timeline``, or by
  the functions below.
- Small writes update the counters of ``user_analytics``. A write with activities of many users defers them, and its
  sessions, to the next small write or idle second: rows after ``counted`` and ``sessions_counted``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from peewee import Table

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups import partitions
from flashflow.backend.store.rollups.aggregate import aggregate_batch
from flashflow.backend.store.rollups.dimensions import user_key

COUNT_AT = 65_536
"""Activities with deferred counters above which they are counted although writes continue."""
AGGREGATE_AT = 16_384
"""Rows in the tail that start an aggregation; a read scans about as many at most (0.1 µs each)."""

_NAMES = (
    "seq", "id", "user_id", "activity_type", "session_id", "app", "timestamp", "received_at", "metadata", "page_url",
    "referrer", "user_agent", "ip_address",
)  # fmt: skip
COLUMNS = {name: name for name in _NAMES} | {
    "user_agent": "COALESCE(user_agent, (SELECT name FROM figure_names WHERE key = agent)) AS user_agent"
}
"""An activity's columns, and the SQL of each in a statement over ``user_activities``."""
_OF = {"seq": "p.seq AS seq", "user_id": "u.user_id AS user_id"}
_SEQ = re.compile(r"\bseq\b")
_MARK = "(SELECT through FROM figures_state)"
_INDEXED = (
    "figure_users u CROSS JOIN activity_parts t CROSS JOIN activities_by_user p ON p.part = t.part AND p.user = u.key "
    "CROSS JOIN user_activities a ON a.seq = p.seq"
)
TAIL = f"user_activities WHERE seq > {_MARK}"

VIEW_DDL = f"""CREATE VIEW user_timeline AS
    SELECT {", ".join(_OF.get(c, sql) for c, sql in COLUMNS.items())} FROM {_INDEXED}
    UNION ALL SELECT {", ".join(COLUMNS.values())} FROM {TAIL}"""

TIMELINE = Table("user_timeline")


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
    f"SELECT a.activity_type, a.app FROM {_INDEXED} WHERE u.user_id = ?1 "
    f"AND {partitions.between('?2', str(partitions.ALWAYS))} "
    f"UNION ALL SELECT activity_type, app FROM {TAIL} AND user_id = ?1 AND timestamp >= ?2"
)
"""SQL for the type and app of every activity of user ?1 at time ?2 or later."""

COUNT = (
    "INSERT INTO user_analytics (user_id, total_sessions, total_activities, last_activity) {rows} "
    "ON CONFLICT DO UPDATE SET total_sessions = total_sessions + excluded.total_sessions, "
    "total_activities = total_activities + excluded.total_activities, "
    "last_activity = CASE WHEN excluded.last_activity > COALESCE(last_activity, 0) "
    "THEN excluded.last_activity ELSE last_activity END"
)
_COUNT_TAIL = COUNT.format(
    rows="SELECT user_id, 0, COUNT(*), MAX(timestamp) FROM user_activities WHERE seq > ? GROUP BY user_id"
)
_COUNT_SESSIONS = COUNT.format(
    rows="SELECT user_id, COUNT(*), 0, NULL FROM user_sessions "
    "WHERE seq > (SELECT sessions_counted FROM figures_state) GROUP BY user_id"
)


def catch_up(tx: Tx, local: LocalTime) -> bool:
    """Aggregate one batch of the tail into the rollups and the index, and update deferred counters above COUNT_AT;
    return whether more is left."""
    counted = counted_to(tx.conn)
    if counted is not None and _newest(tx.conn) - counted > COUNT_AT:
        count_tail(tx)
    return aggregate_batch(tx, local)


def counted_to(conn: sqlite3.Connection) -> int | None:
    """Return the last ``seq`` that the counters include; None if they include all."""
    counted: int | None = conn.execute("SELECT counted FROM figures_state").fetchone()[0]
    return counted


def count_later(tx: Tx, seq: int) -> None:
    """Defer the counters for activities after ``seq`` and for sessions from now on."""
    tx.conn.execute(
        "UPDATE figures_state SET counted = ?, sessions_counted = (SELECT COALESCE(MAX(seq), 0) FROM user_sessions)",
        (seq,),
    )


def count_tail(tx: Tx) -> bool:
    """Update deferred counters; return whether there were any."""
    counted = counted_to(tx.conn)
    if counted is None:
        return False
    tx.conn.execute(_COUNT_TAIL, (counted,))
    tx.conn.execute(_COUNT_SESSIONS)
    tx.conn.execute("UPDATE figures_state SET counted = NULL, sessions_counted = NULL")
    return True


def uncounted_sessions(conn: sqlite3.Connection, user_id: str) -> int:
    """Return the number of the user's sessions that the counters do not include yet."""
    (count,) = conn.execute(
        "SELECT COUNT(*) FROM user_sessions WHERE user_id = ? AND seq > (SELECT sessions_counted FROM figures_state)",
        (user_id,),
    ).fetchone()
    return int(count)


def tail_length(conn: sqlite3.Connection) -> int:
    """Return the length of the tail; an upper bound, since deleted rows count."""
    (through,) = conn.execute(f"SELECT {_MARK}").fetchone()
    return _newest(conn) - int(through)


def _newest(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT COALESCE(MAX(seq), 0) FROM user_activities").fetchone()[0])


class IndexQuery(NamedTuple):
    """Filter of one user's activities: conditions on COLUMNS with their values, and the time from ``low`` to ``high``
    (milliseconds since 1970, both included; None: unbounded)."""

    user_id: str
    where: Sequence[str] = ()
    values: Sequence[Any] = ()
    low: int | None = None
    high: int | None = None


def newest_of_user(
    conn: sqlite3.Connection, query: IndexQuery, limit: int, *, oldest: bool = False
) -> list[tuple[Any, ...]]:
    """Return the newest (or ``oldest``) activities as rows of COLUMNS."""
    return list(rows_at(conn, [seq for _, seq in places_of_user(conn, query, limit, oldest=oldest)]))


def rows_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Iterate over rows of COLUMNS in the order of ``seqs``."""
    # CROSS JOIN keeps the order of the list without sorting the rows, which may be as large as a request.
    return conn.execute(
        f"SELECT {', '.join(COLUMNS.values())} FROM (SELECT value AS wanted FROM json_each(?)) "
        "CROSS JOIN user_activities ON seq = wanted",
        (to_json(list(seqs)),),
    )


def places_of_user(
    conn: sqlite3.Connection, query: IndexQuery, limit: int, *, oldest: bool = False
) -> list[tuple[int, int]]:
    """Return (timestamp, seq) of the newest (or ``oldest``) activities. Reads up to ``limit`` matches of each
    partition, and stops after the partition in which it has ``limit``."""
    order = "ASC" if oldest else "DESC"
    found = _in_tail(conn, query, f"ORDER BY timestamp {order}, seq {order} LIMIT {int(limit)}")
    user = user_key(conn, query.user_id)
    conditions = "".join(f" AND {_SEQ.sub('p.seq', condition)}" for condition in query.where)
    indexed_rows = (
        "SELECT a.timestamp, p.seq FROM activities_by_user p CROSS JOIN user_activities a ON a.seq = p.seq "
        f"WHERE p.part = ? AND p.user = ? AND p.at BETWEEN ? AND ?{conditions} "
        f"ORDER BY p.at {order}, p.seq {order} LIMIT {int(limit)}"
    )
    indexed = 0
    for number, low, high in (
        partitions.partitions(conn, query.low, query.high, oldest=oldest) if user is not None else ()
    ):
        rows = conn.execute(indexed_rows, (number, user, low, high, *query.values)).fetchall()
        found += rows
        indexed += len(rows)
        if indexed >= limit:  # the next partitions are further away than all of these
            break
    found.sort(reverse=not oldest)
    return found[:limit]


def _in_tail(conn: sqlite3.Connection, query: IndexQuery, order: str) -> list[tuple[int, int]]:
    where, values = ["user_id = ?", *query.where], [query.user_id, *query.values]
    for condition, bound in (("timestamp >= ?", query.low), ("timestamp <= ?", query.high)):
        if bound is not None:
            where.append(condition)
            values.append(bound)
    # NOT INDEXED: read the few rows of the tail by seq, not all rows by the index in the requested order.
    rows = TAIL.replace("user_activities", "user_activities NOT INDEXED")
    return conn.execute(
        f"SELECT timestamp, seq FROM {rows} AND {' AND '.join(where)} {order}",
        values,
    ).fetchall()
