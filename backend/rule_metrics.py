"""The figures that alerts compare, from where the dashboard has its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backend.analytics import Analytics
from backend.asking import Asked, Filters
from backend.periods import cut_at
from backend.store import questions, questions_people
from backend.store.questions import Slice
from backend.store.rule_activities import sessions_begun

Question = Callable[[Asked, Slice, int, int], int]

QUESTIONS: Mapping[str, Question] = {
    "activities": lambda asked, day, _start, _end: questions.activities(asked.conn, day),
    "active_users": lambda asked, day, _start, _end: questions_people.active_users(asked.conn, day),
    "new_users": lambda asked, day, _start, _end: questions_people.new_users(asked.conn, day),
    "sessions": lambda asked, _day, start_ms, end_ms: sessions_begun(asked.conn, start_ms, end_ms, asked.app),
}


class FigureMetrics:
    """``Metrics`` over the figures; spans begin with a day of the workspace and end within it."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics

    def value(self, metric: str, start_ms: int, end_ms: int, app: str | None) -> int:
        """The figure over [``start_ms``, ``end_ms``), over one app's rows or all (None)."""

        def question(asked: Asked) -> int:
            day = asked.local.day(start_ms)
            whole = Slice(day, day, asked.app_key, 0, cut_at(end_ms, day, asked.local))
            return QUESTIONS[metric](asked, whole, start_ms, end_ms)

        return self._analytics.ask(Filters(app=app), question)
