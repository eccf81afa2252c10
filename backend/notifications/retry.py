"""“Retry now”: what failed or was given up is decided again and gets all its tries again."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.encoding import decode_id, from_strings
from flashflow.backend.core.errors import Conflict, FlashFlowError
from flashflow.backend.domain.delivery_policy import Decision, decide
from flashflow.backend.notifications.deliveries import new_delivery, redecide, wake
from flashflow.backend.notifications.inbox import NotificationKey, missing
from flashflow.backend.notifications.policy_inputs import PolicyInputLoader, PolicyQuery
from flashflow.backend.schemas.records import Notification
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import notifications as table
from flashflow.backend.store.notifications.delivery_state import settle_notification
from flashflow.backend.store.notifications.preferences import read_type

OVER = {"scheduled", "cancelled", "expired"}
GONE = "This device is not registered any more."


class Retry:
    """A handler for the writer."""

    def __init__(self, new_id: IdMaker, policy_inputs: PolicyInputLoader) -> None:
        self._new_id = new_id
        self._policy_inputs = policy_inputs

    def retry(self, tx: Tx, items: Sequence[NotificationKey]) -> list[Notification | FlashFlowError]:
        """Put every failed and dead delivery of each notification back into the outbox, if it can be reached now;
        a wait between two tries ends too."""
        answers: list[Notification | FlashFlowError] = []
        for notification_id, app in items:
            found = table.find(tx.conn, notification_id, app)
            if found is None:
                answers.append(missing(notification_id))
                continue
            try:
                self._retry(tx, *found)
            except Conflict as refusal:
                answers.append(refusal)
                continue
            again = table.find(tx.conn, notification_id, app)
            assert again is not None
            answers.append(again[1])
        return answers

    def _retry(self, tx: Tx, seq: int, n: Notification) -> None:
        if n.status in OVER:
            raise Conflict(f"A notification that is {n.status} cannot be tried again.")
        rows = tx.conn.execute(
            "SELECT seq, id, channel, device_seq, status FROM deliveries WHERE notification_seq = ? AND channel <> "
            "'in_app' AND (status IN ('failed', 'dead') OR (status = 'pending' AND tries > 0))",
            (seq,),
        ).fetchall()
        if not rows:
            raise Conflict("Nothing of this notification has failed.")
        decisions = self._decisions(tx, seq, n)
        reasons = []
        for delivery_seq, id_, channel, device_seq, status in rows:
            if status == "pending":
                tx.conn.execute(
                    "UPDATE deliveries SET next_attempt_at = ? WHERE seq = ? AND carrier_seq IS NULL",
                    (tx.now_ms, delivery_seq),
                )
            else:
                first, *others = _ways(decisions, channel, device_seq)
                if first.status != "pending":
                    reasons.append(first.reason)
                    continue
                redecide(tx, delivery_seq, first, fresh=True)
                table.insert_deliveries(tx, [new_delivery(self._new_id, tx, seq, other) for other in others])
            wake(tx, decode_id(id_))
        if len(reasons) == len(rows):
            raise Conflict(" ".join(dict.fromkeys(filter(None, reasons))))
        settle_notification(tx, seq)

    def _decisions(self, tx: Tx, seq: int, n: Notification) -> list[Decision]:
        """What would become of it now, device by device for push."""
        tokens, category, expires_at = tx.conn.execute(
            "SELECT device_tokens, category, expires_at FROM notifications WHERE seq = ?", (seq,)
        ).fetchone()
        question = PolicyQuery(
            user_id=n.user_id,
            notification_type=n.notification_type,
            channels=n.channels,
            kind=read_type(tx.conn, n.notification_type),
            category=category,
            device_tokens=from_strings(tokens) if tokens else None,
            expires_at=expires_at,
            released=frozenset({"throttle", "digest", "failover"}),
        )
        # The person asked for it now: neither quiet hours nor a digest hold it back.
        facts = self._policy_inputs.load(tx.conn, question, tx.now_ms)
        decisions = decide(msgspec.structs.replace(facts, quiet=None, dnd_until=None))
        if n.read_at is None:
            return list(decisions)
        read = {"status": "suppressed", "code": "read_first", "reason": "It was read first."}
        return [d._replace(**read) if d.channel == "push" else d for d in decisions]  # type: ignore[arg-type]


def _ways(decisions: Sequence[Decision], channel: str, device_seq: int | None) -> list[Decision]:
    """What a delivery can become, at least one decision: several where there was no device and now there are."""
    of_channel = [d for d in decisions if d.channel == channel]
    if channel != "push" or device_seq is not None:
        same = [d for d in of_channel if d.device_seq == device_seq or d.status == "suppressed"]
        return same[:1] or [Decision(channel, device_seq, "failed", "no_device", GONE)]
    return [d for d in of_channel if d.status == "pending"] or of_channel[:1]
