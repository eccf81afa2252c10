"""Metrics of both files in constant time: stored counters, and counts over small partial indexes. No table scans."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from flashflow.backend.store.activity import user_index
from flashflow.backend.store.engine.database import Store


class ActivityMeasures(NamedTuple):
    """``activities`` and ``sessions``: number ever stored, that is the highest ``seq`` ever assigned; ``unfolded``:
    activities that the rollups have not counted yet."""

    activities: int
    sessions: int
    open_sessions: int
    unfolded: int


class Waiting(NamedTuple):
    """Queue of a route: its length and the due time of the first delivery (milliseconds since 1970)."""

    deliveries: int
    first_at: int


class NotificationMeasures(NamedTuple):
    """``notifications``: number ever stored; ``waiting``: non-empty queues by route."""

    notifications: int
    scheduled: int
    snoozed: int
    held: int
    sending: int
    waiting: dict[str, Waiting]


class FileSizes(NamedTuple):
    """Sizes in bytes."""

    database: int
    wal: int


_GIVEN = "SELECT name, seq FROM sqlite_sequence"
_OPEN = "SELECT COUNT(*) FROM user_sessions INDEXED BY user_sessions_open WHERE end_time IS NULL"
_FEW = (
    "SELECT (SELECT COUNT(*) FROM notifications INDEXED BY notifications_scheduled "
    "WHERE status = 'scheduled'), "
    "(SELECT COUNT(*) FROM notifications INDEXED BY notifications_snoozed WHERE snoozed_until IS NOT NULL), "
    "(SELECT COUNT(*) FROM deliveries INDEXED BY deliveries_held WHERE status = 'held'), "
    "(SELECT COUNT(*) FROM deliveries INDEXED BY deliveries_leased WHERE status = 'sending')"
)
_WAITING = (
    "SELECT route, COUNT(*), MIN(next_attempt_at) FROM deliveries INDEXED BY deliveries_due "
    "WHERE status = 'pending' AND next_attempt_at IS NOT NULL GROUP BY route"
)


def measure_activities(conn: sqlite3.Connection) -> ActivityMeasures:
    """Measure ``user_activities.db``."""
    given = dict(conn.execute(_GIVEN).fetchall())
    return ActivityMeasures(
        activities=int(given.get("user_activities", 0)),
        sessions=int(given.get("user_sessions", 0)),
        open_sessions=int(conn.execute(_OPEN).fetchone()[0]),
        unfolded=user_index.tail_length(conn),
    )


def measure_notifications(conn: sqlite3.Connection) -> NotificationMeasures:
    """Measure ``notifications.db``."""
    given = dict(conn.execute(_GIVEN).fetchall())
    scheduled, snoozed, held, sending = conn.execute(_FEW).fetchone()
    return NotificationMeasures(
        notifications=int(given.get("notifications", 0)),
        scheduled=scheduled,
        snoozed=snoozed,
        held=held,
        sending=sending,
        waiting={route: Waiting(count, first) for route, count, first in conn.execute(_WAITING).fetchall()},
    )


def file_sizes(store: Store) -> FileSizes:
    """Return the sizes of the file and its WAL; 0 for a missing file."""
    path = str(store.database.database)
    return FileSizes(_size(Path(path)), _size(Path(f"{path}-wal")))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
