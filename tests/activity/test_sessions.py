"""Which session an activity falls into, and when one is over, by DEFINITIONS.md."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import Conflict, UserActivityService
from flashflow.backend.activity.ingest import Origin
from flashflow.backend.schemas.requests import ActivityIn
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.sessionizer import TAIL_TO_COUNT_IN
from flashflow.backend.store.engine.writer import LoopWrites
from tests.support.fixed_clock import StillClock


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def service(tmp_path: Path, clock: StillClock) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=clock) as service:
        yield service


def track(service: UserActivityService, at: datetime | None = None, **more: Any) -> str:
    """One of ada's activities; returns its session."""
    return service.track_activity(**{"user_id": "ada", "activity_type": "x", "timestamp": at} | more).session_id


def spans(service: UserActivityService, user_id: str = "ada") -> list[tuple[str, str, int, str | None]]:
    """The user's sessions, oldest first: first and last minute, activities, and how they ended."""
    sessions = service.get_user_sessions(user_id, limit=200).sessions
    return [(f"{s.start_time:%d %H:%M}", f"{s.last_seen:%d %H:%M}", s.activities, s.end_reason) for s in sessions][::-1]


# --- when a session begins and ends -----------------------------------------------------------------------------------


def test_thirty_minutes_of_silence_still_belong_together_and_a_moment_more_does_not(
    service: UserActivityService, clock: StillClock
) -> None:
    first = track(service)
    clock.go(minutes=30)
    assert track(service) == first
    clock.go(minutes=30, milliseconds=1)
    assert track(service) != first
    assert spans(service) == [("10 12:00", "10 12:30", 2, "timeout"), ("10 13:00", "10 13:00", 1, None)]


def test_a_session_is_a_day_long_at_most_however_busy(service: UserActivityService, clock: StillClock) -> None:
    first = track(service)
    for _ in range(24 * 3 - 1):
        clock.go(minutes=20)
        assert track(service) == first
    clock.go(minutes=20)
    assert track(service) != first
    assert [row[2] for row in spans(service)] == [72, 1]


def test_midnight_does_not_split_a_session(service: UserActivityService, clock: StillClock) -> None:
    clock.now = datetime(2026, 6, 10, 23, 50, tzinfo=UTC)
    first = track(service)
    clock.go(minutes=20)
    assert track(service) == first
    assert spans(service) == [("10 23:50", "11 00:10", 2, None)]


def test_a_session_nobody_ended_ends_where_it_was_last_seen(service: UserActivityService, clock: StillClock) -> None:
    session_id = track(service)
    clock.go(minutes=10)
    service.heartbeat(session_id)
    clock.go(minutes=30)
    assert service.close_idle_sessions() == 0
    clock.go(milliseconds=1)
    assert service.close_idle_sessions() == 1
    (session,) = service.get_user_sessions("ada").sessions
    assert (session.end_reason, session.duration) == ("timeout", 600.0)
    assert session.end_time == session.last_seen
    assert service.close_idle_sessions() == 0


def test_a_session_that_only_heartbeats_is_over_after_a_day_too(
    service: UserActivityService, clock: StillClock
) -> None:
    session_id = track(service)
    for _ in range(24 * 3 - 1):
        clock.go(minutes=20)
        service.heartbeat(session_id)
    clock.go(minutes=20)
    with pytest.raises(Conflict, match="timeout"):
        service.heartbeat(session_id)
    assert service.close_idle_sessions() == 1
    assert spans(service) == [("10 12:00", "11 11:40", 1, "timeout")]


@pytest.mark.parametrize("looked", [False, True], ids=["nobody looked", "the job looked"])
def test_after_a_long_sleep_the_session_is_over_where_it_was_last_seen(
    service: UserActivityService, clock: StillClock, looked: bool
) -> None:
    """The laptop was closed for the night: no job ran, and the app's next heartbeat comes in the morning."""
    session_id = track(service)
    clock.go(hours=9)
    if looked:
        service.close_idle_sessions()
    with pytest.raises(Conflict, match=r"over \(timeout\)"):
        service.heartbeat(session_id)
    ended = service.end_session(session_id)
    assert (ended.end_reason, ended.duration) == ("timeout", 0.0)
    assert track(service) != session_id


def test_an_app_and_a_user_have_sessions_of_their_own(service: UserActivityService) -> None:
    sessions = {track(service, user_id=user, app=app) for user in ("ada", "bob") for app in ("shop", "wiki")}
    assert len(sessions) == 4
    assert track(service, app="shop") in sessions


def test_a_session_of_the_callers_own_name_is_opened_by_its_first_activity(service: UserActivityService) -> None:
    assert track(service, session_id="visit 1") == "visit 1"
    assert track(service) == "visit 1"
    assert service.start_session("ada", session_id="visit 1").created is False
    with pytest.raises(Conflict, match="another app"):
        track(service, session_id="visit 1", app="wiki")
    with pytest.raises(Conflict):
        service.start_session("bob", session_id="visit 1")


def test_after_its_end_the_next_activity_opens_another(service: UserActivityService, clock: StillClock) -> None:
    session = service.start_session("ada").session
    clock.go(minutes=1)
    service.end_session(session.id)
    clock.go(minutes=1)
    assert track(service) != session.id


# --- late and offline -------------------------------------------------------------------------------------------------


