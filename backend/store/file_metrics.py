"""Metrics of both files in constant time: stored counters, and counts over small partial indexes. No table scans."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from peewee import SQL, Expression, Select, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.models import UserSession
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.models import BaseModel
from flashflow.backend.store.engine.numbers import last_seqs
from flashflow.backend.store.engine.statement import Statement, by_index
from flashflow.backend.store.notifications.models import Delivery, Notification


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


class _Few(NamedTuple):
    scheduled: int
    snoozed: int
    held: int
    sending: int


class _Waiting(NamedTuple):
    route: str
    deliveries: int
    first_at: int


def _count(model: type[BaseModel], index: str, where: Expression) -> Select:
    """Build the query that counts the rows of a small partial index."""
    query: Select = model.select(fn.COUNT(SQL("*"))).from_(by_index(model, index)).where(where)
    return query


_S, _N, _D = UserSession, Notification, Delivery
_OPEN = Statement(lambda: _count(_S, "user_sessions_open", _S.end_time.is_null()))
_FEW = Statement(
    lambda: Select(
        columns=[
            _count(_N, "notifications_scheduled", _N.status == "scheduled").alias("scheduled"),
            _count(_N, "notifications_snoozed", _N.snoozed_until.is_null(False)).alias("snoozed"),
            _count(_D, "deliveries_held", _D.status == "held").alias("held"),
            _count(_D, "deliveries_leased", _D.status == "sending").alias("sending"),
        ]
    ),
    _Few,
)
_WAITING = Statement(
    lambda: (
        _D.select(_D.route, fn.COUNT(SQL("*")).alias("deliveries"), fn.MIN(_D.next_attempt_at).alias("first_at"))
        .from_(by_index(_D, "deliveries_due"))
        .where(_D.status == "pending", _D.next_attempt_at.is_null(False))
        .group_by(_D.route)
    ),
    _Waiting,
)


def measure_activities(conn: sqlite3.Connection) -> ActivityMeasures:
    """Measure ``user_activities.db``."""
    given = last_seqs(conn)
    return ActivityMeasures(
        activities=int(given.get("user_activities", 0)),
        sessions=int(given.get("user_sessions", 0)),
        open_sessions=int(_OPEN.value(conn)),
        unfolded=user_index.tail_length(conn),
    )


def measure_notifications(conn: sqlite3.Connection) -> NotificationMeasures:
    """Measure ``notifications.db``."""
    given = last_seqs(conn)
    few = _FEW.one(conn)
    assert few is not None
    return NotificationMeasures(
        notifications=int(given.get("notifications", 0)),
        **few._asdict(),
        waiting={row.route: Waiting(row.deliveries, row.first_at) for row in _WAITING.each(conn)},
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
