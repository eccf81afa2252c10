"""When a recurring notification is next due, against a walk over the clock's own face."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flashflow.backend.core.clock import DAY_MS, MINUTE_MS, to_datetime, to_ms
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.domain.recurrence import DAYS, Recurrence, check, next_after, zone_named
from flashflow.backend.schemas.requests import build
from tests.support.examples import examples

BERLIN = ZoneInfo("Europe/Berlin")
STEP = timedelta(minutes=15)

# Gaps and repeats of an hour, of half an hour and of two, at midnight and over it, by Ramadan; a day that never was.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Antarctica/Troll",
    "Asia/Beirut", "America/Havana", "America/Nuuk", "Africa/Casablanca", "Pacific/Apia", "Asia/Kathmandu",
]  # fmt: skip


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """``2026-03-29 02:30`` as that zone's wall shows it, in milliseconds."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold))


def following(rule: Recurrence, now_ms: int, zone: ZoneInfo, until: int) -> list[int]:
    """Every time after ``now_ms`` and before ``until``, one asked for after the other."""
    found: list[int] = []
    while (now_ms := next_after(rule, now_ms, zone) or until) < until:
        found.append(now_ms)
    return found


def matches(rule: Recurrence, day: date) -> bool:
    if rule.day_of_month is not None:
        return day.day == rule.day_of_month or (
            rule.day_of_month > day.day == monthrange(day.year, day.month)[1]
        )  # fmt: skip
    return DAYS[day.weekday()] in (rule.days or DAYS)


