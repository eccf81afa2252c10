"""Quiet hours and digests by the clock on the wall: over midnight, by weekday, and where clocks change."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from flashflow.backend.core.clock import DAY_MS, HOUR_MS, MINUTE_MS, rfc3339, to_datetime, to_ms
from flashflow.backend.core.timezones import DAYS, is_zone
from flashflow.backend.domain.quiet_hours import Digest, QuietHours
from tests.support.examples import examples

BERLIN, HOWE = "Europe/Berlin", "Australia/Lord_Howe"

# Berlin goes 02:00 → 03:00 on 29 March 2026 and 03:00 → 02:00 on 25 October; Lord Howe half an hour back on 5 April and
# on again on 4 October; Nuuk skips the last hour of a Saturday; Troll changes by two hours; Apia once skipped a Friday.
ZONES = (
    "UTC", BERLIN, HOWE, "America/New_York", "America/Nuuk", "Antarctica/Troll", "Asia/Kathmandu", "Asia/Kolkata",
    "Pacific/Apia", "Pacific/Chatham",
)  # fmt: skip


def ms(text: str) -> int:
    """``2026-03-29T01:00`` in UTC as milliseconds since 1970."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


def until(quiet: QuietHours, at: str) -> str | None:
    """When the quiet that covers ``at`` (in UTC) ends, in UTC to the minute."""
    end = quiet.until(ms(at))
    return None if end is None else rfc3339(end).removesuffix(":00.000Z")


def berlin(start: str, end: str, *days: str) -> QuietHours:
    return QuietHours(start=start, end=end, zone=BERLIN, days=days or DAYS)


# --- quiet hours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "end"),
    [
        ("2026-06-10T19:59:59.999", None),
        ("2026-06-10T20:00", "2026-06-11T05:00"),  # 22:00 in Berlin
        ("2026-06-10T22:30", "2026-06-11T05:00"),
        ("2026-06-11T04:59:59.999", "2026-06-11T05:00"),
        ("2026-06-11T05:00", None),
        ("2026-06-11T12:00", None),
    ],
)
def test_a_night_is_quiet_from_its_start_up_to_its_end(at: str, end: str | None) -> None:
    assert until(berlin("22:00", "07:00"), at) == end


@pytest.mark.parametrize(
    ("at", "end"),
    [("2026-06-10T10:59", None), ("2026-06-10T11:00", "2026-06-10T12:30"), ("2026-06-10T12:30", None)],
)
def test_a_rest_at_noon_stays_within_its_day(at: str, end: str | None) -> None:
    assert until(berlin("13:00", "14:30"), at) == end


@pytest.mark.parametrize(
    ("at", "end"),
    [
        ("2026-06-12T21:00", "2026-06-13T05:00"),  # Friday 23:00
        ("2026-06-13T02:00", "2026-06-13T05:00"),  # Saturday 04:00, still Friday's night
        ("2026-06-13T21:00", None),  # Saturday 23:00
        ("2026-06-14T02:00", None),  # Sunday 04:00, Saturday's night
        ("2026-06-11T22:30", None),  # Friday 00:30, Thursday's night
    ],
)
def test_a_day_belongs_to_the_quiet_that_begins_on_it(at: str, end: str | None) -> None:
    assert until(berlin("22:00", "07:00", "fri"), at) == end


def test_the_same_start_and_end_is_a_whole_day() -> None:
    quiet = berlin("09:00", "09:00", "mon")
    assert until(quiet, "2026-06-08T06:59") is None
    assert until(quiet, "2026-06-08T07:00") == "2026-06-09T07:00"
    assert until(quiet, "2026-06-09T06:59") == "2026-06-09T07:00"
    assert until(quiet, "2026-06-09T07:00") is None


