"""Notification bell for any Flet app: a badge with the unread count and a panel with the newest ten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime

import flet as ft

from flashflow.views.controls.badge import Badge, bell_name
from flashflow.views.controls.buttons import named_button, on_press
from flashflow.views.controls.http_sources import local_connection, named_user
from flashflow.views.controls.layout import column, flow, hairline
from flashflow.views.controls.notification_row import notification_row
from flashflow.views.controls.protocols import Inbox, InboxNotification, InboxSource
from flashflow.views.controls.refresher import LiveControl, call, is_mounted
from flashflow.views.controls.relative_time import upcoming
from flashflow.views.controls.texts import body, heading, small
from flashflow.views.controls.tokens import HAIRLINE, HIGH, RADIUS, TARGET, TITLE
from flashflow.views.controls.translation import Translation

NEWEST = 10
PANEL_WIDTH = 400
QUIET = ft.Icons.NOTIFICATIONS_PAUSED_OUTLINED
MARGIN = 8


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class NotificationBell(LiveControl):
    """A bell button with a badge and a panel, live from ``source``. Without one, from the FlashFlow of this machine
    over HTTP, for ``user_id``.

    ``open_notification`` is called with the id of the selected notification, ``open_all`` when "View all" is pressed
    (without it there is no such button). ``on_open`` is called when the panel opens, ``on_mark_read`` with the ids that
    were marked read here, ``on_change`` with the unread count whenever it changes. Each may be asynchronous.
    ``texts`` translates (flashflow.controls.TEXTS).
    """

    source: InboxSource | None = field(default=None, metadata={"skip": True})
    user_id: str | None = field(default=None, metadata={"skip": True})
    open_notification: Callable[[str], Awaitable[None]] | None = field(default=None, metadata={"skip": True})
    open_all: Callable[[], Awaitable[None]] | None = field(default=None, metadata={"skip": True})
    on_open: Callable[[], Awaitable[None] | None] | None = field(default=None, metadata={"skip": True})
    on_mark_read: Callable[[Sequence[str]], Awaitable[None] | None] | None = field(
        default=None, metadata={"skip": True}
    )
    on_change: Callable[[int], Awaitable[None] | None] | None = field(default=None, metadata={"skip": True})
    texts: Mapping[str, str] = field(default_factory=dict, metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self._t = Translation(self.texts)
        self._source = self.source or local_connection().inbox(named_user(self.user_id))
        self._inbox = Inbox()
        self._undo: Sequence[str] = ()
        self._panel: ft.AlertDialog | None = None
        self._button = ft.IconButton(
            ft.Icons.NOTIFICATIONS_OUTLINED, width=TARGET, height=TARGET, on_click=self.open_panel
        )
        self._badge = Badge()
        self.content = ft.MergeSemantics(content=ft.Stack([self._button, self._badge.control]))
        self._draw()

    def subscribe(self) -> Callable[[], None]:
        return self._source.subscribe(self.request_refresh)

    @property
    def unread(self) -> int:
        """Unread notifications at the last refresh."""
        return self._inbox.unread

    @property
    def badge_text(self) -> str | None:
        """Text of the badge, None while it is hidden."""
        return self._badge.text

    @property
    def name(self) -> str:
        """Accessible name of the button."""
        return str(self._button.tooltip)

    async def refresh(self) -> None:
        """Read the source and show its state."""
        read = await self.attempt(lambda: self._source.newest(NEWEST), self._t("The inbox could not be read"))
        unread, self._inbox = self._inbox.unread, read or self._inbox
        self._draw()
        self.redraw()
        self._draw_panel()
        if self._inbox.unread != unread:
            await call(self.on_change, self._inbox.unread)

    async def open_panel(self, _: object = None) -> None:
        """Open the panel under the bell, unless it is open (a double click)."""
        if self._panel is not None:
            return
        self._undo = ()
        # In a list, because Flet matches list items by key with the previous ones: the scroll position stays.
        self._frame = ft.Stack([self.panel_content()])
        self._panel = ft.AlertDialog(
            content=self._frame,
            content_padding=ft.Padding.all(0),
            actions_padding=ft.Padding.all(0),
            alignment=ft.Alignment.TOP_RIGHT,
            inset_padding=ft.Padding.only(top=64, left=MARGIN, right=MARGIN, bottom=MARGIN),
            barrier_color=ft.Colors.with_opacity(0.08, ft.Colors.BLACK),
            bgcolor=ft.Colors.SURFACE_CONTAINER_LOWEST,
            shape=ft.RoundedRectangleBorder(radius=RADIUS, side=ft.BorderSide(1, HAIRLINE)),
            elevation=0,
            semantics_label=self._t("Latest notifications"),
            on_dismiss=self._dismissed,
        )
        self.page.show_dialog(self._panel)
        self.request_refresh()
        await call(self.on_open)

    def panel_content(self) -> ft.Container:
        """Return the panel: a head, the rows or a message, and "View all"."""
        now = self.now()
        rows: list[ft.Control] = [
            notification_row(notification, now, on_press(self._open, notification), lines=1, t=self._t)
            for notification in self._inbox.notifications
        ]
        if self._error:
            retry = ft.TextButton(self._t("Retry"), height=TARGET, on_click=on_press(self.request_refresh))
            rows = [_line(body(self._error)), retry]
        elif not rows:
            rows = [_line(small(self._t("No notifications yet. Notifications from your apps appear here.")))]
        parts = [self._head(), hairline(), _list(rows), hairline(), self._foot(now)]
        return ft.Container(column(parts, stretch=True), key="bell-panel", width=PANEL_WIDTH)

    def _head(self) -> ft.Container:
        action: ft.Control = ft.TextButton(
            self._t("Mark all read"), on_click=self.mark_all, height=TARGET, disabled=self._inbox.unread == 0
        )
        if self._undo:
            undo = self._t("Undo marking {count:,} read", count=len(self._undo))
            action = ft.TextButton(undo, on_click=self.undo, height=TARGET)
        title = heading(self._t("Notifications"), size=TITLE)
        return ft.Container(
            padding=ft.Padding.only(left=16, right=MARGIN, top=MARGIN, bottom=MARGIN),
            content=ft.Row([title, action], alignment=ft.MainAxisAlignment.SPACE_BETWEEN, wrap=True),
        )

    def _foot(self, now: datetime) -> ft.Container:
        """Return the buttons "View all" and do not disturb."""
        t, parts = self._t, list[ft.Control]()
        if self.open_all is not None:
            parts.append(ft.TextButton(t("View all"), on_click=self._view_all, height=TARGET))
        until = self._quiet_until(now)
        if until is None and self._inbox.may_pause:
            start = self.start_do_not_disturb
            parts.append(ft.TextButton(t("Do not disturb 1 h"), icon=QUIET, on_click=start, height=TARGET))
        elif until is not None:
            words = body(t("Do not disturb until {time}", time=until))
            status = ft.Row([ft.Icon(QUIET, size=18, color=HIGH), words], spacing=MARGIN, tight=True)
            end = named_button(ft.TextButton, t("End"), t("End do not disturb"), self.end_do_not_disturb)
            parts.append(ft.Row([status, end], key="quiet", spacing=MARGIN, tight=True, wrap=True))
        row = flow(parts, spacing=MARGIN, run_spacing=0)
        row.alignment = ft.MainAxisAlignment.SPACE_BETWEEN
        return ft.Container(row, padding=MARGIN)

    def _quiet_until(self, now: datetime) -> str | None:
        """Return the end of do not disturb as text; None when it is off."""
        until = self._inbox.quiet_until
        return None if until is None or until <= now else upcoming(until, now, self._t)

    async def start_do_not_disturb(self, _: object = None) -> None:
        """Turn do not disturb on for one hour."""
        await self._do(lambda: self._source.set_do_not_disturb(60))

    async def end_do_not_disturb(self, _: object = None) -> None:
        """Turn do not disturb off."""
        await self._do(lambda: self._source.set_do_not_disturb(None))

    async def mark_all(self, _: object = None) -> None:
        """Mark all notifications read; ``undo`` is offered until the panel closes."""
        await self._do(self._mark_all)
        if self._undo and self._error is None:
            await call(self.on_mark_read, self._undo)

    def _mark_all(self) -> None:
        self._undo = self._source.mark_all_read()

    async def undo(self, _: object = None) -> None:
        """Undo the last "Mark all read"."""
        ids, self._undo = self._undo, ()
        await self._do(lambda: self._source.mark_unread(ids))

    async def _do(self, action: Callable[[], object]) -> None:
        await self.attempt(action, self._t("The change could not be saved"))
        self._draw_panel()

    async def _open(self, notification: InboxNotification) -> None:
        self._close()
        if self.open_notification is not None:
            await self.open_notification(notification.id)
        if notification.inbox == "unread":
            await self._do(lambda: self._source.mark_read(notification.id))
            if self._error is None:
                await call(self.on_mark_read, (notification.id,))

    async def _view_all(self, _: object) -> None:
        self._close()
        if self.open_all is not None:
            await self.open_all()

    def _close(self) -> None:
        if self._panel is not None:
            self._panel.open = False
            if is_mounted(self._panel):
                self._panel.update()
            self._panel = None

    def _dismissed(self, event: ft.Event[ft.DialogControl]) -> None:
        # Flet reports it after the closing animation; the next panel may be open by then.
        if event.control is self._panel:
            self._panel = None

    def _draw(self) -> None:
        self._badge.set_unread(self._inbox.unread)
        until = self._quiet_until(self.now())
        self._button.tooltip = bell_name(self._inbox.unread, until, self._t)
        self._button.icon = QUIET if until else ft.Icons.NOTIFICATIONS_OUTLINED

    def _draw_panel(self) -> None:
        if self._panel is not None and is_mounted(self._panel):
            self._frame.controls = [self.panel_content()]
            self._panel.update()


def _line(text: ft.Text) -> ft.Container:
    return ft.Container(padding=24, content=text)


def _list(rows: list[ft.Control]) -> ft.Column:
    """Return the rows, scrolling if there are more than two: a scrolling column takes all the height."""
    if len(rows) <= 2:
        return ft.Column(rows, key="few", spacing=0, tight=True)
    return ft.Column(rows, key="many", spacing=0, scroll=ft.ScrollMode.AUTO, expand=True, expand_loose=True)