def walk(rule: Recurrence, now_ms: int, zone: ZoneInfo, until: int, step: timedelta = STEP) -> list[int]:
    """The same by looking at the wall every ``step``: what it shows for the first time counts; what it jumped over
    counts as long after the jump as it would have been after it."""
    timestamp = to_datetime(now_ms - now_ms % (step // timedelta(milliseconds=1))) - timedelta(days=3)
    found: set[int] = set()
    latest = timestamp.astimezone(zone).replace(tzinfo=None)
    while (timestamp := timestamp + step) < to_datetime(until):
        wall = timestamp.astimezone(zone).replace(tzinfo=None)
        begin, shown = latest + step, latest + step
        while shown <= wall:
            if shown.strftime("%H:%M") == rule.at and matches(rule, shown.date()):
                found.add(to_ms(timestamp + (timedelta(0) if shown == wall else shown - begin)))
            shown += step
        latest = max(latest, wall)
    return sorted(time for time in found if now_ms < time < until)


rules = st.one_of(
    st.builds(dict, days=st.none() | st.lists(st.sampled_from(DAYS), min_size=1, max_size=7, unique=True)),
    st.builds(dict, day_of_month=st.integers(1, 31)),
)
timestamps = st.builds(
    lambda year, month, rest: to_ms(datetime(year, month, 1, tzinfo=UTC)) + rest,
    st.integers(1980, 2037),
    st.sampled_from([*range(1, 13), 3, 3, 4, 9, 10, 10, 11]),
    st.integers(0, 31 * DAY_MS),
)
zones = st.sampled_from(ZONES)


# --- the wall clock ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=examples(150))
@given(zones, rules, st.integers(0, 95), timestamps)
@example("Europe/Berlin", {}, 10, at("2026-03-28 12:00"))
@example("Europe/Berlin", {"days": ["sun"]}, 10, at("2026-10-24 12:00"))
@example("America/Sao_Paulo", {}, 2, at("2018-11-03 12:00"))
@example("America/Nuuk", {"days": ["sat"]}, 94, at("2024-03-29 12:00"))
@example("America/Nuuk", {}, 94, at("2024-03-31 01:10"))  # ten past midnight on Sunday: Saturday's is still to come
@example("America/Nuuk", {}, 94, at("2024-10-26 12:00"))
@example("Pacific/Apia", {"days": ["fri"]}, 48, at("2011-12-28 12:00"))
@example("Pacific/Apia", {"day_of_month": 30}, 0, at("2011-12-28 12:00"))
@example("UTC", {"day_of_month": 31}, 0, at("2028-02-01 12:00"))
def test_it_is_what_a_walk_over_the_clock_finds(zone: str, when: dict[str, Any], quarter: int, now_ms: int) -> None:
    rule = Recurrence(at=f"{quarter // 4:02}:{quarter % 4 * 15:02}", **when)
    until = now_ms + 35 * DAY_MS
    assert following(rule, now_ms, ZoneInfo(zone), until) == walk(rule, now_ms, ZoneInfo(zone), until)


@settings(deadline=None, max_examples=examples(150))
@given(zones, rules, st.integers(0, 1439), timestamps)
def test_it_comes_once_on_every_day_that_matches_and_never_goes_back(
    zone: str, when: dict[str, Any], minute: int, now_ms: int
) -> None:
    rule, local = Recurrence(at=f"{minute // 60:02}:{minute % 60:02}", **when), ZoneInfo(zone)
    found = following(rule, now_ms, local, now_ms + 70 * DAY_MS)
    assert all(earlier < later for earlier, later in pairwise([now_ms, *found]))
    shown = [to_datetime(ms).astimezone(local) for ms in found]
    on_time = [wall.date() for wall in shown if wall.strftime("%H:%M") == rule.at and matches(rule, wall.date())]
    assert len(set(on_time)) == len(on_time)
    first, last = to_datetime(now_ms).astimezone(local).date(), to_datetime(now_ms + 70 * DAY_MS).astimezone(local)
    between = [first + timedelta(days=days) for days in range(1, (last.date() - first).days)]
    wanted = {day for day in between if matches(rule, day)} - set(on_time)
    assert all(_skipped(day, minute, local) for day in wanted)


def _skipped(day: date, minute: int, zone: ZoneInfo) -> bool:
    wall = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone)
    return wall.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall.replace(tzinfo=None)


def test_where_clocks_change_a_minute_past_midnight_the_walk_agrees_too() -> None:
    zone = ZoneInfo("America/St_Johns")
    for text, wall in (("2010-03-13 12:00", "00:30"), ("2010-11-06 12:00", "23:30"), ("2010-11-06 12:00", "00:00")):
        rule, now_ms = Recurrence(at=wall), at(text)
        until = now_ms + 4 * DAY_MS
        assert following(rule, now_ms, zone, until) == walk(rule, now_ms, zone, until, timedelta(minutes=1))


def test_a_time_in_a_gap_happens_once_after_it() -> None:
    rule, began = Recurrence(at="02:30"), at("2026-03-28 03:00", "Europe/Berlin")
    assert following(rule, began, BERLIN, at("2026-03-31 00:00", "Europe/Berlin")) == [
        at("2026-03-29 03:30", "Europe/Berlin"),
        at("2026-03-30 02:30", "Europe/Berlin"),
    ]


def test_a_time_that_comes_twice_happens_the_first_time_and_not_the_second() -> None:
    rule, first = Recurrence(at="02:30"), at("2026-10-25 02:30", "Europe/Berlin")
    second = at("2026-10-25 02:30", "Europe/Berlin", fold=1)
    assert second - first == 60 * MINUTE_MS
    assert next_after(rule, first - 1, BERLIN) == first
    for now_ms in (first, first + MINUTE_MS, second - 1, second, second + 1):
        assert next_after(rule, now_ms, BERLIN) == at("2026-10-26 02:30", "Europe/Berlin")


@pytest.mark.parametrize(
    ("day", "now", "expected"),
    [
        (31, "2026-01-31", "2026-02-28"),
        (31, "2028-02-01", "2028-02-29"),
        (30, "2026-02-10", "2026-02-28"),
        (31, "2026-03-31", "2026-04-30"),
        (15, "2026-12-15", "2027-01-15"),
        (1, "2026-12-31", "2027-01-01"),
    ],
)
def test_a_month_without_that_day_uses_its_last(day: int, now: str, expected: str) -> None:
    rule = Recurrence(at="08:00", day_of_month=day)
    assert next_after(rule, at(f"{now} 09:00"), ZoneInfo("UTC")) == at(f"{expected} 08:00")


def test_the_rules_own_zone_goes_before_the_one_given() -> None:
    now_ms = at("2026-06-10 12:00")
    assert next_after(Recurrence(at="09:00", timezone="Asia/Tokyo"), now_ms, BERLIN) == at(
        "2026-06-11 09:00", "Asia/Tokyo"
    )
    assert next_after(Recurrence(at="09:00"), now_ms, BERLIN) == at("2026-06-11 09:00", "Europe/Berlin")


# --- every so many minutes --------------------------------------------------------------------------------------------


@given(st.integers(1, 10_080), timestamps, st.integers(-40 * DAY_MS, 400 * DAY_MS), st.booleans())
def test_every_so_many_minutes_is_counted_from_the_beginning_and_never_drifts(
    minutes: int, begin: int, later: int, starts: bool
) -> None:
    rule = Recurrence(every_minutes=minutes, starts_at=to_datetime(begin) if starts else None)
    now_ms, step = begin + later, minutes * MINUTE_MS
    found = next_after(rule, now_ms, BERLIN, 0 if starts else begin)
    assert found is not None
    assert found > now_ms
    assert (found - begin) % step == 0
    assert found == begin if now_ms < begin else found - step <= now_ms


# --- beginning and end ------------------------------------------------------------------------------------------------


@given(rules | st.just({"every_minutes": 90}), timestamps, st.integers(-10 * DAY_MS, 50 * DAY_MS), st.integers(0, 40))
def test_nothing_happens_before_the_start_or_after_the_end(
    when: dict[str, Any], now_ms: int, start: int, days: int
) -> None:
    fields = when if "every_minutes" in when else when | {"at": "09:00"}
    starts, ends = to_datetime(now_ms + start), to_datetime(now_ms + start + days * DAY_MS)
    rule = Recurrence(**fields, starts_at=starts, ends_at=ends)
    found = following(rule, now_ms, BERLIN, now_ms + 100 * DAY_MS)
    assert all(to_ms(starts) <= ms <= to_ms(ends) for ms in found)
    free = Recurrence(**fields, starts_at=starts if "every_minutes" in when else None)
    within = following(free, max(now_ms, to_ms(starts) - 1), BERLIN, to_ms(ends) + 1)
    assert found == [ms for ms in within if ms > now_ms]


def test_the_start_and_the_end_themselves_belong_to_it() -> None:
    nine = datetime(2026, 6, 11, 9, tzinfo=UTC)
    rule = Recurrence(at="09:00", timezone="UTC", starts_at=nine, ends_at=nine)
    assert next_after(rule, at("2026-06-01 00:00"), BERLIN) == to_ms(nine)
    assert next_after(rule, to_ms(nine), BERLIN) is None
    hourly = Recurrence(every_minutes=60, starts_at=nine, ends_at=nine + timedelta(hours=1))
    assert following(hourly, 0, BERLIN, 2**50) == [to_ms(nine), to_ms(nine) + 60 * MINUTE_MS]


# --- what is no rule --------------------------------------------------------------------------------------------------


def bad_rules() -> Iterator[tuple[dict[str, Any], str]]:
    yield {}, "at"
    yield {"at": "09:00", "every_minutes": 5}, "at"
    yield {"every_minutes": 5, "days": ["mon"]}, "days"
    yield {"every_minutes": 5, "day_of_month": 1}, "day_of_month"
    yield {"at": "09:00", "days": ["mon"], "day_of_month": 1}, "day_of_month"
    yield {"at": "09:00", "days": ["mon", "mon"]}, "days"
    yield {"at": "09:00", "days": []}, "days"
    yield {"at": "09:00", "days": ["Monday"]}, "days.0"
    for day in (0, 32, -1):
        yield {"at": "09:00", "day_of_month": day}, "day_of_month"
    for minutes in (0, -5, 10_081, 10**30, 1.5, True, "5"):
        yield {"every_minutes": minutes}, "every_minutes"
    for time in ("", "9:00", "24:00", "09:60", "09:00:00", "09:00\n", "٠٩:٠٠", "09-00", " 09:00"):
        yield {"at": time}, "at"
    for zone in (
        "Mars/Olympus",
        "../../etc/passwd",
        "/etc/passwd",
        "Europe",
        "Europe/Berlin\n",
        "zone.tab",
        "x" * 65,
    ):
        yield {"at": "09:00", "timezone": zone}, "timezone"
    yield (
        {"at": "09:00", "starts_at": datetime(2026, 1, 2, tzinfo=UTC), "ends_at": datetime(2026, 1, 1, tzinfo=UTC)},
        ("ends_at"),
    )
    yield {"at": "09:00", "starts_at": "2026-01-01T00:00:00"}, "starts_at"
    yield {"at": "09:00", "weekdays": ["mon"]}, "weekdays"


@pytest.mark.parametrize(("fields", "field"), [*bad_rules()])
def test_what_is_no_rule_is_refused_by_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        check(build(Recurrence, **fields))
    assert [error.field for error in refusal.value.errors] == [field]


@pytest.mark.parametrize("zone", ZONES)
def test_a_zone_is_known_by_its_iana_name(zone: str) -> None:
    check(Recurrence(at="09:00", timezone=zone))
    assert zone_named(zone).key == zone
