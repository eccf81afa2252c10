"""A question over the figures on its way: what was asked for, in days and keys."""

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
    """What a question is about: local days (both included), an app and a type by name; ``zone`` where the days are not
    the workspace's."""

    first: date | None = None
    last: date | None = None
    app: str | None = None
    activity_type: str | None = None
    zone: ZoneInfo | None = None


NO_KEY = -1
"""Stands for a name that no activity ever had."""


def requested_key(conn: sqlite3.Connection, kind: str, name: str, field: str) -> int:
    """The key of an app or a type that ``field`` of a question names. Raises ValidationError where it may be among
    those that have no figures of their own: nothing true could be said of it."""
    key = key_of(conn, kind, name)
    if key is None and is_full(conn, kind):
        told = f"{name!r} has no figures of its own: what came after the first {MOST[kind]:,} counts as all others"
        raise ValidationError.of(field, told)
    return NO_KEY if key is None else key


class QueryContext(msgspec.Struct, frozen=True):
    """A question on its way: the filters in days and keys, at a moment, on one snapshot."""

    conn: sqlite3.Connection
    days: DateRange
    local: LocalTime
    now_ms: int
    app: str | None
    app_key: int
    type_key: int
    home: LocalTime
    """The workspace's clock; ``local`` may be another one's."""

    def slice(self, days: DateRange, *, of_type: bool = True) -> Slice:
        """Those days of the app and, with ``of_type``, the type."""
        return Slice(days.first, days.last, self.app_key, self.type_key if of_type else 0, days.cut)

    @property
    def until(self) -> int | None:
        """Where the period has come to, if it is not over."""
        return self.now_ms if self.days.last >= self.local.day(self.now_ms) else None