def test_whole_days_in_a_row_are_one_quiet() -> None:
    weekend = berlin("00:00", "00:00", "sat", "sun")
    assert until(weekend, "2026-06-12T21:59") is None
    assert until(weekend, "2026-06-12T22:00") == "2026-06-14T22:00"
    assert until(weekend, "2026-06-14T21:59") == "2026-06-14T22:00"
    six = berlin("00:00", "00:00", *DAYS[:6])
    assert until(six, "2026-06-07T22:00") == "2026-06-13T22:00"


def test_quiet_all_week_looks_a_week_ahead() -> None:
    end = berlin("05:00", "05:00").until(ms("2026-06-10T12:00"))
    assert end is not None
    assert end - ms("2026-06-10T12:00") >= 7 * DAY_MS


# --- summer time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "at", "expected"),
    [
        # 29 March: 01:59:59 in Berlin is followed by 03:00, at 01:00 UTC
        ("22:00", "07:00", "2026-03-28T21:00", "2026-03-29T05:00"),  # an hour less to sleep
        ("22:00", "02:30", "2026-03-29T00:59", "2026-03-29T01:00"),  # ends inside the gap: when it is over
        ("22:00", "02:30", "2026-03-29T01:00", None),
        ("02:30", "06:00", "2026-03-29T00:59", None),
        ("02:30", "06:00", "2026-03-29T01:00", "2026-03-29T04:00"),  # begins inside the gap: when it is over
        ("02:10", "02:50", "2026-03-29T00:59", None),
        ("02:10", "02:50", "2026-03-29T01:00", None),  # lies inside the gap: never
        ("02:00", "03:00", "2026-03-29T01:00", None),
        # 25 October: 02:59:59 is followed by 02:00 once more, at 01:00 UTC
        ("22:00", "07:00", "2026-10-24T21:00", "2026-10-25T06:00"),  # an hour more
        ("22:00", "02:30", "2026-10-25T00:29", "2026-10-25T01:30"),  # ends inside the hour: the second time
        ("22:00", "02:30", "2026-10-25T00:45", "2026-10-25T01:30"),
        ("22:00", "02:30", "2026-10-25T01:30", None),
        ("02:30", "06:00", "2026-10-25T00:29", None),
        ("02:30", "06:00", "2026-10-25T00:30", "2026-10-25T05:00"),  # begins inside the hour: the first time
        ("02:30", "06:00", "2026-10-25T01:10", "2026-10-25T05:00"),  # and is not interrupted by 02:10
        ("02:10", "02:50", "2026-10-25T00:10", "2026-10-25T01:50"),
        ("02:10", "02:50", "2026-10-25T01:05", "2026-10-25T01:50"),
        ("02:10", "02:50", "2026-10-25T01:50", None),
        ("03:00", "04:00", "2026-10-25T01:59", None),
        ("03:00", "04:00", "2026-10-25T02:00", "2026-10-25T03:00"),
    ],
)
def test_nobody_is_woken_between_where_berlin_changes_its_clocks(
    start: str, end: str, at: str, expected: str | None
) -> None:
    assert until(berlin(start, end), at) == expected


@pytest.mark.parametrize(
    ("start", "end", "at", "expected"),
    [
        # 5 April at 15:00 UTC of the day before: 01:59:59 is followed by 01:30
        ("22:00", "01:45", "2026-04-04T14:50", "2026-04-04T15:15"),
        ("22:00", "01:45", "2026-04-04T15:15", None),
        ("01:45", "06:00", "2026-04-04T14:44", None),
        ("01:45", "06:00", "2026-04-04T15:05", "2026-04-04T19:30"),
        # 4 October at 15:30 UTC of the day before: 01:59:59 is followed by 02:30
        ("22:00", "02:15", "2026-10-03T15:29", "2026-10-03T15:30"),
        ("22:00", "02:15", "2026-10-03T15:30", None),
        ("02:15", "06:00", "2026-10-03T15:29", None),
        ("02:15", "06:00", "2026-10-03T15:30", "2026-10-03T19:00"),
    ],
)
def test_lord_howe_changes_by_half_an_hour(start: str, end: str, at: str, expected: str | None) -> None:
    assert until(QuietHours(start=start, end=end, zone=HOWE), at) == expected


