"""The ``notification_preferences`` table: a user's choices by type and channel."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.schemas.records import Preference
from flashflow.backend.store.engine.writer import Tx


def choices_of(conn: sqlite3.Connection, user_id: str) -> dict[tuple[str, str], bool]:
    """A user's preferences: (type, channel) → enabled."""
    rows = conn.execute(
        "SELECT notification_type, channel, enabled FROM notification_preferences WHERE user_id = ?", (user_id,)
    )
    return {(kind, channel): bool(enabled) for kind, channel, enabled in rows}


def preferences_of(conn: sqlite3.Connection, user_id: str) -> tuple[Preference, ...]:
    """A user's preferences, by type and channel."""
    rows = conn.execute(
        "SELECT notification_type, channel, enabled, updated_at FROM notification_preferences WHERE user_id = ? "
        "ORDER BY notification_type, channel",
        (user_id,),
    )
    return tuple(
        Preference(
            user_id=user_id,
            notification_type=kind,
            channel=channel,
            enabled=bool(enabled),
            updated_at=to_datetime(updated),
        )
        for kind, channel, enabled, updated in rows
    )


def set_preferences(tx: Tx, choices: Sequence[tuple[str, str, str, bool]]) -> None:
    """Store (user, type, channel, enabled) rows, replacing earlier ones."""
    tx.conn.executemany(
        "INSERT INTO notification_preferences (user_id, notification_type, channel, enabled, updated_at) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET enabled = excluded.enabled, updated_at = excluded.updated_at",
        [(*choice, tx.now_ms) for choice in choices],
    )
