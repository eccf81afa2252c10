"""User lists with engagement scores: a panel of the dashboard and a screen with all users, latest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from datetime import date
from typing import ClassVar, NamedTuple
from urllib.parse import quote

import flet as ft

from flashflow.backend import EventKind, UserRow
from flashflow.views.controls.buttons import on_press, pressable
from flashflow.views.controls.formatting import one_line, plural
from flashflow.views.controls.layout import column, growing, hairline
from flashflow.views.controls.texts import caller_text, hint, small
from flashflow.views.controls.tokens import ACCENT, GRID, TARGET
from flashflow.views.dashboard.date_range import Selection
from flashflow.views.dashboard.metric_labels import day_text, score, score_parts
from flashflow.views.shared.live import ROLLUP_KINDS
from flashflow.views.shared.panel import Panel, titled_panel
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.widgets import no_activities, page_column

PAGE = 50
PAGES_MAX = 10


def user_route(user_id: str) -> str:
    return f"/users/{quote(user_id, safe='')}"


def user_summary(user: UserRow, today: date) -> str:
    """Return the accessible name of a row."""
    return (
        f"{one_line(user.user_id, 120)}, last seen {day_text(user.last_day, today)}, "
        f"{plural(user.activities, 'activity', 'activities')}, engagement score {score(user.engagement_score)}"
    )


def user_row(user: UserRow, today: date, open_user: Callable[[str], None]) -> ft.Control:
    """Return a row with last day, activities and score; the tooltip lists the score's parts."""

    often = plural(user.activities, "activity", "activities")
    seen = small(f"last seen {day_text(user.last_day, today)} · {often}", lines=1)
    texts = growing(column([caller_text(user.user_id, strong=True), seen]))
    line = ft.ProgressBar((user.engagement_score or 0) / 100, width=56, bar_height=4, border_radius=2, color=ACCENT)
    value = ft.Text(score(user.engagement_score), width=32, text_align=ft.TextAlign.RIGHT)
    row = ft.Row([texts, line, value], spacing=GRID)
    made_of = "\n".join(("Engagement score, of 100:", *score_parts(user.engagement_parts)))
    explained = ft.Container(row, tooltip=hint(made_of if user.engagement_parts else "Not seen in the last 28 days"))
    opened, key = on_press(open_user, user.user_id), f"user-{user.user_id}"
    return pressable(user_summary(user, today), explained, opened, key=key)


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class UsersPanel(Panel):
    """The latest active users and a button to all users."""

    open_user: Callable[[str], None] = field(metadata={"skip": True})
    open_all: Callable[[], None] = field(metadata={"skip": True})

    def draw(self, users: tuple[UserRow, ...], more: bool, means: str, today: date) -> ft.Control:
        rows: list[ft.Control] = [user_row(user, today, self.open_user) for user in users]
        if not rows:
            rows = [ft.Container(small("No active users in this period."), padding=2 * GRID)]
        if more:
            everyone = ft.TextButton("Show all users", height=TARGET, on_click=on_press(self.open_all))
            rows += [hairline(), ft.Container(everyone, padding=ft.Padding.symmetric(horizontal=GRID))]
        return titled_panel("Users", rows, subtitle="latest active, with engagement score", means=means, padded=False)


class UsersData(NamedTuple):
    """The loaded users, and today's date."""

    users: Sequence[UserRow]
    more: bool
    definition: str
    today: date


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Users(Screen):
    """All users active in the dashboard's period or later."""

    kinds: ClassVar[tuple[EventKind, ...]] = ("activity", "session", *ROLLUP_KINDS)
    rest: ClassVar[float] = 1.0
    ease: ClassVar[float] = 10.0  # every refresh calculates every score

    chosen: Selection = field(default_factory=Selection, metadata={"skip": True})

    def load(self) -> UsersData:
        analytics = self.backend.analytics
        today, *_ = analytics.today_bounds()
        filters = self.chosen.filters(today)
        pages = self.load_pages(lambda cursor: analytics.user_list(filters, limit=PAGE, cursor=cursor))
        users = [user for page in pages for user in page.users]
        return UsersData(users, pages[-1].next_cursor is not None, pages[-1].definition, today)

    def render(self, data: UsersData) -> ft.Control:
        rows: list[ft.Control] = [user_row(user, data.today, self._open) for user in data.users]
        if data.more and self._pages < PAGES_MAX:
            rows.append(ft.TextButton("Show more", key="more", height=TARGET, on_click=on_press(self.show_more)))
        if not rows:
            text = "Users of your apps appear here. Record an activity:"
            url, me = self.backend.url, self.backend.me
            rows = [no_activities("No active users in this period", text, url, me, ft.Icons.PERSON_OUTLINE)]
        text = f"active {self.chosen.period.phrase} or later, latest first"
        section = titled_panel("All users", rows, subtitle=text, means=data.definition, padded=False)
        return page_column([section], wide=self.wide)

    def _open(self, user_id: str) -> None:
        self.go(user_route(user_id))
