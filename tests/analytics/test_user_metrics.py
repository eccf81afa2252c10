"""A user's figures and today's, each beside an example worked out by hand from DEFINITIONS.md."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from flashflow.backend import NotificationService, UserActivityService
from flashflow.backend.dashboard import DashboardMetrics
from tests.support.fixed_clock import StillClock
from tests.support.stored_rows import stored_metrics
from tests.support.time_zone import use_zone


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def service(tmp_path: Path, clock: StillClock) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=clock, zone=ZoneInfo("UTC")) as service:
        yield service


def visit(
    service: UserActivityService, name: str, begin: datetime, end: datetime, pages: int, user: str = "ada"
) -> None:
    """A session from ``begin`` to ``end`` with so many distinct pages."""
    rows = [
        {"user_id": user, "activity_type": "page_view", "session_id": name, "timestamp": end, "page_url": f"/{page}"}
        for page in range(pages)
    ]
    rows[0]["timestamp"] = begin
    if pages == 1:
        rows.append({**rows[0], "timestamp": end})
    assert service.track_batch(rows).rejected == ()


# --- engagement -------------------------------------------------------------------------------------------------------


def test_the_score_is_a_hundred_times_the_mean_of_its_parts(service: UserActivityService, clock: StillClock) -> None:
    """Ten sessions: C .6 (six with 3 pages, four with 1: mean 2.2), D .4 (four of an hour, six of 10 minutes: mean
    30 minutes), R .3 (three of the deep ones in the last week), F 14/28 (four reach over midnight)."""
    deep, long, recent = {0, 1, 2, 7, 8, 9}, {0, 1, 8, 9}, {0, 1, 2}
    for number in range(10):
        days = number + 1 if number in recent else number * 2 + 2
        crosses = number in {6, 7, 8, 9}
        begin = clock.at(days=-days).replace(hour=23 if crosses else 9, minute=55)
        span = 60 if number in long else 10
        end = datetime.fromtimestamp(begin.timestamp() + span * 60, UTC)
        visit(service, f"s{number}", begin, end, 3 if number in deep else 1)

    figures = service.get_user_analytics("ada")
    assert figures.engagement_parts == {"C": 0.6, "D": 0.4, "R": 0.3, "F": 0.5}
    assert figures.engagement_score == 45.0


def test_deep_and_long_are_measured_against_everyones_mean(service: UserActivityService, clock: StillClock) -> None:
    """Mean of 1, 1 and 4 pages is 2, of 10, 10 and 40 minutes 20: only bob's visit is above."""
    for name, user, minutes, pages in (("a", "ada", 10, 1), ("b", "ada", 10, 1), ("c", "bob", 40, 4)):
        visit(service, name, clock.at(minutes=-60), clock.at(minutes=minutes - 60), pages, user)
    assert service.get_user_analytics("ada").engagement_parts == {"C": 0.0, "D": 0.0, "R": 0.0, "F": 1 / 28}
    bob = service.get_user_analytics("bob")
    assert bob.engagement_parts == {"C": 1.0, "D": 1.0, "R": 1.0, "F": 1 / 28}
    assert bob.engagement_score == round(100 * (3 + 1 / 28) / 4, 2) == 75.89


def test_what_lies_28_days_back_no_longer_counts(service: UserActivityService, clock: StillClock) -> None:
    visit(service, "a", clock.at(minutes=-5), clock.now, 1)
    clock.go(days=27)
    assert service.get_user_analytics("ada").engagement_parts == {"C": 0.0, "D": 0.0, "R": 0.0, "F": 1 / 28}
    clock.go(days=2)
    figures = service.get_user_analytics("ada")
    assert (figures.engagement_score, figures.engagement_parts) == (0.0, {})
    assert figures.total_activities == 2


