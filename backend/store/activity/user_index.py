"""What is kept by user and would cost every activity a page of its own: fed a few thousand rows at once.

Each user's newest index entry and counters lie on other pages than the next user's, so that keeping them row by row
was the dearest part of a write (measured: 15 µs of 65, nearly all of it pages for the WAL).

- ``activities_by_user`` takes the rows up to its mark, sorted, in one go (``folding``); what came after (the tail) is
  found by ``seq``. Every question about one user asks both: through the view ``user_timeline``, or as below.
- The counters of ``user_analytics`` are kept by each small write. A group of many users' activities leaves them, and
  the sessions it opens, to the next small write or the next idle second, from the rows after ``counted`` and
  ``sessions_counted`` on.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups import partitions
from flashflow.backend.store.rollups.aggregate import fold
from flashflow.backend.store.rollups.dimensions import user_key

COUNT_AT = 65_536
"""Activities left uncounted at most while more and more come; an idle second counts them, too."""
FEED_AT = 16_384
"""Rows in the tail that are worth a feed; a read looks through at most about so many (some 0.1 µs each)."""

_NAMES = (
    "seq", "id", "user_id", "activity_type", "session_id", "app", "timestamp", "received_at", "metadata", "page_url",
    "referrer", "user_agent", "ip_address",
)  # fmt: skip
COLUMNS = {name: name for name in _NAMES} | {
    "user_agent": "COALESCE(user_agent, (SELECT name FROM figure_names WHERE key = agent)) AS user_agent"
}
"""An activity's columns, and what each is in a statement over ``user_activities``."""
_OF = {"seq": "p.seq AS seq", "user_id": "u.user_id AS user_id"}
_SEQ = re.compile(r"\bseq\b")
_MARK = "(SELECT through FROM figures_state)"
_FED = (
    "figure_users u CROSS JOIN activity_parts t CROSS JOIN activities_by_user p ON p.part = t.part AND p.user = u.key "
    "CROSS JOIN user_activities a ON a.seq = p.seq"
)
TAIL = f"user_activities WHERE seq > {_MARK}"

VIEW_DDL = f"""CREATE VIEW user_timeline AS
    SELECT {", ".join(_OF.get(c, sql) for c, sql in COLUMNS.items())} FROM {_FED}
    UNION ALL SELECT {", ".join(COLUMNS.values())} FROM {TAIL}"""


def of_session(column: str) -> str:
    """SQL for a column of the activities of the session in the enclosing query's ``user_sessions``; SQLite hands no
    outer column down into the view, so both parts are written out."""
    return (
        f"SELECT a.{column} FROM {_FED} WHERE u.user_id = user_sessions.user_id "
        f"AND {partitions.between('user_sessions.start_time', 'user_sessions.last_seen')} "
        f"AND a.session_id = user_sessions.id UNION ALL SELECT {column} FROM {TAIL} "
        "AND user_id = user_sessions.user_id AND session_id = user_sessions.id"
    )


def rows_of(condition: str) -> str:
    """SQL for the ``seq`` of the user :user's activities from :low to :high, both included, that meet ``condition``."""
    return (
        f"SELECT a.seq FROM {_FED} WHERE u.user_id = :user AND {partitions.between(':low', ':high')} AND a.{condition} "
        f"UNION ALL SELECT seq FROM {TAIL.replace('user_activities', 'user_activities NOT INDEXED')} "
        f"AND user_id = :user AND timestamp BETWEEN :low AND :high AND {condition}"
    )


SINCE = (
    f"SELECT a.activity_type, a.app FROM {_FED} WHERE u.user_id = ?1 "
    f"AND {partitions.between('?2', str(partitions.ALWAYS))} "
    f"UNION ALL SELECT activity_type, app FROM {TAIL} AND user_id = ?1 AND timestamp >= ?2"
)
"""Type and app of every activity of the user ?1 from the moment ?2 on."""

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
    """Fold the tail into the figures and the index; whether there is more to fold. What was left uncounted is counted
    once it is much: every user's counters lie on another page."""
    counted = counted_to(tx.conn)
    if counted is not None and _newest(tx.conn) - counted > COUNT_AT:
        count_tail(tx)
    return fold(tx, local)


def counted_to(conn: sqlite3.Connection) -> int | None:
    """The ``seq`` after which no activity is in the counters; None where all of them are."""
    counted: int | None = conn.execute("SELECT counted FROM figures_state").fetchone()[0]
    return counted


def count_later(tx: Tx, seq: int) -> None:
    """Leave every activity after ``seq``, and every session from now on, out of the counters for now."""
    tx.conn.execute(
        "UPDATE figures_state SET counted = ?, sessions_counted = (SELECT COALESCE(MAX(seq), 0) FROM user_sessions)",
        (seq,),
    )


