"""“Retry now”: what failed or was given up is decided again and gets all its tries again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from backend.deliveries import redecide, wake
from backend.delivery.resolver import Decision, decide
from backend.errors import Conflict, FlashFlowError
from backend.facts import FactFinder, Question
from backend.inbox import Wanted, missing
from backend.records import Notification
from backend.store import notifications as table
from backend.store.codec import decode_id, from_strings
from backend.store.people import read_type
from backend.store.settling import settle_notification
from backend.store.writer import Tx

OVER = {"scheduled", "cancelled", "expired"}


class Retrying:
    """A handler for the writer."""

    def __init__(self, facts: FactFinder) -> None:
        self._facts = facts

    def retry(self, tx: Tx, items: Sequence[Wanted]) -> list[Notification | FlashFlowError]:
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
                wake(tx, decode_id(id_))
                continue
            decision = decisions.get((channel, device_seq))
            if decision is None or decision.status in {"failed", "suppressed"}:
                reasons.append(decision.reason if decision is not None else "This device is not registered any more.")
                continue
            redecide(tx, delivery_seq, decision, fresh=True)
            wake(tx, decode_id(id_))
        if len(reasons) == len(rows):
            raise Conflict(" ".join(dict.fromkeys(filter(None, reasons))))
        settle_notification(tx, seq)

    def _decisions(self, tx: Tx, seq: int, n: Notification) -> dict[tuple[str, Any], Decision]:
        (tokens,) = tx.conn.execute("SELECT device_tokens FROM notifications WHERE seq = ?", (seq,)).fetchone()
        question = Question(
            user_id=n.user_id,
            notification_type=n.notification_type,
            channels=n.channels,
            kind=read_type(tx.conn, n.notification_type),
            device_tokens=from_strings(tokens) if tokens else None,
            released=frozenset({"throttle", "digest", "failover"}),
        )
        # The person asked for it now: neither quiet hours nor a digest hold it back.
        facts = self._facts.facts(tx.conn, question, tx.now_ms)
        awake = {"quiet": None, "dnd_until": None}
        return {(d.channel, d.device_seq): d for d in decide(msgspec.structs.replace(facts, **awake))}
