"""Analytics query: its filters as the client sends them, and resolved to local days and dimension keys."""

from __future__ import annotations

import sqlite3
from datetime import date
from zoneinfo import ZoneInfo

import msgspec

from flashflow.backend.analytics.date_ranges import DateRange
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.analytics.totals import Slice
from flashflow.backend.store.rollups.dimensions import MOST, is_full, key_of


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Local days (both included), an app and an activity type by name; ``zone`` if the days are of another time zone
    than the workspace's."""

    first: date | None = None
    last: date | None = None
    app: str | None = None
    activity_type: str | None = None
    zone: ZoneInfo | None = None


NO_KEY = -1
"""The key of a name without activities."""


def requested_key(conn: sqlite3.Connection, kind: str, name: str, field: str) -> int:
    """Return the dimension key of the app or type in the query's ``field``. Raises ValidationError where it may be
    counted under “all others”: its own counts are unknown."""
    key = key_of(conn, kind, name)
    if key is None and is_full(conn, kind):
        raise ValidationError.of(
            field, f"{name!r} has no counts of its own: names after the first {MOST[kind]:,} count as all others"
        )
    return NO_KEY if key is None else key


class QueryContext(msgspec.Struct, frozen=True):
    """Filters resolved to local days and dimension keys, on one database snapshot at ``now_ms``."""

    conn: sqlite3.Connection
    days: DateRange
    local: LocalTime
    now_ms: int
    app: str | None
    app_key: int
    type_key: int
    home: LocalTime
    """The workspace's time zone; ``local`` may be another."""

    def slice(self, days: DateRange, *, of_type: bool = True) -> Slice:
        """Return ``days`` of the app and, with ``of_type``, of the activity type."""
        return Slice(days.first, days.last, self.app_key, self.type_key if of_type else 0, days.cut)

    @property
    def until(self) -> int | None:
        """The current time in milliseconds since 1970 if the period is not over."""
        return self.now_ms if self.days.last >= self.local.day(self.now_ms) else None
