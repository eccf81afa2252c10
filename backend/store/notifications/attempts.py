"""What became of tries: attempts, the deliveries they move, the devices and chains that depend on them.

A whole group of tries takes a handful of statements: every statement gives the interpreter away, and with a dozen
workers waiting for it that costs more than the statement.
"""

from __future__ import annotations

from collections.abc import Sequence

from flashflow.backend.core.encoding import encode_id
from flashflow.backend.domain.delivery_messages import AttemptResult, Outcome
from flashflow.backend.store.engine.sql import execute_rows
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.cancellation import cancel_deliveries, ends_of
from flashflow.backend.store.notifications.delivery_state import settle_all

ARRIVED = {"delivered", "sent"}
INTERRUPTED = "interrupted"
"""The code of a try whose worker was given up."""

_STATUS = {"delivered": "delivered", "sent": "sent", "permanent": "failed", "token_dead": "failed"}
_ATTEMPT = (
    "INSERT INTO delivery_attempts (delivery_seq, started_at, duration_ms, outcome, code, text, next_try_at) "
    "VALUES {rows}"
)
_MOVE = (
    "WITH v (status, code, reason, retry_at, retry_until, since, now, seq) AS (VALUES {rows}) "
    "UPDATE deliveries SET status = v.status, code = v.code, reason = v.reason, next_attempt_at = v.retry_at, "
    "retry_until = v.retry_until, tried_since = v.since, lease_until = NULL, updated_at = v.now "
    "FROM v WHERE deliveries.seq = v.seq"
)


def record(tx: Tx, tries: Sequence[AttemptResult]) -> None:
    """Store every try and what it makes of its delivery and notification: ``retry`` puts the delivery back into the
    outbox, None ends it. What was erased while it was on its way is passed over."""
    by_id = {encode_id(tried.delivery_id): tried for tried in tries}
    if len(by_id) < len(tries):  # a worker was given up too soon, and another came to the same
        for tried in tries:
            record(tx, [tried])
        return
    if not tries:
        return
    rows = tx.conn.execute(
        "SELECT id, seq, notification_seq, device_seq, status, code, "
        "EXISTS (SELECT 1 FROM deliveries c WHERE c.carrier_seq = deliveries.seq) FROM deliveries "
        f"WHERE id IN ({','.join('?' * len(by_id))})",
        list(by_id),
    ).fetchall()
    attempts, moves = [], {}
    told: dict[int, None] = {}
    missed: dict[int, None] = {}
    for id_, seq, _, _, status, code, _ in rows:
        tried = by_id[id_]
        outcome, retry = tried.outcome, tried.retry
        retry_at, until, since = (retry.at, retry.until, retry.since) if retry is not None else (None, None, None)
        attempts.append(
            (seq, tried.started_at, tried.duration_ms, outcome.outcome, outcome.code, outcome.text, retry_at)
        )
        if status == "sending" or (code == INTERRUPTED and outcome.outcome in ARRIVED):  # it came through after all
            after = _STATUS.get(outcome.outcome) or ("dead" if retry is None else "pending")
            moves[seq] = (after, outcome.code, outcome.text, retry_at, until, since, tx.now_ms, seq)
    execute_rows(tx.conn, _ATTEMPT, attempts)
    execute_rows(tx.conn, _MOVE, list(moves.values()))
    back = [seq for seq, move in moves.items() if move[0] == "pending"]
    missed |= dict.fromkeys(cancel_deliveries(tx, ends_of(tx, back)) if back else ())
    for id_, seq, notification_seq, device_seq, _, _, carries in rows:
        tried = by_id[id_]
        over = {notification_seq: None}
        if carries and seq in moves and tried.retry is None:
            over |= dict.fromkeys(resolve_bundled(tx, seq, tried.outcome))
        if device_seq is not None:
            _tell_device(tx, device_seq, tried)
        told |= over
        if tried.outcome.outcome not in ARRIVED:
            missed |= over
    for notification_seq in missed:
        next_in_chain(tx, notification_seq)
    settle_all(tx, told | missed)


def attempt(tx: Tx, seq: int, started_at: int, duration_ms: int, outcome: Outcome, *, next_try_at: int | None) -> None:
    """Store one try and nothing else."""
    execute_rows(
        tx.conn, _ATTEMPT, [(seq, started_at, duration_ms, outcome.outcome, outcome.code, outcome.text, next_try_at)]
    )


def resolve_bundled(tx: Tx, seq: int, outcome: Outcome) -> list[int]:
    """What became of a summary became of everything in it; returns the notifications that it tells of."""
    rows = tx.conn.execute(
        "UPDATE deliveries SET status = ?, code = 'in_summary', reason = ?, updated_at = ? WHERE carrier_seq = ? "
        "AND status = 'pending' RETURNING notification_seq",
        (_STATUS.get(outcome.outcome, "dead"), f"In a summary: {outcome.text}"[:400], tx.now_ms, seq),
    ).fetchall()
    return [notification_seq for (notification_seq,) in rows]


def _tell_device(tx: Tx, device_seq: int, tried: AttemptResult) -> None:
    if tried.outcome.outcome == "token_dead":  # unless it was registered again while the provider thought about it
        tx.conn.execute(
            "UPDATE device_tokens SET is_active = 0, updated_at = ? WHERE seq = ? AND updated_at <= ?",
            (tx.now_ms, device_seq, tried.started_at),
        )
    elif tried.outcome.outcome in ARRIVED:
        tx.conn.execute("UPDATE device_tokens SET last_used_at = ? WHERE seq = ?", (tx.now_ms, device_seq))


_NEXT_IN_CHAIN = """
WITH all_of AS (
    SELECT channel, status, code, release_at, status = 'held' AND code = 'failover' AS waits
    FROM deliveries WHERE notification_seq = ?2
), elsewhere AS (
    SELECT status FROM all_of WHERE NOT waits
    AND (channel <> 'in_app' OR NOT EXISTS (SELECT 1 FROM all_of WHERE NOT waits AND channel <> 'in_app'))
)
UPDATE deliveries SET release_at = ?1
WHERE notification_seq = ?2 AND status = 'held' AND code = 'failover' AND release_at > ?1
AND release_at = (SELECT MIN(release_at) FROM all_of WHERE waits)
AND NOT EXISTS (SELECT 1 FROM elsewhere WHERE status IN ('pending', 'sending', 'sent', 'delivered', 'held'))
"""


def next_in_chain(tx: Tx, notification_seq: int) -> None:
    """Make the next stage of a fail-over chain due, once nothing else can tell its user: the resolver's own rule."""
    tx.conn.execute(_NEXT_IN_CHAIN, (tx.now_ms, notification_seq))
