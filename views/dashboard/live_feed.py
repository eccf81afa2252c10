"""Dashboard lists: the newest activities and the local user's unread notifications."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from urllib.parse import quote, urlsplit

import flet as ft

from flashflow.backend import Activity, ActivityPage, NotificationPage
from flashflow.views.controls.buttons import on_press
from flashflow.views.controls.formatting import one_line, plural
from flashflow.views.controls.layout import growing, mark_row
from flashflow.views.controls.notification_row import notification_row
from flashflow.views.controls.relative_time import ago
from flashflow.views.controls.texts import body, caller_text, read_as, small, time_text
from flashflow.views.controls.tokens import GRID, MUTED
from flashflow.views.shared.panel import Panel, titled_panel
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.widgets import no_activities, nothing_unread


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class LiveFeed(Panel):
    """The newest activities, or a command that records the first."""

    def draw(self, feed: ActivityPage, url: str | None, me: str, most: int, now: datetime) -> ft.Control:
        rows: list[ft.Control] = [activity_row(activity, now) for activity in feed.activities[:most]]
        if not rows:
            text = "Activities of your apps' users appear here as they happen. Record the first one:"
            rows = [no_activities("No activities yet", text, url, me)]
        return titled_panel("Live", rows, subtitle="the newest activities", padded=False)


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class UnreadList(Panel):
    """The local user's unread notifications."""

    screen: Screen = field(metadata={"skip": True})

    def draw(self, waiting: NotificationPage, now: datetime) -> ft.Control:
        screen = self.screen
        rows: list[ft.Control] = [
            notification_row(notification, now, on_press(self._open, notification.id), lines=1)
            for notification in waiting.notifications
        ]
        text = plural(waiting.unread_count, "unread notification")
        if not rows:
            text = "nothing unread"
            rows = [nothing_unread(screen.backend.url, screen.backend.me)]
        return titled_panel("For you", rows, subtitle=text, padded=False)

    async def _open(self, notification_id: str) -> None:
        self.screen.go(f"/notifications/{quote(notification_id, safe='')}")
        await self.screen.act(lambda: self.screen.backend.notifications.mark_notification_as_read(notification_id))


def activity_row(activity: Activity, now: datetime, *, of_user: bool = False) -> ft.Semantics:
    """Return a row with user, type, page, app and time; ``of_user`` omits the user. One accessible name for the row."""
    who = "" if of_user else one_line(activity.user_id, 120)
    what = one_line(activity.activity_type, 80)
    where = " · ".join(part for part in (page(activity.page_url), one_line(activity.app, 60)) if part)
    head = growing(body(what, lines=1) if of_user else caller_text(who, strong=True))
    texts: list[ft.Control] = [ft.Row([head, time_text(activity.timestamp, now)], spacing=GRID)]
    if not of_user:
        texts.append(body(what, lines=1))
    if where:
        texts.append(small(where, lines=1))
    dot = ft.Container(
        width=GRID, height=GRID, margin=ft.Margin.only(top=6), border_radius=4, border=ft.Border.all(2, MUTED)
    )
    name = ", ".join(part for part in (who, what, where, ago(activity.timestamp, now)) if part)
    content = ft.Container(mark_row(dot, texts), padding=ft.Padding.symmetric(horizontal=16, vertical=GRID))
    return read_as(name, content, key=f"activity-{activity.id}")


def page(url: str | None) -> str:
    """Return the path of a page URL, without host and query."""
    if not url:
        return ""
    try:
        return one_line(urlsplit(url).path or "/", 120)
    except ValueError:
        return one_line(url, 120)
