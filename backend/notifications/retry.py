"""“Retry now”: decide failed and dead deliveries again and reset their attempts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flashflow.backend.core.clock import IdMaker
from flashflow.backend.core.errors import Conflict
from flashflow.backend.domain.delivery_policy import Decision, decide
from flashflow.backend.notifications.inbox import NotificationKey, find
from flashflow.backend.notifications.policy_inputs import PolicyInputLoader, PolicyQuery
from flashflow.backend.schemas.records import Notification
from flashflow.backend.store.engine.writer import Tx, each_item
from flashflow.backend.store.notifications import delivery_state
from flashflow.backend.store.notifications.delivery_state import new_delivery
from flashflow.backend.store.notifications.notification_state import policy_columns
from flashflow.backend.store.notifications.types import read_type

OVER = {"scheduled", "cancelled", "expired"}
GONE = "This device is not registered any more."


class Retry:
    """Writer handler for retries."""

    def __init__(self, new_id: IdMaker, policy_inputs: PolicyInputLoader) -> None:
        self._new_id = new_id
        self._policy_inputs = policy_inputs

    @each_item
    def retry(self, tx: Tx, key: NotificationKey) -> Notification:
        """Queue every failed and dead delivery of the notification that can be sent now; end waits between attempts.

        Raises NotFound, and Conflict where no delivery can be retried.
        """
        seq, n = find(tx.conn, key)
        if n.status in OVER:
            raise Conflict(f"A notification that is {n.status} cannot be tried again.")
        deliveries = delivery_state.retriable(tx, seq)
        if not deliveries:
            raise Conflict("Nothing of this notification has failed.")
        decisions = self._decisions(tx, seq, n)
        reasons = []
        for delivery in deliveries:
            if delivery.status == "pending":
                delivery_state.retry_now(tx, delivery.seq)
            else:
                first, *others = _ways(decisions, delivery.channel, delivery.device_seq)
                if first.status != "pending":
                    reasons.append(first.reason)
                    continue
                delivery_state.redecide(tx, delivery.seq, first, fresh=True)
                delivery_state.insert_deliveries(tx, [new_delivery(self._new_id, tx, seq, other) for other in others])
            delivery_state.wake_outbox(tx, delivery.id)
        if len(reasons) == len(deliveries):
            raise Conflict(" ".join(dict.fromkeys(filter(None, reasons))))
        delivery_state.settle_notifications(tx, [seq])
        return find(tx.conn, key)[1]

    def _decisions(self, tx: Tx, seq: int, n: Notification) -> list[Decision]:
        """Decide the notification for the present time, device by device for push."""
        columns = policy_columns(tx.conn, seq)
        query = PolicyQuery(
            user_id=n.user_id,
            notification_type=n.notification_type,
            channels=n.channels,
            kind=read_type(tx.conn, n.notification_type),
            category=columns.category,
            device_tokens=columns.device_tokens,
            expires_at=columns.expires_at,
            released=frozenset({"throttle", "digest", "failover"}),
        )
        # Requested for now: neither quiet hours nor do not disturb hold it.
        inputs = self._policy_inputs.load(tx.conn, query, tx.now_ms)
        decisions = decide(msgspec.structs.replace(inputs, quiet=None, dnd_until=None))
        if n.read_at is None:
            return list(decisions)
        read = {"status": "suppressed", "code": "read_first", "reason": "It was read first."}
        return [d._replace(**read) if d.channel == "push" else d for d in decisions]  # type: ignore[arg-type]


def _ways(decisions: Sequence[Decision], channel: str, device_seq: int | None) -> list[Decision]:
    """The decisions that apply to a delivery, at least one; several where a device was missing and some exist now."""
    of_channel = [d for d in decisions if d.channel == channel]
    if channel != "push" or device_seq is not None:
        same = [d for d in of_channel if d.device_seq == device_seq or d.status == "suppressed"]
        return same[:1] or [Decision(channel, device_seq, "failed", "no_device", GONE)]
    return [d for d in of_channel if d.status == "pending"] or of_channel[:1]
