"""Whoever does very much: what they use most is kept, and is what their rows say at every moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import Backend, Config, UserActivityService
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.rollups import dimensions
from tests.support.fixed_clock import StillClock

DAY = timedelta(days=1)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def service(tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserActivityService]:
    monkeypatch.setattr(heavy_users, "HEAVY_AT", 20)
    with UserActivityService(tmp_path / "a.db", clock=clock) as service:
        yield service


def do(service: UserActivityService, clock: StillClock, times: int, page: str = "/a", user: str = "ada") -> None:
    row = {"user_id": user, "activity_type": "page_view", "page_url": page, "metadata": {"feature": f"on {page}"}}
    assert service.track_batch([row | {"timestamp": clock.now}] * times).accepted == times


def heavy(service: UserActivityService) -> int:
    count: int = service.store.read(lambda conn: conn.execute("SELECT COUNT(*) FROM heavy_users").fetchone()[0])
    return count


def kept(service: UserActivityService) -> int:
    """What the table has of everybody's activities."""
    total: int = service.store.read(
        lambda conn: conn.execute("SELECT COALESCE(SUM(activities), 0) FROM user_names").fetchone()[0]
    )
    return total


def settle(service: UserActivityService, clock: StillClock) -> None:
    service.rollups.aggregate_pending()  # a user without a rollup row is found at the next run
    clock.go(hours=1)
    service.close_idle_sessions()


def pages(service: UserActivityService, app: str | None = None, user: str = "ada") -> dict[str, int]:
    figures = service.get_user_analytics(user, app=app)
    found = {one.name: one.count for one in figures.most_visited_pages}
    assert {one.name: one.count for one in figures.favorite_features} == {f"on {p}": n for p, n in found.items()}
    return found


def rows_read(service: UserActivityService) -> int:
    """Hundreds of steps of SQLite's machine that a user's figures take."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def ask(conn: Any) -> None:
        conn.set_progress_handler(step, 100)
        try:
            heavy_users.most_used(conn, "ada", None, 10)
        finally:
            conn.set_progress_handler(None, 0)

    service.store.read(ask)
    return steps


def test_a_sessions_end_shows_who_does_much_and_nothing_else_changes(
    service: UserActivityService, clock: StillClock
) -> None:
    do(service, clock, 19)
    settle(service, clock)
    assert heavy(service) == 0
    do(service, clock, 1, "/b")
    do(service, clock, 3, user="bob")
    before = pages(service)
    settle(service, clock)
    assert heavy(service) == 1
    assert pages(service) == before == {"/a": 19, "/b": 1}
    do(service, clock, 2, "/b")
    service.rollups.aggregate_pending()
    do(service, clock, 5, "/c")  # not folded yet
    assert pages(service) == {"/a": 19, "/b": 3, "/c": 5}
    assert pages(service, user="bob") == {"/a": 3}
    assert service.rollups.verify() == ()
    assert kept(service) == 2 * 27


def test_their_rows_are_not_looked_through_any_more(service: UserActivityService, clock: StillClock) -> None:
    do(service, clock, 900)
    service.rollups.aggregate_pending()
    before = rows_read(service)
    settle(service, clock)
    assert heavy(service) == 1
    assert rows_read(service) < before / 20


def test_an_apps_own_are_told_apart(service: UserActivityService, clock: StillClock) -> None:
    do(service, clock, 30)
    settle(service, clock)
    service.track_activity("ada", "page_view", page_url="/x", metadata={"feature": "on /x"}, app="wiki")
    service.rollups.aggregate_pending()
    assert pages(service, "wiki") == {"/x": 1}
    assert pages(service, "local") == {"/a": 30}
    assert pages(service, "never") == {}


def test_pages_beyond_the_guard_are_looked_for_in_the_rows(
    service: UserActivityService, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dimensions.MOST, "page", 2)
    do(service, clock, 30)
    settle(service, clock)
    do(service, clock, 7, "/b")
    for number in range(3):
        do(service, clock, 40 + number, f"/beyond-{number}")
    service.rollups.aggregate_pending()
    assert pages(service) == {"/a": 30, "/b": 7, "/beyond-0": 40, "/beyond-1": 41, "/beyond-2": 42}
    assert service.rollups.verify() == ()


def test_a_rebuild_finds_them_and_a_spoilt_table_is_found_out(service: UserActivityService, clock: StillClock) -> None:
    do(service, clock, 25)
    service.rollups.rebuild()
    assert heavy(service) == 1
    spoil = "UPDATE user_names SET activities = activities + 1"
    service.store.run(Write(lambda tx, items: [tx.conn.execute(spoil) and None for _ in items], None))
    assert [d.table for d in service.rollups.verify()] == ["user_names"]
    service.rollups.rebuild()
    assert service.rollups.verify() == ()


def test_what_is_pruned_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heavy_users, "HEAVY_AT", 20)
    clock = StillClock()
    with Backend(Config(data_dir=tmp_path, port=0), clock=clock) as backend:
        service = backend.activity
        do(service, clock, 25, "/old")
        settle(service, clock)
        clock.go(hours=24)
        do(service, clock, 4, "/new")
        backend.retention.prune(int((clock.now - timedelta(hours=2)).timestamp() * 1000), "activities")
        assert pages(service) == {"/new": 4}
        assert service.rollups.verify() == ()


def test_who_is_erased_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heavy_users, "HEAVY_AT", 20)
    clock = StillClock()
    with Backend(Config(data_dir=tmp_path, port=0), clock=clock) as backend:
        service = backend.activity
        for user in ("ada", "bob"):
            do(service, clock, 25, user=user)
        settle(service, clock)
        assert heavy(service) == 2
        backend.erasing.erase("ada")
        assert heavy(service) == 1
        assert kept(service) == 2 * 25
        assert pages(service, user="bob") == {"/a": 25}
        assert service.rollups.verify() == ()


def test_who_was_promoted_half_way_counts_once(service: UserActivityService, clock: StillClock) -> None:
    """The names kept are those of the folded rows: what lies in the tail comes with its fold."""
    do(service, clock, 30)

    def promote(tx: Tx, items: Any) -> list[None]:
        heavy_users.promote(tx, ["ada", "ada", "nobody"])
        return [None] * len(items)

    service.rollups.aggregate_pending()
    do(service, clock, 10)
    service.store.run(Write(promote, None))
    assert kept(service) == 2 * 30
    service.rollups.aggregate_pending()
    assert pages(service) == Counter({"/a": 40})
    assert service.rollups.verify() == ()