@pytest.mark.parametrize(
    ("zone", "now", "timestamps", "days"),
    [
        # The clocks went forward on 29 March: 22:30 UTC the day before was 23:30 of the 28th, not 0:30 of the 29th.
        ("Europe/Berlin", "2026-04-10T12:00Z", ["2026-03-28T22:30Z", "2026-03-28T08:00Z"], 1),
        ("Europe/Berlin", "2026-04-10T12:00Z", ["2026-04-09T22:30Z", "2026-04-09T08:00Z"], 2),
        # Back on 25 October: 22:30 UTC was already the 25th, by summer time.
        ("Europe/Berlin", "2026-11-10T12:00Z", ["2026-10-24T22:30Z", "2026-10-24T08:00Z"], 2),
        # A zone of half an hour: 18:30 UTC is midnight in Kolkata.
        ("Asia/Kolkata", "2026-06-10T12:00Z", ["2026-06-09T18:29Z", "2026-06-09T18:30Z"], 2),
        ("UTC", "2026-06-10T12:00Z", ["2026-06-09T18:29Z", "2026-06-09T18:30Z"], 1),
    ],
)
def test_active_days_are_local_days_of_their_own_time(
    service: UserActivityService, clock: StillClock, zone: str, now: str, timestamps: list[str], days: int
) -> None:
    clock.now = datetime.fromisoformat(now)
    use_zone(service, zone)
    for timestamp in timestamps:
        service.track_activity("ada", "x", timestamp=datetime.fromisoformat(timestamp))
    assert service.get_user_analytics("ada").engagement_parts["F"] == days / 28


# --- counts -----------------------------------------------------------------------------------------------------------


def test_pages_and_features_are_counted_most_first_and_ten_at_most(
    service: UserActivityService, clock: StillClock
) -> None:
    rows = [
        *({"activity_type": "page_view", "page_url": f"/{n:02}"} for n in range(12) for _ in range(n + 1)),
        *({"activity_type": "export", "metadata": {"feature": "csv"}} for _ in range(3)),
        *({"activity_type": "search"} for _ in range(2)),
        {"activity_type": "search", "metadata": {"feature": 7}},
        {"activity_type": "page_view", "metadata": {"feature": "tour"}},
    ]
    service.track_batch([{"user_id": "ada", **row} for row in rows])
    figures = service.get_user_analytics("ada")
    assert [(page.name, page.count) for page in figures.most_visited_pages] == [
        (f"/{n:02}", n + 1) for n in range(11, 1, -1)
    ]
    assert [(f.name, f.count) for f in figures.favorite_features] == [("csv", 3), ("search", 3), ("tour", 1)]


def test_the_mean_length_is_of_the_sessions_that_are_over(service: UserActivityService, clock: StillClock) -> None:
    service.track_activity("ada", "x")
    assert service.get_user_analytics("ada").avg_session_duration is None
    clock.go(minutes=10)
    service.track_activity("ada", "x")
    clock.go(hours=1)
    service.track_activity("ada", "x")
    assert service.get_user_analytics("ada").avg_session_duration == 600.0


def test_an_apps_figures_are_over_its_own_rows(service: UserActivityService) -> None:
    for app, page in (("shop", "/a"), ("shop", "/b"), ("wiki", "/a")):
        service.track_activity("ada", "page_view", page_url=page, app=app)
    shop, wiki = (service.get_user_analytics("ada", app=app) for app in ("shop", "wiki"))
    assert (shop.total_activities, shop.total_sessions) == (2, 1)
    assert (wiki.total_activities, wiki.total_sessions) == (1, 1)
    assert [page.name for page in wiki.most_visited_pages] == ["/a"]
    assert service.get_user_analytics("ada").total_sessions == 2
    assert service.get_user_analytics("ada", app="other").total_activities == 0


def test_the_stored_figures_follow_a_session_that_ended_by_itself(
    service: UserActivityService, clock: StillClock
) -> None:
    service.track_activity("ada", "page_view", page_url="/a")
    clock.go(minutes=1)
    service.track_activity("ada", "page_view", page_url="/b")
    clock.go(minutes=31)
    assert service.close_idle_sessions() == 1
    assert stored_metrics(service, "ada").avg_session_duration == 60.0


