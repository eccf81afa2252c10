"""Quiet hours and digest times: wall-clock times in an IANA zone, as milliseconds since 1970.

A wall-clock time in a gap (start of summer time) means the end of the gap. Of a time that occurs twice, quiet hours
start at the first and end at the second, so that they are not interrupted.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from flashflow.backend.core.clock import HOUR_MS, to_datetime, to_ms

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*)*", re.ASCII)
"""Zone names, not any path to a zone file: ``Europe\\Berlin`` works on Windows only."""
_NO_ZONES = re.compile(r"(?:posix|right)/.*|posixrules|localtime|Factory", re.IGNORECASE)
"""Files in zoneinfo folders that are no zones: ``right/`` counts leap seconds, ``localtime`` differs by machine."""


class QuietHours(msgspec.Struct, frozen=True, kw_only=True):
    """Quiet hours from ``start`` to ``end`` ("HH:MM"), over midnight where ``end`` is earlier; equal: 24 hours.

    ``days`` are the days on which they start (``mon`` … ``sun``); ``zone`` is an IANA name.
    """

    start: str
    end: str
    zone: str
    days: tuple[str, ...] = DAYS

    def until(self, now_ms: int) -> int | None:
        """Return the end of the quiet hours at ``now_ms``, adjacent ones included; None outside quiet hours."""
        end = self._end_of(now_ms)
        for _ in range(8):  # quiet hours of 24 hours every day never end: look a week ahead
            following = None if end is None else self._end_of(end)
            if following is None:
                return end
            end = following
        return end

    def _end_of(self, now_ms: int) -> int | None:
        zone = _zone(self.zone)
        today = _local(now_ms, zone).date()
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        for ahead in (-1, 0, 1):  # where clocks go back over midnight, tomorrow starts twice
            day = today + timedelta(days=ahead)
            if DAYS[day.weekday()] not in self.days or at_wall(day, start, zone) > now_ms:
                continue
            ends = at_wall(day if end > start else day + timedelta(days=1), end, zone, last=True)
            if now_ms < ends:
                return ends
        return None


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """Digest times: every full hour, or daily ``at`` a time ("HH:MM") in ``zone``."""

    frequency: str
    zone: str
    at: str = "08:00"

    def next(self, now_ms: int) -> int:
        """Return the next digest time after ``now_ms``."""
        zone = _zone(self.zone)
        if self.frequency == "hourly":
            return _full_hour(now_ms, zone)
        today, of_day = _local(now_ms, zone).date(), time.fromisoformat(self.at)
        times = (at_wall(today + timedelta(days=ahead), of_day, zone) for ahead in range(3))
        return next(at for at in times if at > now_ms)


def is_zone(name: str) -> bool:
    """Whether ``name`` is an IANA zone known on this machine."""
    if len(name) > 64 or not _ZONE.fullmatch(name) or _NO_ZONES.fullmatch(name):
        return False
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def at_wall(day: date, of_day: time, zone: ZoneInfo, *, last: bool = False) -> int:
    """Convert a wall-clock time to milliseconds since 1970; ``last`` selects the second of two occurrences."""
    local = datetime.combine(day, of_day, zone)
    first, second = to_ms(local), to_ms(local.replace(fold=1))
    if second < first:  # PEP 495: the time is in a gap, which is between the two readings
        return _change(second, first, zone)
    return second if last else first


def _full_hour(now_ms: int, zone: ZoneInfo) -> int:
    """Return the next full hour of local time; a zone's offset may be half an hour, and may change within the hour."""
    while True:
        offset = _offset(now_ms, zone)
        at = now_ms + HOUR_MS - (now_ms + offset) % HOUR_MS
        if _offset(at, zone) == offset:
            return at
        now_ms = _change(now_ms, at, zone)
        if (now_ms + _offset(now_ms, zone)) % HOUR_MS == 0:
            return now_ms


def _change(before: int, after: int, zone: ZoneInfo) -> int:
    """Return the first time after ``before`` with the offset that the zone has at ``after``, by bisection."""
    offset = _offset(after, zone)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(middle, zone) == offset:
            after = middle
        else:
            before = middle
    return after


def _offset(ms: int, zone: ZoneInfo) -> int:
    offset = _local(ms, zone).utcoffset()
    return 0 if offset is None else offset // timedelta(milliseconds=1)


def _local(ms: int, zone: ZoneInfo) -> datetime:
    return to_datetime(ms).astimezone(zone)


@lru_cache(maxsize=128)
def _zone(name: str) -> ZoneInfo:
    # ZoneInfo's own cache holds only eight unreferenced zones.
    return ZoneInfo(name)
