"""Reschedule notifications that are still scheduled."""

from __future__ import annotations

from collections.abc import Sequence

from flashflow.backend.core.errors import Conflict, FlashFlowError, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.notifications.inbox import NotificationKey, missing
from flashflow.backend.schemas.records import Notification
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import notifications as table
from flashflow.backend.store.notifications.notification_state import update_notification


def reschedule(tx: Tx, items: Sequence[tuple[NotificationKey, int]]) -> list[Notification | FlashFlowError]:
    """Handle (reference, time in milliseconds since 1970): move each to its new time. Conflict once it was sent."""
    answers: list[Notification | FlashFlowError] = []
    for (notification_id, app), when in items:
        found = table.find(tx.conn, notification_id, app)
        if found is None:
            answers.append(missing(notification_id))
            continue
        seq, notification = found
        refusal = _refusal(notification, when)
        if refusal is not None:
            answers.append(refusal)
            continue
        update_notification(tx, seq, {"scheduled_at": when})
        tx.events.append(Event("notification.updated", notification.id, notification.user_id, notification.app))
        again = table.find(tx.conn, notification_id, None)
        assert again is not None
        answers.append(again[1])
    return answers


def _refusal(notification: Notification, when: int) -> FlashFlowError | None:
    if notification.status != "scheduled":
        return Conflict(f"A notification that is {notification.status} cannot be rescheduled.")
    expires = notification.expires_at
    if expires is not None and when >= round(expires.timestamp() * 1000):
        return ValidationError.of("scheduled_at", "must lie before expires_at")
    return None
