"""``collapse_key``: an update of the user's open notification of that key, in place and with a counter.

Open is what is unread or snoozed; an update wakes what is snoozed. The toast and the push message are replaced (they go
out again under the same notification id). An e-mail or SMS cannot be taken back: once one has gone out, no second
follows until the user has read, snoozed or archived the notification.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal, NamedTuple

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.encoding import decode_id, from_strings, to_json
from flashflow.backend.domain.delivery_messages import overall
from flashflow.backend.domain.delivery_policy import Decision
from flashflow.backend.notifications.deliveries import decided, inbox_place, new_delivery, redecide, ring
from flashflow.backend.schemas.records import Sent
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import notifications as table
from flashflow.backend.store.notifications.delivery_state import settle_notification
from flashflow.backend.store.notifications.digests import pass_outcome_on

REPLACEABLE = {"in_app", "push"}
"""Channels whose messages can be replaced."""
COLLAPSED = "collapsed"
"""The code of what another notification says already. Stored only for a scheduled one that became an update."""


class Open(NamedTuple):
    """The notification that an update falls into."""

    seq: int
    id: str
    occurrences: int
    channels: tuple[str, ...]
    is_snoozed: bool


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


_OPEN = (
    "SELECT seq, id, count, channels, inbox IS 'snoozed' FROM notifications INDEXED BY notifications_collapse "  # noqa: S608
    "WHERE user_id = ? AND app = ? AND collapse_key = ? AND (read_at IS NULL OR inbox = 'snoozed') "
    "AND status IN ('pending', 'sent', 'delivered', 'read', 'failed', 'suppressed') AND inbox IS NOT 'archived' "
    "AND (inbox IS NOT 'snoozed' OR ?) AND NOT EXISTS (SELECT 1 FROM deliveries d "
    f"WHERE d.notification_seq = notifications.seq AND d.code = '{COLLAPSED}') ORDER BY seq DESC LIMIT 1"
)


def find_open(
    conn: sqlite3.Connection, user_id: str, app: str, collapse_key: str, decisions: Sequence[Decision]
) -> Open | None:
    """The newest open notification of that key, for an update that is decided so. One that is snoozed is not woken for
    a user who has turned the inbox off for the update."""
    wakes = not any(d.channel == "in_app" and d.status == "suppressed" for d in decisions)
    row = conn.execute(_OPEN, (user_id, app, collapse_key, wakes)).fetchone()
    if row is None:
        return None
    seq, id_, count, channels, is_snoozed = row
    return Open(seq, decode_id(id_), count, from_strings(channels), bool(is_snoozed))


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
    """Write ``change`` over ``known``, count it, wake it, and have its deliveries follow."""
    decisions = [f.decision for f in follows]
    channels = dict.fromkeys((*known.channels, *(d.channel for d in decisions)))
    tx.conn.execute(
        "UPDATE notifications SET title = ?, message = ?, data = ?, actions = ?, priority = ?, expires_at = ?, "
        "channels = ?, count = count + 1, read_at = NULL, snoozed_until = NULL, listed_at = ?, "
        "status = CASE status WHEN 'read' THEN 'delivered' ELSE status END, "
        "inbox = CASE inbox WHEN 'snoozed' THEN 'unread' ELSE COALESCE(inbox, ?) END WHERE seq = ?",
        (*change, to_json(list(channels)), tx.now_ms, inbox_place(decisions), known.seq),
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
            pass_outcome_on(tx, seq)
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
        return Follow(decision._replace(status=status, code=code, reason=reason), seq, "stays")  # with the new text
    if status in {"sending", "sent", "delivered"}:
        return _after(known, decision, seq, status)
    return Follow(decision, seq, "again")


def _after(known: Open, decision: Decision, seq: int, status: str) -> Follow:
    """``_follow`` where a delivery has arrived or is on its way: that stays so."""
    goes_out = decision.status in {"pending", "held"}
    if goes_out and decision.channel not in REPLACEABLE and not known.is_snoozed:
        before = "Being sent already" if status == "sending" else "Sent once already"
        words = f"{before}, and not marked as read yet; the count is {known.occurrences + 1} now."
        return Follow(decision._replace(status="suppressed", code=COLLAPSED, reason=words), seq, "stays")
    if not goes_out or decision.channel == "in_app":
        return Follow(decision, seq, "stays")
    return Follow(decision, seq, "again") if status != "sending" else Follow(decision, None, "new")
