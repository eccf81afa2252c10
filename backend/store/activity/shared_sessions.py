"""Sessions that several users' activities came under (a visitor who logs in half-way), when one of them is erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flashflow.backend.store.activity.session_cache import OpenSession, SessionCache
from flashflow.backend.store.activity.sessionizer import SessionBook
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.schema import OTHER


class Gone(NamedTuple):
    """An activity that was just deleted: the (encoded) id of its session, its type and its time."""

    session: bytes | str
    kind: str
    timestamp: int


def without(tx: Tx, user_id: str, activities: Sequence[Gone], cache: SessionCache) -> None:
    """Another user's session that these fell into has fewer activities, key activities and pages now, and reaches no
    further than what is left of it."""
    book = SessionBook(tx, lambda: "", cache)
    moments: dict[bytes | str, set[int]] = {}
    for gone in activities:
        session = book.shared(gone.session)
        if session is not None and session.user_id != user_id:
            session.activities = max(0, session.activities - 1)
            session.key_activities = max(0, session.key_activities - (gone.kind in cache.key_types))
            moments.setdefault(gone.session, set()).add(gone.timestamp)
    for id_, times in moments.items():
        session = book.shared(id_)
        assert session is not None
        _shrink(tx, session, times)
        book.mark(session)
    book.save()


def _shrink(tx: Tx, session: OpenSession, times: set[int]) -> None:
    """Take from the session's ends what only activities at these times had stretched it to."""
    first, last = tx.conn.execute(
        "SELECT MIN(timestamp), MAX(timestamp) FROM user_activities WHERE timestamp BETWEEN ? AND ? AND session_id = ?",
        (session.start_time, session.last_seen, session.id),
    ).fetchone()
    start, seen = session.start_time, session.last_seen
    if start in times:
        session.start_time = seen if first is None and seen not in times else start if first is None else first
    if seen in times:
        session.last_seen = session.start_time if last is None else last
    if (start, seen) != (session.start_time, session.last_seen):
        if session.end_reason == "timeout" or session.end_time in times:
            session.end_time = session.last_seen
        session.tell = True


def reassign(tx: Tx, user_id: str, ids: Sequence[bytes | str], cache: SessionCache) -> frozenset[bytes | str]:
    """Leave shared sessions of ``user_id``, whose own activities are gone, to whoever came first of the others, with
    nothing of the user's left in them; returns those that somebody took."""
    book = SessionBook(tx, lambda: "", cache)
    taken: list[OpenSession] = []
    for id_ in ids:
        session = book.shared(id_)
        assert session is not None
        rows = tx.conn.execute(_LEFT, (session.start_time, session.last_seen, id_)).fetchall()
        if rows:
            session.user_id, session.shared, session.implicit = rows[0][0], len(rows) > 1, False
            session.start_time = rows[0][1]
            session.last_seen = max(last for _, _, last, _, _ in rows)
            session.activities = sum(count for _, _, _, count, _ in rows)
            session.key_activities = sum(keys for *_, keys in rows)
            if session.end_time is not None:
                session.end_time = session.last_seen
            session.tell = True
            tx.conn.execute(_HAND_OVER, (session.user_id, session.seq))
            tx.conn.execute(_COUNT, (session.user_id, session.seq))
            book.mark(session)
            taken.append(session)
    book.save()
    return frozenset(session.id for session in taken)


_LEFT = (
    "SELECT user_id, MIN(timestamp), MAX(timestamp), COUNT(*), SUM(activity_type IN "
    f"(SELECT name FROM figure_names WHERE kind = {OTHER['type']} AND marked)) FROM user_activities "
    "WHERE timestamp BETWEEN ? AND ? AND session_id = ? GROUP BY user_id ORDER BY 2, 1"
)
_HAND_OVER = (
    "UPDATE user_sessions SET user_id = ?, device_info = NULL, ip_address = NULL, user_agent = NULL WHERE seq = ?"
)
_COUNT = (
    "UPDATE user_analytics SET total_sessions = total_sessions + 1 WHERE user_id = ? "
    "AND ? <= COALESCE((SELECT sessions_counted FROM figures_state), 1 << 62)"
)