@pytest.mark.parametrize(
    ("zone", "begins", "ends"),
    [
        ("Asia/Kolkata", "2026-06-10T16:30", "2026-06-11T01:30"),
        ("Asia/Kathmandu", "2026-06-10T16:15", "2026-06-11T01:15"),
        ("Pacific/Kiritimati", "2026-06-10T08:00", "2026-06-10T17:00"),
        ("Etc/GMT+12", "2026-06-11T10:00", "2026-06-11T19:00"),
    ],
)
def test_zones_off_the_full_hour_and_far_from_greenwich(zone: str, begins: str, ends: str) -> None:
    quiet = QuietHours(start="22:00", end="07:00", zone=zone)
    assert quiet.until(ms(begins) - 1) is None
    assert quiet.until(ms(begins)) == ms(ends)
    assert quiet.until(ms(ends) - 1) == ms(ends)
    assert quiet.until(ms(ends)) is None


def test_a_night_that_begins_on_a_day_that_was_skipped() -> None:
    # Samoa went from Thursday 29 to Saturday 31 December 2011, at 10:00 UTC of the 30th.
    quiet = QuietHours(start="22:00", end="07:00", zone="Pacific/Apia", days=("fri",))
    assert quiet.until(ms("2011-12-30T09:59")) is None
    assert until(quiet, "2011-12-30T10:00") == "2011-12-30T17:00"
    assert (
        QuietHours(start="09:00", end="17:00", zone="Pacific/Apia", days=("fri",)).until(ms("2011-12-30T10:00")) is None
    )


def test_clocks_that_go_back_over_midnight_take_no_quiet_back() -> None:
    # St John's on 4 November 2007: 00:00:59 was followed by 23:01 of the day before, at 02:31 UTC.
    quiet = QuietHours(start="00:00", end="06:00", zone="America/St_Johns", days=("sun",))
    assert until(quiet, "2007-11-04T02:30") == "2007-11-04T09:30"
    assert until(quiet, "2007-11-04T02:45") == "2007-11-04T09:30"


# --- against a walk minute by minute ----------------------------------------------------------------------------------

clock_times = st.times().map(lambda at: f"{at:%H:%M}")
day_sets = st.sets(st.sampled_from(DAYS), min_size=1).map(lambda days: tuple(d for d in DAYS if d in days))
changes = st.sampled_from(
    [
        "2026-03-29T01:00", "2026-10-25T01:00", "2026-04-04T15:00", "2026-10-03T15:30", "2026-03-08T07:00",
        "2026-11-01T06:00", "2026-04-04T14:00", "2026-09-26T14:00", "2011-12-30T10:00",
    ]
).map(ms)  # fmt: skip
timestamps = st.one_of(
    st.integers(ms("2026-01-01"), ms("2027-12-31")),
    st.builds(lambda at, off: at + off, changes, st.integers(-30 * HOUR_MS, 30 * HOUR_MS)),
    st.builds(lambda at, off: at + off * MINUTE_MS, changes, st.integers(-180, 180)),
)
quiet_hours = st.builds(
    QuietHours, start=clock_times, end=clock_times, zone=st.sampled_from(ZONES), days=day_sets | st.just(DAYS)
)


class Minute(NamedTuple):
    """A minute of the walk: when it begins (milliseconds), and what the wall shows then (minutes since 1970)."""

    at: int
    wall: int


@cache
def minutes_of(day: int, zone: str) -> tuple[Minute, ...]:
    """The 1,440 minutes of one day in UTC, counted from 1970, in ``zone``."""
    place = ZoneInfo(zone)
    return tuple(
        Minute(at, on_the_wall(to_datetime(at).astimezone(place)))
        for at in range(day * DAY_MS, (day + 1) * DAY_MS, MINUTE_MS)
    )


