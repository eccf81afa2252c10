"""The ``notification_preferences`` table: a user's choices by type and channel."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Preference
from flashflow.backend.store.engine.statement import Statement, columns, slot, upsert
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.models import NotificationPreference as Choice


class _Row(NamedTuple):
    notification_type: str
    channel: str
    enabled: bool
    updated_at: int


def choices_of(conn: sqlite3.Connection, user_id: str) -> dict[tuple[str, str], bool]:
    """A user's preferences: (type, channel) → enabled."""
    return {(row.notification_type, row.channel): row.enabled for row in _OF_USER.each(conn, user=user_id)}


def preferences_of(conn: sqlite3.Connection, user_id: str) -> tuple[Preference, ...]:
    """A user's preferences, by type and channel."""
    return tuple(
        Preference(
            user_id=user_id,
            notification_type=row.notification_type,
            channel=row.channel,
            enabled=row.enabled,
            updated_at=to_datetime(row.updated_at),
        )
        for row in _OF_USER.each(conn, user=user_id)
    )


def set_preferences(tx: Tx, choices: Sequence[tuple[str, str, str, bool]]) -> None:
    """Store (user, type, channel, enabled) rows, replacing earlier ones."""
    _SAVE.many(tx.conn, [(*choice, tx.now_ms) for choice in choices])


_OF_USER = Statement(
    # In the order of the primary key, so nothing is sorted.
    lambda: (
        Choice.select(*columns(Choice, _Row))
        .where(Choice.user_id == slot("user"))
        .order_by(Choice.notification_type, Choice.channel)
    ),
    _Row,
)
_SAVE = Statement(
    lambda: upsert([Choice.user_id, Choice.notification_type, Choice.channel], [Choice.enabled, Choice.updated_at])
)
