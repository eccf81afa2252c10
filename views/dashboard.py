"""The dashboard: today's figures, what waits for the person, and activities as they happen."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from urllib.parse import quote, urlsplit

import flet as ft

from views.commands import send_command, track_command
from views.controls.look import (
    ACCENT,
    FIGURE,
    GOOD,
    GRID,
    HAIRLINE,
    MUTED,
    Handler,
    body,
    caller_text,
    hairline,
    heading,
    hint,
    small,
    time_text,
)
from views.controls.notice_row import notice_row
from views.parts import card, empty, page_column
from views.screen import Screen
from views.words import ago, grouped, one_line, plural, share

if TYPE_CHECKING:
    from backend import Activity, ActivityPage, NotificationPage, TodayFigures

FEED = 25
WAITING = 5


class Found(NamedTuple):
    """What the dashboard shows."""

    today: TodayFigures
    feed: ActivityPage
    waiting: NotificationPage


class Tile(NamedTuple):
    """A figure of today, with what it means."""

    label: str
    figure: str
    detail: str
    means: str
    icon: ft.IconData
    color: ft.ColorValue = MUTED


def tiles(today: TodayFigures, unread: int) -> tuple[Tile, ...]:
    """The figures in the order a person asks for them."""
    opened = share(today.read, today.delivered)
    return (
        Tile(
            "Active users",
            grouped(today.active_users),
            "today",
            "Different users with at least one activity today.",
            ft.Icons.PERSON_OUTLINE,
        ),
        Tile(
            "Sessions",
            grouped(today.sessions),
            "started today",
            "Visits that began today. A visit ends after 30 minutes without an activity, or after 24 hours.",
            ft.Icons.TIMELAPSE,
        ),
        Tile(
            "Activities",
            grouped(today.activities),
            "today",
            "Everything apps recorded of their users today.",
            ft.Icons.TIMELINE,
        ),
        Tile(
            "Notices",
            grouped(today.notifications),
            "sent today",
            "Notices created today, for every user and channel.",
            ft.Icons.OUTBOX_OUTLINED,
        ),
        Tile(
            "Delivered",
            grouped(today.delivered),
            f"{opened} opened" if opened else "none opened yet",
            "Notices of today that reached an inbox or a device; opened are those marked read.",
            ft.Icons.CHECK_CIRCLE_OUTLINE,
            GOOD,
        ),
        Tile(
            "Unread",
            grouped(unread),
            "for you",
            "Everything in your inbox that you have not opened yet, whatever its day.",
            ft.Icons.MARK_EMAIL_UNREAD_OUTLINED,
            ACCENT,
        ),
    )


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Dashboard(Screen):
    """The first screen."""

    kinds: ClassVar[tuple[str, ...]] = ("activity", "session", "notification", "notification.updated", "system")
    rest: ClassVar[float] = 0.25  # drawing the feed anew costs some 30 ms; nobody reads faster

    def load(self) -> Found:
        return Found(
            self.backend.analytics.today(),
            self.backend.activity.list_activities(limit=FEED),
            self.backend.notifications.get_user_notifications(self.backend.me, status="unread", limit=WAITING),
        )

    def render(self, found: Found) -> ft.Control:
        now = self.now()
        live = self._feed(found.feed, now)
        mine = self._waiting(found.waiting, now)
        columns: ft.Control
        if self.wide:
            live.expand, mine.expand = 3, 2
            columns = ft.Row([live, mine], key="wide", spacing=16, vertical_alignment=ft.CrossAxisAlignment.START)
        else:
            columns = ft.Column([mine, live], key="narrow", spacing=16, tight=True)
        return page_column([_tiles(found.today, found.waiting.unread_count, self.wide), columns], wide=self.wide)

    def _feed(self, feed: ActivityPage, now: datetime) -> ft.Container:
        rows: list[ft.Control] = [_activity_row(activity, now) for activity in feed.activities]
        if not rows:
            rows = [
                empty(
                    ft.Icons.TIMELINE,
                    "No activities yet",
                    "What your apps' users do will run by here as it happens. Record the first one:",
                    track_command(self.backend.url, self.backend.me),
                    "record an activity",
                )
            ]
        return _panel("Live", "The newest activities", rows, key="live")

    def _waiting(self, waiting: NotificationPage, now: datetime) -> ft.Container:
        rows: list[ft.Control] = [
            notice_row(notice, now, self._opener(notice.id), lines=1) for notice in waiting.notifications
        ]
        words = plural(waiting.unread_count, "unread notification")
        if not rows:
            words = "Nothing unread"
            rows = [
                empty(
                    ft.Icons.DONE_ALL,
                    "You are all caught up",
                    "Notifications for you will stand here until you open them. Send yourself one:",
                    send_command(self.backend.url, self.backend.me),
                    "send a notification",
                )
            ]
        return _panel("For you", words, rows, key="mine")

    def _opener(self, notification_id: str) -> Handler:
        async def open_notice(_: object) -> None:
            self.go(f"/notifications/{quote(notification_id, safe='')}")
            await self.act(lambda: self.backend.notifications.mark_notification_as_read(notification_id))

        return open_notice


def _tiles(today: TodayFigures, unread: int, wide: bool) -> ft.ResponsiveRow:
    return ft.ResponsiveRow(
        [_tile(tile, wide) for tile in tiles(today, unread)], key="tiles", spacing=12, run_spacing=12
    )


def _tile(tile: Tile, wide: bool) -> ft.Container:
    """Label, figure, detail; read aloud as one sentence, its meaning on hover or tap."""
    head: list[ft.Control] = [
        ft.Icon(tile.icon, size=16, color=tile.color),
        _fill(small(tile.label)),
        ft.Icon(ft.Icons.INFO_OUTLINE, size=14, color=HAIRLINE),
    ]
    content = ft.Column(
        [
            ft.Row(head if wide else head[1:], spacing=6),
            ft.Text(tile.figure, size=FIGURE, weight=ft.FontWeight.W_500),
            small(tile.detail),
        ],
        spacing=4,
        tight=True,
    )
    words = f"{tile.label}: {tile.figure} {tile.detail}. {tile.means}"
    box = card(
        ft.Semantics(label=words, container=True, exclude_semantics=True, content=content),
        key=f"tile-{tile.label}",
        padding=ft.Padding.symmetric(horizontal=16, vertical=12),
    )
    box.tooltip = hint(tile.means, tap=True)
    box.col = {"xs": 6, "md": 4, "xl": 2}
    return box


def _fill(text: ft.Text) -> ft.Text:
    text.expand = True
    return text


def _panel(title: str, words: str, rows: list[ft.Control], *, key: str) -> ft.Container:
    head = ft.Container(
        padding=ft.Padding.only(left=16, right=16, top=12, bottom=GRID),
        content=ft.Row(
            [heading(title), small(words)], wrap=True, alignment=ft.MainAxisAlignment.SPACE_BETWEEN, spacing=GRID
        ),
    )
    return card(
        ft.Column([head, hairline(), *rows], spacing=0, horizontal_alignment=ft.CrossAxisAlignment.STRETCH, tight=True),
        key=key,
        padding=0,
    )


def _activity_row(activity: Activity, now: datetime) -> ft.Semantics:
    """Who did what, where, and when; read aloud as one sentence."""
    who = one_line(activity.user_id, 120)
    what = one_line(activity.activity_type, 80)
    where = " · ".join(part for part in (_page(activity.page_url), one_line(activity.app, 60)) if part)
    first = ft.Row([_fill(caller_text(who, strong=True)), time_text(activity.timestamp, now)], spacing=GRID)
    texts: list[ft.Control] = [first, body(what, lines=1)]
    if where:
        texts.append(small(where, lines=1))
    content = ft.Row(
        [_dot(), ft.Column(texts, spacing=0, expand=True, tight=True)],
        spacing=12,
        vertical_alignment=ft.CrossAxisAlignment.START,
    )
    return ft.Semantics(
        key=f"activity-{activity.id}",
        label=", ".join(part for part in (who, what, where, ago(activity.timestamp, now)) if part),
        container=True,
        exclude_semantics=True,
        content=ft.Container(content, padding=ft.Padding.symmetric(horizontal=16, vertical=GRID)),
    )


def _dot() -> ft.Container:
    return ft.Container(
        width=GRID, height=GRID, margin=ft.Margin.only(top=6), border_radius=4, border=ft.Border.all(2, MUTED)
    )


def _page(url: str | None) -> str:
    """The page's path without its host and query: what a person recognises."""
    if not url:
        return ""
    try:
        return one_line(urlsplit(url).path or "/", 120)
    except ValueError:
        return one_line(url, 120)
