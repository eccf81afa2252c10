"""Metric alerts: check times, compared periods, and whether an alert fires. Pure.

Times are milliseconds since 1970; days and times of day are those of the workspace's zone.
"""

from __future__ import annotations

from datetime import time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from flashflow.backend.core.clock import to_ms
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import at_wall, local_time
from flashflow.backend.schemas.rules import AlertIn

HOURLY = "hourly"
BACK = {"same_weekday": 7, "previous_day": 1}
"""Days between the compared periods, by ``AlertIn.compare``."""


class Metrics(Protocol):
    """Source of metric values."""

    def value(self, metric: str, start_ms: int, end_ms: int, app: str | None) -> int:
        """Return the metric over [``start_ms``, ``end_ms``), for one app or all (None)."""


class Span(NamedTuple):
    """Time span [``start_ms``, ``end_ms``)."""

    start_ms: int
    end_ms: int


class Reading(NamedTuple):
    """Metric of today so far, the compared value, and the change in per cent (None: the compared value is 0)."""

    now: int
    before: int
    change: float | None


def spans(alert: AlertIn, now_ms: int, zone: ZoneInfo) -> tuple[Span, Span]:
    """Return today so far, and the compared day up to the same time of day."""
    local = local_time(now_ms, zone)
    other = local.date() - timedelta(days=BACK[alert.compare])
    today = Span(at_wall(local.date(), time(), zone), now_ms)
    return today, Span(at_wall(other, time(), zone), at_wall(other, local.time(), zone, last=bool(local.fold)))


def reading(now: int, before: int) -> Reading:
    """Compute the change as docs/analytics.md defines it: from 0 to more is None, from 0 to 0 is 0 %."""
    if before == 0:
        return Reading(now, before, None if now else 0.0)
    return Reading(now, before, (now - before) * 100 / before)


def read(alert: AlertIn, metrics: Metrics, now_ms: int, zone: ZoneInfo, app: str | None) -> Reading:
    """Read both values as of ``now_ms``."""
    today, other = spans(alert, now_ms, zone)
    return reading(metrics.value(alert.metric, *today, app), metrics.value(alert.metric, *other, app))


def is_breached(alert: AlertIn, found: Reading) -> bool:
    """Whether the change reaches the alert's threshold."""
    if found.change is None or found.before < alert.min_before:
        return False
    return found.change <= alert.change_percent if alert.change_percent < 0 else found.change >= alert.change_percent


def next_check_at(alert: AlertIn, now_ms: int, zone: ZoneInfo) -> int | None:
    """Return today's latest check time up to ``now_ms``; None before the first."""
    local = local_time(now_ms, zone)
    if alert.check_at == HOURLY:
        return to_ms(local.replace(minute=0, second=0, microsecond=0))
    at = at_wall(local.date(), time.fromisoformat(alert.check_at), zone)
    return at if at <= now_ms else None


def is_due(alert: AlertIn, checked_ms: int, now_ms: int, zone: ZoneInfo) -> bool:
    """Whether a check is due, the last one having been at ``checked_ms`` (in the future: the clock was set back)."""
    check_ms = next_check_at(alert, now_ms, zone)
    return checked_ms > now_ms or (check_ms is not None and checked_ms < check_ms)


def check_times(alert: AlertIn, since_ms: int, now_ms: int, zone: ZoneInfo) -> list[int]:
    """List the alert's check times in [``since_ms``, ``now_ms``], oldest first."""
    day, last = local_time(since_ms, zone).date(), local_time(now_ms, zone).date()
    found: dict[int, None] = {}
    while day <= last:
        times = [time(hour) for hour in range(24)] if alert.check_at == HOURLY else [time.fromisoformat(alert.check_at)]
        found |= dict.fromkeys(at_wall(day, one, zone) for one in times)
        day += timedelta(days=1)
    return sorted(at for at in found if since_ms <= at <= now_ms)
