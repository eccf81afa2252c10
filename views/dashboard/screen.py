"""Dashboard: a period's metrics, users, funnel and live activities."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from datetime import date
from typing import ClassVar, NamedTuple

import flet as ft

from flashflow.backend import (
    ActivityPage,
    EventKind,
    Filters,
    FlashFlowError,
    Funnel,
    HeatMap,
    Names,
    NotificationPage,
    Overview,
    Retention,
    TodayMetrics,
    Trend,
    UserRows,
)
from flashflow.views.controls.buttons import choice, menu_button, on_press
from flashflow.views.controls.layout import column, ends, flow
from flashflow.views.controls.tokens import GRID
from flashflow.views.dashboard.date_range import PERIODS, Period, Selection
from flashflow.views.dashboard.funnel import STEPS_OFFERED, FunnelPanel, funnel_result
from flashflow.views.dashboard.heat_map import HeatMapPanel
from flashflow.views.dashboard.live_feed import LiveFeed, UnreadList
from flashflow.views.dashboard.metric_labels import data_warnings
from flashflow.views.dashboard.metric_tiles import Tiles, tiles
from flashflow.views.dashboard.retention import AUDIENCE, DAYS, Audience, RetentionPanel, cohorts_of
from flashflow.views.dashboard.top_lists import TopNames
from flashflow.views.dashboard.trend import TrendPanel, curve
from flashflow.views.dashboard.users import UsersPanel, user_route
from flashflow.views.shared.live import NOTIFICATION_KINDS, ROLLUP_KINDS
from flashflow.views.shared.panel import Panel
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.widgets import page_column, page_padding, warning

FEED, FEED_NARROW = 25, 8
WAITING = 5
TOP = 7
USERS = 8
KINDS = {"pages": "Pages", "features": "Features", "referrers": "Referrers"}


class DashboardData(NamedTuple):
    """Data of the dashboard."""

    day: date
    overview: Overview
    trend: Trend
    tops: Mapping[str, Names]
    heat: HeatMap
    retention: Retention
    users: UserRows
    types: tuple[str, ...]
    funnel: Funnel | None
    funnel_failed: str | None
    today: TodayMetrics
    feed: ActivityPage
    waiting: NotificationPage


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Dashboard(Screen):
    """The first screen. Its panels live as long as the layout; each is redrawn when its data changes."""

    kinds: ClassVar[tuple[EventKind, ...]] = ("activity", "session", *NOTIFICATION_KINDS, *ROLLUP_KINDS)
    rest: ClassVar[float] = 1.0  # a value that changes faster cannot be read
    ease: ClassVar[float] = 5.0  # a query over a year with millions of activities may take longer

    chosen: Selection = field(default_factory=Selection, metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self._page: ft.ListView | None = None

    # --- query ----------------------------------------------------------------------------------------------------

    def load(self) -> DashboardData:
        backend, analytics, chosen = self.backend, self.backend.analytics, self.chosen
        day, *_ = analytics.today_bounds()
        filters = chosen.filters(day)
        funnel, funnel_failed = self._funnel(day)
        return DashboardData(
            day=day,
            overview=analytics.overview(filters, chosen.compare),
            trend=analytics.trend(filters, chosen.compare, chosen.interval),
            tops={kind: analytics.top(filters, kind, TOP) for kind in KINDS},
            heat=analytics.heatmap(filters),
            retention=analytics.retention(cohorts_of(day), DAYS),
            users=analytics.user_list(filters, USERS),
            types=self._types(filters),
            funnel=funnel,
            funnel_failed=funnel_failed,
            today=backend.dashboard.today(),
            feed=backend.activity.list_activities(limit=FEED),
            waiting=backend.notifications.get_user_notifications(backend.me, status="unread", limit=WAITING),
        )

    def _types(self, filters: Filters) -> tuple[str, ...]:
        """Return the most frequent activity types, sorted by name so that none moves in an open menu."""
        names = self.backend.analytics.top(filters, "types", STEPS_OFFERED).names
        return tuple(sorted(named.name for named in names if not named.is_other))

    def _funnel(self, day: date) -> tuple[Funnel | None, str | None]:
        """Return the funnel, or the error that its panel shows."""
        chosen, steps = self.chosen, self.chosen.funnel
        if steps is None:
            return None, None
        dropped_at = chosen.dropped_at if chosen.dropped_at is None or chosen.dropped_at <= len(steps) else None
        try:
            return self.backend.analytics.funnel(chosen.filters(day), steps, chosen.window, dropped_at), None
        except FlashFlowError as refusal:
            return None, str(refusal)

    # --- show -----------------------------------------------------------------------------------------------------

    def render(self, data: DashboardData) -> ft.Control:
        if self._page is None:
            self._page = self._build()
        self._page.padding = page_padding(wide=self.wide)
        self._set_data(data)
        return self._page

    def show(self, content: ft.Control, key: str) -> None:
        """Show content; panels that leave the page are built again at the next ``render``."""
        if content is not self._page:
            self._page = None
        super().show(content, f"{key}-{'wide' if self.wide else 'narrow'}")

    def set_wide(self, wide: bool) -> None:
        self._page = None
        super().set_wide(wide)

    def _set_data(self, data: DashboardData) -> None:
        overview, chosen, now = data.overview, self.chosen, self.now().replace(second=0, microsecond=0)
        anything = bool(data.feed.activities)
        self._picker.set_data(chosen.period, chosen.compared)
        self._warnings.set_data(data_warnings(overview.full, overview.pending))
        rows = tiles(overview, data.today, data.waiting.unread_count, chosen.period)
        self._tiles.set_data(rows, overview.definitions["change"])
        self._trend.set_data(curve(data.trend, chosen.metric))
        for kind, part in self._tops.items():
            part.set_data(KINDS[kind], data.tops[kind].names, data.tops[kind].definition)
        self._audience.set_data({name: overview.figures[name] for name, _ in AUDIENCE}, overview.definitions)
        self._heat.set_data(data.heat.hours, data.heat.timezone, data.heat.definition)
        self._retention.set_data(data.retention.cohorts, data.retention.average, data.retention.definition)
        self._funnel_part.set_data(data.types, funnel_result(data.funnel), data.funnel_failed)
        users = data.users
        self._users.set_data(users.users, users.next_cursor is not None, users.definition, data.day)
        self._feed.set_data(data.feed, self.backend.url, self.backend.me, FEED if self.wide else FEED_NARROW, now)
        self._for_you.set_data(data.waiting, now)
        for panel in self._activity_panels:
            panel.visible = anything
        self._warnings.visible = bool(overview.full or overview.pending)

    # --- layout ---------------------------------------------------------------------------------------------------

    def _build(self) -> ft.ListView:
        self._picker = Picker(choose=self._choose, compare=self._compare, wide=self.wide)
        self._warnings = DataWarnings()
        self._tiles = Tiles()
        self._trend = TrendPanel(choose=self._measure, room=660 if self.wide else 300)
        self._tops = {kind: TopNames() for kind in KINDS}
        self._audience = Audience()
        self._heat = HeatMapPanel(room=660 if self.wide else 300)
        self._retention = RetentionPanel()
        self._funnel_part = FunnelPanel(chosen=self.chosen, on_change=self.refresh_now, open_user=self._open_user)
        self._users = UsersPanel(open_user=self._open_user, open_all=lambda: self.go("/users"))
        self._feed = LiveFeed()
        self._for_you = UnreadList(screen=self)
        self._activity_panels: list[ft.Control] = []
        columns = self._wide_columns() if self.wide else self._narrow_column()
        return page_column([self._picker, self._warnings, self._tiles, columns], wide=self.wide)

    def _wide_columns(self) -> ft.Control:
        halves: list[ft.Control] = [
            ft.Container(part, col={"xs": 12, "md": 6}) for part in (*self._tops.values(), self._audience)
        ]
        lists = ft.ResponsiveRow(halves, spacing=16, run_spacing=16)
        parts = [self._trend, lists, self._heat, self._retention, self._funnel_part, self._users]
        left, right = column(parts, 16, stretch=True), column([self._for_you, self._feed], 16, stretch=True)
        left.expand, right.expand = 2, 1
        self._activity_panels = [left]
        return ft.Row([left, right], spacing=16, vertical_alignment=ft.CrossAxisAlignment.START)

    def _narrow_column(self) -> ft.Control:
        tops = self._tops.values()
        rest = [*tops, self._audience, self._heat, self._retention, self._funnel_part, self._users]
        self._activity_panels = [self._trend, *rest]
        return column([self._trend, self._for_you, self._feed, *rest], 16, stretch=True)

    # --- actions --------------------------------------------------------------------------------------------------

    async def _choose(self, period: Period) -> None:
        self.chosen.period = period
        self._picker.replace_data(period, self.chosen.compared)
        self.refresh_now()

    async def _compare(self, compared: bool) -> None:
        self.chosen.compared = compared
        self._picker.replace_data(self.chosen.period, compared)
        self.refresh_now()

    async def _measure(self, metric: str) -> None:
        self.chosen.metric = metric
        if self._loaded is not None:
            self._trend.replace_data(curve(self._loaded.trend, metric))

    def _open_user(self, user_id: str) -> None:
        self.go(user_route(user_id))


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Picker(Panel):
    """Selection of the period and of the comparison with the period before."""

    choose: Callable[[Period], Awaitable[None]] = field(metadata={"skip": True})
    compare: Callable[[bool], Awaitable[None]] = field(metadata={"skip": True})
    wide: bool = field(default=False, metadata={"skip": True})

    def draw(self, period: Period, compared: bool) -> ft.Control:
        picks: list[ft.Control]
        if self.wide:
            picks = [choice(each.label, each == period, on_press(self.choose, each)) for each in PERIODS]
        else:
            items = [ft.PopupMenuItem(each.label, on_click=on_press(self.choose, each)) for each in PERIODS]
            picks = [menu_button(period.label, items, name=f"Period: {period.label}", key="period")]
        switch = ft.Switch(
            label="vs previous", value=compared, on_change=on_press(self.compare, not compared), key="compare"
        )
        return ends(flow(picks, run_spacing=4), switch)


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class DataWarnings(Panel):
    """Warnings about incomplete metrics."""

    def draw(self, lines: tuple[str, ...]) -> ft.Control:
        return column([warning(line) for line in lines], GRID)
