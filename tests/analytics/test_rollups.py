"""The figures are those of the bare rows, whatever came in which order: each question beside a naive answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import Event, Filters, UserActivityService, ValidationError
from flashflow.backend.store.analytics import cohorts_and_funnels, heavy_users, key_activities, verify
from flashflow.backend.store.analytics.key_activities import list_types
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.privacy import retention as pruning
from flashflow.backend.store.privacy.rollup_erasure import subtract_key, subtract_sessions, subtract_user
from flashflow.backend.store.rollups import aggregate, dimensions, four_week_blocks
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock
from tests.support.naive_metrics import Naive, features
from tests.support.query_plans import with_table
from tests.support.random_histories import ACTIVITY, NOW, TYPES, ZONES, hold_to, row
from tests.support.time_zone import use_zone

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("track"), st.lists(ACTIVITY, min_size=1, max_size=25)),
        st.tuples(st.just("fold"), st.just([])),
        st.tuples(st.just("close"), st.just([])),
        st.tuples(st.just("zone"), st.sampled_from(ZONES)),
        st.tuples(st.just("key"), st.tuples(st.sampled_from(TYPES), st.booleans())),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=StillClock(NOW), zone=ZoneInfo("UTC")) as service:
        yield service


@settings(max_examples=examples(60), deadline=None)
@given(
    steps=STEPS,
    zone=st.sampled_from(ZONES),
    at_once=st.sampled_from([1, 9, 250_000]),
    few_days=st.sampled_from([0, 32]),
    heavy_at=st.sampled_from([3, 10_000]),
    worth=st.sampled_from([1, 56]),
    look=st.sampled_from([0, 10**9]),
)
def test_the_figures_are_those_of_the_rows_in_whatever_order_they_came(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], zone: str, at_once: int, few_days: int,
    heavy_at: int, worth: int, look: float,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("figures") / "a.db"
    with (
        pytest.MonkeyPatch.context() as patch,
        UserActivityService(path, clock=StillClock(NOW), zone=ZoneInfo(zone)) as service,
    ):
        patch.setattr(verify, "AT_ONCE", at_once)
        patch.setattr(cohorts_and_funnels, "FEW_DAYS", few_days)
        patch.setattr(cohorts_and_funnels, "LOOK", look)
        patch.setattr(heavy_users, "HEAVY_AT", heavy_at)
        patch.setattr(four_week_blocks, "WORTH", worth)
        for what, given_ in steps:
            if what == "track":
                service.track_batch([row(made) for made in given_])
            elif what == "fold":
                service.rollups.aggregate_pending()
            elif what == "close":
                service.close_idle_sessions()
            elif what == "zone":
                use_zone(service, given_)
            else:
                service.rollups.mark_key_activity(*given_)
        assert service.rollups.verify() == ()
        naive = Naive(service.list_activities(limit=10_000).activities, service.analytics.zone)
        hold_to(service, naive, Filters())
        for user in {a.user_id for a in naive.activities}:
            his = [a for a in naive.activities if a.user_id == user]
            for app in (None, "shop"):
                figures = service.get_user_analytics(user, app=app)
                mine = [a for a in his if app in (None, a.app)]
                assert counted(figures.most_visited_pages) == Counter(a.page_url for a in mine if a.page_url)
                assert counted(figures.favorite_features) == Counter(f for a in mine if (f := features(a)))


def counted(names: Sequence[Any]) -> dict[str, int]:
    return {one.name: one.count for one in names}


# --- comparing --------------------------------------------------------------------------------------------------------


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("few_days", "look"), [(0, 0), (32, 10**9)])
def test_a_period_still_running_is_compared_with_as_much_of_the_one_before(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch, few_days: int, look: float
) -> None:
    """At 15:20 today, only what had come by 15:20 counts of the last day before."""
    monkeypatch.setattr(cohorts_and_funnels, "FEW_DAYS", few_days)
    monkeypatch.setattr(cohorts_and_funnels, "LOOK", look)
    for timestamp in (
        "2026-11-03T09:00",
        "2026-11-03T15:10",
        "2026-11-02T15:19",
        "2026-11-02T15:21",
        "2026-11-02T23:00",
    ):
        service.track_activity("ada", "x", timestamp=at(timestamp))
    today = Filters(first=NOW.date(), last=NOW.date())
    figure = service.analytics.overview(today).figures["activities"]
    assert (figure.value, figure.previous, figure.change) == (2, 1, 1.0)
    service.track_activity("bob", "x", timestamp=at("2026-11-02T15:30"))
    for kind in (None, "x"):
        typed = msgspec.structs.replace(today, activity_type=kind)
        assert service.analytics.overview(typed).figures["active_users"].previous == 1
    assert service.analytics.overview(today).figures["new_users"].previous == 1


def test_by_weekday_each_day_is_compared_with_its_own(service: UserActivityService) -> None:
    service.track_activity("ada", "x", timestamp=at("2026-10-27T10:00"))
    service.track_activity("ada", "x", timestamp=at("2026-11-02T10:00"))
    today = Filters(first=NOW.date(), last=NOW.date())
    overview = service.analytics.overview(today, "weekday")
    assert overview.previous is not None
    assert overview.previous.last == date(2026, 10, 27)
    assert overview.figures["activities"].previous == 1


def test_nothing_before_is_new_and_nothing_at_all_is_no_change(service: UserActivityService) -> None:
    empty = service.analytics.overview(Filters()).figures["activities"]
    assert (empty.value, empty.previous, empty.change) == (0, 0, 0.0)
    service.track_activity("ada", "x")
    assert service.analytics.overview(Filters()).figures["activities"].change == "new"


def test_a_day_that_is_not_over_is_empty_and_leaves_the_average(service: UserActivityService) -> None:
    """Ada was new on the 1st and came on the 2nd; Bob was new on the 2nd, whose next day is today."""
    for user, timestamp in (("ada", "2026-11-01T10:00"), ("ada", "2026-11-02T10:00"), ("bob", "2026-11-02T11:00")):
        service.track_activity(user, "x", timestamp=at(timestamp))
    retention = service.analytics.retention(Filters(), 2)
    assert [(c.day.day, c.size, c.users) for c in retention.cohorts] == [(1, 1, (1, 1, None)), (2, 1, (1, None, None))]
    assert retention.average == (1.0, 1.0, None)


@pytest.mark.parametrize("look", [0, 10**9])
@pytest.mark.parametrize("apps", [("shop", "shop"), ("shop", "blog")])
def test_each_step_of_a_funnel_is_taken_as_early_as_it_was(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch, apps: tuple[str, str], look: float
) -> None:
    """Whichever of several weeks, days and apps it was done in, and whatever else was done in the weeks before."""
    monkeypatch.setattr(cohorts_and_funnels, "LOOK", look)
    early, late = apps
    for timestamp, kind, app in (
        ("2026-09-01T10:00", "sign_in", early),
        ("2026-09-12T10:00", "view", late),
        ("2026-09-12T11:00", "view", early),
        ("2026-09-30T10:00", "view", early),
        ("2026-10-11T09:00", "buy", late),
        ("2026-10-11T12:00", "buy", early),
        ("2026-10-28T12:00", "buy", early),
    ):
        service.track_activity("ada", kind, app=app, timestamp=at(timestamp))
    quarter = Filters(first=date(2026, 8, 10), last=NOW.date())
    steps = service.analytics.funnel(quarter, ["view", "buy"], window_days=60).steps
    assert [(s.users, s.median_seconds) for s in steps] == [(1, None), (1, (29 * 24 - 1) * 3600)]
    steps = service.analytics.funnel(quarter, ["sign_in", "buy"], window_days=60).steps
    assert [(s.users, s.median_seconds) for s in steps] == [(1, None), (1, (40 * 24 - 1) * 3600)]


def test_a_funnel_names_who_dropped_out_and_keeps_to_its_window(service: UserActivityService) -> None:
    for user, kind, timestamp in (
        ("ada", "view", "2026-11-01T10:00"), ("ada", "other", "2026-11-01T10:01"), ("ada", "buy", "2026-11-01T10:02"),
        ("bob", "buy", "2026-11-01T09:00"), ("bob", "view", "2026-11-01T10:00"),
        ("cy", "view", "2026-10-30T10:00"), ("cy", "buy", "2026-11-01T10:01"),
    ):  # fmt: skip
        service.track_activity(user, kind, timestamp=at(timestamp))
    funnel = service.analytics.funnel(Filters(), ["view", "buy"], window_days=2, dropped_at=2)
    assert [(s.users, s.dropped) for s in funnel.steps] == [(3, 0), (1, 2)]
    assert funnel.steps[1].median_seconds == 120
    assert set(funnel.dropped_users) == {"bob", "cy"}


# --- the guard over names, and the check ------------------------------------------------------------------------------


def test_beyond_so_many_names_the_rest_counts_as_all_others(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dimensions.MOST, "page", 3)
    told: list[str] = []
    service.bus.subscribe(lambda events: told.extend(e.id for e in events if e.kind == "dimension.full"))
    service.track_batch([{"user_id": "ada", "activity_type": "x", "page_url": f"/{n}"} for n in range(8)])
    pages = service.analytics.top(Filters(), "pages")
    assert {(n.name, n.count, n.is_other) for n in pages.names} == {
        ("/0", 1, False), ("/1", 1, False), ("/2", 1, False), ("", 5, True),
    }  # fmt: skip
    assert service.analytics.overview(Filters()).full == ("page",)
    assert told == ["page"]
    assert service.rollups.verify() == ()


def test_a_type_without_figures_of_its_own_is_not_answered_with_none(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dimensions.MOST, "type", 2)
    monkeypatch.setitem(dimensions.MOST, "app", 1)
    service.track_batch([{"user_id": "ada", "activity_type": f"t{n}", "app": "shop"} for n in range(4)])
    service.track_activity("ada", "t0", app="blog")
    analytics, narrowed = service.analytics, Filters(activity_type="t3")
    for question in (
        lambda: analytics.overview(narrowed),
        lambda: analytics.trend(narrowed),
        lambda: analytics.top(narrowed, "pages"),
        lambda: analytics.heatmap(narrowed),
    ):
        with pytest.raises(ValidationError, match="activity_type: 't3' has no counts of its own"):
            question()
    with pytest.raises(ValidationError, match="steps: 't3'"):
        analytics.funnel(Filters(), ["t0", "t3"])
    with pytest.raises(ValidationError, match="app: 'blog'"):
        analytics.user_list(Filters(app="blog"))
    assert analytics.overview(Filters(activity_type="t1")).figures["activities"].value == 1


def test_names_as_frequent_as_each_other_stand_in_order(service: UserActivityService) -> None:
    for page in ("/c", "/a", "/d", "/b", "/d"):
        service.track_activity("ada", "look", page_url=page)
        service.rollups.aggregate_pending()
    for limit in range(1, 6):
        found = [name.name for name in service.analytics.top(Filters(), "pages", limit).names]
        assert found == ["/d", "/a", "/b", "/c"][:limit]
    assert service.analytics.top(Filters(first=date(2020, 1, 1), last=date(2020, 1, 2)), "pages").names == ()


def test_whoever_shows_figures_hears_of_a_key_activity_once_it_counts(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Event, tuple[str, ...]]] = []

    def hear(events: tuple[Event, ...]) -> None:
        keys = tuple(kind.name for kind in service.store.read(list_types) if kind.key)
        told.extend((event, keys) for event in events)

    service.track_activity("ada", "x")
    service.rollups.aggregate_pending()
    service.bus.subscribe(hear)
    for name, is_key in (("x", True), ("x", True), ("x", False), ("x", False), ("new", False)):
        service.rollups.mark_key_activity(name, is_key)
    monkeypatch.setitem(dimensions.MOST, "type", 2)
    with pytest.raises(ValidationError):
        service.rollups.mark_key_activity("one too many")
    service.close()
    changed = Event("key_activities")
    # What changed nothing is not told; a type that nobody knew is in the list now.
    assert told == [(changed, ("x",)), (changed, ()), (changed, ())]


def test_counting_sessions_anew_goes_on_where_a_process_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_activities, "AT_ONCE", 2)
    path, kept = tmp_path / "a.db", {"clock": StillClock(NOW), "zone": ZoneInfo("UTC")}
    with UserActivityService(path, **kept) as service:
        for number in range(7):
            service.track_activity("ada", "buy", session_id=f"s{number}", timestamp=at(f"2026-11-02T0{number}:00"))
        service.close_idle_sessions()
        service.store.run(service.rollups.mark_key_activity_write("buy", True))
        assert service.rollups.recount(seconds=0)
        assert service.analytics.overview(Filters()).figures["engagement_rate"].value == 2 / 7
        assert service.rollups.verify() == ()
    with UserActivityService(path, **kept) as service:
        assert not service.rollups.recount()
        assert service.analytics.overview(Filters()).figures["engagement_rate"].value == 1
        assert service.rollups.verify() == ()


def test_sessions_of_which_activities_were_pruned_keep_their_key_activities(service: UserActivityService) -> None:
    service.rollups.mark_key_activity("buy")
    for hour, kind in ((8, "buy"), (9, "look")):
        service.track_activity("ada", kind, session_id="s", timestamp=at(f"2026-11-02T0{hour}:00"))
    before = round(at("2026-11-02T08:30").timestamp() * 1000)
    slice_ = pruning.Slice(before, 100)
    service.store.run(
        Write(lambda tx, items: [pruning.prune_activities(tx, slice_, service.cache) for _ in items], None)
    )
    service.rollups.mark_key_activity("look")
    (keys,) = service.store.read(lambda conn: conn.execute("SELECT key_activities FROM user_sessions").fetchone())
    assert keys == 1
    assert service.rollups.verify() == ()


def test_figures_made_anew_are_told_of(service: UserActivityService) -> None:
    told: list[Event] = []
    service.bus.subscribe(told.extend)
    service.rollups.rebuild()
    service.close()
    assert told == [Event("rollups.rebuilt")]


def test_a_long_tail_is_folded_in_parts(service: UserActivityService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "MOST_IN_BATCH", 7)
    service.track_batch([{"user_id": f"u{n % 3}", "activity_type": "x"} for n in range(30)])
    assert service.analytics.overview(Filters()).figures["activities"].value == 30
    assert service.rollups.verify() == ()


@pytest.mark.parametrize("at_once", [1, 7, 250_000])
def test_the_check_finds_what_is_wrong_and_a_rebuild_mends_it(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(verify, "AT_ONCE", at_once)
    days = [NOW - timedelta(days=n) for n in (0, 1, 2, 3, 5, 9, 9, 9, 20, 28)]
    service.track_batch(
        [{"user_id": f"u{n % 3}", "activity_type": "x", "page_url": "/a", "timestamp": days[n % 10]} for n in range(30)]
    )
    session = service.start_session("ada").session
    service.end_session(session.id)
    service.rollups.aggregate_pending()
    for spoil in (
        "UPDATE user_days SET activities = activities + 1",
        "DELETE FROM name_days WHERE kind = 3",
        "UPDATE session_days SET engaged = engaged + 1",
        "INSERT INTO cohort_days VALUES (0, 1, 2, 3)",
        "INSERT INTO user_days VALUES (1, 1, 1, 1, 1, 1)",  # long before the first activity
        "INSERT INTO active_days VALUES (0, 0, 90000, 1)",  # long after the last
        "INSERT INTO activity_hours SELECT hour + 24 * 3, app, type, 1 FROM activity_hours ORDER BY hour LIMIT 1",
        "UPDATE user_spans SET last_day = last_day + 1 WHERE user = 1",
        "DELETE FROM type_weeks WHERE week = (SELECT MIN(week) FROM type_weeks)",
        "INSERT INTO activities_by_user SELECT partition + 1, user, at, seq FROM activities_by_user WHERE seq = 1",
        "UPDATE user_type_days SET span = span + 1",
        "UPDATE user_type_days SET timestamps = x'01'",
        "UPDATE user_days SET at = at - 1",
        "UPDATE user_days SET span = span + 1",
        "DELETE FROM activities_by_user WHERE seq = 1",
        "DELETE FROM activity_partitions",
    ):
        service.store.run(Write(lambda tx, items, sql=spoil: [tx.conn.execute(sql) and None for _ in items], None))
        wrong = service.rollups.verify()
        assert [one.table for one in wrong if one.missing or one.surplus], spoil
        service.rollups.rebuild()
        assert service.rollups.verify() == (), spoil


@settings(max_examples=examples(40), deadline=None)
@given(made=st.lists(ACTIVITY, min_size=1, max_size=60), zone=st.sampled_from(ZONES), close=st.booleans())
def test_a_person_who_is_forgotten_was_never_counted(
    tmp_path_factory: pytest.TempPathFactory, made: list[dict[str, Any]], zone: str, close: bool
) -> None:
    path = tmp_path_factory.mktemp("figures") / "a.db"
    with UserActivityService(path, clock=StillClock(NOW), zone=ZoneInfo(zone)) as service:
        service.track_batch([row(one) for one in made])
        if close:
            service.close_idle_sessions()

        def forget(tx: Tx, items: Any) -> list[None]:
            subtract_user(tx, service.local, "ada")
            seqs = tx.conn.execute("SELECT seq FROM user_sessions WHERE user_id = 'ada'").fetchall()
            subtract_sessions(tx, service.local, [seq for (seq,) in seqs])
            tx.conn.execute(
                "DELETE FROM activities_by_user WHERE seq IN (SELECT seq FROM user_activities WHERE user_id = 'ada')"
            )
            tx.conn.execute("DELETE FROM user_activities WHERE user_id = 'ada'")
            subtract_user(tx, service.local, "ada")
            subtract_key(tx, "ada")
            tx.conn.execute("DELETE FROM user_sessions WHERE user_id = 'ada'")
            return [None] * len(items)

        service.store.run(Write(forget, None))
        assert service.rollups.verify() == ()
        hold_to(service, Naive(service.list_activities(limit=10_000).activities, ZoneInfo(zone)), Filters())
        kept = {
            name for (name,) in service.store.read(lambda conn: conn.execute("SELECT name FROM dimensions").fetchall())
        }
        pages = {a.page_url for a in service.list_activities(limit=10_000).activities}
        assert {page for page in ("/a", "/b") if page in kept} <= pages


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda a: a.overview(Filters(first=date(2026, 11, 3), last=date(2026, 11, 1))), "from"),
        (lambda a: a.overview(Filters(first=date(1, 1, 1), last=date(2026, 11, 1))), "from"),
        (lambda a: a.overview(Filters(first=date(1960, 1, 1), last=date(1960, 2, 1))), "from"),
        (lambda a: a.overview(Filters(last=date(9999, 12, 31))), "to"),
        (lambda a: a.funnel(Filters(), ["one"]), "steps"),
        (lambda a: a.funnel(Filters(), ["one"] * 11), "steps"),
        (lambda a: a.funnel(Filters(), ["one", "two"], dropped_at=3), "dropped_at"),
        (lambda a: a.user_list(Filters(), cursor="nonsense"), "cursor"),
    ],
)
def test_what_cannot_be_asked_is_refused(service: UserActivityService, ask: Any, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ask(service.analytics)
    assert refused.value.errors[0].field == field


# --- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [0, 10**9])
@pytest.mark.parametrize("days", [7, 365])
def test_no_question_looks_at_every_activity(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch, days: int, look: float
) -> None:
    """EXPLAIN QUERY PLAN of every statement that the dashboard's questions run: each goes by an index."""
    service.track_batch([{"user_id": f"u{n % 3}", "activity_type": "x", "page_url": "/a"} for n in range(30)])
    service.rollups.aggregate_pending()
    monkeypatch.setattr(cohorts_and_funnels, "LOOK", look)
    of_days = Filters(first=NOW.date() - timedelta(days=days - 1), last=NOW.date())
    asked: list[str] = []
    connection = service.store.read(lambda conn: conn)
    connection.set_trace_callback(asked.append)
    try:
        for more in ({}, {"app": "local"}, {"activity_type": "x"}):
            filters = msgspec.structs.replace(of_days, **more)
            service.analytics.overview(filters)
            service.analytics.trend(filters)
            service.analytics.heatmap(filters)
            service.analytics.top(filters, "pages")
        service.analytics.retention(of_days)
        service.analytics.funnel(of_days, ["x", "y"])
        service.analytics.user_list(of_days)
    finally:
        connection.set_trace_callback(None)
    questions = {sql for sql in asked if sql.lstrip().startswith(("SELECT", "WITH"))}
    assert len(questions) > 20
    for sql in questions:
        plan = [with_table(sql, step[3]) for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
        scans = [step for step in plan if step.startswith("SCAN") and "user_activities" in step]
        assert not scans, (sql, plan)
        for table in (
            "user_days", "user_type_days", "name_days", "name_blocks", "activity_hours", "hour_blocks",
            "activities_by_user", "d", "p", "a",  # the last three: as statements call some of them
        ):  # fmt: skip
            assert not [step for step in plan if step.split()[:2] == ["SCAN", table]], (sql, plan)
