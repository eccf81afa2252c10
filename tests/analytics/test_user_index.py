"""What is kept by user and fed in bulk: at every moment the answers are those of the bare rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import UserActivityService
from flashflow.backend.activity.ingest import Origin
from flashflow.backend.schemas.requests import ActivityIn
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.engine.writer import Bundle, Write
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock

USERS = [f"user-{number}" for number in range(12)]
NOW = StillClock().now


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=StillClock()) as service:
        yield service


def feed(service: UserActivityService) -> None:
    service.store.run(Write(lambda tx, items: [user_index.catch_up(tx, service.local) for _ in items], None))


def mark(service: UserActivityService) -> tuple[int, int | None]:
    row: tuple[int, int | None] = service.store.read(
        lambda conn: conn.execute("SELECT through, counted FROM rollup_state").fetchone()
    )
    return row


def counters(service: UserActivityService) -> list[tuple[Any, ...]]:
    return service.store.read(
        lambda conn: conn.execute(
            "SELECT user_id, total_sessions, total_activities, last_activity FROM user_analytics ORDER BY user_id"
        ).fetchall()
    )


def counted_naively(service: UserActivityService) -> list[tuple[Any, ...]]:
    return service.store.read(
        lambda conn: conn.execute(
            "SELECT user_id, (SELECT COUNT(*) FROM user_sessions s WHERE s.user_id = a.user_id), COUNT(*), "
            "MAX(timestamp) FROM user_activities a GROUP BY user_id ORDER BY user_id"
        ).fetchall()
    )


def rows(users: list[str], timestamp: Any, page: str = "/a") -> list[dict[str, Any]]:
    return [{"user_id": user, "activity_type": "page_view", "page_url": page, "timestamp": timestamp} for user in users]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("track"), st.lists(st.sampled_from(USERS), min_size=1, max_size=12), st.integers(0, 5000)),
        st.just(("feed", [], 0)),
        st.just(("settle", [], 0)),
        st.tuples(st.just("close"), st.lists(st.sampled_from(USERS), min_size=1, max_size=1), st.just(0)),
        st.tuples(st.just("start"), st.lists(st.sampled_from(USERS), min_size=1, max_size=1), st.just(0)),
        st.just(("reopen", [], 0)),
    ),
    max_size=12,
)


@settings(max_examples=examples(40), deadline=None)
@given(steps=STEPS)
def test_whatever_was_fed_and_counted_when_the_answers_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[str], int]]
) -> None:
    path, clock = tmp_path_factory.mktemp("timeline") / "a.db", StillClock()
    service = UserActivityService(path, clock=clock)
    try:
        for what, users, back in steps:
            clock.go(seconds=7)
            if what == "track":
                assert service.track_batch(rows(users, clock.at(seconds=-back), f"/{back % 3}")).rejected == ()
            elif what == "feed":
                feed(service)
            elif what == "settle":
                service.settle_metrics()
            elif what == "start":
                session_id = service.start_session(users[0]).session.id
                service.track_activity(users[0], "page_view", page_url="/a", session_id=session_id)
            elif what == "close":
                for session in service.get_user_sessions(users[0]).sessions:
                    service.end_session(session.id)
            else:
                service.close()
                service = UserActivityService(path, clock=clock)

        everything = service.list_activities(limit=10_000).activities
        for user in USERS:
            his = [a for a in everything if a.user_id == user]
            assert list(service.list_activities(user_id=user, limit=10_000).activities) == his
            figures = service.get_user_analytics(user)
            assert figures.total_activities == len(his)
            assert figures.total_sessions == len(service.get_user_sessions(user).sessions)
            for session in service.get_user_sessions(user).sessions:
                inside = [a for a in his if a.session_id == session.id]
                assert session.pages_visited == len({a.page_url for a in inside})
                assert service.list_activities(session_id=session.id, limit=10_000).activities == tuple(inside)
        service.settle_metrics()
        assert counters(service) == counted_naively(service)
        assert mark(service)[1] is None
    finally:
        service.close()


def test_a_small_write_counts_at_once_and_a_group_of_many_users_within_the_next(service: UserActivityService) -> None:
    service.track_activity("ada", "page_view")
    assert counters(service) == counted_naively(service) != []
    service.track_batch(rows(USERS, NOW))
    assert mark(service)[1] == 1
    assert counters(service) != counted_naively(service)
    service.track_activity("ada", "page_view")
    assert counters(service) == counted_naively(service)
    assert mark(service)[1] is None


def test_a_small_write_after_many_uncounted_ones_is_still_committed_on_the_event_loop(
    service: UserActivityService,
) -> None:
    for first in range(0, 3000, 500):
        service.track_batch(rows([f"user-{number}" for number in range(first, first + 500)], NOW))
    write = service.track_write(ActivityIn(user_id="ada", activity_type="page_view"), Origin())
    assert service.store.writer.run_inline(Bundle([write], lambda: None))
    assert mark(service)[1] == 0, "the idle second counts them"
    service.settle_metrics()
    assert counters(service) == counted_naively(service)
    assert mark(service)[1] is None


def test_much_that_waits_is_counted_with_a_feed(service: UserActivityService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_index, "COUNT_AT", 20)
    service.track_batch(rows(USERS, NOW))
    feed(service)
    assert mark(service)[1] == 0
    service.track_batch(rows(USERS * 3, NOW))
    feed(service)
    assert mark(service)[1] is None
    assert counters(service) == counted_naively(service)


def test_sessions_that_wait_count_once_whoever_opens_one_meanwhile(service: UserActivityService) -> None:
    service.track_batch(rows(USERS, NOW))
    session = service.start_session(USERS[0]).session.id
    service.track_batch(rows(USERS, NOW))
    assert service.get_user_analytics(USERS[0]).total_sessions == len(service.get_user_sessions(USERS[0]).sessions) == 2
    service.settle_metrics()
    service.track_activity(USERS[0], "app_open", session_id=session)
    assert counters(service) == counted_naively(service)
    assert service.get_user_analytics(USERS[0]).total_sessions == 2


def test_the_index_is_fed_by_itself_once_enough_waits(
    service: UserActivityService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_index, "AGGREGATE_AT", 100)
    service.track_batch(rows(USERS * 8, NOW))
    assert mark(service)[0] == 0
    service.track_batch(rows(USERS, NOW))
    service.track_activity("ada", "page_view")  # behind the feed in the writer's queue
    assert mark(service)[0] == 108


def test_what_an_earlier_process_left_unfed_counts_towards_the_next_feed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_index, "AGGREGATE_AT", 100)
    for _ in range(3):
        with UserActivityService(tmp_path / "a.db", clock=StillClock()) as service:
            service.track_batch(rows(USERS * 3, NOW))
    with UserActivityService(tmp_path / "a.db", clock=StillClock()) as service:
        assert mark(service)[0] >= 100


def test_one_users_questions_never_look_at_everybodys_rows(service: UserActivityService) -> None:
    """EXPLAIN QUERY PLAN: the index by user, and the tail by its ``seq``."""
    seen: list[str] = []

    def plans(conn: sqlite3.Connection) -> None:
        for sql in (
            "SELECT COUNT(*), MAX(timestamp) FROM user_timeline WHERE user_id = 'ada'",
            f"SELECT (SELECT COUNT(*) FROM ({user_index.of_session('page_url')})) FROM user_sessions WHERE id = x'00'",
        ):
            seen.extend(row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}"))

    service.store.read(plans)
    assert sum("SEARCH p USING PRIMARY KEY (partition=? AND user=?" in step for step in seen) == 2
    assert sum("SEARCH user_activities USING INTEGER PRIMARY KEY (rowid>?)" in step for step in seen) == 2
    assert not [step for step in seen if step.split()[:2] in (["SCAN", "p"], ["SCAN", "user_activities"])]


def test_a_page_of_a_users_list_reads_no_more_than_it_shows(service: UserActivityService) -> None:
    timestamp = NOW
    for number in range(20):
        service.track_batch(rows(["ada"] * 100, timestamp + timedelta(milliseconds=number - 20)))
    feed(service)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def ask(conn: sqlite3.Connection) -> int:
        conn.set_progress_handler(step, 100)
        try:
            return len(user_index.newest_of_user(conn, user_index.IndexQuery("ada"), 10))
        finally:
            conn.set_progress_handler(None, 0)

    assert service.store.read(ask) == 10
    assert steps < 60, f"{steps} hundred steps of SQLite's machine for ten rows of two thousand"
