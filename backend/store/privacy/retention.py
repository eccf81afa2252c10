"""Letting the oldest rows go, in short transactions. Counters and rollups stay as they are: what was counted happened.

``pruned.before`` says up to which time activities may be missing, so that nothing is counted from them anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from flashflow.backend.core.encoding import to_json
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.partitions import BITS, LONG, drop_empty

_OVER = (
    "listed_at < ? AND status NOT IN ('scheduled', 'pending') AND inbox IS NOT 'snoozed' "
    "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.notification_seq = notifications.seq "
    "AND d.status IN ('pending', 'sending', 'held'))"
)
"""Old enough, with nothing left to happen: an inbox copy may be delivered while an e-mail of it is held."""


class Slice(NamedTuple):
    """How much to take at once: at most ``limit`` rows older than ``before`` (milliseconds since 1970)."""

    before: int
    limit: int


class Pruned(NamedTuple):
    """What one slice took; ``through`` is the latest time of an activity among it, 0 without any."""

    activities: int = 0
    sessions: int = 0
    notifications: int = 0
    through: int = 0

    def __bool__(self) -> bool:
        return bool(self.activities or self.sessions or self.notifications)


def prune_activities(tx: Tx, wanted: Slice, cache: SessionCache) -> Pruned:
    """The oldest activities; once there are none that old, sessions that ended before then."""
    user_index.count_tail(tx)  # what goes has to have been counted
    while user_index.catch_up(tx, cache.local):
        pass
    rows = tx.conn.execute(
        "SELECT seq, user_id, timestamp FROM user_activities WHERE timestamp < ? ORDER BY timestamp LIMIT ?", wanted
    ).fetchall()
    if rows:
        heavy_users.lose(tx, [seq for seq, _, _ in rows])
        _delete(tx.conn, "user_activities", [seq for seq, _, _ in rows])
        tx.conn.executemany(
            "DELETE FROM activities_by_user WHERE user = (SELECT key FROM figure_users WHERE user_id = ?) "
            "AND part = ? AND at = ? AND seq = ?",
            sorted((user_id, timestamp >> BITS, timestamp & LONG - 1, seq) for seq, user_id, timestamp in rows),
        )
        through = rows[-1][2]
        drop_empty(tx.conn, through)
        # The figures of these days can no longer be checked against the rows: they stay as they are.
        tx.conn.execute(
            "UPDATE figures_state SET frozen_before = MAX(COALESCE(frozen_before, 0), ?)",
            (cache.local.day(through) + 1,),
        )
        tx.conn.execute("UPDATE pruned SET before = MAX(before, ?)", (through + 1,))
        return Pruned(activities=len(rows), through=through)
    sessions = tx.conn.execute(
        "SELECT seq FROM user_sessions WHERE start_time < ? AND end_time < ? ORDER BY start_time LIMIT ?",
        (wanted.before, wanted.before, wanted.limit),
    ).fetchall()
    if sessions:
        _delete(tx.conn, "user_sessions", [seq for (seq,) in sessions])
        cache.clear()
    return Pruned(sessions=len(sessions))


def prune_notifications(tx: Tx, wanted: Slice) -> Pruned:
    """The oldest notifications that are over, with their deliveries and attempts."""
    rows = tx.conn.execute(
        f"SELECT seq FROM notifications WHERE {_OVER} ORDER BY listed_at, seq LIMIT ?",
        wanted,
    ).fetchall()
    if rows:
        _delete(tx.conn, "notifications", [seq for (seq,) in rows])
    return Pruned(notifications=len(rows))


def would_prune_activities(conn: sqlite3.Connection, before: int) -> Pruned:
    """What pruning would take."""
    activities = conn.execute("SELECT COUNT(*) FROM user_activities WHERE timestamp < ?", (before,)).fetchone()
    sessions = conn.execute(
        "SELECT COUNT(*) FROM user_sessions WHERE start_time < ? AND end_time < ?", (before, before)
    ).fetchone()
    return Pruned(activities=activities[0], sessions=sessions[0])


def would_prune_notifications(conn: sqlite3.Connection, before: int) -> Pruned:
    """What pruning would take."""
    row = conn.execute(f"SELECT COUNT(*) FROM notifications WHERE {_OVER}", (before,))
    return Pruned(notifications=row.fetchone()[0])


def bytes_in_use(conn: sqlite3.Connection) -> int:
    """The file's pages that hold something; pages that became free are filled again before the file grows."""
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    (free,) = conn.execute("PRAGMA freelist_count").fetchone()
    (size,) = conn.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def _delete(conn: sqlite3.Connection, table: str, seqs: Sequence[int]) -> None:
    conn.execute(f"DELETE FROM {table} WHERE seq IN (SELECT value FROM json_each(?))", (to_json(seqs),))
