"""Metric labels, charts, and the dashboard built over a real backend without a page."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import flet as ft
import flet.canvas as cv
import msgspec
import pytest

from flashflow.backend import (
    Backend,
    Cohort,
    Filters,
    FunnelStep,
    Metric,
    Named,
    Overview,
    Period,
    TodayMetrics,
    Trend,
    TrendPoint,
)
from flashflow.views.controls.refresher import Refresher
from flashflow.views.dashboard import heat_map, metric_labels, trend
from flashflow.views.dashboard.date_range import PERIODS, Selection
from flashflow.views.dashboard.funnel import step_text
from flashflow.views.dashboard.metric_labels import (
    busiest,
    change,
    data_warnings,
    day_text,
    retention_summary,
    score_parts,
    trend_summary,
)
from flashflow.views.dashboard.metric_tiles import tiles
from flashflow.views.dashboard.retention import cohorts_of
from flashflow.views.dashboard.screen import Dashboard, DataWarnings
from flashflow.views.dashboard.top_lists import TopNames
from flashflow.views.dashboard.user_profile import FEW, SESSIONS, UserProfile
from flashflow.views.dashboard.users import PAGE, Users
from flashflow.views.settings.key_activities import KeyActivities
from flashflow.views.settings.screen import Settings
from flashflow.views.shared import plot
from flashflow.views.shared.live import Live
from flashflow.views.shared.panel import Panel
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.values import duration_text, percent, point_text
from flashflow.views.web import shorten_message_text
from tests.support.control_tree import named, texts, walk

pytestmark = pytest.mark.anyio

TODAY = date(2026, 11, 22)


def screen_over(backend: Backend, kind: type[Screen] = Dashboard, **more: Any) -> Any:
    live = Live(backend.bus, backend.me, asyncio.get_running_loop())
    return kind(backend=backend, live=live, go=more.pop("go", lambda _: None), wide=more.pop("wide", True), **more)


def drawn(screen: Any) -> ft.Control:
    """Load and draw the screen, as a refresh does."""
    screen.show(screen.render(screen.load()), "data")
    return screen


def labels(control: ft.BaseControl) -> list[str]:
    """Accessible names of parts that cannot be pressed."""
    return [c.label for c in walk(control) if isinstance(c, ft.Semantics) and c.label is not None and not c.button]


def is_shown(control: ft.BaseControl, kind: type[ft.Control]) -> bool:
    """Whether the picture has a visible part of this kind."""
    if not getattr(control, "visible", True):
        return False
    if isinstance(control, kind):
        return True
    inner = [getattr(control, "content", None), *(getattr(control, "controls", None) or [])]
    return any(is_shown(child, kind) for child in inner if isinstance(child, ft.BaseControl))


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (None, "–"),
        (0, "0 %"),
        (0.0004, "under 0.1 %"),
        (0.0423, "4.2 %"),
        (0.04, "4 %"),
        (0.0999, "10 %"),
        (0.4167, "42 %"),
        (1, "100 %"),
        (12.5, "1,250 %"),
    ],
)
def test_a_share_has_a_decimal_only_below_ten_per_cent(share: float | None, words: str) -> None:
    assert percent(share) == words


def test_a_change_has_a_text_and_an_arrow_and_never_only_a_colour() -> None:
    up = change(Metric(value=112, previous=100, change=0.12))
    down = change(Metric(value=96, previous=100, change=-0.04))
    assert up is not None
    assert (up.shown, up.spoken, up.arrow) == ("12 %", "up 12 %", 1)
    assert down is not None
    assert (down.shown, down.spoken, down.arrow) == ("4 %", "down 4 %", -1)
    new, same = change(Metric(value=3, previous=0, change="new")), change(Metric(value=0, previous=0, change=0.0))
    assert new is not None
    assert (new.shown, new.arrow) == ("new, none before", 0)
    assert same is not None
    assert (same.shown, same.spoken) == ("± 0 %", "unchanged")
    assert change(Metric(value=3)) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90_000, "25 h"),
        (259_200, "3 days"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float | None, words: str) -> None:
    assert duration_text(seconds) == words


def test_recent_days_have_names() -> None:
    days = [TODAY, TODAY - timedelta(1), TODAY - timedelta(9), TODAY - timedelta(400)]
    assert [day_text(of, TODAY) for of in days] == ["today", "yesterday", "13 Nov", "18 Oct 2025"]
    assert [point_text("2026-11-24"), point_text("2026-11-24T09")] == ["Tue 24 Nov", "09:00"]


def test_a_trend_is_summarised_by_its_first_last_and_highest_value() -> None:
    at = ("2026-11-20", "2026-11-21", "2026-11-22")
    words = trend_summary("Activities", at, (412, 1560, 230), (300, 20, 10))
    assert words == (
        "Activities from Fri 20 Nov to Sun 22 Nov: first 412, last 230, highest 1,560 (Sat 21 Nov). "
        "The period before: highest 300"
    )
    assert trend_summary("Activities", at, (1,), ()) == (
        "Activities from Fri 20 Nov to Fri 20 Nov: first 1, last 1, highest 1 (Fri 20 Nov)"
    )


def test_the_busiest_hour_is_named() -> None:
    hours = [[0] * 24 for _ in range(7)]
    hours[1][14] = 1204
    hours[2][14] = 1203
    assert busiest(hours) == "Busiest: Tuesday, 14:00 to 15:00 with 1,204 activities"
    assert metric_labels.weekday_hour(6, 23) == "Sunday, 23:00 to 00:00"


def test_retention_is_summarised_by_returning_users() -> None:
    cohorts = [Cohort(day=TODAY, size=8, users=(None,)), Cohort(day=TODAY - timedelta(1), size=2, users=(2, None))]
    assert retention_summary(cohorts, (1.0, None)) == "10 new users in 2 cohorts"
    assert retention_summary(cohorts, (1.0, 0.25, 0.5)) == "10 new users in 2 cohorts, 25 % returned on day 1"


def test_a_score_names_only_the_parts_it_has() -> None:
    assert score_parts({"D": 0.5, "F": 0.25}) == ("50 % – sessions longer than usual", "25 % – active days of 28")
    assert [metric_labels.score(46.67), metric_labels.score(None)] == ["47", "–"]


def test_incomplete_metrics_have_one_warning_for_each_limit() -> None:
    assert data_warnings((), 0) == ()
    assert data_warnings(("page", "type"), 1200) == (
        "The limit of distinct pages and activity types is reached; new ones are counted as “All others”.",
        "1,200 activities are stored but not counted in the metrics yet. The disk may be full.",
    )


def test_a_funnel_step_has_users_shares_and_a_median_time() -> None:
    step = FunnelStep(
        activity_type="checkout", users=106, share=0.35, of_previous=0.5, dropped=106, median_seconds=236.0
    )
    assert step_text(step, first=False) == (
        "checkout: 106 users, 35 %, 50 % of the step before, after 3 min 56 s (median)"
    )
    assert step_text(step, first=True) == "checkout: 106 users, 35 %"


# --- shapes -----------------------------------------------------------------------------------------------------------


def overview(**figures: Metric) -> Overview:
    none = Metric(value=None)
    known = {"active_users": none, "sessions": none, "activities": none, "engagement_rate": none} | figures
    return Overview(
        period=Period(first=TODAY, last=TODAY),
        previous=None,
        timezone="UTC",
        figures=known,
        definitions=dict.fromkeys(known, "What it means."),
        full=(),
        pending=0,
    )


def test_tiles_show_the_period_and_today() -> None:
    today = TodayMetrics(
        day="2026-11-22", zone="UTC", active_users=3, sessions=4, activities=12, notifications=9, delivered=8, read=2
    )
    found = overview(
        active_users=Metric(value=1204, previous=1075, change=0.12),
        sessions=Metric(value=9, previous=0, change="new"),
        activities=Metric(value=48220),
        engagement_rate=Metric(value=0.4, previous=0.5, change=-0.2),
    )
    shown = tiles(found, today, 6, PERIODS[1])
    assert [(t.label, t.value, t.detail, t.arrow) for t in shown] == [
        ("Active users", "1,204", "12 % from 1,075", 1),
        ("Sessions", "9", "new, none before", 0),
        ("Activities", "48,220", "in 7 days", 0),
        ("Engagement rate", "40 %", "20 % from 50 %", -1),
        ("Delivered", "8", "today, 25 % opened", 0),
        ("Unread", "6", "for you", 0),
    ]
    assert shown[0].spoken == "in 7 days, up 12 % from 1,075"


def test_bars_are_relative_to_the_longest_and_other_names_are_one_row() -> None:
    names = (
        Named(name="/pricing", count=40, share=0.4),
        Named(name="", count=30, share=0.3, is_other=True),
        Named(name="/\u202eevil\n", count=10, share=0.1),
    )
    panel = TopNames()
    panel.set_data("Pages", names, "")
    assert [text for text in texts(panel) if text != "Pages"] == [
        *("/pricing", "40", "40 %"),
        *("All others", "30", "30 %"),
        *("/ evil", "10", "10 %"),
    ]
    assert [bar.value for bar in walk(panel) if isinstance(bar, ft.ProgressBar)] == [1.0, 0.75, 0.25]
    assert "All others: 30 activities, 30 %" in [row.label for row in walk(panel) if isinstance(row, ft.Semantics)]
    panel.set_data("Pages", (), "")
    assert "None in this period." in texts(panel)


def hourly(until: datetime | None) -> Trend:
    points = tuple(
        TrendPoint(at=f"2026-11-22T{hour:02}", activities=hour, active_users=None, sessions=None) for hour in range(24)
    )
    return Trend(
        period=Period(first=TODAY, last=TODAY, until=until),
        previous=Period(first=TODAY, last=TODAY),
        timezone="Europe/Berlin",
        interval="hour",
        points=points,
        previous_points=points,
    )


def test_future_hours_are_not_drawn_as_zero() -> None:
    of = trend.curve(hourly(datetime(2026, 11, 22, 8, 30, tzinfo=UTC)), "active_users")
    assert (of.metric, len(of.at), of.now) == ("activities", 24, tuple(range(10)))  # 09:30 in Berlin
    assert of.before == tuple(range(24))
    assert trend.curve(hourly(None), "activities").now == tuple(range(24))


def test_the_chart_ends_at_a_round_number_above_the_highest_value() -> None:
    assert [plot.ceiling(n) for n in (0, 1, 7, 9, 10, 590, 1001)] == [1, 1, 8, 10, 10, 600, 2000]
    of = trend.Curve("activities", False, True, ("2026-11-21", "2026-11-22"), (0, 10), (5, 5))
    lines = [shape for shape in trend.shapes(of, 100) if isinstance(shape, cv.Path)]
    before, _, now = lines
    assert before.paint.stroke_dash_pattern == [4, 4]
    assert now.paint.stroke_dash_pattern is None
    assert [(e.x, e.y) for e in now.elements] == [(0, plot.HEIGHT), (100, plot.HEAD)]  # type: ignore[attr-defined]


def test_a_chart_describes_the_value_under_the_pointer() -> None:
    line = trend.TrendPanel(choose=ignore, room=200)
    line.set_data(trend.Curve("activities", False, True, ("2026-11-20", "2026-11-21", "2026-11-22"), (4, 1500), (7,)))
    assert "Line: this period, the last day so far · dashed: the period before" in texts(line)
    assert line.describe_at(2, 0) == "Fri 20 Nov: 4 · 7 in the period before"
    assert line.describe_at(99, 0) == "Sat 21 Nov: 1,500"
    assert line.describe_at(200, 0) == "Sun 22 Nov: not over yet"
    assert line.describe_at(900, 0) is None

    hours = [[0] * 24 for _ in range(7)]
    hours[6][23] = 1
    week = heat_map.HeatMapPanel(room=heat_map.LEFT + 240)
    week.set_data(hours, "UTC", "What it means.")
    assert week.describe_at(heat_map.LEFT + 239, heat_map.TOP + 69) == "Sunday, 23:00 to 00:00: 1 activity"
    assert week.describe_at(heat_map.LEFT - 1, heat_map.TOP + 5) is None


async def test_the_caption_shows_the_value_under_the_pointer() -> None:
    week = heat_map.HeatMapPanel(room=heat_map.LEFT + 240)
    week.set_data([[1] * 24 for _ in range(7)], "UTC", "What it means.")
    await week._over(Pointed(ft.Offset(heat_map.LEFT + 5, heat_map.TOP + 5)))  # type: ignore[arg-type]
    assert "Monday, 00:00 to 01:00: 1 activity" in texts(week)
    await week._left(None)
    assert "Busiest: Monday, 00:00 to 01:00 with 1 activity" in texts(week)


def test_every_hour_of_the_week_is_a_cell_and_the_busiest_the_strongest() -> None:
    hours = [[0] * 24 for _ in range(7)]
    hours[0][0], hours[6][23] = 1, 100
    found = heat_map.cells(hours)
    assert [len(cells) for cells in found] == [166, 1, 0, 0, 1]
    assert found[1] == [(0, 0)]
    assert found[4] == [(6, 23)]
    assert [heat_map.strength(n, 4) for n in range(5)] == [0, 1, 2, 3, 4]


def test_a_funnel_is_queried_once_every_step_is_chosen() -> None:
    chosen = Selection()
    assert chosen.funnel is None
    chosen.steps = ["a", "b"]
    assert chosen.funnel == ("a", "b")
    chosen.steps.append(None)
    assert chosen.funnel is None


def test_a_period_ends_today_and_has_as_many_days_as_it_says() -> None:
    for period in PERIODS:
        filters = Selection(period=period).filters(TODAY)
        assert filters.last == TODAY
        assert filters.first is not None
        assert (TODAY - filters.first).days + 1 == period.days
    rows = cohorts_of(TODAY)
    assert rows.first == date(2026, 11, 9)


class Pointed:
    """The event of a pointer that moves."""

    def __init__(self, at: ft.Offset) -> None:
        self.local_position = at


async def ignore(_: object) -> None: ...


# --- parts ------------------------------------------------------------------------------------------------------------


class Counting(Panel):
    """A panel that counts its draws."""

    drawings = 0

    def draw(self, *shown: Any) -> ft.Control:
        self.drawings += 1
        return ft.Text(str(shown))


def test_a_panel_is_drawn_only_when_its_data_changes() -> None:
    part = Counting()
    for shown in ((1, "a"), (1, "a"), (2, "a"), (2, "a")):
        part.set_data(*shown)
    assert part.drawings == 2
    assert texts(part) == ["(2, 'a')"]


async def test_a_refresh_that_takes_long_is_followed_by_a_longer_rest() -> None:
    rests: list[float] = []
    times = iter((10.0, 10.5, 20.0, 20.001))
    refreshes = 0

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    async def refresh() -> None:
        nonlocal refreshes
        refreshes += 1
        if refreshes == 1:
            refresher.request_refresh()

    refresher = Refresher(refresh, 1.0, 5.0, now=lambda: next(times), sleep=rest)
    refresher.request_refresh()
    for _ in range(5):
        await asyncio.sleep(0)
    assert rests == [2.5, 1.0]


def test_messages_to_a_page_are_not_formatted() -> None:
    from flet.messaging.protocol import Message, MessageAction

    class Body:
        def __repr__(self) -> str:
            raise AssertionError("a message was put into words")

    shorten_message_text()
    assert f"send_message: {Message(MessageAction.PATCH_CONTROL, Body())}" == "send_message: a Message"


# --- the dashboard ----------------------------------------------------------------------------------------------------


def visit(backend: Backend, user: str, *types: str) -> None:
    for kind in types:
        page = "/pricing" if kind == "page_view" else None
        backend.activity.track_activity(user, kind, page_url=page)


@pytest.mark.parametrize("wide", [True, False])
async def test_an_empty_dashboard_shows_a_command_and_then_the_activities(backend: Backend, wide: bool) -> None:
    screen = screen_over(backend, wide=wide)
    picture = drawn(screen)
    assert "No activities yet" in texts(picture)
    assert not is_shown(picture, trend.TrendPanel)

    visit(backend, "bob", "page_view", "search")
    picture = drawn(screen)
    assert "No activities yet" not in texts(picture)
    assert is_shown(picture, trend.TrendPanel)
    heard = labels(picture)
    assert "Activities: 2 in 7 days, new, none before" in heard
    assert "/pricing: 1 activity, 100 %" in heard
    assert "Daily active users: 1" in heard
    assert "Retention: 1 new user in 1 cohort" in heard
    people = [c.label for c in walk(picture) if isinstance(c, ft.Semantics) and c.button and c.label]
    assert [name for name in people if name.startswith("bob, last seen today, 2 activities, engagement score ")]


async def test_a_refresh_without_changes_draws_nothing(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(backend, "bob", "page_view", "search")
    now = datetime.now(UTC)
    screen = screen_over(backend, now=lambda: now)
    drawn(screen)
    redrawn: list[str] = []
    monkeypatch.setattr(Panel, "redraw", lambda self: redrawn.append(type(self).__name__))
    drawn(screen)
    assert redrawn == []

    visit(backend, "carla", "search")
    drawn(screen)
    assert "Tiles" in redrawn
    assert "Picker" not in redrawn


async def test_incomplete_metrics_show_a_warning(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(backend, "bob", "page_view")
    screen = screen_over(backend)
    assert not is_shown(drawn(screen), DataWarnings)
    answer = msgspec.structs.replace(backend.analytics.overview(Filters()), full=("page",), pending=2)
    monkeypatch.setattr(backend.analytics, "overview", lambda *_: answer)
    picture = drawn(screen)
    assert is_shown(picture, DataWarnings)
    assert any("limit of distinct pages is reached" in text for text in texts(picture))
    assert any("2 activities are stored but not counted in the metrics yet" in text for text in texts(picture))


async def test_without_comparison_no_change_is_shown(backend: Backend) -> None:
    visit(backend, "bob", "search")
    screen = screen_over(backend)
    screen.chosen.compared = False
    assert "Activities: 1 in 7 days" in labels(drawn(screen))
    screen.chosen.period = PERIODS[0]
    assert "Activities: 1 today" in labels(drawn(screen))


async def test_a_funnel_error_is_shown_in_its_panel(backend: Backend) -> None:
    visit(backend, "bob", "page_view", "search")
    screen = screen_over(backend)
    screen.chosen.steps = ["page_view"] * 11  # more than a query takes
    found = screen.load()
    assert found.funnel is None
    assert any("2 to 10" in text for text in texts(drawn(screen)))
    screen.chosen.steps = ["page_view", "purchase"]
    screen.chosen.dropped_at = 2
    assert screen.load().funnel.dropped_users == ("bob",)
    assert named(drawn(screen), "Hide users who dropped out before step 2") is not None


async def test_a_failed_load_offers_a_retry(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_over(backend)

    def broken(*_: object) -> Any:
        raise OSError("The disk is gone.")

    monkeypatch.setattr(backend.analytics, "overview", broken)
    await screen.refresh()
    assert "The disk is gone. Nothing was changed." in texts(screen)
    assert named(screen, "Retry") is not None
    monkeypatch.undo()
    await screen.refresh()
    assert "No activities yet" in texts(screen)


# --- people -----------------------------------------------------------------------------------------------------------


async def test_all_users_are_paged_and_open_a_profile(backend: Backend) -> None:
    rows = [{"user_id": f"u/{n}", "activity_type": "search"} for n in range(PAGE + 1)]
    backend.activity.track_batch(rows)
    gone: list[str] = []
    screen = screen_over(backend, Users, go=gone.append)
    first = [c for c in walk(drawn(screen)) if isinstance(c, ft.Semantics) and c.button]
    assert len(first) == PAGE

    await named(screen, "Show more").on_click(None)
    picture = drawn(screen)
    assert sum(isinstance(c, ft.Semantics) and bool(c.button) for c in walk(picture)) == PAGE + 1
    assert "Show more" not in texts(picture)
    row = named(picture, "u/0, last seen today, 1 activity, engagement score 1")
    await row.on_click(None)
    assert gone == ["/users/u%2F0"]


async def test_a_profile_has_metrics_and_sessions_with_activities(backend: Backend) -> None:
    for n in range(SESSIONS + 1):
        backend.activity.track_activity("bob", "search", session_id=f"s{n}")
    for _ in range(FEW + 2):
        backend.activity.track_activity("bob", "page_view", page_url="/pricing", session_id="s0")
    screen = screen_over(backend, UserProfile, user_id="bob")
    picture = drawn(screen)
    heard = labels(picture)
    assert f"Sessions: {SESSIONS + 1} in total" in heard
    assert f"/pricing: {FEW + 2} activities" in heard
    assert "Show earlier sessions" in texts(picture)

    await named(picture, "Show earlier sessions").on_click(None)
    picture = drawn(screen)
    assert "Show earlier sessions" not in texts(picture)
    await named(picture, "Show 3 earlier activities").on_click(None)
    assert sum("page_view, /pricing" in label for label in labels(drawn(screen))) == FEW + 2


async def test_an_unknown_user_gets_a_command_that_records_an_activity(backend: Backend) -> None:
    picture = drawn(screen_over(backend, UserProfile, user_id="eve"))
    assert "No activities of this user" in texts(picture)
    assert any("flashflow track eve page_view" in text for text in texts(picture))


# --- key activities ---------------------------------------------------------------------------------------------------


async def test_a_switch_marks_a_key_activity_and_shows_the_recalculation(backend: Backend) -> None:
    visit(backend, "bob", "checkout", "login")
    screen = screen_over(backend)
    part = KeyActivities(screen)
    part.set_data(backend.activity.rollups.activity_types())
    switch = named(part.control, "Key activity: login")
    busy: list[bool] = []
    screen.redraw = lambda: busy.append("recalculating sessions …" in texts(part.control))

    await switch.on_change(None)

    assert busy == [True]
    assert [kind.name for kind in backend.activity.rollups.activity_types() if kind.key] == ["login"]
    part.set_data(backend.activity.rollups.activity_types())
    assert named(part.control, "Key activity: login").value is True
    screen.will_unmount()


@pytest.mark.parametrize(("kind", "before", "after"), [(Dashboard, "0 %", "100 %"), (Settings, False, True)])
async def test_an_open_screen_shows_a_key_activity_marked_elsewhere(
    backend: Backend, kind: type[Screen], before: object, after: object
) -> None:
    visit(backend, "bob", "checkout")
    screen = screen_over(backend, kind)

    def shown() -> object:
        if kind is Settings:
            found = [c.value for c in walk(screen) if getattr(c, "tooltip", None) == "Key activity: checkout"]
        else:
            seen = texts(screen)
            found = [seen[seen.index("Engagement rate") + 1]] if "Engagement rate" in seen else []
        return found[0] if found else None

    async def until(wanted: object) -> None:
        async with asyncio.timeout(10):
            while shown() != wanted:
                await asyncio.sleep(0.01)

    screen.live.start()
    screen.did_mount()
    try:
        await until(before)
        await asyncio.to_thread(backend.activity.rollups.mark_key_activity, "checkout")
        await until(after)
    finally:
        screen.will_unmount()
        screen.live.stop()


async def test_without_types_the_list_says_so(backend: Backend) -> None:
    part = KeyActivities(screen_over(backend))
    part.set_data(())
    assert any("No activities yet" in text for text in texts(part.control))
