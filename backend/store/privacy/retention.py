"""Delete the oldest rows in short transactions. Counters and rollups keep their values.

``pruned.before`` is the time before which activities may be missing: nothing may be recalculated from them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.engine.sql import delete_rows
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.partitions import BITS, LONG, drop_empty

_OVER = (
    "listed_at < ? AND status NOT IN ('scheduled', 'pending') AND inbox IS NOT 'snoozed' "
    "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.notification_seq = notifications.seq "
    "AND d.status IN ('pending', 'sending', 'held'))"
)
"""Old enough and final: a notification delivered to the inbox may still have an e-mail held."""


class Slice(NamedTuple):
    """One transaction's share: at most ``limit`` rows older than ``before`` (milliseconds since 1970)."""

    before: int
    limit: int


class Pruned(NamedTuple):
    """Rows deleted by one slice; ``through`` is the latest timestamp of its activities, 0 without any."""

    activities: int = 0
    sessions: int = 0
    notifications: int = 0
    through: int = 0

    def __bool__(self) -> bool:
        return bool(self.activities or self.sessions or self.notifications)


def prune_activities(tx: Tx, which: Slice, cache: SessionCache) -> Pruned:
    """Delete the oldest activities; once there are none that old, sessions that ended before ``which.before``."""
    user_index.count_tail(tx)  # rows must be in the rollups before they are deleted
    while user_index.catch_up(tx, cache.local):
        pass
    rows = tx.conn.execute(
        "SELECT seq, user_id, timestamp FROM user_activities WHERE timestamp < ? ORDER BY timestamp LIMIT ?", which
    ).fetchall()
    if rows:
        heavy_users.subtract(tx, [seq for seq, _, _ in rows])
        delete_rows(tx.conn, "user_activities", [seq for seq, _, _ in rows])
        delete_from_user_index(tx.conn, rows)
        through = rows[-1][2]
        drop_empty(tx.conn, through)
        # The rollups of these days can no longer be checked against the rows: they are frozen.
        tx.conn.execute(
            "UPDATE figures_state SET frozen_before = MAX(COALESCE(frozen_before, 0), ?)",
            (cache.local.day(through) + 1,),
        )
        tx.conn.execute("UPDATE pruned SET before = MAX(before, ?)", (through + 1,))
        return Pruned(activities=len(rows), through=through)
    sessions = tx.conn.execute(
        "SELECT seq FROM user_sessions WHERE start_time < ? AND end_time < ? ORDER BY start_time LIMIT ?",
        (which.before, which.before, which.limit),
    ).fetchall()
    if sessions:
        delete_rows(tx.conn, "user_sessions", [seq for (seq,) in sessions])
        cache.clear()
    return Pruned(sessions=len(sessions))


def delete_from_user_index(conn: sqlite3.Connection, rows: Iterable[tuple[int, str, int]]) -> None:
    """Delete activities, given as (seq, user_id, timestamp), from the index by user."""
    conn.executemany(
        "DELETE FROM activities_by_user WHERE user = (SELECT key FROM figure_users WHERE user_id = ?) "
        "AND part = ? AND at = ? AND seq = ?",
        sorted((user_id, timestamp >> BITS, timestamp & LONG - 1, seq) for seq, user_id, timestamp in rows),
    )


def prune_notifications(tx: Tx, which: Slice) -> Pruned:
    """Delete the oldest final notifications with their deliveries and attempts."""
    rows = tx.conn.execute(
        f"SELECT seq FROM notifications WHERE {_OVER} ORDER BY listed_at, seq LIMIT ?", which
    ).fetchall()
    if rows:
        delete_rows(tx.conn, "notifications", [seq for (seq,) in rows])
    return Pruned(notifications=len(rows))


def would_prune_activities(conn: sqlite3.Connection, before: int) -> Pruned:
    """Count the rows that ``prune_activities`` would delete."""
    activities = conn.execute("SELECT COUNT(*) FROM user_activities WHERE timestamp < ?", (before,)).fetchone()
    sessions = conn.execute(
        "SELECT COUNT(*) FROM user_sessions WHERE start_time < ? AND end_time < ?", (before, before)
    ).fetchone()
    return Pruned(activities=activities[0], sessions=sessions[0])


def would_prune_notifications(conn: sqlite3.Connection, before: int) -> Pruned:
    """Count the rows that ``prune_notifications`` would delete."""
    row = conn.execute(f"SELECT COUNT(*) FROM notifications WHERE {_OVER}", (before,))
    return Pruned(notifications=row.fetchone()[0])


def bytes_in_use(conn: sqlite3.Connection) -> int:
    """Bytes of the file's used pages. SQLite fills free pages again before the file grows."""
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    (free,) = conn.execute("PRAGMA freelist_count").fetchone()
    (size,) = conn.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)
