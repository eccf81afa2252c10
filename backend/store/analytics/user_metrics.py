"""Metrics of one user (domain/metric_definitions), their stored copy in ``user_analytics``, and today's counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from flashflow.backend.core.clock import DAY_MS, to_datetime
from flashflow.backend.core.encoding import to_json
from flashflow.backend.schemas.records import NameCount, UserAnalytics
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.analytics.engagement_score import FORMULA, Scoring
from flashflow.backend.store.engine.sql import conditions
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.dimensions import key_of
from flashflow.backend.store.rollups.partitions import BY_PART, SESSION_PARTS
from flashflow.backend.store.rollups.schema import OF_USER

TOP = 10


def user_analytics(conn: sqlite3.Connection, user_id: str, app: str | None, scoring: Scoring) -> UserAnalytics:
    """Compute the metrics of ``user_id`` in one app or in all; ``scoring`` is for the same app."""
    total, last = _activities_of(conn, user_id, app)
    sessions, mean = _sessions_of(conn, user_id, app)
    pages, features = heavy_users.most_used(conn, user_id, app, TOP)
    score, parts = scoring.of(user_id)
    return UserAnalytics(
        user_id=user_id,
        total_sessions=sessions,
        total_activities=total,
        last_activity=None if last is None else to_datetime(last),
        avg_session_duration=mean,
        most_visited_pages=_top(pages),
        favorite_features=_top(features),
        engagement_score=score,
        engagement_parts=parts,
    )


_COUNTED = (
    f"SELECT COALESCE(SUM(d.activities), 0) FROM figure_users u CROSS JOIN {OF_USER} AND d.user = u.key "
    "WHERE u.user_id = ? AND (? = 0 OR d.app = ?)"
)


def _activities_of(conn: sqlite3.Connection, user_id: str, app: str | None) -> tuple[int, int | None]:
    """Return the number of activities ever, by the rollups (which pruning does not change) and the tail, and the time
    of the latest."""
    key = 0 if app is None else (key_of(conn, "app", app) or -1)
    (folded,) = conn.execute(_COUNTED, (user_id, key, key)).fetchone()
    (tail,) = conn.execute(
        f"SELECT COUNT(*) FROM {user_index.TAIL} AND user_id = ? AND (? IS NULL OR app = ?)", (user_id, app, app)
    ).fetchone()
    newest = user_index.newest_of_user(conn, user_index.IndexQuery(user_id, *conditions([("app = ?", app)])), 1)
    last = newest[0][6] if newest else None
    if last is None and app is None:
        row = conn.execute("SELECT last_activity FROM user_analytics WHERE user_id = ?", (user_id,)).fetchone()
        last = None if row is None else row[0]
    return folded + tail, last


def _sessions_of(conn: sqlite3.Connection, user_id: str, app: str | None) -> tuple[int, float | None]:
    """Return the number of sessions ever (of one app: stored ones), and their mean length in seconds."""
    total, mean = conn.execute(
        f"WITH RECURSIVE {SESSION_PARTS} SELECT COUNT(*), "
        "AVG(CASE WHEN end_time IS NOT NULL THEN (end_time - start_time) / 1000.0 END) "
        f"FROM {BY_PART} WHERE user_id = ? AND (? IS NULL OR app = ?)",
        (user_id, app, app),
    ).fetchone()
    if app is None:
        row = conn.execute("SELECT total_sessions FROM user_analytics WHERE user_id = ?", (user_id,)).fetchone()
        total = max(total, row[0] + user_index.uncounted_sessions(conn, user_id)) if row is not None else total
    return total, mean


def store_analytics(tx: Tx, metrics: Sequence[UserAnalytics]) -> None:
    """Store metrics in ``user_analytics`` after sessions ended, and promote heavy users."""
    tx.conn.executemany(
        "UPDATE user_analytics SET avg_session_duration = ?, most_visited_pages = ?, favorite_features = ?, "
        "engagement_score = ?, engagement_parts = ?, computed_at = ?, formula = ? WHERE user_id = ?",
        [
            (
                user.avg_session_duration,
                _as_counts(user.most_visited_pages),
                _as_counts(user.favorite_features),
                user.engagement_score,
                to_json(user.engagement_parts),
                tx.now_ms,
                FORMULA,
                user.user_id,
            )
            for user in metrics
        ],
    )
    heavy_users.promote(tx, [user.user_id for user in metrics if user.total_activities >= heavy_users.HEAVY_AT])


def _as_counts(names: Sequence[NameCount]) -> str:
    """Encode counts as a JSON object, most frequent first: half as long as a list of objects."""
    return to_json({one.name: one.count for one in names})


_UNSETTLED = (
    "SELECT user_id FROM user_analytics WHERE computed_at IS NULL OR computed_at <= last_activity "
    "OR (last_activity >= ? AND (computed_at < ? OR formula IS NOT ?)) "
    "UNION SELECT s.user_id FROM user_sessions s INDEXED BY user_sessions_start "
    "JOIN user_analytics u ON u.user_id = s.user_id "
    f"WHERE s.start_time >= (SELECT MAX(start_time) FROM user_sessions) - {2 * DAY_MS} AND s.end_time > u.computed_at"
)


def unsettled_users(conn: sqlite3.Connection, day_start: int, since: int) -> list[str]:
    """Return users whose stored metrics are outdated: written before their latest activity or a recent session's end;
    or seen at ``since`` or later and written before ``day_start`` or by another formula (a score covers 28 days)."""
    return [user_id for (user_id,) in conn.execute(_UNSETTLED, (since, day_start, FORMULA))]


def _top(counts: Mapping[str, int]) -> tuple[NameCount, ...]:
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:TOP]
    return tuple(NameCount(name=name, count=count) for name, count in most)


def today_activity(conn: sqlite3.Connection, start_ms: int, end_ms: int) -> tuple[int, int, int]:
    """Count active users, sessions started and activities in ``[start_ms, end_ms)``."""
    users, activities = conn.execute(
        "SELECT COUNT(DISTINCT user_id), COUNT(*) FROM user_activities WHERE timestamp >= ? AND timestamp < ?",
        (start_ms, end_ms),
    ).fetchone()
    (sessions,) = conn.execute(
        "SELECT COUNT(*) FROM user_sessions WHERE start_time >= ? AND start_time < ?", (start_ms, end_ms)
    ).fetchone()
    return users, sessions, activities


def today_notifications(conn: sqlite3.Connection, start_ms: int, end_ms: int) -> tuple[int, int, int]:
    """Count notifications that reached the inbox or were stored in ``[start_ms, end_ms)``, and of these the delivered
    and the read."""
    made, delivered, read = conn.execute(
        "SELECT COUNT(*), COUNT(delivered_at), COUNT(read_at) FROM notifications "
        "WHERE listed_at >= ? AND listed_at < ?",
        (start_ms, end_ms),
    ).fetchone()
    return made, delivered, read
