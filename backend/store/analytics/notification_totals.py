"""Counts of notifications of a period, in all and by type."""

from __future__ import annotations

import sqlite3

from peewee import Case, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.statement import Statement, any_or_same, slot
from flashflow.backend.store.notifications.models import Notification


class NotificationTotals(NamedTuple):
    """Notifications that were sent, and how many of them were delivered, read, and failed."""

    sent: int
    delivered: int
    read: int
    failed: int


class _OfType(NamedTuple):
    name: str
    sent: int
    delivered: int
    read: int
    failed: int


def totals_of(conn: sqlite3.Connection, start_ms: int, end_ms: int, app: str | None) -> NotificationTotals:
    """Count the notifications listed in ``[start_ms, end_ms)``, of one app or (None) of all."""
    found = _TOTALS.one(conn, start=start_ms, end=end_ms, app=app)
    assert found is not None
    return found


def totals_by_type(
    conn: sqlite3.Connection, start_ms: int, end_ms: int, app: str | None
) -> dict[str, NotificationTotals]:
    """Count the notifications listed in ``[start_ms, end_ms)`` by type, the most frequent first."""
    rows = _BY_TYPE.all(conn, start=start_ms, end=end_ms, app=app)
    return {row.name: NotificationTotals(row.sent, row.delivered, row.read, row.failed) for row in rows}


_N = Notification
_UNSENT = ("scheduled", "suppressed", "cancelled")
"""Statuses of notifications that went out by no channel."""
_COUNTS = (
    fn.COUNT(_N.seq).alias("sent"),
    fn.COUNT(_N.delivered_at).alias("delivered"),
    fn.COUNT(_N.read_at).alias("read"),
    fn.COUNT(Case(None, [(_N.status == "failed", 1)])).alias("failed"),
)
_WHERE = (
    _N.listed_at >= slot("start"), _N.listed_at < slot("end"), any_or_same(_N.app), _N.status.not_in(_UNSENT),
)  # fmt: skip
_TOTALS = Statement(lambda: _N.select(*_COUNTS).where(*_WHERE), NotificationTotals)
_BY_TYPE = Statement(
    lambda: (
        _N.select(_N.notification_type.alias("name"), *_COUNTS)
        .where(*_WHERE)
        .group_by(_N.notification_type)
        .order_by(fn.COUNT(_N.seq).desc(), _N.notification_type)
    ),
    _OfType,
)