def on_the_wall(local: datetime) -> int:
    return to_ms(local.replace(tzinfo=UTC)) // MINUTE_MS


def walk(first: int, days: int, zone: str) -> list[Minute]:
    """Minute by minute from the day ``first`` (in UTC, counted from 1970)."""
    return [minute for day in range(first, first + days) for minute in minutes_of(day, zone)]


def of_day(text: str) -> int:
    """``07:30`` in minutes."""
    return int(text[:2]) * 60 + int(text[3:])


def naively(quiet: QuietHours, day: int) -> tuple[int, int]:
    """From when to when the quiet that begins on ``day`` lasts, by looking at the wall every minute: from the first
    time that it shows the start or later, to the last time that it shows the end, or to where all earlier is over."""
    opens, closes = day * 1440 + of_day(quiet.start), day * 1440 + of_day(quiet.end)
    if quiet.end <= quiet.start:
        closes += 1440
    begins = ends = None
    for at, wall in walk(day - 1, 4, quiet.zone):
        if begins is None and wall >= opens:
            begins = at
        if wall < closes:
            ends = at + MINUTE_MS
        elif wall == closes:
            ends = at
    assert begins is not None
    assert ends is not None
    return begins, ends


def naive_until(quiet: QuietHours, now_ms: int) -> int | None:
    """``QuietHours.until`` by a walk, up to three days ahead."""
    today = now_ms // DAY_MS
    days = [day for day in range(today - 2, today + 5) if DAYS[(day + 3) % 7] in quiet.days]  # 1970 began on a Thursday
    spans = [naively(quiet, day) for day in days]
    end = now_ms
    while following := [ends for begins, ends in spans if begins <= end < ends]:
        end = max(following)
    return end if end > now_ms else None


@settings(deadline=None, max_examples=examples(150))
@given(quiet=quiet_hours, now_ms=timestamps)
@example(quiet=berlin("02:30", "02:30"), now_ms=ms("2026-10-25T00:45"))
@example(quiet=berlin("02:30", "02:00"), now_ms=ms("2026-03-29T00:30"))
@example(quiet=QuietHours(start="23:30", end="23:45", zone="America/Nuuk"), now_ms=ms("2026-03-29T01:00"))
def test_quiet_hours_agree_with_a_walk_minute_by_minute(quiet: QuietHours, now_ms: int) -> None:
    expected = naive_until(quiet, now_ms)
    found = quiet.until(now_ms)
    if expected is None or expected - now_ms < 2 * DAY_MS:
        assert found == expected
    else:  # days in a row, beyond where the walk ends
        assert found is not None
        assert found >= now_ms + 2 * DAY_MS


@settings(deadline=None, max_examples=examples(500))
@given(quiet=quiet_hours, now_ms=timestamps)
def test_at_its_end_it_is_quiet_no_more_and_just_before_it_still_is(quiet: QuietHours, now_ms: int) -> None:
    end = quiet.until(now_ms)
    assume(end is not None)
    assert end is not None
    assert end > now_ms
    assert quiet.until(end - 1) is not None
    if end - now_ms < 7 * DAY_MS:
        assert quiet.until(end) is None
        assert quiet.until(end - 1) == end
    else:
        assert len(quiet.days) == 7


@settings(deadline=None, max_examples=examples(300))
@given(quiet=quiet_hours, now_ms=timestamps, later=st.integers(0, 3 * DAY_MS))
def test_whenever_one_asks_during_a_quiet_its_end_is_the_same(quiet: QuietHours, now_ms: int, later: int) -> None:
    end = quiet.until(now_ms)
    assume(end is not None and end - now_ms < 7 * DAY_MS)
    assert end is not None
    assert quiet.until(min(now_ms + later, end - 1)) == end


# --- digests ----------------------------------------------------------------------------------------------------------


