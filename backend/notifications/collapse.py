"""``collapse_key``: update the user's open notification of that key in place and count the update.

Open means unread or snoozed; an update wakes a snoozed notification. Toasts and push messages are replaced: they are
sent again under the same notification id. E-mail and SMS cannot be replaced: once one was sent, no second follows until
the user has read, snoozed or archived the notification.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.encoding import decode_id
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.delivery_messages import overall
from flashflow.backend.domain.delivery_policy import Decision
from flashflow.backend.schemas.records import Decided, Sent
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.deliveries import Latest, latest_delivery, statuses_of
from flashflow.backend.store.notifications.delivery_state import (
    insert_deliveries,
    new_delivery,
    promote_next_digest,
    redecide,
    settle_notifications,
    wake_outbox,
)
from flashflow.backend.store.notifications.notification_state import (
    COLLAPSED,
    NewContent,
    OpenNotification,
    replace_content,
)

REPLACEABLE = {"in_app", "push"}
"""Channels whose messages can be replaced."""


class FollowUp(NamedTuple):
    """The effect of an update on one channel: ``decision`` is the state of its delivery ``seq`` afterwards.

    ``new`` inserts a delivery, ``again`` decides the stored one again, ``stays`` leaves it unchanged.
    """

    decision: Decision
    seq: int | None
    change: Literal["new", "again", "stays"]


def follow_ups(conn: sqlite3.Connection, known: OpenNotification, decisions: Sequence[Decision]) -> list[FollowUp]:
    """Plan the effect of an update of ``known`` with these decisions on each channel."""
    return [
        _follow_up(known, decision, latest_delivery(conn, known.seq, decision.channel, decision.device_seq))
        for decision in decisions
    ]


def status_after(conn: sqlite3.Connection, known: OpenNotification, planned: Sequence[FollowUp]) -> str:
    """The notification's status after the update."""
    statuses = statuses_of(conn, known.seq)
    statuses |= {f.seq: f.decision.status for f in planned if f.change == "again"}
    return overall([*statuses.values(), *(f.decision.status for f in planned if f.change == "new")])


def update_in_place(
    tx: Tx, known: OpenNotification, user_id: str, content: NewContent, planned: Sequence[FollowUp], new_id: IdMaker
) -> Sent:
    """Replace the content of ``known``, count the update, and apply ``planned`` to its deliveries."""
    decisions = [f.decision for f in planned]
    replace_content(tx, known, content, decisions)
    status = status_after(tx.conn, known, planned)
    for decision, seq, change in planned:
        if change == "stays":
            continue
        delivery = new_delivery(new_id, tx, known.seq, decision)
        if seq is None:
            insert_deliveries(tx, [delivery])
            continue
        redecide(tx, seq, decision, fresh=True)
        promote_next_digest(tx, seq)
        if delivery.next_attempt_at is not None:
            wake_outbox(tx, decode_id(delivery.id))
    settle_notifications(tx, [known.seq])
    return Sent(notification_id=known.id, user_id=user_id, status=status, deliveries=decided(decisions))


def decided(decisions: Sequence[Decision]) -> tuple[Decided, ...]:
    """The decisions as returned by ``send``."""
    return tuple(Decided(channel=d.channel, status=d.status, code=d.code, reason=d.reason) for d in decisions)


def _follow_up(known: OpenNotification, decision: Decision, latest: Latest | None) -> FollowUp:
    if latest is None:
        return FollowUp(decision, None, "new")
    seq, status, code, reason = latest
    if status in {"pending", "held"}:
        if (status == "held" and decision.status == "pending") or (decision.code or "").endswith("_off"):
            return FollowUp(decision, seq, "again")
        return FollowUp(decision._replace(status=status, code=code, reason=reason), seq, "stays")  # with the new text
    if status in {"sending", "sent", "delivered"}:
        return _after_sending(known, decision, seq, status)
    return FollowUp(decision, seq, "again")


def _after_sending(known: OpenNotification, decision: Decision, seq: int, status: str) -> FollowUp:
    """``_follow_up`` of a delivery that was sent or is being sent: it keeps its state."""
    is_sent = decision.status in {"pending", "held"}
    if is_sent and decision.channel not in REPLACEABLE and not known.is_snoozed:
        before = "Being sent already" if status == "sending" else "Sent once already"
        reason = f"{before}, and not marked as read yet; the count is {known.occurrences + 1} now."
        return FollowUp(decision._replace(status="suppressed", code=COLLAPSED, reason=reason), seq, "stays")
    if not is_sent or decision.channel == "in_app":
        return FollowUp(decision, seq, "stays")
    return FollowUp(decision, seq, "again") if status != "sending" else FollowUp(decision, None, "new")
