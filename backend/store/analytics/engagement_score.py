"""Engagement score, 0 to 100, after Peterson's visitor engagement indices (2007), with Pendo's adoption.

100 × the mean of C (sessions with more pages than the workspace's mean), D (longer than its mean), R (both deep and
within 7 days), I (with a key activity), F (active days / 28) and A (key activity types used, of those defined), over
28 trailing local days. Where no key activity is defined, I and A leave the mean.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from peewee import SQL, fn

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.session_table import LIVE_PAGES
from flashflow.backend.store.analytics import totals
from flashflow.backend.store.analytics.totals import Slice
from flashflow.backend.store.engine.statement import Statement, TextStatement
from flashflow.backend.store.rollups.dimensions import key_of
from flashflow.backend.store.rollups.models import OTHER, Dimension
from flashflow.backend.store.rollups.partitions import BITS, partition_of

FORMULA = 2
"""Version of the formula; stored scores of another version are recomputed."""
TRAILING_DAYS = 28
RECENT_DAYS = 7


class _Session(NamedTuple):
    pages: int
    duration: int
    start_time: int
    key_activities: int


_ACTIVE_DAYS = TextStatement(
    "SELECT COUNT(*) FROM (SELECT day.value AS day FROM json_each(:days) day WHERE EXISTS "
    "(SELECT 1 FROM user_keys u JOIN main.user_days d ON d.day = day.value AND d.user = u.key "
    "WHERE u.user_id = :user AND (:app_key = 0 OR d.app = :app_key)) "
    f"UNION SELECT local_hour(timestamp) / 24 FROM {user_index.TAIL} AND user_id = :user AND timestamp >= :since "
    "AND (:app IS NULL OR app = :app))",
    reason="a table of the main file behind a temporary one",
)
_KEY_TYPES_USED = TextStatement(
    f"SELECT COUNT(DISTINCT activity_type) FROM ({user_index.SINCE}) "
    f"WHERE activity_type IN (SELECT name FROM dimensions WHERE kind = {OTHER['type']} AND marked) "
    "AND (:app IS NULL OR app = :app)",
    reason="a join order",
)
_KEY_TYPES = Statement(
    lambda: Dimension.select(fn.COUNT(SQL("*"))).where(Dimension.kind == OTHER["type"], Dimension.marked)
)
_SESSIONS = TextStatement(
    f"SELECT {LIVE_PAGES} AS pages, COALESCE(end_time, last_seen) - start_time AS duration, start_time, key_activities "
    "FROM json_each(:parts) t CROSS JOIN user_sessions INDEXED BY user_sessions_user "
    f"WHERE {partition_of('start_time')} = t.value AND user_id = :user AND start_time >= :since "
    "AND (:app IS NULL OR app = :app)",
    _Session,
    reason="an index hint",
)


class Scoring:
    """Compute scores on one snapshot; the workspace's means are read once."""

    def __init__(self, conn: sqlite3.Connection, app: str | None, now_ms: int, local: LocalTime) -> None:
        self._conn = conn
        self._app = app
        today = local.day(now_ms)
        self._days = to_json(list(range(today - TRAILING_DAYS + 1, today + 1)))
        self._since = local.start(today - TRAILING_DAYS + 1)
        self._recent = local.start(today - RECENT_DAYS + 1)
        self._app_key = 0 if app is None else (key_of(conn, "app", app) or -1)
        trailing = Slice(today - TRAILING_DAYS + 1, today + 1, self._app_key)
        far = local.start(today + 2)
        self._parts = to_json(list(range(self._since >> BITS, (far >> BITS) + 1)))
        # The stored table: a query in another time zone still scores by the workspace's days.
        sums = totals.sessions(conn, trailing, self._since, far, app, of_file=True)
        self._mean_pages = sums.pages / sums.sessions if sums.sessions else 0.0
        self._mean_ms = sums.duration / sums.sessions if sums.sessions else 0.0
        self._key_types = _KEY_TYPES.value(conn)

    def of(self, user_id: str) -> tuple[float, dict[str, float]]:
        """Return a user's score and its parts; 0 and no parts without activity in the trailing days."""
        which = {"user": user_id, "since": self._since, "app": self._app}
        sessions = _SESSIONS.all(self._conn, parts=self._parts, **which)
        days = _ACTIVE_DAYS.value(self._conn, days=self._days, app_key=self._app_key, **which)
        if not sessions and not days:
            return 0.0, {}
        deep = [session for session in sessions if session.pages > self._mean_pages]
        parts = {
            "C": _share(deep, sessions),
            "D": _share([session for session in sessions if session.duration > self._mean_ms], sessions),
            "R": _share([session for session in deep if session.start_time >= self._recent], sessions),
            "F": min(days / TRAILING_DAYS, 1.0),
        }
        if self._key_types:
            parts["I"] = _share([session for session in sessions if session.key_activities > 0], sessions)
            parts["A"] = min(_KEY_TYPES_USED.value(self._conn, **which) / self._key_types, 1.0)
        return score_of(parts), parts


def score_of(parts: dict[str, float]) -> float:
    """Return 100 × the mean of the parts."""
    return round(100 * sum(parts.values()) / len(parts), 2)


def _share(some: list[Any], of: list[Any]) -> float:
    return len(some) / len(of) if of else 0.0
