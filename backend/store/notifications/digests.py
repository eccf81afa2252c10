"""Summaries: one delivery carries others of the same person and channel along, and they take its fate."""

from __future__ import annotations

from flashflow.backend.core.encoding import decode_id
from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.writer import Tx


def bundle(tx: Tx, seq: int, carrier_seq: int, route: str) -> None:
    """Have one delivery go out with another."""
    tx.conn.execute(
        "UPDATE deliveries SET status = 'pending', code = 'in_summary', reason = 'On its way in a summary.', "
        "route = ?, next_attempt_at = NULL, release_at = NULL, carrier_seq = ?, updated_at = ? WHERE seq = ?",
        (route, carrier_seq, tx.now_ms, seq),
    )


def pass_outcome_on(tx: Tx, seq: int) -> None:
    """This delivery does not go out: what it carried goes out with the newest of the others, at once."""
    following = tx.conn.execute(
        "SELECT seq, id FROM deliveries WHERE carrier_seq = ? AND status = 'pending' ORDER BY notification_seq DESC "
        "LIMIT 1",
        (seq,),
    ).fetchone()
    if following is None:
        return
    carrier, id_ = following
    tx.conn.execute(
        "UPDATE deliveries SET carrier_seq = ? WHERE carrier_seq = ? AND status = 'pending'", (carrier, seq)
    )
    tx.conn.execute(
        "UPDATE deliveries SET carrier_seq = NULL, code = 'queued', reason = 'On its way.', next_attempt_at = ?, "
        "updated_at = ? WHERE seq = ?",
        (tx.now_ms, tx.now_ms, carrier),
    )
    tx.events.append(Event("outbox", decode_id(id_)))
