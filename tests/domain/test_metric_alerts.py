"""Metric alerts: which times are compared, when they are looked at, and when they fire; in the workspace's zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flashflow.backend import UserActivityService
from flashflow.backend.core.clock import HOUR_MS, to_datetime, to_ms
from flashflow.backend.domain.metric_alerts import check_times, is_breached, is_due, read, reading, spans
from flashflow.backend.domain.rule_firing import may_notify
from flashflow.backend.rules.dry_run import try_alert
from flashflow.backend.rules.metrics import QUERIES, AnalyticsMetrics
from flashflow.backend.schemas.requests import build
from flashflow.backend.schemas.rules import AlertIn
from flashflow.backend.store.activity.rule_queries import BEGUN
from tests.support.fixed_clock import StillClock

BERLIN = ZoneInfo("Europe/Berlin")
KOLKATA = ZoneInfo("Asia/Kolkata")


def alert(**fields: Any) -> AlertIn:
    return build(AlertIn, **{"metric": "active_users", "change_percent": -50} | fields)


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC))


def local(ms: int, zone: ZoneInfo = BERLIN) -> str:
    return to_datetime(ms).astimezone(zone).strftime("%m-%d %H:%M")


def test_today_so_far_is_compared_with_the_same_hours_of_the_same_weekday() -> None:
    today, other = spans(alert(), at("2026-06-10 14:30"), BERLIN)
    assert [local(ms) for ms in (*today, *other)] == ["06-10 00:00", "06-10 14:30", "06-03 00:00", "06-03 14:30"]
    _, other = spans(alert(compare="previous_day"), at("2026-06-10 14:30"), BERLIN)
    assert [local(ms) for ms in other] == ["06-09 00:00", "06-09 14:30"]


def test_a_day_that_changes_to_summer_time_is_compared_by_the_clock_on_the_wall() -> None:
    today, other = spans(alert(), at("2026-03-29 14:00"), BERLIN)
    assert [span.end_ms - span.start_ms for span in (today, other)] == [13 * HOUR_MS, 14 * HOUR_MS]
    today, other = spans(alert(), at("2026-10-25 14:00"), BERLIN)
    assert [span.end_ms - span.start_ms for span in (today, other)] == [15 * HOUR_MS, 14 * HOUR_MS]
    today, other = spans(alert(), at("2026-06-10 00:10", KOLKATA), KOLKATA)
    assert [local(ms, KOLKATA) for ms in (*today, *other)] == [
        "06-10 00:00", "06-10 00:10", "06-03 00:00", "06-03 00:10",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "before", "percent", "fires"),
    [
        (50, 100, -50, True),
        (51, 100, -50, False),
        (0, 100, -100, True),
        (0, 9, -50, False),
        (0, 10, -50, True),
        (200, 100, 100, True),
        (199, 100, 100, False),
        (50, 100, 100, False),
        (5, 0, 100, False),
        (0, 0, -50, False),
    ],
)
def test_it_fires_from_the_change_it_waits_for_and_never_over_tiny_numbers(
    now: int, before: int, percent: float, fires: bool
) -> None:
    assert is_breached(alert(change_percent=percent), reading(now, before)) is fires


def test_from_nothing_to_something_is_no_number() -> None:
    assert reading(5, 0).change is None
    assert reading(0, 0).change == 0
    assert reading(3, 4).change == -25


def test_an_alert_is_looked_at_once_at_its_time_even_if_that_was_slept_through() -> None:
    six = alert(check_at="18:00")
    yesterday = at("2026-06-09 18:00")
    assert not is_due(six, yesterday, at("2026-06-10 17:59"), BERLIN)
    assert is_due(six, yesterday, at("2026-06-10 18:00"), BERLIN)
    assert is_due(six, yesterday, at("2026-06-10 23:59"), BERLIN)
    assert not is_due(six, at("2026-06-10 18:00"), at("2026-06-10 23:59"), BERLIN)
    assert not is_due(six, yesterday, at("2026-06-11 09:00"), BERLIN), "of a day that is over nothing is told"


def test_hourly_is_every_full_hour_on_the_wall_in_half_hour_zones_too() -> None:
    hourly, noon = alert(), at("2026-06-10 12:00", KOLKATA)
    assert not is_due(hourly, noon, noon + HOUR_MS - 1, KOLKATA)
    assert is_due(hourly, noon, noon + HOUR_MS, KOLKATA)
    assert is_due(hourly, noon - 1, noon, KOLKATA)


def test_a_clock_that_was_set_back_does_not_silence_an_alert() -> None:
    assert is_due(alert(check_at="18:00"), at("2027-01-01 00:00"), at("2026-06-10 12:00"), BERLIN)


def test_it_tells_once_a_day_and_once_in_its_cool_down() -> None:
    fired = at("2026-06-10 09:00")
    assert may_notify(None, 60, fired, BERLIN)
    assert not may_notify(fired, 0, at("2026-06-10 23:59"), BERLIN)
    assert may_notify(fired, 0, at("2026-06-11 00:00"), BERLIN)
    assert not may_notify(fired, 3 * 24 * 60, at("2026-06-13 08:59"), BERLIN)
    assert may_notify(fired, 3 * 24 * 60, at("2026-06-13 09:00"), BERLIN)


def test_a_week_has_its_moments_whatever_the_clocks_do() -> None:
    now = at("2026-03-30 12:00")
    week = 7 * 24 * HOUR_MS
    assert [local(ms) for ms in check_times(alert(check_at="02:30"), now - week, now, BERLIN)] == [
        "03-24 02:30", "03-25 02:30", "03-26 02:30", "03-27 02:30", "03-28 02:30", "03-29 03:00", "03-30 02:30",
    ]  # fmt: skip
    hours = check_times(alert(), now - week, now, BERLIN)
    assert len(hours) == 169
    assert {b - a for a, b in pairwise(hours)} == {HOUR_MS}


# --- the figures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=StillClock()) as made:
        yield made


def test_figures_are_counted_over_their_span_and_app(service: UserActivityService) -> None:
    _, start, _ = service.analytics.today_bounds()
    end = start + 4 * HOUR_MS
    rows = [("ada", -30, "shop"), ("ada", 1, "shop"), ("bob", 1, "shop"), ("bob", 2, "blog"), ("cem", 4, "blog")]
    later = [("ada", 4, "shop"), ("dan", -9, "shop"), ("dan", 3, "shop"), ("dan", 3, "blog")]
    metrics = AnalyticsMetrics(service.analytics)
    for some in (rows, later):
        for user, hours, app in some:
            service.track_activity(user, "x", timestamp=to_datetime(start + hours * HOUR_MS), app=app)
        service.settle_metrics()  # some of it is in the figures, and some is not yet

    def values(app: str | None) -> dict[str, int]:
        return {name: metrics.value(name, start, end, app) for name in QUERIES}

    assert values(None) == {"activities": 5, "active_users": 3, "sessions": 5, "new_users": 1}
    assert values("shop") == {"activities": 3, "active_users": 3, "sessions": 3, "new_users": 1}
    assert values("blog") == {"activities": 2, "active_users": 2, "sessions": 2, "new_users": 2}
    assert values("none") == {"activities": 0, "active_users": 0, "sessions": 0, "new_users": 0}


def test_sessions_are_found_by_an_index_over_their_start(service: UserActivityService) -> None:
    values = {"start": 1, "end": 2, "app": "a"}
    plan = service.store.read(lambda conn: conn.execute(f"EXPLAIN QUERY PLAN {BEGUN.compiled.sql}", values).fetchall())
    assert [row[3] for row in plan] == ["SEARCH t1 USING INDEX user_sessions_start (start_time>? AND start_time<?)"]


def test_a_dry_run_tells_the_days_on_which_it_would_have_fired(service: UserActivityService) -> None:
    zone = service.analytics.zone
    now = service.clock.now_ms()
    noon_of = {day: to_datetime(now) - timedelta(days=day) for day in range(15)}
    for day, timestamp in noon_of.items():
        users = 4 if day in {2, 5} else 12
        rows = [
            {"user_id": f"u{n}", "activity_type": "x", "timestamp": timestamp - timedelta(hours=1)}
            for n in range(users)
        ]
        assert service.track_batch(rows).accepted == users
    check = to_datetime(now - HOUR_MS // 2).astimezone(zone).strftime("%H:%M")
    found = try_alert(alert(check_at=check), 60, now, None, AnalyticsMetrics(service.analytics), zone)
    assert (found.would_have_fired, found.judged, found.days, found.complete) == (2, 7, 7, True)
    assert [(one.now, one.before) for one in found.examples] == [(4, 12), (4, 12)]  # type: ignore[union-attr]
    assert found.examples[0].at == to_datetime(now - HOUR_MS // 2) - timedelta(days=2)
    hourly = try_alert(alert(), 60, now, None, AnalyticsMetrics(service.analytics), zone)
    assert hourly.judged in {168, 169}
    seen = read(alert(), AnalyticsMetrics(service.analytics), now - 2 * 24 * HOUR_MS, zone, None)
    assert (seen.now, seen.before) == (4, 12)
