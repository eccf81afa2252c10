"""The figures of one user and of today, straight from the rows (DEFINITIONS.md)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from backend.clock import to_datetime
from backend.records import NameCount, UserAnalytics
from backend.store.codec import to_json
from backend.store.names import FEATURE, PAGE_VIEW
from backend.store.sessions import LIVE_PAGES
from backend.store.writer import Tx

DAY_MS = 24 * 60 * 60 * 1000
TRAILING_DAYS = 28
RECENT_DAYS = 7
TOP = 10


class Days(NamedTuple):
    """The workspace's days up to today: the first millisecond of each, oldest first, and that of tomorrow."""

    starts: tuple[int, ...]

    def since(self, ms: int) -> str:
        """As JSON, the [first, last plus one] milliseconds of each day, or of what is left of it from ``ms`` on."""
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return to_json([(max(start, ms), end) for start, end in pairs if end > ms])


class Means(NamedTuple):
    """The workspace's mean pages and mean duration (ms) of a session over the trailing days; None without sessions."""

    pages: float | None
    duration: float | None


def workspace_means(conn: sqlite3.Connection, app: str | None, now_ms: int) -> Means:
    """What a user's sessions are compared with: one look at every session of the trailing days."""
    scope = "" if app is None else " AND app = ?"
    row = conn.execute(
        f"SELECT AVG({LIVE_PAGES}), AVG(COALESCE(end_time, last_seen) - start_time) FROM user_sessions "  # noqa: S608
        f"WHERE start_time >= ?{scope}",
        (now_ms - TRAILING_DAYS * DAY_MS, *(() if app is None else (app,))),
    ).fetchone()
    return Means(*row)


def user_analytics(
    conn: sqlite3.Connection, user_id: str, app: str | None, now_ms: int, days: Days, means: Means | None = None
) -> UserAnalytics:
    """Every figure of ``user_id``, over one app's rows or all; ``means`` are the workspace's where they are known."""
    only = "" if app is None else " AND app = ?"
    who: tuple[str, ...] = (user_id,) if app is None else (user_id, app)
    total, last = conn.execute(
        f"SELECT COUNT(*), MAX(timestamp) FROM user_timeline WHERE user_id = ?{only}",  # noqa: S608
        who,
    ).fetchone()
    sessions, mean = conn.execute(
        "SELECT COUNT(*), AVG(CASE WHEN end_time IS NOT NULL THEN (end_time - start_time) / 1000.0 END) "  # noqa: S608
        f"FROM user_sessions WHERE user_id = ?{only}",
        who,
    ).fetchone()
    pages = _top(conn, f"SELECT page_url, COUNT(*) FROM user_timeline WHERE user_id = ?{only} "  # noqa: S608
                 "AND page_url IS NOT NULL GROUP BY 1", who)  # fmt: skip
    features = _top(conn, f"SELECT {FEATURE}, COUNT(*) FROM user_timeline WHERE user_id = ?{only} "  # noqa: S608
                    f"AND {FEATURE} <> '{PAGE_VIEW}' GROUP BY 1", who)  # fmt: skip
    score, parts = _engagement(conn, user_id, app, now_ms, days, means)
    return UserAnalytics(
        user_id=user_id,
        total_sessions=sessions,
        total_activities=total,
        last_activity=None if last is None else to_datetime(last),
        avg_session_duration=mean,
        most_visited_pages=pages,
        favorite_features=features,
        engagement_score=score,
        engagement_parts=parts,
    )


def store_analytics(tx: Tx, figures: Sequence[UserAnalytics]) -> None:
    """Write the figures that a session's end settles into ``user_analytics``."""
    tx.conn.executemany(
        "UPDATE user_analytics SET avg_session_duration = ?, most_visited_pages = ?, favorite_features = ?, "
        "engagement_score = ?, engagement_parts = ?, computed_at = ? WHERE user_id = ?",
        [
            (
                user.avg_session_duration,
                to_json(user.most_visited_pages),
                to_json(user.favorite_features),
                user.engagement_score,
                to_json(user.engagement_parts),
                tx.now_ms,
                user.user_id,
            )
            for user in figures
        ],
    )


