"""Every moment is told by the other clock once: as part of a whole hour or day, or among what is left over."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend.core.timezones import LocalTime, to_day
from flashflow.backend.store.analytics.timezone_hours import DAY_MS, HOUR_MS, Clocks, told
from tests.support.examples import examples

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia",
    "Pacific/Chatham", "America/St_Johns",
)  # fmt: skip
QUARTER_MS = HOUR_MS // 4


def clocks(home: str, away: str, first: date, days: int) -> Clocks:
    there, day = LocalTime(ZoneInfo(away)), to_day(first)
    return Clocks(LocalTime(ZoneInfo(home)), there, there.start(day), there.start(day + days))


@settings(max_examples=examples(60), deadline=None)
@given(
    home=st.sampled_from(ZONES),
    away=st.sampled_from(ZONES),
    first=st.dates(date(2011, 12, 1), date(2027, 1, 1)) | st.just(date(2011, 12, 28)),
    days=st.integers(1, 9) | st.just(200),
    units=st.sampled_from([(HOUR_MS, HOUR_MS), (HOUR_MS, DAY_MS), (DAY_MS, None)]),
)
def test_nothing_is_told_twice_or_lost(
    home: str, away: str, first: date, days: int, units: tuple[int, int | None]
) -> None:
    two = clocks(home, away, first, days)
    home_unit, away_unit = units
    found = told(two, home_unit, away_unit)
    whole = dict(found.whole)
    assert len(whole) == len(found.whole)
    assert all(low < high for low, high in found.rest)
    assert all(one[1] < other[0] for one, other in zip(found.rest, found.rest[1:], strict=False))
    left = {moment for low, high in found.rest for moment in range(low, high, QUARTER_MS)}
    for moment in range(two.start - 2 * DAY_MS, two.end + 2 * DAY_MS, QUARTER_MS):
        unit = two.home.hour(moment) * HOUR_MS // home_unit
        inside = two.start <= moment < two.end
        assert (moment in left) + (unit in whole) == inside, moment
        if unit in whole:
            assert whole[unit] == (0 if away_unit is None else two.away.hour(moment) * HOUR_MS // away_unit)


@pytest.mark.parametrize(
    ("home", "away", "units", "hours_left"),
    [
        ("UTC", "Asia/Tokyo", (HOUR_MS, HOUR_MS), 0),
        ("UTC", "Asia/Tokyo", (HOUR_MS, DAY_MS), 0),
        ("UTC", "Asia/Tokyo", (DAY_MS, None), 24),  # the end of one day and the beginning of another
        ("UTC", "Asia/Kolkata", (HOUR_MS, HOUR_MS), 10 * 24),
        ("UTC", "Asia/Kolkata", (HOUR_MS, DAY_MS), 10),  # each midnight's hour, half of the first and of the last
        ("Europe/Berlin", "UTC", (HOUR_MS, HOUR_MS), 2),  # the hour that comes twice
        ("Europe/Berlin", "Europe/Paris", (HOUR_MS, HOUR_MS), 0),  # for both of them
    ],
)
def test_no_more_is_left_over_than_has_to_be(
    home: str, away: str, units: tuple[int, int | None], hours_left: int
) -> None:
    found = told(clocks(home, away, date(2026, 10, 20), 10), *units)
    assert sum(high - low for low, high in found.rest) == hours_left * HOUR_MS
