"""Metrics that alerts compare, from the same queries as the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flashflow.backend.analytics.date_ranges import cut_at
from flashflow.backend.analytics.query import Filters, QueryContext
from flashflow.backend.analytics.service import Analytics
from flashflow.backend.store.activity.rule_queries import count_sessions
from flashflow.backend.store.analytics import cohorts_and_funnels, totals
from flashflow.backend.store.analytics.totals import Slice

MetricQuery = Callable[[QueryContext, Slice, int, int], int]

QUERIES: Mapping[str, MetricQuery] = {
    "activities": lambda context, day, _start, _end: totals.activities(context.conn, day),
    "active_users": lambda context, day, _start, _end: cohorts_and_funnels.active_users(context.conn, day),
    "new_users": lambda context, day, _start, _end: cohorts_and_funnels.new_users(context.conn, day),
    "sessions": lambda context, _day, start_ms, end_ms: count_sessions(context.conn, start_ms, end_ms, context.app),
}


class AnalyticsMetrics:
    """``Metrics`` over the rollups; a span starts at a local midnight and ends within that day."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics

    def value(self, metric: str, start_ms: int, end_ms: int, app: str | None) -> int:
        """Return the metric over [``start_ms``, ``end_ms``) for one app or all (None)."""

        def query(context: QueryContext) -> int:
            day = context.local.day(start_ms)
            part = Slice(day, day, context.app_key, 0, cut_at(end_ms, day, context.local))
            return QUERIES[metric](context, part, start_ms, end_ms)

        return self._analytics.run(Filters(app=app), query)
