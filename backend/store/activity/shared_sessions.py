"""Shared sessions (activities of several users: a visitor who logs in later) when one of the users is erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flashflow.backend.store.activity.session_cache import OpenSession, SessionCache
from flashflow.backend.store.activity.sessionizer import SessionBook
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.models import OTHER


class Gone(NamedTuple):
    """A deleted activity: the encoded id of its session, its type, its timestamp."""

    session: bytes
    kind: str
    timestamp: int


def without(tx: Tx, user_id: str, activities: Sequence[Gone], cache: SessionCache) -> None:
    """Subtract deleted ``activities`` from shared sessions of other users, and shrink these to the activities left."""
    book = SessionBook(tx, lambda: "", cache)
    times_of: dict[bytes, set[int]] = {}
    for gone in activities:
        session = book.shared(gone.session)
        if session is not None and session.user_id != user_id:
            session.activities = max(0, session.activities - 1)
            session.key_activities = max(0, session.key_activities - (gone.kind in cache.key_types))
            times_of.setdefault(gone.session, set()).add(gone.timestamp)
    for id_, times in times_of.items():
        session = book.shared(id_)
        assert session is not None
        _shrink(tx, session, times)
        book.mark(session)
    book.save()


def _shrink(tx: Tx, session: OpenSession, times: set[int]) -> None:
    """Move the session's start and end to its remaining activities, where deleted ones at ``times`` had set them."""
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
        session.publish = True


def reassign(tx: Tx, user_id: str, ids: Sequence[bytes], cache: SessionCache) -> frozenset[bytes]:
    """Reassign shared sessions of ``user_id``, whose own activities are deleted, to the first of the other users, and
    clear the device columns; return the ids of reassigned sessions."""
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
            session.publish = True
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