def test_a_late_activity_is_put_where_its_timestamp_says(service: UserActivityService, clock: StillClock) -> None:
    morning = track(service)
    clock.go(hours=5)
    evening = track(service)
    assert track(service, clock.at(hours=-5, minutes=10)) == morning
    assert track(service, clock.at(minutes=-20)) == evening
    between = track(service, clock.at(hours=-2))
    assert between not in {morning, evening}
    assert spans(service) == [
        ("10 12:00", "10 12:10", 2, "timeout"),
        ("10 15:00", "10 15:00", 1, "timeout"),
        ("10 16:40", "10 17:00", 2, None),
    ]
    assert track(service) == evening


@pytest.mark.parametrize("order", ["as they happened", "backwards"])
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
def test_an_app_that_was_offline_gets_the_sessions_it_would_have_had(
    service: UserActivityService, clock: StillClock, order: str, together: bool
) -> None:
    minutes = [*range(-600, -539, 10), *range(-300, -239, 10)]
    if order == "backwards":
        minutes.reverse()
    rows = [{"user_id": "ada", "activity_type": "x", "timestamp": clock.at(minutes=m)} for m in minutes]
    if together:
        assert service.track_batch(rows).accepted == 14
    else:
        for row in rows:
            service.track_activity(**row)
    assert spans(service) == [("10 02:00", "10 03:00", 7, "timeout"), ("10 07:00", "10 08:00", 7, "timeout")]


def test_what_was_offline_until_just_now_goes_on_in_the_same_session(
    service: UserActivityService, clock: StillClock
) -> None:
    rows = [{"user_id": "ada", "activity_type": "x", "timestamp": clock.at(minutes=m)} for m in range(-120, 1, 10)]
    service.track_batch(rows)
    clock.go(minutes=5)
    session_id = track(service)
    assert spans(service) == [("10 10:00", "10 12:05", 14, None)]
    assert service.heartbeat(session_id).end_time is None


def test_a_session_that_only_looked_over_counts_its_pages_on(tmp_path: Path, clock: StillClock) -> None:
    """Closed by its silence in an earlier process, and then what came late reaches up to now."""
    with UserActivityService(tmp_path / "s.db", clock=clock) as earlier:
        first = earlier.track_activity("ada", "page_view", page_url="/a")
        clock.go(minutes=31)
        assert earlier.close_idle_sessions() == 1
    with UserActivityService(tmp_path / "s.db", clock=clock) as service:
        late = service.track_activity("ada", "page_view", page_url="/b", timestamp=clock.at(minutes=-6))
        assert late.session_id == first.session_id
        (session,) = service.get_user_sessions("ada").sessions
        assert (session.end_time, session.pages_visited) == (None, 2)
        service.track_activity("ada", "page_view", page_url="/a")
        assert service.end_session(first.session_id).pages_visited == 2
        assert service.rollups.verify() == ()


def test_what_is_remembered_of_sessions_outlives_a_commit_on_the_writers_other_connection(
    service: UserActivityService,
) -> None:
    """A loop commits on a connection of its own, a fold on the writer's: neither is a stranger to the other."""

    async def in_the_loop(number: int) -> None:
        write = service.track_write(ActivityIn(user_id="ada", activity_type="x", page_url=f"/{number}"), Origin())
        await LoopWrites(service.store.writer).run(write)

    asyncio.run(in_the_loop(1))
    (session,) = service.cache.by_id.values()
    service.rollups.aggregate_pending()
    service.close_idle_sessions()
    asyncio.run(in_the_loop(2))
    assert list(service.cache.by_id.values()) == [session]
    assert session.pages_visited == 2


@pytest.mark.parametrize("swept", [True, False])
def test_an_apps_own_session_goes_on_whether_or_not_anybody_had_looked(
    service: UserActivityService, clock: StillClock, swept: bool
) -> None:
    track(service, session_id="own", page_url="/a")
    clock.go(minutes=45)
    if swept:
        assert service.close_idle_sessions() == 1
    track(service, session_id="own", page_url="/b")
    assert service.heartbeat("own").end_time is None
    assert track(service, page_url="/c") == "own"
    (session,) = service.get_user_sessions("ada").sessions
    assert (session.activities, session.pages_visited, session.end_reason) == (3, 3, None)
    assert service.rollups.verify() == ()


def test_a_late_visit_does_not_hide_the_session_that_is_open(tmp_path: Path, clock: StillClock) -> None:
    with UserActivityService(tmp_path / "a.db", clock=clock) as service:
        now = track(service)
    with UserActivityService(tmp_path / "a.db", clock=clock) as service:
        track(service, clock.at(hours=-3), session_id="visit 1")
        assert track(service) == now


def test_an_ended_session_takes_what_happened_before_its_end_and_nothing_after(
    service: UserActivityService, clock: StillClock
) -> None:
    session_id = track(service)
    clock.go(minutes=10)
    service.end_session(session_id)
    clock.go(minutes=10)
    assert track(service, clock.at(minutes=-12)) == session_id
    assert track(service, clock.at(minutes=-5)) != session_id


def test_sessions_that_left_the_memory_are_read_again_without_a_scan_of_what_is_pending(
    service: UserActivityService,
) -> None:
    pages = {track(service, page_url=f"/{number}") for number in range(TAIL_TO_COUNT_IN + 10)}
    assert service.store.read(user_index.tail_length) > TAIL_TO_COUNT_IN
    service.cache.invalidate()

    assert {track(service, page_url="/0")} == pages

    assert service.store.read(user_index.tail_length) < 10
    (session,) = service.get_user_sessions("ada").sessions
    assert session.pages_visited == TAIL_TO_COUNT_IN + 10
