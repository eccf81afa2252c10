"""Another zone's days are what they would be if it were the workspace's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import Filters, UserActivityService, ValidationError
from flashflow.backend.analytics.service import Analytics
from flashflow.backend.store.analytics import other_timezone
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock
from tests.support.naive_metrics import Naive
from tests.support.random_histories import NOW, ZONES, hold_to


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=StillClock(NOW), zone=ZoneInfo("UTC")) as service:
        yield service


DONE = st.tuples(
    st.sampled_from(["ada", "bob", "cy"]),
    st.sampled_from(["search", "buy"]),
    st.sampled_from(["shop", "shop", "blog"]),
    st.integers(0, 5 * 24 * 4) | st.integers(0, 14 * 24 * 4),
    st.sampled_from([0, -1, 1, 421_000]),
)
"""Who did what where, so many quarters of an hour before NOW's last one, and how many milliseconds beside it."""
MADE = st.tuples(st.lists(DONE, min_size=1, max_size=80), st.lists(st.tuples(DONE, st.integers(2, 80)), max_size=2))
"""What was done, and what was done again and again, 13 minutes apart."""


def rows_of(made: list[Any], busy: list[tuple[Any, int]]) -> list[dict[str, Any]]:
    again = [(*one[:4], one[4] - 780_000 * n) for one, times in busy for n in range(times)]
    return [
        {
            "user_id": user, "activity_type": kind, "app": app, "page_url": f"/{kind}", "metadata": {"feature": app},
            "timestamp": NOW - timedelta(minutes=5 + 15 * quarters, milliseconds=-beside),
        }
        for user, kind, app, quarters, beside in (*made, *again)
    ]  # fmt: skip