def unsettled_users(conn: sqlite3.Connection) -> list[str]:
    """Users with a session that ended after their figures were last written."""
    rows = conn.execute(
        "SELECT DISTINCT s.user_id FROM user_sessions s JOIN user_analytics u ON u.user_id = s.user_id "
        "WHERE s.end_time > COALESCE(u.computed_at, -1)"
    )
    return [user_id for (user_id,) in rows]


def _top(conn: sqlite3.Connection, grouped: str, values: tuple[str, ...]) -> tuple[NameCount, ...]:
    rows = conn.execute(f"{grouped} ORDER BY 2 DESC, 1 LIMIT {TOP}", values)
    return tuple(NameCount(name=str(name), count=count) for name, count in rows)


def _engagement(
    conn: sqlite3.Connection, user_id: str, app: str | None, now_ms: int, days: Days, means: Means | None
) -> tuple[float, dict[str, float]]:
    """100 × the mean of the parts of Peterson's visitor engagement indices that apply; no key activity type is
    defined yet, so I and A leave the mean. Nobody seen in the last 28 days is engaged: 0."""
    since = now_ms - TRAILING_DAYS * DAY_MS
    scope = "" if app is None else " AND app = ?"
    extra = () if app is None else (app,)
    rows = conn.execute(
        f"SELECT {LIVE_PAGES}, COALESCE(end_time, last_seen) - start_time, start_time FROM user_sessions "  # noqa: S608
        f"WHERE user_id = ? AND start_time >= ?{scope}",
        (user_id, since, *extra),
    ).fetchall()
    (active_days,) = conn.execute(
        "SELECT COUNT(*) FROM json_each(?) day WHERE EXISTS (SELECT 1 FROM user_timeline WHERE user_id = ? "  # noqa: S608
        f"AND timestamp >= json_extract(day.value, '$[0]') AND timestamp < json_extract(day.value, '$[1]'){scope})",
        (days.since(since), user_id, *extra),
    ).fetchone()
    frequency = min(active_days / TRAILING_DAYS, 1.0)
    if not rows:
        return (0.0, {}) if not active_days else (100 * frequency / 4, {"C": 0.0, "D": 0.0, "R": 0.0, "F": frequency})
    mean_pages, mean_duration = means or workspace_means(conn, app, now_ms)
    assert mean_pages is not None
    assert mean_duration is not None
    recent = now_ms - RECENT_DAYS * DAY_MS
    parts = {
        "C": _share([pages > mean_pages for pages, _, _ in rows]),
        "D": _share([duration > mean_duration for _, duration, _ in rows]),
        "R": _share([pages > mean_pages and start >= recent for pages, _, start in rows]),
        "F": frequency,
    }
    return round(100 * sum(parts.values()) / len(parts), 2), parts


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def today_activity(conn: sqlite3.Connection, start_ms: int, end_ms: int) -> tuple[int, int, int]:
    """Active users, sessions started and activities in ``[start_ms, end_ms)``."""
    users, activities = conn.execute(
        "SELECT COUNT(DISTINCT user_id), COUNT(*) FROM user_activities WHERE timestamp >= ? AND timestamp < ?",
        (start_ms, end_ms),
    ).fetchone()
    (sessions,) = conn.execute(
        "SELECT COUNT(*) FROM user_sessions WHERE start_time >= ? AND start_time < ?", (start_ms, end_ms)
    ).fetchone()
    return users, sessions, activities


def today_notifications(conn: sqlite3.Connection, start_ms: int, end_ms: int) -> tuple[int, int, int]:
    """Notifications made, delivered and read in ``[start_ms, end_ms)``, by when they were made."""
    made, delivered, read = conn.execute(
        "SELECT COUNT(*), COUNT(delivered_at), COUNT(read_at) FROM notifications "
        "WHERE created_at >= ? AND created_at < ?",
        (start_ms, end_ms),
    ).fetchone()
    return made, delivered, read
