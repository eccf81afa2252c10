"""Activities: stored once, at their own time, refused by their field; and every counter equals a recount."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flashflow.backend import Bus, Conflict, Event, UserActivityService, ValidationError
from flashflow.backend.activity.ingest import Origin
from tests.support.fixed_clock import StillClock
from tests.support.stored_rows import stored_metrics


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


# --- timestamps -------------------------------------------------------------------------------------------------------


def test_more_than_an_hour_ahead_is_refused(service: UserActivityService, clock: StillClock) -> None:
    track(service, clock.at(hours=1))
    with pytest.raises(ValidationError, match="hour in the future"):
        track(service, clock.at(hours=1, milliseconds=1))
    with pytest.raises(ValidationError, match="offset"):
        track(service, datetime(2026, 6, 10, 12))  # noqa: DTZ001 the point


@pytest.mark.parametrize(
    ("ahead", "stored"),
    [(timedelta(seconds=5), timedelta(0)), (timedelta(seconds=6), timedelta(seconds=-6))],
    ids=["within 5 s as it is", "beyond 5 s corrected"],
)
@pytest.mark.parametrize("sign", [1, -1], ids=["fast", "slow"])
def test_a_batch_from_a_clock_that_is_wrong_is_put_right(
    service: UserActivityService, clock: StillClock, ahead: timedelta, stored: timedelta, sign: int
) -> None:
    theirs = clock.now + sign * ahead
    rows = [{"user_id": "ada", "activity_type": "x", "timestamp": theirs - timedelta(minutes=1)}]
    service.track_batch(rows, sent_at=theirs)
    (activity,) = service.list_activities().activities
    assert activity.timestamp == theirs - timedelta(minutes=1) + sign * stored
    assert activity.received_at == clock.now


def test_a_clock_that_is_hours_ahead_is_corrected_before_the_future_is_refused(
    service: UserActivityService, clock: StillClock
) -> None:
    rows = [{"user_id": "ada", "activity_type": "x", "timestamp": clock.at(hours=8)}]
    assert service.track_batch(rows, sent_at=clock.at(hours=8)).accepted == 1
    assert service.track_batch(rows).rejected[0].errors[0][0] == "timestamp"


# --- once -------------------------------------------------------------------------------------------------------------


def test_an_id_is_stored_once_for_ever(service: UserActivityService, clock: StillClock) -> None:
    first = service.track_activity("ada", "x", activity_id="1")
    clock.go(days=400)
    again = service.track_activity("ada", "something else", activity_id="1")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.session_id == first.session_id
    assert [row.activity_type for row in service.list_activities().activities] == ["x"]
    with pytest.raises(Conflict, match="another app"):
        service.track_activity("ada", "x", activity_id="1", app="wiki")


def test_duplicates_within_and_across_batches_are_counted_and_stored_once(service: UserActivityService) -> None:
    def batch(*ids: str) -> tuple[int, int]:
        result = service.track_batch([{"user_id": "ada", "activity_type": "x", "activity_id": id_} for id_ in ids])
        return result.accepted, result.duplicates

    assert batch("a", "b", "a") == (2, 1)
    assert batch("b", "c", "c", "d") == (2, 2)
    assert batch("a", "b", "c", "d") == (0, 4)
    assert service.get_user_analytics("ada").total_activities == 4
    assert [session.activities for session in service.get_user_sessions("ada").sessions] == [4]


def test_equal_rows_of_different_batches_are_stored_each(service: UserActivityService, clock: StillClock) -> None:
    rows = [{"user_id": "ada", "activity_type": "x"}, {"user_id": "ada", "activity_type": "x"}]
    for sent_at in (clock.now, clock.now, None, None):
        assert service.track_batch(rows, sent_at=sent_at).accepted == 2
    assert len({a.id for a in service.list_activities().activities}) == 8


def test_rows_under_an_idempotency_key_are_known_again_however_late(
    service: UserActivityService, clock: StillClock
) -> None:
    row = {"user_id": "ada", "activity_type": "x", "timestamp": clock.now.isoformat()}

    def sent(key: str | None, *rows: dict[str, Any]) -> tuple[int, int]:
        result = service.store.run(service.batch_write(rows, clock.now, Origin(), key=key))
        return result.accepted, result.duplicates

    assert sent("one", row, row) == (2, 0)
    first = service.list_activities().activities
    clock.go(days=400)
    assert sent("one", row, row, row | {"user_id": "bob"}) == (1, 2)
    assert [a for a in service.list_activities().activities if a.user_id == "ada"] == list(first)
    assert all(UUID(a.id).version == 7 for a in first)
    assert sent("two", row, row) == (2, 0)
    assert sent(None, row, row) == (2, 0)


def test_a_batch_of_a_thousand_with_three_bad_rows_lands_the_others(service: UserActivityService) -> None:
    rows: list[dict[str, Any]] = [{"user_id": f"u{n % 7}", "activity_type": "x"} for n in range(1000)]
    rows[3] = {"user_id": "", "activity_type": "x"}
    rows[500] = {"user_id": "u", "activity_type": "x", "metadata": {"price": float("nan")}}
    rows[999] = {"user_id": "u", "activity_type": "x", "timestamp": "2026-06-10T12:00:00"}
    result = service.track_batch(rows)
    assert (result.accepted, result.duplicates) == (997, 0)
    assert [row.index for row in result.rejected] == [3, 500, 999]
    assert [row.errors[0][0] for row in result.rejected] == ["user_id", "", "timestamp"]
    assert sum(service.get_user_analytics(f"u{n}").total_activities for n in range(7)) == 997


def test_a_batch_of_more_than_a_thousand_is_refused_whole(service: UserActivityService) -> None:
    with pytest.raises(ValidationError, match="1000"):
        service.track_batch([{"user_id": "ada", "activity_type": "x"}] * 1001)
    assert service.list_activities().activities == ()


@pytest.mark.parametrize(
    "bad",
    [
        {"user_id": "a\ud800"},
        {"user_id": " "},
        {"user_id": "x" * 256},
        {"activity_type": "a*"},
        {"activity_type": "a\x00"},
        {"metadata": {"set": {1}}},
        {"metadata": {"nan": float("nan")}},
        {"metadata": {"half": "\udc00"}},
        {"metadata": {"big": 10**5000}},
        {"session_id": " "},
        {"activity_id": "x" * 201},
        {"timestamp": "yesterday"},
        {"app": "no spaces"},
    ],
    ids=lambda bad: next(iter(bad)) if isinstance(bad, dict) else None,
)
def test_what_cannot_be_stored_is_refused_by_its_field_and_changes_nothing(
    service: UserActivityService, bad: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as refusal:
        service.track_activity(**{"user_id": "ada", "activity_type": "x"} | bad)
    assert {error.field.partition(".")[0] for error in refusal.value.errors} == set(bad)
    assert service.list_activities().activities == ()


# --- lists and events -------------------------------------------------------------------------------------------------


def test_pages_stay_as_they_were_while_rows_arrive(service: UserActivityService, clock: StillClock) -> None:
    for number in range(25):
        clock.go(seconds=1)
        track(service, activity_id=f"{number:02}")
    page = service.list_activities(limit=10)
    seen = [row.id for row in page.activities]
    while page.next_cursor:
        clock.go(seconds=1)
        track(service)
        page = service.list_activities(limit=10, cursor=page.next_cursor)
        seen += [row.id for row in page.activities]
    assert seen == [f"{number:02}" for number in reversed(range(25))]


def test_filters_narrow_the_list_and_a_naive_time_is_refused(service: UserActivityService, clock: StillClock) -> None:
    for minute, (user, kind, app) in enumerate([("ada", "a", "shop"), ("ada", "b", "shop"), ("bob", "a", "wiki")]):
        track(
            service, clock.at(minutes=minute - 10), user_id=user, activity_type=kind, app=app, activity_id=f"{minute}"
        )

    def ids(**asked: Any) -> list[str]:
        return [row.id for row in service.list_activities(**asked).activities]

    assert ids() == ["2", "1", "0"]
    assert ids(user_id="ada") == ["1", "0"]
    assert ids(activity_type="a", app="wiki") == ["2"]
    assert ids(since=clock.at(minutes=-9), until=clock.at(minutes=-8)) == ["1"]
    with pytest.raises(ValidationError, match="since"):
        ids(since=datetime(2026, 6, 10))  # noqa: DTZ001 the point
    with pytest.raises(ValidationError, match="cursor"):
        ids(cursor="made up")


def test_events_tell_of_activities_and_of_sessions_that_begin_and_end(tmp_path: Path, clock: StillClock) -> None:
    bus, heard = Bus(), list[Event]()
    bus.subscribe(heard.extend)
    with UserActivityService(tmp_path / "a.db", clock=clock, bus=bus) as service:
        session_id = track(service, activity_id="1")
        track(service, activity_id="2")
        service.end_session(session_id)
        track(service, activity_id="1")
    assert [(event.kind, event.id) for event in heard] == [
        ("activity", "1"),
        ("session", session_id),
        ("activity", "2"),
        ("session", session_id),
    ]


def test_counters_equal_a_recount_whatever_happened_in_whatever_order(tmp_path: Path, clock: StillClock) -> None:
    chance = random.Random(6)
    path = tmp_path / "a.db"
    service = UserActivityService(path, clock=clock)
    known = ["visit"]
    for _ in range(400):
        clock.go(minutes=chance.choice([0, 1, 12, 29, 31, 300]))
        user = chance.choice(["ada", "bob"])
        match chance.randrange(8):
            case 0:
                known.append(service.start_session(user).session.id)
            case 1:
                service.end_session(chance.choice([*known[1:], track(service)]))
            case 2:
                service.close_idle_sessions()
            case 3:
                rows = [
                    {
                        "user_id": user,
                        "activity_type": "x",
                        "page_url": f"/{chance.randrange(4)}",
                        "activity_id": f"{chance.randrange(300)}",
                        "timestamp": clock.at(minutes=-chance.randrange(2000)),
                    }
                    for _ in range(chance.randrange(1, 12))
                ]
                service.track_batch(rows)
            case 4:
                service.close()
                service = UserActivityService(path, clock=clock)
            case _:
                late = clock.at(minutes=-chance.choice([0, 0, 5, 100, 3000]))
                known.append(track(service, late, user_id=user, page_url=f"/{chance.randrange(4)}"))
    for user in ("ada", "bob"):
        figures = stored_metrics(service, user)
        counted = service.get_user_analytics(user)
        assert figures.total_activities == counted.total_activities > 50
        assert figures.total_sessions == counted.total_sessions > 20
    pages = {
        session.id: (session.activities, session.pages_visited, session.start_time, session.last_seen)
        for user in ("ada", "bob")
        for session in service.get_user_sessions(user, limit=200).sessions
    }
    assert len(pages) > 50
    for session_id, (activities, visited, start, last_seen) in pages.items():
        rows_of = service.list_activities(session_id=session_id, limit=1000).activities
        assert len(rows_of) == activities
        assert len({row.page_url for row in rows_of if row.page_url}) == visited
        assert all(start <= row.timestamp <= last_seen for row in rows_of)
    service.close()
