"""Recurrence of schedules: a pure function to the next occurrence, in milliseconds since 1970 (UTC).

A wall-clock time in a gap (start of summer time) occurs once, later by the length of the gap; one that occurs twice
counts the first time. Each occurrence is computed from the rule, not from the previous one, so errors do not add up.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

from msgspec import Meta

from flashflow.backend.core.clock import MINUTE_MS, to_ms
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.timezones import NO_ZONE, UNKNOWN_ZONE, is_zone, local_time, zone_of
from flashflow.backend.schemas.requests import END, Input, TimeOfDay, Timestamp

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
"""Days in the order of ``date.weekday``."""

ZONE = r"^[A-Za-z][A-Za-z0-9_+/-]*" + END


class Recurrence(Input, frozen=True, kw_only=True):
    """Recurrence rule: either ``every_minutes``, counted from ``starts_at`` (default: the schedule's creation), or
    ``at`` a time of day, on ``days`` (default: all) or one ``day_of_month`` (in shorter months their last day).

    ``timezone`` is an IANA name (default: this machine's). ``starts_at`` and ``ends_at`` are inclusive bounds.
    """

    every_minutes: Annotated[int, Meta(ge=1, le=10_080)] | None = None
    at: TimeOfDay | None = None
    days: Annotated[list[Day], Meta(min_length=1, max_length=7)] | None = None
    day_of_month: Annotated[int, Meta(ge=1, le=31)] | None = None
    timezone: Annotated[str, Meta(min_length=1, max_length=64, pattern=ZONE)] | None = None
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None


def check(rule: Recurrence) -> None:
    """Check rules between fields. Raises ValidationError."""
    faults = ErrorCollector()
    if (rule.every_minutes is None) == (rule.at is None):
        faults.add("at", "give either at or every_minutes", "every_minutes")
    if rule.days is not None and rule.day_of_month is not None:
        faults.add("day_of_month", "give either days or day_of_month")
    for field in ("days", "day_of_month"):
        if rule.at is None and getattr(rule, field) is not None:
            faults.add(field, "goes with at, not with every_minutes", "at")
    if rule.days is not None and len(set(rule.days)) != len(rule.days):
        faults.add("days", "names a day twice")
    if rule.timezone is not None and not is_zone(rule.timezone):
        faults.add("timezone", UNKNOWN_ZONE)
    if rule.starts_at is not None and rule.ends_at is not None and rule.ends_at < rule.starts_at:
        faults.add("ends_at", "must not be before starts_at")
    faults.done()


def zone_named(name: str) -> ZoneInfo:
    """Return the time zone with that IANA name. Raises ValidationError for an unknown one."""
    try:
        return zone_of(name)
    except NO_ZONE:
        raise ValidationError.of("timezone", UNKNOWN_ZONE) from None


def next_after(rule: Recurrence, now_ms: int, zone: ZoneInfo, since_ms: int = 0) -> int | None:
    """Return the first occurrence of ``rule`` strictly after ``now_ms``; None after the last.

    ``zone`` applies to ``at`` where the rule has no zone. ``since_ms`` is the start of ``every_minutes`` where the rule
    has no ``starts_at``. Raises ValidationError for an unknown zone.
    """
    starts = None if rule.starts_at is None else to_ms(rule.starts_at)
    if rule.every_minutes is not None:
        begin, step = since_ms if starts is None else starts, rule.every_minutes * MINUTE_MS
        found = begin + max(0, (now_ms - begin) // step + 1) * step
    else:
        local = zone if rule.timezone is None else zone_named(rule.timezone)
        after = now_ms if starts is None else max(now_ms, starts - 1)
        found = next(at for at in _times(rule, after, local) if at > after)
    return found if rule.ends_at is None or found <= to_ms(rule.ends_at) else None


def _times(rule: Recurrence, after: int, zone: ZoneInfo) -> Iterator[int]:
    """Yield the rule's times in order, starting at or before the first one after ``after``."""
    of_day = time.fromisoformat(rule.at or "00:00")
    # From the day before: a time in a gap at midnight occurs on the following day.
    for day in _dates(rule, local_time(after, zone).date() - timedelta(days=1)):
        # fold=0: of two occurrences the first, and in a gap the offset before it.
        yield to_ms(datetime.combine(day, of_day, zone))


def _dates(rule: Recurrence, first: date) -> Iterator[date]:
    """Yield the rule's days in order, from about ``first``, without end."""
    if rule.day_of_month is not None:
        year, month = first.year, first.month
        while True:
            yield date(year, month, min(rule.day_of_month, monthrange(year, month)[1]))
            year, month = year + month // 12, month % 12 + 1
    days = rule.days or DAYS
    while True:
        if DAYS[first.weekday()] in days:
            yield first
        first += timedelta(days=1)