def count_tail(tx: Tx) -> bool:
    """Count what was left for later; whether there was anything."""
    counted = counted_to(tx.conn)
    if counted is None:
        return False
    tx.conn.execute(_COUNT_TAIL, (counted,))
    tx.conn.execute(_COUNT_SESSIONS)
    tx.conn.execute("UPDATE figures_state SET counted = NULL, sessions_counted = NULL")
    return True


def uncounted_sessions(conn: sqlite3.Connection, user_id: str) -> int:
    """How many of the user's sessions the counters have not seen yet."""
    (count,) = conn.execute(
        "SELECT COUNT(*) FROM user_sessions WHERE user_id = ? AND seq > (SELECT sessions_counted FROM figures_state)",
        (user_id,),
    ).fetchone()
    return int(count)


def tail_length(conn: sqlite3.Connection) -> int:
    """How many rows (at most: erased ones count) the index has not seen yet."""
    (through,) = conn.execute(f"SELECT {_MARK}").fetchone()
    return _newest(conn) - int(through)


def _newest(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT COALESCE(MAX(seq), 0) FROM user_activities").fetchone()[0])


class IndexQuery(NamedTuple):
    """Which of a user's activities: conditions on COLUMNS with their values, and the time from ``low`` to ``high``
    (milliseconds since 1970, both included; None: without end)."""

    user_id: str
    where: Sequence[str] = ()
    values: Sequence[Any] = ()
    low: int | None = None
    high: int | None = None


def newest_of_user(
    conn: sqlite3.Connection, asked: IndexQuery, limit: int, *, oldest: bool = False
) -> list[tuple[Any, ...]]:
    """The newest activities (or the ``oldest``), as rows of COLUMNS."""
    return list(rows_at(conn, [seq for _, seq in places_of_user(conn, asked, limit, oldest=oldest)]))


def rows_at(conn: sqlite3.Connection, seqs: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Rows of COLUMNS in the order of ``seqs``, read one by one."""
    # CROSS JOIN keeps the order of the list, and no row has to be sorted: a row may be as large as a request.
    return conn.execute(
        f"SELECT {', '.join(COLUMNS.values())} FROM (SELECT value AS wanted FROM json_each(?)) "
        "CROSS JOIN user_activities ON seq = wanted",
        (to_json(list(seqs)),),
    )


def places_of_user(
    conn: sqlite3.Connection, asked: IndexQuery, limit: int, *, oldest: bool = False
) -> list[tuple[int, int]]:
    """(timestamp, seq) of the newest activities (or the ``oldest``). No part is read further than to ``limit`` matches,
    and none that lies behind as many."""
    turn = "ASC" if oldest else "DESC"
    found = _in_tail(conn, asked, f"ORDER BY timestamp {turn}, seq {turn} LIMIT {int(limit)}")
    user = user_key(conn, asked.user_id)
    conditions = "".join(f" AND {_SEQ.sub('p.seq', condition)}" for condition in asked.where)
    fed = (
        "SELECT a.timestamp, p.seq FROM activities_by_user p CROSS JOIN user_activities a ON a.seq = p.seq "
        f"WHERE p.part = ? AND p.user = ? AND p.at BETWEEN ? AND ?{conditions} "
        f"ORDER BY p.at {turn}, p.seq {turn} LIMIT {int(limit)}"
    )
    indexed = 0
    for number, low, high in (
        partitions.partitions(conn, asked.low, asked.high, oldest=oldest) if user is not None else ()
    ):
        rows = conn.execute(fed, (number, user, low, high, *asked.values)).fetchall()
        found += rows
        indexed += len(rows)
        if indexed >= limit:  # what follows lies on the far side of all of these
            break
    found.sort(reverse=not oldest)
    return found[:limit]


def _in_tail(conn: sqlite3.Connection, asked: IndexQuery, order: str) -> list[tuple[int, int]]:
    where, values = ["user_id = ?", *asked.where], [asked.user_id, *asked.values]
    for condition, moment in (("timestamp >= ?", asked.low), ("timestamp <= ?", asked.high)):
        if moment is not None:
            where.append(condition)
            values.append(moment)
    # NOT INDEXED: the few rows of the tail by their seq, not all rows by the index that has their order.
    rows = TAIL.replace("user_activities", "user_activities NOT INDEXED")
    return conn.execute(
        f"SELECT timestamp, seq FROM {rows} AND {' AND '.join(where)} {order}",
        values,
    ).fetchall()
