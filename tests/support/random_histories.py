"""Random histories, and every question over them held to the naive answers."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from flashflow.backend import Filters, UserActivityService
from tests.support.naive_metrics import Naive, features

ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/Sao_Paulo", "Asia/Kathmandu")
TYPES = ("page_view", "search", "buy")
NOW = datetime(
    2026, 11, 3, 15, 20, tzinfo=UTC
)  # the clocks went back in Berlin on 25 October, in New York on 1 November

ACTIVITY = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["ada", "bob", "cy", "\u202eeve", "o'hara; --", "🦊"]),
        "activity_type": st.sampled_from(TYPES),
        "app": st.sampled_from(["shop", "blog"]),
        "minutes": st.one_of(st.integers(0, 60 * 24 * 12), st.integers(60 * 24 * 8, 60 * 24 * 10)),
        "page_url": st.sampled_from([None, "/a", "/b"]),
        "referrer": st.sampled_from([None, "https://One.example/x", "https://two.example"]),
        "metadata": st.sampled_from([None, {"feature": "csv"}, {"feature": 3}]),
        "activity_id": st.one_of(st.none(), st.integers(0, 30).map(str)),
    }
)


def row(made: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in made.items() if value is not None and name != "minutes"}
    return kept | {"timestamp": NOW - timedelta(minutes=made["minutes"])}


def hold_to(service: UserActivityService, naive: Naive, base: Filters) -> None:
    """Every question over several periods, apps and types gives what ``naive`` gives."""
    today = NOW.astimezone(naive.zone).date()
    analytics = service.analytics
    sessions = [s for user in {a.user_id for a in naive.activities} for s in service.get_user_sessions(user).sessions]
    for first, last in ((today - timedelta(days=6), today), (today - timedelta(days=11), today - timedelta(days=3))):
        for app in (None, "shop", "nobody"):
            asked = msgspec.structs.replace(base, first=first, last=last, app=app)
            overview = analytics.overview(asked, "none").figures
            inside = naive.within(first, last, app=app)
            assert overview["activities"].value == len(inside)
            assert overview["active_users"].value == naive.active_users(first, last, app=app)
            assert overview["new_users"].value == naive.new_users(first, last, app)
            begun = [
                s
                for s in sessions
                if first <= s.start_time.astimezone(naive.zone).date() <= last and app in {None, s.app}
            ]
            assert overview["sessions"].value == len(begun)
            if begun:
                assert overview["avg_session_duration"].value == pytest.approx(
                    sum(s.duration for s in begun) / len(begun)
                )
                assert overview["pages_per_session"].value == pytest.approx(
                    sum(s.pages_visited for s in begun) / len(begun)
                )
            for days, name in ((1, "dau"), (7, "wau"), (28, "mau")):
                assert overview[name].value == naive.active_users(last - timedelta(days=days - 1), last, app=app)
            trend = analytics.trend(asked, "none").points
            assert [p.activities for p in trend] == [len(naive.within(d, d, app=app)) for d in span(first, last)]
            assert [p.active_users for p in trend] == [naive.active_users(d, d, app=app) for d in span(first, last)]
            retention = analytics.retention(asked, 5)
            for cohort in retention.cohorts:
                assert cohort.size == naive.retained(cohort.day, 0, or_after=False, app=app)
                assert list(cohort.users) == [
                    naive.retained(cohort.day, n, or_after=False, app=app)
                    if cohort.day + timedelta(days=n) < today
                    else None
                    for n in range(6)
                ]
            after = analytics.retention(asked, 5, "on_or_after")
            for cohort in after.cohorts:
                assert [u for u in cohort.users if u is not None] == [
                    naive.retained(cohort.day, n, or_after=True, app=app)
                    for n in range(6)
                    if cohort.day + timedelta(days=n) < today
                ]
        asked = msgspec.structs.replace(base, first=first, last=last)
        for kind, of in (
            ("pages", lambda a: a.page_url),
            ("types", lambda a: a.activity_type),
            ("apps", lambda a: a.app),
            ("features", features),
            ("referrers", lambda a: a.referrer and a.referrer.split("/")[2].lower()),
        ):
            for scope in ({}, {"app": "shop"}, {"activity_type": "buy"}, {"app": "blog", "activity_type": "page_view"}):
                found = analytics.top(msgspec.structs.replace(asked, **scope), kind, 100)
                if kind == "types":
                    scope.pop("activity_type", None)
                assert sorted((n.name, n.count) for n in found.names) == sorted(naive.names(first, last, of, **scope))
        assert [list(hours) for hours in analytics.heatmap(asked).hours] == naive.heat(first, last)
        for kind in TYPES:
            typed = msgspec.structs.replace(asked, activity_type=kind)
            overview = analytics.overview(typed, "none").figures
            assert overview["activities"].value == len(naive.within(first, last, activity_type=kind))
            assert overview["active_users"].value == naive.active_users(first, last, activity_type=kind)
            in_app = analytics.overview(msgspec.structs.replace(typed, app="shop"), "none").figures["active_users"]
            assert in_app.value == naive.active_users(first, last, activity_type=kind, app="shop")
        for steps in (["page_view", "search"], ["page_view", "buy", "page_view"], ["search", "search"]):
            found_steps = analytics.funnel(asked, steps, window_days=2).steps
            found = [(s.users, s.median_seconds) for s in found_steps]
            assert found == naive.funnel(steps, asked, timedelta(days=2))


def span(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
