"""Inbox transactions on one notification: read, unread, archive, unarchive, snooze, cancel."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from flashflow.backend.core.encoding import decode_id
from flashflow.backend.core.errors import Conflict, FlashFlowError, NotFound
from flashflow.backend.core.events import Event
from flashflow.backend.schemas.records import Notification
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import notifications as table
from flashflow.backend.store.notifications.delivery_state import dismiss_toast, has_external_delivery, suppress_unsent
from flashflow.backend.store.notifications.notification_state import read_all, update_notification

NotificationKey = tuple[str, str | None]
"""A notification's id, and the only app whose notifications are visible (None: any)."""

Change = dict[str, Any] | None
"""Columns to set; None: no change."""

READABLE = {"pending", "sent", "delivered", "read", "failed"}


def missing(notification_id: str) -> NotFound:
    """The error for an unknown notification, or another app's."""
    return NotFound(f"There is no notification {notification_id!r}.")


class Inbox:
    """Writer handlers; each returns the notifications as they are afterwards."""

    def read(self, tx: Tx, items: Sequence[NotificationKey]) -> list[Notification | FlashFlowError]:
        return _each(tx, items, _read)

    def unread(self, tx: Tx, items: Sequence[NotificationKey]) -> list[Notification | FlashFlowError]:
        return _each(tx, items, _unread)

    def archive(self, tx: Tx, items: Sequence[NotificationKey]) -> list[Notification | FlashFlowError]:
        return _each(tx, items, _archive)

    def unarchive(self, tx: Tx, items: Sequence[NotificationKey]) -> list[Notification | FlashFlowError]:
        return _each(tx, items, _unarchive)

    def cancel(self, tx: Tx, items: Sequence[NotificationKey]) -> list[Notification | FlashFlowError]:
        return _each(tx, items, _cancel)

    def snooze(self, tx: Tx, items: Sequence[tuple[NotificationKey, int]]) -> list[Notification | FlashFlowError]:
        """Handle (key, until in milliseconds since 1970)."""
        return [
            answer
            for key, until in items
            for answer in _each(tx, [key], lambda tx, seq, n, until=until: _snooze(tx, seq, n, until))  # type: ignore[misc]
        ]

    def read_all(self, tx: Tx, items: Sequence[tuple[str, str | None]]) -> list[tuple[str, ...]]:
        """Handle (user, app or None for all): return the ids that became read."""
        answers = []
        for user_id, app in items:
            rows = read_all(tx, user_id, app)
            for id_, writer, seq in rows:
                _was_read(tx, seq, decode_id(id_), user_id, writer)
            # One event for each app: a client that shows this user's inbox then reads its state.
            for writer, id_ in {writer: id_ for id_, writer, _ in rows}.items():
                tx.events.append(Event("notification.updated", decode_id(id_), user_id, writer))
            answers.append(tuple(decode_id(id_) for id_, _, _ in rows))
        return answers

    def unread_many(self, tx: Tx, items: Sequence[tuple[str, ...]]) -> list[int]:
        """Undo ``read_all``: mark the ids that are still read as unread; return how many changed."""
        answers = []
        for ids in items:
            before = len(tx.events)
            _each(tx, [(id_, None) for id_ in ids], _unread)
            answers.append(len(tx.events) - before)  # one event for each change
        return answers


def _each(
    tx: Tx, items: Sequence[NotificationKey], change: Callable[[Tx, int, Notification], Change]
) -> list[Notification | FlashFlowError]:
    answers: list[Notification | FlashFlowError] = []
    for notification_id, app in items:
        found = table.find(tx.conn, notification_id, app)
        if found is None:
            answers.append(missing(notification_id))
            continue
        seq, notification = found
        try:
            columns = change(tx, seq, notification)
        except Conflict as refusal:
            answers.append(refusal)
            continue
        if columns is not None:
            update_notification(tx, seq, columns)
            tx.events.append(Event("notification.updated", notification.id, notification.user_id, notification.app))
            notification = _again(tx.conn, notification_id)
        answers.append(notification)
    return answers


def _again(conn: sqlite3.Connection, notification_id: str) -> Notification:
    found = table.find(conn, notification_id, None)
    assert found is not None
    return found[1]


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
