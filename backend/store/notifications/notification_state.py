"""Transitions of the ``notifications`` table, with their SQL: due, expired, snoozed, read, updated in place.

A status that follows from deliveries is written by ``delivery_state.settle_notifications``. Services decide, this
module writes; every function with a ``tx`` runs in the writer's transaction. Times are milliseconds since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flashflow.backend.core.encoding import decode_id, from_strings, to_json
from flashflow.backend.core.events import Event
from flashflow.backend.domain.delivery_policy import Decision
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.delivery_state import dismiss_toast, suppress_unsent
from flashflow.backend.store.notifications.notifications import last_revision

COLLAPSED = "collapsed"
"""The code of a delivery whose text another notification carries. Stored only for a scheduled notification that became
an update of an open one."""


def inbox_place(decisions: Sequence[Decision]) -> str | None:
    """The value of ``inbox`` for a new notification with these decisions."""
    return "unread" if any(d.channel == "in_app" and d.status == "delivered" for d in decisions) else None


def update_notification(tx: Tx, seq: int, columns: Mapping[str, Any]) -> None:
    """Set ``columns`` and give the notification a new revision."""
    columns = {**columns, "revision": last_revision(tx.conn) + 1}
    names = ", ".join(f"{name} = ?" for name in columns)
    tx.conn.execute(f"UPDATE notifications SET {names} WHERE seq = ?", (*columns.values(), seq))


def read_all(tx: Tx, user_id: str, app: str | None) -> list[tuple[Any, str, int]]:
    """Mark a user's unread notifications as read, of one app or all; return (stored id, app, ``seq``) of each."""
    return tx.conn.execute(
        "UPDATE notifications SET inbox = 'read', status = 'read', read_at = ?, revision = n.revision "
        "FROM (SELECT seq, ? + row_number() OVER (ORDER BY seq) AS revision FROM notifications "
        "WHERE user_id = ? AND inbox = 'unread' AND (? IS NULL OR app = ?)) n "
        "WHERE notifications.seq = n.seq RETURNING id, app, notifications.seq",
        (tx.now_ms, last_revision(tx.conn), user_id, app, app),
    ).fetchall()


class PolicyColumns(NamedTuple):
    """Columns of a notification that a new decision needs; ``device_tokens`` is a JSON list."""

    device_tokens: str | None
    category: str | None
    expires_at: int | None


def policy_columns(conn: sqlite3.Connection, seq: int) -> PolicyColumns:
    """Read the policy inputs of a stored notification."""
    row = conn.execute("SELECT device_tokens, category, expires_at FROM notifications WHERE seq = ?", (seq,)).fetchone()
    return PolicyColumns(*row)


# --- due --------------------------------------------------------------------------------------------------------------


class ScheduledNotification(NamedTuple):
    """A scheduled notification whose time has come; objects as JSON text."""

    seq: int
    id: Any
    user_id: str
    app: str
    title: str
    message: str
    notification_type: str
    channels: str
    category: str | None
    device_tokens: str | None
    data: str | None
    actions: str | None
    priority: str
    collapse_key: str | None
    created_at: int
    expires_at: int | None


_CAN_EXPIRE = "status IN ('scheduled', 'pending', 'sent', 'delivered') AND inbox IS NOT 'archived'"
_DUE = (
    "SELECT EXISTS (SELECT 1 FROM notifications WHERE status = 'scheduled' AND scheduled_at <= :now), "
    "EXISTS (SELECT 1 FROM deliveries WHERE status = 'held' AND release_at <= :now), "
    "EXISTS (SELECT 1 FROM notifications WHERE snoozed_until IS NOT NULL AND snoozed_until <= :now), "
    f"EXISTS (SELECT 1 FROM notifications WHERE expires_at IS NOT NULL AND expires_at <= :now AND {_CAN_EXPIRE})"
)


class Due(NamedTuple):
    """Whether anything of each kind is due."""

    scheduled: bool
    held: bool
    snoozed: bool
    expired: bool


def due(conn: sqlite3.Connection, now_ms: int) -> Due:
    """Check four indexes, so that an idle second writes nothing."""
    return Due(*map(bool, conn.execute(_DUE, {"now": now_ms}).fetchone()))


