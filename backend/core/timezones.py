"""Time zones: the workspace's (``TZ``, else the machine's), wall-clock times, and local days and hours.

Instants are milliseconds since 1970 (UTC). A wall-clock time in a gap (start of summer time) means the end of the gap.
"""

from __future__ import annotations

import os
import re
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flashflow.backend.core.clock import HOUR_MS, MINUTE_MS, to_datetime, to_ms

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""Days in the order of ``date.weekday``."""

UNKNOWN_ZONE = "is not an IANA time zone that is known here, like Europe/Berlin"
NO_ZONE = (ZoneInfoNotFoundError, ValueError, OSError)
"""Exceptions of ZoneInfo for a name that it does not know."""

_LINKS = (Path("/etc/localtime"), Path("/var/db/timezone/localtime"))
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*)*", re.ASCII)
"""Zone names, not any path to a zone file: ``Europe\\Berlin`` works on Windows only."""
_NO_ZONES = re.compile(r"(?:posix|right)/.*|posixrules|localtime|Factory", re.IGNORECASE)
"""Files in zoneinfo folders that are no zones: ``right/`` counts leap seconds, ``localtime`` differs by machine."""


def workspace_zone() -> ZoneInfo:
    """Return the zone of this machine; UTC where it cannot be determined."""
    for name in _names():
        try:
            return ZoneInfo(name)
        except NO_ZONE:
            continue
    return ZoneInfo("UTC")


def _names() -> list[str]:
    names = [os.environ.get("TZ", "").removeprefix(":")]
    for link in _LINKS:
        _, found, name = str(link.resolve()).partition("zoneinfo/")
        if found:
            names.append(name)
    timezone = Path("/etc/timezone")
    if timezone.is_file():
        names.append(timezone.read_text(encoding="utf-8").strip())
    return [name for name in names if name]


@lru_cache(maxsize=128)
def zone_of(name: str) -> ZoneInfo:
    """Return the zone with that IANA name. Raises one of NO_ZONE."""
    # ZoneInfo's own cache holds only eight unreferenced zones.
    return ZoneInfo(name)


def is_zone(name: str) -> bool:
    """Whether ``name`` is an IANA zone known on this machine."""
    if len(name) > 64 or not _ZONE.fullmatch(name) or _NO_ZONES.fullmatch(name):
        return False
    try:
        zone_of(name)
    except NO_ZONE:
        return False
    return True


def local_time(ms: int, zone: ZoneInfo) -> datetime:
    """Return the wall-clock time at ``ms``."""
    return to_datetime(ms).astimezone(zone)


def offset_ms(ms: int, zone: ZoneInfo) -> int:
    """Return the zone's offset from UTC at ``ms``, in milliseconds."""
    return (local_time(ms, zone).utcoffset() or timedelta()) // timedelta(milliseconds=1)


def at_wall(day: date, of_day: time, zone: ZoneInfo, *, last: bool = False) -> int:
    """Convert a wall-clock time to milliseconds since 1970; ``last`` selects the second of two occurrences."""
    local = datetime.combine(day, of_day, zone)
    first, second = to_ms(local), to_ms(local.replace(fold=1))
    if second < first:  # PEP 495: the time is in a gap, which is between the two readings
        return offset_change(second, first, zone)
    return second if last else first


def offset_change(before: int, after: int, zone: ZoneInfo) -> int:
    """Return the first time after ``before`` with the offset that the zone has at ``after``, by bisection."""
    offset = offset_ms(after, zone)
    while after - before > 1:
        middle = (before + after) // 2
        if offset_ms(middle, zone) == offset:
            after = middle
        else:
            before = middle
    return after


_SLICE_MS = 15 * MINUTE_MS
"""Offsets from UTC are whole quarters of an hour, and change at one."""
_MOST_SLICES = 50_000


class LocalTime:
    """Local days and hours of a zone, counted from 1970-01-01 00:00 local time.

    A day has 24 hour numbers: where the clock is set back, two hours share one number.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._offsets: dict[int, int] = {}

    def hour(self, ms: int) -> int:
        """Return the local hour of ``ms`` since 1970 (UTC); divided by 24 it is the local day."""
        return (ms + self.offset(ms)) // HOUR_MS

    def offset(self, ms: int) -> int:
        """Return the zone's offset from UTC at ``ms``, in milliseconds."""
        part = ms // _SLICE_MS
        offset = self._offsets.get(part)
        if offset is None:
            if len(self._offsets) >= _MOST_SLICES:
                self._offsets.clear()
            offset = self._offsets[part] = offset_ms(ms, self.zone)
        return offset

    def day(self, ms: int) -> int:
        """Return the local day of ``ms``, as days since 1970-01-01."""
        return self.hour(ms) // 24

    def start(self, day: int) -> int:
        """Return the first millisecond of the local day ``day``; the next day starts 23 to 25 hours later."""
        return at_wall(to_date(day), time(), self.zone)


def to_date(day: int) -> date:
    """Convert days since 1970-01-01 to a date."""
    return date.fromordinal(_FIRST + day)


def to_day(when: date) -> int:
    """Convert a date to days since 1970-01-01."""
    return when.toordinal() - _FIRST


_FIRST = date(1970, 1, 1).toordinal()
