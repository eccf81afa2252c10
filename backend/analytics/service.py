"""Analytics queries of the API and the screens; domain/metric_definitions defines each metric."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from datetime import date
from typing import TypeVar
from zoneinfo import ZoneInfo

from flashflow.backend.analytics import periods, users
from flashflow.backend.analytics.date_ranges import MONTH_DAYS, Compare, DateRange, days_back, requested_days
from flashflow.backend.analytics.query import Filters, QueryContext, requested_key
from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import StorageError
from flashflow.backend.core.timezones import LocalTime, to_date, to_day
from flashflow.backend.schemas.analytics import Funnel, HeatMap, Names, Overview, Retention, Trend, UserRows
from flashflow.backend.schemas.records import UserAnalytics
from flashflow.backend.store.analytics.engagement_score import Scoring
from flashflow.backend.store.analytics.other_timezone import LocalDays, rollups_by
from flashflow.backend.store.analytics.user_metrics import days_of_user, known_users, today_activity, user_analytics
from flashflow.backend.store.engine.database import Store

log = logging.getLogger(__name__)
T = TypeVar("T")
DaysRead = Callable[[DateRange, int], LocalDays]
"""The local days a query reads, from its date range and today."""


class Analytics:
    """Queries over one ``user_activities.db``; days are the workspace's unless the filters name another time zone."""

    def __init__(self, store: Store, clock: Clock, local: LocalTime, aggregate_pending: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._local = local
        self._aggregate_pending = aggregate_pending

    @property
    def zone(self) -> ZoneInfo:
        """The workspace's time zone."""
        return self._local.zone

    def uses_other_timezone(self, filters: Filters) -> bool:
        """Whether the filters name another time zone than the workspace's; such queries may take seconds."""
        return filters.zone is not None and filters.zone.key != self.zone.key

    def run(self, filters: Filters, query: Callable[[QueryContext], T], days_read: DaysRead | None = None) -> T:
        """Run ``query`` on one snapshot that includes every stored activity. ``days_read`` bounds the days that it
        reads by another time zone's clock (None: it reads the stored rollups). Raises ValidationError."""
        try:
            self._aggregate_pending()
        except StorageError as fault:
            # Reads go on without the pending activities; the overview's ``pending`` counts them.
            log.warning("Pending activities could not be aggregated: %s", fault)
        now = self._clock.now_ms()
        other_zone = self.uses_other_timezone(filters)
        local = LocalTime(filters.zone) if other_zone and filters.zone is not None else self._local
        days = requested_days(filters.first, filters.last, local.day(now))

        def answer(conn: sqlite3.Connection) -> T:
            kind = filters.activity_type
            app_key = 0 if filters.app is None else requested_key(conn, "app", filters.app, "app")
            type_key = 0 if kind is None else requested_key(conn, "type", kind, "activity_type")
            context = QueryContext(conn, days, local, now, filters.app, app_key, type_key, self._local)
            if not other_zone or days_read is None:
                return query(context)
            with rollups_by(conn, local, days_read(days, local.day(now))):
                return query(context)

        return self._store.read(answer)

    # --- periods --------------------------------------------------------------------------------------------------

    def overview(self, filters: Filters, compare: Compare = "previous") -> Overview:
        """Return every metric of the period and of the comparison period. Raises ValidationError."""
        return self.run(filters, lambda context: periods.overview(context, compare), _with_trailing(compare))

    def trend(self, filters: Filters, compare: Compare = "previous", interval: str = "day") -> Trend:
        """Return activities, active users and sessions by day, or activities by hour. Raises ValidationError."""
        return self.run(
            filters,
            lambda context: periods.trend(context, compare, interval),
            lambda days, today: LocalDays(days.first - days_back(days, compare), days.last),
        )

    def top(self, filters: Filters, kind: str, limit: int = 10) -> Names:
        """Return the most frequent ``pages``, ``features``, ``referrers``, ``apps`` or ``types``. Raises
        ValidationError."""
        return self.run(
            filters,
            lambda context: periods.top(context, kind, limit),
            _in_range,
        )

    def heatmap(self, filters: Filters) -> HeatMap:
        """Return activities by weekday and hour. Raises ValidationError."""
        return self.run(filters, periods.heatmap, _in_range)

    # --- users ----------------------------------------------------------------------------------------------------

    def retention(self, filters: Filters, days: int = 30, mode: str = "on") -> Retention:
        """Return for each day's new users how many came back on day N, or (``on_or_after``) on day N or later. Raises
        ValidationError."""
        return self.run(filters, lambda context: users.retention(context, days, mode), _to_today)

    def funnel(
        self,
        filters: Filters,
        steps: Sequence[str],
        window_days: int = 7,
        dropped_at: int | None = None,
        limit: int = 50,
    ) -> Funnel:
        """Return how many users took the ``steps`` (activity types) in order; with ``dropped_at`` (2 for the second
        step) also up to ``limit`` users who stopped before it. Raises ValidationError."""
        return self.run(filters, lambda context: users.funnel(context, steps, window_days, dropped_at, limit))

    def user_list(self, filters: Filters, limit: int = 50, cursor: str | None = None) -> UserRows:
        """List the users active in the period, the latest seen first, each with an engagement score. Raises
        ValidationError."""
        return self.run(filters, lambda context: users.user_list(context, limit, cursor), _to_today)

    # --- one user, and today --------------------------------------------------------------------------------------

    def user(self, user_id: str, app: str | None = None) -> UserAnalytics:
        """Return one user's metrics in one app or in all."""
        return self._store.read(lambda conn: user_analytics(conn, user_id, app, self._scoring(conn, app)))

    def users(self, user_ids: Sequence[str]) -> tuple[UserAnalytics, ...]:
        """Return the metrics of several users over all apps; the workspace's means are read once."""

        def answer(conn: sqlite3.Connection) -> tuple[UserAnalytics, ...]:
            scoring = self._scoring(conn, None)
            return tuple(user_analytics(conn, user_id, None, scoring) for user_id in user_ids)

        return self._store.read(answer)

    def user_days(self, user_id: str, first: date, last: date) -> dict[date, int]:
        """Count a user's activities by day of the workspace; days without one are left out."""
        days = self.run(Filters(), lambda context: days_of_user(context.conn, user_id, to_day(first), to_day(last)))
        return {to_date(day): activities for day, activities in days.items()}

    def known_users(self, limit: int) -> list[str]:
        """Return up to ``limit`` users with an activity."""
        return self.run(Filters(), lambda context: known_users(context.conn, limit))

    def _scoring(self, conn: sqlite3.Connection, app: str | None) -> Scoring:
        return Scoring(conn, app, self._clock.now_ms(), self._local)

    def today(self) -> tuple[date, int, int, int]:
        """Return today's date, active users, sessions started and activities."""
        day, start, end = self.today_bounds()
        return day, *self._store.read(lambda conn: today_activity(conn, start, end))

    def today_bounds(self) -> tuple[date, int, int]:
        """Return today's date, and its first and its last-plus-one millisecond (23 to 25 hours apart)."""
        day = self._local.day(self._clock.now_ms())
        return to_date(day), self._local.start(day), self._local.start(day + 1)


def _with_trailing(compare: Compare) -> DaysRead:
    """Read the range, its comparison range, and the 28 days of MAU."""
    return lambda days, today: LocalDays(
        min(days.first - days_back(days, compare), min(days.last, today) - MONTH_DAYS + 1), days.last
    )


def _in_range(days: DateRange, today: int) -> LocalDays:
    return LocalDays(days.first, days.last)


def _to_today(days: DateRange, today: int) -> LocalDays:
    # A device's clock may be an hour ahead: its activities may be of tomorrow.
    return LocalDays(days.first, max(days.last, today + 1))
