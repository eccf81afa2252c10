"""User profile: a user's metrics and activities by session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import ClassVar, NamedTuple

import flet as ft

from flashflow.backend import DEFINITIONS, Activity, EventKind, NameCount, Session, UserAnalytics
from flashflow.views.controls.buttons import on_press
from flashflow.views.controls.formatting import grouped, one_line, plural
from flashflow.views.controls.layout import card, column, flow, growing, hairline
from flashflow.views.controls.relative_time import ago, clock, exact
from flashflow.views.controls.texts import body, caller_text, heading, hint, read_as, small
from flashflow.views.controls.tokens import GOOD, GRID, METRIC, MUTED, TARGET, TITLE
from flashflow.views.dashboard.live_feed import activity_row
from flashflow.views.dashboard.metric_labels import score, score_parts
from flashflow.views.shared.live import ROLLUP_KINDS
from flashflow.views.shared.panel import about, no_data, titled_panel
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.values import duration_text
from flashflow.views.shared.widgets import no_activities, page_column

SESSIONS = 10
PAGES_MAX = 20
FEW = 10
"""Activities shown of a session until it is expanded."""
MANY = 200
SHORT = 7
"""Longest value, in characters, that fits a narrow tile at size METRIC."""


class SessionData(NamedTuple):
    """A session with its newest activities."""

    session: Session
    activities: tuple[Activity, ...]


class UserProfileData(NamedTuple):
    """Data of the screen."""

    metrics: UserAnalytics
    sessions: tuple[SessionData, ...]
    more: bool


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class UserProfile(Screen):
    """The user of the route."""

    kinds: ClassVar[tuple[EventKind, ...]] = ("activity", "session", *ROLLUP_KINDS)
    rest: ClassVar[float] = 1.0
    ease: ClassVar[float] = 5.0

    user_id: str = field(default="", metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self._unfolded: set[str] = set()

    def load(self) -> UserProfileData:
        service = self.backend.activity
        pages = self.load_pages(lambda cursor: service.get_user_sessions(self.user_id, limit=SESSIONS, cursor=cursor))
        sessions = tuple(SessionData(session, self._activities(session)) for page in pages for session in page.sessions)
        return UserProfileData(service.get_user_analytics(self.user_id), sessions, pages[-1].next_cursor is not None)

    def _activities(self, session: Session) -> tuple[Activity, ...]:
        limit = MANY if session.id in self._unfolded else FEW
        return self.backend.activity.list_activities(session_id=session.id, limit=limit).activities

    def render(self, data: UserProfileData) -> ft.Control:
        now = self.now()
        if not data.sessions and not data.metrics.total_activities:
            text = "Sessions and activities appear here. Record one:"
            none = no_activities("No activities of this user", text, self.backend.url, self.user_id)
            return page_column([card(none, padding=0)], wide=self.wide)
        sections: list[ft.Control] = [_metrics(data.metrics, now), _favourites(data.metrics)]
        sections += [self._session_card(session, now) for session in data.sessions]
        if data.more and self._pages < PAGES_MAX:
            sections.append(
                ft.TextButton("Show earlier sessions", key="more", height=TARGET, on_click=on_press(self.show_more))
            )
        return page_column(sections, wide=self.wide)

    def _session_card(self, data: SessionData, now: datetime) -> ft.Control:
        session = data.session
        rows: list[ft.Control] = [activity_row(activity, now, of_user=True) for activity in data.activities]
        hidden = session.activities - len(data.activities)
        if hidden > 0 and session.id not in self._unfolded:
            text = f"Show {plural(hidden, 'earlier activity', 'earlier activities')}"
            unfold = ft.TextButton(text, height=TARGET, on_click=on_press(self._unfold, session.id))
            rows.append(ft.Container(unfold, padding=ft.Padding.symmetric(horizontal=GRID)))
        elif hidden > 0:
            rows.append(ft.Container(small(f"The newest {MANY} activities."), padding=2 * GRID))
        if not rows:
            none = no_data("No activities in this session.")
            rows = [ft.Container(none, padding=ft.Padding.symmetric(horizontal=16))]
        lines = [_session_head(session, now), hairline(), *rows]
        return card(column(lines, stretch=True), key=f"session-{session.id}", padding=0)

    async def _unfold(self, session_id: str) -> None:
        self._unfolded.add(session_id)
        self.refresh_now()


def _metrics(of: UserAnalytics, now: datetime) -> ft.Control:
    """Return the metric tiles side by side."""
    seen = "never" if of.last_activity is None else ago(of.last_activity, now)
    tiles: list[ft.Control] = [
        _tile("Sessions", grouped(of.total_sessions), "in total"),
        _tile("Activities", grouped(of.total_activities), f"the last {seen}"),
        _tile("Average session", duration_text(of.avg_session_duration), "from start to end"),
        _tile("Engagement score", score(of.engagement_score), "of 100, over 28 days", of.engagement_parts),
    ]
    if of.last_activity is not None:
        tiles[1].tooltip = hint(exact(of.last_activity, now))
    return ft.ResponsiveRow(tiles, key="metrics", spacing=12, run_spacing=12)


def _tile(label: str, value: str, detail: str, made_of: Mapping[str, float] | None = None) -> ft.Container:
    lines: list[ft.Control] = [
        ft.Container(small(label), padding=ft.Padding.only(right=GRID if made_of is None else 3 * GRID)),
        ft.Text(value, size=METRIC if len(value) <= SHORT else TITLE, weight=ft.FontWeight.W_500),
        small(detail),
    ]
    read = read_as(f"{label}: {value} {detail}", column(lines, 4))
    stack: list[ft.Control] = [ft.Container(read, padding=ft.Padding.symmetric(horizontal=16, vertical=14))]
    if made_of is not None:
        button = about(label, DEFINITIONS["engagement_score"], *score_parts(made_of))
        stack.append(ft.Container(button, right=0, top=0))
    box = card(ft.Stack(stack), key=f"metric-{label}", padding=0)
    box.col = {"xs": 6, "md": 3}
    return box


def _favourites(of: UserAnalytics) -> ft.Control:
    lists = [
        _favourite("Most visited pages", of.most_visited_pages, "No pages."),
        _favourite("Favorite features", of.favorite_features, "No features."),
    ]
    return ft.ResponsiveRow(lists, key="favourites", spacing=12, run_spacing=12)


def _favourite(title: str, names: Sequence[NameCount], none: str) -> ft.Control:
    rows = [_count(name) for name in names] or [no_data(none)]
    return ft.Container(titled_panel(title, rows), col={"xs": 12, "md": 6})


def _count(of: NameCount) -> ft.Control:
    spoken = f"{one_line(of.name, 120)}: {plural(of.count, 'activity', 'activities')}"
    return read_as(spoken, ft.Row([growing(caller_text(of.name)), body(grouped(of.count))], spacing=GRID))


def _session_head(session: Session, now: datetime) -> ft.Control:
    """Return a session's head: start, duration, counts, app and end."""
    began = ft.Container(heading(clock(session.start_time, now)), tooltip=hint(exact(session.start_time, now)))
    still = session.end_time is None
    facts = (
        f"{duration_text(session.duration)} so far" if still else duration_text(session.duration),
        plural(session.activities, "activity", "activities"),
        plural(session.pages_visited, "page"),
        session.app,
        {None: "open now", "timeout": "ended by timeout", "ended": "ended"}.get(session.end_reason, ""),
    )
    text = small(" · ".join(one_line(fact, 60) for fact in facts if fact), color=GOOD if still else MUTED)
    row = flow([began, text], spacing=12, run_spacing=2)
    return ft.Container(row, padding=ft.Padding.symmetric(horizontal=16, vertical=12))
