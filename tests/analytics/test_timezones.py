"""The workspace's clock, and the offsets it goes through."""

from __future__ import annotations

import sqlite3
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.analytics.timezone_hours import HOUR_MS, Clocks

DAY_MS = 86_400_000
QUARTER_MS = 15 * 60 * 1000
NOW = 1_795_000_000_000
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca",
         "Pacific/Apia", "America/Los_Angeles")  # fmt: skip


def in_force(offsets: list[tuple[int, int]], at: int) -> int:
    return next(offset for since, offset in reversed(offsets) if since <= at)


@given(
    zone=st.sampled_from(ZONES),
    low=st.integers(0, NOW),
    length=st.integers(0, 800 * DAY_MS),
    places=st.lists(st.floats(0, 1), max_size=20),
)
def test_the_offsets_of_a_range_are_those_of_every_moment_in_it(
    zone: str, low: int, length: int, places: list[float]
) -> None:
    local = LocalTime(ZoneInfo(zone))
    offsets = local.offsets(low, low + length)
    assert offsets[0] == (low, local.offset(low))
    for place in places:
        at = low + round(place * length)
        assert in_force(offsets, at) == local.offset(at)
    for since, offset in offsets[1:]:
        assert since % QUARTER_MS == 0
        assert local.offset(since - 1) != offset == local.offset(since)


@pytest.mark.parametrize("zone", ZONES)
def test_the_hour_in_sql_is_the_hour_of_the_clock(zone: str) -> None:
    local = LocalTime(ZoneInfo(zone))
    low, high = NOW - 400 * DAY_MS, NOW
    sql = Clocks(LocalTime(ZoneInfo("UTC")), local, low, high).away_sql("t", HOUR_MS)
    conn = sqlite3.connect(":memory:")
    since, until = low - 2 * DAY_MS, high + 2 * DAY_MS
    moments = [(moment,) for moment in range(since, until, 7_654_321)]
    conn.execute("CREATE TABLE moments (t INTEGER)")
    conn.executemany("INSERT INTO moments VALUES (?)", moments)
    for at, hour in conn.execute(f"SELECT t, {sql} FROM moments"):
        assert hour == local.hour(at)
    conn.close()
