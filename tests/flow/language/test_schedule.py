"""Schedules of jobs: cron fields, words, intervals, and the next time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashflow.backend.core.clock import to_datetime, to_ms
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.flow.language.schedule import WORDS, Schedule, parse_schedule

BERLIN = ZoneInfo("Europe/Berlin")


def times(schedule: str, start: str, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    """The next ``count`` times after ``start``, as local times with their offsets."""
    parsed, now, found = parse_schedule(schedule), to_ms(datetime.fromisoformat(start)), []
    for _ in range(count):
        now = parsed.next_after(now, zone)
        found.append(to_datetime(now).astimezone(zone).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("*/5 * * * *", ["2026-11-30T10:05+01:00", "2026-11-30T10:10+01:00"]),
        ("every_5_minutes", ["2026-11-30T10:05+01:00", "2026-11-30T10:10+01:00"]),
        ("daily", ["2026-12-01T00:00+01:00", "2026-12-02T00:00+01:00"]),
        ("cron(30 9 * * 1-5)", ["2026-12-01T09:30+01:00", "2026-12-02T09:30+01:00"]),
        ("0 9 1 * mon", ["2026-12-01T09:00+01:00", "2026-12-07T09:00+01:00"]),
        ("0 9 * * 7", ["2026-12-06T09:00+01:00", "2026-12-13T09:00+01:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00+01:00", "2032-02-29T00:00+01:00"]),
        ("0 12 24 dec *", ["2026-12-24T12:00+01:00", "2027-12-24T12:00+01:00"]),
        ("10-20/5,50 8 * * *", ["2026-12-01T08:10+01:00", "2026-12-01T08:15+01:00"]),
    ],
)
def test_the_next_times_of_a_schedule(schedule: str, expected: list[str]) -> None:
    assert times(schedule, "2026-11-30T10:00:30+01:00", len(expected)) == expected


def test_a_time_in_the_gap_of_summer_time_happens_once_and_later() -> None:
    assert times("30 2 * * *", "2026-03-28T12:00+01:00", 2) == ["2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"]


def test_a_time_that_occurs_twice_happens_once_but_an_hourly_schedule_keeps_its_pace() -> None:
    assert times("30 2 * * *", "2026-10-24T12:00+02:00", 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    assert times("*/30 * * * *", "2026-10-25T02:00+02:00", 4) == [
        "2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00",
    ]  # fmt: skip


def test_an_interval_counts_from_its_start() -> None:
    schedule = Schedule("every 7 minutes", every_minutes=7)
    assert schedule.next_after(0, BERLIN) == 7 * 60_000
    assert schedule.next_after(7 * 60_000, BERLIN, since_ms=60_000) == 8 * 60_000
    assert schedule.next_after(0, BERLIN, since_ms=90_000) == 90_000


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("0 0 30 2 *", "this never happens: no month of the schedule has a day 30"),
        ("0 0 31 2,4,6,9,11 *", "this never happens: no month of the schedule has a day 31"),
        ("* * * *", "a schedule has five fields (minute hour day month weekday), or is a word such as every_minute,"),
        ("60 * * * *", "“60” is no minute: it goes from 0 to 59"),
        ("* 24 * * *", "“24” is no hour: it goes from 0 to 23"),
        ("* * 0 * *", "“0” is no day of the month: it goes from 1 to 31"),
        ("* * * 13 *", "“13” is no month: it goes from 1 to 12"),
        ("* * * * 8", "“8” is no weekday: it goes from 0 to 7"),
        ("*/0 * * * *", "“*/0” has no minute; a range goes upward, and a step is at least 1"),
        ("5-1 * * * *", "“5-1” has no minute; a range goes upward, and a step is at least 1"),
        ("*5 * * * *", "“*5” is no minute of a cron expression; write *, 5, 1-5, */10 or 1,2"),
        ("often", "a schedule has five fields"),
    ],
)
def test_a_wrong_schedule_is_refused_by_its_field(schedule: str, message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        parse_schedule(schedule)
    assert str(refusal.value).startswith(message)


def test_a_date_or_a_weekday_fits_where_both_are_limited() -> None:
    assert times("0 0 30 2 mon", "2026-01-31T00:00+01:00", 2) == ["2026-02-02T00:00+01:00", "2026-02-09T00:00+01:00"]


@given(st.text("0123456789*/-, ", max_size=20) | st.from_regex(r"(\*|[0-9]{1,2})( (\*|[0-9]{1,2})){4}", fullmatch=True))
def test_an_accepted_schedule_has_a_next_time_and_any_other_is_refused(text: str) -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    try:
        schedule = parse_schedule(text)
    except ValidationError:
        return
    following = to_datetime(schedule.next_after(to_ms(now), BERLIN))
    assert now < following < now + timedelta(days=366 * 41)


def test_every_word_is_a_schedule() -> None:
    for word in WORDS:
        assert parse_schedule(word).cron is not None
