"""Queries of the rules: activities since the last check, activities and sessions of a time window."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flashflow.backend.core.encoding import to_json
from flashflow.backend.domain.rule_conditions import ActivityFacts
from flashflow.backend.store.activity.models import UserActivity
from flashflow.backend.store.activity.user_index import COLUMNS
from flashflow.backend.store.engine.statement import TextStatement


class _Facts(NamedTuple):
    """The values of ActivityFacts, in its order; ``metadata`` is JSON text."""

    seq: int
    id: str
    user_id: str
    activity_type: str
    session_id: str
    app: str
    timestamp: int
    received_at: int
    metadata: str | None
    page_url: str | None
    referrer: str | None
    user_agent: str | None


_COLUMNS = ", ".join(COLUMNS[name] for name in _Facts._fields)
_IDS = {"id": UserActivity.id, "session_id": UserActivity.session_id}
SINCE = TextStatement(
    f"SELECT {_COLUMNS} FROM user_activities NOT INDEXED WHERE seq > :after AND seq <= :until AND timestamp >= :since "
    "AND activity_type IN (SELECT value FROM json_each(:types)) ORDER BY seq LIMIT :limit",
    _Facts,
    reason="an index hint",
    decode=_IDS,
)
DURING = TextStatement(
    f"SELECT {_COLUMNS} FROM user_activities INDEXED BY user_activities_time "
    "WHERE timestamp >= :since AND activity_type = :type AND (:app IS NULL OR app = :app) ORDER BY timestamp, seq",
    _Facts,
    reason="an index hint",
    decode=_IDS,
)
BEGUN = TextStatement(
    "SELECT COUNT(*) FROM user_sessions INDEXED BY user_sessions_start "
    "WHERE start_time >= :start AND start_time < :end AND (:app IS NULL OR app = :app)",
    reason="an index hint",
)


class ActivityBatch(NamedTuple):
    """Activities in order of arrival, and the last ``seq`` that was read."""

    activities: list[ActivityFacts]
    reached: int


def activities_since(
    conn: sqlite3.Connection, after: int, until: int, since_ms: int, types: Sequence[str], limit: int
) -> ActivityBatch:
    """Return up to ``limit`` activities of ``types`` after seq ``after`` up to ``until``, from ``since_ms`` on."""
    rows = SINCE.all(conn, after=after, until=until, since=since_ms, types=to_json(types), limit=limit)
    return ActivityBatch([ActivityFacts(*row) for row in rows], rows[-1].seq if len(rows) == limit else until)


def activities_of_type(
    conn: sqlite3.Connection, since_ms: int, activity_type: str, app: str | None
) -> Iterator[ActivityFacts]:
    """Iterate over the activities of a type timed ``since_ms`` or later, oldest first."""
    for row in DURING.each(conn, since=since_ms, type=activity_type, app=app):
        yield ActivityFacts(*row)


def count_sessions(conn: sqlite3.Connection, start_ms: int, end_ms: int, app: str | None) -> int:
    """Count the sessions of an app (None: all) that began in [``start_ms``, ``end_ms``)."""
    return int(BEGUN.value(conn, start=start_ms, end=end_ms, app=app))
