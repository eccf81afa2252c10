"""Decisions as rows and as answers, and what ends a notification's deliveries."""

from __future__ import annotations

from collections.abc import Sequence

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.encoding import decode_id
from flashflow.backend.core.events import Event
from flashflow.backend.domain.delivery_policy import Decision
from flashflow.backend.schemas.records import Decided
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.digests import pass_outcome_on
from flashflow.backend.store.notifications.notifications import NewDelivery


def new_delivery(new_id: IdMaker, tx: Tx, seq: int, decision: Decision) -> NewDelivery:
    """The row of one decision for the notification ``seq``."""
    return NewDelivery(
        new_id.raw(), seq, decision.channel, decision.device_seq, decision.status, decision.code, decision.reason,
        tx.now_ms, tx.now_ms, decision.due if decision.status == "pending" else None, decision.route,
        decision.due if decision.status == "held" else None,
    )  # fmt: skip


def redecide(
    tx: Tx, delivery_seq: int, decision: Decision, *, fresh: bool = False, in_turn: bool = False
) -> None:  # fmt: skip
    """Let a stored delivery stand as ``decision`` says, and count its age from its next try; ``fresh`` counts its tries
    from zero too, ``in_turn`` says that its turn in a fail-over chain has come."""
    tx.conn.execute(
        "UPDATE deliveries SET status = ?, code = ?, reason = ?, device_seq = ?, route = ?, next_attempt_at = ?, "
        "release_at = ?, carrier_seq = NULL, lease_until = NULL, tried_since = NULL, retry_until = NULL, in_turn = ?, "
        "updated_at = ?, "
        "tries = CASE WHEN ? THEN 0 ELSE tries END WHERE seq = ?",
        (
            decision.status, decision.code, decision.reason, decision.device_seq, decision.route,
            decision.due if decision.status == "pending" else None,
            decision.due if decision.status == "held" else None, in_turn, tx.now_ms, fresh, delivery_seq,
        ),
    )  # fmt: skip


def decided(decisions: Sequence[Decision]) -> tuple[Decided, ...]:
    """The decisions as ``send`` answers them."""
    return tuple(Decided(channel=d.channel, status=d.status, code=d.code, reason=d.reason) for d in decisions)


def inbox_place(decisions: Sequence[Decision]) -> str | None:
    """Where a notification with these decisions stands in the inbox."""
    return "unread" if any(d.channel == "in_app" and d.status == "delivered" for d in decisions) else None


def ring(tx: Tx, deliveries: Sequence[NewDelivery]) -> None:
    """Tell the outbox when one of ``deliveries`` waits for it."""
    for delivery in deliveries:
        if delivery.next_attempt_at is not None:
            wake(tx, decode_id(delivery.id))
            return


def wake(tx: Tx, delivery_id: str) -> None:
    """Tell the outbox that something is due."""
    tx.events.append(Event("outbox", delivery_id))


def hand_back(tx: Tx, notification_seq: int, code: str, reason: str, *, only: str = "1") -> None:
    """Suppress the deliveries of a notification that have not gone out (``only``: a condition on them). A summary that
    one of them carried goes out with the next of its notifications."""
    rows = tx.conn.execute(
        "UPDATE deliveries SET status = 'suppressed', code = ?, reason = ?, next_attempt_at = NULL, "  # noqa: S608
        f"release_at = NULL, carrier_seq = NULL, updated_at = ? WHERE notification_seq = ? "
        f"AND status IN ('pending', 'held') AND ({only}) RETURNING seq",
        (code, reason, tx.now_ms, notification_seq),
    ).fetchall()
    for (seq,) in rows:
        pass_outcome_on(tx, seq)


def withdraw(tx: Tx, notification_seq: int, notification_id: str, user_id: str, app: str) -> None:
    """Have this computer's toast taken away, where one was shown."""
    if tx.conn.execute(
        "SELECT 1 FROM deliveries WHERE notification_seq = ? AND route = 'desktop' "
        "AND status IN ('sending', 'sent', 'delivered')",
        (notification_seq,),
    ).fetchone():
        tx.events.append(Event("toast.dismissed", notification_id, user_id, app))