def test_figures_that_a_crash_left_unwritten_are_written_after_the_next_start(
    tmp_path: Path, clock: StillClock
) -> None:
    with UserActivityService(tmp_path / "left.db", clock=clock) as first:
        session_id = first.track_activity("ada", "page_view", page_url="/a").session_id
        clock.go(minutes=2)
        first.store.run(first.end_session_write(session_id, None))  # as the API does it; the job never came to it
        assert stored_metrics(first, "ada").avg_session_duration is None
    with UserActivityService(tmp_path / "left.db", clock=clock) as second:
        assert second.settle_metrics() == 1
        assert second.settle_metrics() == 0
        assert stored_metrics(second, "ada").avg_session_duration == 120.0


def test_the_stored_figures_are_those_of_the_last_end(service: UserActivityService, clock: StillClock) -> None:
    session_id = service.track_activity("ada", "page_view", page_url="/a").session_id
    clock.go(minutes=5)
    service.end_session(session_id)
    stored = stored_metrics(service, "ada")
    asked = service.get_user_analytics("ada")
    assert stored.avg_session_duration == asked.avg_session_duration == 300.0
    assert (stored.engagement_score, stored.engagement_parts) == (asked.engagement_score, asked.engagement_parts)
    assert stored.most_visited_pages == '{"/a":1}'
    assert stored.computed_at == clock.now_ms()


# --- today ------------------------------------------------------------------------------------------------------------


def test_today_is_the_local_day_so_far(service: UserActivityService, clock: StillClock, tmp_path: Path) -> None:
    """Noon UTC of the 10th is 17:30 in Kolkata, whose day began at 18:30 UTC of the 9th."""
    use_zone(service, "Asia/Kolkata")
    for timestamp in ("2026-06-09T18:29Z", "2026-06-09T18:30Z", "2026-06-10T11:00Z"):
        service.track_activity("ada", "x", timestamp=datetime.fromisoformat(timestamp))
    service.track_activity("bob", "x")
    with NotificationService(tmp_path / "n.db", clock=clock) as notifications:
        read = notifications.send_notification("ada", "One", "1")
        notifications.mark_notification_as_read(read.notification_id)
        notifications.send_notification("ada", "Two", "2")
        notifications.send_notification("ada", "Three", "3", channel="email")
        clock.go(days=1)
        tomorrow = DashboardMetrics(service, notifications).today()
        clock.go(days=-1)
        today = DashboardMetrics(service, notifications).today()
    assert (today.day, today.zone, today.active_users, today.activities) == ("2026-06-10", "Asia/Kolkata", 2, 3)
    assert (today.notifications, today.delivered, today.read) == (3, 2, 1)
    assert (tomorrow.day, tomorrow.active_users, tomorrow.activities, tomorrow.notifications) == ("2026-06-11", 0, 0, 0)


@pytest.mark.parametrize(
    ("now", "hours"),
    [("2026-03-29T12:00Z", 23), ("2026-10-25T12:00Z", 25), ("2026-06-10T12:00Z", 24)],
)
def test_a_day_of_a_change_of_clocks_is_as_long_as_it_is(
    service: UserActivityService, clock: StillClock, now: str, hours: int
) -> None:
    clock.now = datetime.fromisoformat(now)
    use_zone(service, "Europe/Berlin")
    _, start, end = service.analytics.today_bounds()
    assert (end - start) / 3_600_000 == hours


def test_what_comes_late_into_a_session_that_is_over_reaches_the_stored_figures(
    service: UserActivityService, clock: StillClock
) -> None:
    for minutes in (-90, -85, -30, -25):
        service.track_activity("ada", "x", timestamp=clock.at(minutes=minutes))
    clock.go(minutes=40)
    service.close_idle_sessions()
    stored = "SELECT total_sessions, avg_session_duration FROM user_analytics"
    assert service.store.read(lambda conn: conn.execute(stored).fetchone()) == (2, 300.0)
    service.track_activity("ada", "x", timestamp=clock.at(minutes=-100))  # unites them
    service.settle_metrics()
    assert service.store.read(lambda conn: conn.execute(stored).fetchone()) == (1, 3900.0)
