"""Quiet hours and digest times: wall-clock times in an IANA zone, as milliseconds since 1970.

Of a time that occurs twice, quiet hours start at the first and end at the second, so that they are not interrupted.
"""

from __future__ import annotations

from datetime import time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from flashflow.backend.core.clock import HOUR_MS
from flashflow.backend.core.timezones import DAYS, at_wall, local_time, offset_change, offset_ms, zone_of


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
        zone = zone_of(self.zone)
        today = local_time(now_ms, zone).date()
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
        zone = zone_of(self.zone)
        if self.frequency == "hourly":
            return _full_hour(now_ms, zone)
        today, of_day = local_time(now_ms, zone).date(), time.fromisoformat(self.at)
        times = (at_wall(today + timedelta(days=ahead), of_day, zone) for ahead in range(3))
        return next(at for at in times if at > now_ms)


def _full_hour(now_ms: int, zone: ZoneInfo) -> int:
    """Return the next full hour of local time; a zone's offset may be half an hour, and may change within the hour."""
    while True:
        offset = offset_ms(now_ms, zone)
        at = now_ms + HOUR_MS - (now_ms + offset) % HOUR_MS
        if offset_ms(at, zone) == offset:
            return at
        now_ms = offset_change(now_ms, at, zone)
        if (now_ms + offset_ms(now_ms, zone)) % HOUR_MS == 0:
            return now_ms
