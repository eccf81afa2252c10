"""The reusable controls' sources, satisfied in process: the backend's services for "me", heard through ``Live``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from views.controls.sources import Inbox
from views.live import Live

if TYPE_CHECKING:
    from backend import Backend, PreferenceMatrix

NOTIFICATION_KINDS = ("notification", "notification.updated")


class MyInbox:
    """An ``InboxSource`` over the inbox of the person at this machine."""

    def __init__(self, backend: Backend, live: Live) -> None:
        self._backend = backend
        self._live = live

    def newest(self, limit: int) -> Inbox:
        page = self._backend.notifications.get_user_notifications(self._backend.me, limit=limit)
        return Inbox(page.notifications, page.unread_count)

    def mark_read(self, notification_id: str) -> None:
        self._backend.notifications.mark_notification_as_read(notification_id)

    def mark_unread(self, notification_ids: Sequence[str]) -> None:
        self._backend.notifications.mark_many_as_unread(notification_ids)

    def mark_all_read(self) -> tuple[str, ...]:
        return self._backend.notifications.mark_all_as_read(self._backend.me)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return self._live.listen(NOTIFICATION_KINDS, on_change, mine=True)


class MyPreferences:
    """A ``PreferenceSource`` over the preferences of the person at this machine."""

    def __init__(self, backend: Backend, live: Live) -> None:
        self._backend = backend
        self._live = live

    def matrix(self) -> PreferenceMatrix:
        return self._backend.notifications.get_preferences(self._backend.me)

    def set_preference(self, notification_type: str, channel: str, enabled: bool) -> None:
        self._backend.notifications.update_notification_preference(
            self._backend.me, notification_type, channel, enabled
        )

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return self._live.listen(("preference", "system", "notification"), on_change)
