"""Engagement score, 0 to 100, after Peterson's visitor engagement indices (2007), with Pendo's adoption.

100 × the mean of C (sessions with more pages than the workspace's mean), D (longer than its mean), R (both deep and
within 7 days), I (with a key activity), F (active days / 28) and A (key activity types used, of those defined), over
28 trailing local days. Where no key activity is defined, I and A leave the mean.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.session_table import LIVE_PAGES
from flashflow.backend.store.analytics import totals
from flashflow.backend.store.analytics.totals import Slice
from flashflow.backend.store.rollups.dimensions import key_of
from flashflow.backend.store.rollups.models import OTHER
from flashflow.backend.store.rollups.partitions import BITS, partition_of

FORMULA = 2
"""Version of the formula; stored scores of another version are recomputed."""
TRAILING_DAYS = 28
RECENT_DAYS = 7

_ACTIVE_DAYS = (
    "SELECT COUNT(*) FROM (SELECT day.value AS day FROM json_each(?) day WHERE EXISTS (SELECT 1 FROM figure_users u "
    "JOIN main.user_days d ON d.day = day.value AND d.user = u.key WHERE u.user_id = ? AND (? = 0 OR d.app = ?)) "
    f"UNION SELECT local_hour(timestamp) / 24 FROM {user_index.TAIL} AND user_id = ? AND timestamp >= ? "
    "AND (? IS NULL OR app = ?))"
)
_KEY_TYPES_USED = (
    f"SELECT COUNT(DISTINCT activity_type) FROM ({user_index.SINCE}) "
    f"WHERE activity_type IN (SELECT name FROM figure_names WHERE kind = {OTHER['type']} AND marked) "
    "AND (?3 IS NULL OR app = ?3)"
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
        sums = totals.sessions(conn, trailing, self._since, far, app, "main.session_days")
        self._mean_pages = sums.pages / sums.sessions if sums.sessions else 0.0
        self._mean_ms = sums.duration / sums.sessions if sums.sessions else 0.0
        (self._key_types,) = conn.execute(
            "SELECT COUNT(*) FROM figure_names WHERE kind = ? AND marked", (OTHER["type"],)
        ).fetchone()

    def of(self, user_id: str) -> tuple[float, dict[str, float]]:
        """Return a user's score and its parts; 0 and no parts without activity in the trailing days."""
        app = self._app
        sessions: list[tuple[int, int, int, int]] = self._conn.execute(
            f"SELECT {LIVE_PAGES}, COALESCE(end_time, last_seen) - start_time, start_time, key_activities "
            "FROM json_each(?) t CROSS JOIN user_sessions INDEXED BY user_sessions_user "
            f"WHERE {partition_of('start_time')} = t.value AND user_id = ? AND start_time >= ? "
            "AND (? IS NULL OR app = ?)",
            (self._parts, user_id, self._since, app, app),
        ).fetchall()
        (days,) = self._conn.execute(
            _ACTIVE_DAYS, (self._days, user_id, self._app_key, self._app_key, user_id, self._since, app, app)
        ).fetchone()
        if not sessions and not days:
            return 0.0, {}
        deep = [pages > self._mean_pages for pages, *_ in sessions]
        parts = {
            "C": _share(deep),
            "D": _share([duration > self._mean_ms for _, duration, *_ in sessions]),
            "R": _share([d and row[2] >= self._recent for d, row in zip(deep, sessions, strict=True)]),
            "F": min(days / TRAILING_DAYS, 1.0),
        }
        if self._key_types:
            parts["I"] = _share([key > 0 for *_, key in sessions])
            parts["A"] = min(self._used(user_id) / self._key_types, 1.0)
        return score_of(parts), parts

    def _used(self, user_id: str) -> int:
        (used,) = self._conn.execute(_KEY_TYPES_USED, (user_id, self._since, self._app)).fetchone()
        return int(used)


def score_of(parts: dict[str, float]) -> float:
    """Return 100 × the mean of the parts."""
    return round(100 * sum(parts.values()) / len(parts), 2)


def _share(flags: list[Any]) -> float:
    return sum(map(bool, flags)) / len(flags) if flags else 0.0
