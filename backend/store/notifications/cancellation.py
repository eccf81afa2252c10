"""What need not go out any more, although it stands in the outbox: its notice is over, its reader has turned it off, or
its device or address is gone.

Asked at every claim, and before a try that failed is put back: between the decision and the try lie seconds or, with
``Retry-After``, a day.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from flashflow.backend.core.encoding import to_json
from flashflow.backend.domain.preferences import may_use
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.digests import pass_outcome_on
from flashflow.backend.store.notifications.preferences import choices_of

COLUMNS = (
    "n.status, n.expires_at, CASE WHEN n.inbox IN ('archived', 'snoozed') THEN n.inbox "
    "WHEN n.read_at IS NOT NULL THEN 'read' END, d.channel, "
    "d.device_seq IS NULL OR (t.user_id = n.user_id AND t.is_active), "
    "CASE d.channel WHEN 'email' THEN c.email IS NOT NULL WHEN 'sms' THEN c.phone IS NOT NULL ELSE 1 END, "
    "EXISTS (SELECT 1 FROM notification_preferences p WHERE p.user_id = n.user_id AND NOT p.enabled), "
    "n.user_id, n.notification_type, COALESCE(k.category, n.category)"
)
"""What ``end_of`` wants to know, of a delivery ``d``, its notification ``n`` and what JOINED brings."""
WIDTH = 10
"""How many columns those are."""
JOINED = (
    "LEFT JOIN device_tokens t ON t.seq = d.device_seq LEFT JOIN contacts c ON c.user_id = n.user_id "
    "LEFT JOIN notification_types k ON k.name = n.notification_type"
)

_OF = (
    f"SELECT {COLUMNS}, d.seq FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq {JOINED} "
    "WHERE d.seq IN (SELECT value FROM json_each(?1)) "
    "OR (d.carrier_seq IN (SELECT value FROM json_each(?1)) AND d.status = 'pending')"
)
_WORDS = {"email": "e-mail address", "sms": "phone number"}


class End(NamedTuple):
    """How a delivery stands that does not go out any more."""

    status: str
    code: str
    reason: str


def end_of(conn: sqlite3.Connection, row: tuple[Any, ...], now_ms: int) -> End | None:
    """``row`` is COLUMNS; None where the delivery may go out."""
    status, expires_at, dealt_with, channel, has_device, has_address, chose, user_id, kind, category = row
    if status == "cancelled":
        return End("suppressed", "cancelled", "It was cancelled.")
    if status == "expired" or (expires_at is not None and expires_at <= now_ms):
        return End("suppressed", "expired", "It expired first.")
    if dealt_with and channel == "push":
        return End("suppressed", "read_first" if dealt_with == "read" else dealt_with, f"It was {dealt_with} first.")
    verdict = may_use(choices_of(conn, user_id), kind, channel, category) if chose else None
    if verdict is not None and not verdict.allowed:
        return End("suppressed", verdict.code, verdict.reason)
    return _unreachable(channel, has_device, has_address)


def _unreachable(channel: str, has_device: bool, has_address: bool) -> End | None:
    if not has_device:  # removed, called dead, or somebody else's by now
        return End("failed", "no_device", "This device is not registered any more.")
    if not has_address:
        return End("failed", "no_address", f"The user has no {_WORDS[channel]} any more.")
    return None


def ends_of(tx: Tx, delivery_seqs: Collection[int]) -> dict[int, End]:
    """Those of these deliveries, and of what they carry, that need not go out any more."""
    if not delivery_seqs:
        return {}
    rows = tx.conn.execute(_OF, (to_json(list(delivery_seqs)),)).fetchall()
    return {row[WIDTH]: end for row in rows if (end := end_of(tx.conn, row[:WIDTH], tx.now_ms)) is not None}


def cancel_deliveries(tx: Tx, ends: Mapping[int, End]) -> list[int]:
    """``call_off`` each of these; the notifications that it tells of."""
    for seq, end in ends.items():
        cancel_delivery(tx, seq, end)
    rows = tx.conn.execute(
        "SELECT DISTINCT notification_seq FROM deliveries WHERE seq IN (SELECT value FROM json_each(?))",
        (to_json(list(ends)),),
    )
    return [notification_seq for (notification_seq,) in rows]


def cancel_delivery(tx: Tx, seq: int, end: End) -> None:
    """End a delivery; what it carried goes out without it."""
    tx.conn.execute(
        "UPDATE deliveries SET status = ?, code = ?, reason = ?, next_attempt_at = NULL, lease_until = NULL, "
        "updated_at = ? WHERE seq = ?",
        (*end, tx.now_ms, seq),
    )
    pass_outcome_on(tx, seq)
