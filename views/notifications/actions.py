"""Handlers of the actions on one notification: read, archive, snooze, retry. Results arrive over the bus."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from flashflow.views.controls.tokens import Handler
from flashflow.views.notifications.delivery_timeline import TimelineActions
from flashflow.views.notifications.detail import DetailActions

if TYPE_CHECKING:
    from flashflow.backend import Notification
    from flashflow.views.shared.screen_base import Screen

MORNING = time(8)


def notification_actions(screen: Screen, notification: Notification, show_all: Handler) -> DetailActions:
    """Return the handlers for a notification in its current state."""
    services, id_ = screen.backend.notifications, notification.id
    unread, archived = notification.inbox == "unread", notification.inbox == "archived"
    turn = services.mark_notification_as_read if unread else services.mark_notification_as_unread
    move = services.unarchive_notification if archived else services.archive_notification

    def on_press(action: Callable[[], object]) -> Handler:
        async def press(_: object) -> None:
            await screen.act(action)

        return press

    async def settings(_: object) -> None:
        screen.go("/settings")

    return DetailActions(
        toggle_read=on_press(lambda: turn(id_)),
        toggle_archived=on_press(lambda: move(id_)),
        snooze_an_hour=on_press(lambda: services.snooze_notification(id_, screen.now() + timedelta(hours=1))),
        snooze_to_morning=on_press(lambda: services.snooze_notification(id_, tomorrow_morning(screen.now()))),
        wake=on_press(lambda: services.mark_notification_as_unread(id_)),
        timeline_actions=TimelineActions(
            retry=on_press(lambda: services.retry_notification(id_)),
            send_digest=on_press(
                lambda: services.send_digest_now(notification.user_id, notification.notification_type)
            ),
            settings=settings,
            show_all=show_all,
        ),
    )


def tomorrow_morning(now: datetime) -> datetime:
    """Return 08:00 tomorrow in ``now``'s zone, or in this machine's zone if ``now`` has only an offset."""
    day = now.date() + timedelta(days=1)
    if isinstance(now.tzinfo, ZoneInfo):
        return datetime.combine(day, MORNING, now.tzinfo)
    return datetime.combine(day, MORNING).astimezone()
