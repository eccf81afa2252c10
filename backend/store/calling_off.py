"""What need not go out any more, although it stands in the outbox: its notice is over, or its device is gone.

Asked at every claim, and before a try that failed is put back: between the decision and the try lie seconds or, with
``Retry-After``, a day.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from backend.store.carrying import pass_on
from backend.store.codec import to_json
from backend.store.writer import Tx

COLUMNS = (
    "n.status, n.expires_at, n.read_at IS NOT NULL OR n.inbox IN ('archived', 'snoozed'), d.channel, "
    "d.device_seq IS NULL OR (t.user_id = n.user_id AND t.is_active)"
)
"""What ``end_of`` wants to know, of a delivery ``d``, its notification ``n`` and its device ``t``."""

_OF = (
    f"SELECT d.seq, {COLUMNS} FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq "  # noqa: S608
    "LEFT JOIN device_tokens t ON t.seq = d.device_seq WHERE d.seq IN (SELECT value FROM json_each(?))"
)


class End(NamedTuple):
    """How a delivery stands that does not go out any more."""

    status: str
    code: str
    reason: str


def end_of(row: tuple[Any, ...], now_ms: int) -> End | None:
    """``row`` is COLUMNS; None where the delivery may go out."""
    status, expires_at, dealt_with, channel, has_target = row
    if status == "cancelled":
        return End("suppressed", "cancelled", "It was cancelled.")
    if status == "expired" or (expires_at is not None and expires_at <= now_ms):
        return End("suppressed", "expired", "It expired first.")
    if dealt_with and channel == "push":
        return End("suppressed", "read_first", "It was read first.")
    if not has_target:  # removed, called dead, or somebody else's by now
        return End("failed", "no_device", "This device is not registered any more.")
    return None


def ends_of(tx: Tx, delivery_seqs: Collection[int]) -> dict[int, End]:
    """Those of these deliveries that need not go out any more."""
    if not delivery_seqs:
        return {}
    rows = tx.conn.execute(_OF, (to_json(list(delivery_seqs)),)).fetchall()
    return {row[0]: end for row in rows if (end := end_of(row[1:], tx.now_ms)) is not None}


def call_off(tx: Tx, seq: int, end: End) -> None:
    """End a delivery; what it carried goes out without it."""
    tx.conn.execute(
        "UPDATE deliveries SET status = ?, code = ?, reason = ?, next_attempt_at = NULL, lease_until = NULL, "
        "updated_at = ? WHERE seq = ?",
        (*end, tx.now_ms, seq),
    )
    pass_on(tx, seq)
