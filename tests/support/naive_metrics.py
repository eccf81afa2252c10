"""The questions answered from a list of activities by the words of DEFINITIONS.md, without any of the product's SQL."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from flashflow.backend import Activity, Filters

DAY = timedelta(days=1)


class Naive(NamedTuple):
    """Activities, and the zone whose days are meant."""

    activities: tuple[Activity, ...]
    zone: ZoneInfo

    def day(self, activity: Activity) -> date:
        return activity.timestamp.astimezone(self.zone).date()

    def within(self, first: date, last: date, **fields: object) -> list[Activity]:
        return [
            a
            for a in self.activities
            if first <= self.day(a) <= last
            and all(value is None or getattr(a, name) == value for name, value in fields.items())
        ]

    def active_users(self, first: date, last: date, **fields: object) -> int:
        return len({a.user_id for a in self.within(first, last, **fields)})

    def names(
        self, first: date, last: date, name: Callable[[Activity], str | None], **fields: object
    ) -> list[tuple[str, int]]:
        counts = Counter(name(a) for a in self.within(first, last, **fields))
        counts.pop(None, None)
        return sorted(((str(n), c) for n, c in counts.items()), key=lambda pair: (-pair[1], pair[0]))

    def heat(self, first: date, last: date) -> list[list[int]]:
        hours = [[0] * 24 for _ in range(7)]
        for a in self.within(first, last):
            local = a.timestamp.astimezone(self.zone)
            hours[local.weekday()][local.hour] += 1
        return hours

    def days_of(self, app: str | None = None) -> dict[str, set[date]]:
        days: dict[str, set[date]] = defaultdict(set)
        for a in self.activities:
            if app is None or a.app == app:
                days[a.user_id].add(self.day(a))
        return days

    def new_users(self, first: date, last: date, app: str | None = None) -> int:
        return sum(first <= min(days) <= last for days in self.days_of(app).values())

    def retained(self, cohort: date, n: int, *, or_after: bool, app: str | None = None) -> int:
        when = cohort + n * DAY
        return sum(
            min(days) == cohort and (any(day >= when for day in days) if or_after else when in days)
            for days in self.days_of(app).values()
        )

    def funnel(self, steps: list[str], asked: Filters, window: timedelta) -> list[tuple[int, float | None]]:
        """How many took each step of those who took the first within ``asked``'s days, and the median of the seconds
        they needed since the one before."""
        took: list[list[timedelta]] = [[] for _ in steps]
        by_user: dict[str, list[Activity]] = defaultdict(list)
        for a in sorted(self.activities, key=lambda a: a.timestamp):
            by_user[a.user_id].append(a)
        for his in by_user.values():
            began = at = None
            for n, step in enumerate(steps):
                found = next((a.timestamp for a in his if a.activity_type == step and self._fits(a, asked, at)), None)
                if found is None or (began is not None and found - began > window):
                    break
                took[n].append(found - (at or found))
                began, at = began or found, found
        return [
            (len(spent), statistics.median(spent).total_seconds() if n and spent else None)
            for n, spent in enumerate(took)
        ]

    def _fits(self, a: Activity, asked: Filters, after: datetime | None) -> bool:
        if after is None:
            return asked.first is not None and asked.last is not None and asked.first <= self.day(a) <= asked.last
        return a.timestamp > after


def features(activity: Activity) -> str | None:
    """What an activity counts for among the features."""
    feature = activity.metadata.get("feature")
    name = feature if isinstance(feature, str) and feature.strip() else activity.activity_type
    return None if name == "page_view" else name


def mean(values: Iterable[float]) -> float | None:
    """None of nothing."""
    kept = list(values)
    return sum(kept) / len(kept) if kept else None
