"""When a person wants quiet and when a digest goes out: wall-clock times in an IANA zone, as milliseconds since 1970.

A wall-clock time that a change to summer time skips means the moment after the gap; one that comes twice ends quiet
hours the second time and begins them the first, so that nobody is woken in between.
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
"""A name and not just any path to the file: on Windows ``Europe\\Berlin`` is one, and unknown on the next machine."""
_NO_ZONES = re.compile(r"(?:posix|right)/.*|posixrules|localtime|Factory", re.IGNORECASE)
"""What lies beside the zones in many a zoneinfo folder: ``right/`` counts leap seconds, ``localtime`` is another zone
on every machine."""


class QuietHours(msgspec.Struct, frozen=True, kw_only=True):
    """Quiet from ``start`` to ``end`` ("HH:MM"), over midnight where ``end`` is not later; equal: the whole day.

    ``days`` are those on which a quiet time begins (``mon`` … ``sun``); ``zone`` is an IANA name.
    """

    start: str
    end: str
    zone: str
    days: tuple[str, ...] = DAYS

    def until(self, now_ms: int) -> int | None:
        """When the quiet that covers ``now_ms`` ends, with what follows it without a gap; None outside quiet hours."""
        end = self._end_of(now_ms)
        for _ in range(8):  # quiet all day every day never ends: a week is looked ahead
            following = None if end is None else self._end_of(end)
            if following is None:
                return end
            end = following
        return end

    def _end_of(self, now_ms: int) -> int | None:
        zone = _zone(self.zone)
        today = _local(now_ms, zone).date()
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        for ahead in (-1, 0, 1):  # where clocks went back over midnight, tomorrow has begun once already
            day = today + timedelta(days=ahead)
            if DAYS[day.weekday()] not in self.days or at_wall(day, start, zone) > now_ms:
                continue
            ends = at_wall(day if end > start else day + timedelta(days=1), end, zone, last=True)
            if now_ms < ends:
                return ends
        return None


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """Collected and told at once: every full hour, or daily ``at`` a time ("HH:MM") in ``zone``."""

    frequency: str
    zone: str
    at: str = "08:00"

    def next(self, now_ms: int) -> int:
        """The next time it goes out, after ``now_ms``."""
        zone = _zone(self.zone)
        if self.frequency == "hourly":
            return _full_hour(now_ms, zone)
        today, moment = _local(now_ms, zone).date(), time.fromisoformat(self.at)
        times = (at_wall(today + timedelta(days=ahead), moment, zone) for ahead in range(3))
        return next(at for at in times if at > now_ms)


def is_zone(name: str) -> bool:
    """Whether ``name`` is an IANA zone whose rules this machine has."""
    if len(name) > 64 or not _ZONE.fullmatch(name) or _NO_ZONES.fullmatch(name):
        return False
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def at_wall(day: date, moment: time, zone: ZoneInfo, *, last: bool = False) -> int:
    """That wall-clock time as milliseconds since 1970; ``last``: where it comes twice, the second."""
    local = datetime.combine(day, moment, zone)
    first, second = to_ms(local), to_ms(local.replace(fold=1))
    if second < first:  # PEP 495: only a time in a gap is read so, and the gap lies between the two readings
        return _change(second, first, zone)
    return second if last else first


def _full_hour(now_ms: int, zone: ZoneInfo) -> int:
    """The next full hour on the wall: a zone may be half an hour off UTC, and may come to be so within the hour."""
    while True:
        offset = _offset(now_ms, zone)
        at = now_ms + HOUR_MS - (now_ms + offset) % HOUR_MS
        if _offset(at, zone) == offset:
            return at
        now_ms = _change(now_ms, at, zone)
        if (now_ms + _offset(now_ms, zone)) % HOUR_MS == 0:
            return now_ms


def _change(before: int, after: int, zone: ZoneInfo) -> int:
    """The first moment after ``before`` with the offset that the zone has at ``after``."""
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
    # ZoneInfo itself keeps but eight of those that nobody holds.
    return ZoneInfo(name)
