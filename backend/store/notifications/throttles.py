"""How often a type has reached a user by a channel lately: the last times, as many as its throttle counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from flashflow.backend.core.encoding import decode_json, to_json
from flashflow.backend.schemas.records import NotificationType
from flashflow.backend.store.engine.writer import Tx

_decode = msgspec.json.Decoder(list[int]).decode


def used_up(
    conn: sqlite3.Connection, user_id: str, kind: NotificationType, channels: Sequence[str], now_ms: int
) -> dict[str, str]:
    """Channel → the rule in words, for those of ``channels`` that have had their share within the window."""
    rule = kind.throttle
    if rule is None:
        return {}
    window_ms = rule.minutes * 60_000
    words = f"At most {rule.limit} of “{kind.name}” in {rule.minutes} minute{'' if rule.minutes == 1 else 's'}."
    return {
        channel: words
        for channel in channels
        # Either way: where the clock was set back, a use may lie ahead, and must not count until it comes again.
        if sum(abs(now_ms - at) < window_ms for at in _times(conn, user_id, kind.name, channel)) >= rule.limit
    }


def note_use(tx: Tx, user_id: str, kind: NotificationType, channels: Sequence[str]) -> None:
    """Count one use of each of ``channels`` now."""
    if kind.throttle is None:
        return
    for channel in channels:
        times = [*_times(tx.conn, user_id, kind.name, channel), tx.now_ms][-kind.throttle.limit :]
        tx.conn.execute(
            "INSERT INTO throttles (user_id, notification_type, channel, times) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET times = excluded.times",
            (user_id, kind.name, channel, to_json(times)),
        )


def _times(conn: sqlite3.Connection, user_id: str, name: str, channel: str) -> list[int]:
    row = conn.execute(
        "SELECT times FROM throttles WHERE user_id = ? AND notification_type = ? AND channel = ?",
        (user_id, name, channel),
    ).fetchone()
    return [] if row is None else decode_json(_decode, row[0], [])
