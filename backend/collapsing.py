"""``collapse_key``: what tells the same again updates the unread notice in place, with a counter.

The toast and the push message are replaced (they go out again under the same notification id). What other channels
have sent cannot be taken back: once one has gone out, the same notice sends no second until it was read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal, NamedTuple

from backend.clock import IdMaker
from backend.deliveries import decided, inbox_place, new_delivery, redecide, ring
from backend.delivery.resolver import Decision
from backend.handover import overall
from backend.records import Sent
from backend.store import notifications as table
from backend.store.carrying import pass_on
from backend.store.codec import decode_id, from_strings, to_json
from backend.store.settling import settle_notification
from backend.store.writer import Tx

REPLACEABLE = {"in_app", "push"}
"""Channels whose messages can be replaced."""


class Open(NamedTuple):
    """The unread notice that an update falls into."""

    seq: int
    id: str
    told: int
    channels: tuple[str, ...]


class InPlace(NamedTuple):
    """What of a notice an update replaces."""

    title: str
    message: str
    data: str | None
    actions: str | None
    priority: str
    expires_at: int | None


class Follow(NamedTuple):
    """What an update does about one channel: ``decision`` is how its delivery ``seq`` stands then.

    ``new`` makes a delivery of it, ``again`` decides the one there is anew, ``stays`` leaves that as it is.
    """

    decision: Decision
    seq: int | None
    change: Literal["new", "again", "stays"]


def find_open(conn: sqlite3.Connection, user_id: str, app: str, collapse_key: str) -> Open | None:
    """The newest notice of that key that its reader has not dealt with."""
    row = conn.execute(
        "SELECT seq, id, count, channels FROM notifications WHERE user_id = ? AND app = ? AND collapse_key = ? "
        "AND status IN ('pending', 'sent', 'delivered', 'failed', 'suppressed') AND read_at IS NULL "
        "AND inbox IS NOT 'archived' ORDER BY seq DESC LIMIT 1",
        (user_id, app, collapse_key),
    ).fetchone()
    return None if row is None else Open(row[0], decode_id(row[1]), row[2], from_strings(row[3]))


def follow(conn: sqlite3.Connection, known: Open, decisions: Sequence[Decision]) -> list[Follow]:
    """What an update of ``known`` that is decided so does about each of its deliveries."""
    return [_follow(conn, known, decision) for decision in decisions]


def standing(conn: sqlite3.Connection, known: Open, follows: Sequence[Follow]) -> str:
    """The notice's status after that update."""
    rows = conn.execute("SELECT seq, status FROM deliveries WHERE notification_seq = ?", (known.seq,))
    statuses: dict[int | None, str] = dict(rows.fetchall())
    statuses |= {f.seq: f.decision.status for f in follows if f.change == "again"}
    return overall([*statuses.values(), *(f.decision.status for f in follows if f.change == "new")])


def update_in_place(
    tx: Tx, known: Open, user_id: str, change: InPlace, follows: Sequence[Follow], new_id: IdMaker
) -> Sent:
    """Write ``change`` over ``known``, count it, and have its deliveries follow."""
    decisions = [f.decision for f in follows]
    channels = dict.fromkeys((*known.channels, *(d.channel for d in decisions)))
    tx.conn.execute(
        "UPDATE notifications SET title = ?, message = ?, data = ?, actions = ?, priority = ?, expires_at = ?, "
        "channels = ?, count = count + 1, inbox = COALESCE(inbox, ?), listed_at = ? WHERE seq = ?",
        (*change, to_json(list(channels)), inbox_place(decisions), tx.now_ms, known.seq),
    )
    status = standing(tx.conn, known, follows)
    for decision, seq, how in follows:
        if how == "stays":
            continue
        made = new_delivery(new_id, tx, known.seq, decision)
        if seq is None:
            table.insert_deliveries(tx, [made])
        else:
            redecide(tx, seq, decision, fresh=True)
            pass_on(tx, seq)
        ring(tx, [made])
    settle_notification(tx, known.seq)
    return Sent(notification_id=known.id, user_id=user_id, status=status, deliveries=decided(decisions))


def _follow(conn: sqlite3.Connection, known: Open, decision: Decision) -> Follow:
    row = conn.execute(
        "SELECT seq, status, code, reason FROM deliveries WHERE notification_seq = ? AND channel = ? "
        "AND device_seq IS ? ORDER BY seq DESC LIMIT 1",
        (known.seq, decision.channel, decision.device_seq),
    ).fetchone()
    if row is None:
        return Follow(decision, None, "new")
    seq, status, code, reason = row
    if status in {"pending", "held"}:
        if (status == "held" and decision.status == "pending") or (decision.code or "").endswith("_off"):
            return Follow(decision, seq, "again")
        return Follow(decision._replace(status=status, code=code, reason=reason), seq, "stays")  # it tells the new text
    if status in {"sending", "sent", "delivered"}:
        return _after(known, decision, seq, status)
    return Follow(decision, seq, "again")


def _after(known: Open, decision: Decision, seq: int, status: str) -> Follow:
    """``_follow`` where a delivery has arrived or is on its way: that stays so."""
    goes_out = decision.status in {"pending", "held"}
    if goes_out and decision.channel not in REPLACEABLE:
        words = f"Told once already, and still unread; it counts {known.told + 1} now."
        return Follow(decision._replace(status="suppressed", code="collapsed", reason=words), seq, "stays")
    if not goes_out or decision.channel == "in_app":
        return Follow(decision, seq, "stays")
    return Follow(decision, seq, "again") if status != "sending" else Follow(decision, None, "new")
