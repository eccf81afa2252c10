"""Metrics that alerts compare, from the same queries as the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flashflow.backend.analytics.date_ranges import cut_at
from flashflow.backend.analytics.query import Filters, QueryContext
from flashflow.backend.analytics.service import Analytics
from flashflow.backend.store.activity.rule_queries import count_sessions
from flashflow.backend.store.analytics import cohorts_and_funnels, totals
from flashflow.backend.store.analytics.totals import Slice

Question = Callable[[QueryContext, Slice, int, int], int]

QUESTIONS: Mapping[str, Question] = {
    "activities": lambda asked, day, _start, _end: totals.activities(asked.conn, day),
    "active_users": lambda asked, day, _start, _end: cohorts_and_funnels.active_users(asked.conn, day),
    "new_users": lambda asked, day, _start, _end: cohorts_and_funnels.new_users(asked.conn, day),
    "sessions": lambda asked, _day, start_ms, end_ms: count_sessions(asked.conn, start_ms, end_ms, asked.app),
}


class AnalyticsMetrics:
    """``Metrics`` over the rollups; a span starts at a local midnight and ends within that day."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics

    def value(self, metric: str, start_ms: int, end_ms: int, app: str | None) -> int:
        """Return the metric over [``start_ms``, ``end_ms``) for one app or all (None)."""

        def question(asked: QueryContext) -> int:
            day = asked.local.day(start_ms)
            whole = Slice(day, day, asked.app_key, 0, cut_at(end_ms, day, asked.local))
            return QUESTIONS[metric](asked, whole, start_ms, end_ms)

        return self._analytics.run(Filters(app=app), question)
