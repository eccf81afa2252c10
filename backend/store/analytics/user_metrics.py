"""Metrics of one user (domain/metric_definitions), their stored copy in ``user_analytics``, and today's counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from peewee import SQL, fn

from flashflow.backend.core.clock import DAY_MS, to_datetime
from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import NameCount, UserAnalytics
from flashflow.backend.store.activity import models, user_index
from flashflow.backend.store.activity.models import UserActivity, UserSession
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.analytics.engagement_score import FORMULA, Scoring
from flashflow.backend.store.engine.statement import Statement, TextStatement, any_or_same, slot
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.models import Notification
from flashflow.backend.store.rollups.dimensions import key_of
from flashflow.backend.store.rollups.models import RollupState, UserKey
from flashflow.backend.store.rollups.partitions import BY_PART, SESSION_PARTITIONS
from flashflow.backend.store.rollups.schema import OF_USER

TOP = 10


class _Sessions(NamedTuple):
    """The number of sessions and their mean length in seconds."""

    total: int
    mean: float | None


class _Active(NamedTuple):
    users: int
    activities: int


class _DayCount(NamedTuple):
    day: int
    activities: int


class NotificationCounts(NamedTuple):
    """Notifications, and how many of them were delivered and read."""

    made: int
    delivered: int
    read: int


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


def _activities_of(conn: sqlite3.Connection, user_id: str, app: str | None) -> tuple[int, int | None]:
    """Return the number of activities ever, by the rollups (which pruning does not change) and the tail, and the time
    of the latest."""
    key = 0 if app is None else (key_of(conn, "app", app) or -1)
    aggregated = _AGGREGATED.value(conn, user=user_id, app=key)
    tail = _IN_TAIL.value(conn, user=user_id, app=app)
    newest = user_index.places_of_user(conn, user_index.IndexQuery(user_id, app=app), 1)
    last = newest[0].timestamp if newest else None
    if last is None and app is None:
        last = _LAST_ACTIVITY.value(conn, user=user_id)
    return aggregated + tail, last


def days_of_user(conn: sqlite3.Connection, user_id: str, first: int, last: int) -> dict[int, int]:
    """Count a user's activities by local day from ``first`` to ``last``, by the rollups; days without one are left
    out."""
    return dict(_DAYS_OF_USER.each(conn, user=user_id, first=first, last=last))


def known_users(conn: sqlite3.Connection, limit: int) -> list[str]:
    """Return up to ``limit`` users with an activity that the rollups include."""
    return [user_id for (user_id,) in _KNOWN_USERS.each(conn, limit=limit)]


def _sessions_of(conn: sqlite3.Connection, user_id: str, app: str | None) -> tuple[int, float | None]:
    """Return the number of sessions ever (of one app: stored ones), and their mean length in seconds."""
    stored = _SESSIONS.one(conn, user=user_id, app=app)
    assert stored is not None
    if app is None and (ever := _TOTAL_SESSIONS.value(conn, user=user_id)) is not None:
        ever += user_index.uncounted_sessions(conn, user_id)
        return max(stored.total, ever), stored.mean
    return stored


_U = models.UserAnalytics
_AGGREGATED = TextStatement(
    f"SELECT COALESCE(SUM(d.activities), 0) FROM user_keys u CROSS JOIN {OF_USER} AND d.user = u.key "
    "WHERE u.user_id = :user AND (:app = 0 OR d.app = :app)",
    reason="a join order",
)
_DAYS_OF_USER = TextStatement(
    f"SELECT d.day, SUM(d.activities) AS activities FROM user_keys u CROSS JOIN {OF_USER} AND d.user = u.key "
    "WHERE u.user_id = :user AND t.day BETWEEN :first AND :last GROUP BY d.day",
    _DayCount,
    reason="a join order",
)
_KNOWN_USERS = Statement(lambda: UserKey.select(UserKey.user_id).order_by(UserKey.key).limit(slot("limit")))
_IN_TAIL = Statement(
    lambda: UserActivity.select(fn.COUNT(SQL("*"))).where(
        UserActivity.seq > RollupState.select(RollupState.through),
        UserActivity.user_id == slot("user"),
        any_or_same(UserActivity.app),
    )
)
_LAST_ACTIVITY = Statement(lambda: _U.select(_U.last_activity).where(_U.user_id == slot("user")))
_TOTAL_SESSIONS = Statement(lambda: _U.select(_U.total_sessions).where(_U.user_id == slot("user")))
_SESSIONS = TextStatement(
    f"WITH RECURSIVE {SESSION_PARTITIONS} SELECT COUNT(*) AS total, "
    "AVG(CASE WHEN end_time IS NOT NULL THEN (end_time - start_time) / 1000.0 END) AS mean "
    f"FROM {BY_PART} WHERE user_id = :user AND (:app IS NULL OR app = :app)",
    _Sessions,
    reason="an index hint",
)


def store_analytics(tx: Tx, metrics: Sequence[UserAnalytics]) -> None:
    """Store metrics in ``user_analytics`` after sessions ended, and promote heavy users."""
    for user in metrics:
        _STORE.run(
            tx.conn,
            user=user.user_id,
            avg_session_duration=user.avg_session_duration,
            most_visited_pages=_as_counts(user.most_visited_pages),
            favorite_features=_as_counts(user.favorite_features),
            engagement_score=user.engagement_score,
            engagement_parts=to_json(user.engagement_parts),
            computed_at=tx.now_ms,
            formula=FORMULA,
        )
    heavy_users.promote(tx, [user.user_id for user in metrics if user.total_activities >= heavy_users.HEAVY_AT])


def _as_counts(names: Sequence[NameCount]) -> str:
    """Encode counts as a JSON object, most frequent first: half as long as a list of objects."""
    return to_json({one.name: one.count for one in names})


_COMPUTED = (
    _U.avg_session_duration, _U.most_visited_pages, _U.favorite_features, _U.engagement_score, _U.engagement_parts,
    _U.computed_at, _U.formula,
)  # fmt: skip
_STORE = Statement(
    lambda: _U.update({field: slot(field.name) for field in _COMPUTED}).where(_U.user_id == slot("user"))
)
_UNSETTLED = TextStatement(
    "SELECT user_id FROM user_analytics WHERE computed_at IS NULL OR computed_at <= last_activity "
    "OR (last_activity >= :since AND (computed_at < :day_start OR formula IS NOT :formula)) "
    "UNION SELECT s.user_id FROM user_sessions s INDEXED BY user_sessions_start "
    "JOIN user_analytics u ON u.user_id = s.user_id "
    f"WHERE s.start_time >= (SELECT MAX(start_time) FROM user_sessions) - {2 * DAY_MS} AND s.end_time > u.computed_at",
    reason="an index hint",
)


def unsettled_users(conn: sqlite3.Connection, day_start: int, since: int) -> list[str]:
    """Return users whose stored metrics are outdated: written before their latest activity or a recent session's end;
    or seen at ``since`` or later and written before ``day_start`` or by another formula (a score covers 28 days)."""
    return [user_id for (user_id,) in _UNSETTLED.each(conn, since=since, day_start=day_start, formula=FORMULA)]


def _top(counts: Mapping[str, int]) -> tuple[NameCount, ...]:
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:TOP]
    return tuple(NameCount(name=name, count=count) for name, count in most)


def today_activity(conn: sqlite3.Connection, start_ms: int, end_ms: int) -> tuple[int, int, int]:
    """Count active users, sessions started and activities in ``[start_ms, end_ms)``."""
    active = _ACTIVE.one(conn, start=start_ms, end=end_ms)
    assert active is not None
    return active.users, _SESSIONS_BEGUN.value(conn, start=start_ms, end=end_ms), active.activities


def today_notifications(conn: sqlite3.Connection, start_ms: int, end_ms: int) -> NotificationCounts:
    """Count notifications that reached the inbox or were stored in ``[start_ms, end_ms)``."""
    counts = _NOTIFICATIONS.one(conn, start=start_ms, end=end_ms)
    assert counts is not None
    return counts


_ACTIVE = Statement(
    lambda: UserActivity.select(
        fn.COUNT(UserActivity.user_id.distinct()).alias("users"), fn.COUNT(SQL("*")).alias("activities")
    ).where(UserActivity.timestamp >= slot("start"), UserActivity.timestamp < slot("end")),
    _Active,
)
_SESSIONS_BEGUN = Statement(
    lambda: UserSession.select(fn.COUNT(SQL("*"))).where(
        UserSession.start_time >= slot("start"), UserSession.start_time < slot("end")
    )
)
_NOTIFICATIONS = Statement(
    lambda: Notification.select(
        fn.COUNT(SQL("*")).alias("made"),
        fn.COUNT(Notification.delivered_at).alias("delivered"),
        fn.COUNT(Notification.read_at).alias("read"),
    ).where(Notification.listed_at >= slot("start"), Notification.listed_at < slot("end")),
    NotificationCounts,
)
