"""Transitions of the ``notifications`` table, with their SQL: due, expired, snoozed, read, updated in place.

A status that follows from deliveries is written by ``delivery_state.settle_notifications``. Services decide, this
module writes; every function with a ``tx`` runs in the writer's transaction. Times are milliseconds since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from peewee import SQL, Case, Select, fn

from flashflow.backend.core.events import Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.delivery_policy import Decision
from flashflow.backend.store.engine.statement import (
    Statement,
    TextStatement,
    any_or_same,
    columns,
    differs,
    slot,
    slots,
    variants,
)
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models
from flashflow.backend.store.notifications.delivery_state import dismiss_toast, suppress_unsent
from flashflow.backend.store.notifications.notifications import NOTIFICATION_REVISIONS

_N, _D = models.Notification, models.Delivery
_THIS = _N.seq == slot("seq")
COLLAPSED = "collapsed"
"""The code of a delivery whose text another notification carries. Stored only for a scheduled notification that became
an update of an open one."""


def inbox_place(decisions: Sequence[Decision]) -> str | None:
    """The value of ``inbox`` for a new notification with these decisions."""
    return "unread" if any(d.channel == "in_app" and d.status == "delivered" for d in decisions) else None


def update_notification(tx: Tx, seq: int, columns: Mapping[str, Any]) -> None:
    """Set ``columns`` and give the notification a new revision."""
    _update(tuple(sorted(columns))).run(
        tx.conn, seq=seq, revision=next(NOTIFICATION_REVISIONS.following(tx.conn)), **columns
    )


@variants(
    tuple(sorted(names))
    for names in (
        ("status", "read_at"),
        ("status", "read_at", "inbox"),
        ("status", "read_at", "inbox", "listed_at", "snoozed_until"),
        ("inbox", "snoozed_until"),
        ("inbox", "snoozed_until", "status"),
        ("inbox", "archived_at"),
        ("inbox", "archived_at", "snoozed_until"),
        ("scheduled_at",),
        ("status", "inbox", "sent_at", "delivered_at", "listed_at"),
    )
)
def _update(names: tuple[str, ...]) -> Statement[tuple[Any, ...]]:
    """Build the statement that sets these columns; each kind of change has its own."""
    return Statement(_N.update({getattr(_N, name): slot(name) for name in (*names, "revision")}).where(_THIS))


class BecameRead(NamedTuple):
    """A notification that ``read_all`` marked."""

    seq: int
    id: str
    app: str


_NUMBERED = (
    _N.select(_N.seq, (slot("revision") + fn.ROW_NUMBER().over(order_by=[_N.seq])).alias("revision"))
    .where(_N.user_id == slot("user_id"), _N.inbox == "unread", any_or_same(_N.app))
    .alias("numbered")
)
_READ_ALL = Statement(
    lambda: (
        _N.update({_N.inbox: "read", _N.status: "read", _N.read_at: slot("now"), _N.revision: _NUMBERED.c.revision})
        .from_(_NUMBERED)
        .where(_N.seq == _NUMBERED.c.seq)
        .returning(*columns(_N, BecameRead))
    ),
    BecameRead,
)


def read_all(tx: Tx, user_id: str, app: str | None) -> list[BecameRead]:
    """Mark a user's unread notifications as read, of one app or all."""
    return _READ_ALL.all(
        tx.conn, now=tx.now_ms, revision=NOTIFICATION_REVISIONS.last(tx.conn), user_id=user_id, app=app
    )


class PolicyColumns(NamedTuple):
    """Columns of a notification that a new decision needs."""

    device_tokens: tuple[str, ...] | None
    category: str | None
    expires_at: int | None


_POLICY_COLUMNS = Statement(lambda: _N.select(*columns(_N, PolicyColumns)).where(_THIS), PolicyColumns)


def policy_columns(conn: sqlite3.Connection, seq: int) -> PolicyColumns:
    """Read the policy inputs of a stored notification."""
    [found] = _POLICY_COLUMNS.all(conn, seq=seq)
    return found


# --- due --------------------------------------------------------------------------------------------------------------


class ScheduledNotification(NamedTuple):
    """A scheduled notification whose time has come; ``data`` and ``actions`` as JSON text."""

    seq: int
    id: str
    user_id: str
    app: str
    title: str
    message: str
    notification_type: str
    channels: tuple[str, ...]
    category: str | None
    device_tokens: tuple[str, ...] | None
    data: str | None
    actions: str | None
    priority: str
    collapse_key: str | None
    created_at: int
    expires_at: int | None


class Due(NamedTuple):
    """Whether anything of each kind is due."""

    scheduled: bool
    held: bool
    snoozed: bool
    expired: bool


class _Changed(NamedTuple):
    seq: int
    id: str
    user_id: str
    app: str


