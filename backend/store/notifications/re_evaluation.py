"""What is queued, thought over again at once because its reader has changed their mind."""

from __future__ import annotations

from collections.abc import Collection

from flashflow.backend.core.encoding import to_json
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.attempts import next_in_chain
from flashflow.backend.store.notifications.cancellation import cancel_deliveries, ends_of
from flashflow.backend.store.notifications.delivery_state import settle_all

_QUEUED = (
    "SELECT d.seq FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq "
    "WHERE d.status = 'pending' AND d.next_attempt_at IS NOT NULL "
    "AND n.user_id IN (SELECT value FROM json_each(?))"
)


def re_evaluate_queued(tx: Tx, user_ids: Collection[str]) -> None:
    """Call off what these users do not want or cannot be reached by any more, in a summary too. What a worker has in
    hand is looked at when its try has failed."""
    seqs = [seq for (seq,) in tx.conn.execute(_QUEUED, (to_json(sorted(user_ids)),))]
    told = cancel_deliveries(tx, ends_of(tx, seqs))
    for notification_seq in told:
        next_in_chain(tx, notification_seq)
    settle_all(tx, told)
