"""``collapse_key``: what tells the same again updates the unread notice in place, with a counter.

The toast and the push message are replaced (they go out again under the same notification id). E-mail and SMS cannot
be taken back: once one has gone out, the same notice sends no second until it was read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from backend.clock import IdMaker
from backend.deliveries import decided, inbox_place, new_delivery, redecide, ring
from backend.delivery.resolver import Decision
from backend.records import Sent
from backend.store import notifications as table
from backend.store.codec import decode_id
from backend.store.settling import settle_notification
from backend.store.writer import Tx

FINAL = {"email", "sms"}
"""Channels whose messages cannot be replaced."""


class Open(NamedTuple):
    """The unread notice that an update falls into."""

    seq: int
    id: str
    told: int


class InPlace(NamedTuple):
    """What of a notice an update replaces."""

    title: str
    message: str
    data: str | None
    actions: str | None
    priority: str
    expires_at: int | None


def find_open(conn: sqlite3.Connection, user_id: str, app: str, collapse_key: str) -> Open | None:
    """The newest notice of that key that its reader has not dealt with."""
    row = conn.execute(
        "SELECT seq, id, count FROM notifications WHERE user_id = ? AND app = ? AND collapse_key = ? "
        "AND status IN ('pending', 'sent', 'delivered', 'failed', 'suppressed') AND read_at IS NULL "
        "AND inbox IS NOT 'archived' ORDER BY seq DESC LIMIT 1",
        (user_id, app, collapse_key),
    ).fetchone()
    return None if row is None else Open(row[0], decode_id(row[1]), row[2])


def update_in_place(
    tx: Tx, known: Open, user_id: str, change: InPlace, decisions: Sequence[Decision], new_id: IdMaker
) -> Sent:
    """Write ``change`` over ``known``, count it, and have its deliveries follow."""
    tx.conn.execute(
        "UPDATE notifications SET title = ?, message = ?, data = ?, actions = ?, priority = ?, expires_at = ?, "
        "count = count + 1, inbox = COALESCE(inbox, ?) WHERE seq = ?",
        (*change, inbox_place(decisions), known.seq),
    )
    stands = [_follow(tx, known, decision, new_id) for decision in decisions]
    settle_notification(tx, known.seq)
    (status,) = tx.conn.execute("SELECT status FROM notifications WHERE seq = ?", (known.seq,)).fetchone()
    return Sent(notification_id=known.id, user_id=user_id, status=status, deliveries=decided(stands))


def _follow(tx: Tx, known: Open, decision: Decision, new_id: IdMaker) -> Decision:
    """Bring the delivery that ``decision`` is about up to date; how it stands then."""
    row = tx.conn.execute(
        "SELECT seq, status, code, reason FROM deliveries WHERE notification_seq = ? AND channel = ? "
        "AND device_seq IS ? ORDER BY seq DESC LIMIT 1",
        (known.seq, decision.channel, decision.device_seq),
    ).fetchone()
    if row is None or row[1] == "sending":  # what is on its way tells the old text
        made = new_delivery(new_id, tx, known.seq, decision)
        table.insert_deliveries(tx, [made])
        ring(tx, [made])
        return decision
    seq, status, code, reason = row
    if decision.channel in FINAL and status == "sent":
        words = f"Told once already, and still unread; it counts {known.told + 1} now."
        return decision._replace(status="suppressed", code="collapsed", reason=words)
    if status == "pending" or (status == "held" and decision.status == "held"):
        return decision._replace(status=status, code=code, reason=reason)  # it will tell the new text
    redecide(tx, seq, decision, fresh=True)
    if decision.status == "pending":
        ring(tx, [new_delivery(new_id, tx, known.seq, decision)])
    return decision
