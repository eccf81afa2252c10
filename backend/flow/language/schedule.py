"""Schedules of jobs: cron expressions of five fields, words, and intervals; a pure function to the next time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from flashflow.backend.core.clock import HOUR_MS, MINUTE_MS, to_ms
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import local_time
from flashflow.backend.schemas.requests import WEEK_MINUTES

WORDS = {
    "every_minute": "* * * * *",
    "every_5_minutes": "*/5 * * * *",
    "every_10_minutes": "*/10 * * * *",
    "every_15_minutes": "*/15 * * * *",
    "every_30_minutes": "*/30 * * * *",
    "every_hour": "0 * * * *",
    "hourly": "0 * * * *",
    "every_day": "0 0 * * *",
    "daily": "0 0 * * *",
    "every_week": "0 0 * * 1",
    "weekly": "0 0 * * 1",
    "every_month": "0 0 1 * *",
    "monthly": "0 0 1 * *",
}
"""Word schedules and their cron expressions."""

UNITS = {"minute": 1, "hour": 60, "day": 24 * 60, "week": WEEK_MINUTES}
"""Units of ``every`` and ``within``, in minutes; the plural with ``s`` is accepted too."""

WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
"""Days in cron's order, from 0."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SEARCH_DAYS = 366 * 41
"""Days until the next time at most: 29 February on one weekday comes back within 40 years, over 2100 too."""


class _Column(NamedTuple):
    """Field of a cron expression: its name, range, and words for its values."""

    name: str
    first: int
    last: int
    words: tuple[str, ...] = ()


_COLUMNS = (
    _Column("minute", 0, 59),
    _Column("hour", 0, 23),
    _Column("day of the month", 1, 31),
    _Column("month", 1, 12, _MONTHS),
    _Column("weekday", 0, 7, tuple(day[:3] for day in WEEKDAYS)),
)
_PART = re.compile(
    r"(?P<all>\*)?(?:(?P<from>[a-z]+|[0-9]{1,2})(?:-(?P<to>[a-z]+|[0-9]{1,2}))?)?(?:/(?P<step>[0-9]{1,2}))?"
)


@dataclass(frozen=True, slots=True)
class Cron:
    """Cron expression: the minutes, hours, days, months and weekdays (0: Sunday) at which it fires. As in cron, a day
    fits if its date or its weekday does, where the expression limits both."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def fits(self, day: date) -> bool:
        """Whether it fires on that day."""
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date and by_weekday if self.any_day or self.any_weekday else by_date or by_weekday

    def next_after(self, now_ms: int, zone: ZoneInfo) -> int:
        """Return the first time after ``now_ms``. A time in a gap (start of summer time) is later by the gap's length;
        of two times of one name the first counts, except where it fires in every hour."""
        day = local_time(now_ms, zone).date() - timedelta(days=1)
        for _ in range(_SEARCH_DAYS):
            if self.fits(day) and (found := [at for at in self._times(day, now_ms, zone) if at > now_ms]):
                return min(found)
            day += timedelta(days=1)
        raise AssertionError("a checked expression fires")

    def _times(self, day: date, now_ms: int, zone: ZoneInfo) -> Iterator[int]:
        hourly = len(self.hours) == 24
        for hour in sorted(self.hours):
            if to_ms(datetime.combine(day, time(hour, 59), zone)) + 3 * HOUR_MS <= now_ms:
                continue
            for minute in self.minutes:
                local = datetime.combine(day, time(hour, minute), zone)
                yield to_ms(local)
                if hourly:
                    yield to_ms(local.replace(fold=1))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job runs: a ``cron`` expression, or ``every_minutes``. ``text`` is how the file says it."""

    text: str
    cron: Cron | None = None
    every_minutes: int | None = None

    def next_after(self, now_ms: int, zone: ZoneInfo, since_ms: int = 0) -> int:
        """Return the first time after ``now_ms``. ``zone`` is that of cron; an interval counts from ``since_ms``."""
        if self.cron is not None:
            return self.cron.next_after(now_ms, zone)
        assert self.every_minutes is not None
        step = self.every_minutes * MINUTE_MS
        return since_ms + max(0, (now_ms - since_ms) // step + 1) * step


def parse_schedule(text: str) -> Schedule:
    """Parse a word, ``cron(…)`` or five cron fields. Raises ValidationError with a message for the schedule."""
    words = WORDS.get(text)
    if words is not None:
        return Schedule(text, _parse_cron(words))
    inner = re.fullmatch(r"cron\((.*)\)", text)
    return Schedule(text, _parse_cron(inner[1] if inner else text))


def _parse_cron(text: str) -> Cron:
    fields = text.split()
    if len(fields) != len(_COLUMNS):
        known = ", ".join(list(WORDS)[:3])
        raise ValidationError(
            f"a schedule has five fields (minute hour day month weekday), or is a word such as {known}; this has"
            f" {len(fields)}"
        )
    minutes, hours, days, months, weekdays = (_values(*pair) for pair in zip(fields, _COLUMNS, strict=True))
    cron = Cron(
        minutes, hours, days, months, frozenset(day % 7 for day in weekdays),
        any_day=fields[2].startswith("*"), any_weekday=fields[4].startswith("*"),
    )  # fmt: skip
    dates = any(min(cron.days) <= _LONGEST[month - 1] for month in cron.months)
    if not dates and (cron.any_day or cron.any_weekday):
        raise ValidationError(f"this never happens: no month of the schedule has a day {min(cron.days)}")
    return cron


def _values(text: str, column: _Column) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        match = _PART.fullmatch(part)
        if match is None or (match["all"] is None) == (match["from"] is None):
            raise ValidationError(f"“{part}” is no {column.name} of a cron expression; write *, 5, 1-5, */10 or 1,2")
        first = column.first if match["all"] else _value(match["from"], column)
        last = column.last if match["all"] or match["step"] else first
        last = _value(match["to"], column) if match["to"] else last
        step = int(match["step"] or 1)
        if step == 0 or last < first:
            raise ValidationError(f"“{part}” has no {column.name}; a range goes upward, and a step is at least 1")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _value(text: str, column: _Column) -> int:
    if text in column.words:
        return column.first + column.words.index(text)
    if not text.isdigit() or not column.first <= int(text) <= column.last:
        raise ValidationError(f"“{text}” is no {column.name}: it goes from {column.first} to {column.last}")
    return int(text)