def following(digest: Digest, now_ms: int, count: int) -> list[str]:
    """The next times it goes out, in its own zone with the offset, to the minute."""
    found = []
    for _ in range(count):
        now_ms = digest.next(now_ms)
        found.append(to_datetime(now_ms).astimezone(ZoneInfo(digest.zone)).isoformat(timespec="minutes"))
    return found


def test_a_daily_digest_goes_out_at_its_time() -> None:
    digest = Digest(frequency="daily", zone=BERLIN, at="08:00")
    assert digest.next(ms("2026-06-10T05:59:59.999")) == ms("2026-06-10T06:00")
    assert digest.next(ms("2026-06-10T06:00")) == ms("2026-06-11T06:00")


@pytest.mark.parametrize(
    ("at", "now", "expected"),
    [
        ("02:30", "2026-03-28T12:00", ["03-29T03:00+02:00", "03-30T02:30+02:00"]),
        ("08:00", "2026-03-28T12:00", ["03-29T08:00+02:00", "03-30T08:00+02:00"]),
        ("02:30", "2026-10-24T12:00", ["10-25T02:30+02:00", "10-26T02:30+01:00"]),  # not at the second 02:30
        ("08:00", "2026-10-24T12:00", ["10-25T08:00+01:00", "10-26T08:00+01:00"]),
    ],
)
def test_a_daily_digest_goes_out_once_a_day_where_clocks_change(at: str, now: str, expected: list[str]) -> None:
    found = following(Digest(frequency="daily", zone=BERLIN, at=at), ms(now), 2)
    assert found == [f"2026-{each}" for each in expected]


def test_an_hourly_digest_goes_out_at_full_hours_of_the_wall() -> None:
    assert Digest(frequency="hourly", zone=BERLIN).next(ms("2026-06-10T12:00")) == ms("2026-06-10T13:00")
    assert Digest(frequency="hourly", zone=BERLIN).next(ms("2026-06-10T12:59:59.999")) == ms("2026-06-10T13:00")
    assert Digest(frequency="hourly", zone="Asia/Kolkata").next(ms("2026-06-10T12:10")) == ms("2026-06-10T12:30")
    assert Digest(frequency="hourly", zone="Asia/Kathmandu").next(ms("2026-06-10T12:10")) == ms("2026-06-10T12:15")


@pytest.mark.parametrize(
    ("zone", "now", "expected"),
    [
        (BERLIN, "2026-03-29T00:10", ["03-29T03:00+02:00", "03-29T04:00+02:00"]),
        (BERLIN, "2026-10-25T00:10", ["10-25T02:00+01:00", "10-25T03:00+01:00"]),
        (HOWE, "2026-04-04T14:10", ["04-05T02:00+10:30", "04-05T03:00+10:30"]),
        (HOWE, "2026-04-04T15:10", ["04-05T02:00+10:30", "04-05T03:00+10:30"]),
        (HOWE, "2026-10-03T15:10", ["10-04T03:00+11:00", "10-04T04:00+11:00"]),
    ],
)
def test_an_hourly_digest_keeps_to_full_hours_where_clocks_change(zone: str, now: str, expected: list[str]) -> None:
    assert following(Digest(frequency="hourly", zone=zone), ms(now), 2) == [f"2026-{each}" for each in expected]


def test_an_hourly_digest_takes_the_full_hour_that_a_change_leads_to() -> None:
    # Venezuela on 1 May 2016: 02:29:59 was followed by 03:00.
    assert following(Digest(frequency="hourly", zone="America/Caracas"), ms("2016-05-01T06:40"), 2) == [
        "2016-05-01T03:00-04:00",
        "2016-05-01T04:00-04:00",
    ]


