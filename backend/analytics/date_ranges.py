"""Periods of local days, the one before that is compared with, and how two numbers compare (DEFINITIONS.md)."""

from __future__ import annotations

from datetime import date
from typing import Literal, NamedTuple

from flashflow.backend.core.clock import HOUR_MS, to_datetime
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.timezones import LocalTime, to_date, to_day
from flashflow.backend.schemas.analytics import Metric, Number, Period
from flashflow.backend.store.analytics.totals import Cut

Compare = Literal["previous", "weekday", "none"]
DEFAULT_DAYS = 7
MOST_DAYS = 3_660
WEEK_DAYS = 7
MONTH_DAYS = 28


class DateRange(NamedTuple):
    """Local days ``first`` to ``last``; ``cut`` where only part of the last one is meant."""

    first: int
    last: int
    cut: Cut | None = None

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    def bounds(self, local: LocalTime) -> tuple[int, int]:
        """The first and the last-plus-one millisecond of the days, whatever the cut."""
        return local.start(self.first), local.start(self.last + 1)

    def record(self, until_ms: int | None = None) -> Period:
        """As the answers tell it; ``until_ms``: where a day still running has come to."""
        until = until_ms if self.cut is None else self.cut.at
        return Period(
            first=to_date(self.first),
            last=to_date(self.last),
            until=None if until is None else to_datetime(until),
        )


def requested_days(first: date | None, last: date | None, today: int) -> DateRange:
    """The days from ``first`` to ``last``; without them the seven that end today. Raises ValidationError."""
    end = today if last is None else to_day(last)
    begin = end - DEFAULT_DAYS + 1 if first is None else to_day(first)
    if begin > end:
        raise ValidationError.of("from", "must not lie after to")
    if end - begin >= MOST_DAYS:
        raise ValidationError.of("from", f"may lie {MOST_DAYS} days before to at most")
    if begin < 0 or end > today + MOST_DAYS:
        raise ValidationError.of("from" if begin < 0 else "to", "is out of range")
    return DateRange(begin, end)


def days_back(days: DateRange, compare: Compare) -> int:
    """By how many days the period before lies before ``days``."""
    return {"none": 0, "previous": days.length, "weekday": -(-days.length // WEEK_DAYS) * WEEK_DAYS}[compare]


def days_before(days: DateRange, compare: Compare, local: LocalTime, now_ms: int) -> DateRange | None:
    """As many days before ``days`` (``weekday``: whole weeks before, so that each falls on its own weekday); where
    today is the last of ``days``, cut where today has come to."""
    if compare == "none":
        return None
    shift = days_back(days, compare)
    first, last = days.first - shift, days.last - shift
    if first < 0:
        return None
    today = local.day(now_ms)
    if days.last < today:
        return DateRange(first, last)
    elapsed = now_ms - local.start(today) if days.last == today else 0
    if days.last > today:  # a period that reaches into the future has come as far as today
        last -= days.last - today
        elapsed = now_ms - local.start(today)
    start, end = local.start(last), local.start(last + 1)
    return DateRange(first, last, cut_at(min(start + elapsed, end), last, local))


def cut_at(at: int, day: int, local: LocalTime) -> Cut:
    """The moment ``at`` in the local day ``day``, with its hour (the first of two that bear one name)."""
    hour = local.hour(at)
    start = at - (at + local.offset(at)) % HOUR_MS
    while local.hour(start - 1) == hour:
        start -= HOUR_MS
    return Cut(at, hour, start, local.start(day))


def compared(value: Number | None, previous: Number | None) -> Metric:
    """(now − before) / before; “new” where there was nothing before and there is now; 0 to 0 is no change."""
    if value is None or previous is None:
        return Metric(value=value, previous=previous)
    if previous == 0:
        return Metric(value=value, previous=previous, change="new" if value > 0 else 0.0)
    return Metric(value=value, previous=previous, change=(value - previous) / previous)


def ratio(part: Number, whole: Number) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole else None
