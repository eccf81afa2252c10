"""When a metric alert is looked at, which times it compares, and whether it fires. Pure; times are milliseconds since
1970, days and times of day those of the workspace's zone.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from flashflow.backend.core.clock import to_datetime, to_ms
from flashflow.backend.domain.quiet_hours import at_wall
from flashflow.backend.schemas.rules import AlertIn

HOURLY = "hourly"
BACK = {"same_weekday": 7, "previous_day": 1}
"""Days between what is compared."""


class Metrics(Protocol):
    """Where figures come from."""

    def value(self, metric: str, start_ms: int, end_ms: int, app: str | None) -> int:
        """The figure over [``start_ms``, ``end_ms``), over one app's rows or all (None)."""


class Span(NamedTuple):
    """From ``start_ms`` up to and without ``end_ms``."""

    start_ms: int
    end_ms: int


class Reading(NamedTuple):
    """A figure of today so far, the one it is compared with, and the change in per cent (None: from nothing)."""

    now: int
    before: int
    change: float | None


def spans(alert: AlertIn, now_ms: int, zone: ZoneInfo) -> tuple[Span, Span]:
    """Today so far, and the other day up to the same time of day."""
    local = _local(now_ms, zone)
    other = local.date() - timedelta(days=BACK[alert.compare])
    today = Span(_start_of(local.date(), zone), now_ms)
    return today, Span(_start_of(other, zone), at_wall(other, local.time(), zone, last=bool(local.fold)))


def reading(now: int, before: int) -> Reading:
    """The change as DEFINITIONS.md has it: from nothing to something is no number, from nothing to nothing is 0 %."""
    if before == 0:
        return Reading(now, before, None if now else 0.0)
    return Reading(now, before, (now - before) * 100 / before)


def read(alert: AlertIn, metrics: Metrics, now_ms: int, zone: ZoneInfo, app: str | None) -> Reading:
    """Both figures as they are at ``now_ms``."""
    today, other = spans(alert, now_ms, zone)
    return reading(metrics.value(alert.metric, *today, app), metrics.value(alert.metric, *other, app))


def is_breached(alert: AlertIn, found: Reading) -> bool:
    """Whether the change is as large as the alert waits for."""
    if found.change is None or found.before < alert.min_before:
        return False
    return found.change <= alert.change_percent if alert.change_percent < 0 else found.change >= alert.change_percent


def next_check_at(alert: AlertIn, now_ms: int, zone: ZoneInfo) -> int | None:
    """The newest moment of this day up to ``now_ms`` at which the alert is to be looked at; None before the first."""
    local = _local(now_ms, zone)
    if alert.check_at == HOURLY:
        return to_ms(local.replace(minute=0, second=0, microsecond=0))
    at = at_wall(local.date(), time.fromisoformat(alert.check_at), zone)
    return at if at <= now_ms else None


def is_due(alert: AlertIn, checked_ms: int, now_ms: int, zone: ZoneInfo) -> bool:
    """Whether it is to be looked at now, last looked at at ``checked_ms``. A clock that was set back begins anew."""
    moment = next_check_at(alert, now_ms, zone)
    return checked_ms > now_ms or (moment is not None and checked_ms < moment)


def may_notify(fired_ms: int | None, cooldown_minutes: int, now_ms: int, zone: ZoneInfo) -> bool:
    """Once a day at most, and once in the cool-down."""
    if fired_ms is None:
        return True
    same_day = _local(fired_ms, zone).date() == _local(now_ms, zone).date()
    return not same_day and abs(now_ms - fired_ms) >= cooldown_minutes * 60_000


def check_times(alert: AlertIn, since_ms: int, now_ms: int, zone: ZoneInfo) -> list[int]:
    """Every moment in [``since_ms``, ``now_ms``] at which the alert is looked at, oldest first."""
    day, last = _local(since_ms, zone).date(), _local(now_ms, zone).date()
    found: dict[int, None] = {}
    while day <= last:
        times = [time(hour) for hour in range(24)] if alert.check_at == HOURLY else [time.fromisoformat(alert.check_at)]
        found |= dict.fromkeys(at_wall(day, one, zone) for one in times)
        day += timedelta(days=1)
    return sorted(at for at in found if since_ms <= at <= now_ms)


def _start_of(day: date, zone: ZoneInfo) -> int:
    return at_wall(day, time(), zone)


def _local(ms: int, zone: ZoneInfo) -> datetime:
    return to_datetime(ms).astimezone(zone)
