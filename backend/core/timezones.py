"""Workspace time zone (``TZ``, else the machine's) and conversions to its local days and hours."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flashflow.backend.core.clock import HOUR_MS, to_datetime, to_ms

_LINKS = (Path("/etc/localtime"), Path("/var/db/timezone/localtime"))


def workspace_zone() -> ZoneInfo:
    """Return the zone of this machine; UTC where it cannot be determined."""
    for name in _names():
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
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


_SLICE_MS = 15 * 60 * 1000
"""Offsets from UTC are whole quarters of an hour, and change at one."""
_MOST_SLICES = 50_000


class LocalTime:
    """Local days and hours of a zone, counted from 1970-01-01 00:00 local time.

    A day has 24 hour numbers: where the clock is set back, two hours share one number.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._offsets: dict[int, int] = {}

    def move(self, zone: ZoneInfo) -> None:
        """Change the zone."""
        self.zone = zone
        self._offsets = {}

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
            local = to_datetime(ms).astimezone(self.zone)
            offset = self._offsets[part] = (local.utcoffset() or timedelta()) // timedelta(milliseconds=1)
        return offset

    def day(self, ms: int) -> int:
        """Return the local day of ``ms``, as days since 1970-01-01."""
        return self.hour(ms) // 24

    def start(self, day: int) -> int:
        """Return the first millisecond of the local day ``day``; the next day starts 23 to 25 hours later."""
        midnight = datetime.combine(to_date(day), time(), self.zone)
        return to_ms(midnight.astimezone(UTC))


def to_date(day: int) -> date:
    """Convert days since 1970-01-01 to a date."""
    return date.fromordinal(_FIRST + day)


def to_day(when: date) -> int:
    """Convert a date to days since 1970-01-01."""
    return when.toordinal() - _FIRST


_FIRST = date(1970, 1, 1).toordinal()