_CAN_EXPIRE = _N.status.in_(("scheduled", "pending", "sent", "delivered")) & differs(_N.inbox, "archived")
_SCHEDULED = (_N.status == "scheduled") & (_N.scheduled_at <= slot("now"))
_SNOOZED = _N.snoozed_until.is_null(False) & (_N.snoozed_until <= slot("now"))
_EXPIRED = _N.expires_at.is_null(False) & (_N.expires_at <= slot("now")) & _CAN_EXPIRE
_HELD = (_D.status == "held") & (_D.release_at <= slot("now"))
_DUE = Statement(
    lambda: Select(
        columns=[
            fn.EXISTS(query.select(SQL("1")).where(is_due)).alias(name)
            for name, query, is_due in zip(
                Due._fields, (_N, _D, _N, _N), (_SCHEDULED, _HELD, _SNOOZED, _EXPIRED), strict=True
            )
        ]
    ),
    Due,
)
_SCHEDULED_DUE = Statement(
    lambda: (
        _N.select(*columns(_N, ScheduledNotification, stored=("data",)))
        .where(_SCHEDULED, _N.expires_at.is_null() | (_N.expires_at > slot("now")))
        .order_by(_N.scheduled_at, _N.seq)
        .limit(slot("most"))
    ),
    ScheduledNotification,
)
_EXPIRE_DUE = Statement(
    lambda: _N.select(*columns(_N, _Changed)).where(_EXPIRED).order_by(_N.expires_at).limit(slot("most")), _Changed
)
_SNOOZE_ENDED = Statement(
    lambda: _N.select(*columns(_N, _Changed)).where(_SNOOZED).order_by(_N.snoozed_until).limit(slot("most")), _Changed
)
_WAKE = Statement(
    lambda: _N.update(
        {
            _N.inbox: "unread",
            _N.status: "delivered",
            _N.read_at: None,
            _N.snoozed_until: None,
            **slots(_N.listed_at, _N.revision),
        }
    ).where(_THIS)
)


def due(conn: sqlite3.Connection, now_ms: int) -> Due:
    """Check four indexes, so that an idle second writes nothing."""
    [found] = _DUE.all(conn, now=now_ms)
    return found


def scheduled_due(tx: Tx, most: int) -> list[ScheduledNotification]:
    """Scheduled notifications to send now, the longest due first."""
    return _SCHEDULED_DUE.all(tx.conn, now=tx.now_ms, most=most)


def expire_due(tx: Tx, most: int) -> int:
    """Expire unread notifications and suppress their unsent deliveries; return how many."""
    rows = _EXPIRE_DUE.all(tx.conn, now=tx.now_ms, most=most)
    for row in rows:
        update_notification(tx, row.seq, {"status": "expired", "inbox": None, "snoozed_until": None})
        suppress_unsent(tx, row.seq, "expired", "It expired first.")
        dismiss_toast(tx, *row)
        tx.events.append(Event("notification.updated", row.id, row.user_id, row.app))
    return len(rows)


def wake_snoozed(tx: Tx, most: int) -> int:
    """Mark notifications as unread whose snooze has ended; return how many."""
    rows = _SNOOZE_ENDED.all(tx.conn, now=tx.now_ms, most=most)
    for row, revision in zip(rows, NOTIFICATION_REVISIONS.following(tx.conn), strict=False):
        _WAKE.run(tx.conn, seq=row.seq, listed_at=tx.now_ms, revision=revision)
        tx.events.append(Event("notification.updated", row.id, row.user_id, row.app))
    return len(rows)


# --- updates in place: collapse_key -----------------------------------------------------------------------------------


class OpenNotification(NamedTuple):
    """The notification that an update replaces in place."""

    seq: int
    id: str
    occurrences: int
    channels: tuple[str, ...]
    is_snoozed: bool


class NewContent(NamedTuple):
    """The columns that an update replaces; ``data`` and ``actions`` as JSON text."""

    title: str
    message: str
    data: str | None
    actions: str | None
    priority: str
    expires_at: int | None


_OPEN = TextStatement(
    "SELECT seq, id, count AS occurrences, channels, inbox IS 'snoozed' AS is_snoozed "
    "FROM notifications INDEXED BY notifications_collapse "
    "WHERE user_id = :user_id AND app = :app AND collapse_key = :collapse_key "
    "AND (read_at IS NULL OR inbox = 'snoozed') "
    "AND status IN ('pending', 'sent', 'delivered', 'read', 'failed', 'suppressed') AND inbox IS NOT 'archived' "
    "AND (inbox IS NOT 'snoozed' OR :wakes) AND NOT EXISTS (SELECT 1 FROM deliveries d "
    f"WHERE d.notification_seq = notifications.seq AND d.code = '{COLLAPSED}') ORDER BY seq DESC LIMIT 1",
    OpenNotification,
    reason="an index hint",
    decode={"id": _N.id, "channels": _N.channels},
)
_REPLACE_CONTENT = Statement(
    lambda: _N.update(
        {
            **{getattr(_N, name): slot(name) for name in NewContent._fields},
            **slots(_N.channels, _N.listed_at),
            _N.count: _N.count + 1,
            _N.read_at: None,
            _N.snoozed_until: None,
            _N.status: Case(_N.status, [("read", "delivered")], _N.status),
            _N.inbox: Case(_N.inbox, [("snoozed", "unread")], fn.COALESCE(_N.inbox, slot("inbox"))),
        }
    ).where(_THIS)
)


def find_open(
    conn: sqlite3.Connection, user_id: str, app: str, collapse_key: str, decisions: Sequence[Decision]
) -> OpenNotification | None:
    """Find the newest open notification of that key for an update with these decisions.

    A snoozed one is skipped where the user has turned the inbox off for the update.
    """
    wakes = not any(d.channel == "in_app" and d.status == "suppressed" for d in decisions)
    return _OPEN.one(conn, user_id=user_id, app=app, collapse_key=collapse_key, wakes=wakes)


def replace_content(tx: Tx, known: OpenNotification, content: NewContent, decisions: Sequence[Decision]) -> None:
    """Replace the content, increment the count and mark as unread; ``settle_notifications`` must follow."""
    channels = tuple(dict.fromkeys((*known.channels, *(d.channel for d in decisions))))
    _REPLACE_CONTENT.run(
        tx.conn, seq=known.seq, channels=channels, listed_at=tx.now_ms, inbox=inbox_place(decisions),
        **content._asdict(),
    )  # fmt: skip
