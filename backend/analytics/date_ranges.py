"""Date ranges of local days, the comparison range, and the change between two values (domain/metric_definitions)."""

from __future__ import annotations

from datetime import date
from typing import Literal

from flashflow.backend.core.clock import HOUR_MS, to_datetime
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import LocalTime, to_date, to_day
from flashflow.backend.schemas.analytics import Metric, Number, Period
from flashflow.backend.store.analytics.totals import Cut

Compare = Literal["previous", "weekday", "none"]
DEFAULT_DAYS = 7
MOST_DAYS = 3_660
WEEK_DAYS = 7
MONTH_DAYS = 28


class DateRange(NamedTuple):
    """Local days ``first`` to ``last``, both included; ``cut`` ends the last day early."""

    first: int
    last: int
    cut: Cut | None = None

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    def bounds(self, local: LocalTime) -> tuple[int, int]:
        """Return the first and the last-plus-one millisecond of the days, ignoring the cut."""
        return local.start(self.first), local.start(self.last + 1)

    def record(self, until_ms: int | None = None) -> Period:
        """Return the response's form; ``until_ms`` is the current time if the last day is not over."""
        until = until_ms if self.cut is None else self.cut.at
        return Period(
            first=to_date(self.first),
            last=to_date(self.last),
            until=None if until is None else to_datetime(until),
        )


def requested_days(first: date | None, last: date | None, today: int) -> DateRange:
    """Validate ``first`` to ``last``; the default is the seven days that end today. Raises ValidationError."""
    end = today if last is None else to_day(last)
    begin = end - DEFAULT_DAYS + 1 if first is None else to_day(first)
    if begin > end:
        raise ValidationError.of("from", "must not be after to")
    if end - begin >= MOST_DAYS:
        raise ValidationError.of("from", f"may be at most {MOST_DAYS} days before to")
    if begin < 0 or end > today + MOST_DAYS:
        raise ValidationError.of("from" if begin < 0 else "to", "is out of range")
    return DateRange(begin, end)


def days_back(days: DateRange, compare: Compare) -> int:
    """Return the days between ``days`` and its comparison range; ``weekday`` rounds up to whole weeks."""
    return {"none": 0, "previous": days.length, "weekday": -(-days.length // WEEK_DAYS) * WEEK_DAYS}[compare]


def days_before(days: DateRange, compare: Compare, local: LocalTime, now_ms: int) -> DateRange | None:
    """Return the comparison range of the same length (``weekday``: shifted by whole weeks), cut at the current time of
    day where ``days`` ends today. None without a comparison, or where it would start before 1970."""
    if compare == "none":
        return None
    shift = days_back(days, compare)
    first, last = days.first - shift, days.last - shift
    if first < 0:
        return None
    today = local.day(now_ms)
    if days.last < today:
        return DateRange(first, last)
    last -= days.last - today  # a range that ends in the future is compared up to today
    start, end = local.start(last), local.start(last + 1)
    elapsed = now_ms - local.start(today)
    return DateRange(first, last, cut_at(min(start + elapsed, end), last, local))


def cut_at(at: int, day: int, local: LocalTime) -> Cut:
    """Return the cut at ``at`` (milliseconds since 1970) in the local day ``day``.

    Where the clock is set back, two hours have one number: the cut's hour starts with the first.
    """
    hour = local.hour(at)
    start = at - (at + local.offset(at)) % HOUR_MS
    while local.hour(start - 1) == hour:
        start -= HOUR_MS
    return Cut(at, hour, start, local.start(day))


def compared(value: Number | None, previous: Number | None) -> Metric:
    """Return the change (now − before) / before; “new” from 0 to more than 0; 0.0 from 0 to 0."""
    if value is None or previous is None:
        return Metric(value=value, previous=previous)
    if previous == 0:
        return Metric(value=value, previous=previous, change="new" if value > 0 else 0.0)
    return Metric(value=value, previous=previous, change=(value - previous) / previous)


def ratio(part: Number, whole: Number) -> float | None:
    """Return ``part / whole``; None if ``whole`` is 0."""
    return part / whole if whole else None
