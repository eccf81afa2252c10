"""Queries of the rules: activities since the last check, activities and sessions of a time window."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flashflow.backend.core.encoding import decode_id, to_json
from flashflow.backend.domain.rule_conditions import ActivityFacts
from flashflow.backend.store.activity.user_index import COLUMNS

_COLUMNS = ", ".join(
    COLUMNS[name]
    for name in (
        "seq", "id", "user_id", "activity_type", "session_id", "app", "timestamp", "received_at", "metadata",
        "page_url", "referrer", "user_agent",
    )
)  # fmt: skip
SINCE = (
    f"SELECT {_COLUMNS} FROM user_activities NOT INDEXED WHERE seq > ? AND seq <= ? AND timestamp >= ? "
    "AND activity_type IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?"
)
DURING = (
    f"SELECT {_COLUMNS} FROM user_activities INDEXED BY user_activities_time "
    "WHERE timestamp >= ? AND activity_type = ? AND (? IS NULL OR app = ?) ORDER BY timestamp, seq"
)
BEGUN = (
    "SELECT COUNT(*) FROM user_sessions INDEXED BY user_sessions_start "
    "WHERE start_time >= ?1 AND start_time < ?2 AND (?3 IS NULL OR app = ?3)"
)


class ActivityBatch(NamedTuple):
    """Activities in order of arrival, and the last ``seq`` that was read."""

    activities: list[ActivityFacts]
    reached: int


def activities_since(
    conn: sqlite3.Connection, after: int, until: int, since_ms: int, types: Sequence[str], limit: int
) -> ActivityBatch:
    """Return up to ``limit`` activities of ``types`` after seq ``after`` up to ``until``, from ``since_ms`` on."""
    rows = conn.execute(SINCE, (after, until, since_ms, to_json(types), limit)).fetchall()
    return ActivityBatch([_facts(row) for row in rows], rows[-1][0] if len(rows) == limit else until)


def activities_of_type(
    conn: sqlite3.Connection, since_ms: int, activity_type: str, app: str | None
) -> Iterator[ActivityFacts]:
    """Iterate over the activities of a type timed ``since_ms`` or later, oldest first."""
    for row in conn.execute(DURING, (since_ms, activity_type, app, app)):
        yield _facts(row)


def _facts(row: tuple[Any, ...]) -> ActivityFacts:
    seq, id_, user_id, kind, session_id, *rest = row
    return ActivityFacts(seq, decode_id(id_), user_id, kind, decode_id(session_id), *rest)


def count_sessions(conn: sqlite3.Connection, start_ms: int, end_ms: int, app: str | None) -> int:
    """Count the sessions of an app (None: all) that began in [``start_ms``, ``end_ms``)."""
    return int(conn.execute(BEGUN, (start_ms, end_ms, app)).fetchone()[0])
