"""Inbox transactions on one notification: read, unread, archive, unarchive, snooze, cancel, reschedule."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flashflow.backend.core.clock import to_ms
from flashflow.backend.core.errors import Conflict, NotFound, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.schemas.records import Notification
from flashflow.backend.store.engine.writer import Handler, Tx, each_item
from flashflow.backend.store.notifications import notifications as table
from flashflow.backend.store.notifications.delivery_state import dismiss_toast, has_external_delivery, suppress_unsent
from flashflow.backend.store.notifications.notification_state import read_all as mark_all_read
from flashflow.backend.store.notifications.notification_state import update_notification

NotificationKey = tuple[str, str | None]
"""A notification's id, and the only app whose notifications are visible (None: any)."""

Change = dict[str, Any] | None
"""Columns to set; None: no change."""

READABLE = {"pending", "sent", "delivered", "read", "failed"}


def find(conn: sqlite3.Connection, key: NotificationKey) -> tuple[int, Notification]:
    """Return the notification and its ``seq``. Raises NotFound, also for another app's."""
    found = table.find(conn, *key)
    if found is None:
        raise NotFound(f"There is no notification {key[0]!r}.")
    return found


def change(tx: Tx, key: NotificationKey, columns_of: Callable[[Tx, int, Notification], Change]) -> Notification:
    """Set the columns that ``columns_of`` returns; return the notification as it is afterwards. Raises NotFound."""
    seq, notification = find(tx.conn, key)
    columns = columns_of(tx, seq, notification)
    if columns is None:
        return notification
    update_notification(tx, seq, columns)
    tx.events.append(Event("notification.updated", notification.id, notification.user_id, notification.app))
    return find(tx.conn, key)[1]


@each_item
def snooze(tx: Tx, item: tuple[NotificationKey, int]) -> Notification:
    """Handle (key, until in milliseconds since 1970)."""
    key, until = item
    return change(tx, key, partial(_snooze, until=until))


@each_item
def reschedule(tx: Tx, item: tuple[NotificationKey, int]) -> Notification:
    """Handle (key, time in milliseconds since 1970): move a scheduled notification to that time."""
    key, when = item
    return change(tx, key, partial(_reschedule, when=when))


@each_item
def read_all(tx: Tx, item: tuple[str, str | None]) -> tuple[str, ...]:
    """Handle (user, app or None for all): return the ids that became read."""
    user_id, app = item
    rows = mark_all_read(tx, user_id, app)
    for row in rows:
        _was_read(tx, row.seq, row.id, user_id, row.app)
    # One event for each app: a client that shows this user's inbox then reads its state.
    for writer, id_ in {row.app: row.id for row in rows}.items():
        tx.events.append(Event("notification.updated", id_, user_id, writer))
    return tuple(row.id for row in rows)


@each_item
def unread_many(tx: Tx, ids: Sequence[str]) -> int:
    """Undo ``read_all``: mark the ids that are still read as unread; return how many changed."""
    before = len(tx.events)
    HANDLERS["unread"](tx, [(id_, None) for id_ in ids])
    return len(tx.events) - before  # one event for each change


def _read(tx: Tx, seq: int, n: Notification) -> Change:
    if n.read_at is not None:
        return None
    if n.status not in READABLE:
        raise Conflict(f"A notification that is {n.status} cannot be read.")
    columns: dict[str, Any] = {"read_at": tx.now_ms, "status": "read"}
    if n.inbox in {"unread", "snoozed"}:
        columns |= {"inbox": "read"} | _end_snooze(tx, n)
    _was_read(tx, seq, n.id, n.user_id, n.app)
    return columns


def _was_read(tx: Tx, seq: int, id_: str, user_id: str, app: str) -> None:
    _dealt_with(tx, seq, (id_, user_id, app), "read_first", "It was read first.")


def _dealt_with(tx: Tx, seq: int, key: tuple[str, str, str], code: str, reason: str) -> None:
    """Stop push, digests and fail-over of a notification its reader has dealt with; ``key``: its id, user and app."""
    if has_external_delivery(tx, seq):
        suppress_unsent(tx, seq, code, reason, only_interrupting=True)
        dismiss_toast(tx, seq, *key)


def _unread(tx: Tx, seq: int, n: Notification) -> Change:
    if n.inbox == "unread":
        return None
    if n.inbox not in {"read", "snoozed"}:
        raise Conflict("Only a read notification of the inbox can become unread.")
    return {"read_at": None, "status": "delivered", "inbox": "unread"} | _end_snooze(tx, n)


def _end_snooze(tx: Tx, n: Notification) -> dict[str, Any]:
    """The columns that end a snooze: the notification returns to the top of the inbox."""
    return {"snoozed_until": None, "listed_at": tx.now_ms} if n.inbox == "snoozed" else {}


def _snooze(tx: Tx, seq: int, n: Notification, until: int) -> Change:
    if n.inbox not in {"unread", "read", "snoozed"}:
        raise Conflict("Only a notification in the inbox can be snoozed.")
    _dealt_with(tx, seq, (n.id, n.user_id, n.app), "snoozed", "It was snoozed first.")
    return {"inbox": "snoozed", "snoozed_until": until}


def _archive(tx: Tx, seq: int, n: Notification) -> Change:
    if n.inbox == "archived":
        return None
    if n.inbox is None:
        raise Conflict("This notification is not in the inbox.")
    _dealt_with(tx, seq, (n.id, n.user_id, n.app), "archived", "It was archived first.")
    return {"archived_at": tx.now_ms, "inbox": "archived", "snoozed_until": None}


def _unarchive(tx: Tx, seq: int, n: Notification) -> Change:
    if n.inbox in {"unread", "read", "snoozed"}:
        return None
    if n.inbox != "archived":
        raise Conflict("This notification is not archived.")
    return {"archived_at": None, "inbox": "unread" if n.read_at is None else "read"}


def _cancel(tx: Tx, seq: int, n: Notification) -> Change:
    if n.status == "cancelled":
        return None
    if n.status not in {"scheduled", "pending"}:
        raise Conflict(f"A notification that is {n.status} cannot be cancelled.")
    dismiss_toast(tx, seq, n.id, n.user_id, n.app)  # it may be on its way now
    suppress_unsent(tx, seq, "cancelled", "It was cancelled.")
    return {"status": "cancelled", "inbox": None, "snoozed_until": None}


def _reschedule(tx: Tx, seq: int, n: Notification, when: int) -> Change:
    if n.status != "scheduled":
        raise Conflict(f"A notification that is {n.status} cannot be rescheduled.")
    if n.expires_at is not None and when >= to_ms(n.expires_at):
        raise ValidationError.of("scheduled_at", "must lie before expires_at")
    return {"scheduled_at": when}


def _handler(columns_of: Callable[[Tx, int, Notification], Change]) -> Handler[NotificationKey, Notification]:
    @each_item
    def handle(tx: Tx, key: NotificationKey) -> Notification:
        return change(tx, key, columns_of)

    return handle


HANDLERS: Mapping[str, Handler[NotificationKey, Notification]] = {
    "read": _handler(_read),
    "unread": _handler(_unread),
    "archive": _handler(_archive),
    "unarchive": _handler(_unarchive),
    "cancel": _handler(_cancel),
}
