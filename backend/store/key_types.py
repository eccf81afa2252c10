"""Which activity types are key activities: those that make a session engaged and count for adoption."""

from __future__ import annotations

import sqlite3

from backend.events import Event
from backend.records_analytics import ActivityType
from backend.store.figures_check import recount
from backend.store.names import type_key
from backend.store.schema_figures import OTHER
from backend.store.writer import Tx

KEY_TYPES = "key_types"
"""The event that tells of another list of types, and of the figures that changed with it."""
_RECOUNT_SESSIONS = (
    "UPDATE user_sessions SET key_activities = MAX(0, key_activities + ? * counted.n) FROM (SELECT session_id, "
    "COUNT(*) AS n FROM user_activities WHERE activity_type = ? GROUP BY 1) counted WHERE id = counted.session_id"
)


def list_types(conn: sqlite3.Connection) -> tuple[ActivityType, ...]:
    """Every type that has a figure of its own, by name."""
    rows = conn.execute(
        "SELECT name, marked FROM figure_names WHERE kind = ? AND name <> '' ORDER BY name", (OTHER["type"],)
    )
    return tuple(ActivityType(name=name, key=bool(marked)) for name, marked in rows)


def mark(tx: Tx, name: str, is_key: bool) -> ActivityType | None:
    """Make ``name`` a key activity or none any more, and count the sessions anew by it: one look at every activity.
    None where there is no room for another name."""
    before = tx.conn.total_changes
    key = type_key(tx, name)
    if key is None:
        return None
    changed = tx.conn.execute(
        "UPDATE figure_names SET marked = ? WHERE key = ? AND marked <> ?", (is_key, key, is_key)
    ).rowcount
    if changed:
        tx.conn.execute(_RECOUNT_SESSIONS, (1 if is_key else -1, name))
        recount(tx.conn, "session_days")
    if tx.conn.total_changes != before:
        tx.events.append(Event("system", KEY_TYPES))
    return ActivityType(name=name, key=is_key)
