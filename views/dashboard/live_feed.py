"""Dashboard lists: the newest activities and the local user's unread notifications."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import flet as ft

from flashflow.views.controls.formatting import ago, one_line, plural
from flashflow.views.controls.notification_row import notification_row
from flashflow.views.controls.tokens import GRID, MUTED, Handler, body, caller_text, read_as, small, time_text
from flashflow.views.shared.cli_snippets import send_command, track_command
from flashflow.views.shared.panel import Panel, titled_panel
from flashflow.views.shared.widgets import empty

if TYPE_CHECKING:
    from flashflow.backend import Activity, ActivityPage, NotificationPage
    from flashflow.views.shared.screen_base import Screen


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class LiveFeed(Panel):
    """The newest activities, or a command that records the first."""

    def draw(self, feed: ActivityPage, url: str | None, me: str, most: int, now: datetime) -> ft.Control:
        rows: list[ft.Control] = [activity_row(activity, now) for activity in feed.activities[:most]]
        if not rows:
            rows = [
                empty(
                    ft.Icons.TIMELINE,
                    "No activities yet",
                    "Activities of your apps' users appear here as they happen. Record the first one:",
                    track_command(url, me),
                    "record an activity",
                )
            ]
        return titled_panel("Live", rows, subtitle="the newest activities", padded=False)


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class UnreadList(Panel):
    """The local user's unread notifications."""

    screen: Screen = field(metadata={"skip": True})

    def draw(self, waiting: NotificationPage, now: datetime) -> ft.Control:
        screen = self.screen
        rows: list[ft.Control] = [
            notification_row(notification, now, _opener(screen, notification.id), lines=1)
            for notification in waiting.notifications
        ]
        text = plural(waiting.unread_count, "unread notification")
        if not rows:
            text = "nothing unread"
            rows = [
                empty(
                    ft.Icons.DONE_ALL,
                    "You are all caught up",
                    "Notifications stay here until you open them. Send yourself one:",
                    send_command(screen.backend.url, screen.backend.me),
                    "send a notification",
                )
            ]
        return titled_panel("For you", rows, subtitle=text, padded=False)


def _opener(screen: Screen, notification_id: str) -> Handler:
    async def open_notification(_: object) -> None:
        screen.go(f"/notifications/{quote(notification_id, safe='')}")
        await screen.act(lambda: screen.backend.notifications.mark_notification_as_read(notification_id))

    return open_notification


def activity_row(activity: Activity, now: datetime, *, of_user: bool = False) -> ft.Semantics:
    """Return a row with user, type, page, app and time; ``of_user`` omits the user. One accessible name for the row."""
    who = "" if of_user else one_line(activity.user_id, 120)
    what = one_line(activity.activity_type, 80)
    where = " · ".join(part for part in (page(activity.page_url), one_line(activity.app, 60)) if part)
    head = body(what, lines=1) if of_user else caller_text(who, strong=True)
    head.expand = True
    texts: list[ft.Control] = [ft.Row([head, time_text(activity.timestamp, now)], spacing=GRID)]
    if not of_user:
        texts.append(body(what, lines=1))
    if where:
        texts.append(small(where, lines=1))
    content = ft.Row(
        [_dot(), ft.Column(texts, spacing=0, expand=True, tight=True)],
        spacing=12,
        vertical_alignment=ft.CrossAxisAlignment.START,
    )
    return read_as(
        ", ".join(part for part in (who, what, where, ago(activity.timestamp, now)) if part),
        ft.Container(content, padding=ft.Padding.symmetric(horizontal=16, vertical=GRID)),
        key=f"activity-{activity.id}",
    )


def _dot() -> ft.Container:
    return ft.Container(
        width=GRID, height=GRID, margin=ft.Margin.only(top=6), border_radius=4, border=ft.Border.all(2, MUTED)
    )


def page(url: str | None) -> str:
    """Return the path of a page URL, without host and query."""
    if not url:
        return ""
    try:
        return one_line(urlsplit(url).path or "/", 120)
    except ValueError:
        return one_line(url, 120)