def scheduled_due(tx: Tx, most: int) -> list[ScheduledNotification]:
    """Scheduled notifications to send now, the longest due first."""
    rows = tx.conn.execute(
        f"SELECT {', '.join(ScheduledNotification._fields)} FROM notifications WHERE status = 'scheduled' "
        "AND scheduled_at <= ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY scheduled_at, seq LIMIT ?",
        (tx.now_ms, tx.now_ms, most),
    )
    return [ScheduledNotification(*row) for row in rows.fetchall()]


def expire_due(tx: Tx, most: int) -> int:
    """Expire unread notifications and suppress their unsent deliveries; return how many."""
    rows = tx.conn.execute(
        f"SELECT seq, id, user_id, app FROM notifications WHERE expires_at <= ? AND {_CAN_EXPIRE} "
        "ORDER BY expires_at LIMIT ?",
        (tx.now_ms, most),
    ).fetchall()
    for seq, id_, user_id, app in rows:
        update_notification(tx, seq, {"status": "expired", "inbox": None, "snoozed_until": None})
        suppress_unsent(tx, seq, "expired", "It expired first.")
        dismiss_toast(tx, seq, decode_id(id_), user_id, app)
        tx.events.append(Event("notification.updated", decode_id(id_), user_id, app))
    return len(rows)


def wake_snoozed(tx: Tx, most: int) -> int:
    """Mark notifications as unread whose snooze has ended; return how many."""
    rows = tx.conn.execute(
        "SELECT seq, id, user_id, app FROM notifications WHERE snoozed_until IS NOT NULL AND snoozed_until <= ? "
        "ORDER BY snoozed_until LIMIT ?",
        (tx.now_ms, most),
    ).fetchall()
    revision = last_revision(tx.conn)
    for offset, (seq, id_, user_id, app) in enumerate(rows, 1):
        tx.conn.execute(
            "UPDATE notifications SET inbox = 'unread', status = 'delivered', read_at = NULL, "
            "snoozed_until = NULL, listed_at = ?, revision = ? WHERE seq = ?",
            (tx.now_ms, revision + offset, seq),
        )
        tx.events.append(Event("notification.updated", decode_id(id_), user_id, app))
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


_OPEN = (
    "SELECT seq, id, count, channels, inbox IS 'snoozed' FROM notifications INDEXED BY notifications_collapse "
    "WHERE user_id = ? AND app = ? AND collapse_key = ? AND (read_at IS NULL OR inbox = 'snoozed') "
    "AND status IN ('pending', 'sent', 'delivered', 'read', 'failed', 'suppressed') AND inbox IS NOT 'archived' "
    "AND (inbox IS NOT 'snoozed' OR ?) AND NOT EXISTS (SELECT 1 FROM deliveries d "
    f"WHERE d.notification_seq = notifications.seq AND d.code = '{COLLAPSED}') ORDER BY seq DESC LIMIT 1"
)


def find_open(
    conn: sqlite3.Connection, user_id: str, app: str, collapse_key: str, decisions: Sequence[Decision]
) -> OpenNotification | None:
    """Find the newest open notification of that key for an update with these decisions.

    A snoozed one is skipped where the user has turned the inbox off for the update.
    """
    wakes = not any(d.channel == "in_app" and d.status == "suppressed" for d in decisions)
    row = conn.execute(_OPEN, (user_id, app, collapse_key, wakes)).fetchone()
    if row is None:
        return None
    seq, id_, count, channels, is_snoozed = row
    return OpenNotification(seq, decode_id(id_), count, from_strings(channels), bool(is_snoozed))


def replace_content(tx: Tx, known: OpenNotification, content: NewContent, decisions: Sequence[Decision]) -> None:
    """Replace the content, increment the count and mark as unread; ``settle_notifications`` must follow."""
    channels = dict.fromkeys((*known.channels, *(d.channel for d in decisions)))
    tx.conn.execute(
        "UPDATE notifications SET title = ?, message = ?, data = ?, actions = ?, priority = ?, expires_at = ?, "
        "channels = ?, count = count + 1, read_at = NULL, snoozed_until = NULL, listed_at = ?, "
        "status = CASE status WHEN 'read' THEN 'delivered' ELSE status END, "
        "inbox = CASE inbox WHEN 'snoozed' THEN 'unread' ELSE COALESCE(inbox, ?) END WHERE seq = ?",
        (*content, to_json(list(channels)), tx.now_ms, inbox_place(decisions), known.seq),
    )
