"""Notification centre: the local user's notifications and the detail of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, NamedTuple
from urllib.parse import quote

import flet as ft

from flashflow.backend import EventKind, NotFound, Notification, NotificationDetail
from flashflow.views.controls.buttons import choice, on_press
from flashflow.views.controls.formatting import plural
from flashflow.views.controls.layout import column, ends, flow, hairline
from flashflow.views.controls.notification_row import notification_row
from flashflow.views.controls.relative_time import day_heading
from flashflow.views.controls.texts import body, heading, small
from flashflow.views.controls.tokens import GRID, HAIRLINE, MUTED, TARGET
from flashflow.views.notifications.actions import notification_actions
from flashflow.views.notifications.detail import detail_view
from flashflow.views.shared.cli_snippets import send_command
from flashflow.views.shared.live import NOTIFICATION_KINDS
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.widgets import centred, empty, nothing_unread

PAGE = 50
PAGES_MAX = 20
UNREAD = "unread"
INBOX = "inbox"
"""Unread and read: the list without a status filter."""
FILTERS = {
    UNREAD: "Unread", INBOX: "Inbox", "snoozed": "Snoozed", "archived": "Archived", "scheduled": "Scheduled",
    "failed": "Failed", "all": "All",
}  # fmt: skip
EMPTY = {
    "snoozed": (ft.Icons.SNOOZE, "Nothing is snoozed", "Snoozed notifications stay here until their snooze ends."),
    "archived": (ft.Icons.ARCHIVE_OUTLINED, "Nothing is archived", "Notifications you archive are kept here."),
    "failed": (
        ft.Icons.CHECK_CIRCLE_OUTLINE,
        "Nothing failed",
        "Notifications that no channel could deliver are listed here.",
    ),
}


class NotificationCenterData(NamedTuple):
    """Data of the notification centre; ``missing`` is the reason why the selected notification cannot be shown."""

    notifications: tuple[Notification, ...]
    unread: int
    more: bool
    detail: NotificationDetail | None
    missing: str | None


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class NotificationCenter(Screen):
    """The list with the notification of the route beside it, or instead of it on a narrow page."""

    kinds: ClassVar[tuple[EventKind, ...]] = (*NOTIFICATION_KINDS, "settings", "pruning", "erasure")

    selected: str | None = field(default=None, metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self._filter = UNREAD
        self._undo: Sequence[str] = ()
        self._unfolded: str | None = None

    def select(self, notification_id: str | None) -> None:
        """Show the detail of this notification, or of none."""
        self.selected = notification_id
        self.request_refresh()

    def load(self) -> NotificationCenterData:
        services = self.backend.notifications
        status = None if self._filter == INBOX else self._filter
        pages = self.load_pages(
            lambda cursor: services.get_user_notifications(self.backend.me, status=status, limit=PAGE, cursor=cursor)
        )
        notifications = [notification for page in pages for notification in page.notifications]
        detail, missing = self._load_selected()
        kept = detail if self._filter in {UNREAD, INBOX} else None
        return NotificationCenterData(
            _with_open_notification(notifications, kept),
            pages[-1].unread_count,
            pages[-1].next_cursor is not None,
            detail,
            missing,
        )

    def _load_selected(self) -> tuple[NotificationDetail | None, str | None]:
        selected = self.selected
        if selected is None:
            return None, None
        try:
            detail = self.backend.notifications.get_notification(selected)
        except NotFound as error:
            return None, str(error)
        if detail.notification.user_id != self.backend.me:
            return None, "This notification belongs to another user."
        return detail, None

    def render(self, data: NotificationCenterData) -> ft.Control:
        if not self.wide:
            return self._detail(data) if self.selected is not None else self._list(data)
        left = ft.Container(self._list(data), key="list", expand=1)
        right = ft.Container(self._detail(data), key="detail", expand=1)
        columns = ft.Row(
            [left, ft.VerticalDivider(width=1, thickness=1, color=HAIRLINE), right],
            spacing=0,
            vertical_alignment=ft.CrossAxisAlignment.STRETCH,
        )
        return centred(columns, stretch=True)

    def _list(self, data: NotificationCenterData) -> ft.Column:
        now = self.now()
        rows: list[ft.Control] = []
        day = ""
        for notification in data.notifications:
            if (today := day_heading(notification.listed_at, now)) != day:
                day = today
                rows.append(_day(day))
            chosen = self.wide and notification.id == self.selected
            opened = on_press(self._open, notification)
            rows.append(notification_row(notification, now, opened, selected=chosen))
        if data.more:
            rows.append(ft.TextButton("Show older", key="older", height=TARGET, on_click=on_press(self._show_older)))
        if not rows:
            rows.append(self._empty())
        scroll = ft.ListView(rows, key="rows", expand=True, padding=ft.Padding.only(left=GRID, right=GRID, bottom=24))
        return ft.Column(
            [self._toolbar(data), hairline(), scroll],
            key="list",
            spacing=0,
            expand=True,
            horizontal_alignment=ft.CrossAxisAlignment.STRETCH,
        )

    def _toolbar(self, data: NotificationCenterData) -> ft.Container:
        labels = FILTERS | ({UNREAD: f"Unread {data.unread:,}"} if data.unread else {})
        chips: list[ft.Control] = [
            choice(label, name == self._filter, on_press(self._choose, name)) for name, label in labels.items()
        ]
        filters = flow(chips, key="filters", run_spacing=4)
        action = ft.TextButton(
            "Mark all read", icon=ft.Icons.DONE_ALL, height=TARGET, disabled=not data.unread, on_click=self.mark_all
        )
        if self._undo:
            text = f"Undo marking {plural(len(self._undo), 'notification')} read"
            action = ft.TextButton(text, icon=ft.Icons.UNDO, height=TARGET, on_click=self.undo)
        return ft.Container(ends(filters, action), padding=ft.Padding.symmetric(horizontal=16, vertical=GRID))

    def _empty(self) -> ft.Container:
        if self._filter in EMPTY:
            return empty(*EMPTY[self._filter])
        if self._filter == UNREAD:
            return nothing_unread(self.backend.url, self.backend.me)
        line = send_command(self.backend.url, self.backend.me)
        text = "All notifications from your apps are kept here. Send yourself one:"
        return empty(ft.Icons.NOTIFICATIONS_NONE, "No notifications yet", text, line, "send a notification")

    def _detail(self, data: NotificationCenterData) -> ft.Control:
        if data.detail is None:
            return _no_selection(data.missing)
        notification = data.detail.notification
        content = detail_view(
            data.detail,
            self.now(),
            notification_actions(self, notification, on_press(self._show_all_attempts)),
            all_attempts=self._unfolded == notification.id,
        )
        return ft.ListView([content], key="detail", expand=True, padding=ft.Padding.all(24 if self.wide else 16))

    async def _open(self, notification: Notification) -> None:
        self._undo = ()
        self.go(f"/notifications/{quote(notification.id, safe='')}")
        # Opening does not end a snooze and does not cancel a scheduled notification.
        if notification.inbox == "unread":
            await self.act(lambda: self.backend.notifications.mark_notification_as_read(notification.id))

    def _show_all_attempts(self) -> None:
        self._unfolded = self.selected
        self.request_refresh()

    async def mark_all(self, _: object = None) -> None:
        """Mark all notifications read; ``undo`` is offered until the next action."""

        def change() -> None:
            self._undo = self.backend.notifications.mark_all_as_read(self.backend.me)

        await self.act(change)
        self.request_refresh()

    async def undo(self, _: object = None) -> None:
        """Undo the last "Mark all read"."""
        ids, self._undo = self._undo, ()

        await self.act(lambda: self.backend.notifications.mark_many_as_unread(ids))
        self.request_refresh()

    def _choose(self, name: str) -> None:
        self._filter = name
        self._pages = 1
        self.request_refresh()

    def _show_older(self) -> None:
        self._pages = min(self._pages + 1, PAGES_MAX)
        self.request_refresh()


def _with_open_notification(
    notifications: list[Notification], detail: NotificationDetail | None
) -> tuple[Notification, ...]:
    """Return the list with the open notification in it, so that it stays listed after it was marked read."""
    if (
        detail is None
        or detail.notification.inbox != "read"
        or any(n.id == detail.notification.id for n in notifications)
    ):
        return tuple(notifications)
    return tuple(sorted((*notifications, detail.notification), key=lambda n: (n.listed_at, n.id), reverse=True))


def _day(day: str) -> ft.Container:
    text = heading(day, level=3)
    return ft.Container(text, key=f"day-{day}", padding=ft.Padding.only(left=16, top=16, bottom=4))


def _no_selection(missing: str | None) -> ft.Container:
    icon = ft.Icons.SEARCH_OFF if missing else ft.Icons.NOTIFICATIONS_NONE
    title = "Notification not found" if missing else "No notification selected"
    text = missing or "Select a notification to read it and to see how it was delivered."
    parts: list[ft.Control] = [ft.Icon(icon, size=32, color=MUTED), body(title, strong=True), small(text)]
    return ft.Container(key="nothing", padding=24, content=column(parts, GRID))
