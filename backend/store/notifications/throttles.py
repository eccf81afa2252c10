"""The ``throttles`` table: the latest send times for each user, type and channel, as many as the throttle counts."""

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
    """Channel → the rule as text, for ``channels`` whose limit is used up within the window."""
    rule = kind.throttle
    if rule is None:
        return {}
    window_ms = rule.minutes * 60_000
    text = f"At most {rule.limit} of “{kind.name}” in {rule.minutes} minute{'' if rule.minutes == 1 else 's'}."
    return {
        channel: text
        for channel in channels
        # abs: after the clock was set back, a recorded time may lie ahead and must not count until then.
        if sum(abs(now_ms - at) < window_ms for at in _times(conn, user_id, kind.name, channel)) >= rule.limit
    }


def note_use(tx: Tx, user_id: str, kind: NotificationType, channels: Sequence[str]) -> None:
    """Record one use of each of ``channels`` now."""
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
