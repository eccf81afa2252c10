"""The workspace's time zone, an IANA name (the machine's own unless ``TZ`` says another), and its days and hours."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flashflow.backend.core.clock import HOUR_MS, to_datetime, to_ms

_LINKS = (Path("/etc/localtime"), Path("/var/db/timezone/localtime"))


def workspace_zone() -> ZoneInfo:
    """The zone of this machine; UTC where it cannot be told."""
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
"""Zones part from UTC by whole quarters of an hour, and change at one."""
_MOST_SLICES = 50_000


class LocalTime:
    """Moments as a zone's wall clock shows them: its days and hours, counted from 1970-01-01 00:00 on that clock.

    The hours of a day are its 24 names: where the clock is put back, two hours bear one name.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._offsets: dict[int, int] = {}

    def move(self, zone: ZoneInfo) -> None:
        """Show another zone's clock from now on."""
        self.zone = zone
        self._offsets = {}

    def hour(self, ms: int) -> int:
        """The local hour of ``ms`` since 1970 (UTC); divided by 24 it is the local day."""
        return (ms + self.offset(ms)) // HOUR_MS

    def offset(self, ms: int) -> int:
        """How far the zone's clock is ahead of UTC at ``ms``, in milliseconds."""
        part = ms // _SLICE_MS
        offset = self._offsets.get(part)
        if offset is None:
            if len(self._offsets) >= _MOST_SLICES:
                self._offsets.clear()
            local = to_datetime(ms).astimezone(self.zone)
            offset = self._offsets[part] = (local.utcoffset() or timedelta()) // timedelta(milliseconds=1)
        return offset

    def day(self, ms: int) -> int:
        """The local day of ``ms``, as days since 1970-01-01."""
        return self.hour(ms) // 24

    def start(self, day: int) -> int:
        """The first millisecond of the local day ``day``; the next day's start is 23 to 25 hours on."""
        midnight = datetime.combine(to_date(day), time(), self.zone)
        return to_ms(midnight.astimezone(UTC))


def to_date(day: int) -> date:
    """The date that is ``day`` days after 1970-01-01."""
    return date.fromordinal(_FIRST + day)


def to_day(when: date) -> int:
    """The days from 1970-01-01 to ``when``."""
    return when.toordinal() - _FIRST


_FIRST = date(1970, 1, 1).toordinal()
