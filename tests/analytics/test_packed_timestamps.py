"""A day's moments of one type are kept beside its first and last, so that a funnel need not ask the bare rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashflow.backend import Filters, UserActivityService
from flashflow.backend.store.engine.writer import Write
from flashflow.backend.store.rollups.packed_timestamps import MOST, first_after, merge, pack
from tests.support.fixed_clock import StillClock
from tests.support.naive_metrics import Naive

NOW = datetime(2026, 11, 3, 15, 20, tzinfo=UTC)
DAY = date(2026, 11, 1)
QUARTER = Filters(first=date(2026, 8, 10), last=NOW.date())
LONGEST = 26 * 3_600_000
TIMES = st.lists(st.integers(0, LONGEST) | st.integers(0, 40), min_size=1, max_size=MOST)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=StillClock(NOW), zone=ZoneInfo("UTC")) as service:
        yield service


def kept(times: list[int]) -> tuple[int, int, int, bytes | None]:
    """A row's first moment, span, number of activities and moments."""
    made = pack(json.dumps(times)) if len(times) > 2 else None
    return min(times), max(times) - min(times), len(times), made


@given(times=TIMES, cut=st.integers(0, MOST), since=st.integers(-(10**7), 10**12), in_order=st.booleans())
def test_two_rows_together_are_as_if_all_had_come_at_once(
    times: list[int], cut: int, since: int, in_order: bool
) -> None:
    times = [since + time for time in (sorted(times) if in_order else times)]
    one, other = times[:cut], times[cut:]
    if one and other and len(times) > 2:
        assert merge(*kept(one), *kept(other)) == kept(times)[3]


@given(times=TIMES.filter(lambda times: len(times) > 2 and min(times) < max(times)), chance=st.randoms())
def test_the_moment_after_another_is_the_next_there_was(times: list[int], chance: random.Random) -> None:
    at, span, _, timestamps = kept(times)
    assert timestamps is not None
    for then in (*(time for time in times if time < at + span), chance.randrange(at, at + span)):
        assert first_after(at, span, timestamps, then) == min(time for time in times if time > then)


def test_it_is_three_bytes_a_moment_of_a_day_of_less_than_five_hours() -> None:
    assert pack("[0, 1, 16777215]") == b"\0\0\1"
    assert pack("[16777216, 1, 0]") == b"\0\0\0\1"


def test_of_what_is_not_known_in_part_nothing_is() -> None:
    """A day that was pruned, to which something comes late."""
    assert merge(0, 10, 3, None, 20, 0, 1, None) is None
    assert merge(20, 0, 1, None, 0, 10, 3, None) is None


@pytest.mark.parametrize("activities", [3, MOST, MOST + 1, 2 * MOST])
@pytest.mark.parametrize("folds", [1, 2, 7])
def test_a_funnel_over_one_busy_day_takes_the_next_moment(
    service: UserActivityService, activities: int, folds: int
) -> None:
    chance = random.Random(activities)
    rows = [
        {
            "user_id": user, "activity_type": "view",
            "timestamp": datetime(2026, 11, 1, tzinfo=UTC) + timedelta(milliseconds=chance.randrange(80_000_000)),
        }
        for user in ("ada", "bob")
        for _ in range(activities)
    ]  # fmt: skip
    chance.shuffle(rows)
    for part in range(folds):
        service.track_batch(rows[part::folds])
        service.rollups.aggregate_pending()
    assert service.rollups.verify() == ()
    naive = Naive(service.list_activities(limit=1_000).activities, ZoneInfo("UTC"))
    steps = ["view"] * 5
    found = service.analytics.funnel(QUARTER, steps).steps
    assert [(s.users, s.median_seconds) for s in found] == naive.funnel(steps, QUARTER, timedelta(days=7))


@pytest.mark.parametrize(("activities", "reached"), [(MOST, 1), (MOST + 1, 0)])
def test_no_bare_row_is_asked_but_of_very_busy_days(
    service: UserActivityService, activities: int, reached: int
) -> None:
    service.track_batch(
        [
            {"user_id": "ada", "activity_type": "view", "timestamp": NOW - timedelta(minutes=n)}
            for n in range(activities)
        ]
    )
    service.rollups.aggregate_pending()
    service.store.run(Write(lambda tx, items: [tx.conn.execute("DELETE FROM activities_by_user") and None], None))
    found = service.analytics.funnel(QUARTER, ["view", "view", "view"]).steps
    assert [s.users for s in found[1:]] == [reached] * 2
