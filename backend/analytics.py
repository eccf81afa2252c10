"""Questions over what was stored, each figure by DEFINITIONS.md. The API and the screens ask here alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from backend.clock import Clock, to_datetime
from backend.records import UserAnalytics
from backend.store.database import Store
from backend.store.user_figures import TRAILING_DAYS, Days, today_activity, user_analytics, workspace_means
from backend.zone import LocalTime, to_day


class Analytics:
    """Answers from one ``user_activities.db``; days are those of the workspace's zone."""

    def __init__(self, store: Store, clock: Clock, local: LocalTime, fold: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._local = local
        self._fold = fold

    @property
    def zone(self) -> ZoneInfo:
        """The workspace's zone: its days are those of every figure."""
        return self._local.zone

    def user(self, user_id: str, app: str | None = None) -> UserAnalytics:
        """One user's figures, over one app's rows or all."""
        now = self._clock.now_ms()
        return self._store.read(lambda conn: user_analytics(conn, user_id, app, now, self.days()))

    def users(self, user_ids: Sequence[str]) -> tuple[UserAnalytics, ...]:
        """The figures of several users over all apps, compared with one look at the workspace."""
        now, days = self._clock.now_ms(), self.days()

        def answer(conn: sqlite3.Connection) -> tuple[UserAnalytics, ...]:
            means = workspace_means(conn, None, now)
            return tuple(user_analytics(conn, user_id, None, now, days, means) for user_id in user_ids)

        return self._store.read(answer)

    def today(self) -> tuple[date, int, int, int]:
        """The local day it is, and its active users, sessions started and activities."""
        day, start, end = self.today_bounds()
        return day, *self._store.read(lambda conn: today_activity(conn, start, end))

    def today_bounds(self) -> tuple[date, int, int]:
        """The local day it is, and its first and its last-plus-one millisecond (23 to 25 hours apart)."""
        day = self._today()
        return day, self._start_of(day), self._start_of(day + timedelta(days=1))

    def days(self) -> Days:
        """The days that a user's figures look back on."""
        today = self._today()
        return Days(tuple(self._start_of(today + timedelta(days=d)) for d in range(-TRAILING_DAYS - 1, 2)))

    def _today(self) -> date:
        return to_datetime(self._clock.now_ms()).astimezone(self._local.zone).date()

    def _start_of(self, day: date) -> int:
        return self._local.start(to_day(day))