@settings(deadline=None, max_examples=examples(300))
@given(zone=st.sampled_from(ZONES), now_ms=timestamps)
@example(zone=HOWE, now_ms=ms("2026-04-04T14:31"))
@example(zone=HOWE, now_ms=ms("2026-10-03T15:29"))
@example(zone="Antarctica/Troll", now_ms=ms("2026-10-25T00:30"))
def test_an_hourly_digest_agrees_with_a_walk_minute_by_minute(zone: str, now_ms: int) -> None:
    found = Digest(frequency="hourly", zone=zone).next(now_ms)
    walked = walk(now_ms // DAY_MS, 3, zone)
    assert found == next(minute.at for minute in walked if minute.at > now_ms and minute.wall % 60 == 0)


@settings(deadline=None, max_examples=examples(200))
@given(zone=st.sampled_from(ZONES), at=clock_times, now_ms=timestamps)
def test_a_daily_digest_agrees_with_a_walk_minute_by_minute(zone: str, at: str, now_ms: int) -> None:
    """Once for every day: the first minute that shows its time or, where that is skipped, later."""
    today = now_ms // DAY_MS
    times = [
        next(minute.at for minute in walk(day - 1, 4, zone) if minute.wall >= day * 1440 + of_day(at))
        for day in range(today - 1, today + 3)
    ]
    found = Digest(frequency="daily", zone=zone, at=at).next(now_ms)
    assert found > now_ms
    assert found == next(slot for slot in times if slot > now_ms)


@settings(deadline=None, max_examples=examples(100))
@given(zone=st.sampled_from([BERLIN, HOWE, "Asia/Kolkata"]), at=clock_times, now_ms=timestamps)
def test_a_daily_digest_goes_out_on_every_local_day_once(zone: str, at: str, now_ms: int) -> None:
    digest, days = Digest(frequency="daily", zone=zone, at=at), []
    for _ in range(10):
        now_ms = digest.next(now_ms)
        days.append(to_datetime(now_ms).astimezone(ZoneInfo(zone)).date())
    assert days == [days[0] + timedelta(days=ahead) for ahead in range(10)]


# --- the names of zones -----------------------------------------------------------------------------------------------


def test_every_zone_of_this_machine_is_known() -> None:
    beside = {"localtime", "Factory", "posixrules"}
    assert [name for name in sorted(available_timezones() - beside) if not is_zone(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "Mars/Olympus", "Europe", "Europe/", "/Europe/Berlin", "/etc/localtime", "../zoneinfo/UTC", "..",
        "Europe/../UTC", "Europe//Berlin", "./UTC", "Europe\\Berlin", "C:\\zone", "UTC\0", "UTC\n", " UTC", "UTC ",
        "Europe/Berlin\0x", "right/Europe/Berlin", "posix/Europe/Berlin", "localtime", "posixrules", "Factory",
        "zone.tab", "tzdata.zi", "leapseconds", "+02:00", "UTC+2", "CEST-2", "é", "\ud800", "a" * 64, "a" * 5000,
        "__init__", "Europe/__init__", "zoneinfo", "%2e%2e/UTC",
    ],
)  # fmt: skip
def test_what_is_no_zone_is_refused(name: str) -> None:
    assert not is_zone(name)


def test_a_zone_is_known_by_its_name_and_not_by_another_path_to_its_file(tmp_path: Path) -> None:
    # ``Europe\\Berlin`` is such a path on Windows; here a file of that very name stands for it.
    utc = b"TZif" + bytes(16) + bytes([0, 0, 0, 0] * 4 + [0, 0, 0, 1] + [0, 0, 0, 4]) + bytes(6) + b"UTC\0"  # RFC 9636
    paths = ("Europe\\Ruritania", "Europe/Ruri tania", "Europe/Ruritania.bak")
    (tmp_path / "Europe").mkdir()
    for name in ("Europe/Ruritania", *paths):
        (tmp_path / name).write_bytes(utc)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([tmp_path])
    try:
        assert is_zone("Europe/Ruritania")
        for name in paths:
            assert ZoneInfo.no_cache(name).key == name
            assert not is_zone(name)
    finally:
        zoneinfo.reset_tzpath(before)