def test_a_range_with_more_raw_rows_than_the_bound_is_refused(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three activities in three sessions are within a bound of six; four in four are beyond it. A funnel has none."""
    monkeypatch.setattr(other_timezone, "MOST_ROWS", 6)
    ask, elsewhere = service.analytics, Filters(zone=ZoneInfo("Asia/Kathmandu"))
    queries = (ask.overview, ask.heatmap, ask.trend, ask.user_list, ask.retention, lambda of: ask.top(of, "pages"))
    for number in range(3):
        service.track_activity("ada", "x", page_url="/a", timestamp=NOW - timedelta(days=number, hours=2))
    for query in queries:
        query(elsewhere)
    service.track_activity("ada", "x", page_url="/a", timestamp=NOW - timedelta(days=3, hours=2))
    for query in queries:
        with pytest.raises(ValidationError, match=r"tz: .* the range has more than 6 activities and sessions"):
            query(elsewhere)
    assert ask.funnel(elsewhere, ["x", "x"]).steps[0].users == 1
    assert service.analytics.trend(Filters(first=NOW.date(), zone=elsewhere.zone), "none").points[0].activities == 1


def test_in_another_zone_somebody_who_came_long_before_keeps_their_first_day(service: UserActivityService) -> None:
    for timestamp in ("2026-08-01T23:30", "2026-11-02T10:00"):
        service.track_activity("ada", "x", timestamp=datetime.fromisoformat(timestamp).replace(tzinfo=UTC))
    for app in (None, "local"):
        (row,) = service.analytics.user_list(Filters(zone=ZoneInfo("Asia/Kathmandu"), app=app)).users
        assert (row.first_day, row.last_day) == (date(2026, 8, 2), date(2026, 11, 2))


PERIODS = st.tuples(st.integers(-1, 14), st.integers(0, 14))
"""How many days ago a period ended, and how many days it has before that."""


@settings(max_examples=examples(15), deadline=None)
@given(made=MADE, home=st.sampled_from(ZONES), zone=st.sampled_from(ZONES))
def test_another_zones_days_are_counted_as_if_they_were_the_workspaces(
    tmp_path_factory: pytest.TempPathFactory, made: Any, home: str, zone: str
) -> None:
    path = tmp_path_factory.mktemp("figures") / "a.db"
    with UserActivityService(path, clock=StillClock(NOW), zone=ZoneInfo(home)) as service:
        service.track_batch(rows_of(*made))
        naive = Naive(service.list_activities(limit=10_000).activities, ZoneInfo(zone))
        hold_to(service, naive, Filters(zone=ZoneInfo(zone)))
        for user in service.analytics.user_list(Filters(zone=ZoneInfo(zone)), limit=100).users:
            assert user.engagement_score == service.get_user_analytics(user.user_id).engagement_score
        assert service.rollups.verify() == ()


@settings(max_examples=examples(20), deadline=None)
@given(
    made=MADE,
    home=st.sampled_from(ZONES),
    zone=st.sampled_from([*ZONES, "Pacific/Auckland"]),
    periods=st.lists(PERIODS, min_size=1, max_size=2),
)
def test_every_answer_is_the_one_that_the_zones_own_workspace_gives(
    tmp_path_factory: pytest.TempPathFactory, made: Any, home: str, zone: str, periods: list[tuple[int, int]]
) -> None:
    today = NOW.astimezone(ZoneInfo(zone)).date()
    days = [(today - timedelta(days=ended + more), today - timedelta(days=ended)) for ended, more in periods]
    for here, there in asked_in_both(tmp_path_factory.mktemp("figures"), (home, zone), rows_of(*made), NOW, days):
        assert here == there


EVERYTHING = (("search", "shop"), ("buy", "shop"), ("search", "blog"))
MIDNIGHTS = (
    # In Kolkata it is 01:00; a week ago by then somebody had been there at 00:30 and before and later.
    ("UTC", "Asia/Kolkata", "2026-11-03T19:30", ["2026-10-27T18:00", "2026-10-27T19:00", "2026-10-27T23:00"], 0, 6),
    # A day ago by then somebody had been there, but in another app, or for something else.
    ("UTC", "Asia/Kolkata", "2026-11-03T19:30",
     ["2026-11-02T18:00 search shop", "2026-11-02T19:00 search blog", "2026-11-02T23:00 search shop"], 0, 0),
    ("UTC", "Asia/Kolkata", "2026-11-03T19:30",
     ["2026-11-02T18:00 search shop", "2026-11-02T19:00 buy shop", "2026-11-02T23:00 search shop"], 0, 0),
    # Three were done before the end of the period asked for, two after it.
    ("UTC", "Asia/Kolkata", "2026-11-03T15:20", [f"2026-11-01T{time}" for time in ("17:58", "17:59", "18:29")]
     + [f"2026-11-01T{time}" for time in ("18:30", "18:31")], 2, 3),
    # A day of 25 hours, in which it is midnight twice in Brisbane, and somebody was there all the time.
    ("Australia/Adelaide", "Australia/Brisbane", "2026-04-08T09:00",
     ["2026-04-04T13:40", "2026-04-05T03:00", "2026-04-05T14:20"], 1, 5),
    # The first step at the very midnight a period begins at, and another's at the one where it is over.
    ("UTC", "Asia/Tokyo", "2026-11-03T15:20", ["2026-10-31T15:00", "2026-11-01T15:00", "2026-11-01T15:01"], 3, 0),
    ("UTC", "Asia/Tokyo", "2026-11-03T15:20", ["2026-11-01T15:00", "2026-11-01T15:01"], 3, 0),
    # Three days beside those of the week before: what lies between them counts for neither.
    ("UTC", "Asia/Tokyo", "2026-11-03T15:20", [f"2026-10-{day}T05:00" for day in range(20, 32)], 1, 2),
)  # fmt: skip


@pytest.mark.parametrize(("home", "zone", "now", "timestamps", "ended", "more"), MIDNIGHTS)
def test_what_lies_at_a_midnight_counts_on_its_side_of_it(
    tmp_path: Path, home: str, zone: str, now: str, timestamps: list[str], ended: int, more: int
) -> None:
    clock = datetime.fromisoformat(now).replace(tzinfo=UTC)
    rows = [
        {"user_id": "ada", "activity_type": kind, "app": app, "timestamp": timestamp + timedelta(milliseconds=after)}
        for text, *what in map(str.split, timestamps)
        for timestamp in [datetime.fromisoformat(text).replace(tzinfo=UTC)]
        for after, (kind, app) in enumerate([what] if what else EVERYTHING)
    ]
    last = clock.astimezone(ZoneInfo(zone)).date() - timedelta(days=ended)
    for here, there in asked_in_both(tmp_path, (home, zone), rows, clock, [(last - timedelta(days=more), last)]):
        assert here == there


def asked_in_both(
    folder: Path, zones: tuple[str, str], rows: list[dict[str, Any]], now: datetime, periods: list[tuple[date, date]]
) -> Iterator[tuple[list[Any], list[Any]]]:
    """The answers by the second zone's days, of a workspace in the first one and of one in the second."""
    home, zone = map(ZoneInfo, zones)
    with (
        UserActivityService(folder / "here.db", clock=StillClock(now), zone=home) as here,
        UserActivityService(folder / "there.db", clock=StillClock(now), zone=zone) as there,
    ):
        for service in (here, there):
            service.track_batch(rows)
            service.close_idle_sessions()
        for first, last in periods:
            for app in (None, "shop", "desk"):
                asked = Filters(first=first, last=last, app=app)
                elsewhere = msgspec.structs.replace(asked, zone=zone)
                yield answers(here.analytics, elsewhere), answers(there.analytics, asked)


def answers(ask: Analytics, asked: Filters) -> list[Any]:
    found: list[Any] = []
    for kind in (None, "search"):
        of = msgspec.structs.replace(asked, activity_type=kind)
        for compare in ("previous", "weekday", "none"):
            found += [ask.overview(of, compare), ask.trend(of, compare), ask.trend(of, compare, "hour")]
        found += [ask.heatmap(of), *(ask.top(of, names) for names in ("pages", "features", "referrers", "apps"))]
    found += [ask.top(asked, "types"), ask.funnel(asked, ["search", "buy", "search"], window_days=3)]
    found += [ask.retention(asked, 9, mode) for mode in ("on", "on_or_after")]
    users = ask.user_list(asked, limit=100).users
    return [*found, {user.user_id: (user.first_day, user.last_day, user.activities) for user in users}]
