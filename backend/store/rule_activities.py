"""What rules ask of ``user_activities.db``: what arrived since, what happened in a while, and figures."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from backend.rule_matching import Happening
from backend.store.codec import decode_id, to_json
from backend.store.database import Store

_COLUMNS = (
    "seq, id, user_id, activity_type, session_id, app, timestamp, received_at, metadata, page_url, referrer, user_agent"
)
SINCE = (
    f"SELECT {_COLUMNS} FROM user_activities NOT INDEXED WHERE seq > ? AND seq <= ? AND timestamp >= ? "  # noqa: S608
    "AND activity_type IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?"
)
DURING = (
    f"SELECT {_COLUMNS} FROM user_activities INDEXED BY user_activities_time "  # noqa: S608
    "WHERE timestamp >= ? AND activity_type = ? AND (? IS NULL OR app = ?) ORDER BY timestamp, seq"
)


class Arrived(NamedTuple):
    """Activities in order of arrival, and the number of the last that was looked at for them."""

    happenings: list[Happening]
    reached: int


def last_seq(conn: sqlite3.Connection) -> int:
    """The number of the latest activity that ever arrived; erasing it changes nothing."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'user_activities'").fetchone()
    return 0 if row is None else int(row[0])


def arrived(
    conn: sqlite3.Connection, after: int, until: int, since_ms: int, types: Sequence[str], limit: int
) -> Arrived:
    """What arrived after number ``after`` up to ``until``, of these types, and happened at ``since_ms`` or later."""
    rows = conn.execute(SINCE, (after, until, since_ms, to_json(types), limit)).fetchall()
    return Arrived([_happening(row) for row in rows], rows[-1][0] if len(rows) == limit else until)


def during(conn: sqlite3.Connection, since_ms: int, activity_type: str, app: str | None) -> Iterator[Happening]:
    """What happened from ``since_ms`` on, oldest first, read as it is asked for."""
    for row in conn.execute(DURING, (since_ms, activity_type, app, app)):
        yield _happening(row)


def _happening(row: tuple[Any, ...]) -> Happening:
    seq, id_, user_id, kind, session_id, *rest = row
    return Happening(seq, decode_id(id_), user_id, kind, decode_id(session_id), *rest)


_OVER = "timestamp >= ?1 AND timestamp < ?2 AND (?3 IS NULL OR app = ?3)"
FIGURES = {
    "activities": f"SELECT COUNT(*) FROM user_activities WHERE {_OVER}",  # noqa: S608
    "active_users": f"SELECT COUNT(DISTINCT user_id) FROM user_activities WHERE {_OVER}",  # noqa: S608
    "sessions": "SELECT COUNT(*) FROM user_sessions "
                "WHERE start_time >= ?1 AND start_time < ?2 AND (?3 IS NULL OR app = ?3)",
    "new_users": f"SELECT COUNT(*) FROM (SELECT DISTINCT user_id FROM user_activities WHERE {_OVER}) u "  # noqa: S608
                 "WHERE NOT EXISTS (SELECT 1 FROM activities_by_user p CROSS JOIN user_activities a ON a.seq = p.seq "
                 "WHERE p.user_id = u.user_id AND p.timestamp < ?1 AND (?3 IS NULL OR a.app = ?3)) "
                 "AND u.user_id NOT IN (SELECT user_id FROM user_activities NOT INDEXED WHERE timestamp < ?1 "
                 "AND seq > (SELECT through FROM activities_by_user_mark) AND (?3 IS NULL OR app = ?3))",
}  # fmt: skip
"""Each over [?1, ?2) ms and one app's rows or all (?3 NULL); DEFINITIONS.md: active users, sessions count where they
start."""


class RowMetrics:
    """Figures counted from the rows themselves, by an index over their time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def value(self, metric: str, start_ms: int, end_ms: int, app: str | None) -> int:
        """The figure over [``start_ms``, ``end_ms``)."""
        return self._store.read(
            lambda conn: int(conn.execute(FIGURES[metric], (start_ms, end_ms, app)).fetchone()[0])
        )  # fmt: skip
