"""Handlers of the actions on one notification: read, archive, snooze, retry. Results arrive over the bus."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

from flashflow.backend import Notification
from flashflow.views.controls.buttons import Handler, on_press
from flashflow.views.shared.screen_base import Screen

MORNING = time(8)


class NotificationActions(NamedTuple):
    """Handlers of the buttons of the detail and of its delivery timeline."""

    toggle_read: Handler
    toggle_archived: Handler
    snooze_an_hour: Handler
    snooze_to_morning: Handler
    wake: Handler
    retry: Handler
    send_digest: Handler
    settings: Handler
    show_all: Handler


def notification_actions(screen: Screen, notification: Notification, show_all: Handler) -> NotificationActions:
    """Return the handlers for a notification in its current state."""
    services, id_ = screen.backend.notifications, notification.id
    user, kind = notification.user_id, notification.notification_type
    unread, archived = notification.inbox == "unread", notification.inbox == "archived"
    mark = services.mark_notification_as_read if unread else services.mark_notification_as_unread
    move = services.unarchive_notification if archived else services.archive_notification
    act = partial(on_press, screen.act)
    return NotificationActions(
        toggle_read=act(lambda: mark(id_)),
        toggle_archived=act(lambda: move(id_)),
        snooze_an_hour=act(lambda: services.snooze_notification(id_, screen.now() + timedelta(hours=1))),
        snooze_to_morning=act(lambda: services.snooze_notification(id_, tomorrow_morning(screen.now()))),
        wake=act(lambda: services.mark_notification_as_unread(id_)),
        retry=act(lambda: services.retry_notification(id_)),
        send_digest=act(lambda: services.send_digest_now(user, kind)),
        settings=on_press(screen.go, "/settings"),
        show_all=show_all,
    )


def tomorrow_morning(now: datetime) -> datetime:
    """Return 08:00 tomorrow in ``now``'s zone, or in this machine's zone if ``now`` has only an offset."""
    day = now.date() + timedelta(days=1)
    if isinstance(now.tzinfo, ZoneInfo):
        return datetime.combine(day, MORNING, now.tzinfo)
    return datetime.combine(day, MORNING).astimezone()
